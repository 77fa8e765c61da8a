//! A child on a stack of its own.
//!
//! A service's init is a clone of the supervisor and would go on at the depth of the supervisor's stack, with everything
//! that lies there of other services. On a stack of its own it can give the inherited one back.

use super::heap::HEAP;
use super::{Errno, Result};
use core::ffi::{c_int, c_void};
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::os::fd::{FromRawFd, OwnedFd};

/// Address space of the stack; memory is taken as it is touched.
const STACK_BYTES: usize = 256 << 10;
const PAGE: usize = 4096;
/// What lies below the frame of [`wipe`] while it works: its calls.
const CALLS_BYTES: usize = 1024;
/// How far the parent's stack may reach above and below the frame that made the child.
const REACH_BYTES: usize = 4 << 20;

/// Where the parent's stack was when this process was made, and the lowest address of this process's own.
static INHERITED: AtomicUsize = AtomicUsize::new(0);
static OWN: AtomicUsize = AtomicUsize::new(0);

/// Proof that the process which holds it is the first one of its pid namespace. It is had where there can be no doubt, in
/// the child that [`clone_onto`] makes that way and in process 1: nobody else can kill everything that there is.
#[derive(Debug)]
pub struct OwnPids(());

impl OwnPids {
    /// What process 1 has.
    pub fn of_first_process() -> Option<OwnPids> {
        (std::process::id() == 1).then_some(OwnPids(()))
    }

    /// `kill(2)` with -1: `signal` for every process of this process's own pid namespace, but not for this one. ESRCH: there
    /// is no other.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        // SAFETY: integers. The kernel gives the signal to nothing outside the pid namespace (pid_namespaces(7)).
        super::check(libc::c_long::from(unsafe { libc::kill(-1, signal) })).map(drop)
    }
}

/// What the child finds on the parent's stack.
struct Birth<F> {
    work: ManuallyDrop<F>,
    own: usize,
    pids: bool,
}

extern "C" fn begin<F: FnOnce(Option<OwnPids>) -> c_int>(birth: *mut c_void) -> c_int {
    HEAP.release();
    super::fault::disarm();
    INHERITED.store(birth as usize, Ordering::Relaxed);
    // SAFETY: `birth` leads to this process's copy of the parent's `Birth`, which nothing else here uses.
    let birth = unsafe { birth.cast::<Birth<F>>().read() };
    OWN.store(birth.own, Ordering::Relaxed);
    ManuallyDrop::into_inner(birth.work)(birth.pids.then_some(OwnPids(())))
}

/// `clone(2)`: a copy of this process, as by fork(2), in the new namespaces of `flags`, with SIGCHLD at its end, that
/// does `work` on a new stack and ends with the code that it gives; `work` learns whether one of the namespaces is of
/// pids. Returns its pid, and its pidfd where the kernel has them (5.2).
///
/// As for [`super::process::clone`]: single-threaded, or `work` restricts itself to system calls.
pub fn clone_onto<F: FnOnce(Option<OwnPids>) -> c_int>(flags: u64, work: F) -> Result<(i32, Option<OwnedFd>)> {
    let place = place()?;
    let pids = flags & libc::CLONE_NEWPID as u64 != 0;
    let mut birth = Birth { work: ManuallyDrop::new(work), own: place + PAGE, pids };
    let mut fd: c_int = -1;
    let word = flags as c_int | libc::SIGCHLD | libc::CLONE_PIDFD;
    let top = (place + STACK_BYTES) as *mut c_void;
    HEAP.hold();
    // SAFETY: without CLONE_VM the child works on copies: of the new stack, on which nothing lies yet, and of `birth`,
    // which it alone takes the work out of. Kernels that lack CLONE_PIDFD ignore it.
    let pid = unsafe { libc::clone(begin::<F>, top, word, (&raw mut birth).cast(), &raw mut fd) };
    let answer = super::check(pid.into());
    HEAP.release();
    // SAFETY: the child took its copy out of its own memory; here the work is let go undone, and once.
    unsafe { ManuallyDrop::drop(&mut birth.work) };
    let pid = answer? as i32;
    // SAFETY: the kernel wrote a new descriptor that nothing else owns.
    Ok((pid, (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })))
}

/// Where children get their stacks, each its own copy: memory that no parent touches, with a page below that nobody may.
/// Made once.
fn place() -> Result<usize> {
    static PLACE: AtomicUsize = AtomicUsize::new(0);
    match PLACE.load(Ordering::Relaxed) {
        0 => {}
        made => return Ok(made),
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, wherever the kernel puts it.
    let base = unsafe { libc::mmap(core::ptr::null_mut(), STACK_BYTES, rights, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(Errno(nix::errno::Errno::last_raw()));
    }
    // SAFETY: the lowest page of the mapping just made.
    super::check(unsafe { libc::mprotect(base, PAGE, libc::PROT_NONE) }.into())?;
    PLACE.store(base as usize, Ordering::Relaxed);
    Ok(base as usize)
}

/// In a child of [`clone_onto`]: gives back the inherited stack, up to the words and the environment of the program at
/// its top, and what earlier calls left on its own below the caller (madvise(2) MADV_DONTNEED). Nothing that lay there
/// may be touched again. Elsewhere it does nothing.
#[inline(never)]
pub fn wipe() {
    let mark = 0u8;
    let here = (&raw const mark as usize).saturating_sub(CALLS_BYTES) & !(PAGE - 1);
    let (inherited, own) = (INHERITED.load(Ordering::Relaxed), OWN.load(Ordering::Relaxed));
    // A parent that was no first thread had its stack elsewhere; that one stays.
    if inherited != 0 && is_of_first_thread(inherited) {
        give_back(inherited.saturating_sub(REACH_BYTES) & !(PAGE - 1), words());
    }
    if own != 0 {
        give_back(own, here);
    }
}

/// In a first thread: gives back what earlier calls left on its stack below the caller. Elsewhere it does nothing.
#[inline(never)]
pub fn trim() {
    let mark = 0u8;
    let here = (&raw const mark as usize).saturating_sub(CALLS_BYTES) & !(PAGE - 1);
    if is_of_first_thread(here) {
        give_back(here.saturating_sub(REACH_BYTES), here);
    }
}

/// The page in which the words of the program begin, at the top of a first thread's stack.
fn words() -> usize {
    // SAFETY: reads the vector that the kernel left on the stack. AT_RANDOM's bytes lie right below the words.
    unsafe { libc::getauxval(libc::AT_RANDOM) as usize & !(PAGE - 1) }
}

fn is_of_first_thread(place: usize) -> bool {
    words().checked_sub(place).is_some_and(|used| used < REACH_BYTES)
}

fn give_back(from: usize, to: usize) {
    if let Some(bytes) = to.checked_sub(from) {
        // SAFETY: the range lies in the inherited stack or in the unused part of this process's own, and the callers
        // give up both. Where nothing is mapped, nothing happens.
        unsafe { libc::madvise(from as *mut c_void, bytes, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::exit_now;
    use crate::sys::wait::wait_for;

    #[test]
    fn a_child_works_on_its_own_stack_with_what_it_was_given() {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let given = [7u8; 300];
        let (pid, _) = clone_onto(0, move |pids| {
            assert!(pids.is_none(), "it may kill everything");
            let sent = theirs.send(&given).is_ok();
            wipe();
            // The frame is still there, and so is what it was given.
            exit_now(if sent && given == [7; 300] { 9 } else { 1 })
        })
        .unwrap();
        let mut bytes = [0; 400];
        assert_eq!(ours.recv(&mut bytes).unwrap(), 300);
        assert_eq!(wait_for(pid), Ok(9 << 8));
        // The other end was the child's alone.
        assert_eq!(ours.send(b"x").unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
