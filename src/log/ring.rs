//! The writing side of a log ring: made by the supervisor, written by a service's init. See [`super::entry`].
//!
//! [`prepare`] runs before a service's instance starts and may allocate; [`Writer`] never does.
#![forbid(unsafe_code)]

use super::entry::{ENTRY_MAX, Entry, HEADER_BYTES, Header, SEGMENTS, Stamp, Stream};
use super::reader::Reader;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{UnlinkatFlags, ftruncate, unlinkat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes gathered before they are written: a page, two of the largest entries.
const BATCH_BYTES: usize = 2 * ENTRY_MAX;

/// Opens the ring `name` in the folder `dir`, makes it if there is none, and gives it `capacity` bytes.
///
/// A ring of another capacity is copied, the newest entries first to be kept; a damaged header is written anew (counted
/// in it, the entries stay). What is no regular file is replaced.
pub fn prepare(dir: impl AsFd, name: &str, capacity: u64) -> nix::Result<OwnedFd> {
    prepare_in(dir.as_fd(), name, Header::for_capacity(capacity))
}

fn prepare_in(dir: BorrowedFd<'_>, name: &str, want: Header) -> nix::Result<OwnedFd> {
    // Most often there is none. An empty file is a ring without entries, so that a new one needs no other name.
    match begin(dir, name, &want) {
        Err(nix::Error::EEXIST) => {}
        begun => return begun,
    }
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits() => {
            let old = openat(dir, name, OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())?;
            match read_header(old.as_fd())? {
                Some(found) if found.segment == want.segment => Ok(old),
                Some(_) => copy(dir, name, old, want),
                None => repair(old, want),
            }
        }
        Ok(_) | Err(nix::Error::ENOENT) => replace(dir, name, want, None),
        Err(error) => Err(error),
    }
}

/// Writes a new header over a damaged one. Entries of the same geometry stay readable.
fn repair(ring: OwnedFd, want: Header) -> nix::Result<OwnedFd> {
    let size = u64::try_from(fstat(&ring)?.st_size).unwrap_or(0);
    let header = Header { repairs: u32::from(size > 0), ..want };
    write_all(ring.as_fd(), &header.encode(), 0)?;
    ftruncate(&ring, header.position(SEGMENTS, 0).min(size.max(HEADER_BYTES as u64)) as libc::off_t)?;
    if size == 0 {
        return Ok(ring);
    }
    let mut writer = Writer::open(ring)?;
    writer.append(Stamp::default(), Stream::Note, false, b"the log's header was damaged and was written anew");
    writer.flush();
    Ok(writer.ring)
}

/// Moves the newest entries of `old` into a ring of another size and puts that in its place.
fn copy(dir: BorrowedFd<'_>, name: &str, old: OwnedFd, want: Header) -> nix::Result<OwnedFd> {
    let Some(mut reader) = Reader::open(old.into())? else { return replace(dir, name, want, None) };
    let header = Header { segment: want.segment, ..reader.header() };
    replace(dir, name, header, Some(&mut reader))
}

/// Puts a new ring, with what `old` holds, in the place of what is there.
fn replace(dir: BorrowedFd<'_>, name: &str, header: Header, old: Option<&mut Reader>) -> nix::Result<OwnedFd> {
    let temporary = format!("{name}.new");
    let mut ring = match begin(dir, &temporary, &header) {
        // One that was interrupted left it.
        Err(nix::Error::EEXIST) => {
            unlinkat(dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir)?;
            begin(dir, &temporary, &header)?
        }
        begun => begun?,
    };
    if let Some(old) = old {
        let mut writer = Writer::open(ring)?;
        old.read_new(&mut |entry| writer.put(entry))?;
        writer.flush();
        ring = writer.ring;
    }
    renameat(dir, temporary.as_str(), dir, name)?;
    Ok(ring)
}

/// Makes a ring without entries. `EEXIST` if there is something of that name.
fn begin(dir: BorrowedFd<'_>, name: &str, header: &Header) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let ring = openat(dir, name, flags, Mode::from_bits_truncate(0o600))?;
    // The umask may have taken bits that the owner needs.
    fchmod(&ring, Mode::from_bits_truncate(0o600))?;
    write_all(ring.as_fd(), &header.encode(), 0)?;
    Ok(ring)
}

/// The header of a ring; `None` if it is damaged.
pub(super) fn read_header(ring: BorrowedFd<'_>) -> nix::Result<Option<Header>> {
    let mut bytes = [0u8; HEADER_BYTES];
    let found = pread(ring, &mut bytes, 0)?;
    Ok(if found == HEADER_BYTES { Header::decode(&bytes) } else { None })
}

impl AsFd for Writer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Appends entries to a ring. There is one writer at a time: the running init, or the supervisor while there is none.
pub struct Writer {
    ring: OwnedFd,
    header: Header,
    segment: u32,
    offset: u32,
    next_seq: u64,
    batch: [u8; BATCH_BYTES],
    batched: usize,
    batched_entries: u64,
    /// Entries of failed writes that the header does not count yet.
    failed: u64,
}

impl Writer {
    /// Goes on behind the newest entry. `EINVAL` if the header is damaged: [`prepare`] was not called.
    pub fn open(ring: OwnedFd) -> nix::Result<Writer> {
        let header = read_header(ring.as_fd())?.ok_or(nix::Error::EINVAL)?;
        let mut writer = Writer {
            ring,
            header,
            segment: 0,
            offset: 0,
            next_seq: 1,
            batch: [0; BATCH_BYTES],
            batched: 0,
            batched_entries: 0,
            failed: 0,
        };
        for index in 0..SEGMENTS {
            let found = writer.read(index, 0)?;
            if found == 0 {
                // The end of the file: the ring was never full.
                break;
            }
            if let Some((entry, size)) = Entry::decode(&writer.batch[..found])
                && entry.seq >= writer.next_seq
            {
                (writer.segment, writer.offset, writer.next_seq) = (index, size as u32, entry.seq + 1);
            }
        }
        // Behind the first entry of the newest segment: walk to its end.
        while writer.next_seq > 1 {
            let found = writer.read(writer.segment, writer.offset)?;
            match Entry::decode(&writer.batch[..found]) {
                Some((entry, size)) if entry.seq >= writer.next_seq => {
                    writer.offset += size as u32;
                    writer.next_seq = entry.seq + 1;
                }
                _ => break,
            }
        }
        Ok(writer)
    }

    /// Adds a line, gathered until [`Writer::flush`] or until the batch is full.
    pub fn append(&mut self, stamp: Stamp, stream: Stream, partial: bool, text: &[u8]) {
        self.put(&Entry { seq: self.next_seq, stamp, stream, partial, text });
    }

    /// Adds an entry under its own number, which must not be below the next one.
    fn put(&mut self, entry: &Entry) {
        let size = Entry::size(entry.text.len());
        if self.offset as usize + self.batched + size > self.header.segment as usize {
            self.flush();
            self.segment = (self.segment + 1) % SEGMENTS;
            self.offset = 0;
        } else if self.batched + size > BATCH_BYTES {
            self.flush();
        }
        if let Some(size) = entry.encode(&mut self.batch[self.batched..]) {
            self.batched += size;
            self.batched_entries += 1;
        }
        self.next_seq = entry.seq.max(self.next_seq).saturating_add(1);
    }

    /// Writes what was gathered. Entries that cannot be written are lost: counted, and seen by readers as a gap.
    pub fn flush(&mut self) {
        if self.batched == 0 {
            return;
        }
        match write_all(self.ring.as_fd(), &self.batch[..self.batched], self.header.position(self.segment, self.offset))
        {
            Ok(()) => {
                self.offset += self.batched as u32;
                if self.failed > 0 {
                    self.header.failed = self.header.failed.saturating_add(core::mem::take(&mut self.failed));
                    self.write_header();
                }
            }
            Err(_) => self.failed += self.batched_entries,
        }
        self.batched = 0;
        self.batched_entries = 0;
    }

    /// Counts lines that the rate limit dropped.
    pub fn count_dropped(&mut self, lines: u64) {
        self.header.dropped = self.header.dropped.saturating_add(lines);
        self.write_header();
    }

    fn write_header(&mut self) {
        // A failed write leaves the older counts in place, and the next one carries these too.
        let _ = write_all(self.ring.as_fd(), &self.header.encode(), 0);
    }

    /// Reads into the batch buffer from a place in a segment up to the segment's end.
    fn read(&mut self, index: u32, offset: u32) -> nix::Result<usize> {
        let room = self.header.segment.saturating_sub(offset) as usize;
        let want = room.min(BATCH_BYTES);
        pread(&self.ring, &mut self.batch[..want], self.header.position(index, offset) as libc::off_t)
    }
}

fn write_all(ring: BorrowedFd<'_>, bytes: &[u8], at: u64) -> nix::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match pwrite(ring, &bytes[done..], (at + done as u64) as libc::off_t) {
            Ok(0) => return Err(nix::Error::ENOSPC),
            Ok(count) => done += count,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    fn folder() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = nix::fcntl::open(dir.path(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        (dir, fd)
    }

    fn stamp(n: u64) -> Stamp {
        Stamp { wall_ns: n, mono_ns: n }
    }

    fn texts(path: &Path) -> (Vec<String>, u64) {
        let mut reader = Reader::open(std::fs::File::open(path).unwrap()).unwrap().unwrap();
        let mut out = Vec::new();
        let lost = reader.read_new(&mut |entry| out.push(String::from_utf8_lossy(entry.text).into_owned())).unwrap();
        (out, lost)
    }

    /// A small generator (xorshift64) with a fixed seed.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn a_ring_that_wraps_keeps_the_newest_lines_and_counts_the_others() {
        let (dir, fd) = folder();
        let mut writer = Writer::open(prepare(&fd, "log", 16 << 10).unwrap()).unwrap();
        for n in 0..10_000u64 {
            writer.append(stamp(n), Stream::Out, false, format!("line {n}").as_bytes());
        }
        writer.flush();
        let (lines, lost) = texts(&dir.path().join("log"));
        assert_eq!(lines.len() as u64 + lost, 10_000);
        assert!(lines.len() > 250, "{} lines in 14 KiB", lines.len());
        let expected: Vec<String> = (lost..10_000).map(|n| format!("line {n}")).collect();
        assert_eq!(lines, expected);
        assert!(std::fs::metadata(dir.path().join("log")).unwrap().len() <= (16 << 10) + HEADER_BYTES as u64 + 128);
    }

    #[test]
    fn the_next_instance_goes_on_behind_the_last_line() {
        let (dir, fd) = folder();
        for round in 0..300u64 {
            let mut writer = Writer::open(prepare(&fd, "log", 16 << 10).unwrap()).unwrap();
            writer.append(stamp(round), Stream::Err, false, format!("round {round} {}", "x".repeat(200)).as_bytes());
            writer.flush();
        }
        let (lines, lost) = texts(&dir.path().join("log"));
        assert_eq!(lines.len() as u64 + lost, 300);
        assert!(lines.last().unwrap().starts_with("round 299 "));
        assert!(lines.first().unwrap().starts_with(&format!("round {lost} ")));
    }

    #[test]
    fn another_capacity_keeps_the_newest_lines_and_their_numbers() {
        let (dir, fd) = folder();
        let mut writer = Writer::open(prepare(&fd, "log", 64 << 10).unwrap()).unwrap();
        for n in 0..5000u64 {
            writer.append(stamp(n), Stream::Out, false, format!("{n}").as_bytes());
        }
        writer.flush();
        for capacity in [16 << 10, 128 << 10] {
            let mut writer = Writer::open(prepare(&fd, "log", capacity).unwrap()).unwrap();
            writer.append(stamp(1), Stream::Note, false, b"resized");
            writer.flush();
            let (lines, lost) = texts(&dir.path().join("log"));
            assert_eq!(lines.last().unwrap(), "resized");
            assert!(lines.contains(&"4999".to_owned()) && lost >= 4000);
            let mut follower = Reader::open(std::fs::File::open(dir.path().join("log")).unwrap()).unwrap().unwrap();
            follower.resume(5000).unwrap();
            let mut first = Vec::new();
            assert_eq!(follower.read_new(&mut |entry| first.push(entry.seq)), Ok(0));
            assert_eq!(first[..2], [5000, 5001]);
            follower.resume(1 << 40).unwrap();
            assert!(follower.read_new(&mut |_| {}).unwrap() >= 4000);
        }
        assert!(!dir.path().join("log.new").exists());
    }

    #[test]
    fn a_damaged_header_is_written_anew_and_the_lines_stay() {
        let (dir, fd) = folder();
        let mut writer = Writer::open(prepare(&fd, "log", 16 << 10).unwrap()).unwrap();
        writer.append(stamp(1), Stream::Out, false, b"before");
        writer.flush();
        for at in [0, 9, 13, 20, 63] {
            pwrite(std::fs::File::options().write(true).open(dir.path().join("log")).unwrap(), b"\xee", at).unwrap();
            let ring = prepare(&fd, "log", 16 << 10).unwrap();
            assert_eq!(read_header(ring.as_fd()).unwrap().unwrap().repairs, 1);
            let (lines, _) = texts(&dir.path().join("log"));
            assert_eq!(lines[0], "before");
            assert!(lines.last().unwrap().contains("damaged"));
        }
    }

    #[test]
    fn a_ring_whose_making_was_interrupted_is_begun_anew() {
        let (dir, fd) = folder();
        std::fs::write(dir.path().join("log"), "").unwrap();
        let ring = prepare(&fd, "log", 16 << 10).unwrap();
        assert_eq!(read_header(ring.as_fd()).unwrap().unwrap().repairs, 0);
        assert_eq!(texts(&dir.path().join("log")), (Vec::new(), 0));
    }

    #[test]
    fn damaged_entries_are_counted_and_nothing_false_is_shown() {
        let (dir, fd) = folder();
        let path = dir.path().join("log");
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        println!("seed {seed:#x}");
        for _ in 0..200 {
            let _ = std::fs::remove_file(&path);
            let mut writer = Writer::open(prepare(&fd, "log", 16 << 10).unwrap()).unwrap();
            for n in 0..400u64 {
                writer.append(stamp(n), Stream::Out, false, format!("line {n}").as_bytes());
            }
            writer.flush();
            let (clean, _) = texts(&path);
            let mut bytes = std::fs::read(&path).unwrap();
            for _ in 0..20 {
                let at = HEADER_BYTES + random(&mut seed) as usize % (bytes.len() - HEADER_BYTES);
                bytes[at] ^= random(&mut seed) as u8 | 1;
            }
            std::fs::write(&path, &bytes).unwrap();
            let (lines, lost) = texts(&path);
            assert!(lines.iter().all(|line| clean.contains(line)));
            assert!(lines.len() as u64 + lost <= 400);
            let mut writer = Writer::open(prepare(&fd, "log", 16 << 10).unwrap()).unwrap();
            writer.append(stamp(1), Stream::Out, false, b"after");
            writer.flush();
            assert!(texts(&path).0.contains(&"after".to_owned()));
        }
    }

    #[test]
    fn a_reader_beside_a_busy_writer_sees_each_line_once_and_in_order() {
        let (dir, fd) = folder();
        let ring = prepare(&fd, "log", 16 << 10).unwrap();
        let path = dir.path().join("log");
        let writer = std::thread::spawn(move || {
            let mut writer = Writer::open(ring).unwrap();
            let mut seed = 42u64;
            for n in 1..=60_000u64 {
                let text = format!("{n} {}", "y".repeat(random(&mut seed) as usize % 120));
                writer.append(stamp(n), Stream::Out, false, text.as_bytes());
                if random(&mut seed).is_multiple_of(4) {
                    writer.flush();
                }
            }
            writer.flush();
        });
        let mut reader = Reader::open(std::fs::File::open(&path).unwrap()).unwrap().unwrap();
        let (mut seen, mut lost, mut last) = (0u64, 0u64, 0u64);
        while last < 60_000 {
            lost += reader
                .read_new(&mut |entry| {
                    let number: u64 =
                        std::str::from_utf8(entry.text).unwrap().split(' ').next().unwrap().parse().unwrap();
                    assert_eq!(number, entry.seq);
                    assert!(number > last);
                    (last, seen) = (number, seen + 1);
                })
                .unwrap();
        }
        writer.join().unwrap();
        assert_eq!(seen + lost, 60_000);
        assert!(seen > 0);
    }

    #[test]
    fn a_ring_file_that_is_no_file_is_replaced_and_a_full_disk_is_counted() {
        let (dir, fd) = folder();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("log")).unwrap();
        let ring = prepare(&fd, "log", 16 << 10).unwrap();
        assert!(dir.path().join("log").symlink_metadata().unwrap().is_file());
        assert!(ring.as_raw_fd() > 2);
        // Writing to a descriptor without that right fails like a full disk.
        let mut writer = Writer::open(OwnedFd::from(std::fs::File::open(dir.path().join("log")).unwrap())).unwrap();
        writer.append(stamp(1), Stream::Out, false, b"lost");
        writer.flush();
        assert_eq!(writer.failed, 1);
        writer.ring = ring;
        writer.append(stamp(2), Stream::Out, false, b"kept");
        writer.flush();
        assert_eq!(texts(&dir.path().join("log")), (vec!["kept".to_owned()], 1));
        assert_eq!(read_header(writer.as_fd()).unwrap().unwrap().failed, 1);
    }
}
