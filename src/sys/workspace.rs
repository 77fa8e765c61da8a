//! Where the blocks of passing work lie: one behind the other in a bounded place, and all of it free again once none is left.
//!
//! Bookkeeping alone, of offsets from the place's beginning; the memory is [`super::heap`]'s. The place is taken back from
//! its end, and only over blocks that were given back: what is left in it by mistake costs room, never more.

/// Stretches of work that may have left something at a time, each kept apart; those of more share the room of the last.
const STRETCHES: usize = 4;

/// The bookkeeping of a place of so many bytes.
#[derive(Debug, Default)]
pub struct Workspace<const BYTES: usize> {
    /// Whether new blocks are taken from it.
    pub open: bool,
    used: usize,
    /// Each begins where the one before ended; those up to the last count.
    stretches: [Stretch; STRETCHES],
    last: usize,
    most: usize,
    blocks: u64,
}

/// What a stretch of work has taken.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    begin: usize,
    /// Blocks that are not given back.
    live: u32,
}

/// What a workspace was used for so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Its size.
    pub bytes: usize,
    /// The most of it that was in use at a time, bytes.
    pub most: usize,
    /// Blocks that were ever taken from it.
    pub blocks: u64,
    /// Blocks that are not given back.
    pub held: u32,
}

impl<const BYTES: usize> Workspace<BYTES> {
    /// An empty one, closed.
    pub const fn new() -> Self {
        let stretches = [Stretch { begin: 0, live: 0 }; STRETCHES];
        Workspace { open: false, used: 0, stretches, last: 0, most: 0, blocks: 0 }
    }

    fn last(&mut self) -> &mut Stretch {
        &mut self.stretches[self.last % STRETCHES]
    }

    /// Begins a stretch of work, until it is closed.
    pub fn begin(&mut self) {
        self.open = true;
        // Where there is no room for another one, this is part of the last.
        if self.last().live > 0 && self.last + 1 < STRETCHES {
            self.last += 1;
            *self.last() = Stretch { begin: self.used, live: 0 };
        }
    }

    /// Room for `bytes` at a multiple of `align`, a power of two; `None` where there is none, or it is closed.
    pub fn take(&mut self, bytes: usize, align: usize) -> Option<usize> {
        let at = self.used.checked_next_multiple_of(align).filter(|_| self.open)?;
        let end = at.checked_add(bytes).filter(|end| *end <= BYTES)?;
        self.last().live += 1;
        self.reach(end);
        self.blocks += 1;
        Some(at)
    }

    /// Makes the block of `old` bytes at `at` one of `new`, if it can stay where it is.
    pub fn resize(&mut self, at: usize, old: usize, new: usize) -> bool {
        // One of an earlier stretch has the beginning of the next at its end.
        if at + old != self.used || at < self.last().begin {
            return new <= old;
        }
        let end = at.checked_add(new).filter(|end| *end <= BYTES);
        end.map(|end| self.reach(end)).is_some()
    }

    /// Takes the block of `bytes` at `at` back.
    pub fn give(&mut self, at: usize, bytes: usize) {
        if at >= self.last().begin && at + bytes == self.used {
            self.used = at;
        }
        let upto = self.stretches.get_mut(..=self.last).unwrap_or_default();
        if let Some(own) = upto.iter_mut().rev().find(|stretch| stretch.begin <= at) {
            own.live = own.live.saturating_sub(1);
        }
        // Of dead ones at the end only the first stays.
        while self.last().live == 0 {
            self.used = self.last().begin;
            match self.last.checked_sub(1) {
                Some(before) if self.stretches[before % STRETCHES].live == 0 => self.last = before,
                _ => break,
            }
        }
    }

    fn reach(&mut self, end: usize) {
        self.used = end;
        self.most = self.most.max(end);
    }

    /// What it was used for.
    pub fn tally(&self) -> Tally {
        let held = self.stretches.iter().take(self.last + 1).map(|stretch| stretch.live).sum();
        Tally { bytes: BYTES, most: self.most, blocks: self.blocks, held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_free_again_once_the_work_that_took_it_is_done() {
        let mut place = Workspace::<100>::new();
        assert_eq!(place.take(1, 1), None, "it is closed");
        place.begin();
        let kept = place.take(10, 8).unwrap();
        place.open = false;
        for _ in 0..5 {
            place.begin();
            let (first, second) = (place.take(10, 8).unwrap(), place.take(60, 1).unwrap());
            assert_eq!((kept, first, second), (0, 16, 26));
            assert_eq!(place.take(15, 1), None, "it is full");
            // In an order in which the end comes back last.
            place.give(first, 10);
            place.give(second, 60);
            place.open = false;
        }
        place.give(kept, 10);
        assert_eq!(place.tally(), Tally { bytes: 100, most: 86, blocks: 11, held: 0 });
        place.begin();
        assert_eq!(place.take(100, 8), Some(0));
    }

    #[test]
    fn what_a_later_stretch_gives_back_is_no_loss() {
        let mut place = Workspace::<200>::new();
        place.begin();
        let pinned = place.take(10, 1).unwrap();
        place.begin();
        let mut last = place.take(20, 1).unwrap();
        // Each lets what the one before has left go only when it works itself.
        for _ in 0..100 {
            place.begin();
            place.give(last, 20);
            let passing = place.take(100, 1).unwrap();
            last = place.take(20, 1).unwrap();
            place.give(passing, 100);
            place.open = false;
        }
        place.give(last, 20);
        assert_eq!((place.tally().held, place.used), (1, 10));
        place.give(pinned, 10);
        assert_eq!((place.tally().held, place.used), (0, 0));
    }

    #[test]
    fn the_last_block_grows_where_it_is() {
        let mut place = Workspace::<100>::new();
        place.begin();
        let (first, last) = (place.take(10, 1).unwrap(), place.take(10, 1).unwrap());
        assert!(!place.resize(first, 10, 11) && place.resize(first, 10, 9));
        assert!(place.resize(last, 10, 90) && !place.resize(last, 90, 91) && place.resize(last, 90, 5));
        assert_eq!(place.take(1, 1), Some(15));
    }

    #[test]
    fn no_two_blocks_that_live_ever_overlap() {
        for seed in 1..=200u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % below) as usize
            };
            let mut place = Workspace::<600>::new();
            let mut live: Vec<(usize, usize)> = Vec::new();
            for _ in 0..400 {
                match random(8) {
                    0 => place.begin(),
                    1 => place.open = false,
                    2..=4 => live.extend(Some(1 + random(60)).and_then(|bytes| Some((place.take(bytes, 1)?, bytes)))),
                    5 if !live.is_empty() => {
                        let at = random(live.len() as u64);
                        let bytes = 1 + random(60);
                        if place.resize(live[at].0, live[at].1, bytes) {
                            live[at].1 = bytes;
                        }
                    }
                    _ if !live.is_empty() => {
                        let (at, bytes) = live.swap_remove(random(live.len() as u64));
                        place.give(at, bytes);
                    }
                    _ => {}
                }
                let mut sorted = live.clone();
                sorted.sort_unstable();
                let apart = sorted.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0);
                assert!(apart && live.iter().all(|(at, bytes)| at + bytes <= 600), "seed {seed}: {sorted:?}");
                assert_eq!(place.tally().held as usize, live.len(), "seed {seed}");
            }
        }
    }
}
