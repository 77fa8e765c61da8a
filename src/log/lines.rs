//! Bytes to lines of bounded length. Pure, without allocation.
#![forbid(unsafe_code)]

use crate::base::limits::LOG_TEXT_BYTES;

/// The unfinished line of one stream.
///
/// A line longer than [`LOG_TEXT_BYTES`] comes out in parts, each but the last marked as going on. A cut does not fall
/// into a UTF-8 character.
pub struct Lines {
    held: [u8; LOG_TEXT_BYTES],
    len: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Lines { held: [0; LOG_TEXT_BYTES], len: 0 }
    }
}

impl Lines {
    /// Takes `bytes` and gives each line that is whole now to `emit`, without its line end, and whether it goes on.
    pub fn feed(&mut self, mut bytes: &[u8], emit: &mut dyn FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let line = &bytes[..end.unwrap_or(bytes.len())];
            let room = LOG_TEXT_BYTES - self.len;
            if line.len() > room {
                self.hold(&line[..room]);
                self.cut(emit);
                bytes = &bytes[room..];
                continue;
            }
            match end {
                Some(end) if self.len == 0 => {
                    emit(line, false);
                    bytes = &bytes[end + 1..];
                }
                Some(end) => {
                    self.hold(line);
                    self.finish(emit);
                    bytes = &bytes[end + 1..];
                }
                None => {
                    self.hold(line);
                    return;
                }
            }
        }
    }

    /// Gives the line that has no end yet, if there is one: nothing more will come.
    pub fn finish(&mut self, emit: &mut dyn FnMut(&[u8], bool)) {
        if self.len > 0 {
            emit(&self.held[..self.len], false);
            self.len = 0;
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.held[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Gives the held bytes as a part, but for the beginning of a character that is not whole.
    fn cut(&mut self, emit: &mut dyn FnMut(&[u8], bool)) {
        let whole = self.len - split_character(&self.held[..self.len]);
        emit(&self.held[..whole], true);
        self.held.copy_within(whole..self.len, 0);
        self.len -= whole;
    }
}

/// How many bytes at the end begin a UTF-8 character that goes on behind them.
fn split_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if length > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut out = Vec::new();
        let mut lines = Lines::default();
        let mut emit = |line: &[u8], partial: bool| out.push((line.to_vec(), partial));
        for chunk in chunks {
            lines.feed(chunk, &mut emit);
        }
        lines.finish(&mut emit);
        out
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let whole = |text: &str| (text.as_bytes().to_vec(), false);
        let expected = vec![whole("one"), whole(""), whole("two\0x"), whole("end")];
        let text = b"one\n\ntwo\0x\nend";
        assert_eq!(split(&[text]), expected);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(split(&bytes), expected);
    }

    #[test]
    fn a_long_line_becomes_marked_parts_that_join_to_the_line() {
        for (unit, count) in [("x", 65_536), ("é", 40_000), ("€", 30_000), ("😀", 20_000)] {
            let long = unit.repeat(count) + "\nshort\n";
            for step in [1, 7, 4096, long.len()] {
                let chunks: Vec<&[u8]> = long.as_bytes().chunks(step).collect();
                let parts = split(&chunks);
                let (last, long_parts) = parts.split_last().unwrap();
                assert_eq!(last.0, b"short");
                assert!(parts.iter().all(|(part, _)| std::str::from_utf8(part).is_ok()));
                assert!(long_parts.iter().rev().skip(1).all(|(_, partial)| *partial));
                let joined: Vec<u8> = long_parts.iter().flat_map(|(part, _)| part.clone()).collect();
                assert_eq!(joined, unit.repeat(count).as_bytes());
            }
        }
    }

    #[test]
    fn a_line_of_exactly_the_bound_is_one_part() {
        let line = vec![b'a'; LOG_TEXT_BYTES];
        let text = [&line[..], b"\n"].concat();
        assert_eq!(split(&[&text]), vec![(line, false)]);
        let junk = vec![0x80u8; LOG_TEXT_BYTES + 1];
        assert_eq!(split(&[&junk]).len(), 2);
    }
}
