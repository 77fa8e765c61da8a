//! Sparse files: which stored byte belongs where. GNU's old format and its pax formats 0.0, 0.1 and 1.0.

use super::Problem;
use super::header::{BLOCK, Block, size_field};
use super::pax::decimal;

/// Memory of one region, for the cap on extension records.
pub const REGION_BYTES: u64 = size_of::<Region>() as u64;

/// A run of stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Region {
    /// Where in the file it belongs.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// Where the stored bytes of a file belong, and how far they were read.
#[derive(Debug, Default)]
pub struct Map {
    /// The region being read, and what of it was read.
    region: Region,
    done: u64,
    /// The regions behind it.
    later: std::vec::IntoIter<Region>,
    size: u64,
}

impl Map {
    /// A file without holes.
    pub fn whole(size: u64) -> Map {
        Map { region: Region { offset: 0, length: size }, size, ..Map::default() }
    }

    /// A file of `size` bytes with `stored` bytes in `regions`; checks that all of it holds together.
    pub fn sparse(mut regions: Vec<Region>, size: u64, stored: u64) -> Result<Map, Problem> {
        let (mut end, mut sum) = (0u64, 0u64);
        for region in &regions {
            if region.offset < end {
                return Err(Problem::BadSparse("regions overlap or go backwards"));
            }
            end = region.offset.checked_add(region.length).ok_or(Problem::BadSparse("a region ends beyond 2^64"))?;
            sum = sum.saturating_add(region.length);
        }
        if end > size {
            return Err(Problem::BadSparse("a region lies behind the end of the file"));
        }
        if sum != stored {
            return Err(Problem::BadSparse("its regions and the stored data differ in length"));
        }
        regions.retain(|region| region.length > 0);
        let mut later = regions.into_iter();
        Ok(Map { region: later.next().unwrap_or_default(), done: 0, later, size })
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the next stored byte belongs, and how many follow without a hole.
    pub fn run(&mut self) -> Option<(u64, u64)> {
        if self.done == self.region.length {
            (self.region, self.done) = (self.later.next()?, 0);
        }
        Some((self.region.offset + self.done, self.region.length - self.done)).filter(|(_, length)| *length > 0)
    }

    /// Counts `bytes` of the current run as read.
    pub fn advance(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes).min(self.region.length);
    }

    /// Takes back the last `bytes` of what [`Map::advance`] counted.
    pub fn rewind(&mut self, bytes: u64) {
        self.done = self.done.saturating_sub(bytes);
    }
}

/// The map in a GNU sparse header ('S'): regions, file size, and whether further map blocks follow.
pub fn old_gnu(block: &Block) -> Result<(Vec<Region>, u64, bool), Problem> {
    if !block.is_gnu() {
        return Err(Problem::Type(b'S'));
    }
    let bytes = block.bytes();
    let mut regions = Vec::new();
    let full = take_regions(&bytes[386..482], &mut regions)?;
    let more = bytes[482] != 0;
    if more && !full {
        return Err(Problem::BadSparse("it ends before its last block"));
    }
    Ok((regions, size_field(&bytes[483..495])?, more))
}

/// Takes the regions of a further map block; whether another one follows.
pub fn old_gnu_more(bytes: &[u8; BLOCK], regions: &mut Vec<Region>) -> Result<bool, Problem> {
    let full = take_regions(&bytes[..504], regions)?;
    let more = bytes[504] != 0;
    if more && !full {
        return Err(Problem::BadSparse("it ends before its last block"));
    }
    Ok(more)
}

/// Takes pairs of 12-byte numbers up to an unused pair; whether all were used.
fn take_regions(fields: &[u8], regions: &mut Vec<Region>) -> Result<bool, Problem> {
    let (pairs, _) = fields.as_chunks::<24>();
    for pair in pairs {
        let (offset, length) = pair.split_at(12);
        if length[0] == 0 {
            // Whatever follows, some readers would look at it.
            return if pair.iter().all(|byte| *byte == 0) { Ok(false) } else { Err(Problem::Number("sparse map")) };
        }
        regions.push(Region { offset: size_field(offset)?, length: size_field(length)? });
    }
    Ok(true)
}

/// The map of format 1.0: decimal lines, first the number of regions, then offset and length of each.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    count: Option<u64>,
    numbers: Vec<u64>,
}

impl Lines {
    /// Takes a block; whether the map is complete (the rest of the block is padding).
    pub fn feed(&mut self, block: &[u8; BLOCK]) -> Result<bool, Problem> {
        for byte in block {
            if self.complete() {
                break;
            }
            match byte {
                b'\n' => self.end_of_line()?,
                byte if self.line.len() < 20 => self.line.push(*byte),
                _ => return Err(Problem::BadSparse("a line of its map is no number")),
            }
        }
        Ok(self.complete())
    }

    /// The regions.
    pub fn finish(self) -> Result<Vec<Region>, Problem> {
        let (pairs, _) = self.numbers.as_chunks::<2>();
        Ok(pairs.iter().map(|[offset, length]| Region { offset: *offset, length: *length }).collect())
    }

    fn complete(&self) -> bool {
        self.count.is_some_and(|count| self.numbers.len() as u64 >= count.saturating_mul(2))
    }

    fn end_of_line(&mut self) -> Result<(), Problem> {
        let number = decimal(&self.line).ok_or(Problem::BadSparse("a line of its map is no number"))?;
        match self.count {
            None => self.count = Some(number),
            Some(_) => self.numbers.push(number),
        }
        self.line.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(offset: u64, length: u64) -> Region {
        Region { offset, length }
    }

    #[test]
    fn runs_follow_the_map() {
        let mut map = Map::sparse(vec![region(0, 0), region(10, 5), region(20, 1), region(30, 0)], 30, 6).unwrap();
        assert_eq!(map.run(), Some((10, 5)));
        map.advance(3);
        assert_eq!(map.run(), Some((13, 2)));
        map.advance(2);
        assert_eq!(map.run(), Some((20, 1)));
        map.advance(1);
        assert_eq!(map.run(), None);
        assert_eq!(Map::whole(0).run(), None);
        assert_eq!(Map::sparse(Vec::new(), 100, 0).unwrap().run(), None);
    }

    #[test]
    fn a_map_that_lies_is_refused() {
        for (regions, size, stored) in [
            (vec![region(10, 5), region(12, 5)], 100, 10),
            (vec![region(10, 5), region(0, 5)], 100, 10),
            (vec![region(90, 20)], 100, 20),
            (vec![region(0, 5)], 100, 6),
            (vec![region(u64::MAX, 2)], u64::MAX, 2),
            (vec![], 100, 1),
        ] {
            assert!(matches!(Map::sparse(regions, size, stored), Err(Problem::BadSparse(_))));
        }
    }

    #[test]
    fn the_map_in_front_of_the_data_is_read_across_blocks() {
        let text = format!("200\n{}", "123456\n1\n".repeat(200));
        let mut bytes = text.clone().into_bytes();
        bytes.resize(text.len().next_multiple_of(BLOCK), 0);
        let mut lines = Lines::default();
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        let answers: Vec<bool> = blocks.iter().map(|block| lines.feed(block).unwrap()).collect();
        assert_eq!(answers, [false, false, false, true]);
        assert_eq!(lines.finish().unwrap().len(), 200);
        assert!(Lines::default().feed(&[b'1'; BLOCK]).is_err());
    }
}
