//! A container in the foreground (`coracle run`): standard input, output and error are the caller's, signals are passed
//! on, and it dies with the caller.
//!
//! Its init waits for signals and nothing else. A signal that is blocked is never discarded, not even for process 1 of
//! a pid namespace, so the caller passes signals on by sending them to the init, which sends them to main.
#![forbid(unsafe_code)]

use super::cgroup::Join;
use super::child::{InitContext, Outlets, settle, spawn_main};
use super::spawn::spawn;
use super::spec::Spec;
use super::stage::{Failure, Stage};
use crate::base::exit;
use crate::sys::datagram::{FDS, receive_with, send_with};
use crate::sys::wait::{send_signal, wait_any};
use crate::sys::{Errno, process};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::MsgFlags;
use nix::unistd::setsid;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Most descriptors of a [`Join`]: two for v2, one for each v1 controller.
const JOINS: usize = 10;
const _: () = assert!(JOINS <= FDS);

/// The signals that are passed on: all that someone may send to end or steer a program, and that can be caught.
const PASSED_ON: [Signal; 12] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGWINCH,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGURG,
];

/// The signals that a caller of [`Foreground::start`] waits for from then on: those passed on, and SIGCHLD.
pub fn signals() -> SigSet {
    let mut set = SigSet::empty();
    PASSED_ON.iter().chain(&[Signal::SIGCHLD]).for_each(|signal| set.add(*signal));
    set
}

/// A running container.
pub struct Foreground {
    init: i32,
    channel: OwnedFd,
}

impl Foreground {
    /// Starts the container. From now on [`signals`] are blocked in the calling thread.
    pub fn start(spec: &Spec) -> Result<Foreground, Failure> {
        let failed = |errno: nix::Error| Failure::new(Stage::Clone, errno.into(), b"sigprocmask");
        signals().thread_block().map_err(failed)?;
        let spawned = spawn(spec, Outlets::default(), init)?;
        Ok(Foreground { init: spawned.pid, channel: spawned.channel })
    }

    /// Tells the container's init where main belongs; until then main is not started.
    pub fn join(&self, join: &Join) -> Result<(), Failure> {
        let mut fds: heapless::Vec<RawFd, JOINS> = heapless::Vec::new();
        fds.extend(join.into.as_ref().map(AsRawFd::as_raw_fd));
        for fd in &join.tasks {
            let full = |_| Failure::new(Stage::Join, Errno(libc::E2BIG), b"too many hierarchies");
            fds.push(fd.as_raw_fd()).map_err(full)?;
        }
        let bytes = [u8::from(join.into.is_some())];
        // An init whose steps failed has ended; why is in the channel.
        match send_with(self.channel.as_raw_fd(), &bytes, &fds) {
            Ok(()) | Err(Errno(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
            Err(errno) => Err(Failure::new(Stage::Join, errno, b"sendmsg")),
        }
    }

    /// Waits for the master of the container's terminal; `None` if the start failed.
    pub fn terminal(&self) -> Option<OwnedFd> {
        let mut poll = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&self.channel), nix::poll::PollFlags::POLLIN)];
        while nix::poll::poll(&mut poll, nix::poll::PollTimeout::NONE) == Err(nix::Error::EINTR) {}
        // A failure is longer than a byte and stays queued for `finish`.
        let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
        receive_with(self.channel.as_raw_fd(), &mut [0; 1], flags).ok()?.fds.pop()
    }

    /// Passes `signal` on; SIGCHLD instead asks whether the container has ended, and gives its exit code.
    pub fn on_signal(&self, signal: Signal) -> Option<Result<u8, Failure>> {
        if signal != Signal::SIGCHLD {
            // One that has just ended needs no signal any more.
            let _ = send_signal(self.init, signal as i32);
            return None;
        }
        let (_, status) = wait_any().ok().flatten().filter(|(pid, _)| *pid == self.init)?;
        Some(self.failure().map_or(Ok(exit::of_wait_status(status)), Err))
    }

    /// Waits for the end, passing signals on.
    pub fn wait(&self) -> Result<u8, Failure> {
        let set = signals();
        loop {
            if let Ok(signal) = set.wait()
                && let Some(end) = self.on_signal(signal)
            {
                return end;
            }
        }
    }

    /// What the init said about a start that failed.
    fn failure(&self) -> Option<Failure> {
        let mut bytes = [0; Failure::BYTES];
        loop {
            match nix::sys::socket::recv(self.channel.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(Failure::BYTES) => return Failure::decode(&bytes),
                // The terminal's message, looked at already.
                Ok(1) => {}
                // Said once, before what is queued, if the init ended without reading where main belongs.
                Err(nix::Error::ECONNRESET) => {}
                _ => return None,
            }
        }
    }
}

/// What [`Foreground::join`] sends; `None` at the end of the channel.
fn receive_join(channel: RawFd) -> Result<Option<Join>, Failure> {
    let mut bytes = [0; 1];
    let received = receive_with(channel, &mut bytes, 0);
    let received = received.map_err(|errno| Failure::new(Stage::Join, errno, b"recvmsg"))?;
    if received.length == 0 {
        return Ok(None);
    }
    let mut fds = received.fds.into_iter();
    let into = if bytes == [1] { fds.next() } else { None };
    let mut tasks = Vec::with_capacity(JOINS);
    tasks.extend(fds);
    Ok(Some(Join { into, tasks }))
}

/// Process 1 of the container.
fn init(context: InitContext<'_>) -> ! {
    let channel = context.channel.as_raw_fd();
    let fail = |failure: Failure| -> ! {
        // Without a reader nobody is left to be told.
        let _ = nix::sys::socket::send(channel, &failure.encode(), MsgFlags::MSG_NOSIGNAL);
        process::exit_now(failure.exit_code().into())
    };
    // Out of the caller's foreground group, so that Ctrl-C does not arrive twice: from the terminal and passed on.
    let _ = setsid();
    let join = match context.setup.and_then(|()| receive_join(channel)) {
        Ok(Some(join)) => join,
        // The caller ended, perhaps before this process could ask to be killed with it.
        Ok(None) => process::exit_now(exit::RUN_FAILED.into()),
        Err(failure) => fail(failure),
    };
    let starting = match spawn_main(context.main, Some(&join), context.handed) {
        Ok(starting) => starting,
        Err(failure) => fail(failure),
    };
    if let Some(master) = context.terminal
        && let Err(errno) = send_with(channel, b"t", &[master.as_raw_fd()])
    {
        fail(Failure::new(Stage::Session, errno, b"terminal"));
    }
    if let Err(failure) = settle(&[channel, starting.descriptor()], context.filter) {
        fail(failure);
    }
    let main = match starting.finish() {
        Ok(main) => main,
        Err(failure) => fail(failure),
    };
    let set = signals();
    loop {
        match set.wait() {
            Ok(Signal::SIGCHLD) => reap(main),
            // It may have ended already.
            Ok(signal) => drop(send_signal(main, signal as i32)),
            Err(_) => {}
        }
    }
}

/// Reaps whatever has ended; ends with main's exit code when that is main.
fn reap(main: i32) {
    while let Ok(Some((pid, status))) = wait_any() {
        if pid == main {
            process::exit_now(i32::from(exit::of_wait_status(status)))
        }
    }
}
