//! gzip members (RFC 1952) around deflate streams.

use super::input::Input;
use super::{Compression, DecodeError};
use zlib_rs::{Inflate, InflateError, InflateFlush, Status, crc32::crc32};

const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// A gzip stream.
pub struct Gzip {
    inflate: Inflate,
    stage: Stage,
    crc: u32,
    /// Decompressed bytes of the member, modulo 2^32.
    length: u32,
}

enum Stage {
    First,
    Member,
    Between,
    Ended,
}

impl Gzip {
    pub fn new() -> Gzip {
        Gzip { inflate: Inflate::new(false, 15), stage: Stage::First, crc: 0, length: 0 }
    }

    /// Decompresses until `output` is full or the stream ends; how many bytes there are.
    pub fn produce(&mut self, input: &mut Input<'_>, output: &mut [u8]) -> Result<usize, DecodeError> {
        let mut done = 0;
        while done < output.len() {
            match self.stage {
                Stage::First => self.begin(input)?,
                Stage::Member => done += self.member(input, &mut output[done..])?,
                Stage::Between => match input.buffer()?.first() {
                    None => self.stage = Stage::Ended,
                    Some(0) => skip_zeros(input)?,
                    Some(_) => self.begin(input)?,
                },
                Stage::Ended => break,
            }
        }
        Ok(done)
    }

    fn begin(&mut self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        if (must(input)?, must(input)?) != (0x1f, 0x8b) {
            return Err(DecodeError::Trailing(Compression::Gzip));
        }
        let (method, flags) = (must(input)?, must(input)?);
        if method != 8 || flags & RESERVED != 0 {
            return Err(corrupt("unknown method or flags"));
        }
        skip(input, 6)?;
        if flags & FEXTRA != 0 {
            let length = u16::from_le_bytes([must(input)?, must(input)?]);
            skip(input, usize::from(length))?;
        }
        for text in [FNAME, FCOMMENT] {
            while flags & text != 0 && must(input)? != 0 {}
        }
        if flags & FHCRC != 0 {
            skip(input, 2)?;
        }
        self.inflate.reset(false);
        (self.stage, self.crc, self.length) = (Stage::Member, 0, 0);
        Ok(())
    }

    fn member(&mut self, input: &mut Input<'_>, output: &mut [u8]) -> Result<usize, DecodeError> {
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let bytes = input.buffer()?;
        let at_end = bytes.is_empty();
        let status = self.inflate.decompress(bytes, output, InflateFlush::NoFlush).map_err(|error| match error {
            InflateError::MemError => DecodeError::Read(std::io::ErrorKind::OutOfMemory.into()),
            error => corrupt(error.as_str()),
        })?;
        let used = (self.inflate.total_in() - before.0) as usize;
        let made = ((self.inflate.total_out() - before.1) as usize).min(output.len());
        input.consume(used);
        self.crc = crc32(self.crc, &output[..made]);
        self.length = self.length.wrapping_add(made as u32);
        if status == Status::StreamEnd {
            self.end(input)?;
        } else if at_end && made == 0 {
            return Err(DecodeError::Truncated(Compression::Gzip));
        }
        Ok(made)
    }

    fn end(&mut self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        let mut trailer = [0; 8];
        for byte in &mut trailer {
            *byte = must(input)?;
        }
        let [a, b, c, d, e, f, g, h] = trailer;
        if (self.crc, self.length) != (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])) {
            return Err(DecodeError::Checksum(Compression::Gzip));
        }
        self.stage = Stage::Between;
        Ok(())
    }
}

/// Zeros up to the end are padding (tapes, gzip(1)); anything behind them is not.
fn skip_zeros(input: &mut Input<'_>) -> Result<(), DecodeError> {
    loop {
        match input.buffer()? {
            [] => return Ok(()),
            bytes if bytes.iter().all(|byte| *byte == 0) => {
                let length = bytes.len();
                input.consume(length);
            }
            _ => return Err(DecodeError::Trailing(Compression::Gzip)),
        }
    }
}

fn must(input: &mut Input<'_>) -> Result<u8, DecodeError> {
    input.byte()?.ok_or(DecodeError::Truncated(Compression::Gzip))
}

fn skip(input: &mut Input<'_>, count: usize) -> Result<(), DecodeError> {
    (0..count).try_for_each(|_| must(input).map(drop))
}

fn corrupt(how: &str) -> DecodeError {
    DecodeError::Corrupt(Compression::Gzip, how.into())
}
