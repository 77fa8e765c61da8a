//! Whether the kernel has a system call, asked so that it does nothing.

use super::{Errno, Result, check, process};

/// A system call younger than the oldest kernel that coracle runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// clone3(2), 5.3.
    Clone3,
    /// close_range(2), 5.9.
    CloseRange,
    /// mount_setattr(2), 5.12, which needs open_tree(2) and move_mount(2), 5.2, to be of use.
    MountSetattr,
    /// openat2(2), 5.6.
    Openat2,
    /// pidfd_open(2), 5.3.
    PidfdOpen,
}

/// Whether the kernel knows the call: with these arguments each of them fails before it begins, with ENOSYS only where
/// it does not exist.
pub fn has(call: Call) -> bool {
    let number = match call {
        Call::Clone3 => libc::SYS_clone3,
        Call::CloseRange => libc::SYS_close_range,
        Call::MountSetattr => libc::SYS_mount_setattr,
        Call::Openat2 => libc::SYS_openat2,
        Call::PidfdOpen => libc::SYS_pidfd_open,
    };
    // SAFETY: an address or descriptor that cannot be, sizes of zero, flags that none of the calls has.
    let answer = unsafe { libc::syscall(number, -1isize, 0usize, u32::MAX, 0usize, 0usize) };
    check(answer) != Err(Errno(libc::ENOSYS))
}

/// Whether the kernel has system call filters: one that lies nowhere is looked for (EFAULT) by a kernel that would take one
/// (PR_SET_SECCOMP(2const), EINVAL without CONFIG_SECCOMP_FILTER).
pub fn has_filters() -> bool {
    // SAFETY: no filter is at address 0, so none is installed.
    let answer = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, 0usize, 0usize, 0usize) };
    check(answer.into()) == Err(Errno(libc::EFAULT))
}

/// Whether a process can be cloned into a cgroup (`CLONE_INTO_CGROUP`, clone(2), 5.7): a descriptor that is none is
/// refused as such by a kernel that looks at it.
pub fn clones_into_cgroup() -> bool {
    let answer: Result<process::Forked> = process::clone(0, Some(i32::MAX));
    matches!(answer, Err(Errno(libc::EBADF)))
}
