//! Images that are file systems, which are mounted as they are and never unpacked: squashfs and EROFS files, told by their
//! first bytes. Such a file says nothing about the process: the config names the command.
//!
//! The kernel reads them, and its readers are not made for hostile files: use only those of the firmware's own build.
#![forbid(unsafe_code)]

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// A kind of read-only file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mountable {
    /// squashfs (kernel doc filesystems/squashfs).
    Squashfs,
    /// EROFS (kernel doc filesystems/erofs).
    Erofs,
}

impl Mountable {
    /// Both.
    pub const ALL: [Mountable; 2] = [Mountable::Squashfs, Mountable::Erofs];

    /// Its name in /proc/filesystems.
    pub const fn name(self) -> &'static str {
        match self {
            Mountable::Squashfs => "squashfs",
            Mountable::Erofs => "erofs",
        }
    }

    /// The same as mount(2) takes it.
    pub const fn kind(self) -> &'static CStr {
        match self {
            Mountable::Squashfs => c"squashfs",
            Mountable::Erofs => c"erofs",
        }
    }

    /// What the file at `path` is, if it is a regular file and one of them.
    pub fn at(path: &Path) -> Option<Mountable> {
        // A glance keeps from opening what reacts to that.
        std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path).ok()?;
        file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Mountable::of(&file).ok().flatten()
    }

    /// What a file is: magic numbers as little-endian words, squashfs at byte 0, EROFS at byte 1024.
    fn of(file: &File) -> io::Result<Option<Mountable>> {
        let word = |at| -> io::Result<Option<u32>> {
            let mut bytes = [0; 4];
            match file.read_exact_at(&mut bytes, at) {
                Ok(()) => Ok(Some(u32::from_le_bytes(bytes))),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(error) => Err(error),
            }
        };
        Ok(match (word(0)?, word(1024)?) {
            (Some(0x7371_7368), _) => Some(Mountable::Squashfs),
            (_, Some(0xe0f5_e1e2)) => Some(Mountable::Erofs),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_told_by_their_magic_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let kind = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Mountable::at(&path)
        };
        let mut erofs = vec![0; 2048];
        erofs[1024..1028].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]);
        assert_eq!(kind(b"hsqs and more"), Some(Mountable::Squashfs));
        assert_eq!(kind(&erofs), Some(Mountable::Erofs));
        assert_eq!(kind(&erofs[..1026]), None);
        assert_eq!(kind(b"hsq"), None);
        assert_eq!(Mountable::at(folder.path()), None);
        assert_eq!(Mountable::at(Path::new("/dev/zero")), None);
    }
}
