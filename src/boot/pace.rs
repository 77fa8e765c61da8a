//! How a hardware watchdog's timeout is settled and how often it is fed. Pure.
#![forbid(unsafe_code)]

use crate::base::units::Millis;

/// How often a watchdog is fed whose timeout nobody can tell: the shortest fixed ones on boards are those of supply
/// supervisors, 1.6 s.
pub const UNKNOWN: Millis = Millis(500);

/// When to look again for a device that is not there or not free, in time since the first look: its driver may come as a
/// module, or the program before us may still be ending.
pub const LOOKS: [Millis; 6] = [Millis(1000), Millis(2000), Millis(4000), Millis(8000), Millis(16_000), Millis(32_000)];

/// The longest timeout that is tried where the one asked for is too short for the driver, in seconds.
const LONGEST: u32 = 1 << 16;

/// How often a watchdog with this timeout is fed: a third of it, so that one turn that comes late costs nothing.
pub fn period(timeout: Option<Millis>) -> Millis {
    timeout.filter(|timeout| timeout.0 > 0).map_or(UNKNOWN, |timeout| Millis((timeout.0 / 3).max(1)))
}

/// Whole seconds, which is what drivers take: never less than asked for, never none.
pub fn seconds(timeout: Millis) -> u32 {
    u32::try_from(timeout.0.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

/// Sets the timeout nearest to `wanted` seconds that the driver takes, and gives the one that it then has. `set` is
/// WDIOC_SETTIMEOUT: it refuses with `refusal` what lies outside the driver's bounds. A shorter one is preferred, because
/// it resets no later than asked for.
///
/// # Errors
/// Any other error of `set`, or the refusal if the driver takes no timeout at all.
pub fn settle<E: PartialEq + Copy>(
    wanted: u32,
    refusal: E,
    set: &mut dyn FnMut(u32) -> Result<u32, E>,
) -> Result<u32, E> {
    let mut attempt = |seconds: u32| match set(seconds) {
        Ok(real) => Ok(Some(real)),
        Err(error) if error == refusal => Ok(None),
        Err(error) => Err(error),
    };
    if let Some(real) = attempt(wanted)? {
        return Ok(real);
    }
    // Halves until one is taken; the bound lies between that and the last one refused.
    let (mut refused, mut taken) = (wanted, wanted / 2);
    while taken > 0 && attempt(taken)?.is_none() {
        (refused, taken) = (taken, taken / 2);
    }
    if taken == 0 {
        (refused, taken) = (wanted, wanted.saturating_mul(2));
        while attempt(taken)?.is_none() {
            if taken > LONGEST {
                return Err(refusal);
            }
            (refused, taken) = (taken, taken.saturating_mul(2));
        }
    }
    while taken.abs_diff(refused) > 1 {
        let middle = taken.midpoint(refused);
        match attempt(middle)? {
            Some(_) => taken = middle,
            None => refused = middle,
        }
    }
    // The last attempt may have been a refused one, which leaves the timeout as it was, or another one.
    set(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver that takes timeouts within bounds, in steps.
    fn driver(
        least: u32,
        most: u32,
        step: u32,
    ) -> (impl FnMut(u32) -> Result<u32, i32>, std::rc::Rc<std::cell::Cell<u32>>) {
        let now = std::rc::Rc::new(std::cell::Cell::new(most));
        let set = now.clone();
        let take = move |seconds: u32| {
            if !(least..=most).contains(&seconds) {
                return Err(22);
            }
            set.set((seconds / step * step).max(least));
            Ok(set.get())
        };
        (take, now)
    }

    #[test]
    fn the_timeout_asked_for_is_taken_where_the_driver_can() {
        for wanted in 1..200 {
            let (mut set, now) = driver(1, 200, 1);
            assert_eq!(settle(wanted, 22, &mut set), Ok(wanted));
            assert_eq!(now.get(), wanted);
        }
    }

    #[test]
    fn outside_the_bounds_the_nearest_bound_is_taken() {
        for (least, most) in [(1, 1), (1, 16), (3, 16), (5, 5), (10, 128), (30, 65_535)] {
            for wanted in (1..300).chain([1000, 65_535, 65_536, 100_000, u32::MAX]) {
                let (mut set, now) = driver(least, most, 1);
                // Between two tries that double there may be a driver's whole range when its least is not half its most.
                let answer = settle(wanted, 22, &mut set);
                if most >= 2 * least || (least..=most).contains(&wanted) {
                    assert_eq!(answer, Ok(wanted.clamp(least, most)), "{wanted} of {least}..={most}");
                    assert_eq!(now.get(), wanted.clamp(least, most));
                }
            }
        }
    }

    #[test]
    fn a_timeout_that_the_driver_rounds_is_shown_as_it_is() {
        let (mut set, now) = driver(4, 64, 4);
        assert_eq!(settle(30, 22, &mut set), Ok(28));
        assert_eq!(now.get(), 28);
    }

    #[test]
    fn a_driver_that_takes_nothing_and_one_that_fails_end_the_search() {
        let mut tries = 0;
        let mut none = |_| {
            tries += 1;
            Err(22)
        };
        assert_eq!(settle(30, 22, &mut none), Err(22));
        assert!(tries < 40, "{tries}");
        assert_eq!(settle(30, 22, &mut |_| Err(5)), Err(5));
    }

    #[test]
    fn a_third_of_the_timeout_and_a_safe_period_without_one() {
        assert_eq!(period(Some(Millis(30_000))), Millis(10_000));
        assert_eq!(period(Some(Millis(1000))), Millis(333));
        assert_eq!(period(Some(Millis(1))), Millis(1));
        assert_eq!(period(Some(Millis(0))), UNKNOWN);
        assert_eq!(period(None), UNKNOWN);
    }

    #[test]
    fn a_part_of_a_second_is_a_second() {
        assert_eq!([0, 1, 999, 1000, 1001, u64::MAX].map(|ms| seconds(Millis(ms))), [1, 1, 1, 1, 2, u32::MAX]);
    }
}
