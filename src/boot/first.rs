//! The keeper of a first process: it feeds the watchdog, takes the signals of an init, and knows when rescue is over.
#![forbid(unsafe_code)]

use super::cause::{Ending, NO_BOOT, decide};
use super::choose;
use super::early::{self, c_string};
use super::mark::{self, Past};
use super::watchdog::Watchdog;
use crate::base::units::Millis;
use crate::image::text::quote;
use crate::plan::Rescue;
use crate::sandbox::cgroup::Known;
use crate::supervisor::keeper::{End, Keeper, Moment, Say, Standing};
use crate::supervisor::report::Places;
use crate::supervisor::run::monotonic;
use crate::sys::fault;
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};

/// The longest that everything may take to stop before what is left is killed: a board that is told to reboot does so.
pub const SHUTDOWN: Millis = Millis::from_secs(90);

/// How long a boot has to go well until the resets before it count no longer.
const PROOF: Millis = Millis::from_secs(600);

/// After that time the first services have started, and there is some for what they do not wait for.
const AFTER_START: Millis = Millis(100);

/// What a signal asks of a first process, as of BusyBox init; Ctrl-Alt-Del comes as SIGINT. Pure.
pub fn asked(signal: Signal) -> Option<End> {
    match signal {
        Signal::SIGTERM | Signal::SIGINT => Some(End::Reboot("".into())),
        Signal::SIGUSR1 => Some(End::Halt),
        Signal::SIGUSR2 | Signal::SIGPWR => Some(End::PowerOff),
        _ => None,
    }
}

/// The state of a first process beside its loop.
#[derive(Default)]
pub struct First {
    /// Where messages go.
    pub places: Places,
    /// The hardware watchdog.
    pub watchdog: Option<Watchdog>,
    /// What is known of the boots before.
    pub past: Option<Past>,
    /// When it is time for what no service waits for.
    pub later_at: Option<Millis>,
    /// Whether [`early::for_host`] is done.
    pub host_is_ready: bool,
    /// The state folder, where the next boot reads of this one, if it is kept.
    pub state: Option<PathBuf>,
    /// The service for which a reset is announced.
    pub announced: Option<Box<str>>,
    /// Resets in a row after which there is no further one.
    pub max_resets: u8,
    /// Whether the board is being rebooted for that service.
    pub rebooting: bool,
    /// When the resets before this boot are forgotten, if all is well.
    pub forget_at: Option<Millis>,
    /// What is not as the config says.
    pub degraded: Vec<String>,
    /// Whether the time of day was guessed.
    pub clock_is_guessed: bool,
    /// The state folder, and a config to be kept there once everything runs with it.
    pub unproven: Option<(PathBuf, Vec<u8>)>,
    /// When rescue is over.
    pub reboot_at: Option<Millis>,
    /// The end that this process was on its way to when it failed.
    pub ending: Option<End>,
    /// Whether it has failed there again: nobody is asked to end any more.
    pub hurried: bool,
    /// What is known about the cgroups without a look.
    pub cgroups: Option<Known<'static>>,
    /// When a failure of this process is no longer the next one in a row.
    pub calm_at: Option<Millis>,
}

impl First {
    /// From now on the board is in rescue.
    pub fn begin_rescue(&mut self, rescue: Rescue) {
        self.unproven = None;
        self.reboot_at = (rescue.reboot_after.0 > 0).then(|| monotonic().plus(rescue.reboot_after));
    }

    /// Feeds the watchdog if that is due.
    pub fn feed(&mut self, say: Say<'_>) {
        let now = monotonic();
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.tend(now, true, say);
        }
    }

    /// Asks the driver, and the mark in the state folder if that is kept, why the board was last reset; marks this boot.
    pub fn look_back(&mut self, state: Option<&Path>, say: Say<'_>) {
        let status = self.watchdog.as_ref().map_or(0, Watchdog::boot_status);
        let (past, why) = match state {
            Some(state) => mark::begin(state, status),
            // Nothing could be counted.
            None => (Past { cause: decide(status, None, NO_BOOT), resets: 0, announced: None }, None),
        };
        self.later_at = Some(monotonic().plus(AFTER_START));
        self.forget_at = (past.resets > 0).then(|| monotonic().plus(PROOF));
        (self.past, self.state) = (Some(past), state.map(Path::to_owned));
        why.into_iter().for_each(say);
    }

    /// Why nothing resets the board any more, if it has been reset too often; `lifelines`: they run alone.
    pub fn loop_of_resets(&self, lifelines: bool) -> Option<String> {
        let past = self.past.as_ref().filter(|_| self.is_guarded())?;
        let whose = past.announced.as_deref().map_or(String::new(), |name| format!(", the last one because of {name}"));
        let what = if lifelines { "only lifelines run" } else { "there are no lifelines, so everything runs" };
        let resets = past.resets;
        Some(format!(
            "{resets} resets in a row{whose}: {what}, and nothing resets the board; correct it, then `coracle reboot`"
        ))
    }

    /// Makes what programs on the board's own root or network expect, once.
    pub fn prepare_host(&mut self, say: Say<'_>) {
        if !core::mem::replace(&mut self.host_is_ready, true) {
            early::for_host(say);
        }
    }

    /// Does what no service waits for, once.
    fn catch_up(&mut self, say: Say<'_>) {
        if self.later_at.take().is_none() {
            return;
        }
        self.prepare_host(say);
        if let Some(past) = &self.past {
            say(format!("last reset: {}", past.cause));
        }
    }

    fn is_guarded(&self) -> bool {
        self.past.as_ref().is_some_and(|past| past.resets >= self.max_resets.max(1))
    }

    /// Tells the next boot for which service this one is about to be reset, or that it is not.
    fn announce(&mut self, service: Option<&str>, say: Say<'_>) {
        self.announced = service.map(Box::from);
        if let (Some(state), Some(past)) = (&self.state, &self.past)
            && let Err(why) = mark::write_mark(state, past, None, self.announced.clone())
        {
            say(why);
        }
    }

    /// The board has been well for long enough: the resets before this boot count no longer.
    fn forget(&mut self, now: Millis, standing: Standing<'_>, say: Say<'_>) {
        if self.forget_at.is_none_or(|at| at > now) {
            return;
        }
        let well = standing == Standing::default() && !self.is_guarded();
        self.forget_at = (!well && !self.is_guarded()).then(|| now.plus(PROOF));
        if let Some(past) = self.past.as_mut().filter(|_| well) {
            past.resets = 0;
            self.announce(None, say);
        }
    }

    /// Everything is stopped and about to be unmounted: marks that the board ended in order.
    pub fn mark_end(&mut self, end: &End, say: Say<'_>) {
        let ending = match end {
            End::PowerOff => Ending::PowerOff,
            End::Halt => Ending::Halt,
            End::Reboot(_) | End::Exit => Ending::Reboot,
        };
        // Whoever powers it off has acted.
        let announced = self.announced.take().filter(|_| ending == Ending::Reboot);
        if let (Some(state), Some(past)) = (&self.state, &self.past)
            && let Err(why) = mark::write_mark(state, past, Some(ending), announced)
        {
            say(why);
        }
    }

    /// The last thing before the end: on a reboot the watchdog runs on, and resets a board that does not come to it.
    pub fn let_go(&mut self, end: &End, say: Say<'_>) {
        match (end, self.watchdog.take()) {
            (End::PowerOff | End::Halt, Some(watchdog)) => watchdog.stop(say),
            (_, Some(mut watchdog)) => {
                watchdog.last_sign(monotonic(), say);
                self.watchdog = Some(watchdog);
            }
            (_, None) => {}
        }
    }
}

/// What is known about the watchdog, for `inspect device`.
pub fn watchdog_facts(watchdog: &Watchdog) -> (&'static str, String) {
    let mut object = String::from("{");
    for (at, (key, value)) in watchdog.facts().iter().enumerate() {
        object.push_str(if at == 0 { "" } else { "," });
        quote(&mut object, key);
        object.push(':');
        quote(&mut object, value);
    }
    object.push('}');
    ("watchdog", object)
}

impl Keeper for First {
    fn signals(&self) -> &'static [Signal] {
        &[Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGPWR]
    }

    fn asked(&self, signal: Signal) -> Option<End> {
        asked(signal)
    }

    fn may(&self, end: &End) -> bool {
        *end != End::Exit
    }

    fn patience(&self) -> Option<Millis> {
        Some(SHUTDOWN)
    }

    fn places(&self) -> Places {
        self.places
    }

    fn cgroups(&self) -> Option<&Known<'static>> {
        self.cgroups.as_ref()
    }

    fn next_deadline(&self) -> Option<Millis> {
        let feed = self.watchdog.as_ref().and_then(Watchdog::next);
        let ending = self.ending.as_ref().map(|_| Millis(0));
        Millis::earliest(&[feed, ending, self.reboot_at, self.calm_at, self.forget_at, self.later_at])
    }

    fn act(&mut self, now: Millis, standing: Standing<'_>, say: Say<'_>) -> Option<End> {
        if self.later_at.is_some_and(|at| at <= now) {
            self.catch_up(say);
        }
        // Announced before it is felt: what is written now is what the next boot knows. A reboot that is under way stays
        // announced.
        if self.is_watched() && !self.rebooting && self.announced.as_deref() != standing.lacking {
            self.announce(standing.lacking, say);
        }
        if self.calm_at.take_if(|at| *at <= now).is_some() {
            let _ = fault::arm(1);
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.tend(now, self.announced.is_none() || self.rebooting, say);
        }
        self.forget(now, standing, say);
        if self.ending.is_some() {
            return self.ending.take();
        }
        self.reboot_at.filter(|at| *at <= now)?;
        self.reboot_at = None;
        Some(End::Reboot("".into()))
    }

    fn is_watched(&self) -> bool {
        !self.is_guarded() && self.watchdog.as_ref().is_some_and(Watchdog::is_armed)
    }

    fn may_reset(&mut self, service: &str) -> Result<(), &'static str> {
        if self.is_guarded() {
            return Err("the board has been reset for too often in a row and is left as it is");
        }
        (self.announced, self.rebooting) = (Some(service.into()), true);
        Ok(())
    }

    fn moment(&mut self, moment: Moment<'_>, say: Say<'_>) {
        if let Moment::Stopping(end) = moment {
            fault::ending(c_string(&end.to_word()));
            self.catch_up(say);
            self.reboot_at = None;
        }
        if let Moment::Settled(true) = moment
            && let Some((state, bytes)) = self.unproven.take()
            && let Err(error) = choose::keep(&state, &bytes)
        {
            say(format!("this config is not kept as the last good one in {}: {error}", state.display()));
        }
    }

    fn keep_open(&mut self, open: bool, say: Say<'_>) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.keep_open(open, monotonic(), say);
        }
    }

    fn degraded(&self) -> &[String] {
        &self.degraded
    }

    fn clock_is_guessed(&self) -> bool {
        self.clock_is_guessed
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        facts.extend(self.watchdog.as_ref().map(watchdog_facts));
        if let Some(past) = &self.past {
            let mut word = String::new();
            quote(&mut word, past.cause.word());
            facts.push(("last_reset", word));
            facts.push(("resets", past.resets.to_string()));
            word = String::new();
            quote(&mut word, past.announced.as_deref().unwrap_or_default());
            facts.push(("reset_for", word));
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_mean_what_they_mean_to_busybox_init() {
        for (signal, end) in [
            (Signal::SIGTERM, Some(End::Reboot("".into()))),
            (Signal::SIGINT, Some(End::Reboot("".into()))),
            (Signal::SIGUSR1, Some(End::Halt)),
            (Signal::SIGUSR2, Some(End::PowerOff)),
            (Signal::SIGPWR, Some(End::PowerOff)),
            (Signal::SIGHUP, None),
            (Signal::SIGQUIT, None),
        ] {
            assert_eq!(asked(signal), end, "{signal}");
        }
    }

    #[test]
    fn a_rescue_ends_in_a_reboot_once_and_only_if_it_is_to() {
        let mut first = First::default();
        first.begin_rescue(Rescue { shell: false, reboot_after: Millis(1) });
        let at = first.next_deadline().unwrap();
        assert_eq!(first.act(Millis(at.0 - 1), Standing::default(), &mut |_| {}), None);
        assert_eq!(first.act(at, Standing::default(), &mut |_| {}), Some(End::Reboot("".into())));
        assert_eq!((first.act(at, Standing::default(), &mut |_| {}), first.next_deadline()), (None, None));
        first.begin_rescue(Rescue { shell: false, reboot_after: Millis(0) });
        assert_eq!(first.next_deadline(), None);
    }

    #[test]
    fn an_end_that_was_asked_for_before_a_failure_comes_first_and_once() {
        let mut first = First { ending: Some(End::PowerOff), ..First::default() };
        assert_eq!(first.next_deadline(), Some(Millis(0)));
        assert_eq!(first.act(Millis(5), Standing::default(), &mut |_| {}), Some(End::PowerOff));
        assert_eq!((first.act(Millis(5), Standing::default(), &mut |_| {}), first.next_deadline()), (None, None));
    }

    #[test]
    fn the_last_reset_is_told_once_after_the_first_start_and_before_the_end() {
        let (mut first, mut said) = (First { host_is_ready: true, ..First::default() }, Vec::new());
        for ended in [false, true] {
            first.look_back(None, &mut |sentence| said.push(sentence));
            let at = first.next_deadline().unwrap();
            first.act(Millis(at.0 - 1), Standing::default(), &mut |sentence| said.push(sentence));
            assert_eq!(said, [""; 0]);
            if ended {
                first.moment(Moment::Stopping(&End::Halt), &mut |sentence| said.push(sentence));
            }
            first.act(at, Standing::default(), &mut |sentence| said.push(sentence));
            assert!(said.len() == 1 && said[0].starts_with("last reset: "), "{said:?}");
            assert_eq!(first.next_deadline(), None);
            said.clear();
        }
    }

    #[test]
    fn a_first_process_cannot_be_asked_to_end_and_leave_the_board() {
        assert!(!First::default().may(&End::Exit));
        assert!(First::default().may(&End::Reboot("recovery".into())));
    }

    #[test]
    fn a_config_is_kept_once_everything_runs_and_not_before() {
        let state = tempfile::tempdir().unwrap();
        let kept = || std::fs::read_dir(state.path()).unwrap().count();
        let mut first = First { unproven: Some((state.path().into(), b"{}".to_vec())), ..First::default() };
        first.moment(Moment::Supervising, &mut |_| {});
        first.moment(Moment::Settled(false), &mut |_| {});
        assert_eq!(kept(), 0);
        first.moment(Moment::Settled(true), &mut |_| {});
        assert_eq!(kept(), 1);
    }
}
