//! The rate limit of a service's log. Pure: the time comes in as an argument.
#![forbid(unsafe_code)]

const SECOND: u64 = 1_000_000_000;
/// Seconds' worth of lines that may come at once.
const BURST: u64 = 5;

/// A token bucket of lines: `rate` a second and a burst of five seconds' worth.
///
/// Once empty, everything is dropped until a second's worth has gathered again, so a flood is kept as one stretch of
/// lines and one count a second, not as single lines between counts.
#[derive(Debug, Clone)]
pub struct Rate {
    rate: u64,
    /// Nanoseconds' worth of tokens: `rate` lines cost one second.
    credit: u64,
    last_ns: u64,
    dropped: u64,
}

impl Rate {
    /// A full bucket for `rate` lines a second at `now_ns` (monotonic); 0: no limit.
    pub fn new(rate: u32, now_ns: u64) -> Rate {
        Rate { rate: u64::from(rate), credit: BURST * SECOND, last_ns: now_ns, dropped: 0 }
    }

    /// Whether a line that came at `now_ns` is kept. What is not kept is counted.
    ///
    /// While lines have been dropped, ask [`Rate::report`] first: it ends the dropping once there is credit.
    pub fn admit(&mut self, now_ns: u64) -> bool {
        if self.rate == 0 {
            return true;
        }
        self.refill(now_ns);
        let cost = SECOND / self.rate;
        if self.dropped > 0 || self.credit < cost {
            self.dropped += 1;
            return false;
        }
        self.credit -= cost;
        true
    }

    /// The number of lines dropped, once a second's worth of credit is there again; then counting begins anew.
    pub fn report(&mut self, now_ns: u64) -> Option<u64> {
        self.refill(now_ns);
        (self.dropped > 0 && self.credit >= SECOND).then(|| core::mem::take(&mut self.dropped))
    }

    /// The number of lines dropped and not reported yet, for the end of a log.
    pub fn finish(&mut self) -> Option<u64> {
        (self.dropped > 0).then(|| core::mem::take(&mut self.dropped))
    }

    /// Nanoseconds from the last call until [`Rate::report`] has something to say; `None`: nothing was dropped.
    pub fn wait_ns(&self) -> Option<u64> {
        (self.dropped > 0).then(|| SECOND.saturating_sub(self.credit))
    }

    fn refill(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.last_ns);
        self.last_ns = self.last_ns.max(now_ns);
        self.credit = self.credit.saturating_add(passed).min(BURST * SECOND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_kept_up_to_the_burst_and_the_rest_is_counted() {
        let mut rate = Rate::new(100, 0);
        let kept = (0..10_000).filter(|_| rate.admit(0)).count();
        assert_eq!(kept, 500);
        assert_eq!(rate.report(SECOND - 1), None);
        assert_eq!(rate.wait_ns(), Some(1));
        assert_eq!(rate.report(SECOND), Some(9500));
        assert_eq!((0..1000).filter(|_| rate.admit(SECOND)).count(), 100);
        assert_eq!(rate.finish(), Some(900));
        assert_eq!(rate.finish(), None);
    }

    #[test]
    fn no_limit_keeps_all_and_a_clock_that_stands_still_gives_no_credit() {
        let mut free = Rate::new(0, 5);
        assert!((0..100_000).all(|_| free.admit(5)));
        let mut one = Rate::new(1, SECOND);
        assert_eq!((0..10).filter(|_| one.admit(0)).count(), 5);
        assert_eq!(one.report(0), None);
    }
}
