//! The compressed side: a buffer that counts and digests what it reads.

use super::{DecodeError, Sha};
use crate::base::read::ReadBytes;
use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// Bytes read at a time.
const BUFFER: usize = 128 * 1024;

/// A buffered source.
pub struct Input<'a> {
    source: Box<dyn ReadBytes + 'a>,
    buffer: Box<[u8]>,
    position: usize,
    filled: usize,
    /// Bytes used up, without those still in the buffer.
    used: u64,
    digest: Option<Sha256>,
    /// Whether a read met the end: tells a truncated stream from a damaged one.
    pub ended: bool,
}

impl<'a> Input<'a> {
    pub fn new(source: Box<dyn ReadBytes + 'a>) -> Input<'a> {
        let buffer = vec![0; BUFFER].into();
        Input { source, buffer, position: 0, filled: 0, used: 0, digest: None, ended: false }
    }

    /// The first bytes, at least `count` unless there are fewer; before [`Input::digest`].
    pub fn peek(&mut self, count: usize) -> Result<&[u8], DecodeError> {
        while self.filled < count && !self.ended {
            self.read_more()?;
        }
        Ok(&self.buffer[..self.filled.min(count)])
    }

    /// Whether to digest from the first byte on; call it before anything was consumed.
    pub fn digest(&mut self, wanted: bool) {
        self.digest = wanted.then(|| Sha256::new_with_prefix(self.buffered()));
    }

    /// Bytes that are ready; empty at the end only.
    pub fn buffer(&mut self) -> Result<&[u8], DecodeError> {
        if self.position == self.filled {
            (self.position, self.filled) = (0, 0);
            self.read_more()?;
            if let Some(digest) = &mut self.digest {
                digest.update(&self.buffer[..self.filled]);
            }
        }
        Ok(self.buffered())
    }

    /// Bytes that are ready without reading.
    pub fn buffered(&self) -> &[u8] {
        self.buffer.get(self.position..self.filled).unwrap_or_default()
    }

    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.filled - self.position);
        self.position += count;
        self.used += count as u64;
    }

    /// One byte, `None` at the end.
    pub fn byte(&mut self) -> Result<Option<u8>, DecodeError> {
        let byte = self.buffer()?.first().copied();
        self.consume(1);
        Ok(byte)
    }

    /// Bytes consumed.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// The digest, if it was wanted.
    pub fn finish(self) -> Option<Sha> {
        self.digest.map(|digest| digest.finalize().into())
    }

    fn read_more(&mut self) -> Result<(), DecodeError> {
        loop {
            match self.source.read_bytes(&mut self.buffer[self.filled..]) {
                Ok(count) => {
                    self.ended |= count == 0;
                    self.filled += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DecodeError::Read(error)),
            }
        }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ready = self.buffer()?;
        let length = ready.len().min(buffer.len());
        buffer[..length].copy_from_slice(&ready[..length]);
        self.consume(length);
        Ok(length)
    }
}
