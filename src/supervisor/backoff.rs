//! How long a restart is put off, and when to give up.
//!
//! The first restart waits `delay`, each further one twice as long, up to `max_delay`; after a `delay` of 0 the second one
//! waits 10 ms. From the second on up to a tenth is taken off at random, so that services that fell together do not rise
//! together. A run longer than `max_delay` was a
//! healthy one: the next wait is `delay` again. So a service that keeps failing slower than the longest wait is not put
//! off, and one that fails faster is, whatever its rhythm.
#![forbid(unsafe_code)]

use super::escalation::{Climb, Rung, climb};
use crate::base::units::Millis;
use crate::plan::{Restart, Then};

/// The shortest wait but for the first one, whatever the config says: a service that fails at once may not keep a core
/// busy, nor one that cannot be started the supervisor.
const FLOOR: Millis = Millis(10);

/// How long a run has to last to end a crash loop: longer than the longest wait, and than what many need to fail.
pub fn proof(policy: &Restart) -> Millis {
    policy.max_delay.max(Millis::from_secs(10))
}

/// What one service's restarts have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    /// Restarts without a healthy run between them.
    failures: u16,
    /// Restarts since `window`.
    counted: u16,
    /// When the window of `tries` began.
    window: Millis,
    /// Whether the tries of this window are used up.
    spent: bool,
    /// Whether it fails again and again.
    looping: bool,
    /// How far its recovery has gone.
    rung: Rung,
    /// Whether all that may be done for its recovery has been.
    exhausted: bool,
    /// Since when it has not been well.
    since: Option<Millis>,
    /// Whether an incident has begun.
    incident: bool,
}

/// What comes of one end of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start it after this time.
    Wait(Millis),
    /// `tries` are used up and `then` says stop.
    GiveUp,
    /// `tries` are used up: recovery goes on from this rung, and it is started after this time.
    Climb(Rung, Millis),
}

impl Backoff {
    /// A service ended at `now` after its main ran for `ran`: when is it started again? `random` is any number.
    pub fn next(&mut self, policy: &Restart, ran: Millis, now: Millis, random: u32) -> Next {
        if ran > policy.max_delay {
            self.failures = 0;
        }
        let healthy = ran > proof(policy);
        if healthy {
            (self.exhausted, self.since) = (false, Some(now));
        }
        let over = now.since(self.window) > policy.within;
        if over && healthy && !self.spent {
            self.rung = Rung::Alone;
        }
        if over || self.counted == 0 {
            self.begin_window(now);
        }
        self.counted = self.counted.saturating_add(1);
        let used_up = policy.tries > 0 && self.counted > policy.tries;
        let cap = policy.max_delay.max(policy.delay).max(FLOOR);
        if !used_up {
            let wait = self.wait(policy, random);
            // Without tries that could be used up the longest wait tells.
            let at_the_longest = policy.tries == 0 && self.failures > 0 && self.at_cap(policy);
            self.looping = !healthy && (self.looping || at_the_longest);
            self.exhausted |= at_the_longest;
            self.failures = self.failures.saturating_add(1);
            return Next::Wait(wait);
        }
        (self.spent, self.looping) = (true, true);
        let climb = climb(self.rung, policy.then);
        self.exhausted |= matches!(climb, Climb::Stay | Climb::GiveUp | Climb::To(Rung::Reboot));
        match climb {
            Climb::GiveUp => Next::GiveUp,
            Climb::Stay => {
                self.failures = self.failures.saturating_add(1);
                Next::Wait(cap)
            }
            Climb::To(Rung::Reboot) => {
                self.rung = Rung::Reboot;
                Next::Climb(Rung::Reboot, cap)
            }
            Climb::To(rung) => {
                (self.rung, self.failures) = (rung, 1);
                self.begin_window(now);
                Next::Climb(rung, policy.delay.max(FLOOR))
            }
        }
    }

    fn begin_window(&mut self, now: Millis) {
        (self.window, self.counted, self.spent) = (now, 0, false);
    }

    /// Whether it fails again and again: its tries are used up, or its waits are the longest, and it has not run well since.
    pub fn is_looping(&self) -> bool {
        self.looping
    }

    /// Whether what has just ended after `ran` was well until then, so that its restart is the first for a while.
    pub fn is_first(&self, policy: &Restart, ran: Millis) -> bool {
        ran > proof(policy) || self.counted == 0 && self.failures == 0
    }

    /// It asks for its waits to begin anew, and gets that but for the first one, which may be none. Tries count on: what fails
    /// again and again may say what it likes.
    pub fn forgive(&mut self) {
        self.failures = self.failures.min(1);
    }

    /// Whether an incident begins with an end after `ran`: the first one, or the first since a run that has lasted.
    pub fn incident(&mut self, policy: &Restart, ran: Millis) -> bool {
        !core::mem::replace(&mut self.incident, true) || ran > proof(policy)
    }

    /// It was up and is no more: what comes now is a recovery of its own, if it was well until `now`.
    pub fn was_up(&mut self, policy: &Restart, ran: Millis, now: Millis) {
        if self.is_first(policy, ran) {
            (self.exhausted, self.since) = (false, Some(now));
        }
    }

    /// Someone wants it up, or no longer holds their hand over it: its recovery has its whole time again.
    pub fn let_go(&mut self, now: Millis) {
        self.since = self.since.map(|_| now);
    }

    /// It begins a start: from now on it is expected to become well.
    pub fn begin(&mut self, now: Millis) {
        self.since.get_or_insert(now);
    }

    /// Whether all that may be done for it has been, or it has taken longer than that may take.
    pub fn is_exhausted(&self, policy: &Restart, now: Millis) -> bool {
        let rungs = match policy.then {
            Then::KeepTrying | Then::Stop => 1,
            Then::Dependants => 2,
            Then::Reboot => 3,
        };
        let longest = Millis(policy.within.0.saturating_mul(rungs));
        self.exhausted || self.since.is_some_and(|since| now.since(since) > longest)
    }

    /// How far its recovery has gone.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// What it comes to as numbers, for who goes on with it.
    pub fn numbers(&self) -> [u64; 5] {
        let standing = [self.spent, self.looping, self.exhausted, self.incident];
        let standing = standing.iter().rev().fold(self.rung as u64, |word, flag| word << 1 | u64::from(*flag));
        let since = self.since.map_or(0, |since| since.0.saturating_add(1));
        [self.failures.into(), self.counted.into(), self.window.0, standing, since]
    }

    /// What [`Backoff::numbers`] gave.
    pub fn of_numbers([failures, counted, window, standing, since]: [u64; 5]) -> Backoff {
        let count = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
        Backoff {
            failures: count(failures),
            counted: count(counted),
            window: Millis(window),
            spent: standing & 1 != 0,
            looping: standing & 2 != 0,
            exhausted: standing & 4 != 0,
            incident: standing & 8 != 0,
            since: since.checked_sub(1).map(Millis),
            rung: match standing >> 4 {
                0 => Rung::Alone,
                1 => Rung::Dependants,
                2 => Rung::Everything,
                _ => Rung::Reboot,
            },
        }
    }

    /// Someone asked for a start: the past is forgotten.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }

    fn wait(&self, policy: &Restart, random: u32) -> Millis {
        let cap = policy.max_delay.max(policy.delay).max(FLOOR);
        let whole = self.doubled(policy.delay).min(cap.0);
        if self.failures == 0 {
            return Millis(whole);
        }
        Millis(whole - u64::from(random) % (whole / 10 + 1)).max(FLOOR)
    }

    fn at_cap(&self, policy: &Restart) -> bool {
        self.doubled(policy.delay) >= policy.max_delay.0
    }

    /// The next wait, if there were no longest one.
    fn doubled(&self, delay: Millis) -> u64 {
        let first = if self.failures == 0 { delay.0 } else { delay.0.max(FLOOR.0 / 2) };
        first.saturating_mul(1u64.checked_shl(u32::from(self.failures)).unwrap_or(u64::MAX))
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
    fn who_asks_for_it_waits_as_at_the_beginning_and_uses_up_its_tries_as_before() {
        let policy = Restart { tries: 3, ..Restart::default() };
        let mut backoff = Backoff::default();
        let asks = |backoff: &mut Backoff| {
            backoff.forgive();
            backoff.next(&policy, Millis(1), Millis(5), 0)
        };
        for wait in [100, 200, 200].map(Millis) {
            assert_eq!(asks(&mut backoff), Next::Wait(wait));
        }
        assert_eq!(asks(&mut backoff), Next::Wait(policy.max_delay));
        assert!(backoff.is_looping());
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
    fn without_a_delay_the_first_restart_is_at_once_and_what_follows_does_not_spin() {
        let none = Restart { delay: Millis(0), ..Restart::default() };
        let expected = [0, 10, 20, 40, 80, 160].map(|ms| Next::Wait(Millis(ms)));
        assert_eq!(waits(&none, Millis(1), 6), expected);
        assert_eq!(waits(&none, Millis(60_001), 3), [Next::Wait(Millis(0)); 3]);
        for max_delay in [Millis(0), FLOOR] {
            let short = waits(&Restart { max_delay, ..none }, Millis(0), 50);
            assert_eq!(short[0], Next::Wait(Millis(0)));
            assert_eq!(short[1..], [Next::Wait(FLOOR); 49]);
        }
    }

    #[test]
    fn a_restart_is_a_first_one_at_first_and_after_a_run_that_has_lasted() {
        // Runs that are longer than the longest wait do not make it one.
        let policy = Restart { delay: Millis(0), max_delay: FLOOR, ..Restart::default() };
        let mut backoff = Backoff::default();
        let mut now = Millis(0);
        let first = [1, 11, 11, 9000, 10_001, 11].map(|ran| {
            now = now.plus(Millis(ran));
            let first = backoff.is_first(&policy, Millis(ran));
            backoff.next(&policy, Millis(ran), now, 0);
            first
        });
        assert_eq!(first, [true, false, false, false, true, false]);
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
    fn a_way_up_takes_its_tries_on_each_rung_and_stays_on_the_last_one() {
        let policy = Restart { tries: 2, then: Then::Reboot, ..Restart::default() };
        let taken = waits(&policy, Millis(1), 12);
        let climbs: Vec<(usize, Next)> =
            taken.iter().copied().enumerate().filter(|(_, next)| matches!(next, Next::Climb(..))).collect();
        let delay = Millis(100);
        assert_eq!(
            climbs,
            [
                (2, Next::Climb(Rung::Dependants, delay)),
                (5, Next::Climb(Rung::Everything, delay)),
                (8, Next::Climb(Rung::Reboot, Millis::from_secs(60)))
            ]
        );
        assert_eq!(taken[9..], [Next::Wait(Millis::from_secs(60)); 3]);
    }

    #[test]
    fn the_way_begins_at_the_bottom_again_after_a_window_that_went_well() {
        let policy = Restart { tries: 1, within: Millis::from_secs(600), then: Then::Reboot, ..Restart::default() };
        let mut backoff = Backoff::default();
        let mut end = |at: u64, ran: u64| backoff.next(&policy, Millis(ran), Millis(at), 0);
        assert_eq!(end(0, 1), Next::Wait(Millis(100)));
        assert!(matches!(end(1000, 1), Next::Climb(Rung::Dependants, _)));
        // Short runs at long intervals are no recovery.
        assert_eq!(end(700_000, 1), Next::Wait(Millis(200)));
        assert!(matches!(end(800_000, 1), Next::Climb(Rung::Everything, _)));
        assert_eq!(end(9_000_000, 8_000_000), Next::Wait(Millis(100)));
        assert!(matches!(end(9_000_001, 1), Next::Climb(Rung::Dependants, _)), "it was well in between");
    }

    #[test]
    fn a_crash_loop_is_one_until_a_healthy_run() {
        let cap = Restart::default();
        let tries = Restart { tries: 2, ..cap };
        for (policy, first) in [(cap, 11), (tries, 3)] {
            let mut backoff = Backoff::default();
            let looping: Vec<bool> = (0..20)
                .map(|n| {
                    backoff.next(&policy, Millis(1), Millis(n), 0);
                    backoff.is_looping()
                })
                .collect();
            assert_eq!(looping.iter().position(|looping| *looping), Some(first - 1), "{policy:?}");
            assert!(looping[first..].iter().all(|looping| *looping));
            backoff.next(&policy, Millis(60_001), Millis(700_000), 0);
            assert!(!backoff.is_looping());
        }
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
