//! The hardware watchdog: opened before anything else, its timeout set and read back, fed by the loop, handed over when
//! another program takes this process's place, stopped only on an orderly power-off.
//!
//! Opening it starts it. From then on the loop feeds it from its own deadlines, so that it is fed exactly as long as the
//! loop turns: no timer thread, no signal handler. The clock is the monotonic one, which no time setting moves and which
//! stands still during suspend. Where the driver can, the kernel acts a quarter of the timeout before it (the pretimeout), so
//! that its log, with what coracle had to say, still reaches what outlives the reset. One that the board has set stays.
#![forbid(unsafe_code)]

use super::pace::{LOOKS, period, seconds, settle};
use crate::base::units::Millis;
use crate::plan::Watchdog as Configured;
use crate::supervisor::handover::across_exec;
use crate::sys::watchdog::{self as sys, MAGIC_CLOSE, PRETIMEOUT, SET_TIMEOUT, Support};
use crate::sys::{Errno, Result};
use nix::libc::{EBUSY, EINVAL, ENODEV, ENOENT, ENXIO};
use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

/// Where `auto` looks.
const AUTO: [&str; 2] = ["/dev/watchdog0", "/dev/watchdog"];

/// Any byte but this one is a sign of life; this one before the close stops the watchdog, where the driver can.
const MAGIC: u8 = b'V';

/// Takes a sentence for the log.
pub type Say<'a> = &'a mut dyn FnMut(String);

/// What is asked of a device; the tests have one of their own.
trait Card {
    fn support(&self) -> Result<Support>;
    fn boot_status(&self) -> Result<u32>;
    fn set_timeout(&self, seconds: u32) -> Result<u32>;
    fn timeout(&self) -> Result<u32>;
    fn pretimeout(&self) -> Result<u32>;
    fn set_pretimeout(&self, seconds: u32) -> Result<()>;
    fn write(&self, byte: u8) -> Result<()>;
    /// Whether the kernel was told never to stop it; `None` if it does not say.
    fn no_way_out(&self) -> Option<bool>;
    fn keep_open(&self, open: bool) -> Result<()>;
}

impl Card for OwnedFd {
    fn support(&self) -> Result<Support> {
        sys::support(self.as_fd())
    }
    fn boot_status(&self) -> Result<u32> {
        sys::boot_status(self.as_fd())
    }
    fn set_timeout(&self, seconds: u32) -> Result<u32> {
        sys::set_timeout(self.as_fd(), seconds)
    }
    fn timeout(&self) -> Result<u32> {
        sys::timeout(self.as_fd())
    }
    fn pretimeout(&self) -> Result<u32> {
        sys::pretimeout(self.as_fd())
    }
    fn set_pretimeout(&self, seconds: u32) -> Result<()> {
        sys::set_pretimeout(self.as_fd(), seconds)
    }
    fn write(&self, byte: u8) -> Result<()> {
        nix::unistd::write(self, &[byte]).map(drop).map_err(Errno::from)
    }
    fn no_way_out(&self) -> Option<bool> {
        let device = fs::metadata(format!("/proc/self/fd/{}", self.as_raw_fd())).ok()?.rdev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let own = fs::read(format!("/sys/dev/char/{major}:{minor}/nowayout"));
        // /dev/watchdog is the first one by an older number, which has no attributes of its own.
        let value = own.or_else(|_| fs::read("/sys/class/watchdog/watchdog0/nowayout")).ok()?;
        Some(value.first() == Some(&b'1'))
    }
    fn keep_open(&self, open: bool) -> Result<()> {
        across_exec(self, open).map_err(Errno::from)
    }
}

type Opener = fn(&str) -> Result<Box<dyn Card>>;

fn open_device(path: &str) -> Result<Box<dyn Card>> {
    // The standard library opens with O_CLOEXEC: no service inherits it.
    Ok(Box::new(OwnedFd::from(OpenOptions::new().write(true).open(path)?)))
}

/// The watchdog of a board whose config has one, whether its device is there or not.
pub struct Watchdog {
    config: Configured,
    open: Opener,
    state: State,
}

enum State {
    /// Not there, or not free: since when, how often it was looked for, why, and what of that was told.
    Missing {
        since: Millis,
        looks: usize,
        why: Option<Errno>,
        told: Option<Errno>,
    },
    Armed(Armed),
}

struct Armed {
    card: Box<dyn Card>,
    device: Box<str>,
    support: Support,
    timeout: Option<Millis>,
    /// How long before it the kernel acts.
    pretimeout: Option<Millis>,
    next: Millis,
    failing: bool,
}

impl Watchdog {
    /// Takes the device that was handed down, where this program is `another` in the place of one before; else opens the
    /// configured one, which starts it. `None`: the config has none. A device that was handed down to a config without one is
    /// stopped: nobody would feed it.
    pub fn open(config: Option<&Configured>, another: bool, now: Millis, say: Say<'_>) -> Option<Watchdog> {
        let handed_down = if another { handed_down() } else { None };
        let Some(config) = config else {
            if let Some((card, device)) = handed_down {
                let config = Configured { device: None, timeout: Millis::default() };
                let mut watchdog = Watchdog::new(&config, open_device, now);
                watchdog.arm(card, &device, now, &mut |_| {});
                watchdog.stop(say);
            }
            return None;
        };
        let mut watchdog = Watchdog::new(config, open_device, now);
        match handed_down {
            Some((card, device)) => watchdog.arm(card, &device, now, say),
            None => watchdog.look(now, say),
        }
        Some(watchdog)
    }

    fn new(config: &Configured, open: Opener, now: Millis) -> Watchdog {
        let state = State::Missing { since: now, looks: 0, why: None, told: None };
        Watchdog { config: config.clone(), open, state }
    }

    /// When the loop has to come back: to feed, or to look again for a device that is missing. `None`: never.
    pub fn next(&self) -> Option<Millis> {
        match &self.state {
            State::Armed(armed) => Some(armed.next),
            State::Missing { since, looks, .. } => LOOKS.get(*looks).map(|after| since.plus(*after)),
        }
    }

    /// Whether there is a device, so that it counts whether it is fed.
    pub fn is_armed(&self) -> bool {
        matches!(self.state, State::Armed(_))
    }

    /// Does what is due; `fed`: unless the board is to be reset.
    pub fn tend(&mut self, now: Millis, fed: bool, say: Say<'_>) {
        if self.next().is_none_or(|next| now < next) {
            return;
        }
        match &mut self.state {
            State::Armed(armed) if fed => armed.feed(now, say),
            State::Armed(armed) => armed.next = now.plus(period(armed.timeout)),
            State::Missing { looks, .. } => {
                *looks += 1;
                self.look(now, say);
            }
        }
    }

    /// Looks for a device that is missing: drivers have been loaded.
    pub fn look_again(&mut self, now: Millis, say: Say<'_>) {
        if matches!(self.state, State::Missing { .. }) {
            self.look(now, say);
        }
    }

    /// What the driver says about the last reset, as bits; 0 if it does not know or there is none.
    pub fn boot_status(&self) -> u32 {
        match &self.state {
            State::Armed(armed) => armed.card.boot_status().unwrap_or(0),
            State::Missing { .. } => 0,
        }
    }

    /// Everything for a reboot is done: feeds once more and lets it run, so that a reboot that hangs is a reset too.
    pub fn last_sign(&mut self, now: Millis, say: Say<'_>) {
        if let State::Armed(armed) = &mut self.state {
            armed.feed(now, say);
        }
    }

    /// Stops it for good, for an orderly power-off or the end of a supervisor under another init, or says that it cannot
    /// be stopped.
    pub fn stop(self, say: Say<'_>) {
        let State::Armed(armed) = self.state else { return };
        let why = if armed.support.options & MAGIC_CLOSE == 0 {
            "its driver knows no way to"
        } else if armed.card.no_way_out() == Some(true) {
            "the kernel was told never to (nowayout)"
        } else {
            if let Err(errno) = armed.card.write(MAGIC) {
                say(format!("the watchdog {} cannot be stopped: {errno}", armed.device));
            }
            return;
        };
        // A last one, so that what is still to do has the whole time.
        let _ = armed.card.write(0);
        let after = armed.timeout.map_or("soon".to_owned(), |timeout| format!("{timeout} from now"));
        say(format!("the watchdog {} cannot be stopped, {why}: it resets the board {after}", armed.device));
    }

    /// Feeds it and lets it stay open through the next execve(2), where [`Watchdog::open`] of the next program finds it; or, not
    /// `open`, no longer.
    pub fn keep_open(&mut self, open: bool, now: Millis, say: Say<'_>) {
        let State::Armed(armed) = &mut self.state else { return };
        armed.feed(now, say);
        if let Err(errno) = armed.card.keep_open(open) {
            say(format!("the watchdog {} cannot be handed over: {errno}", armed.device));
        }
    }

    /// What is known about it, name and value, for `coracle inspect device`.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        match &self.state {
            State::Missing { why, .. } => {
                let device = self.config.device.as_deref().unwrap_or("auto").to_owned();
                let why = why.map_or_else(String::new, |errno| errno.to_string());
                vec![("device", device), ("missing", why)]
            }
            State::Armed(armed) => {
                let timeout = armed.timeout.map_or("unknown".to_owned(), |timeout| timeout.to_string());
                vec![
                    ("device", armed.device.to_string()),
                    ("driver", armed.identity()),
                    ("timeout", timeout),
                    ("pretimeout", armed.pretimeout.map_or("none".to_owned(), |before| before.to_string())),
                    ("fed_every", period(armed.timeout).to_string()),
                ]
            }
        }
    }

    fn look(&mut self, now: Millis, say: Say<'_>) {
        let paths: Vec<String> = match &self.config.device {
            Some(path) => vec![path.to_string()],
            None => AUTO.map(str::to_owned).into(),
        };
        let mut failure = (Errno(ENOENT), 0);
        for (at, path) in paths.iter().enumerate() {
            match (self.open)(path) {
                Ok(card) => return self.arm(card, path, now, say),
                Err(errno @ Errno(ENOENT | ENODEV | ENXIO)) => failure = (errno, at),
                Err(errno) => {
                    failure = (errno, at);
                    break;
                }
            }
        }
        let (errno, at) = failure;
        let path = paths.get(at).map_or("", String::as_str);
        self.missing(errno, path, say);
    }

    /// Says what is wrong, once as long as it stays the same, and once more when it is looked for no longer. A device
    /// that is not there at the first look may come with the modules, which are not loaded yet.
    fn missing(&mut self, errno: Errno, path: &str, say: Say<'_>) {
        let State::Missing { looks, why, told, .. } = &mut self.state else { return };
        let (first, last) = (why.replace(errno).is_none(), *looks >= LOOKS.len());
        let absent = matches!(errno, Errno(ENOENT | ENODEV | ENXIO));
        if first && absent || *told == Some(errno) && !last {
            return;
        }
        *told = Some(errno);
        let until = if last { "it is looked for no longer" } else { "it is looked for again for half a minute" };
        let what = match errno {
            _ if absent => {
                let path =
                    if self.config.device.is_some() { path } else { "device under /dev/watchdog or /dev/watchdog0" };
                format!("there is no {path}; load its driver with device.modules, or remove device.watchdog")
            }
            Errno(EBUSY) => format!("another process has {path} open; end that one, or remove device.watchdog"),
            errno => format!("cannot open {path}: {errno}"),
        };
        say(format!("NO HARDWARE WATCHDOG, a hang of the supervisor or the kernel is for good: {what}; {until}"));
    }

    fn arm(&mut self, card: Box<dyn Card>, device: &str, now: Millis, say: Say<'_>) {
        let support = match card.support() {
            Ok(support) => support,
            Err(errno) => {
                self.state = State::Missing { since: now, looks: LOOKS.len(), why: Some(errno), told: Some(errno) };
                return say(format!("NO HARDWARE WATCHDOG: {device} is no watchdog: {errno}; correct device.watchdog"));
            }
        };
        let asked = self.config.timeout;
        let settable = support.options & SET_TIMEOUT != 0;
        let set = settable.then(|| settle(seconds(asked), Errno(EINVAL), &mut |seconds| card.set_timeout(seconds)));
        // The driver that rounds may say so in the one answer and not in the other: the shorter one is safe.
        let read = card.timeout().ok();
        let told = [set.and_then(Result::ok), read].into_iter().flatten().filter(|seconds| *seconds > 0).min();
        let timeout = told.map(|seconds| Millis::from_secs(u64::from(seconds)));
        let pretimeout = told.filter(|_| support.options & PRETIMEOUT != 0).and_then(|told| warning(&*card, told));
        let failing = false;
        let mut armed = Armed { card, device: device.into(), support, timeout, pretimeout, next: now, failing };
        say(armed.sentence(asked, settable, set.and_then(Result::err)));
        armed.feed(now, say);
        self.state = State::Armed(armed);
    }
}

/// Has the kernel act before the timeout of `told` seconds, later than a sign of life is due; gives how long before.
fn warning(card: &dyn Card, told: u32) -> Option<Millis> {
    let board = card.pretimeout().ok().filter(|seconds| *seconds > 0);
    let ours = Some(told / 4).filter(|seconds| *seconds > 0);
    let set = board.or_else(|| ours.filter(|seconds| card.set_pretimeout(*seconds).is_ok()));
    set.map(|seconds| Millis::from_secs(u64::from(seconds)))
}

impl Armed {
    fn feed(&mut self, now: Millis, say: Say<'_>) {
        let fed = self.card.write(0);
        if let (Err(errno), false) = (&fed, self.failing) {
            say(format!("the watchdog {} cannot be fed: {errno}; it will reset the board", self.device));
        }
        self.failing = fed.is_err();
        self.next = now.plus(period(self.timeout));
    }

    fn identity(&self) -> String {
        let name = self.support.identity.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    fn sentence(&self, asked: Millis, settable: bool, refused: Option<Errno>) -> String {
        let (device, driver, every) = (&self.device, self.identity(), period(self.timeout));
        let Some(timeout) = self.timeout else {
            return format!("watchdog {device} ({driver}): its timeout can be neither set nor read; fed every {every}");
        };
        let before = self.pretimeout.map_or(String::new(), |before| format!("; the kernel acts {before} before"));
        let note = match refused {
            _ if timeout == asked => String::new(),
            Some(errno) => format!("; {asked} was asked for, but the driver sets no timeout: {errno}"),
            None if settable => format!("; {asked} was asked for, this is the driver's nearest"),
            None => format!("; {asked} was asked for, but it cannot be set"),
        };
        format!(
            "watchdog {device} ({driver}): resets the board {timeout} after the last sign of life, fed every {every}{note}{before}"
        )
    }
}

/// The device that the program before an execve(2) has left open, with its path for people.
fn handed_down() -> Option<(Box<dyn Card>, String)> {
    let card = sys::inherit()?;
    let path = fs::read_link(format!("/proc/self/fd/{}", card.as_raw_fd()));
    let path = path.map_or_else(|_| "handed over".to_owned(), |path| path.display().to_string());
    Some((Box::new(card), path))
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
