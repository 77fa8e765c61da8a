//! How a service's health stands, check by check, as its probes have told. Pure.
#![forbid(unsafe_code)]

use super::fault::Fault;
use crate::base::units::Millis;
use crate::plan::{Health as Check, Role, Times};

/// From main's start to the first probe of what becomes ready by one, and from one failure to the next: twice as long each
/// time, up to the interval.
const FIRST: Millis = Millis(100);
/// How many times its timeout a probe may take at most after others that took too long.
const PATIENCE: u8 = 2;

/// Bits that a check's standing takes in [`Checks::number`], and the one that says that it has succeeded.
const BITS: u32 = 16;
const PROVEN: u64 = 1 << 8;

/// What is known of one instance's health: a place for the check of each role. At most one is asked at a time, and the
/// others wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks([Health; Role::ALL.len()]);

impl Checks {
    /// The check of this role.
    pub fn of(&self, role: Role) -> &Health {
        let Checks([startup, live, ready]) = self;
        match role {
            Role::Startup => startup,
            Role::Live => live,
            Role::Ready => ready,
        }
    }

    /// The same, to change it.
    pub fn of_mut(&mut self, role: Role) -> &mut Health {
        let Checks([startup, live, ready]) = self;
        match role {
            Role::Startup => startup,
            Role::Live => live,
            Role::Ready => ready,
        }
    }

    /// All of them.
    pub fn all_mut(&mut self) -> &mut [Health] {
        &mut self.0
    }

    /// Which of them a probe is on its way for.
    pub fn asked(&self) -> Option<Role> {
        Role::ALL.into_iter().find(|role| self.of(*role).asking)
    }

    /// When something is due for any, and for which: not the beginning of a probe while another one is on its way.
    pub fn next(&self) -> Option<(Millis, Role)> {
        let (free, mut next) = (self.asked().is_none(), None);
        for role in Role::ALL {
            let health = self.of(role);
            if let Some(due) = health.due.filter(|_| free || health.asking || health.listens)
                && next.is_none_or(|(at, _)| due < at)
            {
                next = Some((due, role));
            }
        }
        next
    }

    /// How the service stands, in a word that Docker's users know. It is healthy once its last role's check has succeeded.
    pub fn word(&self, checks: &[Check]) -> &'static str {
        match checks.iter().map(|check| check.role).max() {
            _ if checks.iter().any(|check| self.of(check.role).is_bad()) => "unhealthy",
            Some(last) => self.of(last).word(),
            None => "",
        }
    }

    /// The check of `checks` that says most about why the service is not well: one that has failed too often, else one that
    /// has failed.
    pub fn worst<'a>(&self, checks: &'a [Check]) -> Option<(&'a Check, &Health)> {
        let with = |check: &'a Check| (check, self.of(check.role));
        let bad = checks.iter().map(with).find(|(_, health)| health.is_bad());
        bad.or_else(|| checks.iter().map(with).find(|(_, health)| health.fault.is_some()))
    }

    /// What the next supervisor has to know of them.
    pub fn number(&self) -> u64 {
        let one = |health: &Health| u64::from(health.failures) | if health.proven { PROVEN } else { 0 };
        self.0.iter().fold(0, |number, health| number << BITS | one(health))
    }

    /// Reads [`Checks::number`].
    pub fn of_number(mut number: u64) -> Checks {
        let mut checks = Checks::default();
        for health in checks.0.iter_mut().rev() {
            (health.failures, health.proven) = (number as u8, number & PROVEN != 0);
            number >>= BITS;
        }
        checks
    }
}

impl Default for Checks {
    fn default() -> Checks {
        Checks([Health::default(); Role::ALL.len()])
    }
}

/// What is known of one check of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// How often and how patiently it is asked.
    pub times: Times,
    /// When the next probe begins, or when the one on its way has to have been answered; `None`: it is not asked.
    pub due: Option<Millis>,
    /// Whether a probe is on its way.
    pub asking: bool,
    /// Whether it is never asked, because it has to ping by itself.
    pub listens: bool,
    /// Whether the one on its way has had its time twice, because the supervisor looked too late.
    pub late: bool,
    /// Whether its first success makes the service ready.
    pub readies: bool,
    /// Whether the service's start waits for its first success; failures do not count before.
    pub starts: bool,
    /// From when on failures count.
    pub counts_from: Millis,
    /// Whether a probe has succeeded.
    pub proven: bool,
    /// Failures in a row, as far as they count.
    pub failures: u8,
    /// Failures in a row, all of them.
    pub misses: u8,
    /// Probes in a row that took too long.
    pub timeouts: u8,
    /// What the last probe met; `None`: it succeeded, or there was none.
    pub fault: Option<Fault>,
}

impl Health {
    /// Whether it has failed too often.
    pub fn is_bad(&self) -> bool {
        self.failures >= self.times.retries().max(1)
    }

    /// How it stands, in a word that Docker's users know.
    pub fn word(&self) -> &'static str {
        match self {
            health if health.is_bad() => "unhealthy",
            Health { proven: true, .. } => "healthy",
            _ => "starting",
        }
    }

    /// It is asked from now on. `place` keeps checks that start together from being asked together.
    pub fn begin(&mut self, place: u16, now: Millis) {
        self.due = Some(now.plus(match () {
            () if self.listens => self.silence(),
            () if self.starts && !self.proven => FIRST.min(self.times.interval()),
            () => self.phase(place),
        }));
    }

    /// It is left alone until it is asked again. `true`: a probe is on its way.
    pub fn rest(&mut self) -> bool {
        self.due = None;
        core::mem::take(&mut self.asking)
    }

    /// It is left alone until `until`. `true`: a probe is on its way.
    pub fn put_off(&mut self, until: Millis) -> bool {
        self.due = Some(until.plus(self.times.interval()));
        core::mem::take(&mut self.asking)
    }

    /// A probe begins.
    pub fn ask(&mut self, now: Millis) {
        (self.asking, self.late) = (true, false);
        self.due = Some(now.plus(self.patience()));
    }

    /// The probe on its way gets its time once more; `false`: it has had it.
    pub fn extend(&mut self, now: Millis) -> bool {
        let more = if self.asking { self.patience() } else { self.silence() };
        self.due = Some(now.plus(more));
        !core::mem::replace(&mut self.late, true)
    }

    /// The last probe succeeded.
    pub fn good(&mut self, now: Millis) {
        let wait = if self.listens { self.silence() } else { self.times.interval() };
        (self.asking, self.late, self.proven, self.fault) = (false, false, true, None);
        (self.failures, self.misses, self.timeouts) = (0, 0, 0);
        self.due = Some(now.plus(wait));
    }

    /// The last probe failed; `true`: that counts.
    pub fn bad(&mut self, fault: Fault, now: Millis) -> bool {
        let timeouts = if fault == Fault::TimedOut { self.timeouts.saturating_add(1) } else { 0 };
        (self.asking, self.late, self.fault, self.timeouts) = (false, false, Some(fault), timeouts);
        self.misses = self.misses.saturating_add(1);
        let counts = self.proven || !self.starts && now >= self.counts_from;
        if counts {
            self.failures = self.failures.saturating_add(1);
        }
        let interval = self.times.interval();
        let quick = Millis(FIRST.0.checked_shl(self.misses.into()).unwrap_or(u64::MAX));
        self.due = Some(now.plus(if self.starts && !self.proven { quick.min(interval) } else { interval }));
        counts
    }

    /// The time that a probe has: twice as long after one that took too long, since what is slow is not dead.
    fn patience(&self) -> Millis {
        Millis(self.times.timeout().0.saturating_mul(1 << self.timeouts.min(PATIENCE)))
    }

    /// The time that may pass between two words.
    fn silence(&self) -> Millis {
        self.times.interval().plus(self.times.timeout())
    }

    /// A point in the second half of the interval. Multiples of the golden ratio lie apart, however many there are.
    fn phase(&self, place: u16) -> Millis {
        let half = self.times.interval().0 / 2;
        let part = u64::from(place.wrapping_mul(40_503));
        Millis(self.times.interval().0 - half.saturating_mul(part) / 65_536)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_start_together_are_not_asked_together() {
        let mut times: Vec<u64> = (0..128)
            .map(|place| {
                let mut health = Health::default();
                health.begin(place, Millis(0));
                health.due.unwrap().0
            })
            .collect();
        times.sort_unstable();
        assert!(times[0] >= 5000 && times[127] <= 10_000, "{times:?}");
        assert!(times.windows(2).all(|two| (10..=100).contains(&(two[1] - two[0]))), "{times:?}");
    }

    #[test]
    fn what_becomes_ready_by_a_probe_is_asked_soon_and_then_less_often() {
        let mut health = Health { starts: true, ..Health::default() };
        health.begin(77, Millis(0));
        let mut waits = vec![health.due.unwrap().0];
        for _ in 0..80 {
            let now = health.due.unwrap();
            health.ask(now);
            assert!(!health.bad(Fault::Errno(111), now), "counted before it is ready");
            waits.push(health.due.unwrap().since(now).0);
        }
        assert_eq!(waits[..8], [100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
        assert_eq!(waits[80], 10_000);
        assert!(!health.is_bad());
    }

    #[test]
    fn what_is_slow_gets_more_time_and_what_refuses_does_not() {
        let mut health = Health { proven: true, ..Health::default() };
        let mut time = |fault: Option<Fault>| {
            health.ask(Millis(0));
            let given = health.due.unwrap().0;
            match fault {
                Some(fault) => drop(health.bad(fault, Millis(0))),
                None => health.good(Millis(0)),
            }
            given
        };
        let slow = Some(Fault::TimedOut);
        assert_eq!([slow, slow, slow, slow, slow].map(&mut time), [5000, 10_000, 20_000, 20_000, 20_000]);
        let refused = Some(Fault::Errno(111));
        assert_eq!([refused, refused, slow, None, slow].map(&mut time), [20_000, 5000, 5000, 10_000, 5000]);
    }

    #[test]
    fn one_check_is_asked_at_a_time_and_one_that_pings_needs_no_turn() {
        let mut checks = Checks::default();
        assert_eq!(checks.next(), None);
        checks.of_mut(Role::Live).due = Some(Millis(20));
        checks.of_mut(Role::Ready).due = Some(Millis(10));
        assert_eq!(checks.next(), Some((Millis(10), Role::Ready)));
        checks.of_mut(Role::Ready).ask(Millis(10));
        assert_eq!((checks.asked(), checks.next()), (Some(Role::Ready), Some((Millis(5010), Role::Ready))));
        checks.of_mut(Role::Live).listens = true;
        assert_eq!(checks.next(), Some((Millis(20), Role::Live)));
    }

    #[test]
    fn the_next_supervisor_reads_what_each_check_had_come_to() {
        let mut checks = Checks::default();
        (checks.of_mut(Role::Startup).proven, checks.of_mut(Role::Ready).failures) = (true, 255);
        (checks.of_mut(Role::Live).proven, checks.of_mut(Role::Live).failures) = (true, 2);
        assert_eq!(Checks::of_number(checks.number()), checks);
        assert_eq!((Checks::of_number(0), Checks::default().number()), (Checks::default(), 0));
    }

    #[test]
    fn absurd_times_saturate() {
        let huge = Some(Millis(u64::MAX));
        let times = Times { interval: huge, timeout: huge, start_period: huge, retries: Some(0) };
        let mut health = Health { times, ..Health::default() };
        health.begin(u16::MAX, Millis(u64::MAX));
        health.ask(Millis(u64::MAX));
        assert!(health.bad(Fault::TimedOut, Millis(1)) && health.is_bad());
    }
}
