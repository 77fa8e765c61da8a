//! What can be wrong with an archive, in sentences.

use crate::base::units::Bytes;
use core::fmt::{self, Write as _};
use std::io;

/// Why an archive cannot be read, with the entry and the byte where it was noticed.
pub struct TarError {
    /// Where the entry's first header begins, in bytes of the (decompressed) archive.
    pub offset: u64,
    /// The entry's name as far as it was known; empty before that. Control characters are escaped.
    pub entry: Box<str>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with an archive.
#[derive(Debug)]
pub enum Problem {
    /// The source could not be read or decompressed.
    Read(io::Error),
    /// The source ends inside an entry.
    Truncated,
    /// The source has no byte at all.
    Empty,
    /// A header's checksum does not fit its bytes.
    Checksum,
    /// A number field holds no number, or one that is negative or too large for what it counts.
    Number(&'static str),
    /// An entry type that coracle does not know or does not take.
    Type(u8),
    /// A record is given twice, and readers differ in which one counts.
    Twice(&'static str),
    /// The size in the pax header and the one in the ustar header disagree.
    Sizes {
        /// As the pax header says.
        pax: u64,
        /// As the ustar header says.
        ustar: u64,
    },
    /// An entry that is no file claims data, which some readers skip and others read as headers.
    DataWithoutFile(u64),
    /// A pax record is malformed; the half sentence says how.
    Pax(&'static str),
    /// A GNU long name has no NUL at its end.
    LongName,
    /// A global pax header changes what entries mean; the key.
    Global(Box<str>),
    /// Extension records or a sparse map larger than the cap.
    ExtensionTooLarge {
        /// Bytes it asks for.
        bytes: u64,
        /// Bytes allowed.
        cap: u64,
    },
    /// Extension headers with no entry behind them.
    Dangling,
    /// The name is empty.
    NoName,
    /// A link has no target.
    NoTarget,
    /// The name of a regular file ends in a slash, which some readers take for a directory.
    FileWithSlash,
    /// A header that is not POSIX has bytes where POSIX has the name's prefix; readers differ in what they are.
    Prefix,
    /// A sparse map on something that is no file.
    SparseNotFile,
    /// The sparse map does not hold together; the half sentence says how.
    BadSparse(&'static str),
}

impl TarError {
    pub(super) fn new(offset: u64, entry: &[u8], problem: Problem) -> TarError {
        TarError { offset, entry: printable(entry), problem }
    }
}

/// `bytes` as text for a message: control characters and what is no UTF-8 escaped, cut at 256 bytes.
pub fn printable(bytes: &[u8]) -> Box<str> {
    let cut = &bytes[..bytes.len().min(256)];
    let mut text = String::new();
    for chunk in cut.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "{}", byte.escape_ascii());
        }
    }
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text.into()
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.problem, &*self.entry) {
            (Problem::Read(error), "") => write!(f, "{error}"),
            (Problem::Read(error), entry) => write!(f, "entry {entry:?}: {error}"),
            (problem, "") => write!(f, "tar header at byte {}: {problem}", self.offset),
            (problem, entry) => write!(f, "entry {entry:?} at byte {}: {problem}", self.offset),
        }
    }
}

/// The sentence: an [`io::Error`] that carries it asks for this form, too, and shows it to nobody.
impl fmt::Debug for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for TarError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Read(error) => write!(f, "{error}"),
            Problem::Truncated => f.write_str("the archive ends in the middle of it; copy the file again"),
            Problem::Empty => f.write_str("the archive is empty; copy the file again"),
            Problem::Checksum => f.write_str("the header's checksum is wrong; the file is damaged or no tar archive"),
            Problem::Number(field) => write!(f, "the {field} is no number in range"),
            Problem::Type(flag) => {
                write!(f, "entry type '{}' is not one that a container image may hold", flag.escape_ascii())
            }
            Problem::Twice(what) => write!(f, "its {what} is given twice, so that readers would differ"),
            Problem::Sizes { pax, ustar } => {
                write!(f, "its pax header says {pax} bytes, its ustar header {ustar}, so that readers would differ")
            }
            Problem::DataWithoutFile(size) => {
                write!(f, "it is no regular file but claims {size} bytes of data, so that readers would differ")
            }
            Problem::Pax(how) => write!(f, "a pax record is malformed: {how}"),
            Problem::LongName => f.write_str("its GNU long name has no NUL at its end, so that readers would differ"),
            Problem::Global(key) => {
                write!(f, "a global pax header sets {key:?} for all entries; write the archive without it")
            }
            Problem::ExtensionTooLarge { bytes, cap } => {
                write!(f, "its extension records need {} bytes, more than the cap of {} (pax)", bytes, Bytes(*cap))
            }
            Problem::Dangling => f.write_str("extension headers with no entry behind them"),
            Problem::NoName => f.write_str("it has no name"),
            Problem::NoTarget => f.write_str("the link has no target"),
            Problem::FileWithSlash => f.write_str("it is a regular file, but its name ends in '/'"),
            Problem::Prefix => {
                f.write_str("the header is not POSIX but has a name prefix, so that readers would differ")
            }
            Problem::SparseNotFile => f.write_str("it has a sparse map but is no regular file"),
            Problem::BadSparse(how) => write!(f, "its sparse map is wrong: {how}"),
        }
    }
}
