//! Times of directories, which must wait until nothing is made in them any more.

use crate::image::tar::Mtime;

/// Memory for waiting times: some 60,000 directories.
const CAPACITY: usize = 4 << 20;

/// Paths and times in one buffer: length (u16), path, seconds (i64), nanoseconds (u32).
#[derive(Default)]
pub struct Times {
    buffer: Vec<u8>,
}

impl Times {
    /// Keeps the time of the directory at `path`; whether there was room.
    pub fn push(&mut self, path: &[u8], mtime: Mtime) -> bool {
        let Ok(length) = u16::try_from(path.len()) else { return false };
        if self.buffer.len() + path.len() + 14 > CAPACITY {
            return false;
        }
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(path);
        self.buffer.extend_from_slice(&mtime.seconds.to_ne_bytes());
        self.buffer.extend_from_slice(&mtime.nanoseconds.to_ne_bytes());
        true
    }

    /// What was kept, in its order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Mtime)> {
        let mut rest = &self.buffer[..];
        core::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (path, tail) = tail.split_at_checked(u16::from_ne_bytes(*length).into())?;
            let (seconds, tail) = tail.split_first_chunk::<8>()?;
            let (nanoseconds, tail) = tail.split_first_chunk::<4>()?;
            rest = tail;
            let seconds = i64::from_ne_bytes(*seconds);
            Some((path, Mtime { seconds, nanoseconds: u32::from_ne_bytes(*nanoseconds) }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_in_order_and_a_full_buffer_says_so() {
        let mut times = Times::default();
        let mtime = Mtime { seconds: -5, nanoseconds: 7 };
        assert!(times.push(b"a/b", mtime) && times.push(b"", Mtime::default()));
        let all: Vec<_> = times.iter().collect();
        assert_eq!(all, [(&b"a/b"[..], mtime), (&b""[..], Mtime::default())]);
        let long = [b'x'; 60_000];
        let taken = (0..100).filter(|_| times.push(&long, mtime)).count();
        assert_eq!(taken, CAPACITY / (60_000 + 14));
        assert_eq!(times.iter().count(), 2 + taken);
    }
}
