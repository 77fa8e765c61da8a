//! `coracle down`: stop everything in order and end the supervisor, or clean up after a dead one.
#![forbid(unsafe_code)]

use super::{RUN_DIR, output};
use crate::base::exit;
use crate::control::client::{Client, ClientError};
use crate::control::wire::{DoneLine, Verb};
use crate::sandbox::cgroup::{RUN_PREFIX, Tree};
use crate::supervisor::leftover;
use crate::supervisor::rundir::{RunDir, Unclaimed};
use argh::FromArgs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// From the last answer to the end of the supervisor, which only has to remove a few folders.
const LAST_MOMENTS: Duration = Duration::from_secs(10);
/// From the end of a supervisor until none of its inits has its socket any more.
const MOMENT: Duration = Duration::from_millis(100);

/// Stop all services in order and end the supervisor. Cleans up as well after a supervisor that died.
///
/// Example: coracle down
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct DownArgs {
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
}

/// Runs the command.
pub fn run(args: &DownArgs) -> u8 {
    match ask(&args.run_dir) {
        Ok(done) if done.ok => match ended(&args.run_dir) {
            true => exit::OK,
            false => {
                output::complain(&"everything is stopped, but the supervisor does not end");
                exit::FAILED
            }
        },
        Ok(done) => {
            output::complain(&done.message);
            done.code
        }
        Err(ClientError::NoSupervisor(sentence)) => clean_up(&args.run_dir, &sentence),
        Err(error) => {
            output::complain(&error);
            error.code()
        }
    }
}

/// Asks for the end. One that was killed a moment ago can seem to live: an init that is on its way has its socket until it
/// has closed what it inherited.
fn ask(run_dir: &Path) -> Result<DoneLine, ClientError> {
    let asked = Client::connect(run_dir).and_then(|mut client| client.ask(Verb::Shutdown, "", 0, &mut |_| {}));
    if let Err(ClientError::Broken(_)) = &asked {
        std::thread::sleep(MOMENT);
        if let Err(nobody @ ClientError::NoSupervisor(_)) = Client::connect(run_dir) {
            return Err(nobody);
        }
    }
    asked
}

/// Waits for the supervisor to give up its run directory.
fn ended(run_dir: &Path) -> bool {
    let end = Instant::now() + LAST_MOMENTS;
    while run_dir.exists() {
        match RunDir::claim(run_dir, None) {
            Ok(run) => {
                run.clear();
                return true;
            }
            Err(Unclaimed::Failed(_)) => return true,
            Err(Unclaimed::Taken) if Instant::now() > end => return false,
            Err(Unclaimed::Taken) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    true
}

/// Nobody answers: if a dead supervisor left something, it is taken down.
fn clean_up(run_dir: &Path, nobody: &str) -> u8 {
    let none = || {
        output::complain(&nobody);
        exit::NO_SUPERVISOR
    };
    if !run_dir.join("services").exists() {
        return none();
    }
    let run = match RunDir::claim(run_dir, None) {
        Ok(run) => run,
        Err(Unclaimed::Taken) => {
            let dir = run_dir.display();
            output::complain(&format_args!(
                "a supervisor has {dir} but does not answer: it is just starting or ending"
            ));
            return exit::FAILED;
        }
        Err(Unclaimed::Failed(error)) => {
            output::complain(&format_args!("cannot use the run directory {}: {error}", run_dir.display()));
            return exit::FAILED;
        }
    };
    let mut tree = Tree::discover(&run.cgroup_folder()).map_err(|error| output::complain(&error)).ok();
    let clean = leftover::take_down(&run, tree.as_ref(), &mut |sentence| output::complain(&sentence));
    // Those of a `coracle run` that was killed are empty, and nobody's any more.
    tree.iter().for_each(|tree| tree.flat(RUN_PREFIX).sweep());
    if !clean {
        return exit::FAILED;
    }
    if let Some(Err(error)) = tree.as_mut().map(Tree::remove) {
        output::complain(&error);
        return exit::FAILED;
    }
    run.clear();
    exit::OK
}
