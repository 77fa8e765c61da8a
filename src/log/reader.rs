//! The reading side of a log ring, beside a writer that does not wait for anyone. See [`super::entry`].
#![forbid(unsafe_code)]

use super::entry::{ENTRY_MAX, Entry, Header, SEGMENTS};
use super::ring::read_header;
use nix::sys::uio::pread;
use std::fs::File;
use std::os::fd::AsFd;

/// Scans begun anew because the writer came by in the middle of one, before what was found is taken as it is.
const SCANS: u32 = 8;

/// Reads a ring's entries in order, each once.
pub struct Reader {
    ring: File,
    header: Header,
    next: u64,
    /// Where the entry `next` will be if the writer stays in its segment.
    expected: Option<(u32, u32)>,
    buffer: Vec<u8>,
}

impl Reader {
    /// Opens a ring; `None` if its header is damaged.
    pub fn open(ring: File) -> nix::Result<Option<Reader>> {
        let Some(header) = read_header(ring.as_fd())? else { return Ok(None) };
        let buffer = vec![0; header.segment as usize];
        Ok(Some(Reader { ring, header, next: 1, expected: None, buffer }))
    }

    /// The header as it was when the ring was opened.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The number of the entry that comes next.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// Goes on at entry `next`, where a reader of this ring's predecessor stopped. A ring that is not that far was begun
    /// anew and is read from its beginning.
    pub fn resume(&mut self, next: u64) -> nix::Result<()> {
        self.read_new(&mut |_| {})?;
        self.next = if self.next >= next { next } else { 1 };
        self.expected = None;
        Ok(())
    }

    /// Gives every entry that was not given before to `visit` and tells how many were lost before or between them:
    /// overwritten before this reader came, or never written.
    pub fn read_new(&mut self, visit: &mut dyn FnMut(&Entry)) -> nix::Result<u64> {
        let mut lost = 0;
        if let Some((segment, offset)) = self.expected {
            self.read_segment(segment, offset, None, &mut lost, visit)?;
        }
        for attempt in 0..SCANS {
            if self.scan(attempt + 1 == SCANS, &mut lost, visit)? {
                break;
            }
        }
        Ok(lost)
    }

    /// Reads all segments from the oldest to the newest; `false` if one changed under the scan.
    fn scan(&mut self, last: bool, lost: &mut u64, visit: &mut dyn FnMut(&Entry)) -> nix::Result<bool> {
        let mut firsts = vec![(0u64, 0u32); SEGMENTS as usize];
        let mut first = [0u8; ENTRY_MAX];
        for (index, slot) in (0..).zip(&mut firsts) {
            let found = pread(&self.ring, &mut first, self.header.position(index, 0) as libc::off_t)?;
            let seq = first.get(..found).and_then(Entry::decode).map_or(0, |(entry, _)| entry.seq);
            *slot = (seq, index);
        }
        crate::base::sort::sort(&mut firsts);
        for (place, (seq, index)) in firsts.iter().enumerate() {
            let following = firsts.get(place + 1).map_or(u64::MAX, |(seq, _)| *seq);
            if *seq == 0 || following <= self.next {
                continue;
            }
            let expected = if last { None } else { Some(*seq) };
            if !self.read_segment(*index, 0, expected, lost, visit)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads one segment from `offset` on; `false` if it does not begin with the entry `first`.
    fn read_segment(
        &mut self,
        index: u32,
        offset: u32,
        first: Option<u64>,
        lost: &mut u64,
        visit: &mut dyn FnMut(&Entry),
    ) -> nix::Result<bool> {
        let room = self.header.segment.saturating_sub(offset) as usize;
        let want = room.min(self.buffer.len());
        let found = pread(&self.ring, &mut self.buffer[..want], self.header.position(index, offset) as libc::off_t)?;
        let bytes = self.buffer.get(..found).unwrap_or_default();
        // From the middle of a segment only the very next entry proves that the segment was not begun anew.
        let mut before = if offset > 0 { self.next - 1 } else { 0 };
        let mut at = 0;
        while let Some((entry, size)) = bytes.get(at..).and_then(Entry::decode) {
            let wrong_first = at == 0 && first.is_some_and(|first| first != entry.seq);
            let foreign = at == 0 && offset > 0 && entry.seq != self.next;
            if wrong_first || foreign || entry.seq <= before {
                return Ok(!wrong_first);
            }
            before = entry.seq;
            at += size;
            if entry.seq >= self.next {
                *lost += entry.seq - self.next;
                self.next = entry.seq.saturating_add(1);
                self.expected = Some((index, offset + at as u32));
                visit(&entry);
            }
        }
        Ok(at > 0 || first.is_none())
    }
}
