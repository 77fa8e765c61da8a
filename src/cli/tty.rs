//! A person's terminal in front of a container's: bytes both ways, raw mode, window size.
#![forbid(unsafe_code)]

use crate::sandbox::foreground::signals;
use crate::sys::terminal;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{read, write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Rows and columns of the caller's terminal, or the sentence that says that there is none.
pub fn size() -> Result<(u16, u16), String> {
    let no = |_| "-t needs a terminal on standard input and output".to_owned();
    tcgetattr(std::io::stdout()).map_err(no)?;
    tcgetattr(std::io::stdin()).map_err(no)?;
    // A terminal that does not know its size (a serial line) is taken as the usual one.
    match terminal::window_size(std::io::stdin()) {
        Ok((rows, columns)) if rows > 0 && columns > 0 => Ok((rows, columns)),
        _ => Ok((24, 80)),
    }
}

/// The caller's terminal in raw mode; dropping it restores what was.
struct Raw(Termios);

impl Raw {
    fn enter() -> nix::Result<Raw> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal is gone then, and with it what would be restored.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

/// Carries bytes between the caller's terminal and `master` until `on_signal`, which is called for each of [`signals`]
/// (SIGCHLD among them), says how it ended. What the container wrote last is still shown.
pub fn proxy<T>(master: &OwnedFd, mut on_signal: impl FnMut(Signal) -> Option<T>) -> nix::Result<T> {
    let raw = Raw::enter()?;
    let mut set = signals();
    set.thread_block()?;
    set.add(Signal::SIGCHLD);
    let waiting = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let (mut from_user, mut from_container) = (true, true);
    loop {
        let watched = |on: bool| if on { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(waiting.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdin.as_fd(), watched(from_user)),
            PollFd::new(master.as_fd(), watched(from_container)),
        ];
        match poll(if from_container { &mut fds } else { &mut fds[..2] }, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        let ready = |index: usize| fds.get(index).and_then(|fd| fd.any()).unwrap_or(false);
        let (signalled, typed, shown) = (ready(0), ready(1) && from_user, ready(2) && from_container);
        if shown {
            // Every process has closed the terminal: EIO, by which Linux says end of file here.
            from_container = copy(master.as_fd(), stdout.as_fd());
        }
        if typed {
            from_user = copy(stdin.as_fd(), master.as_fd());
        }
        while signalled && let Ok(Some(info)) = waiting.read_signal() {
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
            if signal == Signal::SIGWINCH {
                if let Ok((rows, columns)) = terminal::window_size(std::io::stdin()) {
                    // A master that is gone has nobody to tell.
                    let _ = terminal::resize(master, rows, columns);
                }
            } else if let Some(end) = on_signal(signal) {
                drain(master, stdout.as_fd());
                drop(raw);
                return Ok(end);
            }
        }
    }
}

/// Copies what is there; `false` at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 4096];
    let Ok(got) = read(from, &mut buffer) else { return false };
    let mut rest = buffer.get(..got).unwrap_or(&[]);
    while !rest.is_empty() {
        match write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or(&[]),
            Err(nix::Error::EINTR) => {}
            Err(_) => return false,
        }
    }
    got > 0
}

/// Shows what the container wrote before it ended.
fn drain(master: &OwnedFd, to: BorrowedFd<'_>) {
    loop {
        let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(1) if copy(master.as_fd(), to) => {}
            _ => return,
        }
    }
}
