//! The end of a process that has gone wrong.
//!
//! musl's abort(3) sends the signal to the number that the C library has noted for the calling thread. A clone inherits that
//! note with the memory: where it shares its parent's pid namespace, the parent would be hit in its place.

/// `abort(3)`: SIGABRT for the calling thread, also where the signal is blocked; the process ends even if a handler returns.
// SAFETY: the name is the C library's own, and the function has its signature; as there, it never returns.
#[unsafe(no_mangle)]
extern "C" fn abort() -> ! {
    let send = || {
        // SAFETY: integers; the kernel is asked for the numbers, not the C library.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), libc::SIGABRT) }
    };
    // SAFETY: structures of this function's own; an all-zero sigaction is SIG_DFL without flags.
    unsafe {
        let mut signal: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut signal);
        libc::sigaddset(&raw mut signal, libc::SIGABRT);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const signal, core::ptr::null_mut());
        send();
        let default: libc::sigaction = core::mem::zeroed();
        libc::sigaction(libc::SIGABRT, &raw const default, core::ptr::null_mut());
    }
    send();
    // What a shell shows for SIGABRT.
    super::process::exit_now(128 + libc::SIGABRT)
}

#[cfg(test)]
mod tests {
    use crate::sys::process::{self, Forked};
    use crate::sys::wait::wait_for;

    #[test]
    fn a_clone_that_aborts_ends_itself_and_not_its_parent() {
        let Forked::Parent(pid) = process::clone(0, None).unwrap() else { std::process::abort() };
        assert_eq!(wait_for(pid).unwrap() & 0x7f, libc::SIGABRT);
    }
}
