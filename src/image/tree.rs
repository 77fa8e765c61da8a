//! A walk over a layer's tree in one deterministic order, and the checksum of what it meets: names, types, owners, modes,
//! times, attributes and content.
//!
//! It finds what flash and power cuts do to files. Whoever can write the store can write the record as well.
#![forbid(unsafe_code)]

use super::layer::{Ledger, Marked};
use super::tar::{Mtime, Xattr};
use crate::sys::xattr;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use std::ffi::CString;
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use twox_hash::XxHash64;

/// Deepest tree walked: one descriptor for each level; unpacking allows less.
const DEPTH: usize = 512;

/// What a tree has at one name.
pub struct Object {
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Mtime,
    /// Device number of a device, else 0.
    pub device: u64,
    /// Bytes of a file, else 0.
    pub size: u64,
    /// Extended attributes by name, of files and folders alone; none that a security module or an access list adds.
    pub xattrs: Vec<Xattr>,
    /// The same for all names of one file.
    pub inode: (u64, u64),
    /// How many names it has.
    pub links: u64,
}

impl Object {
    fn correct(&mut self, marked: &Marked) {
        let kind = SFlag::S_IFMT.bits();
        (self.mode, self.size) = match marked.whiteout {
            true => (SFlag::S_IFCHR.bits(), 0),
            false => (self.mode & kind | marked.permissions, self.size),
        };
        (self.uid, self.gid, self.mtime) = (marked.uid, marked.gid, marked.mtime);
        self.xattrs = marked.xattrs.clone();
    }
}

/// What an object holds.
pub enum Content {
    /// So many names.
    Folder(usize),
    /// Bytes.
    File(File),
    /// A target.
    Link(Vec<u8>),
    /// A device or a named pipe holds nothing.
    Nothing,
}

/// Sees a tree pass.
pub trait Visit {
    /// The next object is at this name of the folder.
    fn name(&mut self, name: &[u8]);

    /// An object; `path` is its path from the root, empty for that.
    fn object(&mut self, path: &[u8], object: Object, content: Content) -> io::Result<()>;
}

/// The checksum of the tree below `root`, with or without the times of change.
pub fn checksum(root: OwnedFd, times: bool) -> io::Result<u64> {
    let mut sum = Sum::new(times);
    walk(root, None, &mut sum)?;
    Ok(sum.finish())
}

/// Shows `visitor` the tree below `root`, names in byte order. What `ledger` knows of an object counts, not what is on
/// the file.
pub fn walk(root: OwnedFd, ledger: Option<&Ledger>, visitor: &mut dyn Visit) -> io::Result<()> {
    Walk { ledger, visitor, path: Vec::new() }.folder(root, DEPTH)
}

struct Walk<'a> {
    ledger: Option<&'a Ledger>,
    visitor: &'a mut dyn Visit,
    path: Vec<u8>,
}

impl Walk<'_> {
    fn folder(&mut self, fd: OwnedFd, depth: usize) -> io::Result<()> {
        if depth == 0 {
            return Err(io::Error::other("the tree is too deep"));
        }
        let mut dir = Dir::from_fd(fd.try_clone()?)?;
        let mut names = Vec::<CString>::new();
        for entry in dir.iter() {
            let name = entry?.file_name().to_owned();
            if !matches!(name.as_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        crate::base::sort::sort(&mut names);
        let object = self.look(&fstat(&fd)?, Some(&fd))?;
        self.visitor.object(&self.path, object, Content::Folder(names.len()))?;
        let length = self.path.len();
        for name in names {
            self.visitor.name(name.as_bytes());
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            self.entry(&fd, &name, depth)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, parent: &OwnedFd, name: &CString, depth: usize) -> io::Result<()> {
        let stat = fstatat(parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let (object, content) = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => {
                let child = openat(parent, name.as_c_str(), flags | OFlag::O_DIRECTORY, Mode::empty())?;
                return self.folder(child, depth - 1);
            }
            SFlag::S_IFREG => {
                let file = openat(parent, name.as_c_str(), flags, Mode::empty())?;
                let object = self.look(&stat, Some(&file))?;
                let whiteout = SFlag::from_bits_truncate(object.mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
                (object, if whiteout { Content::Nothing } else { Content::File(File::from(file)) })
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(parent, name.as_c_str())?.into_encoded_bytes();
                (self.look(&stat, None)?, Content::Link(target))
            }
            _ => (self.look(&stat, None)?, Content::Nothing),
        };
        self.visitor.object(&self.path, object, content)
    }

    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "32 bits on some boards")]
    fn look(&self, stat: &FileStat, open: Option<&OwnedFd>) -> io::Result<Object> {
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        let device = kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK;
        let mut object = Object {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Mtime { seconds: i64::from(stat.st_mtime), nanoseconds: stat.st_mtime_nsec as u32 },
            device: if device { u64::from(stat.st_rdev) } else { 0 },
            size: if kind == SFlag::S_IFREG { stat.st_size as u64 } else { 0 },
            xattrs: Vec::new(),
            inode: (u64::from(stat.st_dev), u64::from(stat.st_ino)),
            links: u64::from(stat.st_nlink),
        };
        match self.ledger {
            Some(ledger) => ledger.find(stat).into_iter().for_each(|marked| object.correct(marked)),
            None => object.xattrs = open.map(attributes).transpose()?.unwrap_or_default(),
        }
        Ok(object)
    }
}

fn attributes(fd: &OwnedFd) -> io::Result<Vec<Xattr>> {
    let failed = |errno: crate::sys::Errno| io::Error::from_raw_os_error(errno.0);
    let mut found = Vec::new();
    for name in xattr::list(fd.as_fd()).map_err(failed)? {
        // What a security module adds is its own, not the image's.
        if !name.as_bytes().starts_with(b"security.") && !name.as_bytes().starts_with(b"system.") {
            found.push(Xattr { value: xattr::get(fd.as_fd(), &name).map_err(failed)?, name: name.into_bytes() });
        }
    }
    Ok(found)
}

/// The checksum while the tree passes.
pub struct Sum {
    hash: XxHash64,
    times: bool,
    buffer: Vec<u8>,
}

impl Sum {
    /// Of nothing.
    pub fn new(times: bool) -> Sum {
        Sum { hash: XxHash64::default(), times, buffer: vec![0u8; 64 << 10] }
    }

    /// Of all that passed.
    pub fn finish(&self) -> u64 {
        self.hash.finish()
    }

    /// Adds a field with its length, so that no two trees give the same bytes.
    fn field(&mut self, bytes: &[u8]) {
        self.hash.write(&(bytes.len() as u64).to_le_bytes());
        self.hash.write(bytes);
    }

    /// Adds an object; a file's bytes also go to `copy`.
    pub fn add(&mut self, object: &Object, content: Content, copy: &mut dyn io::Write) -> io::Result<()> {
        let Mtime { seconds, nanoseconds } = if self.times { object.mtime } else { Mtime::default() };
        let owner = [object.mode, object.uid, object.gid].map(u64::from);
        let rest = [object.device, object.size, seconds as u64, nanoseconds.into()];
        owner.iter().chain(&rest).for_each(|number| self.hash.write(&number.to_le_bytes()));
        for xattr in &object.xattrs {
            self.field(&xattr.name);
            self.field(&xattr.value);
        }
        match content {
            Content::Folder(names) => self.hash.write(&(names as u64).to_le_bytes()),
            Content::File(file) => return self.content(file, object.size, copy),
            Content::Link(target) => self.field(&target),
            Content::Nothing => {}
        }
        Ok(())
    }

    /// Adds what is in a file of `left` bytes, as many as there are.
    fn content(&mut self, mut file: File, mut left: u64, copy: &mut dyn io::Write) -> io::Result<()> {
        while left > 0 {
            match file.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    let bytes = self.buffer.get(..length).unwrap_or_default();
                    self.hash.write(bytes);
                    copy.write_all(bytes)?;
                    left = left.saturating_sub(length as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Visit for Sum {
    fn name(&mut self, name: &[u8]) {
        self.field(name);
    }

    fn object(&mut self, _: &[u8], object: Object, content: Content) -> io::Result<()> {
        self.add(&object, content, &mut io::sink())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn sum(path: &Path) -> u64 {
        checksum(File::open(path).unwrap().into(), true).unwrap()
    }

    #[test]
    fn every_change_of_a_tree_changes_its_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "content").unwrap();
        symlink("f", root.join("d/l")).unwrap();
        let mut seen = vec![sum(root)];
        assert_eq!(sum(root), seen[0]);
        let file = root.join("d/f");
        let times = fs::metadata(&file).unwrap().modified().unwrap();
        let keep_time = || File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
        let changes: [&dyn Fn(); 5] = [
            &|| {
                fs::write(&file, "contenT").unwrap();
                keep_time();
            },
            &|| {
                fs::write(&file, "").unwrap();
                keep_time();
            },
            &|| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap(),
            &|| {
                fs::remove_file(root.join("d/l")).unwrap();
                symlink("g", root.join("d/l")).unwrap();
            },
            &|| fs::remove_file(&file).unwrap(),
        ];
        for change in changes {
            change();
            let now = sum(root);
            assert!(!seen.contains(&now));
            seen.push(now);
        }
    }
}
