//! `coracle reboot`, `poweroff`, `halt`: the end of a board whose first process is coracle. `coracle init`: its beginning.
#![forbid(unsafe_code)]

use super::{RUN_DIR, output, shared};
use crate::base::exit;
use crate::base::limits::NAME_BYTES;
use crate::boot::shutdown;
use crate::control::client::{Client, ClientError};
use crate::control::wire::Verb;
use crate::supervisor::keeper::End;
use crate::sys::wait::send_signal;
use argh::{EarlyExit, FromArgs};
use nix::libc::{SIGTERM, SIGUSR1, SIGUSR2};
use std::path::{Path, PathBuf};

/// Be the board's first process: what the kernel starts, by `init=/sbin/coracle` or `rdinit=/init`.
///
/// It mounts what every program expects and what the config lists, supervises the services, and ends the board in order.
/// The kernel's command line may say coracle.config=FILE, coracle.rescue, coracle.log=console|kmsg|both. Example of one:
/// "init=/sbin/coracle coracle.config=/data/try.json".
///
/// Example: coracle init
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct InitArgs {}

/// Stop all services in order and reboot the board, whose first process is coracle.
///
/// Example: coracle reboot bootloader
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct RebootArgs {
    /// at once, stopping nothing; what is written back is all that is done before
    #[argh(switch, short = 'f')]
    force: bool,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// a word for the boot loader, such as "bootloader" or "recovery"
    #[argh(positional, default = "String::new()")]
    argument: String,
}

/// WHAT
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
struct EndArgs {
    /// at once, stopping nothing; what is written back is all that is done before
    #[argh(switch, short = 'f')]
    force: bool,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
}

/// Says that only the kernel can run `init`.
pub fn init(_: &InitArgs) -> u8 {
    output::complain(
        &"init is what the kernel starts as process 1 (init=/sbin/coracle); under another init, `coracle up` supervises",
    );
    exit::USAGE
}

/// Runs `reboot`.
pub fn reboot(args: &RebootArgs) -> u8 {
    if args.argument.len() > NAME_BYTES {
        output::complain(&format_args!("the word for the boot loader may have {NAME_BYTES} bytes"));
        return exit::USAGE;
    }
    end(&args.run_dir, End::Reboot(args.argument.as_str().into()), args.force)
}

/// Runs `poweroff`.
pub fn poweroff(name: &str, words: &[&str]) -> Result<u8, EarlyExit> {
    let what = "Stop all services in order and switch the board off. Example: coracle poweroff";
    let args: EndArgs = shared(name, words, what)?;
    Ok(end(&args.run_dir, End::PowerOff, args.force))
}

/// Runs `halt`.
pub fn halt(name: &str, words: &[&str]) -> Result<u8, EarlyExit> {
    let what = "Stop all services in order and let the board stand still, with its power on. Example: coracle halt";
    let args: EndArgs = shared(name, words, what)?;
    Ok(end(&args.run_dir, End::Halt, args.force))
}

fn end(run_dir: &Path, end: End, force: bool) -> u8 {
    if force {
        nix::unistd::sync();
        output::complain(&shutdown::end(&end));
        return exit::FAILED;
    }
    let (verb, argument, signal) = match &end {
        End::Reboot(argument) => (Verb::Reboot, &**argument, SIGTERM),
        End::Halt => (Verb::Halt, "", SIGUSR1),
        End::PowerOff | End::Exit => (Verb::Poweroff, "", SIGUSR2),
    };
    match Client::connect(run_dir).and_then(|mut client| client.ask(verb, argument, 0, &mut |_| {})) {
        Ok(done) if done.ok => exit::OK,
        Ok(done) => {
            output::complain(&done.message);
            done.code
        }
        Err(ClientError::NoSupervisor(_)) => signal_first(signal, argument),
        Err(error) => {
            output::complain(&error);
            error.code()
        }
    }
}

/// Nobody answers: the first process takes a signal too, which carries no word for the boot loader.
fn signal_first(signal: i32, argument: &str) -> u8 {
    let name = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
    if name.trim() != "coracle" {
        let shown = name.trim();
        output::complain(&format_args!(
            "the first process is {shown}, not coracle, and no supervisor answers: use its own command"
        ));
        return exit::NO_SUPERVISOR;
    }
    if !argument.is_empty() {
        output::complain(&format_args!("the supervisor does not answer, so the boot loader does not get {argument:?}"));
    }
    match send_signal(1, signal) {
        Ok(()) => exit::OK,
        Err(errno) => {
            output::complain(&format_args!("the first process cannot be signalled: {errno}"));
            exit::FAILED
        }
    }
}
