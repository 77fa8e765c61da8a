//! `coracle logs`: what services said, read from their rings, so it works with the supervisor dead.
#![forbid(unsafe_code)]

use super::tail::{Tail, Watch, print_lost};
use super::{RUN_DIR, last_boot, output, services};
use crate::base::exit;
use crate::base::units::parse_duration;
use crate::log::entry::Entry;
use crate::log::format::{Json, Line};
use crate::supervisor::instance::service_dir;
use crate::supervisor::report::RING;
use argh::FromArgs;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Show what services wrote to standard output, standard error and /dev/log, and what coracle noted about them.
///
/// With --boot -1: what the kernel has kept of the boot before, where the board has memory for it (pstore): the records of
/// the last crashes, the console.
///
/// Times are UTC. Control characters are shown as escapes; "[...]" ends a part of a line that was too long.
///
/// Example: coracle logs -f -n 20 broker
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct LogsArgs {
    /// go on with what comes, also after restarts
    #[argh(switch, short = 'f')]
    follow: bool,
    /// only the last so many entries of each service
    #[argh(option, short = 'n')]
    lines: Option<usize>,
    /// only entries of the last duration, as 90s, 10m or 2h
    #[argh(option, from_str_fn(duration))]
    since: Option<u64>,
    /// what the supervisor itself had to say: starts, ends, failures
    #[argh(switch)]
    supervisor: bool,
    /// -1: of the boot before
    #[argh(option, from_str_fn(boot))]
    boot: Option<()>,
    /// one JSON object per line
    #[argh(switch)]
    json: bool,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// names of services; none: all that ever ran
    #[argh(positional, arg_name = "service")]
    services: Vec<String>,
}

/// Stands for the supervisor among the names; no service can be called so.
const SUPERVISOR: &str = "(supervisor)";

/// Where the ring of a service, or the supervisor's, lies.
fn folder(run_dir: &Path, name: &str) -> PathBuf {
    if name == SUPERVISOR { run_dir.to_owned() } else { service_dir(run_dir, name) }
}

/// The only boot that anything is known of.
fn boot(text: &str) -> Result<(), String> {
    if text == "-1" { Ok(()) } else { Err(format!("'{text}' is not kept: -1 is the boot before this one")) }
}

/// A duration in nanoseconds.
fn duration(text: &str) -> Result<u64, String> {
    let parsed = parse_duration(text).map_err(|_| format!("'{text}' is no duration: write 90s, 10m or 2h"))?;
    Ok(parsed.0.saturating_mul(1_000_000))
}

/// Runs the command.
pub fn run(args: &LogsArgs) -> u8 {
    if args.boot.is_some() {
        return last_boot::show();
    }
    if args.supervisor {
        if !args.services.is_empty() {
            output::complain(&"--supervisor shows the supervisor's own log: name no service beside it");
            return exit::USAGE;
        }
        if !args.run_dir.join(RING).exists() {
            let dir = args.run_dir.display();
            output::complain(&format_args!("no supervisor has run in {dir}: start one with `coracle up`"));
            return exit::FAILED;
        }
        return shown(args, &[SUPERVISOR.to_owned()]);
    }
    let names = if args.services.is_empty() { services::known(&args.run_dir) } else { args.services.clone() };
    if names.is_empty() {
        let dir = args.run_dir.display();
        output::complain(&format_args!("nothing has run in {dir}: start something with `coracle up`"));
        return exit::FAILED;
    }
    if !names.iter().all(|name| services::check(&args.run_dir, name)) {
        return exit::NO_SUCH_SERVICE;
    }
    shown(args, &names)
}

fn shown(args: &LogsArgs, names: &[String]) -> u8 {
    match show(args, names) {
        Ok(()) => exit::OK,
        Err(sentence) => {
            output::complain(&sentence);
            exit::FAILED
        }
    }
}

fn show(args: &LogsArgs, names: &[String]) -> Result<(), String> {
    // Watched before they are read, so that nothing falls between.
    let folders = names.iter().map(|name| folder(&args.run_dir, name));
    let watch = if args.follow { Some(Watch::new(&mut folders.clone())?) } else { None };
    let log = |(name, folder): (&String, PathBuf)| (name.clone(), Tail::new(folder.join(RING)));
    let mut logs: Vec<(String, Tail)> = names.iter().zip(folders).map(log).collect();
    let many = logs.len() > 1;
    let mut entries: Vec<Kept> = Vec::new();
    for (service, log) in &mut logs {
        let mut of_one = VecDeque::new();
        let lost = log.read(&mut |entry| {
            let kept = Kept::of(service, entry);
            if args.lines.is_some_and(|most| of_one.len() >= most) {
                of_one.pop_front();
            }
            if args.lines != Some(0) && args.since.is_none_or(|span| kept.wall_ns >= now_ns().saturating_sub(span)) {
                of_one.push_back(kept);
            }
        })?;
        if lost > 0 && args.lines.is_none() && args.since.is_none() {
            print_lost(args.json, many.then_some(service.as_str()), lost, "earlier entries overwritten");
        }
        for kept in of_one {
            entries.push(kept);
        }
    }
    if many {
        // Stable: entries of one service stay in their order when the clock was set.
        crate::base::sort::sort_by(&mut entries, |a, b| a.wall_ns.cmp(&b.wall_ns));
    }
    let shown = |kept: &Kept| print(args, many, kept);
    entries.iter().for_each(shown);
    let Some(watch) = watch else { return Ok(()) };
    loop {
        watch.wait()?;
        for (service, log) in &mut logs {
            let lost = log.read(&mut |entry| shown(&Kept::of(service, entry)))?;
            if lost > 0 {
                print_lost(args.json, many.then_some(service.as_str()), lost, "entries lost while reading");
            }
        }
    }
}

/// An entry that waits to be shown.
struct Kept {
    service: String,
    wall_ns: u64,
    line: String,
    json: String,
}

impl Kept {
    fn of(service: &str, entry: &Entry) -> Kept {
        Kept {
            service: service.to_owned(),
            wall_ns: entry.stamp.wall_ns,
            line: Line(entry).to_string(),
            json: Json { service, entry }.to_string(),
        }
    }
}

fn print(args: &LogsArgs, many: bool, kept: &Kept) {
    match (args.json, many) {
        (true, _) => output::line(&kept.json),
        (false, true) => output::line(&format_args!("{:<12} {}", kept.service, kept.line)),
        (false, false) => output::line(&kept.line),
    }
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
