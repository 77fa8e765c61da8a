//! Writes reproducible archives: ustar, with a pax header where ustar's fields are too small.

use super::{Entry, Kind, Mtime};
use crate::base::read::{ReadBytes, copy};
use std::io::{self, Read, Write};

const BLOCK: usize = 512;
/// The largest number of 11 octal digits.
const OCTAL_11: u64 = 0o77777777777;
/// The largest number of 7 octal digits.
const OCTAL_7: u64 = 0o7777777;

/// Writes an archive entry by entry.
pub struct Writer<W> {
    sink: W,
}

impl<W: Write> Writer<W> {
    /// A writer of an archive that begins at `sink`'s current place.
    pub fn new(sink: W) -> Writer<W> {
        Writer { sink }
    }

    /// Adds an entry; for a file, exactly `entry.size` bytes of `data` follow it.
    ///
    /// Errors: those of sink and data; `UnexpectedEof` if `data` is shorter than the entry says.
    pub fn append(&mut self, entry: &Entry, mut data: impl Read) -> io::Result<()> {
        append(&mut self.sink, entry, &mut data)
    }

    /// Adds the headers of an entry alone and gives the number of bytes that must follow: write them to
    /// [`Writer::sink`], then call [`Writer::pad`] with that number.
    pub fn begin(&mut self, entry: &Entry) -> io::Result<u64> {
        begin(&mut self.sink, entry)
    }

    /// Where an entry's data goes after [`Writer::begin`].
    pub fn sink(&mut self) -> &mut W {
        &mut self.sink
    }

    /// Ends the archive with its two blocks of zeros and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&[0; 2 * BLOCK])?;
        Ok(self.sink)
    }

    /// Fills the last block of an entry of `size` bytes.
    pub fn pad(&mut self, size: u64) -> io::Result<()> {
        pad(&mut self.sink, size)
    }
}

fn append(sink: &mut dyn Write, entry: &Entry, data: &mut dyn ReadBytes) -> io::Result<()> {
    let size = begin(sink, entry)?;
    let copied = copy(data, size, sink)?;
    if copied != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    pad(sink, size)
}

fn begin(sink: &mut dyn Write, entry: &Entry) -> io::Result<u64> {
    let mut path = entry.path.clone();
    if entry.kind == Kind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    let link: &[u8] = match &entry.kind {
        Kind::Symlink(target) | Kind::HardLink(target) => target,
        _ => b"",
    };
    let size = if entry.kind == Kind::File { entry.size } else { 0 };
    let records = records(entry, &path, link, size);
    if !records.is_empty() {
        let header = Fields { path: b"PaxHeaders/entry", link: b"", size: records.len() as u64, typeflag: b'x' };
        sink.write_all(&header.block(&Entry { mode: 0o644, ..plain() }))?;
        sink.write_all(&records)?;
        pad(sink, records.len() as u64)?;
    }
    let fields =
        Fields { path: &path, link, size: if size > OCTAL_11 { 0 } else { size }, typeflag: flag(&entry.kind) };
    sink.write_all(&fields.block(entry))?;
    Ok(size)
}

fn pad(sink: &mut dyn Write, size: u64) -> io::Result<()> {
    let rest = (size % BLOCK as u64) as usize;
    if rest == 0 { Ok(()) } else { sink.write_all(&[0; BLOCK][rest..]) }
}

/// An entry with nothing set.
fn plain() -> Entry {
    Entry {
        path: Vec::new(),
        kind: Kind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        size: 0,
        xattrs: Vec::new(),
        offset: 0,
        data_offset: 0,
    }
}

fn flag(kind: &Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink(_) => b'1',
        Kind::Symlink(_) => b'2',
        Kind::CharDevice { .. } => b'3',
        Kind::BlockDevice { .. } => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// The pax records for all that the ustar fields cannot hold.
fn records(entry: &Entry, path: &[u8], link: &[u8], size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    if split(path).is_none() {
        record(&mut records, b"path", path);
    }
    if link.len() > 100 {
        record(&mut records, b"linkpath", link);
    }
    if size > OCTAL_11 {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if u64::from(id) > OCTAL_7 {
            record(&mut records, key.as_bytes(), id.to_string().as_bytes());
        }
    }
    if let Some(text) = time(entry.mtime) {
        record(&mut records, b"mtime", text.as_bytes());
    }
    for xattr in &entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", &*xattr.name].concat(), &xattr.value);
    }
    records
}

/// A time as pax has it, if ustar's whole seconds since 1970 cannot hold it.
fn time(mtime: Mtime) -> Option<String> {
    let Mtime { seconds, nanoseconds } = mtime;
    match (seconds, nanoseconds) {
        (0.., 0) if seconds as u64 <= OCTAL_11 => None,
        (_, 0) => Some(seconds.to_string()),
        (0.., _) => Some(format!("{seconds}.{nanoseconds:09}")),
        // The nanoseconds count forward from whole seconds before 1970; the text counts away from 1970.
        _ => Some(format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)),
    }
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Splits a path into prefix and name fields at a slash, if it fits.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    slashes
        .map(|at| (&path[..at], &path[at + 1..]))
        .find(|(prefix, name)| (1..=155).contains(&prefix.len()) && (1..=100).contains(&name.len()))
}

/// What a header says beyond the entry's attributes.
struct Fields<'a> {
    path: &'a [u8],
    link: &'a [u8],
    size: u64,
    typeflag: u8,
}

impl Fields<'_> {
    fn block(&self, entry: &Entry) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let (prefix, name) = split(self.path).unwrap_or((b"", &self.path[..100.min(self.path.len())]));
        put(&mut block, 0, name);
        octal(&mut block, 100, 7, entry.mode.into());
        octal(&mut block, 108, 7, fit(entry.uid.into(), OCTAL_7));
        octal(&mut block, 116, 7, fit(entry.gid.into(), OCTAL_7));
        octal(&mut block, 124, 11, self.size);
        octal(&mut block, 136, 11, u64::try_from(entry.mtime.seconds).map_or(0, |seconds| fit(seconds, OCTAL_11)));
        block[156] = self.typeflag;
        put(&mut block, 157, &self.link[..100.min(self.link.len())]);
        put(&mut block, 257, b"ustar\x0000");
        if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = entry.kind {
            octal(&mut block, 329, 7, fit(major.into(), OCTAL_7));
            octal(&mut block, 337, 7, fit(minor.into(), OCTAL_7));
        }
        put(&mut block, 345, prefix);
        put(&mut block, 148, b"        ");
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block, 148, 6, sum);
        block[154] = 0;
        block
    }
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

fn octal(block: &mut [u8; BLOCK], at: usize, digits: usize, number: u64) {
    put(block, at, format!("{number:0digits$o}").as_bytes());
}

/// A number if it fits its field; a pax record has it otherwise.
fn fit(number: u64, most: u64) -> u64 {
    if number <= most { number } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::{Reader, Xattr};
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let long = [&[b'd'; 120][..], b"/", &[b'f'; 130][..]].concat();
        let entries = [
            Entry { path: b"dir/".to_vec(), kind: Kind::Directory, mode: 0o755, ..plain() },
            Entry {
                path: long.clone(),
                size: 5,
                uid: 3_000_000,
                mtime: Mtime { seconds: -2, nanoseconds: 5 },
                ..plain()
            },
            Entry {
                path: b"l".to_vec(),
                kind: Kind::Symlink(long.clone()),
                mtime: Mtime { seconds: 7, nanoseconds: 0 },
                ..plain()
            },
            Entry {
                path: b"x".to_vec(),
                kind: Kind::HardLink(b"l".to_vec()),
                xattrs: vec![Xattr { name: b"user.a".to_vec(), value: b"\0\n=".to_vec() }],
                ..plain()
            },
            Entry { path: b"c".to_vec(), kind: Kind::CharDevice { major: 1, minor: 3 }, ..plain() },
        ];
        let mut writer = Writer::new(Vec::new());
        for entry in &entries {
            writer.append(entry, &b"hello"[..]).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let mut reader = Reader::new(&bytes[..], 1 << 16);
        for entry in &entries {
            let got = reader.next_entry().unwrap().unwrap();
            assert_eq!(Entry { offset: 0, data_offset: 0, ..got }, *entry);
        }
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn data_shorter_than_its_entry_is_an_error() {
        let entry = Entry { path: b"f".to_vec(), size: 6, ..plain() };
        let error = Writer::new(Vec::new()).append(&entry, &b"hello"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
