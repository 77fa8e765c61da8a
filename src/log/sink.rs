//! The optional log file of a service, `NAME.log` in the state folder, rotated by size. Written by the service's init,
//! without allocation; opened by the supervisor.
#![forbid(unsafe_code)]

use super::entry::Entry;
use super::format::Line;
use crate::base::limits::NAME_BYTES;
use core::fmt::{self, Write};
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{ftruncate, write};
use std::os::fd::{AsFd, OwnedFd};

/// A name, `.log.`, and the number of a rotated file.
const FILE_NAME_BYTES: usize = NAME_BYTES + 8;
/// Bytes gathered before they are written; at the end of each line all is written.
const BUFFER_BYTES: usize = 512;

/// A text file that is renamed when it is full: `NAME.log` to `NAME.log.1`, that to `NAME.log.2`, up to `keep`.
///
/// Nothing is synced: the kernel writes back when it likes, which is kind to flash. What cannot be written (a full disk)
/// is counted and does not disturb the service.
#[derive(Debug)]
pub struct Sink {
    dir: OwnedFd,
    name: heapless::String<NAME_BYTES>,
    file: Option<OwnedFd>,
    size: u64,
    max: u64,
    keep: u8,
    failed: u64,
}

impl Sink {
    /// Opens the log file of service `name` in the folder `dir`. It is rotated before it exceeds `max` bytes; `keep`
    /// older files stay. Fails with the error of openat(2), or `EINVAL` for something that is no regular file.
    pub fn open(dir: OwnedFd, name: &str, max: u64, keep: u8) -> nix::Result<Sink> {
        let name = heapless::String::try_from(name).map_err(|_| nix::Error::ENAMETOOLONG)?;
        let mut sink = Sink { dir, name, file: None, size: 0, max, keep, failed: 0 };
        sink.reopen()?;
        Ok(sink)
    }

    /// Appends the entry as a line.
    pub fn append(&mut self, entry: &Entry) {
        let mut length = Length(0);
        // Measuring cannot fail: a length takes everything.
        let _ = writeln!(length, "{}", Line(entry));
        if self.size > 0 && self.size.saturating_add(length.0) > self.max {
            self.rotate();
        }
        if self.file.is_none() && self.reopen().is_err() {
            self.failed += 1;
            return;
        }
        let Some(file) = &self.file else { return };
        let mut out = Buffered { file, buffer: heapless::Vec::new() };
        let written = writeln!(out, "{}", Line(entry)).and_then(|()| out.flush());
        match written {
            Ok(()) => self.size += length.0,
            Err(fmt::Error) => self.failed += 1,
        }
    }

    /// The descriptors that it needs, for whoever closes all others.
    pub fn descriptors(&self) -> [Option<&OwnedFd>; 2] {
        [Some(&self.dir), self.file.as_ref()]
    }

    /// Lines that could not be written.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    fn reopen(&mut self) -> nix::Result<()> {
        let flags = OFlag::O_WRONLY
            | OFlag::O_APPEND
            | OFlag::O_CREAT
            | OFlag::O_CLOEXEC
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY;
        let file = openat(&self.dir, self.file_name(0).as_str(), flags, Mode::from_bits_truncate(0o640))?;
        let stat = fstat(&file)?;
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return Err(nix::Error::EINVAL);
        }
        self.size = u64::try_from(stat.st_size).unwrap_or(0);
        self.file = Some(file);
        Ok(())
    }

    /// Moves every file one number up and lets the next line make a new one. A file that cannot be moved is emptied: the
    /// bound on its size comes before its content.
    fn rotate(&mut self) {
        let mut moved = false;
        for number in (0..self.keep).rev() {
            let (from, to) = (self.file_name(number), self.file_name(number + 1));
            moved = renameat(&self.dir, from.as_str(), &self.dir, to.as_str()).is_ok();
        }
        if moved {
            self.file = None;
        } else if self.file.as_ref().is_some_and(|file| ftruncate(file, 0).is_ok()) {
            self.size = 0;
        }
    }

    fn file_name(&self, number: u8) -> heapless::String<FILE_NAME_BYTES> {
        let mut name = heapless::String::new();
        // The capacity holds the longest name with the largest number.
        let _ = match number {
            0 => write!(name, "{}.log", self.name),
            number => write!(name, "{}.log.{number}", self.name),
        };
        name
    }
}

/// Counts what is written to it.
struct Length(u64);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len() as u64;
        Ok(())
    }
}

/// Writes to a file in pieces of at most [`BUFFER_BYTES`].
struct Buffered<'a, F: AsFd> {
    file: &'a F,
    buffer: heapless::Vec<u8, BUFFER_BYTES>,
}

impl<F: AsFd> Buffered<'_, F> {
    fn flush(&mut self) -> fmt::Result {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            match write(self.file, rest) {
                Ok(0) => return Err(fmt::Error),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(nix::Error::EINTR) => {}
                Err(_) => return Err(fmt::Error),
            }
        }
        self.buffer.clear();
        Ok(())
    }
}

impl<F: AsFd> Write for Buffered<'_, F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.as_bytes().chunks(BUFFER_BYTES) {
            if self.buffer.extend_from_slice(piece).is_err() {
                self.flush()?;
                self.buffer.extend_from_slice(piece).map_err(|_| fmt::Error)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::entry::{Stamp, Stream};

    fn open(dir: &std::path::Path, max: u64, keep: u8) -> nix::Result<Sink> {
        Sink::open(OwnedFd::from(std::fs::File::open(dir).unwrap()), "web", max, keep)
    }

    fn line(text: &str) -> Entry<'_> {
        Entry { seq: 1, stamp: Stamp::default(), stream: Stream::Out, partial: false, text: text.as_bytes() }
    }

    #[test]
    fn files_are_rotated_by_size_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = open(dir.path(), 400, 2).unwrap();
        for n in 0..100 {
            sink.append(&line(&format!("line {n}")));
            if n == 50 {
                sink = open(dir.path(), 400, 2).unwrap();
            }
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let all = read("web.log.2") + &read("web.log.1") + &read("web.log");
        let numbers: Vec<usize> = all.lines().map(|l| l.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (100 - numbers.len()..100).collect::<Vec<_>>());
        for name in ["web.log", "web.log.1", "web.log.2"] {
            assert!(read(name).len() <= 400, "{name}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        assert_eq!(sink.failed(), 0);
    }

    #[test]
    fn keep_zero_starts_over_and_a_line_above_the_bound_still_comes_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = open(dir.path(), 10, 0).unwrap();
        sink.append(&line(&"a".repeat(2000)));
        sink.append(&line("b"));
        assert_eq!(std::fs::read_to_string(dir.path().join("web.log")).unwrap(), "1970-01-01T00:00:00.000Z out  b\n");
    }

    #[test]
    fn what_is_no_file_is_refused_and_losses_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("web.log")).unwrap();
        assert_eq!(open(dir.path(), 100, 1).err(), Some(nix::Error::ELOOP));
        std::fs::remove_file(dir.path().join("web.log")).unwrap();
        let mut sink = open(dir.path(), 100, 1).unwrap();
        sink.append(&line(&"a".repeat(90)));
        // Nothing can be moved onto a directory: the file is emptied instead of growing.
        std::fs::create_dir(dir.path().join("web.log.1")).unwrap();
        for _ in 0..10 {
            sink.append(&line(&"b".repeat(60)));
        }
        assert!(std::fs::metadata(dir.path().join("web.log")).unwrap().len() <= 100);
        assert_eq!(sink.failed(), 0);
        // Like a full disk: the file does not take the line.
        sink.file = Some(OwnedFd::from(std::fs::File::open(dir.path().join("web.log")).unwrap()));
        sink.size = 0;
        sink.append(&line("c"));
        assert_eq!(sink.failed(), 1);
    }
}
