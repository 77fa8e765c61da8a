//! Reading and writing the small files of the cgroup file system.

use super::Error;
use crate::base::read::read_text;
use crate::sys::{Errno, Result, path};
use nix::fcntl::OFlag;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Longest file that is read whole, in bytes; `memory.stat` has 1.5 KiB, `cgroup.procs` more with many processes.
const FILE_BYTES: u64 = 1 << 20;

/// `folder/name`, opened. Never creates a file.
pub fn open(folder: &str, name: &str, flags: OFlag) -> Result<File> {
    // One block, with the slash and the NUL.
    let mut path = String::with_capacity(folder.len() + name.len() + 2);
    [folder, "/", name].iter().for_each(|part| path.push_str(part));
    let path = CString::new(path).map_err(|_| Errno(libc::EINVAL))?;
    path::open(&path, flags).map(File::from)
}

/// The text of `folder/name`, without the last newline.
pub fn read(folder: &str, name: &str) -> Result<String> {
    let mut text = read_text(&mut open(folder, name, OFlag::O_RDONLY)?, FILE_BYTES)?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// The number in `folder/name`; `None` if the file is missing or says something else (`max`).
pub fn number(folder: &str, name: &str) -> Option<u64> {
    read(folder, name).ok()?.parse().ok()
}

/// Writes `value` to `folder/name` in one write(2), as the kernel wants it. Never creates a file.
pub fn write(folder: &str, name: &str, value: &str) -> Result<()> {
    Ok(open(folder, name, OFlag::O_WRONLY)?.write_all(value.as_bytes())?)
}

/// A group's folder, opened: the way to each of its files is one step.
#[derive(Debug)]
pub struct Folder<'a> {
    /// Its path.
    pub path: &'a str,
    fd: OwnedFd,
}

impl Folder<'_> {
    /// Opens the folder at `path`.
    pub fn open(path: &str) -> Result<Folder<'_>> {
        Ok(Folder { path, fd: open(path, "", OFlag::O_PATH | OFlag::O_DIRECTORY)?.into() })
    }
}

/// Writes `value` to `folder/name`, then reads what the file shows, through the same descriptor.
pub fn write_and_read(folder: &Folder<'_>, name: &str, value: &str) -> Result<String> {
    let name = CString::new(name).map_err(|_| Errno(libc::EINVAL))?;
    let mut file = File::from(path::open_at(folder.fd.as_fd(), &name, OFlag::O_RDWR, 0)?);
    file.write_all(value.as_bytes())?;
    let mut text = [0; 4096];
    let length = file.read_at(&mut text, 0)?;
    let shown = text.get(..length).and_then(|shown| core::str::from_utf8(shown).ok()).unwrap_or_default();
    Ok(shown.trim_end().to_string())
}

/// Makes the folder; `Ok(false)` if it was there.
pub fn make(folder: &str) -> core::result::Result<bool, Error> {
    match crate::sys::folder::make(folder.as_ref(), 0o755) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::failed("make cgroup", folder, error.into())),
    }
}

/// Removes the folder; gone already is fine.
pub fn remove(folder: &str) -> Result<()> {
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The value of `key` in a text of `key value` lines (`memory.stat`, `cgroup.events`).
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// The process ids in the group, in the kernel's order.
pub fn pids(folder: &str) -> Result<Vec<i32>> {
    let text = read(folder, "cgroup.procs")?;
    let mut pids = Vec::new();
    for pid in text.lines().filter_map(|line| line.parse::<i32>().ok()) {
        if pid > 0 {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The names of the groups directly beneath `folder`.
pub fn children(folder: &str) -> Vec<String> {
    let mut names = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return names };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_matched_whole() {
        let text = "oom 1\noom_kill 3\noom_group_kill 2";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom"), Some(1));
        assert_eq!(keyed(text, "kill"), None);
    }

    #[test]
    fn a_write_never_creates_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(write(path, "memory.max", "1"), Err(Errno(libc::ENOENT)));
        assert!(children(path).is_empty());
    }
}
