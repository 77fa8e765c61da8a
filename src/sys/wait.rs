//! Children and signals by the kernel's numbers: nix has no name for a real-time signal, and loses a child that one
//! killed.

use super::{Errno, Result, check};

/// `sigaction(2)`: SIGCHLD back to its default disposition. A program may be started with the signal ignored, which
/// execve(2) hands down; then the kernel reaps every child itself, and nobody learns how or that it ended.
pub fn keep_ended_children() {
    // SAFETY: an all-zero sigaction is SIG_DFL without flags.
    unsafe {
        let default: libc::sigaction = core::mem::zeroed();
        libc::sigaction(libc::SIGCHLD, &raw const default, core::ptr::null_mut());
    }
}

/// `waitpid(2)` with WNOHANG for any child: its pid and wait status, or `None` if none has ended.
///
/// # Errors
/// `ECHILD` if there is no child at all.
pub fn wait_any() -> Result<Option<(i32, i32)>> {
    loop {
        let mut status: libc::c_int = 0;
        // SAFETY: the kernel writes one int, which lives on this stack.
        match check(libc::c_long::from(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })) {
            Ok(0) => return Ok(None),
            Ok(pid) => return Ok(Some((pid as i32, status))),
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `waitid(2)` with WNOWAIT: the pid of any child that has ended and stays to be waited for, or `None` if there is none.
///
/// # Errors
/// `ECHILD` if there is no child at all.
pub fn ended_child() -> Result<Option<i32>> {
    // SAFETY: all zeros is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: the kernel fills the structure, which lives on this stack.
        match check(libc::c_long::from(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) })) {
            // SAFETY: for waitid the union holds the fields of SIGCHLD; without an ended child all are zero.
            Ok(_) => return Ok(Some(unsafe { info.si_pid() }).filter(|pid| *pid > 0)),
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `waitid(2)` with WNOWAIT: whether `pid` is a child of this process that has not been waited for.
pub fn is_child(pid: i32) -> bool {
    let Ok(id) = libc::id_t::try_from(pid) else { return false };
    // SAFETY: all zeros is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel fills the structure, which lives on this stack.
    pid > 0 && check(libc::c_long::from(unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) })).is_ok()
}

/// `waitpid(2)` for one child, until it has ended: its wait status.
pub fn wait_for(pid: i32) -> Result<i32> {
    loop {
        let mut status: libc::c_int = 0;
        // SAFETY: the kernel writes one int, which lives on this stack.
        match check(libc::c_long::from(unsafe { libc::waitpid(pid, &raw mut status, 0) })) {
            Ok(_) => return Ok(status),
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `kill(2)` of one process.
///
/// # Errors
/// `EINVAL` for a number that is not one process's: to the kernel 0 and below are groups of processes, and -1 is
/// everything. A pid of 0 is what `/proc` and cgroups show for a process of another pid namespace.
pub fn send_signal(pid: i32, signal: i32) -> Result<()> {
    if pid <= 0 {
        return Err(Errno(libc::EINVAL));
    }
    // SAFETY: integers.
    check(libc::c_long::from(unsafe { libc::kill(pid, signal) })).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_means_more_than_one_process() {
        for pid in [0, -1, -2, i32::MIN, -(std::process::id() as i32)] {
            // Signal 0 would only look whether there is somebody: it is safe to be wrong here.
            assert_eq!(send_signal(pid, 0), Err(Errno(libc::EINVAL)), "{pid}");
        }
        assert_eq!(send_signal(std::process::id() as i32, 0), Ok(()));
    }
}
