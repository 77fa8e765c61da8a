//! Extension headers: pax records and GNU long names.

use super::header::Block;
use super::sparse::Region;
use super::{Mtime, Problem, Xattr};

/// What extension headers say about the entry behind them.
#[derive(Debug, Default)]
pub struct Extended {
    seen_pax: bool,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    size: Option<u64>,
    /// Owner.
    pub uid: Option<u64>,
    /// Group.
    pub gid: Option<u64>,
    /// Time of the last change.
    pub mtime: Option<Mtime>,
    /// Extended attributes; a name given again replaces the value before.
    pub xattrs: Vec<Xattr>,
    /// The GNU sparse records.
    pub sparse: Option<Sparse>,
}

/// The `GNU.sparse.*` records of one entry.
#[derive(Debug, Default)]
pub struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    /// Bytes of the file, holes included.
    pub size: Option<u64>,
    /// Format 0.1: offsets and lengths in turn.
    map: Option<Vec<u64>>,
    /// Format 0.0: the same, one record each.
    list: Vec<u64>,
}

impl Sparse {
    /// Whether the map lies in front of the data (format 1.0).
    pub fn version_1(&self) -> bool {
        self.major == Some(1) && self.minor == Some(0)
    }

    /// The map of formats 0.0 and 0.1.
    pub fn regions(&self) -> Result<Vec<Region>, Problem> {
        if self.major.is_some_and(|major| major != 0) {
            return Err(Problem::BadSparse("its version is none of 0.0, 0.1 and 1.0"));
        }
        if self.map.is_some() && !self.list.is_empty() {
            return Err(Problem::Twice("sparse map"));
        }
        let numbers = self.map.as_ref().unwrap_or(&self.list);
        let (pairs, rest) = numbers.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Problem::BadSparse("an offset has no length"));
        }
        Ok(pairs.iter().map(|[offset, length]| Region { offset: *offset, length: *length }).collect())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let number = || decimal(value).ok_or(Problem::BadSparse("a record holds no number"));
        match key {
            b"major" => once(&mut self.major, number()?, "sparse version"),
            b"minor" => once(&mut self.minor, number()?, "sparse version"),
            b"name" => once(&mut self.name, text(value)?, "name"),
            b"size" | b"realsize" => once(&mut self.size, number()?, "sparse size"),
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal).collect::<Option<Vec<u64>>>();
                once(&mut self.map, numbers.ok_or(Problem::BadSparse("a record holds no number"))?, "sparse map")
            }
            b"offset" if self.list.len().is_multiple_of(2) => {
                self.list.push(number()?);
                Ok(())
            }
            b"numbytes" if !self.list.len().is_multiple_of(2) => {
                self.list.push(number()?);
                Ok(())
            }
            b"offset" | b"numbytes" => Err(Problem::BadSparse("offsets and lengths do not alternate")),
            b"numblocks" => Ok(()),
            _ => Err(Problem::BadSparse("a record is unknown")),
        }
    }
}

impl Extended {
    /// Whether there was no extension header.
    pub fn is_empty(&self) -> bool {
        !self.seen_pax && self.long_name.is_none() && self.long_link.is_none()
    }

    /// Takes the records of a pax header.
    pub fn pax(&mut self, data: &[u8]) -> Result<(), Problem> {
        if self.seen_pax {
            return Err(Problem::Twice("pax header"));
        }
        self.seen_pax = true;
        for_each_record(data, |key, value| self.record(key, value))
    }

    /// Takes the data of a GNU long name ('L').
    pub fn long_name(&mut self, data: &[u8]) -> Result<(), Problem> {
        once(&mut self.long_name, long(data)?, "name")
    }

    /// Takes the data of a GNU long link target ('K').
    pub fn long_link(&mut self, data: &[u8]) -> Result<(), Problem> {
        once(&mut self.long_link, long(data)?, "link target")
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let number = |field| decimal(value).ok_or(Problem::Number(field));
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            let name = text(name)?;
            self.xattrs.retain(|known| known.name != name);
            self.xattrs.push(Xattr { name, value: value.to_vec() });
            return Ok(());
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.get_or_insert_default().record(key, value);
        }
        match key {
            // Python takes whichever name comes last, GNU tar the sparse one.
            b"path" if self.sparse.as_ref().is_some_and(|sparse| sparse.name.is_some()) => Err(Problem::Twice("name")),
            b"path" => once(&mut self.path, text(value)?, "name"),
            b"linkpath" => once(&mut self.link, text(value)?, "link target"),
            b"size" => once(&mut self.size, number("size")?, "size"),
            b"uid" => once(&mut self.uid, number("owner (uid)")?, "owner"),
            b"gid" => once(&mut self.gid, number("group (gid)")?, "group"),
            b"mtime" => once(&mut self.mtime, time(value).ok_or(Problem::Number("time (mtime)"))?, "time"),
            // Names of users and groups, other times, comments, ACLs as text, vendors' own: not used.
            _ => Ok(()),
        }
    }

    /// The entry's name.
    pub fn take_path(&mut self, block: &Block) -> Result<Vec<u8>, Problem> {
        let sparse = self.sparse.as_mut().and_then(|sparse| sparse.name.take());
        let pax = self.path.take();
        let path = match (sparse.or(pax), self.long_name.take()) {
            (Some(_), Some(_)) => return Err(Problem::Twice("name")),
            (Some(path), None) | (None, Some(path)) => path,
            (None, None) => block.path()?,
        };
        if path.is_empty() { Err(Problem::NoName) } else { Ok(path) }
    }

    /// The link's target.
    pub fn take_link(&mut self, block: &Block) -> Result<Vec<u8>, Problem> {
        let link = match (self.link.take(), self.long_link.take()) {
            (Some(_), Some(_)) => return Err(Problem::Twice("link target")),
            (Some(link), None) | (None, Some(link)) => link,
            (None, None) => block.link().to_vec(),
        };
        if link.is_empty() { Err(Problem::NoTarget) } else { Ok(link) }
    }

    /// Stored bytes behind the headers.
    ///
    /// A pax size counts, as for GNU tar and Python, if the ustar field agrees, is zero or is full (a size that does
    /// not fit); any other number there is what a reader without pax would skip, so it is refused.
    pub fn stored_size(&self, block: &Block) -> Result<u64, Problem> {
        const FULL: u64 = 0o77777777777;
        match (self.size, block.size()?) {
            (Some(pax), ustar) if ustar == pax || ustar == 0 || (ustar == FULL && pax > FULL) => Ok(pax),
            (Some(pax), ustar) => Err(Problem::Sizes { pax, ustar }),
            (None, ustar) => Ok(ustar),
        }
    }
}

/// Refuses a global header that would change what entries mean; comments (git) and times do not.
pub fn check_global(data: &[u8]) -> Result<(), Problem> {
    for_each_record(data, |key, _| {
        let meaning = [&b"path"[..], b"linkpath", b"size", b"uid", b"gid", b"mtime"].contains(&key)
            || [&b"GNU."[..], b"SCHILY."].iter().any(|vendor| key.starts_with(vendor));
        if meaning { Err(Problem::Global(super::error::printable(key))) } else { Ok(()) }
    })
}

/// Calls `take` with key and value of each record, `LENGTH KEY=VALUE\n`, where the length counts the whole record.
fn for_each_record(mut data: &[u8], mut take: impl FnMut(&[u8], &[u8]) -> Result<(), Problem>) -> Result<(), Problem> {
    while !data.is_empty() {
        let digits = data.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let length = data.get(..digits).and_then(decimal).and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or(Problem::Pax("it does not begin with its length"))?;
        let (record, rest) = data.split_at_checked(length).ok_or(Problem::Pax("it is longer than its header"))?;
        let text = record.get(digits..).and_then(|text| text.strip_prefix(b" "));
        let text = text.ok_or(Problem::Pax("no blank follows its length"))?;
        let text = text.strip_suffix(b"\n").ok_or(Problem::Pax("it does not end with a newline"))?;
        let equals = text.iter().position(|byte| *byte == b'=').ok_or(Problem::Pax("it has no '='"))?;
        let (key, value) = text.split_at(equals);
        if key.is_empty() || key.contains(&0) {
            return Err(Problem::Pax("its key is empty or holds a NUL"));
        }
        take(key, value.get(1..).unwrap_or_default())?;
        data = rest;
    }
    Ok(())
}

/// Sets what may be said only once.
fn once<T>(slot: &mut Option<T>, value: T, what: &'static str) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::Twice(what)),
    }
}

/// A value that names something.
fn text(value: &[u8]) -> Result<Vec<u8>, Problem> {
    match value {
        [] => Err(Problem::Pax("a name is empty")),
        value if value.contains(&0) => Err(Problem::Pax("a name holds a NUL")),
        value => Ok(value.to_vec()),
    }
}

/// The text of a GNU long name: up to the NUL, without which Python reads on into the padding.
fn long(data: &[u8]) -> Result<Vec<u8>, Problem> {
    let end = data.iter().position(|byte| *byte == 0).ok_or(Problem::LongName)?;
    Ok(data.get(..end).unwrap_or_default().to_vec())
}

/// A decimal number that fits a signed 64-bit one.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let value = text.iter().try_fold(0u64, |value, byte| value.checked_mul(10)?.checked_add(digit(byte)?))?;
    i64::try_from(value).is_ok().then_some(value)
}

/// A time as pax writes it: `[-]SECONDS[.FRACTION]`.
fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let dot = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = text.split_at(dot.unwrap_or(text.len()));
    let fraction = fraction.strip_prefix(b".").unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(core::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Mtime { seconds, nanoseconds },
        (true, 0) => Mtime { seconds: -seconds, nanoseconds: 0 },
        (true, nanoseconds) => Mtime { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &[u8]) -> Result<Extended, Problem> {
        let mut extended = Extended::default();
        extended.pax(data).map(|()| extended)
    }

    #[test]
    fn records_are_read_by_their_length() {
        let extended = parse(b"19 path=a=b\nc/d.txt\n").unwrap_err();
        assert!(matches!(extended, Problem::Pax(_)), "one byte short: {extended:?}");
        let extended = parse(b"20 path=a=b\nc/d.txt\n30 mtime=1350244992.023960108\n").unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a=b\nc/d.txt"[..]));
        assert_eq!(extended.mtime, Some(Mtime { seconds: 1_350_244_992, nanoseconds: 23_960_108 }));
    }

    #[test]
    fn xattrs_keep_any_bytes() {
        let extended = parse(b"24 SCHILY.xattr.user.a=\0\n\n").unwrap_err();
        assert!(matches!(extended, Problem::Pax(_)));
        let extended = parse(b"26 SCHILY.xattr.user.a=\0\n\n").unwrap();
        assert_eq!(extended.xattrs, [Xattr { name: b"user.a".to_vec(), value: b"\0\n".to_vec() }]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"path=x\n"[..],
            b"99 path=x\n",
            b"8 path=x\n",
            b"10 path=xx",
            b"0 \n",
            b"5 a=\n\n",
            b"4 =\n",
            b"4 a\n",
            b"99999999999999999999 a=b\n",
            b"8 path=\n",
            b"8 path=",
            b"12 path=a\0b\n",
            b"11 size=-1\n",
            b"12 mtime=x\n",
        ] {
            assert!(parse(bad).is_err(), "{:?}", bad.escape_ascii().to_string());
        }
        assert!(matches!(parse(b"10 size=1\n10 size=1\n"), Err(Problem::Twice("size"))));
    }

    #[test]
    fn times_before_1970_count_forward() {
        assert_eq!(time(b"-1.5"), Some(Mtime { seconds: -2, nanoseconds: 500_000_000 }));
        assert_eq!(time(b"-3"), Some(Mtime { seconds: -3, nanoseconds: 0 }));
        assert_eq!(time(b"7.1234567891"), Some(Mtime { seconds: 7, nanoseconds: 123_456_789 }));
        for bad in [&b""[..], b".5", b"1e3", b"nan", b"1.-5", b"--1"] {
            assert_eq!(time(bad), None);
        }
    }

    #[test]
    fn a_global_header_may_comment_but_not_rename() {
        assert!(check_global(b"16 comment=abcde\n").is_err(), "wrong length");
        assert!(check_global(b"17 comment=abcde\n").is_ok());
        assert!(matches!(check_global(b"9 path=x\n"), Err(Problem::Global(_))));
    }
}
