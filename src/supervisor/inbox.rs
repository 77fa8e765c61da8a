//! The notify socket and the readiness pipe as a service's init reads them.
//!
//! The init reads whether or not a supervisor lives, so no sender waits for longer than [`GAP_NS`] per [`TURN`]
//! datagrams, and what it reads is merged until it can be passed on: a flood costs the supervisor no more than
//! one turn's worth of messages each gap, and loses no word that still holds.
#![forbid(unsafe_code)]

use super::notify::{Counts, DATAGRAM_BYTES, Notice, Said, Standing};
use super::wire::FromInit;
use crate::plan::NotifyAccess;
use crate::sys::datagram::receive;
use crate::sys::path::open;
use crate::sys::wait::is_child;
use core::fmt::Write as _;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::read;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// Datagrams read in one turn.
const TURN: usize = 32;
/// Turns once main has ended: what a socket's queue holds (net.unix.max_dgram_qlen, 10 to 512 where it is raised).
const LAST_TURNS: usize = 16;
/// From one turn to the next, in nanoseconds: far less than the shortest watchdog.
const GAP_NS: u64 = 5_000_000;
/// From a turn whose words the supervisor's full channel did not take to the next attempt.
const RETRY_NS: u64 = 50_000_000;

/// What the service says, from its sockets to the channel.
pub struct Inbox<'a> {
    socket: Option<&'a OwnedFd>,
    /// The read end of the pipe whose other end is the service's readiness descriptor, until that has said its line.
    ready: Option<OwnedFd>,
    /// Whose messages are taken; `None`: nobody's any more.
    access: Option<NotifyAccess>,
    /// Main as this process numbers it.
    main: i32,
    /// A process that was named as the next main and is no child of this process yet: it becomes one when main, which has
    /// started it, ends.
    successor: Option<i32>,
    /// What has not been passed on: words, that another process has become main, new counts.
    said: Said,
    succeeded: bool,
    counts: Counts,
    counted: bool,
    /// All that has been passed on: what the next supervisor has to know.
    passed: Said,
    /// Whether `WATCHDOG=trigger` was passed on to nobody.
    unheard: bool,
    /// Whether it has ever said that it is ready, and whether that has to be passed on before anything else.
    was_ready: bool,
    ready_first: bool,
    /// No turn before this time.
    next_ns: u64,
    /// Whether a turn is due at `next_ns`.
    due: bool,
    /// The first sender that was refused, until someone asks for it; it is told once.
    stranger: Option<i32>,
    told: bool,
}

impl<'a> Inbox<'a> {
    /// For the main process `main`.
    pub fn new(socket: Option<&'a OwnedFd>, ready: Option<OwnedFd>, access: NotifyAccess, main: i32) -> Inbox<'a> {
        Inbox {
            socket,
            ready,
            access: Some(access),
            main,
            successor: None,
            said: Said::default(),
            succeeded: false,
            counts: Counts::default(),
            counted: false,
            passed: Said::default(),
            unheard: false,
            was_ready: false,
            ready_first: false,
            next_ns: 0,
            due: false,
            stranger: None,
            told: false,
        }
    }

    /// Main as this process numbers it.
    pub fn main(&self) -> i32 {
        self.main
    }

    /// The supervisor is gone, and had read all that was passed on: what asks for something once has been done, or was not to
    /// be.
    pub fn was_read(&mut self) {
        self.passed.notice.trigger &= self.unheard;
    }

    /// Another supervisor listens from now on: all that still holds is passed on again.
    #[inline(never)]
    pub fn retell(&mut self) {
        let newer = core::mem::replace(&mut self.said, core::mem::take(&mut self.passed));
        self.said.update(newer);
        self.unheard = false;
        (self.succeeded, self.counted, self.ready_first) = (true, true, self.was_ready);
        (self.due, self.next_ns) = (true, 0);
    }

    /// The descriptors to wait for, the socket and the readiness pipe; none while a turn is due.
    pub fn watched(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.socket, self.ready.as_ref()].map(|source| source.filter(|_| !self.due).map(AsFd::as_fd))
    }

    /// Nanoseconds from `now_ns` until the next turn, where one is due.
    pub fn wait_ns(&self, now_ns: u64) -> Option<u64> {
        self.due.then(|| self.next_ns.saturating_sub(now_ns))
    }

    /// A turn, if there is something to read (`has`) or one is due, and it is time for it. `holds` tells whether a process
    /// is one of the service's; `send` passes a message on: `EAGAIN` if the channel is full. Not inlined, like all that has
    /// a buffer: it would lie in the frame of the init's loop, and each init would hold a page more for good.
    #[inline(never)]
    pub fn attend(
        &mut self,
        now_ns: u64,
        has: bool,
        holds: impl Fn(i32) -> bool,
        send: impl Fn(&FromInit) -> nix::Result<()>,
    ) {
        self.due |= has;
        if !self.due || now_ns < self.next_ns {
            return;
        }
        self.read_ready();
        self.read_socket(&holds);
        let passed = self.pass_on(send);
        self.due = !passed;
        self.next_ns = now_ns.saturating_add(if passed { GAP_NS } else { RETRY_NS });
    }

    /// Main has ended: takes in what it said before, and is `true` if a successor that it has named goes on in its place.
    #[inline(never)]
    pub fn main_ended(&mut self, holds: impl Fn(i32) -> bool, send: impl Fn(&FromInit) -> nix::Result<()>) -> bool {
        self.read_ready();
        for _ in 0..LAST_TURNS {
            if !self.read_socket(&holds) {
                break;
            }
        }
        let next = self.successor.take().filter(|next| is_child(*next));
        if let Some(next) = next {
            (self.main, self.succeeded) = (next, true);
        }
        self.due = !self.pass_on(send);
        next.is_some()
    }

    /// The first sender that was refused, once, and who would not have been.
    pub fn stranger(&mut self) -> Option<(i32, NotifyAccess)> {
        self.stranger.take().map(|pid| (pid, self.access.unwrap_or_default()))
    }

    /// Reads a turn's datagrams; `true` if there may be more. Not inlined, as [`Inbox::attend`].
    #[inline(never)]
    fn read_socket(&mut self, holds: &impl Fn(i32) -> bool) -> bool {
        let Some(socket) = self.socket else { return false };
        let mut buffer = [0u8; DATAGRAM_BYTES];
        for _ in 0..TURN {
            let Ok(datagram) = receive(socket, &mut buffer) else { return false };
            let has_say = match self.access {
                None => false,
                Some(access) => datagram.sender == self.main || access == NotifyAccess::All && holds(datagram.sender),
            };
            if !has_say {
                self.counts.refused = self.counts.refused.saturating_add(1);
                self.counted = true;
                if !self.told {
                    (self.stranger, self.told) = (Some(datagram.sender), true);
                }
                continue;
            }
            let bytes = if datagram.cut { &[] } else { buffer.get(..datagram.length).unwrap_or_default() };
            let fds = if datagram.fds_cut { usize::MAX } else { datagram.fds.len() };
            let unread = self.said.hear(bytes, fds);
            let mut named = self.said.main.take();
            let by_fd = core::mem::take(&mut self.said.main_by_fd);
            if by_fd {
                // Exactly one comes with it.
                named = datagram.fds.first().filter(|_| fds == 1).and_then(process_of);
            }
            let unread = unread.saturating_add((by_fd && named.is_none()).into());
            self.counts.malformed = self.counts.malformed.saturating_add(unread);
            self.counted |= unread > 0;
            if let Some(named) = named {
                self.name_main(named);
            }
            self.access = self.said.access.take().unwrap_or(self.access);
        }
        true
    }

    /// The service names another main process. What is a child of this process was started by main or by what main has
    /// started, and its end will be seen; anything else may become one at main's end.
    fn name_main(&mut self, named: i32) {
        if named == self.main {
            self.successor = None;
        } else if is_child(named) {
            (self.main, self.successor, self.succeeded) = (named, None, true);
        } else {
            self.successor = Some(named);
        }
    }

    /// Reads the readiness pipe: what comes before a newline counts for nothing, and after it the pipe is closed, so that who
    /// writes on is told and does not wait.
    fn read_ready(&mut self) {
        let Some(pipe) = &self.ready else { return };
        let mut chunk = [0u8; 512];
        match read(pipe, &mut chunk) {
            Ok(count) if count > 0 => {
                if chunk.iter().take(count).any(|byte| *byte == b'\n') {
                    self.said.notice.standing = Some(Standing::Ready);
                    self.ready = None;
                }
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Closed without a line.
            _ => self.ready = None,
        }
    }

    /// Passes on what has been said; `false`: the channel did not take all, and the rest stays. Where nobody listens, it
    /// is passed on again to the next one who does.
    fn pass_on(&mut self, send: impl Fn(&FromInit) -> nix::Result<()>) -> bool {
        let taken = |message: &FromInit| send(message) != Err(Errno::EAGAIN);
        self.succeeded = self.succeeded && !taken(&FromInit::Started { main: self.main });
        if self.succeeded {
            return false;
        }
        let ready = Notice { standing: Some(Standing::Ready), ..Notice::default() };
        self.ready_first = self.ready_first && !taken(&FromInit::Notice(ready, self.counts));
        if self.ready_first {
            return false;
        }
        if self.said.status.as_ref().is_some_and(|status| !taken(&FromInit::Status(status.clone()))) {
            return false;
        }
        self.passed.status = self.said.status.take().or(self.passed.status.take());
        if self.said.failure.as_ref().is_some_and(|trouble| !taken(&FromInit::Trouble(trouble.clone()))) {
            return false;
        }
        self.passed.failure = self.said.failure.take().or(self.passed.failure.take());
        let notice = self.said.notice;
        if self.counted || notice != Notice::default() {
            match send(&FromInit::Notice(notice, self.counts)) {
                Err(Errno::EAGAIN) => return false,
                sent => self.unheard |= notice.trigger && sent.is_err(),
            }
            self.counted = false;
            self.was_ready |= notice.standing == Some(Standing::Ready);
            self.passed.update(core::mem::take(&mut self.said));
        }
        true
    }
}

/// The process that a descriptor of pidfd_open(2) stands for, as this process numbers it: `Pid` of its `fdinfo`
/// (proc_pid_fdinfo(5)). `None`: it has ended, or the descriptor is another one.
#[inline(never)]
fn process_of(fd: &OwnedFd) -> Option<i32> {
    let mut path = heapless::String::<32>::new();
    write!(path, "/proc/self/fdinfo/{}\0", fd.as_raw_fd()).ok()?;
    let info = open(CStr::from_bytes_with_nul(path.as_bytes()).ok()?, OFlag::O_RDONLY).ok()?;
    let mut text = [0u8; 256];
    let count = read(&info, &mut text).ok()?;
    let line = |line: &[u8]| core::str::from_utf8(line.strip_prefix(b"Pid:\t")?).ok()?.parse().ok();
    text.get(..count)?.split(|byte| *byte == b'\n').find_map(line).filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_names_the_process_that_it_stands_for() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        let pidfd = crate::sys::process::pidfd_open(pid).unwrap();
        assert_eq!(process_of(&pidfd), Some(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process_of(&pidfd), None, "it has ended");
        assert_eq!(process_of(&nix::unistd::pipe().unwrap().0), None);
    }
}
