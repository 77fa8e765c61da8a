//! Mounts.

use super::{Errno, Result, check};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `mount(2)` of a file system of type `kind` on `target`.
pub fn mount(kind: &CStr, target: &CStr, flags: libc::c_ulong, options: &CStr) -> Result<()> {
    // SAFETY: all strings are NUL-terminated and live until the call returns.
    check(unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) }.into())
        .map(drop)
}

/// `mount(2)` of the block device at `source`.
pub fn mount_device(source: &CStr, kind: &CStr, target: &CStr, flags: libc::c_ulong) -> Result<()> {
    let none = core::ptr::null();
    // SAFETY: all strings are NUL-terminated and live until the call returns.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, none) }.into()).map(drop)
}

/// `mount(2)` with MS_BIND: `source` also at `target`.
pub fn bind(source: &CStr, target: &CStr, flags: libc::c_ulong) -> Result<()> {
    let none = core::ptr::null();
    // SAFETY: both paths are NUL-terminated.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), none, libc::MS_BIND | flags, none.cast()) }.into())
        .map(drop)
}

/// `mount(2)` without a source: changes the propagation or the flags of the mount at `target`.
pub fn change(target: &CStr, flags: libc::c_ulong) -> Result<()> {
    let none = core::ptr::null();
    // SAFETY: the path is NUL-terminated; the kernel ignores source and type.
    check(unsafe { libc::mount(none, target.as_ptr(), none, flags, none.cast()) }.into()).map(drop)
}

/// `mount(2)` with MS_MOVE.
pub fn relocate(source: &CStr, target: &CStr) -> Result<()> {
    let none = core::ptr::null();
    // SAFETY: both paths are NUL-terminated.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), none, libc::MS_MOVE, none.cast()) }.into()).map(drop)
}

/// `pivot_root(2)`: `new` becomes the root, the old one is mounted at `old`.
pub fn pivot_root(new: &CStr, old: &CStr) -> Result<()> {
    // SAFETY: both paths are NUL-terminated.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) }).map(drop)
}

/// `umount2(2)` with MNT_DETACH: takes the mount at `target` and all beneath it out of the tree.
pub fn detach(target: &CStr) -> Result<()> {
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }.into()).map(drop)
}

/// `chroot(2)`.
pub fn chroot(path: &CStr) -> Result<()> {
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::chroot(path.as_ptr()) }.into()).map(drop)
}

/// Writing through the mount is refused.
pub const RDONLY: u64 = 0x1;
/// setuid bits and file capabilities have no effect.
pub const NOSUID: u64 = 0x2;
/// Device nodes cannot be opened.
pub const NODEV: u64 = 0x4;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;

/// `open_tree(2)` with OPEN_TREE_CLONE (5.2) and `mount_setattr(2)` (5.12): a copy, attached nowhere yet, of the mounts
/// at and beneath `source`, with `attributes` set on each.
pub fn clone_tree(source: RawFd, attributes: u64) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | EMPTY_PATH | libc::O_CLOEXEC as u32;
    // SAFETY: an empty NUL-terminated path and integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, source, c"".as_ptr(), flags) })?;
    // SAFETY: a new descriptor that nothing else owns.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let attr = MountAttr { set: attributes, clear: 0, propagation: 0, userns_fd: 0 };
    let (flags, size) = (EMPTY_PATH | AT_RECURSIVE, size_of::<MountAttr>());
    // SAFETY: the struct is the kernel's version 0 and its size is passed.
    let answer =
        unsafe { libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size) };
    check(answer).map(|_| tree)
}

/// `move_mount(2)` (5.2): attaches `tree` on what `target` refers to, without resolving a path.
pub fn attach(tree: &OwnedFd, target: BorrowedFd<'_>) -> Result<()> {
    const F_EMPTY_PATH: u32 = 0x04;
    const T_EMPTY_PATH: u32 = 0x40;
    let (from, to) = (tree.as_raw_fd(), target.as_raw_fd());
    let (empty, flags) = (c"".as_ptr(), F_EMPTY_PATH | T_EMPTY_PATH);
    // SAFETY: empty NUL-terminated paths and integers.
    check(unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, empty, flags) }).map(drop)
}

/// Whether an error of [`clone_tree`] or [`attach`] means that the kernel lacks the call, rather than that it refused.
pub fn is_missing(errno: Errno) -> bool {
    errno == Errno(libc::ENOSYS)
}
