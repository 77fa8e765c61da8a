//! A first process that must not die: what would end it makes it execute its program again.
//!
//! The kernel panics when process 1 ends. A panic (which aborts), a wild pointer or a full stack end in a signal; its
//! handler works on a stack of its own, calls nothing but the kernel, and executes the program with words that count the
//! faults. Of the failed memory it takes one number, the end that the board is on its way to, and the environment; without
//! the two latter it goes on as well. The process keeps its number and its children.

use super::{Errno, Result, check, watchdog};
use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::ffi::{CStr, CString};

/// The word behind which the number of faults stands.
pub const WORD: &CStr = c"--after-fault";

/// The numbers of faults. Whoever counts further has had more than enough of them.
const NUMBERS: [&CStr; 5] = [c"1", c"2", c"3", c"4", c"5"];

/// Signals of a program gone wrong.
const SIGNALS: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];
/// The handler's stack: a few calls, and what the kernel saves there of the widest registers.
const STACK_BYTES: usize = 64 << 10;

/// The number that the next fault has; 0: nothing is to be done.
static NEXT: AtomicU32 = AtomicU32::new(0);
/// What [`ending`] was told last.
static END: AtomicPtr<c_char> = AtomicPtr::new(core::ptr::null_mut());
/// Where the handler's stack begins; it is made once.
static STACK: AtomicUsize = AtomicUsize::new(0);

/// From here on a fault makes this process execute its program again, with the words `coracle --after-fault NUMBER`. A
/// later call replaces the number.
///
/// # Errors
/// The kernel has no memory for the stack.
pub fn arm(number: u32) -> Result<()> {
    NEXT.store(number, Ordering::Release);
    if STACK.load(Ordering::Relaxed) != 0 {
        return Ok(());
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, wherever the kernel puts it.
    let base = unsafe { libc::mmap(core::ptr::null_mut(), STACK_BYTES, rights, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(Errno(nix::errno::Errno::last_raw()));
    }
    STACK.store(base as usize, Ordering::Relaxed);
    let stack = libc::stack_t { ss_sp: base, ss_flags: 0, ss_size: STACK_BYTES };
    // SAFETY: the stack is a mapping of that size that nothing else uses and nobody unmaps; the handler is one of the
    // kind that SA_SIGINFO takes, and calls only what signal-safety(7) allows.
    unsafe {
        check(libc::sigaltstack(&raw const stack, core::ptr::null_mut()).into())?;
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        // Not blocked while it is handled: execve(2) would hand that down.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for signal in SIGNALS {
            check(libc::sigaction(signal, &raw const action, core::ptr::null_mut()).into())?;
        }
    }
    Ok(())
}

/// From here on the words of a fault have `end` behind the number: what the board was on its way to.
pub fn ending(end: CString) {
    // It is needed to the end of the process.
    END.store(end.into_raw(), Ordering::Release);
}

/// In a clone of the first process: its faults are its own, and end it. Allocates nothing.
pub fn disarm() {
    NEXT.store(0, Ordering::Release);
}

/// Executes the program again; returns only where that fails.
fn again(number: u32) {
    unsafe extern "C" {
        /// environ(7)
        static environ: *const *const c_char;
    }
    let number = NUMBERS[(number.saturating_sub(1) as usize).min(NUMBERS.len() - 1)];
    let (end, none) = (END.load(Ordering::Acquire).cast_const(), core::ptr::null());
    let no_env = [core::ptr::null::<c_char>()];
    // SAFETY: arrays of pointers to NUL-terminated strings, with a null pointer at their ends. An environment or an end that
    // cannot be read is an error of the kernel's (EFAULT), and then there is none. The program that comes expects no
    // signal to be blocked.
    unsafe {
        let mut no_signal: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut no_signal);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const no_signal, core::ptr::null_mut());
        for (end, env) in [(end, environ), (end, no_env.as_ptr()), (none, environ), (none, no_env.as_ptr())] {
            let words = [c"coracle".as_ptr(), WORD.as_ptr(), number.as_ptr(), end, none];
            for path in [c"/proc/self/exe", c"/sbin/init", c"/init"] {
                libc::execve(path.as_ptr(), words.as_ptr(), env);
            }
        }
    }
}

extern "C" fn handler(signal: c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let number = NEXT.load(Ordering::Acquire);
    if number == 0 {
        // The fault repeats, and now ends the process.
        // SAFETY: an all-zero sigaction is SIG_DFL without flags.
        unsafe {
            let default: libc::sigaction = core::mem::zeroed();
            libc::sigaction(signal, &raw const default, core::ptr::null_mut());
        }
        return;
    }
    say(c"<26>coracle: the first process has failed; it executes itself again\n");
    watchdog::bequeath();
    again(number);
    // Nothing can be executed. The kernel shields process 1 from signals that it does not handle, but not from a fault
    // that repeats: what is left is to stand still, and a watchdog resets the board.
    say(c"<24>coracle: the first process has failed and cannot go on\n");
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}

/// `write(2)` to the kernel's log and to standard error.
fn say(text: &CStr) {
    // SAFETY: NUL-terminated strings; a descriptor that this call opened.
    unsafe {
        let log = libc::open(c"/dev/kmsg".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC | libc::O_NONBLOCK);
        libc::write(if log < 0 { 2 } else { log }, text.as_ptr().cast(), text.count_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{self, Forked};
    use crate::sys::wait::wait_for;
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;

    /// Uses up the stack.
    #[inline(never)]
    fn deeper(depth: u64) -> u64 {
        let block = core::hint::black_box([depth; 512]);
        if depth == u64::MAX { 0 } else { deeper(core::hint::black_box(depth + 1)).wrapping_add(block[7]) }
    }

    /// What a child prints that fails in this way, with every signal blocked, and its wait status.
    fn fails(how: fn()) -> (String, i32) {
        let (read, write) = nix::unistd::pipe().unwrap();
        let pid = match process::clone(0, None).unwrap() {
            Forked::Child => {
                let _ = [1, 2].map(|fd| process::duplicate(write.as_raw_fd(), fd));
                let _ = arm(4);
                how();
                process::exit_now(0)
            }
            Forked::Parent(pid) => pid,
        };
        drop(write);
        let mut said = String::new();
        std::fs::File::from(read).read_to_string(&mut said).unwrap();
        (said, wait_for(pid).unwrap())
    }

    #[test]
    fn whatever_fails_and_wherever_the_stack_is_the_program_is_executed_again() {
        // The program is this test, which does not know the word.
        let ways: [fn(); 3] = [
            || _ = deeper(0),
            // SAFETY: a fault is what is wanted.
            || unsafe { core::ptr::without_provenance_mut::<u8>(16).write_volatile(1) },
            || std::process::abort(),
        ];
        for how in ways {
            let (said, status) = fails(how);
            assert!(said.contains("after-fault"), "{status:#x}: {said}");
            assert_eq!(status & 0x7f, 0, "killed instead: {said}");
        }
    }
}
