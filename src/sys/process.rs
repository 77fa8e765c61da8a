//! Processes: creating them into namespaces and cgroups, waiting, signalling, becoming another program.

use super::heap::HEAP;
use super::{Errno, Result, check};
use core::cell::Cell;
use std::ffi::{CStr, CString, NulError};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A list of strings with the null-terminated array of pointers that execve(2) wants, made before a fork so that the
/// child allocates nothing.
pub struct CStrings {
    strings: Vec<CString>,
    /// One for each string, room for three more, and the end.
    pointers: Vec<Cell<*const libc::c_char>>,
}

// The pointers lead into `strings`, whose heap blocks never move while the list lives.
impl CStrings {
    /// Takes the strings.
    pub fn new(strings: Vec<CString>) -> CStrings {
        let mut pointers = vec![Cell::new(core::ptr::null()); strings.len() + 4];
        pointers.iter_mut().zip(&strings).for_each(|(to, string)| *to = Cell::new(string.as_ptr()));
        CStrings { strings, pointers }
    }

    /// Takes a copy of `texts`.
    ///
    /// # Errors
    /// One of them holds a NUL byte.
    pub fn of<T: AsRef<str>>(texts: &[T]) -> core::result::Result<CStrings, NulError> {
        let mut strings = Vec::with_capacity(texts.len());
        for text in texts {
            strings.push(CString::new(text.as_ref())?);
        }
        Ok(CStrings::new(strings))
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

impl Clone for CStrings {
    fn clone(&self) -> CStrings {
        CStrings::new(self.strings.clone())
    }
}

impl core::fmt::Debug for CStrings {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.strings.fmt(f)
    }
}

/// `CLONE_INTO_CGROUP`: be born in the cgroup behind a descriptor (Linux 5.7). libc's constant is cut to 32 bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_NEWCGROUP` and the other namespace flags as clone3(2) takes them.
pub const NEW_NS: u64 = libc::CLONE_NEWNS as u64;
/// A pid namespace.
pub const NEW_PID: u64 = libc::CLONE_NEWPID as u64;
/// A namespace of System V IPC and POSIX message queues.
pub const NEW_IPC: u64 = libc::CLONE_NEWIPC as u64;
/// A host name of its own.
pub const NEW_UTS: u64 = libc::CLONE_NEWUTS as u64;
/// A network namespace.
pub const NEW_NET: u64 = libc::CLONE_NEWNET as u64;
/// The parent sleeps until the child has executed a program or ended.
pub const VFORK: u64 = libc::CLONE_VFORK as u64;

/// `struct clone_args` of clone3(2), version 2 (Linux 5.7); libc lacks it on some targets.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of a fork this is.
pub enum Forked {
    /// The child.
    Child,
    /// The parent, with the child's pid.
    Parent(i32),
}

/// `clone3(2)` (5.3), or `clone(2)` where the kernel answers ENOSYS: a copy of this process, as by fork(2), in the new
/// namespaces of `flags`, in the cgroup behind `cgroup` if given (5.7), with SIGCHLD at its end.
///
/// The caller must be single-threaded or its child must restrict itself to system calls: no allocation, no lock. With
/// `cgroup` there is no older call that does the same, so ENOSYS is passed on.
pub fn clone(flags: u64, cgroup: Option<RawFd>) -> Result<Forked> {
    let mut args = CloneArgs { flags, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup as u64;
    }
    HEAP.hold();
    // SAFETY: `args` is the kernel's version 2 layout and its size is passed; without CLONE_VM the child runs on a copy
    // of this stack, so returning twice is as sound as fork(2).
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    let answer = match check(answer) {
        Err(Errno(libc::ENOSYS)) if cgroup.is_none() => old_clone(flags),
        answer => answer,
    };
    HEAP.release();
    Ok(match answer? {
        0 => {
            super::fault::disarm();
            Forked::Child
        }
        pid => Forked::Parent(pid as i32),
    })
}

/// `clone(2)`: flags, stack, and three more whose order differs between architectures, but which are unused.
fn old_clone(flags: u64) -> Result<libc::c_long> {
    let word = flags as libc::c_ulong | libc::SIGCHLD as libc::c_ulong;
    let none = core::ptr::null_mut::<libc::c_void>();
    // SAFETY: a null stack without CLONE_VM means the child continues on its copy of this one, as by fork(2).
    check(unsafe { libc::syscall(libc::SYS_clone, word, none, none, none, none) })
}

/// `execve(2)`: becomes the program at `path`, with `more`, of which three count, behind the entries of `env`; returns only
/// with an error.
pub fn execve(path: &CStr, argv: &CStrings, env: &CStrings, more: &[&CStr]) -> Errno {
    let room = || env.pointers.iter().skip(env.strings.len()).take(3);
    room().zip(more).for_each(|(room, more)| room.set(more.as_ptr()));
    // SAFETY: a cell is its content to the kernel. Both arrays end in a null pointer and point to NUL-terminated strings
    // that live in the lists, or for as long as `more`, whose pointers are taken back.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr().cast(), env.pointers.as_ptr().cast()) };
    let errno = Errno(nix::errno::Errno::last_raw());
    room().for_each(|room| room.set(core::ptr::null()));
    errno
}

/// `execve(2)` with the environment that this process was started with; returns only with an error.
pub fn execve_same_env(path: &CStr, argv: &CStrings) -> Errno {
    // SAFETY: as for `execve`; the C library keeps `environ` as the kernel passed it, and coracle never changes it.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr().cast(), environ) };
    Errno(nix::errno::Errno::last_raw())
}

unsafe extern "C" {
    /// environ(7)
    static environ: *const *const libc::c_char;
}

/// `_exit(2)`: ends the process at once: no exit handlers, no flushed buffers of the parent's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; always sound.
    unsafe { libc::_exit(code) }
}

/// `pidfd_open(2)` (5.3): a descriptor that stands for process `pid` and becomes readable when it ends.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: two integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `pidfd_send_signal(2)` (5.1): signals the process behind `pidfd`, never a later one with the same number.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let info = core::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo means what kill(2) would send.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) }).map(drop)
}

/// A namespace of cgroups, as [`unshare`] takes it.
pub const NEW_CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;

/// `unshare(2)`: gives this process namespaces of its own.
pub fn unshare(flags: u64) -> Result<()> {
    // SAFETY: an integer.
    check(unsafe { libc::unshare(flags as libc::c_int) }.into()).map(drop)
}

/// `setns(2)`: enters the namespace of type `kind` behind `fd`.
pub fn enter(fd: RawFd, kind: u64) -> Result<()> {
    // SAFETY: two integers; a wrong descriptor is an error.
    check(unsafe { libc::setns(fd, kind as libc::c_int) }.into()).map(drop)
}

/// `prctl(2)` PR_SET_PDEATHSIG: SIGKILL for this process when the thread that made it ends.
pub fn die_with_parent() -> Result<()> {
    // SAFETY: integers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) }.into()).map(drop)
}

/// `prctl(2)` PR_SET_DUMPABLE: whether other processes of the same user may trace this one and open its descriptors.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    // SAFETY: integers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(dumpable), 0, 0, 0) }.into()).map(drop)
}

/// `umask(2)`.
pub fn umask(mask: u32) {
    // SAFETY: an integer; never fails.
    unsafe { libc::umask(mask as libc::mode_t) };
}

/// `setsid(2)`: leads a session of its own, without a controlling terminal.
pub fn new_session() -> Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() }.into()).map(drop)
}

/// `ioctl_tty(2)` TIOCSCTTY: makes the terminal behind `fd` the controlling one of this session.
pub fn take_terminal(fd: RawFd) -> Result<()> {
    // SAFETY: the argument is an integer.
    check(unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// `setrlimit(2)`.
pub fn set_rlimit(resource: i32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft as libc::rlim_t, rlim_max: hard as libc::rlim_t };
    // SAFETY: the kernel reads the struct, which lives until the call returns.
    check(unsafe { libc::setrlimit(resource as _, &raw const limit) }.into()).map(drop)
}

/// `write(2)` of a few bytes to a kernel file, which takes them whole or not at all.
pub fn write_all(fd: RawFd, bytes: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `bytes.len()` bytes of a live slice.
    let written = check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as libc::c_long)?;
    if written as usize == bytes.len() { Ok(()) } else { Err(Errno(libc::EIO)) }
}

/// Opens the kernel file at `path` and writes `bytes` to it.
pub fn write_file(path: &CStr, bytes: &[u8]) -> Result<()> {
    let file = super::path::open(path, nix::fcntl::OFlag::O_WRONLY)?;
    write_all(file.as_raw_fd(), bytes)
}

/// Every signal to its default disposition and none blocked: what this program set up (SIGPIPE ignored, signals blocked
/// for a signalfd) or inherited (SIGHUP ignored by nohup) is not the new program's business.
pub fn reset_signals() {
    dispose(libc::SIG_DFL);
}

/// Every signal that can be ignored is, none is blocked, and none that came before waits: one that is blocked is kept even
/// where it is ignored.
pub fn ignore_signals() {
    dispose(libc::SIG_IGN);
}

/// `sigaction(2)` for every signal, then `sigprocmask(2)` for none.
fn dispose(how: libc::sighandler_t) {
    // SAFETY: an all-zero sigaction has no flags and takes SIG_DFL or SIG_IGN; numbers that cannot be set are refused by the
    // kernel.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = how;
        for signal in 1..=31 {
            libc::sigaction(signal, &raw const action, core::ptr::null_mut());
        }
        let mut none: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, core::ptr::null_mut());
    }
}

/// `fcntl(2)` F_DUPFD_CLOEXEC: another descriptor for what is behind `fd`, with the first free number from `from` on.
pub fn lift(fd: RawFd, from: RawFd) -> Result<RawFd> {
    // SAFETY: integers; a descriptor that is not open is an error.
    check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, from) }.into()).map(|fd| fd as RawFd)
}

/// `dup3(2)`: makes `target` the same as `source`, open across execve(2), also when they are equal.
pub fn duplicate(source: RawFd, target: RawFd) -> Result<()> {
    // SAFETY: integers; `target` is a number that nothing in the child owns: 0, 1, 2, or one that main is to have.
    unsafe {
        if source == target {
            check(libc::fcntl(target, libc::F_SETFD, 0).into()).map(drop)
        } else {
            check(libc::dup3(source, target, 0).into()).map(drop)
        }
    }
}

/// `close_range(2)` (5.9) over `first..=last`; where it is missing, close(2) up to the limit of open files.
fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: the caller gives up every descriptor in the range.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }) {
        Err(Errno(libc::ENOSYS)) => {}
        answer => return answer.map(drop),
    }
    for fd in first..=last.min(highest_fd()) {
        // SAFETY: as above; a number that is not open is an error that does not matter.
        unsafe { libc::close(fd as RawFd) };
    }
    Ok(())
}

/// The highest number that a descriptor of this process can have: `getrlimit(2)` RLIMIT_NOFILE. coracle never lowers
/// its own limit, so nothing lies beyond it.
fn highest_fd() -> u32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the struct.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    u32::try_from(limit.rlim_cur).unwrap_or(1 << 20)
}

/// Closes every descriptor that is not in `keep`; negative numbers do not count.
pub fn close_all_but(keep: &[RawFd]) -> Result<()> {
    let mut next = 0;
    while let Some(fd) = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd >= next).min() {
        if fd > next {
            close_range(next, fd - 1)?;
        }
        next = fd + 1;
    }
    close_range(next, u32::MAX)
}

/// `waitpid(2)` for a child that is known to have ended or to be ending.
pub fn reap(pid: i32) {
    // SAFETY: a null status is allowed.
    while unsafe { libc::waitpid(pid, core::ptr::null_mut(), 0) } == -1
        && nix::errno::Errno::last() == nix::errno::Errno::EINTR
    {}
}

/// `sethostname(2)`.
pub fn set_hostname(name: &CStr) -> Result<()> {
    // SAFETY: the kernel reads `count_bytes` bytes of a live string.
    check(unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) }.into()).map(drop)
}

/// `netdevice(7)` SIOCSIFFLAGS: brings `lo` of this network namespace up. Any socket will do; a kernel always has unix
/// sockets.
pub fn loopback_up() -> Result<()> {
    let (socket, mut request) = interface(b"lo")?;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads an ifreq with name and flags set.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into()).map(drop)
}

/// `netdevice(7)` SIOCGIFFLAGS: whether a network interface of this network namespace is up and can carry something
/// (IFF_RUNNING). ENODEV: there is none.
pub fn link_is_running(name: &str) -> Result<bool> {
    let (socket, mut request) = interface(name.as_bytes())?;
    // SAFETY: the kernel reads the name and writes the flags of an ifreq that lives on this stack.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) }.into())?;
    let wanted = libc::IFF_UP | libc::IFF_RUNNING;
    // SAFETY: the kernel has filled in the flags.
    if i32::from(unsafe { request.ifr_ifru.ifru_flags }) & wanted != wanted {
        return Ok(false);
    }
    // The flag says so too of one that came up a moment ago and whose carrier the kernel has not looked at.
    let mut link = [ETHTOOL_GLINK, 1];
    request.ifr_ifru.ifru_data = link.as_mut_ptr().cast();
    // SAFETY: the kernel reads the name and the command and writes the second number; both live on this stack.
    let asked = check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) }.into());
    // A driver that cannot tell has no carrier to lose.
    Ok(asked.is_err() || link[1] != 0)
}

/// `linux/ethtool.h`: asks for the carrier, as the second of two 32-bit numbers.
const ETHTOOL_GLINK: u32 = 0xa;

/// A socket to ask about interfaces, and a request with the interface's name cut to what the kernel takes.
fn interface(name: &[u8]) -> Result<(OwnedFd, libc::ifreq)> {
    // SAFETY: integers.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into())?;
    // SAFETY: a new descriptor that nothing else owns; an all-zero ifreq is valid.
    let (socket, mut request) = unsafe { (OwnedFd::from_raw_fd(fd as RawFd), core::mem::zeroed::<libc::ifreq>()) };
    request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name).for_each(|(to, from)| *to = *from as libc::c_char);
    Ok((socket, request))
}

/// Takes a descriptor that the kernel has just handed over as a number.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller got the number from a call that made it, such as recvmsg(2) with SCM_RIGHTS.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
