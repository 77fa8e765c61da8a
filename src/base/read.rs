//! Reading what has a bound, compiled once for every kind of source.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read, Write};

/// Bytes asked for at first: most small files then take one read and one that finds the end.
const FIRST: u64 = 2048;
/// Bytes copied at a time.
const CHUNK: usize = 8192;

/// What is asked of a source that is called through a pointer: each kind of source would bring all methods of
/// [`Read`] into the program, used or not.
pub trait ReadBytes {
    /// [`Read::read`].
    fn read_bytes(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl<R: Read + ?Sized> ReadBytes for R {
    fn read_bytes(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read(buffer)
    }
}

/// The same of a source with a buffer.
pub trait ReadBuffer {
    /// [`BufRead::fill_buf`].
    fn ready(&mut self) -> io::Result<&[u8]>;

    /// [`BufRead::consume`].
    fn used(&mut self, count: usize);
}

impl<R: BufRead + ?Sized> ReadBuffer for R {
    fn ready(&mut self) -> io::Result<&[u8]> {
        self.fill_buf()
    }

    fn used(&mut self, count: usize) {
        self.consume(count);
    }
}

/// What `source` gives until its end, at most `most` bytes.
pub fn read_up_to(source: &mut dyn ReadBytes, most: u64) -> io::Result<Vec<u8>> {
    read_sized(source, FIRST, most)
}

/// The same of what has probably `size` bytes.
pub fn read_sized(source: &mut dyn ReadBytes, size: u64, most: u64) -> io::Result<Vec<u8>> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    // Room for a few bytes more shows at the first look that there are none.
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(most).min(most).saturating_add(64).min(most)];
    let mut filled = 0;
    loop {
        match source.read_bytes(bytes.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if filled == bytes.len() {
            bytes.resize(filled.saturating_mul(2).min(most), 0);
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The same as text; an error of the kind `InvalidData` if it is none.
pub fn read_text(source: &mut dyn ReadBytes, most: u64) -> io::Result<String> {
    String::from_utf8(read_up_to(source, most)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Copies at most `most` bytes; how many there were.
pub fn copy(source: &mut dyn ReadBytes, most: u64, sink: &mut dyn Write) -> io::Result<u64> {
    let mut chunk = [0; CHUNK];
    let mut copied = 0;
    while copied < most {
        let room = usize::try_from(most - copied).unwrap_or(CHUNK).min(CHUNK);
        let bytes = &mut chunk[..room];
        match source.read_bytes(bytes) {
            Ok(0) => break,
            Ok(count) => {
                sink.write_all(bytes.get(..count).unwrap_or_default())?;
                copied += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_bound_is_read_up_to_it() {
        let text: Vec<u8> = (0..10_000u32).map(|number| number as u8).collect();
        for (most, size) in
            [(0, 0), (1, 0), (63, 64), (2048, 2048), (2112, 1), (9_999, 5), (10_000, 10_000), (1 << 40, 7)]
        {
            let expected = &text[..text.len().min(most as usize)];
            assert_eq!(read_sized(&mut &text[..], size, most).unwrap(), expected, "{most} {size}");
            let mut copy_of = Vec::new();
            let copied = copy(&mut &text[..], most, &mut copy_of).unwrap();
            assert_eq!((copied, &copy_of[..]), (expected.len() as u64, expected), "{most}");
        }
        assert_eq!(read_up_to(&mut &text[..], u64::MAX).unwrap(), text);
    }
}
