//! Plain, gzip or zstd, told by magic: decompressed, counted, capped and digested in one pass.
//!
//! Formats: RFC 1952 (gzip), RFC 8878 (zstd). The digests are SHA-256, as the OCI image specification has them.
#![forbid(unsafe_code)]

mod gzip;
mod input;
mod zstd;

use crate::base::read::ReadBytes;
use crate::base::units::Bytes;
use crate::plan::device::ImageCaps;
use core::fmt;
use input::Input;
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, Read};

/// Bytes decompressed at a time: with its input and window it stays in a small second-level cache.
const CHUNK: usize = 128 * 1024;
/// The ratio is judged once this much has come out; below, headers and runs of zeros weigh too much.
const RATIO_FROM: u64 = 1 << 20;

/// A SHA-256 digest.
pub type Sha = [u8; 32];

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, one or more members.
    Gzip,
    /// Zstandard, one or more frames.
    Zstd,
}

/// Which digests to compute; each costs a pass of the processor over the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Of the bytes as stored.
    pub stored: bool,
    /// Of the bytes as decompressed: a layer's diff ID.
    pub content: bool,
}

/// What is known of a stream after its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How it was compressed.
    pub compression: Compression,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// Bytes as decompressed.
    pub content_bytes: u64,
    /// Digest of the bytes as stored, if wanted.
    pub stored: Option<Sha>,
    /// Digest of the bytes as decompressed, if wanted.
    pub content: Option<Sha>,
}

/// Why a stream cannot be decompressed.
pub enum DecodeError {
    /// The source cannot be read.
    Read(io::Error),
    /// The source ends inside the compressed data.
    Truncated(Compression),
    /// The compressed data is damaged; the half sentence says what is wrong.
    Corrupt(Compression, Box<str>),
    /// A checksum or length inside the stream does not fit what was decompressed.
    Checksum(Compression),
    /// Bytes other than zeros follow the end of the compressed data.
    Trailing(Compression),
    /// A compression that coracle does not read.
    Unsupported(&'static str),
    /// More decompressed bytes than the cap.
    TooLarge(Bytes),
    /// More decompressed bytes per stored byte than the cap.
    Ratio(u32),
    /// A zstd frame wants a larger window than the cap.
    Window {
        /// Bytes it wants.
        wanted: Bytes,
        /// Bytes allowed.
        cap: Bytes,
    },
}

/// A stream being decompressed; read it as [`BufRead`], then call [`Decoder::finish`].
///
/// Its read errors carry a [`DecodeError`].
pub struct Decoder<'a> {
    input: Input<'a>,
    codec: Codec,
    /// Decompressed bytes; unused (empty) for plain streams, which are handed out of the input's buffer.
    chunk: Box<[u8]>,
    position: usize,
    filled: usize,
    content: Option<Sha256>,
    content_bytes: u64,
    limits: Limits,
}

enum Codec {
    Plain,
    Gzip(Box<gzip::Gzip>),
    Zstd(Box<zstd::Zstd>),
}

struct Limits {
    cap: Bytes,
    left: u64,
    ratio: u32,
}

impl<'a> Decoder<'a> {
    /// Looks at the first bytes of `source`. `used` is what other streams of the image took of
    /// [`ImageCaps::bytes`] already.
    pub fn new(
        source: impl Read + 'a,
        caps: &ImageCaps,
        used: u64,
        wanted: Wanted,
    ) -> Result<Decoder<'a>, DecodeError> {
        Decoder::of(Box::new(source), caps, used, wanted)
    }

    fn of(
        source: Box<dyn ReadBytes + 'a>,
        caps: &ImageCaps,
        used: u64,
        wanted: Wanted,
    ) -> Result<Decoder<'a>, DecodeError> {
        let mut input = Input::new(source);
        let compression = detect(input.peek(10)?)?;
        // One digest serves both when nothing is compressed.
        let plain = compression == Compression::Plain;
        let content = wanted.content || (plain && wanted.stored);
        input.digest(wanted.stored && !plain);
        let codec = match compression {
            Compression::Plain => Codec::Plain,
            Compression::Gzip => Codec::Gzip(Box::new(gzip::Gzip::new())),
            Compression::Zstd => Codec::Zstd(Box::new(zstd::Zstd::new(caps.zstd_window))),
        };
        Ok(Decoder {
            input,
            codec,
            chunk: if plain { Box::default() } else { vec![0; CHUNK].into() },
            position: 0,
            filled: 0,
            content: content.then(Sha256::new),
            content_bytes: 0,
            limits: Limits { cap: caps.bytes, left: caps.bytes.0.saturating_sub(used), ratio: caps.ratio },
        })
    }

    /// How the stream is compressed.
    pub fn compression(&self) -> Compression {
        match self.codec {
            Codec::Plain => Compression::Plain,
            Codec::Gzip(_) => Compression::Gzip,
            Codec::Zstd(_) => Compression::Zstd,
        }
    }

    /// Bytes of the source used so far.
    pub fn stored_bytes(&self) -> u64 {
        self.input.used()
    }

    /// Reads what is left, to the source's end, and gives sizes and digests.
    pub fn finish(mut self) -> Result<Summary, DecodeError> {
        loop {
            self.position = self.filled;
            self.refill()?;
            if self.filled == 0 {
                break;
            }
        }
        let compression = self.compression();
        let content: Option<Sha> = self.content.map(|hasher| hasher.finalize().into());
        let stored_bytes = self.input.used();
        let stored = match compression {
            Compression::Plain => content,
            _ => self.input.finish(),
        };
        Ok(Summary { compression, stored_bytes, content_bytes: self.content_bytes, stored, content })
    }

    /// Decompresses the next chunk, if the one before is used up; an empty one is the end.
    fn refill(&mut self) -> Result<(), DecodeError> {
        if self.position < self.filled {
            return Ok(());
        }
        if matches!(self.codec, Codec::Plain) {
            self.input.consume(self.filled);
        }
        (self.position, self.filled) = (0, 0);
        self.filled = match &mut self.codec {
            Codec::Plain => self.input.buffer()?.len(),
            Codec::Gzip(gzip) => gzip.produce(&mut self.input, &mut self.chunk)?,
            Codec::Zstd(zstd) => zstd.produce(&mut self.input, &mut self.chunk)?,
        };
        let length = self.filled as u64;
        self.content_bytes += length;
        self.limits.take(length)?;
        if self.compression() != Compression::Plain {
            self.limits.judge(self.content_bytes, self.input.used())?;
        }
        if let Some(hasher) = &mut self.content {
            hasher.update(if self.chunk.is_empty() { self.input.buffered() } else { &self.chunk[..self.filled] });
        }
        Ok(())
    }
}

impl Limits {
    fn take(&mut self, bytes: u64) -> Result<(), DecodeError> {
        self.left = self.left.checked_sub(bytes).ok_or(DecodeError::TooLarge(self.cap))?;
        Ok(())
    }

    fn judge(&self, content: u64, stored: u64) -> Result<(), DecodeError> {
        let too_much = content > RATIO_FROM && content > stored.saturating_mul(u64::from(self.ratio));
        if too_much { Err(DecodeError::Ratio(self.ratio)) } else { Ok(()) }
    }
}

impl BufRead for Decoder<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.refill()?;
        let bytes = if self.chunk.is_empty() { self.input.buffered() } else { &self.chunk[..self.filled] };
        Ok(bytes.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.position = self.position.saturating_add(count).min(self.filled);
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// Tells the compression by the first bytes; what is none that is known is plain.
fn detect(head: &[u8]) -> Result<Compression, DecodeError> {
    match head {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(DecodeError::Unsupported("xz")),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59] => Err(DecodeError::Unsupported("bzip2")),
        [0x04, 0x22, 0x4d, 0x18, ..] => Err(DecodeError::Unsupported("lz4")),
        _ => Ok(Compression::Plain),
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::Plain => "plain",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Read(error) => write!(f, "cannot be read: {error}"),
            DecodeError::Truncated(kind) => write!(f, "the {kind} data ends too early; copy the file again"),
            DecodeError::Corrupt(kind, how) => write!(f, "the {kind} data is damaged ({how}); copy the file again"),
            DecodeError::Checksum(kind) => write!(f, "the {kind} checksum does not fit; copy the file again"),
            DecodeError::Trailing(kind) => write!(f, "other bytes follow the {kind} data; copy the file again"),
            DecodeError::Unsupported(name) => write!(f, "it is compressed with {name}; use gzip or zstd"),
            DecodeError::TooLarge(cap) => {
                write!(f, "it unpacks to more than the cap of {cap} (bytes); raise the cap if the image is yours")
            }
            DecodeError::Ratio(cap) => write!(
                f,
                "it unpacks to more than {cap} times its size (ratio), as a decompression bomb does; raise the cap if the image is yours"
            ),
            DecodeError::Window { wanted, cap } => write!(
                f,
                "its zstd window of {wanted} is above the cap of {cap} (zstd_window); compress it without --long, or raise the cap"
            ),
        }
    }
}

/// The sentence: an [`io::Error`] that carries it asks for this form, too, and shows it to nobody.
impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for DecodeError {}

impl From<DecodeError> for io::Error {
    fn from(error: DecodeError) -> io::Error {
        match error {
            DecodeError::Read(error) => error,
            error => io::Error::other(error),
        }
    }
}
