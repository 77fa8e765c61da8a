//! What the board has to come to before a service starts: looked at, and watched by what the kernel tells of itself. What
//! no service waits for is not watched.
#![forbid(unsafe_code)]

use super::awaited::Awaited;
use crate::base::built::BUILT;
use crate::base::mountinfo::Mounted;
use crate::base::units::Millis;
use crate::config::values::parts;
use crate::plan::{Await, Plan, Schedule, Service, Timer};
use crate::sys::board::clock_is_synchronized;
use crate::sys::process::link_is_running;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The mounts of this mount namespace (proc_pid_mountinfo(5)); a poll tells of each change.
const MOUNTS: &str = "/proc/self/mountinfo";
/// Messages of the kernel about links that are taken in at a time.
const LINKS: usize = 64;
/// When the timer that tells of steps of the clock would fire by itself: the year 2286, or the last time that 32 bits hold.
const NEVER: i64 = if size_of::<libc::timespec>() > 8 { 9_999_999_999 } else { i32::MAX as i64 };

/// The board as services wait for it.
#[derive(Debug)]
pub struct Lookout {
    mounts: Option<File>,
    links: Option<OwnedFd>,
    clock: Option<TimerFd>,
    /// The kernel's word of devices that come and go (NETLINK_KOBJECT_UEVENT).
    usb: Option<OwnedFd>,
    /// Whether the time is a guess until someone sets it.
    guessed: bool,
}

impl Lookout {
    /// Watches what the services of `plan` wait for. What cannot be watched is looked at again by `coracle start`.
    pub fn new(plan: &Plan, clock_is_guessed: bool) -> Lookout {
        let wanted = |wanted: fn(&Await) -> bool| plan.services.iter().flat_map(|service| &service.awaits).any(wanted);
        let daily = |timer: Timer| matches!(timer.schedule, Schedule::At(_));
        let usb =
            plan.services.iter().flat_map(|service| &service.devices).any(|device| !device.source.starts_with('/'));
        let timers = plan.services.iter().any(|service| service.timer.is_some_and(daily));
        Lookout {
            mounts: wanted(|what| matches!(what, Await::Mount(_))).then(|| File::open(MOUNTS).ok()).flatten(),
            links: wanted(|what| matches!(what, Await::Link(_)))
                .then(|| news(SockProtocol::NetlinkRoute, libc::RTMGRP_LINK as u32).ok())
                .flatten(),
            clock: (wanted(|what| *what == Await::Clock) || timers).then(|| clock().ok()).flatten(),
            usb: usb.then(|| news(SockProtocol::NetlinkKObjectUEvent, 1).ok()).flatten(),
            guessed: clock_is_guessed,
        }
    }

    /// Adds all that is watched to `epoll`, under one mark.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn join(&self, epoll: &Epoll, mark: u64) -> nix::Result<()> {
        let fds = [
            // A change of the mounts is an exception: the file itself can always be read.
            self.mounts.as_ref().map(|mounts| (mounts.as_fd(), EpollFlags::EPOLLPRI)),
            self.links.as_ref().map(|links| (links.as_fd(), EpollFlags::EPOLLIN)),
            self.usb.as_ref().map(|usb| (usb.as_fd(), EpollFlags::EPOLLIN)),
            self.clock.as_ref().map(|clock| (clock.as_fd(), EpollFlags::EPOLLIN)),
        ];
        fds.into_iter().flatten().try_for_each(|(fd, flags)| epoll.add(fd, EpollEvent::new(flags, mark)))
    }

    /// Takes in what the kernel told; whether the clock was set.
    pub fn attend(&mut self) -> bool {
        for news in [&self.links, &self.usb].into_iter().flatten() {
            // What the messages say is looked up, so that none has to be read and none can be missed.
            let more =
                |_: &usize| recv(news.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT) != Err(nix::Error::EAGAIN);
            (0..LINKS).take_while(more).for_each(drop);
        }
        let set = self.clock.as_ref().is_some_and(|clock| clock.wait().is_ok());
        self.guessed &= !set;
        set
    }

    /// By how many milliseconds the wall clock is ahead of the monotonic one, which shows `now`; `None`: it is not set.
    pub fn wall(&self, now: Millis) -> Option<i64> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        self.has(&Await::Clock).then(|| since.saturating_sub_unsigned(now.0))
    }

    /// The first thing that `service` waits for. A path is watched by `awaited` from now on.
    pub fn lack<'s>(&self, service: &'s Service, awaited: &mut Awaited) -> Option<&'s Await> {
        service.awaits.iter().find(|what| {
            if let Await::Path(path) = what
                && !self.has(what)
            {
                // Watched before the look that counts: what appears in between is not missed.
                awaited.watch(Path::new(&**path));
            }
            !self.has(what)
        })
    }

    fn has(&self, what: &Await) -> bool {
        match what {
            Await::Mount(path) => is_mounted(&fs::read_to_string(MOUNTS).unwrap_or_default(), path),
            Await::Path(path) => Path::new(&**path).exists(),
            Await::Link(name) => link_is_running(name).unwrap_or(false),
            Await::Clock => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
                is_set(clock_is_synchronized(), self.guessed, now)
            }
        }
    }
}

/// What a service waits for, as a half sentence.
pub fn words(what: &Await) -> Box<str> {
    match what {
        Await::Mount(path) => format!("waits for something to be mounted on {path}"),
        Await::Path(path) => format!("waits for {path}"),
        Await::Link(name) => format!("waits for the network interface {name} to be up"),
        Await::Clock => "waits for the clock to be set".into(),
    }
    .into()
}

/// Whether something is mounted on `path`, by the lines of mountinfo.
fn is_mounted(mountinfo: &str, path: &str) -> bool {
    mountinfo.lines().filter_map(Mounted::parse).any(|mounted| parts(&mounted.target).eq(parts(path)))
}

/// Whether the time `now`, in seconds since 1970, is the time of day: someone keeps it so, or it was set by who knows it.
fn is_set(synchronized: bool, guessed: bool, now: i64) -> bool {
    synchronized || !guessed && now >= BUILT
}

/// Tells what the kernel says to a group of netlink(7).
fn news(protocol: SockProtocol, groups: u32) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let news = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(news.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(news)
}

/// Tells when the clock is set (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
fn clock() -> nix::Result<TimerFd> {
    let clock = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    clock.set(Expiration::OneShot(TimeSpec::new(NEVER as _, 0)), flags)?;
    Ok(clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_counts_where_it_is_and_not_beneath() {
        let mounts = "36 35 98:0 / / rw - ext4 /dev/root rw\n40 36 0:5 / /data/my\\040files rw - tmpfs x rw\n";
        for (path, mounted) in [("/", true), ("/data/my files/", true), ("/data", false), ("/data/my", false)] {
            assert_eq!(is_mounted(mounts, path), mounted, "{path}");
        }
    }

    #[test]
    fn a_guess_is_no_time_of_day_until_someone_sets_the_clock_or_keeps_it() {
        assert!(is_set(false, false, BUILT) && !is_set(false, false, BUILT - 1));
        assert!(!is_set(false, true, BUILT + 5) && is_set(true, true, 0));
    }
}
