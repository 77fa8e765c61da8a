//! An image's root file system, ready to be assembled: its layers or folder opened, or its file attached as a block device.
#![forbid(unsafe_code)]

use super::prepare::Root;
use crate::image::mountable::Mountable;
use crate::image::record::{self, ImageRecord};
use crate::image::store::Store;
use crate::sys::{Errno, loopdev, mount, path};
use nix::fcntl::OFlag;
use nix::libc;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// A file system image as a block device.
#[derive(Debug)]
pub struct Disk {
    /// What is on it.
    pub kind: Mountable,
    /// The device. It vanishes with the last mount and the last descriptor.
    pub device: OwnedFd,
    /// Its files, to be looked at before a container has them mounted: a mount that is attached nowhere.
    pub tree: OwnedFd,
}

/// Opens the root of an image. `overlayfs` says whether the kernel has that; without, layers are merged into one tree.
///
/// # Errors
/// A sentence.
pub fn open(store: &Store, record: &ImageRecord, overlayfs: bool) -> Result<Root, String> {
    let sentence = |error: crate::image::ImageError| error.to_string();
    match &record.root {
        record::Root::Layers(_) if overlayfs => store.rootfs_layers(record).map(Root::Layers).map_err(sentence),
        record::Root::Layers(_) => {
            open_folder(&store.flatten(record).map_err(sentence)?).map(|(folder, _)| Root::Flat(folder))
        }
        record::Root::Folder(path) => folder(Path::new(&**path)),
        record::Root::File(kind, file) => {
            // A place that is nobody else's, for the moment that a mount needs one.
            let staging = store.begin().map_err(sentence)?;
            disk(*kind, Path::new(&**file), staging.path()).map(Root::Disk)
        }
    }
}

/// Opens a folder that is an image, used in place.
///
/// # Errors
/// A sentence.
pub fn folder(path: &Path) -> Result<Root, String> {
    open_folder(path).map(|(folder, name)| Root::Folder(folder, name))
}

fn open_folder(path: &Path) -> Result<(OwnedFd, CString), String> {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
    match path::open(&name, OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Ok(folder) => Ok((folder, name)),
        Err(errno) => Err(format!("cannot open {}: {errno}", path.display())),
    }
}

fn disk(kind: Mountable, file: &Path, place: &Path) -> Result<Disk, String> {
    let shown = file.display();
    let opened = File::open(file).map_err(|error| format!("cannot open {shown}: {error}"))?;
    let device = loopdev::attach(opened.as_fd()).map_err(|errno| match errno.0 {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => {
            format!("{shown} cannot be mounted: the kernel has no loop device for it (CONFIG_BLK_DEV_LOOP): {errno}")
        }
        _ => format!("{shown} cannot be mounted: no loop device can be set up: {errno}"),
    })?;
    let name = kind.name();
    let tree = look(kind, &device, place).map_err(|errno| match errno.0 {
        libc::ENODEV => format!("{shown} is a file system of type {name}, which the kernel does not know"),
        _ => format!("{shown} cannot be mounted as {name}: {errno}; it may be damaged"),
    })?;
    Ok(Disk { kind, device, tree })
}

/// Mounts the device at `place`, opens its root, and takes the mount out of the tree again: it lives as long as the
/// descriptor. So it is on every kernel; what a container sees is a mount of its own.
fn look(kind: Mountable, device: &OwnedFd, place: &Path) -> Result<OwnedFd, Errno> {
    let bad = |_| Errno(libc::EINVAL);
    let place = CString::new(place.as_os_str().as_encoded_bytes()).map_err(bad)?;
    let source = CString::new(format!("/proc/self/fd/{}", device.as_raw_fd())).map_err(bad)?;
    mount_read_only(&source, kind, &place)?;
    let tree = path::open(&place, OFlag::O_PATH | OFlag::O_DIRECTORY);
    mount::detach(&place)?;
    tree
}

/// Mounts the block device at `source`; nothing on it is a device or raises privileges.
pub fn mount_read_only(source: &CStr, kind: Mountable, target: &CStr) -> Result<(), Errno> {
    mount::mount_device(source, kind.kind(), target, libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV, c"")
}
