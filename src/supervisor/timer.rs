//! When a oneshot with a timer starts by itself. Pure.
//!
//! `every` counts by the monotonic clock, on a grid that begins with the first start, so that nothing adds up and no step
//! of the wall clock matters. `at` is a time of day: it is worked out anew whenever the clock is set, and a time that is
//! skipped by a step, or that passes while the clock is not known or the service still runs, is not made up. A step back
//! does not bring the same time of the same day twice.
#![forbid(unsafe_code)]

use crate::base::units::Millis;
use crate::plan::{Schedule, Timer};

/// Milliseconds of a day, as the wall clock counts them.
const DAY: i64 = 86_400_000;

/// The next start of one service by its timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// When; `None`: not known yet, or never.
    pub at: Option<Millis>,
    /// Starts that came due while the one before still ran, or while someone held their hand over the service.
    pub overruns: u32,
    /// The start that is meant without its jitter: a point of the grid.
    nominal: Millis,
    /// The start that is meant without its jitter: milliseconds since 1970.
    meant: i64,
    /// The one that was due last.
    last: Option<i64>,
}

impl Due {
    /// A next start at `at` and the time of day that was due last, as an earlier supervisor knew them; the grid goes on
    /// from there.
    pub fn of(at: Option<Millis>, last: Option<i64>) -> Due {
        Due { at, last, nominal: at.unwrap_or_default(), ..Due::default() }
    }

    /// The time of day that was due last, in milliseconds since 1970: it does not come twice.
    pub fn last(&self) -> Option<i64> {
        self.last
    }

    /// The grid of `every` begins at `now`; a time of day comes when it comes.
    pub fn begin(&mut self, timer: &Timer, now: Millis, wall: Option<i64>, random: u32) {
        self.nominal = now;
        self.plan(timer, now, wall, random);
    }

    /// It is due `now`: works out the next one.
    pub fn passed(&mut self, timer: &Timer, now: Millis, wall: Option<i64>, random: u32) {
        self.last = Some(self.meant);
        self.plan(timer, now, wall, random);
    }

    /// The wall clock is ahead of the monotonic one by `wall` milliseconds from `now` on; `None`: it is not known.
    pub fn clock_set(&mut self, timer: &Timer, now: Millis, wall: Option<i64>, random: u32) {
        if matches!(timer.schedule, Schedule::At(_)) {
            self.plan(timer, now, wall, random);
        }
    }

    fn plan(&mut self, timer: &Timer, now: Millis, wall: Option<i64>, random: u32) {
        let jitter = Millis(u64::from(random) % timer.jitter.0.saturating_add(1));
        self.at = match timer.schedule {
            Schedule::Every(period) => {
                let period = period.0.max(1);
                let steps = (now.since(self.nominal).0 / period).saturating_add(1);
                self.nominal = self.nominal.plus(Millis(steps.saturating_mul(period)));
                Some(self.nominal.plus(jitter))
            }
            Schedule::At(time) => wall.map(|wall| {
                let wall = wall.saturating_add_unsigned(now.0);
                // The one whose jitter has begun already and not ended counts too.
                let from = wall.saturating_sub_unsigned(jitter.0);
                let time = i64::try_from(time.0).unwrap_or(0);
                let days = from.saturating_sub(time).div_euclid(DAY).saturating_add(1);
                self.meant = days.saturating_mul(DAY).saturating_add(time);
                if self.last == Some(self.meant) {
                    self.meant = self.meant.saturating_add(DAY);
                }
                let due = self.meant.saturating_add_unsigned(jitter.0);
                now.plus(Millis(u64::try_from(due.saturating_sub(wall)).unwrap_or(0)))
            }),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn timer(schedule: Schedule, jitter: u64) -> Timer {
        Timer { schedule, jitter: Millis(jitter) }
    }

    #[test]
    fn every_keeps_to_its_grid_however_late_it_is_looked_at() {
        let hourly = timer(Schedule::Every(Millis(HOUR)), 0);
        let mut due = Due::default();
        due.begin(&hourly, Millis(500), None, 7);
        assert_eq!(due.at, Some(Millis(HOUR + 500)));
        due.passed(&hourly, Millis(HOUR + 900), None, 7);
        assert_eq!(due.at, Some(Millis(2 * HOUR + 500)));
        due.clock_set(&hourly, Millis(HOUR + 901), Some(-5), 7);
        due.passed(&hourly, Millis(9 * HOUR), None, 7);
        assert_eq!(due.at, Some(Millis(9 * HOUR + 500)), "what was slept through is not made up");
        let absurd = timer(Schedule::Every(Millis(u64::MAX)), u64::MAX);
        due.passed(&absurd, Millis(u64::MAX), Some(i64::MAX), u32::MAX);
        assert_eq!(due.at, Some(Millis(u64::MAX)));
    }

    #[test]
    fn jitter_stays_within_its_bound_and_leaves_the_grid_alone() {
        let hourly = timer(Schedule::Every(Millis(HOUR)), 1000);
        let mut due = Due::default();
        due.begin(&hourly, Millis(0), None, 0);
        for (n, random) in [0, 1, 999, 1000, 1001, u32::MAX].into_iter().enumerate() {
            due.passed(&hourly, due.at.unwrap(), None, random);
            let grid = (n as u64 + 2) * HOUR;
            assert_eq!(due.at, Some(Millis(grid + u64::from(random) % 1001)));
        }
    }

    #[test]
    fn a_time_of_day_comes_once_a_day_and_only_once_the_clock_is_known() {
        let half_past_three = timer(Schedule::At(Millis(3 * HOUR + HOUR / 2)), 0);
        let mut due = Due::default();
        due.begin(&half_past_three, Millis(100), None, 0);
        assert_eq!(due.at, None);
        // It is 02:00 of some day, or exactly that time, or just after.
        let day = 20_000 * DAY;
        for (time, wait) in
            [(2 * HOUR, HOUR + HOUR / 2), (3 * HOUR + HOUR / 2, 24 * HOUR), (4 * HOUR, 23 * HOUR + HOUR / 2)]
        {
            due.clock_set(&half_past_three, Millis(100), Some(day + time as i64 - 100), 0);
            assert_eq!(due.at, Some(Millis(100 + wait)), "{time}");
        }
        due.clock_set(&half_past_three, Millis(100), Some(-100 - 2 * DAY), 0);
        assert_eq!(due.at, Some(Millis(100 + 3 * HOUR + HOUR / 2)), "before 1970 too");
        for wall in [i64::MIN, i64::MAX] {
            due.clock_set(&half_past_three, Millis(u64::MAX), Some(wall), 0);
        }
    }

    #[test]
    fn a_step_back_does_not_bring_the_same_time_again_and_one_of_days_does() {
        let three = timer(Schedule::At(Millis(3 * HOUR)), 0);
        let mut due = Due::default();
        let wall = 20_000 * DAY;
        due.begin(&three, Millis(0), Some(wall), 0);
        due.passed(&three, Millis(3 * HOUR), Some(wall), 0);
        assert_eq!(due.at, Some(Millis(27 * HOUR)));
        due.clock_set(&three, Millis(3 * HOUR + 10), Some(wall - 2000), 0);
        assert_eq!(due.at, Some(Millis(27 * HOUR + 2000)), "two seconds back");
        due.clock_set(&three, Millis(3 * HOUR + 10), Some(wall - 5 * DAY - 2000), 0);
        assert_eq!(due.at, Some(Millis(3 * HOUR + 2000)), "five days and two seconds back");
    }

    #[test]
    fn a_step_while_the_jitter_runs_does_not_lose_the_start() {
        let three = timer(Schedule::At(Millis(3 * HOUR)), 600_000);
        let mut due = Due::default();
        due.begin(&three, Millis(0), Some(0), 500_000);
        assert_eq!(due.at, Some(Millis(3 * HOUR + 500_000)));
        due.clock_set(&three, Millis(3 * HOUR + 1000), Some(50), 400_000);
        assert_eq!(due.at, Some(Millis(3 * HOUR - 50 + 400_000)));
    }
}
