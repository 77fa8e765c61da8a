//! Terminals.

use super::{Result, check, path};
use nix::fcntl::OFlag;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `ioctl(TIOCGWINSZ)`, tty_ioctl(4): rows and columns of a terminal.
///
/// # Errors
/// `ENOTTY` for what is no terminal.
pub fn window_size(terminal: impl AsFd) -> Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills in one winsize, which lives on this stack.
    let answer = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    check(libc::c_long::from(answer))?;
    Ok((size.ws_row, size.ws_col))
}

/// `ioctl_tty(2)` TIOCSPTLCK and TIOCGPTPEER (4.13), `pts(4)`: a new terminal from the `ptmx` at this path: master and
/// slave. The slave comes from the master itself, so that no path in a container's `/dev/pts` can be put in its place.
pub fn open(ptmx: &CStr, rows: u16, columns: u16) -> Result<(OwnedFd, OwnedFd)> {
    let master = path::open(ptmx, OFlag::O_RDWR | OFlag::O_NOCTTY)?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the kernel reads an int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const unlocked) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is an integer.
    let slave = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) }.into())?;
    // SAFETY: a new descriptor that nothing else owns.
    let slave = unsafe { OwnedFd::from_raw_fd(slave as RawFd) };
    resize(&master, rows, columns)?;
    Ok((master, slave))
}

/// `open(2)` of a terminal's device, as no controlling terminal of this process. A serial line without a carrier keeps
/// whoever opens it waiting; here nobody waits, and who reads from it then does (`termios(3)`, CLOCAL).
///
/// # Errors
/// `ENOTTY` for what is no terminal.
pub fn open_device(device: &CStr) -> Result<OwnedFd> {
    let terminal = path::open(device, OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK)?;
    window_size(&terminal)?;
    nix::fcntl::fcntl(&terminal, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(terminal)
}

/// `ioctl_tty(2)` TIOCSWINSZ.
pub fn resize(terminal: &OwnedFd, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads a winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) }.into()).map(drop)
}
