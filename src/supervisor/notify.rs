//! What a service says over its notify socket: the messages of sd_notify(3), read to the letter. Pure.
//!
//! A datagram is a list of `KEY=value` lines, the last one with or without a newline. Keys that are not known are passed
//! over: every version of the protocol has had more of them. A known key whose value cannot be read is passed over too,
//! and counted, so that `READY=1` beside it still counts. A datagram that is empty, too long or holds a NUL byte counts
//! for nothing.
#![forbid(unsafe_code)]

use crate::base::units::Millis;
use crate::plan::NotifyAccess;
use core::fmt::Write as _;

/// Longest datagram read, in bytes; systemd reads as much.
pub const DATAGRAM_BYTES: usize = 4096;
/// Bytes of a line that is shown to people: `STATUS=`, or what went wrong.
pub const LINE_BYTES: usize = 120;

/// A text of a service, made safe to show.
pub type Line = heapless::String<LINE_BYTES>;

/// Where the service says that it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its start, or its reload, is over: `READY=1`.
    Ready,
    /// It reads its configuration anew: `RELOADING=1`. `READY=1` ends it.
    Reloading,
    /// `READY=1` and then `RELOADING=1`, before the first was passed on.
    ReadyThenReloading,
    /// It is about to end: `STOPPING=1`.
    Stopping,
}

/// What the core has to know of what a service said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notice {
    /// Where it stands.
    pub standing: Option<Standing>,
    /// It lives: `WATCHDOG=1`.
    pub ping: bool,
    /// It asks for what happens when its watchdog expires: `WATCHDOG=trigger`.
    pub trigger: bool,
    /// From now on its watchdog has this period: `WATCHDOG_USEC=`. Never zero.
    pub watchdog: Option<Millis>,
    /// It needs this much longer for its start or its end: `EXTEND_TIMEOUT_USEC=`.
    pub extend: Option<Millis>,
    /// The waits before its restarts begin anew: `RESTART_RESET=1`.
    pub forgive: bool,
}

/// What was not listened to, counted since the instance began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Datagrams of processes that have no say.
    pub refused: u32,
    /// Datagrams, and lines of datagrams, that cannot be read.
    pub malformed: u32,
}

/// All that a service has said since it was last passed on. Of what can hold only once, the last word counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// What the core has to know.
    pub notice: Notice,
    /// The process that it names as its main one: `MAINPID=`, as the sender numbers it. To be checked.
    pub main: Option<i32>,
    /// Whether it names that by a descriptor that comes with it: `MAINPIDFD=1`.
    pub main_by_fd: bool,
    /// Whom it wants to be listened to from now on: `NOTIFYACCESS=`; within: nobody.
    pub access: Option<Option<NotifyAccess>>,
    /// `STATUS=`; an empty one takes back the one before.
    pub status: Option<Line>,
    /// `ERRNO=`, `EXIT_STATUS=`, `BUSERROR=` and `VARLINKERROR=`, as they were said.
    pub failure: Option<Line>,
}

impl Said {
    /// Takes in a datagram that came with `fds` descriptors; gives how much of it could not be read.
    ///
    /// Descriptors are closed by whoever received them: that is what `BARRIER=1` asks for and what `FDSTORE=1` gets.
    pub fn hear(&mut self, datagram: &[u8], fds: usize) -> u32 {
        if datagram.is_empty() || datagram.len() > DATAGRAM_BYTES || datagram.contains(&0) {
            return 1;
        }
        let lines = || datagram.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        if lines().any(|line| line.starts_with(b"BARRIER=")) {
            return u32::from(!lines().eq([b"BARRIER=1"]) || fds != 1);
        }
        let mut failure = Line::new();
        let unread = lines().filter(|line| !self.line(line, &mut failure)).count();
        let unread = u32::try_from(unread).unwrap_or(u32::MAX);
        if !failure.is_empty() {
            self.failure = Some(failure);
        }
        unread
    }

    /// Takes in what was said after this. Of what can hold only once, the last word counts.
    pub fn update(&mut self, newer: Said) {
        let (old, new) = (self.notice, newer.notice);
        self.notice = Notice {
            standing: new.standing.or(old.standing),
            ping: old.ping || new.ping,
            trigger: old.trigger || new.trigger,
            watchdog: new.watchdog.or(old.watchdog),
            extend: new.extend.or(old.extend),
            forgive: old.forgive || new.forgive,
        };
        self.main = newer.main.or(self.main);
        self.status = newer.status.or(self.status.take());
        self.failure = newer.failure.or(self.failure.take());
    }

    /// Takes in one line; `false`: it cannot be read.
    fn line(&mut self, line: &[u8], failure: &mut Line) -> bool {
        let text = core::str::from_utf8(line).ok();
        let Some((key, value)) = text.and_then(|line| line.split_once('=')) else { return false };
        match (key, value) {
            ("READY", "1") => self.notice.standing = Some(Standing::Ready),
            ("RELOADING", "1") => {
                self.notice.standing = Some(match self.notice.standing {
                    Some(Standing::Ready | Standing::ReadyThenReloading) => Standing::ReadyThenReloading,
                    _ => Standing::Reloading,
                });
            }
            ("STOPPING", "1") => self.notice.standing = Some(Standing::Stopping),
            // When the reload began, by the sender's clock: it matters only to who asked for the reload.
            ("MONOTONIC_USEC", value) => return number(value).is_some(),
            ("WATCHDOG", "1") => self.notice.ping = true,
            ("WATCHDOG", "trigger") => self.notice.trigger = true,
            ("WATCHDOG_USEC", value) => match number(value) {
                // Zero would end what the config asks for.
                None | Some(0) => return false,
                Some(usec) => self.notice.watchdog = Some(millis(usec)),
            },
            ("EXTEND_TIMEOUT_USEC", value) => match number(value) {
                None => return false,
                Some(usec) => self.notice.extend = Some(millis(usec)),
            },
            ("MAINPID", value) => match number(value).and_then(|pid| i32::try_from(pid).ok()) {
                None | Some(0) => return false,
                pid => self.main = pid,
            },
            ("MAINPIDFD", "1") => self.main_by_fd = true,
            // It keeps `MAINPID=` from naming a later process of that number, which a child that is not waited for cannot be.
            ("MAINPIDFDID", value) => return number(value).is_some(),
            ("NOTIFYACCESS", "none") => self.access = Some(None),
            // Commands of coracle's own have nothing to say while main runs.
            ("NOTIFYACCESS", "main" | "exec") => self.access = Some(Some(NotifyAccess::Main)),
            ("NOTIFYACCESS", "all") => self.access = Some(Some(NotifyAccess::All)),
            ("RESTART_RESET", "1") => self.notice.forgive = true,
            ("STATUS", value) => self.status = Some(safe(value)),
            ("ERRNO" | "EXIT_STATUS", value) if number(value).is_none_or(|number| number > 0xffff) => return false,
            ("ERRNO" | "EXIT_STATUS" | "BUSERROR" | "VARLINKERROR", value) => {
                let space = if failure.is_empty() { "" } else { " " };
                // What does not fit any more is the lesser part of what is known by then.
                let _ = write!(failure, "{space}{key}={}", safe(value));
            }
            ("READY" | "RELOADING" | "STOPPING" | "WATCHDOG" | "MAINPIDFD" | "NOTIFYACCESS" | "RESTART_RESET", _) => {
                return false;
            }
            _ => {}
        }
        true
    }
}

/// A decimal number without a sign.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Microseconds, rounded up: no time becomes none.
fn millis(usec: u64) -> Millis {
    Millis(usec.div_ceil(1000))
}

/// `text` as it can be shown on any terminal: cut where it is too long, without control characters and without those
/// that turn the direction of what follows.
fn safe(text: &str) -> Line {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut line = Line::new();
    for c in text.chars() {
        if line.push(if c.is_control() || turns(c) { '?' } else { c }).is_err() {
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(datagram: &str) -> (Said, u32) {
        let mut said = Said::default();
        let unread = said.hear(datagram.as_bytes(), 0);
        (said, unread)
    }

    fn notice(datagram: &str) -> Notice {
        let (said, unread) = heard(datagram);
        assert_eq!(unread, 0, "{datagram:?}");
        said.notice
    }

    #[test]
    fn every_word_of_the_protocol_is_read() {
        let standing = |standing| Notice { standing: Some(standing), ..Notice::default() };
        assert_eq!(notice("READY=1"), standing(Standing::Ready));
        assert_eq!(notice("READY=1\n"), standing(Standing::Ready));
        assert_eq!(notice("RELOADING=1\nMONOTONIC_USEC=1234567"), standing(Standing::Reloading));
        assert_eq!(notice("STOPPING=1"), standing(Standing::Stopping));
        assert_eq!(notice("WATCHDOG=1"), Notice { ping: true, ..Notice::default() });
        assert_eq!(notice("WATCHDOG=trigger"), Notice { trigger: true, ..Notice::default() });
        assert_eq!(notice("WATCHDOG_USEC=1"), Notice { watchdog: Some(Millis(1)), ..Notice::default() });
        let extend = Notice { extend: Some(Millis(2500)), ..Notice::default() };
        assert_eq!(notice("EXTEND_TIMEOUT_USEC=2500000"), extend);
        assert_eq!(notice("RESTART_RESET=1"), Notice { forgive: true, ..Notice::default() });
        let (main, all) = (Some(NotifyAccess::Main), Some(NotifyAccess::All));
        for (word, access) in [("none", None), ("main", main), ("exec", main), ("all", all)] {
            assert_eq!(heard(&format!("NOTIFYACCESS={word}")).0.access, Some(access));
        }
        assert_eq!(heard("MAINPID=77\nMAINPIDFDID=1234567890123").0.main, Some(77));
        assert!(heard("MAINPIDFD=1").0.main_by_fd);
        assert_eq!(heard("STATUS=up since\u{1b}[31m noon\u{202e}").0.status.unwrap(), "up since?[31m noon?");
        let failed = heard("ERRNO=2\nBUSERROR=org.example.No\nEXIT_STATUS=3").0;
        assert_eq!(failed.failure.unwrap(), "ERRNO=2 BUSERROR=org.example.No EXIT_STATUS=3");
    }

    #[test]
    fn the_last_word_counts_and_a_ping_is_not_lost_behind_others() {
        let mut said = Said::default();
        for datagram in ["STATUS=a", "WATCHDOG=1", "RELOADING=1", "STATUS=b\nREADY=1"] {
            assert_eq!(said.hear(datagram.as_bytes(), 0), 0);
        }
        let notice = Notice { standing: Some(Standing::Ready), ping: true, ..Notice::default() };
        assert_eq!((said.notice, said.status.as_deref()), (notice, Some("b")));
    }

    #[test]
    fn a_reload_right_after_ready_does_not_hide_it() {
        let mut said = Said::default();
        for (datagram, standing) in [
            ("RELOADING=1", Standing::Reloading),
            ("READY=1", Standing::Ready),
            ("RELOADING=1", Standing::ReadyThenReloading),
            ("RELOADING=1", Standing::ReadyThenReloading),
            ("READY=1", Standing::Ready),
            ("STOPPING=1", Standing::Stopping),
        ] {
            assert_eq!((said.hear(datagram.as_bytes(), 0), said.notice.standing), (0, Some(standing)));
        }
    }

    #[test]
    fn unknown_keys_are_passed_over_and_stored_descriptors_change_nothing() {
        for datagram in ["X_PRIVATE=1", "FDSTORE=1\nFDNAME=a", "FDSTOREREMOVE=1", "FDPOLL=0", "=1", "ready=1"] {
            assert_eq!(heard(datagram), (Said::default(), 0), "{datagram}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_hides_nothing_else() {
        let bad = [
            "READY=0",
            "READY",
            "WATCHDOG=",
            "WATCHDOG_USEC=0",
            "WATCHDOG_USEC=-5",
            "WATCHDOG_USEC=99999999999999999999999",
            "EXTEND_TIMEOUT_USEC=1s",
            "MAINPID=0",
            "MAINPID=-1",
            "MAINPID=+7",
            "MAINPID=4294967298",
            "MAINPIDFD=0",
            "MAINPIDFDID=x",
            "MONOTONIC_USEC=x",
            "ERRNO=none",
            "NOTIFYACCESS=everyone",
            "RESTART_RESET=0",
        ];
        for line in bad {
            assert_eq!(heard(line), (Said::default(), 1), "{line}");
            let (said, unread) = heard(&format!("{line}\nREADY=1"));
            assert_eq!((said.notice.standing, unread), (Some(Standing::Ready), 1), "{line}");
        }
        let mut said = Said::default();
        assert_eq!(said.hear(b"STATUS=\xff\nREADY=1", 0), 1);
        assert_eq!((said.notice.standing, said.status), (Some(Standing::Ready), None));
        for whole in [&b""[..], b"READY=1\0", &[b'a'; DATAGRAM_BYTES + 1]] {
            let mut said = Said::default();
            assert_eq!((said.hear(whole, 0), said), (1, Said::default()));
        }
    }

    #[test]
    fn a_barrier_is_alone_and_comes_with_one_descriptor() {
        for (datagram, fds, unread) in [
            ("BARRIER=1", 1, 0),
            ("BARRIER=1\n", 1, 0),
            ("BARRIER=1", 0, 1),
            ("BARRIER=1", 2, 1),
            ("BARRIER=2", 1, 1),
            ("BARRIER=1\nREADY=1", 1, 1),
            ("READY=1\nBARRIER=1", 1, 1),
        ] {
            let mut said = Said::default();
            assert_eq!(said.hear(datagram.as_bytes(), fds), unread, "{datagram} {fds}");
            assert_eq!(said, Said::default());
        }
    }

    #[test]
    fn a_long_status_is_cut_at_a_whole_character() {
        let status = heard(&format!("STATUS={}", "ä".repeat(500))).0.status.unwrap();
        assert_eq!(status.as_str(), "ä".repeat(LINE_BYTES / 2));
    }
}
