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
mod last_boot;
mod logs;
pub mod output;
pub mod progress;
mod ps;
mod reboot;
mod report;
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
use argh::{EarlyExit, FromArgs};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The run directory unless `--run-dir` names another: control socket, logs and records of one supervisor.
pub const RUN_DIR: &str = "/run/coracle";

/// What stands above the list of the commands.
const ABOUT: &str = "Usage: coracle <command> [<args>]

A tiny container runtime and service supervisor for embedded and edge Linux devices. Example: coracle up -c /etc/coracle/config.json

Options:
  -h, --help        display usage information

Commands:";

/// Takes a command's name and the words behind it, and runs it, unless they are wrong or ask for its help.
type Run = fn(&str, &[&str]) -> Result<u8, EarlyExit>;

/// All commands. To the argument parser each is a program of its own: as subcommands of one they would hold what they say of
/// themselves twice.
const COMMANDS: [(&str, Run); 34] = [
    ("bake", |name, words| Ok(bake::run(&parsed(name, words)?))),
    ("check", |name, words| Ok(check::run(&parsed(name, words)?))),
    ("doctor", |name, words| Ok(doctor::run(&parsed(name, words)?))),
    ("down", |name, words| Ok(down::run(&parsed(name, words)?))),
    ("events", |name, words| Ok(events::events(&parsed(name, words)?))),
    ("exec", |name, words| Ok(exec::run(&parsed(name, words)?))),
    ("halt", reboot::halt),
    ("hold", |name, words| Ok(act::hold(&parsed(name, words)?))),
    ("images", |name, words| Ok(images::list::images(&parsed(name, words)?))),
    ("init", |name, words| Ok(reboot::init(&parsed(name, words)?))),
    ("inspect", |name, words| Ok(inspect::run(&parsed(name, words)?))),
    ("kill", |name, words| Ok(act::kill(&parsed(name, words)?))),
    ("logs", |name, words| Ok(logs::run(&parsed(name, words)?))),
    ("pack", |name, words| Ok(images::pack::run(&parsed(name, words)?))),
    ("pause", act::pause),
    ("poweroff", reboot::poweroff),
    ("prune", |name, words| Ok(images::list::prune(&parsed(name, words)?))),
    ("ps", |name, words| Ok(ps::run(&parsed(name, words)?))),
    ("reboot", |name, words| Ok(reboot::reboot(&parsed(name, words)?))),
    ("report", |name, words| Ok(report::run(&parsed(name, words)?))),
    ("restart", act::restart),
    ("rmi", |name, words| Ok(images::list::rmi(&parsed(name, words)?))),
    ("run", |name, words| Ok(run::run(&parsed(name, words)?))),
    ("start", act::start),
    ("stats", |name, words| Ok(stats::run(&parsed(name, words)?))),
    ("stop", act::stop),
    ("top", |name, words| Ok(top::run(&parsed(name, words)?))),
    ("unpack", |name, words| Ok(images::unpack::run(&parsed(name, words)?))),
    ("unpause", act::unpause),
    ("up", |name, words| Ok(up::run(&parsed(name, words)?))),
    ("upgrade", |name, words| Ok(upgrade::run(&parsed(name, words)?))),
    ("verify", |name, words| Ok(images::list::verify(&parsed(name, words)?))),
    ("version", |name, words| parsed(name, words).map(|_: VersionArgs| version())),
    ("why", |name, words| Ok(events::why(&parsed(name, words)?))),
];

/// Print the version.
///
/// Example: coracle version
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
struct VersionArgs {}

/// The commands that start processes in containers, from a binary that nothing in there can write to.
const STARTS_PROCESSES: [&str; 4] = ["exec", "run", "up", TAKE_OVER];

/// Names by which the program is called as if the command of that name were typed.
const NAMES: [&str; 4] = ["init", "reboot", "poweroff", "halt"];

/// Runs the command line and gives the process's exit code. The board's first process never comes back from it.
pub fn main() -> std::process::ExitCode {
    let mut words: Vec<OsString> = Vec::new();
    for word in std::env::args_os() {
        words.push(word);
    }
    if std::process::id() == 1 && (named(&words) == Some("init") || boot::is_board()) {
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
    start(&words)
}

/// The command that the program's own name, or else the first word, stands for, among [`NAMES`].
fn named(words: &[OsString]) -> Option<&'static str> {
    let program = words.first().and_then(|word| Path::new(word).file_name());
    let is = |word: Option<&OsStr>| NAMES.into_iter().find(|name| word == Some(OsStr::new(name)));
    is(program).or_else(|| is(words.get(1).map(OsString::as_os_str)))
}

/// `reboot -f` as `coracle reboot -f`.
fn spelled_out(name: &str, words: Vec<OsString>) -> Vec<OsString> {
    let mut spelled: Vec<OsString> = vec!["coracle".into(), name.into()];
    spelled.extend_from_slice(words.get(1..).unwrap_or_default());
    spelled
}

/// Not in the frame of [`main`], which is there before the binary is sealed and once more after it.
#[inline(never)]
fn start(words: &[OsString]) -> std::process::ExitCode {
    crate::sys::wait::keep_ended_children();
    let mut given = Vec::with_capacity(words.len());
    for word in words.get(1..).unwrap_or_default() {
        let Some(text) = word.to_str() else {
            output::complain(&format_args!("the argument {word:?} is no UTF-8 text"));
            return exit::USAGE.into();
        };
        given.push(text.to_owned());
    }
    dispatch(&given).into()
}

/// Parses the words behind `coracle` and runs the command.
fn dispatch(given: &[String]) -> u8 {
    let given: Vec<String> = match given {
        [] => vec!["help".into()],
        [help, command, ..] if is_help(help) => vec![command.clone(), "--help".into()],
        [version] if version == "--version" || version == "-V" => vec!["version".into()],
        words => words::normalise(words),
    };
    let words: Vec<&str> = given.iter().map(String::as_str).skip_while(|word| *word == "--").collect();
    let (first, words) = words.split_first().map_or(("help", &[][..]), |(first, words)| (*first, words));
    if is_help(first) {
        output::line(&help());
        return exit::OK;
    }
    let Some((name, run)) = COMMANDS.iter().find(|(name, _)| *name == first) else {
        output::complain(&match first.starts_with('-') {
            true => usage_error("", &help(), &format!("{UNKNOWN}{first}")),
            false => {
                let near = or_near(first, &mut COMMANDS.iter().map(|(name, _)| *name));
                format!("unknown command '{first}'{near}\n`coracle help` lists the commands")
            }
        });
        return exit::USAGE;
    };
    match run(name, words) {
        Ok(code) => code,
        Err(EarlyExit { output: help, status: Ok(()) }) => {
            output::line(&help.trim_end());
            exit::OK
        }
        Err(EarlyExit { output: error, status: Err(()) }) => {
            output::complain(&usage_error(&format!(" {name}"), &help_of(name, *run), error.trim_end()));
            exit::USAGE
        }
    }
}

fn is_help(word: &str) -> bool {
    matches!(word, "help" | "-h" | "--help")
}

/// The arguments of the command `name`.
fn parsed<T: FromArgs>(name: &str, words: &[&str]) -> Result<T, EarlyExit> {
    T::from_args(&["coracle", name], words)
}

/// The same of a command that shares its arguments with others, where the help of them all says `WHAT` for what each does.
fn shared<T: FromArgs>(name: &str, words: &[&str], what: &str) -> Result<T, EarlyExit> {
    parsed(name, words).map_err(|early| EarlyExit { output: early.output.replacen("WHAT", what, 1), ..early })
}

/// The help of a command.
fn help_of(name: &str, run: Run) -> String {
    run(name, &["--help"]).err().map(|early| early.output).unwrap_or_default()
}

/// Where the list begins to say what a command does, and how many characters a line has at most.
const COLUMN: usize = 20;
const COLUMNS: usize = 80;

/// The list of the commands, each with the paragraph that stands below the first line of its own help.
fn help() -> String {
    let mut list = ABOUT.to_owned();
    for (name, run) in COMMANDS {
        let help = help_of(name, run);
        list.push_str(&format!("\n  {name:<0$}", COLUMN - 2));
        let mut column = COLUMN;
        for word in help.split("\n\n").nth(1).unwrap_or_default().split(' ') {
            if column > COLUMN {
                let fits = column + 1 + word.len() <= COLUMNS;
                list.push_str(&if fits { " ".into() } else { format!("\n{:COLUMN$}", "") });
                column = if fits { column + 1 } else { COLUMN };
            }
            list.push_str(word);
            column += word.len();
        }
    }
    list
}

/// How the parser begins its error about an argument that it does not know.
const UNKNOWN: &str = "Unrecognized argument: ";

/// The parser's error with the nearest option that exists and the way to the help. `command` has a space before it.
fn usage_error(command: &str, help: &str, error: &str) -> String {
    let unknown = error.strip_prefix(UNKNOWN).unwrap_or_default();
    let mut options = help
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| word.starts_with("--") && *word != "--");
    let near = if unknown.starts_with("--") { or_near(unknown, &mut options) } else { String::new() };
    let sentence = if unknown.is_empty() { error.to_owned() } else { format!("unknown argument '{unknown}'{near}") };
    format!("{sentence}\n`coracle{command} -h` shows what it takes, with an example")
}

/// The end of a sentence about a word that is not known, with the one that was meant.
fn or_near(typed: &str, known: &mut dyn Iterator<Item = &str>) -> String {
    did_you_mean(typed, known).map_or(String::new(), |near| format!(": did you mean '{near}'?"))
}

fn version() -> u8 {
    output::line(&format_args!("coracle {}", env!("CARGO_PKG_VERSION")));
    exit::OK
}
