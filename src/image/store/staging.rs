//! Folders in which unpacks are under way.
#![forbid(unsafe_code)]

use super::{Store, fail};
use crate::image::ImageError;
use crate::sys::folder;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A folder of one unpack. It is locked while this lives, in this process or in a child that inherited it, and removed
/// with all that is left in it when this is dropped.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    lock: Option<File>,
}

impl Staging {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor that holds the lock; a child that keeps it holds the lock, too.
    pub(in crate::image) fn lock_fd(&self) -> RawFd {
        self.lock.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the store is opened next, once the lock is gone.
        let _ = fs::remove_dir_all(&self.path);
        self.lock.take();
    }
}

impl Store {
    /// Makes a folder to unpack into.
    pub fn begin(&self) -> Result<Staging, ImageError> {
        let staging = self.state.join("staging");
        for number in 0..10_000 {
            let path = staging.join(format!("job-{}-{number}", std::process::id()));
            match folder::make(&path, 0o700) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(fail("make the folder", &path, error)),
            }
            // Another process that opens the store may clean the folder away before it is locked.
            if let Some(lock) = lock_folder(&path).map_err(|error| fail("lock", &path, error))?
                && still_there(&path, &lock)
            {
                return Ok(Staging { path, lock: Some(lock) });
            }
        }
        Err(ImageError::failed(&format_args!("{} is full of unfinished unpacks", staging.display())))
    }

    /// Removes what unpackers that no longer live left behind.
    pub(super) fn clean_staging(&self) -> Result<u64, ImageError> {
        let staging = self.state.join("staging");
        let mut removed = 0;
        for path in folder::list(&staging).map_err(|error| fail("list", &staging, error))? {
            if let Ok(Some(_lock)) = lock_folder(&path) {
                fs::remove_dir_all(&path).map_err(|error| fail("remove", &path, error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Locks a folder, `None` if someone else has it or it is gone.
fn lock_folder(path: &Path) -> io::Result<Option<File>> {
    let folder = match File::open(path) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn still_there(path: &Path, open: &File) -> bool {
    let (Ok(named), Ok(opened)) = (fs::metadata(path), open.metadata()) else { return false };
    (named.dev(), named.ino()) == (opened.dev(), opened.ino())
}
