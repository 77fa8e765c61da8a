//! A streaming tar reader: v7, ustar, pax, GNU; one entry at a time, in flat memory.
//!
//! It refuses what two readers could understand differently (a size given twice, data behind a directory, …), because
//! an archive that means one thing to a scanner and another to a device is an attack (CVE-2025-62518, CVE-2026-33055).
//! What it accepts, it lists as GNU tar and Python's `tarfile` do; `tests/tar_differential.rs` checks it.
//!
//! Formats: POSIX.1-2017 pax(1), "pax Interchange Format"; GNU tar manual, "Basic Tar Format" and "Sparse Formats".
#![forbid(unsafe_code)]

mod entry;
mod error;
mod header;
mod pax;
mod sparse;
pub mod write;

pub use entry::{Entry, Kind, Mtime, Xattr};
pub use error::{Problem, TarError, printable};

use crate::base::read::ReadBuffer;
use header::{BLOCK, Block};
use pax::Extended;
use sparse::Map;
use std::io::{self, BufRead, Read};

/// Reads a tar archive from its first byte to its end marker; what follows the marker is left in the source.
pub struct Reader<'a> {
    source: Box<dyn ReadBuffer + 'a>,
    /// Most bytes of pax and GNU extension records, and of a sparse map, that one entry may have.
    pax_cap: u64,
    /// Bytes read from the source so far.
    offset: u64,
    /// Bytes of the current chunk, to be consumed before the next read.
    lent: usize,
    /// Stored bytes of the current entry that were not handed out yet.
    left: u64,
    /// Zero bytes behind the stored data, up to the block boundary.
    padding: u64,
    /// Where the stored bytes belong in the file.
    map: Map,
    /// Where the current entry's header began, and its name: for errors.
    entry: (u64, Vec<u8>),
    ignored: u32,
    begun: bool,
    ended: bool,
}

/// A run of bytes of a file and where in the file it belongs; between runs and after the last one there are holes.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Where the bytes belong, in bytes from the beginning of the file.
    pub offset: u64,
    /// The bytes; never empty.
    pub bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the first byte of an archive; `pax_cap` as [`ImageCaps::pax`](crate::plan::device::ImageCaps::pax).
    pub fn new(source: impl BufRead + 'a, pax_cap: u64) -> Reader<'a> {
        Reader::of(Box::new(source), pax_cap)
    }

    fn of(source: Box<dyn ReadBuffer + 'a>, pax_cap: u64) -> Reader<'a> {
        Reader {
            source,
            pax_cap,
            offset: 0,
            lent: 0,
            left: 0,
            padding: 0,
            map: Map::default(),
            entry: (0, Vec::new()),
            ignored: 0,
            begun: false,
            ended: false,
        }
    }

    /// The next entry, skipping what is left of the one before; `None` at the end of the archive.
    ///
    /// The end is a block of zeros, or the end of the source at a block boundary after at least one entry.
    /// After an error the reader is at no defined place: do not go on.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        self.entry = (self.offset, Vec::new());
        let result = self.advance();
        result.map_err(|problem| self.error(problem))
    }

    /// The next bytes of the current entry; `None` when all were handed out.
    pub fn chunk(&mut self) -> Result<Option<Chunk<'_>>, TarError> {
        self.give_back();
        let Some((offset, run)) = self.map.run() else { return Ok(None) };
        let available = match fill(&mut *self.source) {
            Ok(bytes) => bytes.len(),
            Err(error) => return Err(self.error(Problem::Read(error))),
        };
        if available == 0 {
            return Err(self.error(Problem::Truncated));
        }
        let length = usize::try_from(run).unwrap_or(usize::MAX).min(available);
        self.map.advance(length as u64);
        self.left = self.left.saturating_sub(length as u64);
        self.lent = length;
        match fill(&mut *self.source) {
            Ok(bytes) => Ok(Some(Chunk { offset, bytes: bytes.get(..length).unwrap_or(bytes) })),
            Err(error) => Err(TarError::new(self.entry.0, &self.entry.1, Problem::Read(error))),
        }
    }

    /// The current entry's contents as one stream, holes as zeros.
    pub fn data(&mut self) -> Data<'_, 'a> {
        Data { reader: self, position: 0 }
    }

    /// Bytes of the archive read so far.
    pub fn offset(&self) -> u64 {
        self.offset + self.lent as u64
    }

    /// Entries passed over because they describe no file: GNU volume labels and global pax headers.
    pub fn ignored(&self) -> u32 {
        self.ignored
    }

    /// Leaves the source at the byte behind the last one read.
    pub fn finish(mut self) {
        self.give_back();
    }

    /// `problem` with the place and the name of the current entry.
    fn error(&self, problem: Problem) -> TarError {
        TarError::new(self.entry.0, &self.entry.1, problem)
    }

    fn give_back(&mut self) {
        self.source.used(self.lent);
        self.offset += self.lent as u64;
        self.lent = 0;
    }

    fn advance(&mut self) -> Result<Option<Entry>, Problem> {
        self.give_back();
        self.skip(self.left.saturating_add(self.padding))?;
        (self.left, self.padding, self.map) = (0, 0, Map::default());
        self.entry = (self.offset, Vec::new());
        let mut extended = Extended::default();
        loop {
            let Some(block) = self.block()? else {
                self.ended = true;
                return if extended.is_empty() { Ok(None) } else { Err(Problem::Dangling) };
            };
            self.begun = true;
            let typeflag = block.typeflag();
            match typeflag {
                b'x' | b'X' => extended.pax(&self.extension(&block)?)?,
                b'g' => {
                    pax::check_global(&self.extension(&block)?)?;
                    self.ignored += 1;
                }
                b'L' => extended.long_name(&self.extension(&block)?)?,
                b'K' => extended.long_link(&self.extension(&block)?)?,
                b'V' => {
                    let size = block.label_size()?;
                    self.skip(size.saturating_add(padding(size)))?;
                    self.ignored += 1;
                }
                _ => return self.describe(&block, extended).map(Some),
            }
        }
    }

    /// Puts header and extensions together and sets the reader to the entry's data.
    fn describe(&mut self, block: &Block, mut extended: Extended) -> Result<Entry, Problem> {
        let path = extended.take_path(block)?;
        self.entry.1.clone_from(&path);
        let stored = extended.stored_size(block)?;
        let kind = entry::kind(block, &path, &mut extended)?;
        if kind != Kind::File && stored != 0 {
            return Err(Problem::DataWithoutFile(stored));
        }
        (self.left, self.padding) = (stored, padding(stored));
        let size = self.read_map(block, &extended, kind == Kind::File)?;
        entry::assemble(block, path, kind, size, (self.entry.0, self.offset), extended)
    }

    /// Reads the sparse map, if there is one, wherever this dialect keeps it, and gives the file's size.
    fn read_map(&mut self, block: &Block, extended: &Extended, is_file: bool) -> Result<u64, Problem> {
        let cap = self.pax_cap;
        let size = if block.typeflag() == b'S' {
            if extended.sparse.is_some() {
                return Err(Problem::Twice("sparse map"));
            }
            let (mut regions, size, mut more) = sparse::old_gnu(block)?;
            while more {
                let next = self.raw_block()?.ok_or(Problem::Truncated)?;
                more = sparse::old_gnu_more(&next, &mut regions)?;
                if regions.len() as u64 * sparse::REGION_BYTES > cap {
                    return Err(Problem::ExtensionTooLarge { bytes: regions.len() as u64 * sparse::REGION_BYTES, cap });
                }
            }
            self.map = Map::sparse(regions, size, self.left)?;
            size
        } else if let Some(sparse) = &extended.sparse {
            if !is_file {
                return Err(Problem::SparseNotFile);
            }
            if !block.is_posix() {
                // GNU tar 1.34 silently ends the archive there.
                return Err(Problem::BadSparse("its records precede a header that is not POSIX"));
            }
            let size = sparse.size.ok_or(Problem::BadSparse("its size is missing"))?;
            let regions = if sparse.version_1() { self.map_in_data()? } else { sparse.regions()? };
            self.map = Map::sparse(regions, size, self.left)?;
            size
        } else {
            self.map = Map::whole(self.left);
            self.left
        };
        Ok(size)
    }

    /// The map that GNU sparse format 1.0 keeps in front of the data, in decimal lines, padded to a block.
    fn map_in_data(&mut self) -> Result<Vec<sparse::Region>, Problem> {
        let mut parser = sparse::Lines::default();
        let mut bytes = 0;
        loop {
            if self.left < BLOCK as u64 {
                return Err(Problem::BadSparse("its map is longer than its data"));
            }
            let block = self.raw_block()?.ok_or(Problem::Truncated)?;
            self.left -= BLOCK as u64;
            bytes += BLOCK as u64;
            if bytes > self.pax_cap {
                return Err(Problem::ExtensionTooLarge { bytes, cap: self.pax_cap });
            }
            if parser.feed(&block)? {
                return parser.finish();
            }
        }
    }

    /// The data of an extension header.
    fn extension(&mut self, block: &Block) -> Result<Vec<u8>, Problem> {
        let size = block.size()?;
        if size > self.pax_cap {
            return Err(Problem::ExtensionTooLarge { bytes: size, cap: self.pax_cap });
        }
        let mut data = vec![0; size as usize];
        if self.read_full(&mut data)? != data.len() {
            return Err(Problem::Truncated);
        }
        self.skip(padding(size))?;
        Ok(data)
    }

    /// The next header block, its checksum verified; `None` at the end.
    fn block(&mut self) -> Result<Option<Block>, Problem> {
        match self.raw_block()? {
            Some(bytes) if bytes.iter().all(|byte| *byte == 0) => Ok(None),
            Some(bytes) => Block::new(bytes).map(Some),
            None if self.begun => Ok(None),
            None => Err(Problem::Empty),
        }
    }

    /// The next 512 bytes; `None` if the source ended before the first of them.
    fn raw_block(&mut self) -> Result<Option<[u8; BLOCK]>, Problem> {
        let mut bytes = [0; BLOCK];
        match self.read_full(&mut bytes)? {
            0 => Ok(None),
            BLOCK => Ok(Some(bytes)),
            _ => Err(Problem::Truncated),
        }
    }

    /// Fills `buffer` as far as the source goes.
    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, Problem> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let bytes = fill(&mut *self.source).map_err(Problem::Read)?;
            let length = bytes.len().min(rest.len());
            if length == 0 {
                break;
            }
            rest[..length].copy_from_slice(&bytes[..length]);
            self.source.used(length);
            self.offset += length as u64;
            done += length;
        }
        Ok(done)
    }

    fn skip(&mut self, mut count: u64) -> Result<(), Problem> {
        while count > 0 {
            let available = fill(&mut *self.source).map_err(Problem::Read)?.len();
            if available == 0 {
                return Err(Problem::Truncated);
            }
            let length = usize::try_from(count).unwrap_or(usize::MAX).min(available);
            self.source.used(length);
            self.offset += length as u64;
            count -= length as u64;
        }
        Ok(())
    }
}

/// The bytes that the source has ready; empty only at its end.
fn fill(source: &mut dyn ReadBuffer) -> io::Result<&[u8]> {
    // Two calls, because a borrow that is returned from inside a loop lasts for the whole loop.
    loop {
        match source.ready() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    source.ready()
}

/// Zero bytes between the end of `size` bytes of data and the next block.
fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// One entry's contents as a stream; see [`Reader::data`].
pub struct Data<'r, 'a> {
    reader: &'r mut Reader<'a>,
    position: u64,
}

impl Read for Data<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.give_back();
        let next = self.reader.map.run().map_or(self.reader.map.size(), |(offset, _)| offset);
        if self.position < next {
            let hole = usize::try_from(next - self.position).unwrap_or(usize::MAX).min(buffer.len());
            buffer[..hole].fill(0);
            self.position += hole as u64;
            return Ok(hole);
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let Some(chunk) = self.reader.chunk().map_err(io::Error::other)? else { return Ok(0) };
        let length = chunk.bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&chunk.bytes[..length]);
        self.reader.keep(length);
        self.position += length as u64;
        Ok(length)
    }
}

impl Reader<'_> {
    /// Takes back what lies behind the first `length` bytes of the chunk just handed out.
    fn keep(&mut self, length: usize) {
        let rest = (self.lent - length) as u64;
        self.lent = length;
        self.left += rest;
        self.map.rewind(rest);
    }
}
