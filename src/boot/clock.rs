//! The time of day of a board that may have no clock: never earlier than what it is known to be past.
#![forbid(unsafe_code)]

use crate::base::built::BUILT;
use crate::supervisor::keeper::Say;
use crate::sys::board::{RtcTime, read_rtc};
use crate::sys::meaning;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The file in the state folder whose time of change is the time of the last orderly shutdown.
const SAVED: &str = "clock";

/// Seconds by which a clock that the kernel has set from the real-time clock differs from what that shows: both are rounded.
const ROUNDING: i64 = 1;

/// Where a time came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The board's own clock.
    Rtc,
    /// The last shutdown.
    Saved,
    /// The release.
    Built,
}

/// The latest of the times that are known, if it lies beyond `now`, and not by rounding alone. Pure.
pub fn latest(now: i64, rtc: Option<i64>, saved: Option<i64>) -> Option<(i64, From)> {
    let mut latest = None;
    for (time, from) in [(Some(BUILT), From::Built), (saved, From::Saved), (rtc, From::Rtc)] {
        // Of times that are equal the last source counts.
        if let Some(time) = time.filter(|time| *time > now && latest.is_none_or(|(known, _)| *time >= known)) {
            latest = Some((time, from));
        }
    }
    latest.filter(|(time, from)| *from != From::Rtc || *time > now.saturating_add(ROUNDING))
}

/// Seconds since 1970 of a time that an RTC shows, which coracle takes for UTC; `None` if it shows none. Pure.
pub fn seconds(time: &RtcTime) -> Option<i64> {
    let (year, month) = (i64::from(time.year) + 1900, i64::from(time.month) + 1);
    let fits = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&time.day)
        && (0..24).contains(&time.hour)
        && (0..60).contains(&time.minute)
        && (0..=60).contains(&time.second);
    // Days since 1970-01-01 in the Gregorian calendar, in years that begin in March so that the leap day is the last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + i64::from(time.day) - 1 - 719_468;
    let rest = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second);
    fits.then_some(days * 86_400 + rest)
}

/// Sets the clock to the latest known time if it is behind; whether that is a guess, which no clock of the board has shown.
/// `state`: the state folder, once it is mounted.
pub fn set(state: Option<&Path>, say: Say<'_>) -> bool {
    let rtc = || seconds(&read_rtc(File::open("/dev/rtc0").ok()?.as_fd()).ok()?);
    let saved = state.and_then(|state| fs::metadata(saved(state)).ok()).map(|file| file.mtime());
    // A clock before 1970 is behind whatever is known.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    let Some((time, from)) = latest(now, rtc(), saved) else { return false };
    let guess = from != From::Rtc;
    let set = clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(time as _, 0));
    let from = match from {
        From::Rtc => "what its real-time clock shows",
        From::Saved => "the last shutdown",
        From::Built => "the time at which this coracle was built",
    };
    match set {
        Ok(()) => say(format!("the clock was behind and is set to {from}")),
        Err(errno) => say(format!("the clock is behind and cannot be set to {from}: {}", meaning(errno))),
    }
    guess
}

/// Keeps the time for the next boot. To be called when the board is about to end.
///
/// # Errors
/// What the file system says.
pub fn save(state: &Path) -> std::io::Result<()> {
    let file = File::options().write(true).create(true).truncate(true).open(saved(state))?;
    file.set_modified(SystemTime::now())?;
    file.sync_all()
}

fn saved(state: &Path) -> PathBuf {
    state.join(SAVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_set_to_the_latest_time_and_never_back() {
        assert_eq!(latest(0, None, None), Some((BUILT, From::Built)));
        assert_eq!(latest(0, Some(BUILT + 5), Some(BUILT + 9)), Some((BUILT + 9, From::Saved)));
        assert_eq!(latest(0, Some(BUILT + 10), Some(BUILT + 9)), Some((BUILT + 10, From::Rtc)));
        assert_eq!(latest(0, Some(0), Some(3)), Some((BUILT, From::Built)), "a clock without battery");
        assert_eq!(latest(BUILT + 11, Some(BUILT + 10), Some(BUILT + 9)), None);
    }

    #[test]
    fn a_clock_that_was_set_to_the_second_is_not_behind() {
        let rtc = Some(BUILT + 11);
        assert_eq!(latest(BUILT + 10, rtc, None), None);
        assert_eq!(latest(BUILT + 10, rtc, rtc), None, "a reboot within that second");
        assert_eq!(latest(BUILT + 9, rtc, None), Some((BUILT + 11, From::Rtc)));
        assert_eq!(latest(BUILT + 10, None, rtc), Some((BUILT + 11, From::Saved)));
    }

    #[test]
    fn a_real_time_clock_is_read_as_utc() {
        let at = |year, month, day, time| seconds(&RtcTime::new(year - 1900, month - 1, day, time));
        assert_eq!(at(1970, 1, 1, [0, 0, 0]), Some(0));
        assert_eq!(at(2000, 3, 1, [0, 0, 0]), Some(951_868_800));
        assert_eq!(at(2024, 2, 29, [23, 59, 59]), Some(1_709_251_199));
        assert_eq!(at(2026, 11, 1, [0, 0, 0]), Some(1_793_491_200));
        assert_eq!(at(1900, 1, 1, [0, 0, 0]), None);
        assert_eq!(at(2026, 13, 1, [0, 0, 0]), None);
        assert_eq!(at(2026, 1, 1, [25, 0, 0]), None);
    }

    #[test]
    fn a_saved_time_is_that_of_the_shutdown() {
        let state = tempfile::tempdir().unwrap();
        fs::write(saved(state.path()), "").unwrap();
        File::options().write(true).open(saved(state.path())).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        save(state.path()).unwrap();
        assert!(fs::metadata(saved(state.path())).unwrap().mtime() > BUILT);
    }
}
