//! How far recovery goes for a service that does not recover by restarts alone.
//!
//! ```text
//! tries restarts ──> with its dependants ──> everything but lifelines ──> reboot
//! ```
//!
//! `then` says where a service's way ends. On each rung it has its `tries` anew, so that the way is bounded; on the last
//! one it goes on at its longest wait. Once it has come through a whole `within` without using up its tries, it begins at
//! the bottom again.
#![forbid(unsafe_code)]

use crate::plan::Then;

/// How far a service's recovery has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Rung {
    /// It alone is started again.
    #[default]
    Alone,
    /// So were those that need it.
    Dependants,
    /// So was everything but lifelines.
    Everything,
    /// The board is rebooted, or would have been if it might.
    Reboot,
}

impl Rung {
    /// One word for programs, in the event ring.
    pub const fn code(self) -> &'static str {
        match self {
            Rung::Alone => "alone",
            Rung::Dependants => "dependants",
            Rung::Everything => "everything",
            Rung::Reboot => "reboot",
        }
    }
}

/// What comes of tries that are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Climb {
    /// It goes on at the longest wait.
    Stay,
    /// It is left down.
    GiveUp,
    /// Recovery goes on from this rung.
    To(Rung),
}

/// A service on `rung` has used up its tries; `then` is what its config says.
pub const fn climb(rung: Rung, then: Then) -> Climb {
    match (then, rung) {
        (Then::Stop, _) => Climb::GiveUp,
        (Then::KeepTrying, _) | (Then::Dependants, Rung::Dependants | Rung::Everything | Rung::Reboot) => Climb::Stay,
        (Then::Dependants | Then::Reboot, Rung::Alone) => Climb::To(Rung::Dependants),
        (Then::Reboot, Rung::Dependants) => Climb::To(Rung::Everything),
        (Then::Reboot, Rung::Everything) => Climb::To(Rung::Reboot),
        (Then::Reboot, Rung::Reboot) => Climb::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_ends_after_three_rungs_and_never_leaves_one_out() {
        for then in [Then::KeepTrying, Then::Stop, Then::Dependants, Then::Reboot] {
            let (mut rung, mut way) = (Rung::Alone, vec![]);
            while let Climb::To(next) = climb(rung, then) {
                assert_eq!(next as u8, rung as u8 + 1);
                (rung, way) = (next, [way, vec![next]].concat());
            }
            let expected: &[Rung] = match then {
                Then::KeepTrying | Then::Stop => &[],
                Then::Dependants => &[Rung::Dependants],
                Then::Reboot => &[Rung::Dependants, Rung::Everything, Rung::Reboot],
            };
            assert_eq!(way, expected, "{then:?}");
        }
    }
}
