//! Why the board was last reset: what the watchdog's driver says about it, and how the last boot ended. Pure.
#![forbid(unsafe_code)]

use core::fmt;

/// An orderly end of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The board starts again.
    Reboot,
    /// It is switched off.
    PowerOff,
    /// It stands still with its power on.
    Halt,
}

/// Why the board was last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It became too hot.
    Overheat,
    /// Its supply was too high.
    PowerOver,
    /// Its supply was too low.
    PowerUnder,
    /// A fan failed.
    FanFault,
    /// A relay outside said so.
    External,
    /// Nobody fed the watchdog.
    Watchdog,
    /// The boot before ended in order.
    Orderly(Ending),
    /// It did not, and nobody knows why.
    Unclean,
    /// There is no mark of a boot before.
    Unknown,
}

impl Cause {
    /// All of them, the ones that a driver reports first, the graver of two before the other.
    pub const ALL: [Cause; 11] = [
        Cause::Overheat,
        Cause::PowerOver,
        Cause::PowerUnder,
        Cause::FanFault,
        Cause::External,
        Cause::Watchdog,
        Cause::Orderly(Ending::Reboot),
        Cause::Orderly(Ending::PowerOff),
        Cause::Orderly(Ending::Halt),
        Cause::Unclean,
        Cause::Unknown,
    ];

    /// One word, for programs and for the mark.
    pub const fn word(self) -> &'static str {
        match self {
            Cause::Overheat => "overheat",
            Cause::PowerOver => "power-over",
            Cause::PowerUnder => "power-under",
            Cause::FanFault => "fan-fault",
            Cause::External => "external",
            Cause::Watchdog => "watchdog",
            Cause::Orderly(Ending::Reboot) => "reboot",
            Cause::Orderly(Ending::PowerOff) => "power-off",
            Cause::Orderly(Ending::Halt) => "halt",
            Cause::Unclean => "unclean",
            Cause::Unknown => "unknown",
        }
    }

    fn of(word: &str) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| cause.word() == word)
    }

    /// The bits of the driver's boot status that say so (watchdog-api.rst).
    const fn bits(self) -> u32 {
        match self {
            Cause::Overheat => 0x01,
            Cause::FanFault => 0x02,
            Cause::External => 0x04 | 0x08,
            Cause::PowerUnder => 0x10,
            Cause::Watchdog => 0x20,
            Cause::PowerOver => 0x40,
            Cause::Orderly(_) | Cause::Unclean | Cause::Unknown => 0,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Overheat => "overheated",
            Cause::PowerOver => "supply voltage too high",
            Cause::PowerUnder => "supply voltage too low",
            Cause::FanFault => "a fan failed",
            Cause::External => "an external signal",
            Cause::Watchdog => "watchdog: the supervisor or the kernel hung",
            Cause::Orderly(Ending::Reboot) => "orderly reboot",
            Cause::Orderly(Ending::PowerOff) => "orderly power-off",
            Cause::Orderly(Ending::Halt) => "orderly halt",
            Cause::Unclean => "unclean: power cut or crash",
            Cause::Unknown => "unknown: no earlier boot has left a mark",
        })
    }
}

/// What a boot leaves in the state folder: once when it begins, once more when it ends in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// How it ended; `None` as long as it has not.
    pub ended: Option<Ending>,
    /// Which boot: the kernel's boot_id.
    pub boot_id: Box<str>,
    /// Why it began.
    pub cause: Cause,
    /// Resets in a row before it that we announced or the watchdog caused.
    pub resets: u8,
    /// The service for which a reset is announced, as long as it is.
    pub announced: Option<Box<str>>,
}

/// Stands for a boot that the kernel gives no boot_id: no other boot's either.
pub const NO_BOOT: &str = "-";

/// Stands for no service.
const NONE: &str = "-";

/// The format's version, the first word of a mark.
const VERSION: &str = "1";

impl Mark {
    /// The mark as the file has it: version, how it ended, boot, cause.
    pub fn to_text(&self) -> String {
        let ended = self.ended.map_or("running", |ending| Cause::Orderly(ending).word());
        let announced = self.announced.as_deref().unwrap_or(NONE);
        format!("{VERSION} {ended} {} {} {} {announced}\n", self.boot_id, self.cause.word(), self.resets)
    }

    /// Reads a mark; `None` if it is damaged or of another version. Words behind those known are skipped.
    pub fn of_text(text: &str) -> Option<Mark> {
        let mut words = text.split_ascii_whitespace();
        if words.next()? != VERSION || !text.ends_with('\n') {
            return None;
        }
        let ended = match words.next()? {
            "running" => None,
            word => match Cause::of(word)? {
                Cause::Orderly(ending) => Some(ending),
                _ => return None,
            },
        };
        let boot_id = words.next()?.into();
        let cause = Cause::of(words.next()?)?;
        // Not there in the marks of an earlier version.
        let resets = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let announced = words.next().filter(|word| *word != NONE).map(Box::from);
        Some(Mark { ended, boot_id, cause, resets, announced })
    }
}

/// How many resets in a row have been announced or caused by the watchdog, and for which service the last one was: what
/// tells a board that resets itself for ever from one whose power is cut. `cause` is that of this boot.
///
/// What nobody knows the cause of counts for nothing; someone who ends the board in order has acted, so that it starts anew.
pub fn count_resets(last: Option<&Mark>, cause: Cause, boot_id: &str) -> (u8, Option<Box<str>>) {
    let Some(mark) = last else { return (u8::from(cause == Cause::Watchdog), None) };
    if *mark.boot_id == *boot_id && boot_id != NO_BOOT {
        // A new supervisor of the same boot.
        return (mark.resets, None);
    }
    let by_itself = matches!(mark.ended, None | Some(Ending::Reboot));
    if cause == Cause::Watchdog || mark.announced.is_some() && by_itself {
        return (mark.resets.saturating_add(1), mark.announced.clone());
    }
    (if matches!(cause, Cause::Orderly(_)) { 0 } else { mark.resets }, None)
}

/// Decides why the board was last reset. `status` is the driver's boot status, 0 if there is no driver or it does not
/// know; `last` the mark that was found; `boot_id` this boot.
///
/// Many boards reboot by their watchdog, so that its bit alone does not speak against an orderly reboot.
pub fn decide(status: u32, last: Option<&Mark>, boot_id: &str) -> Cause {
    if let Some(mark) = last.filter(|mark| &*mark.boot_id == boot_id && boot_id != NO_BOOT) {
        // A new supervisor of the same boot.
        return mark.cause;
    }
    let reported = Cause::ALL.into_iter().find(|cause| cause.bits() & status != 0);
    let ended = last.and_then(|mark| mark.ended);
    match (reported, last, ended) {
        (Some(Cause::Watchdog), _, Some(Ending::Reboot)) => Cause::Orderly(Ending::Reboot),
        (Some(cause), _, _) => cause,
        (None, _, Some(ending)) => Cause::Orderly(ending),
        (None, Some(_), None) => Cause::Unclean,
        (None, None, _) => Cause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDINGS: [Option<Ending>; 4] = [None, Some(Ending::Reboot), Some(Ending::PowerOff), Some(Ending::Halt)];

    fn mark(ended: Option<Ending>, cause: Cause) -> Mark {
        Mark { ended, boot_id: "before".into(), cause, resets: 0, announced: None }
    }

    #[test]
    fn resets_in_a_row_are_those_that_were_announced_or_that_the_watchdog_caused() {
        for before in [0, 1, 2, u8::MAX] {
            for ended in ENDINGS {
                for cause in Cause::ALL {
                    for announced in [None, Some("web")] {
                        let last = Mark { resets: before, announced: announced.map(Box::from), ..mark(ended, cause) };
                        let (resets, whose) = count_resets(Some(&last), cause, "now");
                        let by_itself = announced.is_some() && matches!(ended, None | Some(Ending::Reboot));
                        let expected = match cause {
                            _ if by_itself || cause == Cause::Watchdog => before.saturating_add(1),
                            Cause::Orderly(_) => 0,
                            _ => before,
                        };
                        assert_eq!(resets, expected, "{last:?}");
                        assert!(whose.is_none() || announced.is_some());
                        assert_eq!(count_resets(Some(&last), cause, "before"), (before, None), "the same boot");
                    }
                }
            }
        }
        assert_eq!(count_resets(None, Cause::Watchdog, "now").0, 1);
        assert_eq!(count_resets(None, Cause::Unknown, "now").0, 0);
    }

    #[test]
    fn every_boot_status_with_every_mark_has_the_right_cause() {
        for status in 0..0x80_u32 {
            let has = |bits: u32| status & bits != 0;
            let hardware = [
                (0x01, Cause::Overheat),
                (0x40, Cause::PowerOver),
                (0x10, Cause::PowerUnder),
                (0x02, Cause::FanFault),
                (0x0c, Cause::External),
            ];
            let hardware = hardware.into_iter().find(|(bits, _)| has(*bits)).map(|(_, cause)| cause);
            let found = decide(status, None, "now");
            assert_eq!(found, hardware.unwrap_or(if has(0x20) { Cause::Watchdog } else { Cause::Unknown }));
            for cause in Cause::ALL {
                let running = decide(status, Some(&mark(None, cause)), "now");
                assert_eq!(running, hardware.unwrap_or(if has(0x20) { Cause::Watchdog } else { Cause::Unclean }));
                let reboot = decide(status, Some(&mark(Some(Ending::Reboot), cause)), "now");
                assert_eq!(reboot, hardware.unwrap_or(Cause::Orderly(Ending::Reboot)));
                for off in [Ending::PowerOff, Ending::Halt] {
                    // A watchdog that fires after that means that the board did not go off.
                    let found = decide(status, Some(&mark(Some(off), cause)), "now");
                    assert_eq!(
                        found,
                        hardware.unwrap_or(if has(0x20) { Cause::Watchdog } else { Cause::Orderly(off) })
                    );
                }
                for ended in ENDINGS {
                    assert_eq!(decide(status, Some(&mark(ended, cause)), "before"), cause, "the same boot");
                }
            }
        }
    }

    #[test]
    fn bits_that_name_no_cause_say_nothing() {
        // Drivers have been seen to report their options here.
        assert_eq!(decide(0xffff_ff80, Some(&mark(None, Cause::Unknown)), "now"), Cause::Unclean);
    }

    #[test]
    fn boots_without_an_id_are_different_boots() {
        let mark = Mark { boot_id: NO_BOOT.into(), ..mark(None, Cause::Watchdog) };
        assert_eq!(decide(0, Some(&mark), NO_BOOT), Cause::Unclean);
    }

    #[test]
    fn a_mark_reads_as_it_is_written() {
        for ended in ENDINGS {
            for cause in Cause::ALL {
                for (resets, announced) in [(0, None), (3, Some("web".into())), (255, None)] {
                    let mark = Mark { resets, announced, ..mark(ended, cause) };
                    assert_eq!(Mark::of_text(&mark.to_text()), Some(mark));
                }
            }
        }
    }

    #[test]
    fn a_cut_foreign_or_newer_mark_is_no_mark() {
        let text = mark(Some(Ending::Reboot), Cause::Watchdog).to_text();
        for length in 0..text.len() {
            assert_eq!(Mark::of_text(&text[..length]), None, "{length} bytes");
        }
        assert_eq!(Mark::of_text("2 running before unknown\n"), None);
        assert_eq!(Mark::of_text("1 watchdog before unknown\n"), None);
        assert_eq!(Mark::of_text("1 running before unknown\n"), Some(mark(None, Cause::Unknown)), "an earlier one");
        assert_eq!(Mark::of_text("1 running before unknown 0 - later words\n"), Some(mark(None, Cause::Unknown)));
    }
}
