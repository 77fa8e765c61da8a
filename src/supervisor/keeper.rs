//! What a layer above hooks into the loop. The first process of a board feeds a watchdog, takes more signals and knows
//! how the board ends; a supervisor under another init does none of that.
#![forbid(unsafe_code)]

use super::report::Places;
use crate::base::units::Millis;
use crate::sandbox::cgroup::Known;
use nix::sys::signal::Signal;

/// What is to happen once everything is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The supervisor ends.
    Exit,
    /// The board starts anew; a text that is not empty goes to the boot loader (reboot(2), LINUX_REBOOT_CMD_RESTART2).
    Reboot(Box<str>),
    /// The board switches itself off.
    PowerOff,
    /// The board stands still, with its power on.
    Halt,
}

impl End {
    /// The end as the subject of a sentence.
    pub fn words(&self) -> &'static str {
        match self {
            End::Exit => "the supervisor ends",
            End::Reboot(_) => "the board reboots",
            End::PowerOff => "the board powers off",
            End::Halt => "the board halts",
        }
    }

    /// The end as a word for a program that has to go on with it.
    pub fn to_word(&self) -> String {
        match self {
            End::Exit => String::new(),
            End::Reboot(word) => [REBOOT, word].concat(),
            End::PowerOff => POWER_OFF.into(),
            End::Halt => HALT.into(),
        }
    }

    /// The end that such a word means. What is damaged means a reboot.
    pub fn of_word(word: &str) -> End {
        match word {
            POWER_OFF => End::PowerOff,
            HALT => End::Halt,
            word => End::Reboot(word.strip_prefix(REBOOT).unwrap_or_default().into()),
        }
    }
}

const REBOOT: &str = "reboot ";
const POWER_OFF: &str = "poweroff";
const HALT: &str = "halt";

/// A point in the loop's life.
#[derive(Debug, Clone, Copy)]
pub enum Moment<'a> {
    /// It answers on its socket; nothing is started yet.
    Supervising,
    /// Everything that boot starts runs or is done (`true`), or some of it does not run (`false`). Comes once.
    Settled(bool),
    /// It begins to stop everything, for this end.
    Stopping(&'a End),
}

/// Takes a sentence for the log.
pub type Say<'a> = &'a mut dyn FnMut(String);

/// How the services are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing<'a> {
    /// A critical service that is not well and has used up what may be done for it.
    pub lacking: Option<&'a str>,
    /// Whether any service is on its way to recovery.
    pub recovering: bool,
}

/// What the loop asks and tells.
pub trait Keeper {
    /// Signals to be heard of beyond TERM, INT, HUP and QUIT.
    fn signals(&self) -> &'static [Signal] {
        &[]
    }

    /// What a signal asks for; `None`: nothing.
    fn asked(&self, signal: Signal) -> Option<End>;

    /// Whether `end` may be asked for over the control socket.
    fn may(&self, end: &End) -> bool;

    /// The longest that everything may take to stop, where the services' own timeouts allow more; `None`: no bound.
    fn patience(&self) -> Option<Millis> {
        None
    }

    /// Where messages go.
    fn places(&self) -> Places {
        Places::Console
    }

    /// What is known of the cgroups already.
    fn cgroups(&self) -> Option<&Known<'static>> {
        None
    }

    /// When [`Keeper::act`] is due.
    fn next_deadline(&self) -> Option<Millis> {
        None
    }

    /// Does what is due at `now`, knowing how the services are. What it gives is to happen as if it had been asked for.
    fn act(&mut self, _now: Millis, _state: Standing<'_>, _say: Say<'_>) -> Option<End> {
        None
    }

    /// Whether there is a watchdog that is fed only while no service is lacking.
    fn is_watched(&self) -> bool {
        false
    }

    /// A service does not recover: whether the board is rebooted for it, which is then remembered as announced.
    ///
    /// # Errors
    /// Why not, as half a sentence.
    fn may_reset(&mut self, _service: &str) -> Result<(), &'static str> {
        Err("this supervisor is not the board's first process and cannot reboot it")
    }

    /// Hears of a moment.
    fn moment(&mut self, _moment: Moment<'_>, _say: Say<'_>) {}

    /// Another program is about to take the place of this one and is to find open what the keeper has (`true`); or it could not
    /// be executed.
    fn keep_open(&mut self, _open: bool, _say: Say<'_>) {}

    /// What makes the board less than its config says, each a sentence for `ps` and `inspect device`.
    fn degraded(&self) -> &[String] {
        &[]
    }

    /// Whether the time of day was guessed when the board came up, for want of a clock that shows it.
    fn clock_is_guessed(&self) -> bool {
        false
    }

    /// Keys for `inspect device`, each with a value that is JSON already.
    fn facts(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_comes_back_as_a_word_and_what_is_damaged_is_a_reboot() {
        for end in [End::PowerOff, End::Halt, End::Reboot("".into()), End::Reboot("recovery mode".into())] {
            assert_eq!(End::of_word(&end.to_word()), end);
        }
        for damaged in ["", "\u{1}", "power"] {
            assert_eq!(End::of_word(damaged), End::Reboot("".into()));
        }
    }
}
