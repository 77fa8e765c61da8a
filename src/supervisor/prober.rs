//! Probes on their way: sockets and files that need no process, and commands that run inside their service.
//!
//! A socket belongs to the network namespace that it was made in. So the supervisor enters a service's for one system call
//! and is back: it sees nothing of the service there, and nothing of it runs. Paths are opened beneath the root that the
//! service's init has, which no link leads out of.
#![forbid(unsafe_code)]

use super::answer;
use super::event::{Index, InstanceEvent, Number};
use super::fault::Fault;
use super::run::Supervisor;
use super::source::probe_event;
use crate::base::units::{Bytes, Millis};
use crate::image::config::HealthCheck;
use crate::plan::{Device, Health, Network, Probe, Role, Service, Times, Url};
use crate::sandbox::cgroup::Tree;
use crate::sys::heap::HEAP;
use crate::sys::path::{Links, open, open_beneath, terminated};
use crate::sys::process::{NEW_NET, enter};
use core::fmt::Write as _;
use core::net::SocketAddr;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{EHOSTUNREACH, EIO, EPROTOTYPE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, UnixAddr, connect, getsockopt, recv, send,
    socket, sockopt,
};
use nix::sys::stat::fstat;
use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

mod command;

pub use command::{Command, memory};

/// Longest path probed, with its NUL (`PATH_MAX`).
const PATH_BYTES: usize = 4096;
/// What tells a status: `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;
/// A request with the longest URL ([`crate::base::limits::URL_BYTES`]).
const REQUEST_BYTES: usize = 384;

/// What the loop holds of one service's probes.
#[derive(Debug, Default)]
pub struct Probing {
    /// Of which check the last probe was.
    role: Role,
    /// The connection of the probe on its way, or the pipe that its command says something to.
    socket: Option<OwnedFd>,
    /// The command, from the first start of the service on.
    command: Option<Command>,
    /// Whether it is made and its answer is read.
    reads: bool,
    /// The beginning of the answer.
    answer: heapless::Vec<u8, STATUS_BYTES>,
    /// When the file of the check of each role was changed, as it says itself, and since when it says so; `None`: since
    /// long ago.
    beats: [Beat; Role::ALL.len()],
}

type Beat = Option<((i64, i64), Option<Millis>)>;

/// How far a probe has come; what it has met is a [`Fault`].
enum Progress {
    /// It succeeded.
    Done,
    /// The loop is told when it goes on.
    OnItsWay,
}

type Outcome = Result<Progress, Fault>;

fn errno(errno: impl Into<crate::sys::Errno>) -> Fault {
    Fault::Errno(errno.into().0)
}

impl Supervisor<'_> {
    /// Begins a probe of service `index`, by its check of this role.
    pub(super) fn probe(&mut self, index: Index, number: Number, role: Role) {
        self.end_probe(index);
        let outcome = self.begin_probe(index, role);
        self.answered(index, number, outcome);
    }

    /// Gives up the probe on its way.
    pub(super) fn end_probe(&mut self, index: Index) {
        let Some(probing) = self.slots.get_mut(usize::from(index)).and_then(|slot| slot.probing.as_mut()) else {
            return;
        };
        probing.answer.clear();
        probing.reads = false;
        if let Some(command) = &mut probing.command {
            command.end();
        }
        if let Some(socket) = probing.socket.take() {
            // Told to the set itself: a copy of the descriptor may be on its way through a fork.
            let _ = self.epoll.delete(&socket);
        }
    }

    /// The connection of a probe can go on.
    pub(super) fn attend_probe(&mut self, index: Index) {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        let (Some(live), Some(probing)) = (&slot.live, &mut slot.probing) else { return };
        let check = self.plan.services.get(usize::from(index)).and_then(|service| service.check(probing.role));
        let (Some(check), Some(socket)) = (check, &probing.socket) else { return };
        let number = live.number;
        if let Some(command) = probing.command.as_mut().filter(|_| check.probe.is_command()) {
            return command.listen(socket);
        }
        let connects = !probing.reads;
        let mut outcome = probing.go_on(check);
        if let Some(socket) = probing.socket.as_ref().filter(|_| connects && probing.reads) {
            let watched = self.epoll.modify(socket, &mut probe_event(index, EpollFlags::EPOLLIN));
            outcome = watched.map_err(errno).and(outcome);
        }
        self.answered(index, number, outcome);
    }

    /// The process `pid` has ended with `status`: whether it was that of a probe, which then has its answer.
    pub(super) fn probe_ended(&mut self, pid: i32, status: i32) {
        let is_its = |probing: &Probing| probing.command.as_ref().is_some_and(|command| command.visitor() == pid);
        let found = self.slots.iter().position(|slot| slot.probing.as_deref().is_some_and(is_its));
        let Some((index, slot)) = found.and_then(|index| Some((index, self.slots.get_mut(index)?))) else { return };
        let Some(Probing { role, socket, command: Some(command), .. }) = slot.probing.as_deref_mut() else { return };
        // Of one that was given up the pipe is closed: what there is may be the connection of another check.
        if let Some(socket) = socket.as_ref().filter(|_| !command.is_given_up()) {
            command.listen(socket);
        }
        let outcome = command.ended(status);
        let first = self.state.services().get(index).is_some_and(|service| service.health.of(*role).misses == 0);
        if first && matches!(outcome, Some(Err(_))) && !command.said.is_empty() {
            let name = answer::name(&self.plan, index as Index);
            self.report.line(format_args!("{name}: its check says: {}", command.said));
        }
        let asked = self.state.services().get(index).and_then(|service| service.health.asked());
        match (slot.live.as_ref().map(|live| live.number), outcome, asked) {
            (Some(number), Some(outcome), _) => self.answered(index as Index, number, outcome.map(|()| Progress::Done)),
            // It may have waited for this one, which was given up; if not, it begins anew.
            (Some(number), None, Some(role)) => self.probe(index as Index, number, role),
            _ => {}
        }
    }

    fn answered(&mut self, index: Index, number: Number, outcome: Outcome) {
        let outcome = match outcome {
            Ok(Progress::OnItsWay) => return,
            Ok(Progress::Done) => Ok(()),
            Err(fault) => Err(fault),
        };
        self.end_probe(index);
        self.happened(index, number, InstanceEvent::Probed(outcome));
    }

    fn begin_probe(&mut self, index: Index, role: Role) -> Outcome {
        let at = usize::from(index);
        let service = self.plan.services.get(at);
        let (Some(service), Some(slot)) = (service, self.slots.get_mut(at)) else { return Err(Fault::Errno(EIO)) };
        let (Some(check), Some(live)) = (service.check(role), &slot.live) else { return Err(Fault::Errno(EIO)) };
        let probing = HEAP.lasting(|| slot.probing.get_or_insert_default());
        probing.role = role;
        let socket = match &check.probe {
            Probe::Tcp(address) | Probe::Http(Url { address, .. }, _) => {
                let net = match (service.network, &slot.net) {
                    (Network::Host, _) => None,
                    (Network::None, Some(net)) => Some(net),
                    // Its namespace could not be held open: there is no way in.
                    (Network::None, None) => return Err(Fault::Errno(EHOSTUNREACH)),
                };
                connect_tcp(address, net).map_err(errno)?
            }
            Probe::Unix(path) => return connect_unix(live.init, path).map(|()| Progress::Done),
            Probe::File(path, most) => return probing.look(live.init, path, *most, self.now).map(|()| Progress::Done),
            Probe::Exec(_) | Probe::Image => {
                let command = probing.command.as_mut().ok_or(Fault::Errno(EIO))?;
                if command.visitor() != 0 {
                    // One that was given up: there is no second one beside it, and this begins once it has ended.
                    return Ok(Progress::OnItsWay);
                }
                command.start(check, self.run.path(), service, live.init)?
            }
            // Whether it pings the core sees for itself.
            Probe::Notify => return Ok(Progress::Done),
        };
        let flags = if check.probe.is_command() { EpollFlags::EPOLLIN } else { EpollFlags::EPOLLOUT };
        self.epoll.add(&socket, probe_event(index, flags)).map_err(errno)?;
        probing.socket = Some(socket);
        Ok(Progress::OnItsWay)
    }
}

/// Makes what the checks of `service` need beside its instance: their commands, in a group of their own. `own`: what its
/// image says; gives the times of that where they count.
pub(super) fn equip(
    probing: &mut Option<Box<Probing>>,
    (device, service): (&Device, &Service),
    own: Option<&HealthCheck>,
    tree: &mut Tree,
) -> Result<Option<Times>, String> {
    if memory(service) == Bytes(0) {
        return Ok(None);
    }
    let probing = HEAP.lasting(|| probing.get_or_insert_default());
    let asks_image = service.health.iter().any(|check| check.probe == Probe::Image);
    let lacks = "its image has no HEALTHCHECK: write \"exec\" in place of \"image\" under \"health\"";
    let (words, times) = match own {
        _ if !asks_image => (&[][..], None),
        None => return Err(lacks.into()),
        Some(own) => (&*own.command, Some(own.times)),
    };
    if probing.command.is_none() {
        probing.command = Some(Command::new((device, service), words, tree)?);
    }
    Ok(times)
}

impl Probing {
    /// The instance that was asked is no more.
    pub(super) fn forget(&mut self) {
        self.beats = Default::default();
    }

    /// Takes its command, to be removed.
    pub(super) fn take_command(&mut self) -> Option<Command> {
        self.command.take()
    }

    /// The connection is made, or has an answer, or neither is to be.
    fn go_on(&mut self, check: &Health) -> Outcome {
        let Some(socket) = &self.socket else { return Ok(Progress::OnItsWay) };
        if !self.reads {
            if poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO) == Ok(0) {
                return Ok(Progress::OnItsWay);
            }
            match getsockopt(socket, sockopt::SocketError).map_err(errno)? {
                0 => {}
                number => return Err(Fault::Errno(number)),
            }
            let Probe::Http(url, _) = &check.probe else { return Ok(Progress::Done) };
            ask(socket, url)?;
            self.reads = true;
            return Ok(Progress::OnItsWay);
        }
        let mut chunk = [0u8; STATUS_BYTES];
        let room = STATUS_BYTES - self.answer.len();
        match recv(socket.as_raw_fd(), chunk.get_mut(..room).unwrap_or_default(), MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(Fault::NotHttp),
            Ok(count) => drop(self.answer.extend_from_slice(chunk.get(..count).unwrap_or_default())),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(failure) => return Err(errno(failure)),
        }
        if !self.answer.is_full() {
            return Ok(Progress::OnItsWay);
        }
        let status = status(&self.answer).ok_or(Fault::NotHttp)?;
        match &check.probe {
            Probe::Http(_, Some(only)) if status == *only => Ok(Progress::Done),
            Probe::Http(_, None) if (200..400).contains(&status) => Ok(Progress::Done),
            _ => Err(Fault::Status(status)),
        }
    }

    /// Looks at the file that has to change. Whether it does is judged by looking twice: the clock may be set in between. The
    /// clock alone says whether it is a file of before.
    fn look(&mut self, init: i32, path: &str, most: Millis, now: Millis) -> Result<(), Fault> {
        let facts = fstat(open_inside(init, path)?).map_err(errno)?;
        #[allow(clippy::unnecessary_cast)] // Both are 32 bits wide on some machines.
        let changed = (facts.st_mtime as i64, facts.st_mtime_nsec as i64);
        let by_the_clock = age(changed.0);
        let Some(beat) = self.beats.get_mut(self.role as usize) else { return Err(Fault::Errno(EIO)) };
        let since = match *beat {
            Some((last, since)) if last == changed => since,
            None if by_the_clock > most => None,
            Some(_) | None => Some(now),
        };
        *beat = Some((changed, since));
        let age = since.map_or(by_the_clock, |since| now.since(since));
        if since.is_none() || age > most { Err(Fault::Old(Millis(age.0 / 1000 * 1000))) } else { Ok(()) }
    }
}

/// How long ago `seconds` were by the wall clock.
fn age(seconds: i64) -> Millis {
    let wall = Millis(super::init::stamp().wall_ns / 1_000_000);
    wall.since(Millis::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Begins a connection from inside `net`, which need not be this process's network.
fn connect_tcp(address: &SocketAddr, net: Option<&OwnedFd>) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let make = || socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None);
    let socket = match net {
        None => make()?,
        Some(net) => {
            let raw = |errno: crate::sys::Errno| Errno::from_raw(errno.0);
            let home = open(c"/proc/self/ns/net", OFlag::O_RDONLY).map_err(raw)?;
            enter(net.as_raw_fd(), NEW_NET).map_err(raw)?;
            let made = make();
            if enter(home.as_raw_fd(), NEW_NET).is_err() {
                // A supervisor in a service's network is worse than none.
                std::process::abort();
            }
            made?
        }
    };
    let begun = match address {
        SocketAddr::V4(address) => connect(socket.as_raw_fd(), &SockaddrIn::from(*address)),
        SocketAddr::V6(address) => connect(socket.as_raw_fd(), &SockaddrIn6::from(*address)),
    };
    match begun {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// Whether a connection is taken at a socket that the process `init` knows by this path. It is, or it is not: nobody waits.
fn connect_unix(init: i32, path: &str) -> Result<(), Fault> {
    let place = open_inside(init, path)?;
    let mut shown = heapless::String::<32>::new();
    // 32 bytes hold the path with the longest number.
    let _ = write!(shown, "/proc/self/fd/{}", place.as_raw_fd());
    let address = UnixAddr::new(shown.as_str()).map_err(errno)?;
    for kind in [SockType::Stream, SockType::Datagram, SockType::SeqPacket] {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, kind, flags, None).map_err(errno)?;
        match connect(socket.as_raw_fd(), &address) {
            // A socket of another kind.
            Err(Errno::EPROTOTYPE) => {}
            // As many wait already as it lets wait.
            Err(Errno::EAGAIN) => return Err(Fault::TimedOut),
            outcome => return outcome.map_err(errno),
        }
    }
    Err(Fault::Errno(EPROTOTYPE))
}

/// Opens what is at `path` for the process `init`, without following out of its root.
fn open_inside(init: i32, path: &str) -> Result<OwnedFd, Fault> {
    let mut root = heapless::String::<32>::new();
    // 32 bytes hold the path with the longest number.
    let _ = write!(root, "/proc/{init}/root\0");
    let root = CStr::from_bytes_with_nul(root.as_bytes()).map_err(|_| Fault::Errno(EIO))?;
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(errno)?;
    let mut buffer = [0u8; PATH_BYTES];
    let path = terminated(path.as_bytes(), &mut buffer).map_err(errno)?;
    open_beneath(root.as_fd(), path, OFlag::O_PATH, Links::InRoot).map_err(errno)
}

/// Sends the request, which the empty buffer of a new connection takes whole.
fn ask(socket: &OwnedFd, url: &Url) -> Result<(), Fault> {
    let (host, path) = url.parts();
    let path = if path.is_empty() { "/" } else { path };
    let mut request = heapless::String::<REQUEST_BYTES>::new();
    let text = "User-Agent: coracle\r\nAccept: */*\r\nConnection: close\r\n\r\n";
    write!(request, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{text}").map_err(|_| Fault::Errno(EIO))?;
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(socket.as_raw_fd(), request.as_bytes(), flags).map(drop).map_err(errno)
}

/// The number in `HTTP/1.1 200`.
fn status(line: &[u8]) -> Option<u16> {
    let digits = match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9', b' ', digits @ ..] => digits,
        _ => return None,
    };
    core::str::from_utf8(digits).ok()?.parse().ok().filter(|status| (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_tells_a_status_or_is_none() {
        assert_eq!(status(b"HTTP/1.1 200"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        for bad in ["HTTP/2.0 200", "HTTP/1.1 099", "HTTP/1.1 +20", "HTTP/1.1  20", "SSH-2.0-Open", "HTTP/1.1 2x0"] {
            assert_eq!(status(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_longest_url_fits_into_its_request() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let text = format!("http://[1111:2222:3333:4444:5555:6666:7777:8888]:65535/{}", "x".repeat(300));
        let url = Url::parse(&text[..crate::base::limits::URL_BYTES]).unwrap();
        assert!(ask(&ours.into(), &url).is_ok());
    }

    #[test]
    fn a_file_is_judged_by_its_changes_and_not_by_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("beat");
        let shown = path.to_str().unwrap();
        let own = std::process::id() as i32;
        let mut probing = Probing::default();
        let most = Millis(5000);
        assert_eq!(probing.look(own, shown, most, Millis(1_000_000)), Err(Fault::Errno(nix::libc::ENOENT)));
        let file = std::fs::File::create(&path).unwrap();
        let at = |seconds| std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        file.set_modified(at(1_000_000)).unwrap();
        let old = probing.look(own, shown, most, Millis(2_000_000_000_000));
        assert!(matches!(old, Err(Fault::Old(_))), "a file of long ago: {old:?}");
        // Touched, while the clock stood in the past.
        file.set_modified(at(500)).unwrap();
        assert_eq!(probing.look(own, shown, most, Millis(2_000_000_000_100)), Ok(()));
        assert_eq!(probing.look(own, shown, most, Millis(2_000_000_005_100)), Ok(()));
        let old = probing.look(own, shown, most, Millis(2_000_000_006_150));
        assert_eq!(old, Err(Fault::Old(Millis(6000))));
    }
}
