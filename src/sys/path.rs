//! Paths: opened beneath a root without following what an image put there.

use super::{Errno, Result, check, walk};
use nix::fcntl::OFlag;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The working directory as a descriptor argument.
// SAFETY: AT_FDCWD is no descriptor that could be closed.
pub const CWD: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };

/// Longest path handled, with its NUL (`PATH_MAX`).
const PATH_BYTES: usize = 4096;

/// `open(2)`, close-on-exec, without an allocation.
pub fn open(path: &CStr, flags: OFlag) -> Result<OwnedFd> {
    open_at(CWD, path, flags, 0)
}

/// `openat(2)`, close-on-exec, without an allocation.
pub fn open_at(dir: BorrowedFd<'_>, path: &CStr, flags: OFlag, mode: u32) -> Result<OwnedFd> {
    let flags = completed(flags).bits();
    // SAFETY: the path is NUL-terminated and lives until the call returns.
    let fd = check(unsafe { libc::openat(dir.as_raw_fd(), path.as_ptr(), flags, mode) }.into())?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Close-on-exec, and files beyond 2 GiB on 32-bit machines; openat2(2) refuses that beside O_PATH.
fn completed(flags: OFlag) -> OFlag {
    let large = if flags.contains(OFlag::O_PATH) { OFlag::empty() } else { OFlag::O_LARGEFILE };
    flags | OFlag::O_CLOEXEC | large
}

/// How symbolic links beneath the root are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Resolved as if the root were `/`.
    InRoot,
    /// Refused with ELOOP.
    Refuse,
}

/// `struct open_how` of openat2(2).
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// `openat2(2)` (5.6): opens `path` beneath `root`, which it cannot leave whatever links and `..` it meets. Where the
/// call is missing, a walk with openat(2) and O_NOFOLLOW, one component at a time ([`walk`]).
pub fn open_beneath(root: BorrowedFd<'_>, path: &CStr, flags: OFlag, links: Links) -> Result<OwnedFd> {
    let resolve = match links {
        Links::InRoot => RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        Links::Refuse => RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    let flags = completed(flags);
    let how = OpenHow { flags: flags.bits() as u32 as u64, mode: 0, resolve };
    // A rename or mount elsewhere during the walk makes the kernel answer EAGAIN rather than guess.
    for _ in 0..128 {
        // SAFETY: the path is NUL-terminated; the struct is the kernel's version 0 and its size is passed.
        let answer = check(unsafe {
            libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<OpenHow>())
        });
        match answer {
            Err(Errno(libc::EAGAIN)) => {}
            Err(Errno(libc::ENOSYS)) => return walk::open(root, path, flags, links),
            // SAFETY: a new descriptor that nothing else owns.
            answer => return Ok(unsafe { OwnedFd::from_raw_fd(answer? as RawFd) }),
        }
    }
    Err(Errno(libc::EAGAIN))
}

/// Copies `name` into `buffer` with a NUL behind it.
pub fn terminated<'a>(name: &[u8], buffer: &'a mut [u8]) -> Result<&'a CStr> {
    let room = buffer.get_mut(..=name.len()).ok_or(Errno(libc::ENAMETOOLONG))?;
    if let Some((last, head)) = room.split_last_mut() {
        head.copy_from_slice(name);
        *last = 0;
    }
    CStr::from_bytes_with_nul(room).map_err(|_| Errno(libc::EINVAL))
}

/// `chdir(2)`.
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::chdir(path.as_ptr()) }.into()).map(drop)
}

/// `getcwd(2)`: whether the working directory can be reached from the root; the kernel shows one that cannot without a
/// leading slash.
pub fn working_dir_is_inside() -> Result<bool> {
    let mut buffer = [0u8; PATH_BYTES];
    // SAFETY: the kernel writes at most `buffer.len()` bytes.
    check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(buffer.first() == Some(&b'/'))
}

/// `faccessat(2)` F_OK: whether there is something at `path`, as far as this process may see.
pub fn exists(path: &CStr) -> bool {
    // SAFETY: the path is NUL-terminated.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

/// Whether the file at `path` begins with `magic` (at most 16 bytes).
pub fn starts_with(path: &CStr, magic: &[u8]) -> bool {
    let mut head = [0u8; 16];
    let Ok(file) = open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) else { return false };
    nix::unistd::read(&file, &mut head).is_ok_and(|got| head.get(..got).is_some_and(|head| head.starts_with(magic)))
}

/// `fchdir(2)`: the working directory becomes what `fd` refers to.
pub fn enter(fd: RawFd) -> Result<()> {
    // SAFETY: an integer; a wrong descriptor is an error.
    check(unsafe { libc::fchdir(fd) }.into()).map(drop)
}

/// `mkdirat(2)`; the umask of the process applies.
pub fn make_dir(dir: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), path.as_ptr(), mode as libc::mode_t) }.into()).map(drop)
}

/// `symlink(2)`.
pub fn make_link(to: &CStr, path: &CStr) -> Result<()> {
    // SAFETY: both paths are NUL-terminated.
    check(unsafe { libc::symlink(to.as_ptr(), path.as_ptr()) }.into()).map(drop)
}

/// `unlinkat(2)` of a file.
pub fn remove(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: the name is NUL-terminated.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) }.into()).map(drop)
}

/// `unlinkat(2)` of an empty directory.
pub fn remove_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: the name is NUL-terminated.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) }.into()).map(drop)
}

/// `pread(2)`: what is in the file behind `fd` from byte `at` on; the number of bytes, 0 at its end.
pub fn read_at(fd: RawFd, buffer: &mut [u8], at: usize) -> Result<usize> {
    // SAFETY: the descriptor is borrowed for the call alone; a wrong one is an error.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    loop {
        match nix::sys::uio::pread(fd, buffer, at as libc::off_t) {
            Err(nix::Error::EINTR) => {}
            count => return Ok(count?),
        }
    }
}

/// `fchown(2)`.
pub fn change_owner(fd: &OwnedFd, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: integers.
    check(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) }.into()).map(drop)
}

/// Makes `path` beneath `root`, with the directories above it (0755): a directory, or an empty file. What is there
/// already stays.
pub fn create_beneath(root: BorrowedFd<'_>, path: &CStr, directory: bool, links: Links) -> Result<()> {
    let bytes = path.to_bytes();
    let trimmed = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == b'/').count();
    let mut buffer = [0u8; PATH_BYTES];
    let mut parent: Option<OwnedFd> = None;
    let mut start = 0;
    while start < trimmed {
        let rest = bytes.get(start..trimmed).unwrap_or(b"");
        let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let (name, end) = (rest.get(..length).unwrap_or(b""), start + length);
        start = end + 1;
        if matches!(name, b"" | b".") {
            continue;
        }
        let here = parent.as_ref().map_or(root, OwnedFd::as_fd);
        let name = terminated(name, &mut buffer)?;
        let made = if end == trimmed && !directory {
            open_at(here, name, OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY, 0o644).map(drop)
        } else {
            make_dir(here, name, 0o755)
        };
        match made {
            Ok(()) | Err(Errno(libc::EEXIST)) => {}
            Err(errno) => return Err(errno),
        }
        if end < trimmed {
            // The whole prefix from the root, so that a link on the way is resolved, or refused, as by the caller.
            let prefix = terminated(bytes.get(..end).unwrap_or(b""), &mut buffer)?;
            parent = Some(open_beneath(root, prefix, OFlag::O_PATH | OFlag::O_DIRECTORY, links)?);
        }
    }
    Ok(())
}

/// `fstat(2)`: whether two descriptors refer to the same file: device and inode number.
pub fn is_same_file(one: RawFd, other: RawFd) -> Result<bool> {
    // SAFETY: the descriptors are borrowed for the call alone; a wrong one is an error.
    let (one, other) = unsafe { (BorrowedFd::borrow_raw(one), BorrowedFd::borrow_raw(other)) };
    let (one, other) = (nix::sys::stat::fstat(one)?, nix::sys::stat::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}
