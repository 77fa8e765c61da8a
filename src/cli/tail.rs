//! The rings of a run directory, read and followed beside their writers.
#![forbid(unsafe_code)]

use super::output;
use crate::log::entry::Entry;
use crate::log::reader::Reader;
use crate::sys::meaning;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// One ring, opened again when another file takes its place.
pub struct Tail {
    path: PathBuf,
    open: Option<(u64, Reader)>,
}

impl Tail {
    /// The ring at `path`, which need not be there yet.
    pub fn new(path: PathBuf) -> Tail {
        Tail { path, open: None }
    }

    /// Gives what is new to `each` and tells how many entries were lost.
    ///
    /// # Errors
    /// A sentence: the ring cannot be read.
    pub fn read(&mut self, each: &mut dyn FnMut(&Entry)) -> Result<u64, String> {
        let mut lost = self.read_open(each)?;
        let inode = match std::fs::metadata(&self.path) {
            // It is being made.
            Ok(meta) if meta.len() == 0 => return Ok(lost),
            Ok(meta) => meta.ino(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(lost),
            Err(error) => return Err(self.bad(&error.to_string())),
        };
        if self.open.as_ref().is_none_or(|(open, _)| *open != inode) {
            let file = File::open(&self.path).map_err(|error| self.bad(&error.to_string()))?;
            let reader = Reader::open(file).map_err(|errno| self.bad(meaning(errno)))?;
            let reader = reader.ok_or_else(|| self.bad("its header is damaged; the next start repairs it"))?;
            self.open = Some((inode, reader));
            lost += self.read_open(each)?;
        }
        Ok(lost)
    }

    fn read_open(&mut self, each: &mut dyn FnMut(&Entry)) -> Result<u64, String> {
        let Some((_, reader)) = &mut self.open else { return Ok(0) };
        let lost = reader.read_new(each);
        lost.map_err(|errno| self.bad(meaning(errno)))
    }

    fn bad(&self, why: &str) -> String {
        format!("the log {} cannot be read: {why}", self.path.display())
    }
}

/// Losses are told beside the entries: on standard error with `--json`, so that each line there stays an entry.
pub fn print_lost(json: bool, service: Option<&str>, lost: u64, what: &str) {
    let of = service.map_or(String::new(), |service| format!("{service}: "));
    if json {
        output::complain(&format_args!("{of}{lost} {what}"));
    } else {
        output::line(&format_args!("--- {of}{lost} {what} ---"));
    }
}

/// Wakes when a ring is written or replaced: inotify(7), so following costs nothing while nothing happens.
pub struct Watch(Inotify);

impl Watch {
    /// On the folders that the rings lie in.
    ///
    /// # Errors
    /// A sentence: the kernel lets no more be watched, or a folder is not there.
    pub fn new(folders: &mut dyn Iterator<Item = PathBuf>) -> Result<Watch, String> {
        let failed = |errno: Errno| match errno {
            Errno::EMFILE | Errno::ENOSPC => {
                format!(
                    "the logs cannot be followed: {}: raise fs.inotify.max_user_instances or max_user_watches",
                    meaning(errno)
                )
            }
            _ => format!("the logs cannot be followed: {}", meaning(errno)),
        };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).map_err(failed)?;
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
        for folder in folders {
            inotify.add_watch(&folder, flags).map_err(failed)?;
        }
        Ok(Watch(inotify))
    }

    /// Sleeps until something is written.
    ///
    /// # Errors
    /// A sentence: the kernel refuses.
    pub fn wait(&self) -> Result<(), String> {
        match self.0.read_events() {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(format!("the logs cannot be followed: {}", meaning(errno))),
        }
    }
}
