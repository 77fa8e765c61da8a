//! Room for what a service's state holds for longer than a turn of the loop: sentences and names, set aside from the start.
//!
//! Bookkeeping alone, of slots from the place's beginning; the memory is [`super::heap`]'s, and is touched only as it is used.

/// One slot: a sentence with two paths in it.
pub const SLOT_BYTES: usize = 512;
/// Slots: two for each service that a device may have.
const SLOTS: usize = 256;

/// Which slots are taken.
#[derive(Debug, Default)]
pub struct Reserve {
    /// Whether new blocks are taken from it.
    pub open: bool,
    taken: [u64; SLOTS / 64],
}

impl Reserve {
    /// Its size.
    pub const BYTES: usize = SLOTS * SLOT_BYTES;

    /// An empty one, closed.
    pub const fn new() -> Self {
        Reserve { open: false, taken: [0; SLOTS / 64] }
    }

    /// Room for `bytes` at a multiple of `align`, a power of two; `None` where a slot is too small, none is left, or it is closed.
    pub fn take(&mut self, bytes: usize, align: usize) -> Option<usize> {
        let fits = self.open && bytes <= SLOT_BYTES && align <= SLOT_BYTES;
        let (at, word) = self.taken.iter_mut().enumerate().find(|(_, word)| fits && **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        Some((at * 64 + bit as usize) * SLOT_BYTES)
    }

    /// Takes the block at `at` back.
    pub fn give(&mut self, at: usize) {
        let slot = at / SLOT_BYTES;
        if let Some(word) = self.taken.get_mut(slot / 64) {
            *word &= !(1 << (slot % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_given_once_and_again_when_it_is_free() {
        let mut reserve = Reserve::new();
        assert_eq!(reserve.take(1, 1), None, "it is closed");
        reserve.open = true;
        assert_eq!((reserve.take(SLOT_BYTES + 1, 1), reserve.take(1, 4096)), (None, None), "too large for a slot");
        let all: Vec<usize> = std::iter::from_fn(|| reserve.take(SLOT_BYTES, 8)).collect();
        assert_eq!(all, (0..SLOTS).map(|slot| slot * SLOT_BYTES).collect::<Vec<_>>());
        reserve.give(all[200]);
        reserve.give(all[3]);
        assert_eq!([1, 1, 1].map(|_| reserve.take(1, 1)), [Some(all[3]), Some(all[200]), None]);
    }
}
