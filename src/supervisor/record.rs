//! The exit record: how a service's main ended, written by its init into `services/NAME/exit` before it ends itself, so
//! that whoever supervises then learns it without being the parent. Pure.
#![forbid(unsafe_code)]

use crate::log::entry::{Stamp, crc32};
use crate::sandbox::stage::Failure;

/// Bytes of a record.
pub const RECORD_BYTES: usize = FAILURE_AT + Failure::BYTES + 8;

const FAILURE_AT: usize = 40;

const MAGIC: [u8; 4] = *b"cexi";
const VERSION: u8 = 1;

/// Why there is a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Main ran and ended by itself or by a signal.
    Main,
    /// Everything was killed because the supervisor asked for it.
    Killed,
    /// It never ran: the container could not be made, or main could not be started.
    NotStarted(Failure),
}

/// How main ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitRecord {
    /// The wait status (wait(2)); 0 if it never ran.
    pub status: i32,
    /// What ended it.
    pub ended: Ended,
    /// When.
    pub stamp: Stamp,
    /// Lines lost by the rate limit during this instance.
    pub dropped: u64,
}

impl ExitRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut out = [0u8; RECORD_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = match self.ended {
            Ended::Main => 1,
            Ended::Killed => 2,
            Ended::NotStarted(failure) => {
                out[FAILURE_AT..FAILURE_AT + Failure::BYTES].copy_from_slice(&failure.encode());
                3
            }
        };
        out[8..12].copy_from_slice(&self.status.to_le_bytes());
        out[16..24].copy_from_slice(&self.stamp.wall_ns.to_le_bytes());
        out[24..32].copy_from_slice(&self.stamp.mono_ns.to_le_bytes());
        out[32..40].copy_from_slice(&self.dropped.to_le_bytes());
        let sum = crc32(&out[..RECORD_BYTES - 4]);
        out[RECORD_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads a record; `None` if it is empty, damaged or of an unknown version.
    pub fn decode(bytes: &[u8]) -> Option<ExitRecord> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| {
            let mut eight = [0u8; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        let sum = crc32(&bytes[..RECORD_BYTES - 4]);
        if bytes[..4] != MAGIC || bytes[4] != VERSION || bytes[RECORD_BYTES - 4..] != sum.to_le_bytes() {
            return None;
        }
        let ended = match bytes[5] {
            1 => Ended::Main,
            2 => Ended::Killed,
            3 => {
                let failure = bytes[FAILURE_AT..FAILURE_AT + Failure::BYTES].try_into().ok()?;
                Ended::NotStarted(Failure::decode(failure)?)
            }
            _ => return None,
        };
        Some(ExitRecord {
            status: number(8) as u32 as i32,
            ended,
            stamp: Stamp { wall_ns: number(16), mono_ns: number(24) },
            dropped: number(32),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_damaged_one_does_not() {
        let record = ExitRecord { status: -1, ended: Ended::Main, stamp: Stamp { wall_ns: 5, mono_ns: 6 }, dropped: 7 };
        let bytes = record.encode();
        assert_eq!(ExitRecord::decode(&bytes), Some(record));
        assert_eq!(ExitRecord::decode(&[]), None);
        assert_eq!(ExitRecord::decode(&[0; RECORD_BYTES]), None);
        for at in 0..RECORD_BYTES {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert_eq!(ExitRecord::decode(&bad), None, "byte {at}");
        }
    }
}
