//! A supervisor under another init: it ends when it is told to, feeds the watchdog if the config has one, and tells
//! systemd how it stands (sd_notify(3)).
#![forbid(unsafe_code)]

use super::first::watchdog_facts;
use super::watchdog::Watchdog;
use crate::base::units::Millis;
use crate::plan;
use crate::supervisor::keeper::{End, Keeper, Moment, Say, Standing};
use crate::supervisor::run::monotonic;
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The variable that names the socket of whoever wants to know.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// How long a message may wait for room in that socket: losing it is better than holding up the services.
const PATIENCE: Duration = Duration::from_secs(1);

/// The keeper of a supervisor that is not the board's first process.
#[derive(Default)]
pub struct Under {
    detached: bool,
    another: bool,
    told: Option<(UnixDatagram, SocketAddr)>,
    configured: Option<plan::Watchdog>,
    watchdog: Option<Watchdog>,
}

impl Under {
    /// `detached`: SIGHUP, the end of the terminal, is no reason to end; `another`: it is in the place of a program before. The
    /// watchdog is opened once there is a supervisor.
    pub fn new(detached: bool, another: bool, watchdog: Option<&plan::Watchdog>) -> Under {
        let address = std::env::var_os(VARIABLE).and_then(|name| address(&name));
        let told = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_write_timeout(Some(PATIENCE)).ok()?;
            Some((socket, address))
        });
        Under { detached, another, told, configured: watchdog.cloned(), watchdog: None }
    }

    /// Everything is stopped: the watchdog too, since nobody feeds it any more.
    pub fn let_go(&mut self, say: Say<'_>) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.stop(say);
        }
    }
}

/// The address that the variable names: a path, or with `@` in front an abstract name (unix(7)).
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes().split_first()? {
        (b'/', _) => SocketAddr::from_pathname(name).ok(),
        (b'@', rest) => SocketAddr::from_abstract_name(rest).ok(),
        _ => None,
    }
}

impl Keeper for Under {
    fn asked(&self, signal: Signal) -> Option<End> {
        (signal != Signal::SIGHUP || !self.detached).then_some(End::Exit)
    }

    fn may(&self, end: &End) -> bool {
        *end == End::Exit
    }

    fn next_deadline(&self) -> Option<Millis> {
        self.watchdog.as_ref().and_then(Watchdog::next)
    }

    fn act(&mut self, now: Millis, standing: Standing<'_>, say: Say<'_>) -> Option<End> {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.tend(now, standing.lacking.is_none(), say);
        }
        None
    }

    fn is_watched(&self) -> bool {
        self.watchdog.as_ref().is_some_and(Watchdog::is_armed)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        self.watchdog.as_ref().map(watchdog_facts).into_iter().collect()
    }

    fn keep_open(&mut self, open: bool, say: Say<'_>) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.keep_open(open, monotonic(), say);
        }
    }

    fn moment(&mut self, moment: Moment<'_>, say: Say<'_>) {
        if let Moment::Supervising = moment {
            self.watchdog = Watchdog::open(self.configured.as_ref(), self.another, monotonic(), say);
        }
        let Some((socket, address)) = &self.told else { return };
        let text = match moment {
            Moment::Supervising => "READY=1\nSTATUS=supervising",
            Moment::Settled(true) => "STATUS=everything runs",
            Moment::Settled(false) => "STATUS=some services do not run; `coracle ps` shows them",
            Moment::Stopping(_) => "STOPPING=1\nSTATUS=stopping everything",
        };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            say(format!("{VARIABLE}: the init that started coracle could not be told how it stands: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notify_socket_is_a_path_or_an_abstract_name() {
        let path = address(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(path.as_pathname().unwrap().to_str(), Some("/run/systemd/notify"));
        let name = address(OsStr::new("@run/finit/notify/17")).unwrap();
        assert_eq!(name.as_abstract_name(), Some(b"run/finit/notify/17".as_slice()));
        for other in ["", "vsock:2:1234", "relative/path"] {
            assert!(address(OsStr::new(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn a_supervisor_under_another_init_ends_and_leaves_the_board_alone() {
        let (front, back) = (Under::default(), Under { detached: true, ..Under::default() });
        assert_eq!(front.asked(Signal::SIGHUP), Some(End::Exit));
        assert_eq!(back.asked(Signal::SIGHUP), None);
        assert_eq!(back.asked(Signal::SIGTERM), Some(End::Exit));
        assert!(!back.may(&End::PowerOff) && back.may(&End::Exit));
    }
}
