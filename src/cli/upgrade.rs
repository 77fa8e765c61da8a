//! `coracle upgrade`: another program in the place of the supervisor, with everything that runs untouched.
#![forbid(unsafe_code)]

use super::{RUN_DIR, output};
use crate::base::exit;
use crate::boot;
use crate::control::client::Client;
use crate::control::wire::Verb;
use crate::supervisor::config_file;
use crate::supervisor::handover::{Text, check_states};
use crate::supervisor::upgrade::WISH;
use argh::FromArgs;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// From the old program's last word to the new one's first: it reads its config and looks for every service.
const ARRIVAL: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);

/// Put another coracle in the place of the one that supervises. The services run on.
///
/// The new program is asked first whether it can read the config and what is known of the services. What it refuses changes
/// nothing.
///
/// Example: coracle upgrade /data/coracle-new
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct UpgradeArgs {
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// the new program (the one that this command is)
    #[argh(positional)]
    program: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &UpgradeArgs) -> u8 {
    let program = args.program.clone().map_or_else(std::env::current_exe, std::path::absolute);
    let wished = program.and_then(|program| {
        fs::metadata(&program)?;
        wish(&args.run_dir, &program)
    });
    let asked = Client::connect(&args.run_dir).and_then(|mut client| match &wished {
        Ok(()) => client.ask(Verb::Upgrade, "", 0, &mut |_| {}).map(Some),
        Err(_) => Ok(None),
    });
    match (asked, wished) {
        (Err(error), _) => {
            output::complain(&error);
            error.code()
        }
        (_, Err(error)) => {
            output::complain(&format_args!("the new program cannot be used: {error}"));
            exit::FAILED
        }
        (Ok(Some(done)), _) if done.ok => arrival(&args.run_dir),
        (Ok(done), _) => {
            let _ = fs::remove_file(args.run_dir.join(WISH));
            output::complain(&done.as_ref().map_or("", |done| done.message.as_str()));
            exit::FAILED
        }
    }
}

/// Leaves the link to `program` that the supervisor follows.
fn wish(run_dir: &Path, program: &Path) -> std::io::Result<()> {
    let (link, beside) = (run_dir.join(WISH), run_dir.join("upgrade.new"));
    let _ = fs::remove_file(&beside);
    symlink(program, &beside)?;
    fs::rename(&beside, &link)
}

/// Waits for the new program: it removes the link once it is there. A file in its place says why it is not.
fn arrival(run_dir: &Path) -> u8 {
    let end = Instant::now() + ARRIVAL;
    let place = run_dir.join(WISH);
    while Instant::now() < end {
        match fs::symlink_metadata(&place) {
            Err(_)
                if Client::connect(run_dir)
                    .is_ok_and(|mut client| client.ask(Verb::List, "", 0, &mut |_| {}).is_ok()) =>
            {
                return exit::OK;
            }
            Ok(found) if found.is_file() => {
                output::complain(&fs::read_to_string(&place).unwrap_or_default());
                let _ = fs::remove_file(&place);
                return exit::FAILED;
            }
            _ => std::thread::sleep(LOOK),
        }
    }
    output::complain(&"the new program does not answer; `coracle logs --supervisor` may say why");
    exit::FAILED
}

/// Whether this program would take over what the text behind descriptor `fd` names; if not, why.
pub fn check(fd: &str) -> u8 {
    let would = Text::of(fd).and_then(|text| {
        check_states(&text.run)?;
        match &text.origin.config {
            Some(path) => config_file::load(path).map(drop).map_err(|fault| fault.to_string()),
            None => boot::init::check(),
        }
    });
    match would {
        Ok(()) => exit::OK,
        Err(why) => {
            output::complain(&why);
            exit::FAILED
        }
    }
}
