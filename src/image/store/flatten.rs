//! Layers merged into one tree, for kernels without overlayfs.
#![forbid(unsafe_code)]

use super::{Store, fail};
use crate::base::read;
use crate::image::ImageError;
use crate::image::digest::Digest;
use crate::image::record::ImageRecord;
use crate::sys::folder;
use crate::sys::xattr;
use nix::sys::stat::{Mode, UtimensatFlags, major, minor, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::mkfifo;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// The name under which the merged tree of an image is kept.
pub(super) fn key(record: &ImageRecord) -> String {
    let mut hash = Sha256::new();
    record.root.layers().iter().for_each(|layer| hash.update(layer.0));
    let mut key = Digest(hash.finalize().into()).hex();
    key.truncate(32);
    key
}

impl Store {
    /// One tree with all layers of an image applied, made at the first call. Its files are hard links to those of the
    /// layers and cost no space, but for layers of a read-only store, which are copied; nobody may write to them.
    pub fn flatten(&self, record: &ImageRecord) -> Result<PathBuf, ImageError> {
        let place = self.state.join("flat").join(key(record));
        if place.exists() {
            return Ok(place);
        }
        let staging = self.begin()?;
        let tree = staging.path().join("tree");
        folder::make(&tree, 0o777).map_err(|error| fail("make the folder", &tree, error))?;
        for layer in record.root.layers() {
            let from = self.layer_path(layer);
            merge(&from, &tree).map_err(|error| {
                ImageError::failed(&format_args!(
                    "cannot merge layer {} of {}: {error}",
                    layer.short(),
                    record.reference
                ))
            })?;
        }
        File::open(&tree)
            .and_then(|root| nix::unistd::syncfs(root.as_fd()).map_err(io::Error::from))
            .map_err(|error| fail("sync", &tree, error))?;
        match fs::rename(&tree, &place) {
            Ok(()) => super::sync_folder(&self.state.join("flat")).map(|()| place),
            Err(_) if place.exists() => Ok(place),
            Err(error) => Err(fail("make visible", &place, error)),
        }
    }
}

/// Applies one layer's folder to the merged one. Both trees lie in the store, where nobody else writes.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::symlink_metadata(&source)?;
        let there = fs::symlink_metadata(&target).ok();
        let goes_on = meta.is_dir() && there.as_ref().is_some_and(Metadata::is_dir) && !is_opaque(&source)?;
        match there {
            Some(old) if old.is_dir() && !goes_on => fs::remove_dir_all(&target)?,
            Some(old) if !old.is_dir() => fs::remove_file(&target)?,
            _ => {}
        }
        if meta.is_dir() {
            if !goes_on {
                folder::make(&target, 0o777)?;
            }
            merge(&source, &target)?;
        } else if !is_whiteout(&meta) {
            link(&source, &target, &meta)?;
        }
    }
    finish(from, to, &fs::symlink_metadata(from)?)
}

/// Puts a file of a layer into the merged tree: another name of it, or, from the file system of a read-only store, a copy.
fn link(source: &Path, target: &Path, meta: &Metadata) -> io::Result<()> {
    match fs::hard_link(source, target) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EXDEV) => {}
        answer => return answer,
    }
    let kind = meta.file_type();
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(source)?, target)?;
    } else if kind.is_fifo() {
        mkfifo(target, Mode::S_IRUSR | Mode::S_IWUSR)?;
    } else {
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
        read::copy(&mut File::open(source)?, u64::MAX, &mut copy)?;
        return finish(source, target, meta);
    }
    lchown(target, Some(meta.uid()), Some(meta.gid()))?;
    if kind.is_fifo() {
        fs::set_permissions(target, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    }
    set_time(target, meta)
}

/// What a folder or file has beside its content: owner, mode (after the owner: chown(2) clears bits), attributes, times.
fn finish(source: &Path, target: &Path, meta: &Metadata) -> io::Result<()> {
    lchown(target, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(target, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    copy_attributes(source, target)?;
    set_time(target, meta)
}

fn set_time(target: &Path, meta: &Metadata) -> io::Result<()> {
    let time = TimeSpec::new(meta.mtime() as _, meta.mtime_nsec() as _);
    utimensat(nix::fcntl::AT_FDCWD, target, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

fn copy_attributes(source: &Path, target: &Path) -> io::Result<()> {
    let failed = |errno: crate::sys::Errno| io::Error::from_raw_os_error(errno.0);
    let (source, target) = (File::open(source)?, File::open(target)?);
    for name in xattr::list(source.as_fd()).map_err(failed)? {
        if name.as_bytes().starts_with(b"user.") {
            let value = xattr::get(source.as_fd(), &name).map_err(failed)?;
            xattr::set(target.as_fd(), &name, &value).map_err(failed)?;
        }
    }
    Ok(())
}

/// A character device 0:0 (kernel doc filesystems/overlayfs).
fn is_whiteout(meta: &Metadata) -> bool {
    let device = meta.rdev() as nix::libc::dev_t;
    meta.file_type().is_char_device() && major(device) == 0 && minor(device) == 0
}

fn is_opaque(folder: &Path) -> io::Result<bool> {
    match xattr::get(File::open(folder)?.as_fd(), c"trusted.overlay.opaque") {
        Ok(value) => Ok(value == b"y"),
        Err(crate::sys::Errno(nix::libc::ENODATA | nix::libc::ENOTSUP)) => Ok(false),
        Err(errno) => Err(io::Error::from_raw_os_error(errno.0)),
    }
}
