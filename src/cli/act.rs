//! `coracle start`, `stop`, `restart`, `kill`, `pause`, `unpause`: act on services through the supervisor.
#![forbid(unsafe_code)]

use super::{RUN_DIR, output, shared};
use crate::base::suggest::did_you_mean;
use crate::base::units::{Millis, parse_duration};
use crate::base::{exit, signal};
use crate::control::client::{Answer, Client};
use crate::control::wire::Verb;
use argh::{EarlyExit, FromArgs};
use std::path::{Path, PathBuf};

/// WHAT
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
struct ServicesArgs {
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// names of services
    #[argh(positional, arg_name = "service")]
    services: Vec<String>,
}

/// Leave services alone for a while: no restart, no watchdog, no timeout of their start, no escalation, so that someone can
/// debug them. The hardware watchdog is fed meanwhile. Ends by itself.
///
/// Example: coracle hold --for 30m broker
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct HoldArgs {
    /// for how long (30m); 0 ends it
    #[argh(option, long = "for", default = "String::from(\"30m\")")]
    time: String,
    /// all services
    #[argh(switch)]
    all: bool,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// names of services
    #[argh(positional, arg_name = "service")]
    services: Vec<String>,
}

/// Send a signal to the main process of services. What happens when that ends them is up to their restart policy.
///
/// Example: coracle kill -s HUP broker
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct KillArgs {
    /// signal by name or number (KILL)
    #[argh(option, short = 's', default = "String::from(\"KILL\")")]
    signal: String,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// names of services
    #[argh(positional, arg_name = "service")]
    services: Vec<String>,
}

/// `coracle start`.
pub fn start(name: &str, words: &[&str]) -> Result<u8, EarlyExit> {
    let what = "Start services, and first what they need. Returns when they run. Example: coracle start broker";
    on_each(name, words, Verb::Start, what)
}

/// `coracle stop`.
pub fn stop(name: &str, words: &[&str]) -> Result<u8, EarlyExit> {
    let what =
        "Stop services until the next boot. Returns when nothing of them is left. Example: coracle stop broker web";
    on_each(name, words, Verb::Stop, what)
}

/// `coracle restart`.
pub fn restart(name: &str, words: &[&str]) -> Result<u8, EarlyExit> {
    let what = "Stop services and start them again. Returns when they run. Example: coracle restart broker";
    on_each(name, words, Verb::Restart, what)
}

/// `coracle pause`.
pub fn pause(name: &str, words: &[&str]) -> Result<u8, EarlyExit> {
    on_each(name, words, Verb::Pause, "Freeze every process of services where it is. Example: coracle pause broker")
}

/// `coracle unpause`.
pub fn unpause(name: &str, words: &[&str]) -> Result<u8, EarlyExit> {
    on_each(name, words, Verb::Unpause, "Let frozen services go on. Example: coracle unpause broker")
}

/// Does the same with each of the services in `words`.
fn on_each(name: &str, words: &[&str], verb: Verb, what: &str) -> Result<u8, EarlyExit> {
    let args: ServicesArgs = shared(name, words, what)?;
    Ok(act(&args.run_dir, verb, 0, &args.services))
}

/// `coracle hold`.
pub fn hold(args: &HoldArgs) -> u8 {
    let time = if args.time == "0" { Some(Millis(0)) } else { parse_duration(&args.time).ok() };
    let Some(seconds) = time.and_then(|time| u32::try_from(time.0.div_ceil(1000)).ok()) else {
        output::complain(&format_args!(
            "'{}' is no duration for a hold: write 90s, 30m or 2h, or 0 to end it",
            args.time
        ));
        return exit::USAGE;
    };
    let mut services = args.services.clone();
    if args.all {
        let listed = Client::connect(&args.run_dir).and_then(|mut client| {
            client.ask(Verb::List, "", 0, &mut |answer| {
                if let Answer::Service(line) = answer {
                    services.push(line.name.to_string());
                }
            })
        });
        if let Err(error) = listed {
            output::complain(&error);
            return error.code();
        }
    }
    act(&args.run_dir, Verb::Hold, seconds, &services)
}

/// `coracle kill`.
pub fn kill(args: &KillArgs) -> u8 {
    match parse_signal(&args.signal) {
        Ok(signal) => act(&args.run_dir, Verb::Kill, signal.into(), &args.services),
        Err(sentence) => {
            output::complain(&sentence);
            exit::USAGE
        }
    }
}

/// Asks for each service in turn; the first failure gives the exit code, the others are still tried.
fn act(run_dir: &Path, verb: Verb, number: u32, services: &[String]) -> u8 {
    if services.is_empty() {
        output::complain(&"name at least one service; `coracle ps` lists them");
        return exit::USAGE;
    }
    let mut client = match Client::connect(run_dir) {
        Ok(client) => client,
        Err(error) => {
            output::complain(&error);
            return error.code();
        }
    };
    let mut code = exit::OK;
    for service in services {
        let failed = match client.ask(verb, service, number, &mut |_| {}) {
            Ok(done) if done.ok => {
                output::line(&crate::log::format::Safe(done.message.as_bytes()));
                continue;
            }
            Ok(done) => {
                output::complain(&done.message);
                done.code.max(exit::FAILED)
            }
            Err(error) => {
                output::complain(&error);
                return error.code();
            }
        };
        if code == exit::OK {
            code = failed;
        }
    }
    code
}

/// A signal by name or number.
pub fn parse_signal(text: &str) -> Result<u8, String> {
    signal::number(text).ok_or_else(|| {
        let upper = text.to_ascii_uppercase();
        let word = upper.strip_prefix("SIG").unwrap_or(&upper);
        match did_you_mean(word, &mut signal::NAMES.iter().map(|(name, _)| *name)) {
            Some(near) => format!("'{text}' is no signal: did you mean '{near}'?"),
            None => format!("'{text}' is no signal: name one like TERM, HUP, USR1, or a number from 1 to 64"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_by_name_and_number() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(parse_signal(text), Ok(15));
        }
        assert_eq!(parse_signal("34"), Ok(34));
        assert!(parse_signal("TREM").unwrap_err().contains("did you mean 'TERM'?"));
        for bad in ["", "0", "65", "-9", "9x", "KILL9", "99999999999999999999"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
