//! The bytes of a log ring: one header, eight segments, self-describing entries. Pure.
//!
//! A ring is a file. Behind [`HEADER_BYTES`] lie [`SEGMENTS`] segments of equal size. Entries fill a segment from its
//! beginning and never cross into the next; after the last segment the first is written again. Each entry carries a
//! check sum and a sequence number that only grows, so a reader needs nothing but the segments: what follows the newest
//! entry of a segment is older (smaller number) or torn (wrong sum), and either ends it. A kill of the writer at any
//! instant costs at most the entries that it was just writing. All numbers are little-endian.
#![forbid(unsafe_code)]

use crate::base::limits::LOG_TEXT_BYTES;

/// Bytes of the file header.
pub const HEADER_BYTES: usize = 64;
/// Segments of a ring. The oldest is given up as a whole, so at least seven eighths of the ring are history.
pub const SEGMENTS: u32 = 8;
/// Bytes before an entry's text.
pub const ENTRY_BYTES: usize = 32;
/// The largest entry, in bytes; also the smallest segment.
pub const ENTRY_MAX: usize = ENTRY_BYTES + LOG_TEXT_BYTES;

const MAGIC: [u8; 8] = *b"coraclog";
const VERSION: u32 = 1;
/// Largest segment in bytes: with it a ring has 64 MiB.
const SEGMENT_MAX: u32 = 8 << 20;
const PARTIAL: u8 = 1;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// A datagram to `/dev/log`.
    Syslog,
    /// Said by coracle about the service.
    Note,
}

impl Stream {
    /// The word shown for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Out => "out",
            Stream::Err => "err",
            Stream::Syslog => "syslog",
            Stream::Note => "note",
        }
    }

    fn from_byte(byte: u8) -> Option<Stream> {
        [Stream::Out, Stream::Err, Stream::Syslog, Stream::Note].into_iter().find(|stream| *stream as u8 == byte)
    }
}

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Nanoseconds since 1970 by the wall clock, which may be wrong: for display alone.
    pub wall_ns: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub mono_ns: u64,
}

/// One line, or a part of a line that was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number: 1 for the first of the ring; a gap means that entries were lost.
    pub seq: u64,
    /// When it was read from the service.
    pub stamp: Stamp,
    /// Where it came from.
    pub stream: Stream,
    /// Whether the line goes on in the stream's next entry.
    pub partial: bool,
    /// At most [`LOG_TEXT_BYTES`] bytes, as the service wrote them, without the line end.
    pub text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Bytes that a text of `len` bytes takes in the ring.
    pub fn size(len: usize) -> usize {
        (ENTRY_BYTES + len.min(LOG_TEXT_BYTES)).next_multiple_of(8)
    }

    /// Writes the entry to the beginning of `buf` and gives its size; `None` if it does not fit.
    pub fn encode(&self, buf: &mut [u8]) -> Option<usize> {
        let text = self.text.get(..LOG_TEXT_BYTES).unwrap_or(self.text);
        let size = Self::size(text.len());
        let out = buf.get_mut(..size)?;
        out.fill(0);
        out[4..6].copy_from_slice(&(text.len() as u16).to_le_bytes());
        out[6] = self.stream as u8;
        out[7] = if self.partial { PARTIAL } else { 0 };
        out[8..16].copy_from_slice(&self.seq.to_le_bytes());
        out[16..24].copy_from_slice(&self.stamp.wall_ns.to_le_bytes());
        out[24..32].copy_from_slice(&self.stamp.mono_ns.to_le_bytes());
        out[ENTRY_BYTES..ENTRY_BYTES + text.len()].copy_from_slice(text);
        let sum = crc32(&out[4..]);
        out[..4].copy_from_slice(&sum.to_le_bytes());
        Some(size)
    }

    /// Reads the entry at the beginning of `bytes` and its size; `None` if there is no whole, undamaged one.
    pub fn decode(bytes: &'a [u8]) -> Option<(Entry<'a>, usize)> {
        let head = bytes.get(..ENTRY_BYTES)?;
        let len = usize::from(u16::from_le_bytes([head[4], head[5]]));
        if len > LOG_TEXT_BYTES {
            return None;
        }
        let size = Self::size(len);
        let whole = bytes.get(..size)?;
        if crc32(&whole[4..]).to_le_bytes() != whole[..4] {
            return None;
        }
        let entry = Entry {
            seq: number(whole, 8),
            stamp: Stamp { wall_ns: number(whole, 16), mono_ns: number(whole, 24) },
            stream: Stream::from_byte(head[6])?,
            partial: head[7] & PARTIAL != 0,
            text: &whole[ENTRY_BYTES..ENTRY_BYTES + len],
        };
        (entry.seq != 0).then_some((entry, size))
    }
}

/// The file header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of one segment.
    pub segment: u32,
    /// How often a damaged header was written anew.
    pub repairs: u32,
    /// Lines dropped by the rate limit since the ring was made.
    pub dropped: u64,
    /// Entries that could not be written (the file system was full).
    pub failed: u64,
}

impl Header {
    /// The header of an empty ring of about `capacity` bytes: between 16 KiB and 64 MiB, a multiple of eight segments.
    pub fn for_capacity(capacity: u64) -> Header {
        let share = (capacity / u64::from(SEGMENTS)).clamp(ENTRY_MAX as u64, u64::from(SEGMENT_MAX));
        Header { segment: share as u32 / 8 * 8, repairs: 0, dropped: 0, failed: 0 }
    }

    /// Bytes of all segments.
    pub fn capacity(&self) -> u64 {
        u64::from(self.segment) * u64::from(SEGMENTS)
    }

    /// The place of `offset` in segment `index` of the file.
    pub fn position(&self, index: u32, offset: u32) -> u64 {
        HEADER_BYTES as u64 + u64::from(index) * u64::from(self.segment) + u64::from(offset)
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0u8; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.segment.to_le_bytes());
        out[16..20].copy_from_slice(&self.repairs.to_le_bytes());
        out[24..32].copy_from_slice(&self.dropped.to_le_bytes());
        out[32..40].copy_from_slice(&self.failed.to_le_bytes());
        let sum = crc32(&out[..HEADER_BYTES - 4]);
        out[HEADER_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads a header; `None` if it is damaged or of an unknown version.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let sum = crc32(&bytes[..HEADER_BYTES - 4]);
        let header = Header {
            segment: number(bytes, 8).checked_shr(32)? as u32,
            repairs: number(bytes, 16) as u32,
            dropped: number(bytes, 24),
            failed: number(bytes, 32),
        };
        let good = bytes[..8] == MAGIC
            && bytes[HEADER_BYTES - 4..] == sum.to_le_bytes()
            && number(bytes, 8) as u32 == VERSION
            && (ENTRY_MAX as u32..=SEGMENT_MAX).contains(&header.segment)
            && header.segment.is_multiple_of(8);
        good.then_some(header)
    }
}

/// The little-endian number at `at`, 0 beyond the end.
fn number(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0u8; 8];
    if let Some(found) = bytes.get(at..at + 8) {
        eight.copy_from_slice(found);
    }
    u64::from_le_bytes(eight)
}

/// CRC-32 (IEEE 802.3) of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut i = 0;
        while i < 256 {
            let mut value = i as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |sum, byte| TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &[u8]) -> Entry<'_> {
        Entry { seq: 7, stamp: Stamp { wall_ns: 1, mono_ns: 2 }, stream: Stream::Err, partial: true, text }
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let mut buf = [0u8; ENTRY_MAX];
        for len in [0, 1, 7, 8, LOG_TEXT_BYTES] {
            let text = vec![0xa5u8; len];
            let size = entry(&text).encode(&mut buf).unwrap();
            assert_eq!(Entry::decode(&buf), Some((entry(&text), size)));
        }
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_single_flipped_bit_is_noticed() {
        let mut buf = [0u8; 64];
        let size = entry(b"some text").encode(&mut buf).unwrap();
        for bit in 0..size * 8 {
            let mut bad = buf;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Entry::decode(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn a_header_comes_back_and_a_damaged_one_does_not() {
        let header = Header { dropped: 9, failed: 3, repairs: 1, ..Header::for_capacity(32 << 10) };
        assert_eq!(header.segment, 4096);
        assert_eq!(Header::decode(&header.encode()), Some(header));
        for at in 0..HEADER_BYTES {
            let mut bad = header.encode();
            bad[at] ^= 0x10;
            assert_eq!(Header::decode(&bad), None, "byte {at}");
        }
        assert_eq!(Header::for_capacity(0).segment as usize, ENTRY_MAX);
        assert_eq!(Header::for_capacity(u64::MAX).capacity(), 64 << 20);
    }
}
