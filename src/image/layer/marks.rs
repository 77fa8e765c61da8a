//! Where owners, modes, times, attributes and overlayfs's marks are kept: on the files, or, for a user who may not set
//! them there, in memory.

use super::Problem;
use super::error::os;
use crate::image::inodes::{Inode, Inodes};
use crate::image::tar::{Entry, Kind, Mtime, Xattr};
use crate::sys::{self, xattr};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode as Bits, SFlag, fchmod, fchmodat, fstat, fstatat, mknodat};
use nix::unistd::{Gid, Uid, fchown, fchownat};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

/// Overlayfs's mark on a folder that hides what lies below it.
const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// Where marks are kept.
pub enum Marks {
    /// On the files, as a service will find them.
    OnFiles {
        /// Whether they get the archive's owners, too.
        owners: bool,
    },
    /// In memory; the files belong to the caller, who may read and write them, and a whiteout is an empty file.
    InMemory(Ledger),
}

/// What files should have had, by inode.
#[derive(Debug, Default)]
pub struct Ledger {
    known: Inodes<Marked>,
}

/// What one object should have had.
#[derive(Debug, Default)]
pub struct Marked {
    /// Permission bits with setgid and sticky (07777).
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Mtime,
    /// Extended attributes by name.
    pub xattrs: Vec<Xattr>,
    /// Whether it is overlayfs's mark for a deleted file, a character device 0:0.
    pub whiteout: bool,
}

/// Who has what no entry gives an owner.
const ROOT: (Uid, Gid) = (Uid::from_raw(0), Gid::from_raw(0));
/// The permissions of a directory that the archive uses but does not list.
const UNLISTED: u32 = 0o755;

#[allow(clippy::useless_conversion, reason = "32 bits on some boards")]
fn inode(stat: &FileStat) -> Inode {
    (u64::from(stat.st_dev), u64::from(stat.st_ino))
}

impl Ledger {
    /// What the object with this status on its file should have had; nothing of one that is not of this layer.
    pub fn find(&self, stat: &FileStat) -> Option<&Marked> {
        self.known.get(inode(stat))
    }

    fn set_xattr(&mut self, stat: &FileStat, name: &CStr, value: &[u8]) {
        let inode = inode(stat);
        if self.known.get(inode).is_none() {
            self.known.insert(inode, Marked::default());
        }
        let Some(Marked { xattrs, .. }) = self.known.get_mut(inode) else { return };
        let name = name.to_bytes();
        xattrs.retain(|xattr| xattr.name != name);
        let place = xattrs.partition_point(|xattr| *xattr.name < *name);
        xattrs.insert(place, Xattr { name: name.to_vec(), value: value.to_vec() });
    }
}

impl Marks {
    /// The memory, if that is where they are.
    pub fn into_ledger(self) -> Option<Ledger> {
        match self {
            Marks::OnFiles { .. } => None,
            Marks::InMemory(ledger) => Some(ledger),
        }
    }

    /// Whether times are set on the files.
    pub fn on_files(&self) -> bool {
        matches!(self, Marks::OnFiles { .. })
    }

    /// A new directory is at `dir`: what memory has of an older object with its inode number is void.
    pub fn forget(&mut self, dir: impl AsFd) -> Result<(), Problem> {
        if let Marks::InMemory(ledger) = self {
            ledger.known.forget(inode(&fstat(&dir).map_err(os("stat"))?));
        }
        Ok(())
    }

    /// A directory was made that the archive uses but does not list.
    pub fn made(&mut self, dir: impl AsFd) -> Result<(), Problem> {
        match self {
            Marks::OnFiles { owners } => {
                if *owners {
                    // A setgid directory around it has passed its group on.
                    fchown(&dir, Some(ROOT.0), Some(ROOT.1)).map_err(os("chown"))?;
                }
                fchmod(&dir, Bits::from_bits_truncate(UNLISTED)).map_err(os("chmod"))
            }
            Marks::InMemory(ledger) => {
                let marked = Marked { permissions: UNLISTED, ..Marked::default() };
                ledger.known.insert(inode(&fstat(&dir).map_err(os("stat"))?), marked);
                Ok(())
            }
        }
    }

    /// Owner, then permissions (chown clears setuid bits), of the file or directory that is open at `fd`.
    pub fn attributes(&mut self, fd: impl AsFd, entry: &Entry, permissions: u32) -> Result<(), Problem> {
        match self {
            Marks::OnFiles { owners } => {
                if *owners {
                    fchown(&fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))).map_err(os("chown"))?;
                }
                fchmod(&fd, Bits::from_bits_truncate(permissions)).map_err(os("chmod"))
            }
            Marks::InMemory(ledger) => {
                let inode = inode(&fstat(&fd).map_err(os("stat"))?);
                let mut marked = of(entry, permissions);
                // A directory that is listed twice keeps its marks; a file is always new.
                if entry.kind == Kind::Directory
                    && let Some(known) = ledger.known.get_mut(inode)
                {
                    marked.xattrs = core::mem::take(&mut known.xattrs);
                }
                ledger.known.insert(inode, marked);
                Ok(())
            }
        }
    }

    /// The same for `name`, not following a link; `permissions` of what has some.
    pub fn attributes_at(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        permissions: Option<u32>,
    ) -> Result<(), Problem> {
        match self {
            Marks::OnFiles { owners } => {
                if *owners {
                    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
                    fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(os("chown"))?;
                }
                let Some(permissions) = permissions else { return Ok(()) };
                // Made a moment ago in a directory that nobody else uses, so it is still what it was, no link.
                let bits = Bits::from_bits_truncate(permissions);
                fchmodat(dir, name, bits, FchmodatFlags::FollowSymlink).map_err(os("chmod"))
            }
            Marks::InMemory(ledger) => {
                let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(os("stat"))?;
                // A link has all permissions on every file system that a store lies on.
                ledger.known.insert(inode(&stat), of(entry, permissions.unwrap_or(0o777)));
                Ok(())
            }
        }
    }

    /// Sets an extended attribute.
    pub fn xattr(&mut self, fd: impl AsFd, name: &CStr, value: &[u8]) -> sys::Result<()> {
        match self {
            Marks::OnFiles { .. } => xattr::set(fd.as_fd(), name, value),
            // squashfs, which a baked store ends up on, has no access lists.
            Marks::InMemory(_) if name.to_bytes().starts_with(b"system.") => Err(sys::Errno(libc::EOPNOTSUPP)),
            Marks::InMemory(ledger) => {
                ledger.set_xattr(&fstat(&fd)?, name, value);
                Ok(())
            }
        }
    }

    /// Marks a directory so that overlayfs shows nothing of the layers below it.
    pub fn opaque(&mut self, dir: impl AsFd) -> Result<(), Problem> {
        self.xattr(dir, OPAQUE, b"y").map_err(|errno| Problem::from_errno("setxattr trusted.overlay", errno))
    }

    /// Makes overlayfs's mark for a deleted file; EEXIST if there is something of that name.
    pub fn whiteout(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
        match self {
            Marks::OnFiles { owners } => {
                mknodat(dir, name, SFlag::S_IFCHR, Bits::empty(), 0)?;
                match *owners {
                    true => fchownat(dir, name, Some(ROOT.0), Some(ROOT.1), AtFlags::AT_SYMLINK_NOFOLLOW),
                    false => Ok(()),
                }
            }
            Marks::InMemory(ledger) => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let file = openat(dir, name, flags, Bits::S_IRUSR | Bits::S_IWUSR)?;
                let marked = Marked { whiteout: true, ..Marked::default() };
                ledger.known.insert(inode(&fstat(&file)?), marked);
                Ok(())
            }
        }
    }

    /// Whether this is overlayfs's mark for a deleted file.
    pub fn is_whiteout(&self, stat: &FileStat) -> bool {
        match self {
            Marks::OnFiles { .. } => {
                SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR && stat.st_rdev == 0
            }
            Marks::InMemory(ledger) => ledger.known.get(inode(stat)).is_some_and(|marked| marked.whiteout),
        }
    }
}

fn of(entry: &Entry, permissions: u32) -> Marked {
    let Entry { uid, gid, mtime, .. } = *entry;
    Marked { permissions, uid, gid, mtime, xattrs: Vec::new(), whiteout: false }
}
