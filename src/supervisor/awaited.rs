//! Files that services wait for, and folders where images and devices appear, watched by inotify(7).
#![forbid(unsafe_code)]

use crate::plan::{Plan, Service};
use crate::sandbox::usb;
use crate::sys::heap::HEAP;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::ffi::OsString;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

/// What happens to a name in a folder that may be what someone waits for.
const APPEARS: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// Names for which there is room from the start; more are no less watched, and take from the heap.
const WATCHES: usize = 64;

/// Files that held services wait for. Nothing is watched while nobody waits.
#[derive(Debug)]
pub struct Awaited {
    inotify: Option<Inotify>,
    /// Which name in which folder, and the folder's path.
    names: Vec<(WatchDescriptor, OsString, PathBuf)>,
}

impl Awaited {
    /// Nothing yet. Without inotify `coracle start` looks again.
    pub fn new() -> Awaited {
        Awaited { inotify: inotify(), names: Vec::with_capacity(WATCHES) }
    }

    /// Readable when something has happened near a file that is waited for.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd())
    }

    /// Waits for something to appear at `path`, or for the next folder on the way there.
    pub fn watch(&mut self, path: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let mut name = path.file_name();
        for folder in path.ancestors().skip(1) {
            let Some(wanted) = name else { return };
            if let Ok(watch) = inotify.add_watch(folder, APPEARS | AddWatchFlags::IN_ONLYDIR) {
                if !self.names.iter().any(|(known, name, _)| *known == watch && name == wanted) {
                    HEAP.keep(|| self.names.push((watch, wanted.to_owned(), folder.to_owned())));
                }
                return;
            }
            name = folder.file_name();
        }
    }

    /// Whether something that is waited for may be there now. Then nothing is watched any more: who still waits says so
    /// again.
    pub fn appeared(&mut self) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut appeared = false;
        while let Ok(events) = inotify.read_events() {
            for event in events {
                let Some(name) = &event.name else {
                    // The folder itself is gone, or events were lost.
                    appeared |= !event.mask.contains(AddWatchFlags::IN_IGNORED);
                    continue;
                };
                let mut found = self.names.iter().filter(|(watch, wanted, _)| *watch == event.wd && wanted == name);
                appeared |= found.any(|(_, _, folder)| {
                    // A file that was made just now is complete when its writer closes it.
                    let written = !event.mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB);
                    written || !event.mask.contains(AddWatchFlags::IN_CREATE) || !is_new_file(&folder.join(name))
                });
            }
        }
        if appeared {
            let mut done: Vec<WatchDescriptor> = Vec::new();
            for (watch, ..) in self.names.drain(..) {
                if !done.contains(&watch) {
                    // One whose folder is gone is removed already.
                    let _ = inotify.rm_watch(watch);
                    done.push(watch);
                }
            }
        }
        appeared
    }
}

impl Default for Awaited {
    fn default() -> Self {
        Awaited::new()
    }
}

/// Whether there is a regular file that nothing else links to.
fn is_new_file(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    path.symlink_metadata().is_ok_and(|found| found.is_file() && found.nlink() == 1)
}

fn inotify() -> Option<Inotify> {
    Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()
}

/// Tells when something appears in the image folders, or in /dev if a service wants a device.
pub fn folders(plan: &Plan) -> Option<Inotify> {
    let inotify = inotify()?;
    let watch = |path: &str, flags| inotify.add_watch(path, flags).is_ok();
    for folder in &plan.device.images {
        // A folder that is missing is not watched; `coracle start` looks again.
        watch(folder, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO);
    }
    if plan.services.iter().any(|service| !service.devices.is_empty()) {
        watch("/dev", AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
    }
    Some(inotify)
}

/// Has `folders` tell too when one of the devices of `service` goes.
pub fn devices(folders: &Inotify, service: &Service) {
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE_SELF;
    for place in service.devices.iter().map(usb::place) {
        // A folder that is gone already took the device with it, which the next look at the board shows.
        let _ = Path::new(&*place).parent().map(|folder| folders.add_watch(folder, flags));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_found_however_it_comes_and_strangers_wake_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("keys/deep/tls.key");
        let mut awaited = Awaited::new();
        awaited.watch(&key);
        fs::write(dir.path().join("other"), "").unwrap();
        assert!(!awaited.appeared(), "a stranger");
        fs::create_dir_all(key.parent().unwrap()).unwrap();
        assert!(awaited.appeared(), "a folder on the way");
        assert!(!awaited.appeared(), "nobody waits");
        awaited.watch(&key);
        let mut file = fs::File::create(&key).unwrap();
        assert!(!awaited.appeared(), "it is being written");
        std::io::Write::write_all(&mut file, b"secret").unwrap();
        drop(file);
        assert!(awaited.appeared(), "it is complete");
        for come in [
            &|key: &Path| fs::rename(key.with_extension("new"), key).unwrap(),
            &|key: &Path| std::os::unix::fs::symlink("/etc/passwd", key).unwrap(),
            &|key: &Path| fs::hard_link(key.with_extension("new"), key).unwrap(),
        ] as [&dyn Fn(&Path); 3]
        {
            let _ = fs::remove_file(&key);
            fs::write(key.with_extension("new"), "").unwrap();
            awaited.watch(&key);
            assert!(!awaited.appeared());
            come(&key);
            assert!(awaited.appeared());
        }
        awaited.watch(&key);
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(awaited.appeared(), "its folder is gone");
    }
}
