//! Reading what has a bound, compiled once for every kind of source.
#![forbid(unsafe_code)]

use std::io::{self, Read};

/// Bytes asked for at first: most small files then take one read and one that finds the end.
const FIRST: u64 = 2048;

/// What `source` gives until its end, at most `most` bytes.
pub fn read_up_to(source: &mut dyn Read, most: u64) -> io::Result<Vec<u8>> {
    read_sized(source, FIRST, most)
}

/// The same of what has probably `size` bytes.
pub fn read_sized(source: &mut dyn Read, size: u64, most: u64) -> io::Result<Vec<u8>> {
    // Room for a few bytes more shows at the first look that there are none.
    let mut bytes = Vec::with_capacity(size.min(most) as usize + 64);
    source.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The same as text; an error of the kind `InvalidData` if it is none.
pub fn read_text(source: &mut dyn Read, most: u64) -> io::Result<String> {
    String::from_utf8(read_up_to(source, most)?).map_err(|_| io::ErrorKind::InvalidData.into())
}
