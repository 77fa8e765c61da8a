//! `coracle check`: every problem of a config file and of the board, or the plan.

use super::output;
use super::table::Table;
use crate::base::exit;
use crate::base::json::Quoted;
use crate::base::read::read_up_to;
use crate::base::units::{self, Bytes};
use crate::config::Problem;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::plan::{Kind, Memory, Plan, Root, Service};
use crate::supervisor::answer;
use crate::supervisor::board::{self, Board, BoardProblem, Profile};
use crate::supervisor::config_file::{self, Fault, Texts};
use argh::FromArgs;
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Show every problem of a config file and of the board, or the plan: the services in start order with their limits.
///
/// Example: coracle check --root rootfs --memory 128M --arch arm64 rootfs/etc/coracle/config.json
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct CheckArgs {
    /// the config file (default: /etc/coracle/config.json)
    #[argh(positional)]
    file: Option<PathBuf>,

    /// look for images and other paths beneath this folder: the board's file system while it is being built
    #[argh(option, arg_name = "dir")]
    root: Option<PathBuf>,

    /// memory of the smallest board, such as 128M, in place of device.memory
    #[argh(option, arg_name = "size", from_str_fn(memory))]
    memory: Option<Bytes>,

    /// architecture of the board, such as arm64, arm/v7 or amd64 (default: this machine's, unless --root is given)
    #[argh(option, arg_name = "arch", from_str_fn(arch))]
    arch: Option<Platform>,

    /// judge by this profile, which `coracle doctor --json` wrote on the board: its kernel, memory and devices
    #[argh(option, arg_name = "file")]
    board: Option<PathBuf>,

    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Reads a board's profile.
///
/// # Errors
/// The exit code, after saying what is wrong.
pub fn profile(file: &Path) -> Result<Profile, u8> {
    /// Some 60 features, and device nodes of a hundred bytes each.
    const PROFILE_BYTES: u64 = 1 << 20;
    let read = File::open(file).and_then(|mut file| read_up_to(&mut file, PROFILE_BYTES));
    let profile = read.map_err(|error| error.to_string()).and_then(|bytes| Profile::from_json(&bytes));
    profile.map_err(|error| {
        output::complain(&format_args!("cannot use the board's profile {}: {error}", file.display()));
        exit::FAILED
    })
}

/// The config file that is meant: the one named, or the usual one, beneath `root` if that is given.
pub fn config_file(named: Option<&PathBuf>, root: Option<&Path>) -> PathBuf {
    let usual = match root {
        Some(root) => root.join(config_file::DEFAULT.trim_start_matches('/')),
        None => config_file::DEFAULT.into(),
    };
    named.cloned().unwrap_or(usual)
}

/// Whether `--root` is a folder; if not, that has been said.
pub fn is_root(root: Option<&Path>) -> bool {
    let bad = root.filter(|root| !root.is_dir());
    bad.into_iter().for_each(|root| output::complain(&format_args!("--root {} is no folder", root.display())));
    bad.is_none()
}

/// Reads the value of `--memory`.
pub fn memory(text: &str) -> Result<Bytes, String> {
    units::parse_bytes(text).map_err(|_| format!("{text:?} is no size such as 128M"))
}

/// Reads the value of `--arch`.
pub fn arch(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| format!("{text:?} is no architecture such as arm64, arm/v7 or amd64"))
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> u8 {
    let file = config_file(args.file.as_ref(), args.root.as_deref());
    if !is_root(args.root.as_deref()) {
        return exit::USAGE;
    }
    let board = match board(args) {
        Ok(board) => board,
        Err(code) => return code,
    };
    let texts = match Texts::read(&file, &board.files) {
        Ok(texts) => texts,
        Err(sentence) => return refuse(&file, &Fault::Unreadable(sentence), args.json),
    };
    let (plan, warnings) = match texts.load() {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&file, &Fault::Problems(problems), args.json),
    };
    let found = judge(&plan, &board);
    if args.json {
        output::line(&json(&file, &plan, &warnings, &board, &found));
    } else {
        show(&file, &texts, &plan, &warnings, &board, &found);
    }
    if found.is_empty() { exit::OK } else { exit::INVALID }
}

/// All that the board lacks for the plan.
pub fn judge(plan: &Plan, board: &Board) -> Vec<BoardProblem> {
    let mut found = board::problems(plan, board);
    found.extend(board::image_problems(plan, board));
    found
}

fn board(args: &CheckArgs) -> Result<Board, u8> {
    let mut board = match &args.root {
        Some(root) => Board::beneath(root),
        None => Board::here(),
    };
    if let Some(file) = &args.board {
        board = board.with_profile(profile(file)?);
    }
    board.memory = args.memory;
    if args.arch.is_some() {
        board.platform = args.arch.clone();
    }
    Ok(board)
}

/// Reports a file that gives no plan.
pub fn refuse(file: &Path, fault: &Fault, json: bool) -> u8 {
    match (fault, json) {
        (Fault::Problems(problems), true) => output::line(&format_args!(
            "{{\"file\":{},\"ok\":false,\"problems\":{},\"more\":{}}}",
            Quoted(&file.display().to_string()),
            problems_json(&problems.list),
            problems.more
        )),
        (Fault::Problems(problems), false) => output::explain(&problems),
        (Fault::Unreadable(sentence), true) => output::line(&format_args!(
            "{{\"file\":{},\"ok\":false,\"error\":{}}}",
            Quoted(&file.display().to_string()),
            Quoted(sentence)
        )),
        (Fault::Unreadable(sentence), false) => output::complain(&sentence),
    }
    exit::INVALID
}

fn show(file: &Path, texts: &Texts, plan: &Plan, warnings: &[Problem], board: &Board, found: &[BoardProblem]) {
    explain(file, plan, warnings, found);
    let shown = file.display();
    output::line(&table(plan, board));
    output::line(&memory_line(plan, board));
    if found.is_empty() {
        let services = count(plan.services.len(), "service");
        let warned =
            if warnings.is_empty() { String::new() } else { format!(", {}", count(warnings.len(), "warning")) };
        let files = match texts.count() {
            1 => String::new(),
            number => format!(" from {number} files"),
        };
        output::line(&format_args!("{shown}: good: {services}{files}{warned}"));
    }
    if board.platform.is_none() {
        output::line(&"Images are not looked into: give --arch, the board's architecture.");
    }
    if board.kernel.is_none() {
        output::line(
            &"Devices and the kernel are not checked: give --board, a profile that `coracle doctor --json` wrote there.",
        );
    }
}

/// Warnings and what the board lacks, on standard error.
pub fn explain(file: &Path, plan: &Plan, warnings: &[Problem], found: &[BoardProblem]) {
    for warning in warnings {
        output::explain(&format_args!("{warning}\n"));
    }
    if !found.is_empty() {
        for (services, problem) in grouped(plan, found) {
            output::explain(&format_args!("{services}: {}", problem.message));
            if !problem.hint.is_empty() {
                output::explain(&format_args!("     = {}", problem.hint));
            }
        }
        let (shown, problems) = (file.display(), count(found.len(), "problem"));
        output::explain(&format_args!("\n{shown}: the file is good; the board has {problems}"));
    }
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Problems with the names of the services that they concern; the same one of several services is shown once.
fn grouped<'a>(plan: &Plan, found: &'a [BoardProblem]) -> Vec<(String, &'a BoardProblem)> {
    let name = |problem: &BoardProblem| match problem.service.and_then(|index| plan.services.get(index)) {
        Some(service) => service.name.to_string(),
        None => "board".to_owned(),
    };
    let mut groups: Vec<(String, &BoardProblem)> = Vec::new();
    for problem in found {
        match groups.iter_mut().find(|(_, other)| (&other.message, &other.hint) == (&problem.message, &problem.hint)) {
            Some((names, _)) => {
                let _ = write!(names, ", {}", name(problem));
            }
            None => groups.push((name(problem), problem)),
        }
    }
    groups
}

fn ordered(plan: &Plan) -> impl Iterator<Item = &Service> {
    plan.start_order.iter().filter_map(|index| plan.services.get(usize::from(*index)))
}

fn kind(service: &Service) -> &'static str {
    match service.kind {
        Kind::Daemon => "daemon",
        Kind::Oneshot => "oneshot",
    }
}

fn memory_text(memory: Memory) -> String {
    match memory {
        Memory::Max(bytes) => bytes.to_string(),
        Memory::Unlimited => "unlimited".into(),
    }
}

/// Where the service's image is, as a person finds it.
fn image_place(plan: &Plan, board: &Board, service: &Service) -> Option<(String, Vec<String>)> {
    let reference = Reference::parse(service.image()?).ok()?;
    let found = board.files.image(&plan.device, &reference)?;
    let shadowed = found.shadowed.iter().map(|path| board.files.shown(path)).collect();
    Some((board.files.shown(&found.path), shadowed))
}

fn table(plan: &Plan, board: &Board) -> Table {
    let mut table = Table::new(&[">START", "SERVICE", "TYPE", ">MEMORY", ">PIDS", ">CPU", "NEEDS", "IMAGE"]);
    let mut place = 0;
    for service in ordered(plan) {
        let start = if service.enabled {
            place += 1;
            place.to_string()
        } else {
            "off".into()
        };
        let image = match (service.image(), image_place(plan, board, service)) {
            (None, _) => format!("host: {}", service.command.first().map_or("", |program| &**program)),
            (_, Some((path, shadowed))) if shadowed.is_empty() => path,
            (_, Some((path, shadowed))) => format!("{path} (hides {})", shadowed.join(", ")),
            (Some(image), None) => format!("{image} (missing)"),
        };
        table.row(vec![
            start,
            service.name.to_string(),
            kind(service).into(),
            memory_text(service.limits.memory),
            service.limits.pids.to_string(),
            service.limits.cpu.map(|cpu| format!("{cpu}%")).unwrap_or_default(),
            answer::needs(plan, service).join(" "),
            image,
        ]);
    }
    table
}

fn memory_line(plan: &Plan, board: &Board) -> String {
    let sum = board::memory_sum(plan);
    let room = match board.room(&plan.device) {
        Some(room) => format!("of {room}"),
        None => "the board's memory is not known: give --memory or device.memory".into(),
    };
    let unlimited = match sum.unlimited {
        0 => String::new(),
        number => format!("; {} without a limit", count(number, "service")),
    };
    let oneshots = match sum.oneshots {
        Bytes(0) => String::new(),
        bytes => format!(" ({bytes} of it until the oneshots are done)"),
    };
    format!("memory: {} of limits{oneshots} and {} of logs, {room}{unlimited}", sum.limits, sum.logs)
}

fn problems_json(problems: &[Problem]) -> String {
    let one = |problem: &Problem| {
        format!(
            "{{\"file\":{},\"line\":{},\"column\":{},\"message\":{},\"hint\":{}}}",
            Quoted(&problem.file),
            problem.line,
            problem.column,
            Quoted(&problem.message),
            or_null(problem.hint.as_deref())
        )
    };
    list(&mut problems.iter().map(one))
}

fn list(items: &mut dyn Iterator<Item = String>) -> String {
    let mut list = String::from("[");
    for (number, item) in items.enumerate() {
        let comma = if number > 0 { "," } else { "" };
        list.push_str(comma);
        list.push_str(&item);
    }
    list.push(']');
    list
}

fn or_null(text: Option<&str>) -> String {
    text.map_or("null".into(), |text| Quoted(text).to_string())
}

fn json(file: &Path, plan: &Plan, warnings: &[Problem], board: &Board, found: &[BoardProblem]) -> String {
    let board_problem = |problem: &BoardProblem| {
        let service = problem.service.and_then(|index| plan.services.get(index));
        format!(
            "{{\"service\":{},\"message\":{},\"hint\":{}}}",
            or_null(service.map(|service| service.name.as_str())),
            Quoted(&problem.message),
            Quoted(&problem.hint)
        )
    };
    let service = |service: &Service| {
        let limits = &service.limits;
        let memory = match limits.memory {
            Memory::Max(bytes) => bytes.0.to_string(),
            Memory::Unlimited => "null".into(),
        };
        format!(
            "{{\"name\":{},\"enabled\":{},\"type\":\"{}\",\"root\":\"{}\",\"image\":{},\"memory\":{memory},\"pids\":{},\"cpu_percent\":{},\"needs\":{}}}",
            Quoted(service.name.as_str()),
            service.enabled,
            kind(service),
            if service.root == Root::Host { "host" } else { "image" },
            or_null(image_place(plan, board, service).map(|(path, _)| path).as_deref()),
            limits.pids,
            limits.cpu.map_or("null".into(), |cpu| cpu.to_string()),
            list(&mut answer::needs(plan, service).iter().map(|name| Quoted(name).to_string()))
        )
    };
    let sum = board::memory_sum(plan);
    format!(
        "{{\"file\":{},\"ok\":{},\"warnings\":{},\"board\":{},\"services\":{},\"memory\":{{\"limits\":{},\"logs\":{},\"room\":{}}}}}",
        Quoted(&file.display().to_string()),
        found.is_empty(),
        problems_json(warnings),
        list(&mut found.iter().map(board_problem)),
        list(&mut ordered(plan).map(service)),
        sum.limits.0,
        sum.logs.0,
        board.room(&plan.device).map_or("null".into(), |room| room.left().0.to_string())
    )
}
