//! A first process that must not die: what would end it makes it execute its program again.
//!
//! The kernel panics when process 1 ends. A panic (which aborts), a wild pointer or a full stack end in a signal; its
//! handler works on a stack of its own, calls nothing but the kernel, and executes the program with other words, which
//! say that it is to be a rescue. The process keeps its number and its children.

use super::process::CStrings;
use super::{Errno, Result, check};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::ffi::{CStr, CString};

/// Signals of a program gone wrong.
const SIGNALS: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];
/// The handler's stack: a few calls, and what the kernel saves there of the widest registers.
const STACK_BYTES: usize = 64 << 10;

/// The words to execute the program with; null: nothing is to be done.
static WORDS: AtomicPtr<CStrings> = AtomicPtr::new(core::ptr::null_mut());
/// Where the handler's stack begins; it is made once.
static STACK: AtomicUsize = AtomicUsize::new(0);

/// From here on a fault makes this process execute its program again, with `words` (the first is its name). A later call
/// replaces the words.
///
/// # Errors
/// The kernel has no memory for the stack.
pub fn arm(words: Vec<CString>) -> Result<()> {
    // The old words are never freed: a fault may come while they are replaced.
    WORDS.store(Box::into_raw(Box::new(CStrings::new(words))), Ordering::Release);
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

/// In a clone of the first process: its faults are its own, and end it. Allocates nothing.
pub fn disarm() {
    WORDS.store(core::ptr::null_mut(), Ordering::Release);
}

/// Executes the program again with the words of [`arm`]; returns only where that fails, or nothing is armed.
pub fn again() -> Errno {
    let words = WORDS.load(Ordering::Acquire);
    if words.is_null() {
        return Errno(libc::ENOENT);
    }
    let mut last = Errno(libc::ENOENT);
    for path in [c"/proc/self/exe", c"/sbin/init", c"/init"] {
        // SAFETY: the words live for ever, and the program that comes expects no signal to be blocked.
        unsafe {
            let mut none: libc::sigset_t = core::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, core::ptr::null_mut());
            last = super::process::execve_same_env(path, &*words);
        }
    }
    last
}

extern "C" fn handler(signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    if WORDS.load(Ordering::Acquire).is_null() {
        // The fault repeats, and now ends the process.
        // SAFETY: an all-zero sigaction is SIG_DFL without flags.
        unsafe {
            let default: libc::sigaction = core::mem::zeroed();
            libc::sigaction(signal, &raw const default, core::ptr::null_mut());
        }
        return;
    }
    say(c"<26>coracle: the first process has failed; it executes itself again\n");
    again();
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
