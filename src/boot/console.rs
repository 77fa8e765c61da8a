//! Standard input, output and error of the first process.
#![forbid(unsafe_code)]

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

/// Reads nothing, and writes to the console, or to nowhere where there is none. Whatever was open before is closed.
pub fn connect() {
    // Without O_NOCTTY it would become the controlling terminal, and Ctrl-C there a signal for the first process.
    let open = |path: &str, flags: i32| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let Ok(nowhere) = open("/dev/null", 0) else { return };
    let console: File = match open("/dev/console", O_NOCTTY | O_NONBLOCK) {
        Ok(console) => console,
        Err(_) => match nowhere.try_clone() {
            Ok(nowhere) => nowhere,
            Err(_) => return,
        },
    };
    // All three are open (`sys::early`), so nothing new gets their numbers.
    let _ = dup2_stdin(&nowhere);
    let _ = dup2_stdout(&console);
    let _ = dup2_stderr(&console);
}
