//! Names of an archive to directories, by file descriptor, never outside the root.

use super::error::os;
use super::marks::Marks;
use super::{LayerOptions, Mode, Problem};
use crate::image::tar::printable;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode as Bits, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Symbolic links followed on one path, as the kernel has it (path_resolution(7)).
const LINKS: u32 = 40;
/// Directories below the root that a path can lead to, symbolic links followed; bounds open descriptors and recursion.
const DIRECTORIES: usize = 256;
/// A directory as a place to make something in.
const PLACE: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// A directory to read or to change.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Splits an archive's name into components; none at all is the root. `.` and empty ones vanish, `..` is refused.
pub fn components(path: &[u8], depth: u16) -> Result<Vec<&[u8]>, Problem> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Problem::DotDot),
            part if parts.len() < usize::from(depth) => parts.push(part),
            _ => return Err(Problem::Depth(depth)),
        }
    }
    Ok(parts)
}

/// A path component as system calls take it.
pub fn os_name(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// The directory that a layer is unpacked into.
pub struct Root<'a> {
    dir: BorrowedFd<'a>,
    openat2: bool,
    overlay: bool,
    /// Where owners and marks of its files are kept.
    pub marks: Marks,
    /// The directory used last and its path: archives list a directory's entries together.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Root<'a> {
    pub fn new(dir: BorrowedFd<'a>, options: &LayerOptions, marks: Marks) -> Root<'a> {
        Root { dir, openat2: options.openat2, overlay: options.mode == Mode::Overlay, marks, last: None }
    }

    /// The root itself.
    pub fn dir(&self) -> BorrowedFd<'a> {
        self.dir
    }

    /// The directory at `path`, made if missing. Symbolic links of the layer are followed as inside a chroot: an
    /// absolute target starts at the root, `..` stops there.
    pub fn directory(&mut self, path: &[&[u8]]) -> Result<BorrowedFd<'_>, Problem> {
        self.place(path).map(|(dir, _)| dir)
    }

    /// The same, with the marks.
    pub fn place(&mut self, path: &[&[u8]]) -> Result<(BorrowedFd<'_>, &mut Marks), Problem> {
        if path.is_empty() {
            return Ok((self.dir, &mut self.marks));
        }
        let key = path.join(&b'/');
        if self.last.as_ref().is_none_or(|(known, _)| *known != key) {
            self.last = None;
            let fd = match self.resolve(&key)? {
                Some(fd) => fd,
                None => self.walk(path, true)?.ok_or(Problem::Loop)?,
            };
            self.last = Some((key, fd));
        }
        Ok((self.last.as_ref().map_or(self.dir, |(_, fd)| fd.as_fd()), &mut self.marks))
    }

    /// The directory at `path` if it is there; nothing is made.
    pub fn existing(&mut self, path: &[&[u8]]) -> Result<Option<OwnedFd>, Problem> {
        match self.resolve(&path.join(&b'/'))? {
            None => self.walk(path, false),
            found => Ok(found),
        }
    }

    /// Remembers that `fd` is the directory at `path`.
    pub fn remember(&mut self, path: &[&[u8]], fd: OwnedFd) {
        self.last = Some((path.join(&b'/'), fd));
    }

    /// The directory at `key` if it exists and the kernel has openat2(2).
    fn resolve(&mut self, key: &[u8]) -> Result<Option<OwnedFd>, Problem> {
        if !self.openat2 {
            return Ok(None);
        }
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        match openat2(self.dir, key, how) {
            Ok(fd) => Ok(Some(fd)),
            // EPERM: a seccomp filter older than the call.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                self.openat2 = false;
                Ok(None)
            }
            // Missing, no directory, or a rename elsewhere in the system (EAGAIN): the walk makes it or says why not.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EAGAIN | Errno::ELOOP | Errno::EXDEV) => Ok(None),
            Err(errno) => Err(os("openat2")(errno)),
        }
    }

    /// Opens the directory at `path` one component at a time; what is missing is made, or else makes it `None`.
    fn walk(&mut self, path: &[&[u8]], make: bool) -> Result<Option<OwnedFd>, Problem> {
        let mut stack: Vec<OwnedFd> = Vec::new();
        let mut todo: Vec<Vec<u8>> = path.iter().rev().map(|part| part.to_vec()).collect();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match &*part {
                b"" | b"." => continue,
                b".." => {
                    stack.pop();
                    continue;
                }
                _ if stack.len() >= DIRECTORIES => return Err(Problem::Loop),
                _ => {}
            }
            let here = stack.last().map_or(self.dir, |fd| fd.as_fd());
            match openat(here, &*part, PLACE, Bits::empty()) {
                Ok(fd) => stack.push(fd),
                Err(Errno::ENOENT | Errno::ENOTDIR) if !make && !is_link(here, &part) => return Ok(None),
                Err(Errno::ENOENT) => stack.push(make_directory(here, &part, &mut self.marks)?),
                Err(Errno::ENOTDIR | Errno::ELOOP) => match readlinkat(here, &*part) {
                    Ok(target) => {
                        links += 1;
                        if links > LINKS {
                            return Err(Problem::Loop);
                        }
                        if target.as_bytes().starts_with(b"/") {
                            stack.clear();
                        }
                        todo.extend(target.as_bytes().split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                    }
                    Err(Errno::EINVAL) if self.overlay && self.marks.is_whiteout(&stat(here, &part)?) => {
                        // Hidden below, but present in this layer: an opaque directory is both.
                        unlinkat(here, &*part, UnlinkatFlags::NoRemoveDir).map_err(os("unlink"))?;
                        let fd = make_directory(here, &part, &mut self.marks)?;
                        self.marks.opaque(&fd)?;
                        stack.push(fd);
                    }
                    Err(Errno::EINVAL) => return Err(Problem::NotDirectory(printable(&part))),
                    Err(errno) => return Err(os("readlink")(errno)),
                },
                Err(errno) => return Err(os("open")(errno)),
            }
        }
        match stack.pop() {
            Some(fd) => Ok(Some(fd)),
            None => openat(self.dir, ".", PLACE, Bits::empty()).map(Some).map_err(os("open")),
        }
    }

    /// Removes whatever is at `name` in the directory at `parent`; says whether it was a whiteout.
    pub fn clear(&mut self, parent: &[&[u8]], name: &[u8]) -> Result<bool, Problem> {
        let overlay = self.overlay;
        let dir = self.directory(parent)?;
        let found = stat(dir, name)?;
        remove(dir, name, 0)?;
        // The remembered directory may have been in what was removed.
        self.last = None;
        Ok(overlay && self.marks.is_whiteout(&found))
    }
}

/// Status of `name`, not following a link.
pub fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<FileStat, Problem> {
    fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(os("stat"))
}

/// The type bits of a status.
pub fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn is_link(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    stat(dir, name).is_ok_and(|found| file_type(&found) == SFlag::S_IFLNK)
}

/// Opens a directory to read or to change it.
pub fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Problem> {
    openat(parent, name, READ, Bits::empty()).map_err(os("open"))
}

/// Makes a directory that the archive uses but does not list.
fn make_directory(parent: BorrowedFd<'_>, name: &[u8], marks: &mut Marks) -> Result<OwnedFd, Problem> {
    mkdirat(parent, name, Bits::S_IRWXU).map_err(os("mkdir"))?;
    let fd = open_directory(parent, name)?;
    marks.made(&fd)?;
    Ok(fd)
}

/// Removes `name` and, if it is a directory, all beneath it, never following a link.
fn remove(dir: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<(), Problem> {
    if depth > DIRECTORIES {
        return Err(Problem::Loop);
    }
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(os("unlink")(errno)),
    }
    let fd = openat(dir, name, READ, Bits::empty()).map_err(os("open"))?;
    let mut entries = nix::dir::Dir::from_fd(fd).map_err(os("open"))?;
    let names: Vec<Vec<u8>> = entries
        .iter()
        .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
        .collect::<Result<_, _>>()
        .map_err(os("readdir"))?;
    for inner in names.iter().filter(|name| !matches!(&***name, b"." | b"..")) {
        remove(entries.as_fd(), inner, depth + 1)?;
    }
    unlinkat(dir, name, UnlinkatFlags::RemoveDir).map_err(os("rmdir"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_components() {
        assert_eq!(components(b"./usr//bin/", 9).unwrap(), [&b"usr"[..], b"bin"]);
        assert_eq!(components(b"/etc/passwd", 9).unwrap(), [&b"etc"[..], b"passwd"]);
        for root in [&b"."[..], b"./", b"/", b"//", b"/./.", b""] {
            assert!(components(root, 9).unwrap().is_empty());
        }
        assert!(matches!(components(b"a/../b", 9), Err(Problem::DotDot)));
        assert!(matches!(components(b"a/b/c", 2), Err(Problem::Depth(2))));
        assert_eq!(components(b"a/...", 9).unwrap().len(), 2);
    }
}
