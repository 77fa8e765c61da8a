//! The 512-byte header block and its number formats.

use super::Problem;

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// Which dialect a header's magic announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Posix,
    Gnu,
}

/// A header block whose checksum is right.
pub struct Block {
    bytes: [u8; BLOCK],
    dialect: Dialect,
}

impl Block {
    /// Verifies the checksum, the sum of all bytes with its own field taken as blanks, of unsigned or signed bytes, and
    /// that number fields hold numbers.
    pub fn new(bytes: [u8; BLOCK]) -> Result<Block, Problem> {
        let blanked = bytes[..148].iter().chain(&[b' '; 8]).chain(&bytes[156..]);
        let (unsigned, signed) = blanked
            .fold((0, 0), |(unsigned, signed), byte| (unsigned + i32::from(*byte), signed + i32::from(*byte as i8)));
        let stored = number(&bytes[148..156]).and_then(|sum| sum.ok_or(())).map_err(|()| Problem::Checksum)?;
        if stored != i64::from(unsigned) && stored != i64::from(signed) {
            return Err(Problem::Checksum);
        }
        // Also those that a pax record replaces: other readers refuse an archive for them.
        for (field, name) in
            [(100..108, "mode"), (108..116, "owner (uid)"), (116..124, "group (gid)"), (136..148, "time (mtime)")]
        {
            number(&bytes[field]).map_err(|()| Problem::Number(name))?;
        }
        let dialect = match &bytes[257..265] {
            [b'u', b's', b't', b'a', b'r', 0, _, _] => Dialect::Posix,
            b"ustar  \0" => Dialect::Gnu,
            _ => Dialect::V7,
        };
        Ok(Block { bytes, dialect })
    }

    /// The entry type.
    pub fn typeflag(&self) -> u8 {
        self.bytes[156]
    }

    /// The name with the POSIX prefix before it.
    pub fn path(&self) -> Result<Vec<u8>, Problem> {
        let (name, prefix) = (until_nul(&self.bytes[..100]), until_nul(&self.bytes[345..500]));
        if prefix.is_empty() || self.typeflag() == b'S' {
            return Ok(name.to_vec());
        }
        match self.dialect {
            Dialect::Posix => Ok([prefix, b"/", name].concat()),
            Dialect::V7 | Dialect::Gnu => Err(Problem::Prefix),
        }
    }

    /// Whether the name field ends in a slash, whatever extension headers call the entry.
    pub fn name_ends_in_slash(&self) -> bool {
        until_nul(&self.bytes[..100]).ends_with(b"/")
    }

    /// The link's target.
    pub fn link(&self) -> &[u8] {
        until_nul(&self.bytes[157..257])
    }

    /// Permission bits.
    pub fn mode(&self) -> Result<u32, Problem> {
        Ok((unsigned(&self.bytes[100..108], "mode")? & 0o7777) as u32)
    }

    /// Owner.
    pub fn uid(&self) -> Result<u64, Problem> {
        unsigned(&self.bytes[108..116], "owner (uid)")
    }

    /// Group.
    pub fn gid(&self) -> Result<u64, Problem> {
        unsigned(&self.bytes[116..124], "group (gid)")
    }

    /// Stored bytes behind the header.
    pub fn size(&self) -> Result<u64, Problem> {
        size_field(&self.bytes[124..136])
    }

    /// Stored bytes behind a GNU volume label, whose size GNU tar leaves blank.
    pub fn label_size(&self) -> Result<u64, Problem> {
        unsigned(&self.bytes[124..136], "size")
    }

    /// Seconds since the epoch.
    pub fn mtime(&self) -> Result<i64, Problem> {
        number(&self.bytes[136..148]).map(Option::unwrap_or_default).map_err(|()| Problem::Number("time (mtime)"))
    }

    /// Major device number.
    pub fn major(&self) -> Result<u32, Problem> {
        device(&self.bytes[329..337], "device's major number")
    }

    /// Minor device number.
    pub fn minor(&self) -> Result<u32, Problem> {
        device(&self.bytes[337..345], "device's minor number")
    }

    /// Whether the header has the magic of POSIX ustar.
    pub fn is_posix(&self) -> bool {
        self.dialect == Dialect::Posix
    }

    /// Whether the header says that GNU tar wrote it.
    pub fn is_gnu(&self) -> bool {
        self.dialect == Dialect::Gnu
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8; BLOCK] {
        &self.bytes
    }
}

/// A field's bytes before its first NUL.
fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A field that must hold a size.
pub fn size_field(field: &[u8]) -> Result<u64, Problem> {
    let size = number(field).ok().flatten().ok_or(Problem::Number("size"))?;
    u64::try_from(size).map_err(|_| Problem::Number("size"))
}

fn unsigned(field: &[u8], name: &'static str) -> Result<u64, Problem> {
    let value = number(field).map_err(|()| Problem::Number(name))?.unwrap_or_default();
    u64::try_from(value).map_err(|_| Problem::Number(name))
}

fn device(field: &[u8], name: &'static str) -> Result<u32, Problem> {
    u32::try_from(unsigned(field, name)?).map_err(|_| Problem::Number(name))
}

/// A number field: octal digits between blanks and ended by a blank, a NUL or the field's end, or big-endian base 256
/// behind a byte 0x80 (positive) or 0xff (negative); `None` when blank.
fn number(field: &[u8]) -> Result<Option<i64>, ()> {
    match field.split_first() {
        Some((0x80, rest)) => base256(0, rest).map(Some),
        Some((0xff, rest)) => base256(-1, rest).map(Some),
        // GNU tar reads on behind a leading NUL, Python does not.
        Some((0, rest)) if rest.iter().any(|byte| !matches!(byte, 0 | b' ')) => Err(()),
        _ => octal(until_nul(field)),
    }
}

fn base256(start: i64, bytes: &[u8]) -> Result<i64, ()> {
    bytes.iter().try_fold(start, |value, byte| {
        let shifted = value.checked_mul(256).ok_or(())?;
        shifted.checked_add(i64::from(*byte)).ok_or(())
    })
}

fn octal(text: &[u8]) -> Result<Option<i64>, ()> {
    let digits = text.trim_ascii();
    if !text.iter().all(|byte| matches!(byte, b' ' | b'0'..=b'7')) || digits.contains(&b' ') {
        return Err(());
    }
    if digits.is_empty() {
        return Ok(None);
    }
    digits
        .iter()
        .try_fold(0i64, |value, digit| value.checked_mul(8)?.checked_add(i64::from(digit - b'0')))
        .map(Some)
        .ok_or(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Ok(Some(0o644)));
        assert_eq!(number(b"   644 \0"), Ok(Some(0o644)));
        assert_eq!(number(b"77777777777\0"), Ok(Some(0o77777777777)));
        assert_eq!(number(b"777777777777"), Ok(Some(0o777777777777)));
        assert_eq!(number(&[0x80, 0, 0, 0, 2, 0, 0, 0]), Ok(Some(0x200_0000)));
        assert_eq!(number(&[0xff; 12]), Ok(Some(-1)));
        assert_eq!(number(&[0; 8]), Ok(None));
        assert_eq!(number(b"        "), Ok(None));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bad in [
            &b"0000648\0"[..],
            b"-644   \0",
            b"6 4 4  \0",
            b"0x10   \0",
            b"\x0012345\0\0",
            b"1_000  \0",
            b"\x8112345678",
        ] {
            assert_eq!(number(bad), Err(()), "{bad:?}");
        }
        assert_eq!(number(&[0x80, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]), Err(()), "2^64 and more");
        assert!(size_field(&[0xff; 12]).is_err(), "a size below zero");
        assert!(size_field(&[0; 12]).is_err(), "no size at all");
    }
}
