//! Landlock: a process gives up access to all files but those beneath some folders, landlock(7), Linux 5.13.

use super::{Errno, Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const EXECUTE: u64 = 1 << 0;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// All rights of the first version: bits 0 to 12.
const VERSION_1: u64 = (1 << 13) - 1;
/// Version 2 (5.19): linking and renaming between folders.
const REFER: u64 = 1 << 13;
/// Version 3 (6.2).
const TRUNCATE: u64 = 1 << 14;
/// Version 5 (6.10).
const IOCTL_DEV: u64 = 1 << 15;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// `landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION)`, landlock_create_ruleset(2): which version the
/// kernel has; `None` if it has none or it is switched off.
pub fn version() -> Option<u32> {
    let none = core::ptr::null::<u64>();
    // SAFETY: with this flag the kernel reads no ruleset.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, CREATE_RULESET_VERSION) };
    check(answer).ok().and_then(|version| u32::try_from(version).ok())
}

/// Confines the calling thread for good: beneath `write` it may do all but execute, beneath `read` only read, and
/// nothing anywhere else. Needs no_new_privs or CAP_SYS_ADMIN. Descriptors that are open stay as they are.
///
/// `Ok(false)`: the kernel lacks Landlock, or has only its first version, which forbids every link between folders.
pub fn confine(write: &[BorrowedFd<'_>], read: &[BorrowedFd<'_>]) -> Result<bool> {
    let Some(version @ 2..) = version() else { return Ok(false) };
    let mut handled = VERSION_1 | REFER;
    if version >= 3 {
        handled |= TRUNCATE;
    }
    if version >= 5 {
        handled |= IOCTL_DEV;
    }
    // SAFETY: the first field alone is the ruleset's first version; its size is passed.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<u64>(), 0) })?;
    // SAFETY: a new descriptor that nothing else owns.
    let ruleset = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let writing = write.iter().map(|fd| (fd, handled & !EXECUTE));
    for (folder, allowed) in writing.chain(read.iter().map(|fd| (fd, READ_FILE | READ_DIR))) {
        let rule = PathBeneath { allowed, parent: folder.as_raw_fd() };
        // SAFETY: the struct has the kernel's packed layout and lives until the call returns.
        let answer = unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0)
        };
        check(answer)?;
    }
    // SAFETY: a descriptor and a flag word.
    match check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }) {
        Ok(_) => Ok(true),
        Err(Errno(libc::E2BIG)) => Ok(false),
        Err(errno) => Err(errno),
    }
}
