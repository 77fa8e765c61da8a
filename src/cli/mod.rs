//! What a person types. Each command has a file with its arguments and its action; this one lists them.
#![forbid(unsafe_code)]

mod act;
mod bake;
pub mod check;
mod doctor;
pub mod down;
mod events;
mod exec;
mod images;
mod inspect;
mod logs;
pub mod output;
pub mod progress;
mod ps;
mod reboot;
mod run;
mod services;
mod stats;
pub mod table;
mod tail;
mod top;
pub mod tty;
pub mod up;
mod upgrade;
mod words;

use crate::base::exit;
use crate::base::suggest::did_you_mean;
use crate::boot;
use crate::sandbox::sealed;
use crate::supervisor::handover::{CHECK, Call, TAKE_OVER};
use argh::{EarlyExit, FromArgs, SubCommands};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The run directory unless `--run-dir` names another: control socket, logs and records of one supervisor.
pub const RUN_DIR: &str = "/run/coracle";

/// A tiny container runtime and service supervisor for embedded and edge Linux devices.
///
/// Example: coracle up -c /etc/coracle/config.json
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
struct Coracle {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Bake(bake::BakeArgs),
    Check(check::CheckArgs),
    Doctor(doctor::DoctorArgs),
    Down(down::DownArgs),
    Events(events::EventsArgs),
    Exec(exec::ExecArgs),
    Halt(reboot::HaltArgs),
    Hold(act::HoldArgs),
    Images(images::list::ImagesArgs),
    Init(reboot::InitArgs),
    Inspect(inspect::InspectArgs),
    Kill(act::KillArgs),
    Logs(logs::LogsArgs),
    Pack(images::pack::PackArgs),
    Pause(act::PauseArgs),
    Poweroff(reboot::PoweroffArgs),
    Prune(images::list::PruneArgs),
    Ps(ps::PsArgs),
    Reboot(reboot::RebootArgs),
    Restart(act::RestartArgs),
    Rmi(images::list::RmiArgs),
    Run(run::RunArgs),
    Start(act::StartArgs),
    Stats(stats::StatsArgs),
    Stop(act::StopArgs),
    Top(top::TopArgs),
    Unpack(images::unpack::UnpackArgs),
    Unpause(act::UnpauseArgs),
    Up(up::UpArgs),
    Upgrade(upgrade::UpgradeArgs),
    Verify(images::list::VerifyArgs),
    Version(VersionArgs),
    Why(events::WhyArgs),
}

/// Print the version.
///
/// Example: coracle version
#[derive(FromArgs)]
#[argh(subcommand, name = "version", help_triggers("-h", "--help"))]
struct VersionArgs {}

/// The commands that start processes in containers, from a binary that nothing in there can write to.
const STARTS_PROCESSES: [&str; 4] = ["exec", "run", "up", TAKE_OVER];

/// Names by which the program is called as if the command of that name were typed.
const NAMES: [&str; 4] = ["init", "reboot", "poweroff", "halt"];

/// Runs the command line and gives the process's exit code. The board's first process never comes back from it.
pub fn main() -> std::process::ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if std::process::id() == 1 && (boot::is_board() || named(&words) == Some("init")) {
        boot::init::run(&words);
    }
    let words = match named(&words) {
        Some(name) if words.get(1).is_none_or(|word| word != name) => spelled_out(name, words),
        _ => words,
    };
    if let Some(word) = words.get(1).and_then(|word| word.to_str()).filter(|word| STARTS_PROCESSES.contains(word))
        && let Err(sentence) = sealed::ensure(&words)
    {
        Call::of(&words).iter().for_each(|call| call.go_back(&sentence));
        output::complain(&sentence);
        return if word == "up" { exit::FAILED } else { exit::RUN_FAILED }.into();
    }
    if let Some(call) = Call::of(&words) {
        return up::take_over(call).into();
    }
    if words.get(1).is_some_and(|word| word == CHECK) {
        return upgrade::check(words.get(2).and_then(|word| word.to_str()).unwrap_or_default()).into();
    }
    start(words)
}

/// The command that the program's own name, or else the first word, stands for, among [`NAMES`].
fn named(words: &[OsString]) -> Option<&'static str> {
    let program = words.first().and_then(|word| Path::new(word).file_name());
    let is = |word: Option<&OsStr>| NAMES.into_iter().find(|name| word == Some(OsStr::new(name)));
    is(program).or_else(|| is(words.get(1).map(OsString::as_os_str)))
}

/// `reboot -f` as `coracle reboot -f`.
fn spelled_out(name: &str, words: Vec<OsString>) -> Vec<OsString> {
    ["coracle".into(), name.into()].into_iter().chain(words.into_iter().skip(1)).collect()
}

/// Not in the frame of [`main`], which is there before the binary is sealed and once more after it.
#[inline(never)]
fn start(words: Vec<OsString>) -> std::process::ExitCode {
    crate::sys::wait::keep_ended_children();
    let given: Result<Vec<String>, _> = words.into_iter().skip(1).map(OsString::into_string).collect();
    let code = match given {
        Ok(words) => dispatch(&words),
        Err(word) => {
            output::complain(&format!("the argument {word:?} is no UTF-8 text"));
            exit::USAGE
        }
    };
    code.into()
}

/// Parses the words behind `coracle` and runs the command.
fn dispatch(given: &[String]) -> u8 {
    let given: Vec<String> = match given {
        [] => vec!["--help".into()],
        [help] if help == "help" => vec!["--help".into()],
        [help, command, ..] if help == "help" => vec![command.clone(), "--help".into()],
        [version] if version == "--version" || version == "-V" => vec!["version".into()],
        words => words::normalise(words),
    };
    if let Some(first) = given.first().filter(|first| !first.starts_with('-') && !is_command(first)) {
        let near = did_you_mean(first, Command::COMMANDS.iter().map(|command| command.name));
        let hint = near.map_or(String::new(), |near| format!(": did you mean '{near}'?"));
        output::complain(&format!("unknown command '{first}'{hint}\n`coracle help` lists the commands"));
        return exit::USAGE;
    }
    match parse(&given) {
        Ok(parsed) => run(parsed.command),
        Err(EarlyExit { output: help, status: Ok(()) }) => {
            output::line(help.trim_end());
            exit::OK
        }
        Err(EarlyExit { output: error, status: Err(()) }) => {
            output::complain(&usage_error(&given, error.trim_end()));
            exit::USAGE
        }
    }
}

fn parse(words: &[String]) -> Result<Coracle, EarlyExit> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Coracle::from_args(&["coracle"], &words)
}

fn is_command(word: &str) -> bool {
    Command::COMMANDS.iter().any(|command| command.name == word)
}

/// The parser's error with the nearest option that exists and the way to the help.
fn usage_error(given: &[String], error: &str) -> String {
    let command = given.first().filter(|first| is_command(first)).map_or("", String::as_str);
    let help_words: Vec<String> = [command, "--help"].iter().filter(|w| !w.is_empty()).map(|w| (*w).into()).collect();
    let help = parse(&help_words).err().map(|early| early.output).unwrap_or_default();
    let unknown = error.strip_prefix("Unrecognized argument: ").unwrap_or_default();
    let options = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| word.starts_with("--"));
    let near = did_you_mean(unknown, options).filter(|_| unknown.starts_with("--"));
    let near = near.map_or(String::new(), |near| format!(": did you mean '{near}'?"));
    let space = if command.is_empty() { "" } else { " " };
    let sentence = if unknown.is_empty() { error.to_owned() } else { format!("unknown argument '{unknown}'{near}") };
    format!("{sentence}\n`coracle{space}{command} -h` shows what it takes, with an example")
}

fn run(command: Command) -> u8 {
    match command {
        Command::Bake(args) => bake::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Down(args) => down::run(&args),
        Command::Hold(args) => act::hold(&args),
        Command::Images(args) => images::list::images(&args),
        Command::Events(args) => events::events(&args),
        Command::Exec(args) => exec::run(&args),
        Command::Halt(args) => reboot::halt(&args),
        Command::Init(args) => reboot::init(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Kill(args) => act::kill(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Pack(args) => images::pack::run(&args),
        Command::Pause(args) => act::pause(&args),
        Command::Poweroff(args) => reboot::poweroff(&args),
        Command::Prune(args) => images::list::prune(&args),
        Command::Ps(args) => ps::run(&args),
        Command::Reboot(args) => reboot::reboot(&args),
        Command::Restart(args) => act::restart(&args),
        Command::Rmi(args) => images::list::rmi(&args),
        Command::Run(args) => run::run(&args),
        Command::Start(args) => act::start(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Stop(args) => act::stop(&args),
        Command::Unpack(args) => images::unpack::run(&args),
        Command::Unpause(args) => act::unpause(&args),
        Command::Up(args) => up::run(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Verify(args) => images::list::verify(&args),
        Command::Why(args) => events::why(&args),
        Command::Version(_) => {
            output::line(format_args!("coracle {}", env!("CARGO_PKG_VERSION")));
            exit::OK
        }
    }
}
