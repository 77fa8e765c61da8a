//! Exit codes of the `coracle` command (README, "Exit codes").

/// All went well.
pub const OK: u8 = 0;
/// The thing asked for failed; the message says why.
pub const FAILED: u8 = 1;
/// The command line was wrong.
pub const USAGE: u8 = 2;
/// No supervisor answers on the control socket.
pub const NO_SUPERVISOR: u8 = 3;
/// The supervisor knows no service of that name.
pub const NO_SUCH_SERVICE: u8 = 4;
/// The config or an image is invalid (`EX_CONFIG` of sysexits.h).
pub const INVALID: u8 = 78;
/// `run`/`exec`: coracle itself failed before the command could run.
pub const RUN_FAILED: u8 = 125;
/// `run`/`exec`: the command was found but could not be executed.
pub const RUN_NOT_EXECUTABLE: u8 = 126;
/// `run`/`exec`: the command was not found.
pub const RUN_NOT_FOUND: u8 = 127;
/// `run`/`exec`: added to the signal number when the command was killed by a signal.
pub const RUN_SIGNAL_BASE: u8 = 128;

/// The exit code that stands for a wait status (wait(2)): the program's own, or 128 and the signal that killed it.
pub const fn of_wait_status(status: i32) -> u8 {
    match status & 0x7f {
        0 => (status >> 8 & 0xff) as u8,
        signal => RUN_SIGNAL_BASE.wrapping_add(signal as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_becomes_the_code_that_shells_use() {
        assert_eq!(of_wait_status(0), 0);
        assert_eq!(of_wait_status(7 << 8), 7);
        assert_eq!(of_wait_status(9), 137);
        assert_eq!(of_wait_status(11 | 0x80), 139);
        assert_eq!(of_wait_status(64), 192);
    }
}
