//! How long a restart is put off, and when to give up.
//!
//! The first restart waits `delay`, each further one twice as long, up to `max_delay`. From the second on up to a tenth
//! is taken off at random, so that services that fell together do not rise together. A run longer than `max_delay` was a
//! healthy one: the next wait is `delay` again. So a service that keeps failing slower than the longest wait is not put
//! off, and one that fails faster is, whatever its rhythm.
#![forbid(unsafe_code)]

use crate::base::units::Millis;
use crate::plan::{Restart, Then};

/// The shortest wait, whatever the config says: a service that fails at once may not keep a core busy.
const FLOOR: Millis = Millis(10);

/// What one service's restarts have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    /// Restarts without a healthy run between them.
    failures: u16,
    /// Restarts since `window`.
    counted: u16,
    /// When the window of `tries` began.
    window: Millis,
}

/// What comes of one end of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start it after this time.
    Wait(Millis),
    /// `tries` are used up and `then` says stop.
    GiveUp,
}

impl Backoff {
    /// A service ended at `now` after its main ran for `ran`: when is it started again? `random` is any number.
    pub fn next(&mut self, policy: &Restart, ran: Millis, now: Millis, random: u32) -> Next {
        if ran > policy.max_delay {
            self.failures = 0;
        }
        if now.since(self.window) > policy.within || self.counted == 0 {
            self.window = now;
            self.counted = 0;
        }
        self.counted = self.counted.saturating_add(1);
        let used_up = policy.tries > 0 && self.counted > policy.tries;
        if used_up && policy.then == Then::Stop {
            return Next::GiveUp;
        }
        let wait = if used_up { policy.max_delay.max(policy.delay).max(FLOOR) } else { self.wait(policy, random) };
        self.failures = self.failures.saturating_add(1);
        Next::Wait(wait)
    }

    /// Someone asked for a start: the past is forgotten.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }

    fn wait(&self, policy: &Restart, random: u32) -> Millis {
        let delay = policy.delay.max(FLOOR);
        let cap = policy.max_delay.max(delay);
        let factor = 1u64.checked_shl(u32::from(self.failures)).unwrap_or(u64::MAX);
        let whole = delay.0.saturating_mul(factor).min(cap.0);
        if self.failures == 0 {
            return Millis(whole);
        }
        Millis(whole - u64::from(random) % (whole / 10 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::RestartPolicy;

    fn waits(policy: &Restart, ran: Millis, count: usize) -> Vec<Next> {
        let mut backoff = Backoff::default();
        let mut now = Millis(5);
        (0..count)
            .map(|_| {
                now = now.plus(ran);
                let next = backoff.next(policy, ran, now, 0);
                if let Next::Wait(wait) = next {
                    now = now.plus(wait);
                }
                next
            })
            .collect()
    }

    #[test]
    fn the_wait_doubles_up_to_the_cap() {
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000];
        assert_eq!(waits(&Restart::default(), Millis(1), 12), expected.map(|ms| Next::Wait(Millis(ms))));
    }

    #[test]
    fn a_run_longer_than_the_cap_resets_the_wait_and_a_shorter_one_does_not() {
        let policy = Restart::default();
        assert_eq!(waits(&policy, Millis(60_001), 3), [Next::Wait(Millis(100)); 3]);
        assert_eq!(waits(&policy, Millis(60_000), 3)[2], Next::Wait(Millis(400)));
        assert_eq!(waits(&policy, Millis(11_000), 3)[2], Next::Wait(Millis(400)));
    }

    #[test]
    fn jitter_takes_off_at_most_a_tenth_and_never_from_the_first() {
        let policy = Restart::default();
        for random in [0, 1, 7, 10, 11, 4_000_000_000, u32::MAX] {
            let mut backoff = Backoff::default();
            assert_eq!(backoff.next(&policy, Millis(0), Millis(0), random), Next::Wait(Millis(100)));
            let Next::Wait(wait) = backoff.next(&policy, Millis(0), Millis(1), random) else { panic!("gave up") };
            assert!((180..=200).contains(&wait.0), "{wait}");
        }
    }

    #[test]
    fn no_delay_at_all_does_not_spin() {
        let policy = Restart { delay: Millis(0), max_delay: Millis(0), ..Restart::default() };
        assert_eq!(waits(&policy, Millis(1), 50), [Next::Wait(FLOOR); 50]);
    }

    #[test]
    fn tries_are_counted_in_their_window() {
        let policy = Restart { tries: 2, within: Millis(1000), then: Then::Stop, ..Restart::default() };
        assert_eq!(waits(&policy, Millis(1), 3)[2], Next::GiveUp);
        assert_eq!(waits(&Restart { within: Millis(250), ..policy }, Millis(1), 4)[3], Next::Wait(Millis(800)));
        let keep = Restart { then: Then::KeepTrying, ..policy };
        assert_eq!(waits(&keep, Millis(1), 3)[2], Next::Wait(Millis::from_secs(60)));
        assert_eq!(waits(&Restart { tries: 0, ..policy }, Millis(0), 200).len(), 200);
    }

    #[test]
    fn absurd_numbers_saturate() {
        let policy = Restart {
            policy: RestartPolicy::Always,
            delay: Millis(u64::MAX),
            max_delay: Millis(0),
            tries: u16::MAX,
            within: Millis(u64::MAX),
            then: Then::KeepTrying,
        };
        let mut backoff = Backoff::default();
        for _ in 0..70_000 {
            assert!(matches!(backoff.next(&policy, Millis(u64::MAX), Millis(u64::MAX), u32::MAX), Next::Wait(_)));
        }
    }
}
