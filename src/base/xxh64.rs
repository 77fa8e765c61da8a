//! XXH64, a fast checksum (xxHash specification 0.1.1): finds damage, proves nothing against an attacker.

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

/// A checksum under way, with seed 0.
#[derive(Debug, Clone)]
pub struct Xxh64 {
    lanes: [u64; 4],
    held: [u8; 32],
    held_length: usize,
    total: u64,
}

impl Default for Xxh64 {
    fn default() -> Self {
        Xxh64 { lanes: [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)], held: [0; 32], held_length: 0, total: 0 }
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

impl Xxh64 {
    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.total = self.total.wrapping_add(bytes.len() as u64);
        if self.held_length > 0 {
            let take = bytes.len().min(32 - self.held_length);
            let (now, later) = bytes.split_at(take);
            self.held[self.held_length..self.held_length + take].copy_from_slice(now);
            self.held_length += take;
            bytes = later;
            if self.held_length < 32 {
                return;
            }
            let stripe = self.held;
            self.stripe(&stripe);
            self.held_length = 0;
        }
        let (stripes, rest) = bytes.as_chunks::<32>();
        for stripe in stripes {
            self.stripe(stripe);
        }
        self.held[..rest.len()].copy_from_slice(rest);
        self.held_length = rest.len();
    }

    fn stripe(&mut self, stripe: &[u8; 32]) {
        let (words, _) = stripe.as_chunks::<8>();
        for (lane, bytes) in self.lanes.iter_mut().zip(words) {
            *lane = round(*lane, u64::from_le_bytes(*bytes));
        }
    }

    /// The checksum of all bytes added.
    pub fn finish(&self) -> u64 {
        let [a, b, c, d] = self.lanes;
        let mut sum = if self.total >= 32 {
            let mixed = a.rotate_left(1).wrapping_add(b.rotate_left(7)).wrapping_add(c.rotate_left(12));
            self.lanes.iter().fold(mixed.wrapping_add(d.rotate_left(18)), |sum, lane| {
                (sum ^ round(0, *lane)).wrapping_mul(P1).wrapping_add(P4)
            })
        } else {
            P5
        };
        sum = sum.wrapping_add(self.total);
        let (eights, rest) = self.held[..self.held_length].as_chunks::<8>();
        for bytes in eights {
            sum = (sum ^ round(0, u64::from_le_bytes(*bytes))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        }
        let (fours, ones) = rest.as_chunks::<4>();
        for bytes in fours {
            sum = (sum ^ word(bytes).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        }
        for byte in ones {
            sum = (sum ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
        }
        sum = (sum ^ sum >> 33).wrapping_mul(P2);
        sum = (sum ^ sum >> 29).wrapping_mul(P3);
        sum ^ sum >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        let mut sum = Xxh64::default();
        sum.update(bytes);
        sum.finish()
    }

    #[test]
    fn the_published_values_come_out() {
        assert_eq!(of(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(of(b"a"), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(of(b"abc"), 0x44BC_2CF5_AD77_0999);
        assert_eq!(of(b"Nobody inspects the spammish repetition"), 0xFBCE_A83C_8A37_8BF1);
    }

    #[test]
    fn the_way_bytes_are_cut_does_not_matter() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| (n * 7) as u8).collect();
        for cut in [1, 3, 8, 31, 32, 33, 64, 999] {
            let mut sum = Xxh64::default();
            bytes.chunks(cut).for_each(|part| sum.update(part));
            assert_eq!(sum.finish(), of(&bytes), "{cut}");
        }
    }
}
