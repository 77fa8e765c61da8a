//! How many restarts the whole device has in a minute: a storm of services that fail at once and again is spread in time,
//! so that it leaves the processor to those that are well.
//!
//! A rate with a burst (the generic cell rate algorithm): each restart takes its place in a row of equal intervals, and a
//! tenth of a minute's worth may come at once.
#![forbid(unsafe_code)]

use crate::base::limits::SERVICES;
use crate::base::units::Millis;

/// What is booked so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// When the row of intervals ends.
    row: Millis,
    /// Until when it is not told again that restarts are put off.
    told: Option<Millis>,
}

impl Budget {
    /// Books a restart that is due at `now` and gives its time: `now`, or later if more than `per_minute` are due.
    pub fn book(&mut self, per_minute: u16, now: Millis) -> Millis {
        if per_minute == 0 {
            return now;
        }
        let interval = (60_000 / u64::from(per_minute)).max(1);
        let ahead = Millis(interval.saturating_mul(u64::from(per_minute / 10)));
        // More places than services are never waited for: what takes one and does not wait puts off nobody for ever.
        let longest = now.plus(ahead).plus(Millis(interval.saturating_mul(SERVICES as u64)));
        let at = Millis(self.row.min(longest).0.saturating_sub(ahead.0)).max(now);
        self.row = self.row.max(now).plus(Millis(interval)).min(longest);
        at
    }

    /// When the row of what is booked ends, for who goes on with it.
    pub fn row(&self) -> Millis {
        self.row
    }

    /// Goes on where a row ended at `row`.
    pub fn go_on(&mut self, row: Millis) {
        self.row = self.row.max(row);
    }

    /// Whether it is time to tell that restarts are put off: once a minute.
    pub fn tell(&mut self, now: Millis) -> bool {
        let due = self.told.is_none_or(|told| told <= now);
        if due {
            self.told = Some(now.plus(Millis::from_secs(60)));
        }
        due
    }
}

/// A day in milliseconds of the monotonic clock.
const DAY: Millis = Millis::from_secs(86_400);

/// So many of something in a day, for what wears out flash.
#[derive(Debug, Clone, Copy, Default)]
pub struct Daily {
    day: Option<Millis>,
    spent: u16,
}

impl Daily {
    /// Takes one of `most`; `false`: those of this day are used up. A day begins with the first one of it.
    pub fn spend(&mut self, most: u16, now: Millis) -> bool {
        if self.day.is_none_or(|day| now.since(day) >= DAY) {
            (self.day, self.spent) = (Some(now), 0);
        }
        let left = self.spent < most;
        self.spent += u16::from(left);
        left
    }

    /// How much of which day is spent, for who goes on with it: what is later or more is higher.
    pub fn number(&self) -> u64 {
        self.day.map_or(0, |day| day.0 << 16) | u64::from(self.spent)
    }

    /// Goes on where another one had this number.
    pub fn go_on(&mut self, number: u64) {
        if number > self.number() {
            (self.day, self.spent) = (Some(Millis(number >> 16)), number as u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_so_many_and_the_next_one_as_many_again() {
        let mut daily = Daily::default();
        let taken: Vec<bool> =
            [5, 6, 7, 86_400_004, 86_400_005, 86_400_006, 86_400_007].map(|at| daily.spend(2, Millis(at))).to_vec();
        assert_eq!(taken, [true, true, false, false, true, true, false]);
        assert!(!Daily::default().spend(0, Millis(0)));
    }

    #[test]
    fn who_goes_on_with_a_day_has_what_is_left_of_it() {
        let (mut before, mut after) = (Daily::default(), Daily::default());
        assert!(before.spend(2, Millis(5)) && before.spend(2, Millis(6)));
        after.go_on(before.number());
        // What was written of another service before that.
        after.go_on(Daily { day: Some(Millis(5)), spent: 1 }.number());
        after.go_on(0);
        assert!(!after.spend(2, Millis(7)) && after.spend(2, Millis(86_400_005)));
    }

    #[test]
    fn a_burst_goes_at_once_and_what_is_more_is_spread() {
        let mut budget = Budget::default();
        let at: Vec<u64> = (0..80).map(|_| budget.book(600, Millis(1000)).0).collect();
        assert!(at[..61].iter().all(|at| *at == 1000), "{at:?}");
        assert_eq!(at[61..64], [1100, 1200, 1300]);
    }

    #[test]
    fn in_no_minute_are_there_more_than_the_rate_and_the_burst() {
        for per_minute in [1, 7, 60, 600, 60_000] {
            let mut budget = Budget::default();
            let mut at: Vec<u64> = (0..SERVICES as u64).map(|n| budget.book(per_minute, Millis(n * 3)).0).collect();
            assert!(at.is_sorted(), "who is due first goes first");
            at.dedup_by(|a, b| a == b && per_minute > 20_000);
            for (first, start) in at.iter().enumerate() {
                let within = at[first..].iter().take_while(|at| **at < start + 60_000).count();
                assert!(within <= usize::from(per_minute) * 11 / 10 + 1, "{within} of {per_minute}");
            }
        }
    }

    #[test]
    fn who_never_waits_does_not_put_off_the_others_for_ever() {
        let mut budget = Budget::default();
        // A day of first restarts after healthy runs, twice as many as the rate allows.
        for n in 0..2880 {
            budget.book(1, Millis(n * 30_000));
        }
        let now = Millis(2880 * 30_000);
        assert!(budget.book(1, now).since(now) <= Millis(60_000 * SERVICES as u64));
    }

    #[test]
    fn who_goes_on_with_a_row_gives_no_place_twice_and_waits_for_no_absurd_one() {
        let (mut before, mut after) = (Budget::default(), Budget::default());
        (0..5).for_each(|_| _ = before.book(1, Millis(1000)));
        after.go_on(before.row());
        assert_eq!(after.book(1, Millis(2000)), Millis(301_000));
        // As of a clock that has begun anew since.
        after.go_on(Millis(u64::MAX));
        assert!(after.book(1, Millis(5)) <= Millis(60_005 + 60_000 * SERVICES as u64));
    }

    #[test]
    fn no_bound_puts_nothing_off_and_absurd_times_saturate() {
        let mut budget = Budget::default();
        assert!((0..1000).all(|_| budget.book(0, Millis(5)) == Millis(5)));
        for _ in 0..10 {
            assert_eq!(budget.book(1, Millis(u64::MAX)), Millis(u64::MAX));
        }
    }

    #[test]
    fn a_storm_is_told_once_a_minute() {
        let mut budget = Budget::default();
        let told: Vec<bool> = [0, 1, 59_999, 60_000, 60_001].map(|at| budget.tell(Millis(at))).to_vec();
        assert_eq!(told, [true, false, false, true, false]);
    }
}
