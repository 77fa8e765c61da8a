//! The files that a config consists of. Offsets run over all of them as one text, a line end behind each.

/// A file of a config.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// What it holds.
    pub bytes: &'a [u8],
}

/// Where the file with this number begins in the text of all.
pub fn start(sources: &[Source<'_>], number: usize) -> usize {
    sources.iter().take(number).map(|source| source.bytes.len() + 1).sum()
}

/// The number of the file that an offset of the text of all lies in, and the offset within it.
pub fn locate(sources: &[Source<'_>], offset: usize) -> (usize, usize) {
    let mut rest = offset;
    for (number, source) in sources.iter().enumerate() {
        if rest <= source.bytes.len() {
            return (number, rest);
        }
        rest -= source.bytes.len() + 1;
    }
    let last = sources.len().saturating_sub(1);
    (last, sources.last().map_or(0, |source| source.bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_lies_in_one_file() {
        let sources = [("a", "12"), ("b", ""), ("c", "3")].map(|(name, text)| Source { name, bytes: text.as_bytes() });
        let found: Vec<_> = (0..8).map(|offset| locate(&sources, offset)).collect();
        assert_eq!(found, [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 1), (2, 1)]);
        assert_eq!([0, 1, 2].map(|number| start(&sources, number)), [0, 3, 4]);
        assert_eq!(locate(&[], 3), (0, 0));
    }
}
