//! `coracle up`: supervise the services of a config file.
#![forbid(unsafe_code)]

use super::{RUN_DIR, output};
use crate::base::exit;
use crate::base::read::read_up_to;
use crate::boot::under::Under;
use crate::control::client::{Answer, Client};
use crate::control::wire::Verb;
use crate::plan::Plan;
use crate::supervisor::board::{self, Board};
use crate::supervisor::config_file;
use crate::supervisor::handover::{Call, Inherited, Origin, Text};
use crate::supervisor::run::{Refused, Supervisor};
use crate::supervisor::upgrade;
use crate::sys::meaning;
use crate::sys::process::{self, Forked};
use argh::FromArgs;
use std::fs::OpenOptions;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Supervise the services of a config file until SIGTERM, SIGINT or `coracle down`.
///
/// In the foreground it writes one line per event to standard error.
///
/// Example: coracle up -c /etc/coracle/config.json -d --wait
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct UpArgs {
    /// the config file (/etc/coracle/config.json)
    #[argh(option, short = 'c', default = "config_file::DEFAULT.into()")]
    config: PathBuf,
    /// supervise in the background; returns once the supervisor answers
    #[argh(switch, short = 'd')]
    detach: bool,
    /// like -d, but returns once every service runs, or shows those that do not
    #[argh(switch)]
    wait: bool,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
}

/// Runs the command.
pub fn run(args: &UpArgs) -> u8 {
    let plan = match load(&args.config) {
        Ok(plan) => plan,
        Err(code) => return code,
    };
    // What is executed in the place of this process may do so from another working directory.
    let config = std::path::absolute(&args.config).ok();
    let origin = Origin { config, detached: args.detach || args.wait };
    if origin.detached { detach(plan, args, origin) } else { supervise(plan, &args.run_dir, None, (origin, None)) }
}

/// Reads the config, and says what it and the board lack. What the board lacks holds only the services concerned.
fn load(path: &Path) -> Result<Plan, u8> {
    let (plan, warnings) = config_file::load(path).map_err(|fault| {
        output::complain(&format_args!("{fault}"));
        exit::INVALID
    })?;
    warnings.iter().for_each(|warning| output::complain(&format_args!("warning: {warning}")));
    if let Some(problem) = board::memory_problem(&plan, &Board::here()) {
        output::complain(&format_args!("warning: {}; {}", problem.message, problem.hint));
    }
    Ok(plan)
}

/// Supervises in this process; `told` hears that the supervisor answers, by the pipe's first byte.
fn supervise(plan: Plan, run_dir: &Path, told: Option<PipeWriter>, from: (Origin, Option<Inherited>)) -> u8 {
    let mut told = told;
    let mut keeper = Under::new(from.0.detached, from.1.is_some(), plan.device.boot.watchdog.as_ref());
    let supervisor = match Supervisor::new(plan.into(), run_dir, &mut keeper, None, from) {
        Ok(supervisor) => supervisor,
        Err(refused) => {
            let sentence = match refused {
                Refused::Taken => format!(
                    "another supervisor has the run directory {}: end it with `coracle down`, or choose another one with \
                     --run-dir",
                    run_dir.display()
                ),
                Refused::Failed(sentence) => sentence,
            };
            match &mut told {
                // Whoever waits at the other end says it.
                Some(pipe) => drop(pipe.write_all(sentence.as_bytes())),
                None => output::complain(&sentence),
            }
            return exit::FAILED;
        }
    };
    if let Some(mut pipe) = told {
        let _ = pipe.write_all(READY);
    }
    match supervisor.supervise() {
        Ok(_) => {
            keeper.let_go(&mut |sentence| output::complain(&sentence));
            exit::OK
        }
        Err(sentence) => {
            output::complain(&sentence);
            exit::FAILED
        }
    }
}

/// Goes on with what another program, or an earlier one of this, has supervised in this process.
pub fn take_over(call: Call) -> u8 {
    let failed = |why: String| {
        call.go_back(&why);
        output::complain(&why);
        exit::FAILED
    };
    let text = match Text::of(&call.text) {
        Ok(text) => text,
        Err(why) => return failed(why),
    };
    let config = text.origin.config.clone().unwrap_or_default();
    let plan = match config_file::load(&config) {
        Ok((plan, _)) => plan,
        Err(fault) => return failed(fault.to_string()),
    };
    let inherited = match (text.take(), &call.refused) {
        (Ok(inherited), _) => Some(inherited),
        // What is missing can be made anew.
        (Err(_), Some(_)) => None,
        (Err(why), None) => return failed(why),
    };
    upgrade::arrived(&text.run, call.refused.as_deref());
    call.close();
    supervise(plan, &text.run, None, (text.origin, inherited))
}

/// What the background process writes when it supervises; anything else is a sentence saying why it does not.
const READY: &[u8] = b"\0";

/// Supervises in a process of its own, away from this terminal.
fn detach(plan: Plan, args: &UpArgs, origin: Origin) -> u8 {
    let run_dir = std::path::absolute(&args.run_dir).unwrap_or_else(|_| args.run_dir.clone());
    let failed = |what: &str, why: &dyn std::fmt::Display| {
        output::complain(&format_args!("cannot {what}: {why}"));
        exit::FAILED
    };
    let (reader, writer) = match std::io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => return failed("make a pipe to the background", &error),
    };
    match process::clone(0, None) {
        Err(errno) => failed("go into the background", &errno),
        Ok(Forked::Child) => {
            drop(reader);
            let code = match leave_terminal() {
                Ok(()) => supervise(plan, &run_dir, Some(writer), (origin, None)),
                Err(sentence) => {
                    let mut writer = writer;
                    let _ = writer.write_all(sentence.as_bytes());
                    exit::FAILED
                }
            };
            std::process::exit(i32::from(code))
        }
        Ok(Forked::Parent(_)) => {
            drop((plan, writer));
            match ready(reader) {
                Ok(()) if args.wait => wait(&run_dir),
                Ok(()) => exit::OK,
                Err(sentence) => {
                    output::complain(&sentence);
                    exit::FAILED
                }
            }
        }
    }
}

/// A session of its own, the root as working directory, nothing on 0, 1 and 2.
fn leave_terminal() -> Result<(), String> {
    let failed = |what: &'static str| move |error: &dyn std::fmt::Display| format!("cannot {what}: {error}");
    process::new_session().map_err(|errno| failed("begin a session")(&errno))?;
    std::env::set_current_dir("/").map_err(|error| failed("change to /")(&error))?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| failed("open /dev/null")(&error))?;
    let done = nix::unistd::dup2_stdin(&null)
        .and_then(|()| nix::unistd::dup2_stdout(&null))
        .and_then(|()| nix::unistd::dup2_stderr(&null));
    done.map_err(|errno| failed("leave the terminal")(&meaning(errno)))
}

fn ready(mut reader: PipeReader) -> Result<(), String> {
    let mut first = [0];
    match reader.read(&mut first) {
        Ok(1) if first == READY => Ok(()),
        Ok(1) => {
            let rest = read_up_to(&mut first.chain(reader), 4096).unwrap_or_default();
            Err(String::from_utf8_lossy(&rest).into_owned())
        }
        _ => Err("the supervisor ended before it answered".to_owned()),
    }
}

/// Waits until everything runs; shows what does not.
fn wait(run_dir: &Path) -> u8 {
    let answer = Client::connect(run_dir).and_then(|mut client| {
        client.ask(Verb::Wait, "", 0, &mut |answer| {
            if let Answer::Service(line) = answer {
                output::complain(&format_args!("{} is {}: {}", line.name, line.state.as_str(), line.reason));
            }
        })
    });
    match answer {
        Ok(done) if done.ok => exit::OK,
        Ok(done) => {
            output::complain(&done.message);
            done.code
        }
        Err(error) => {
            output::complain(&error);
            error.code()
        }
    }
}
