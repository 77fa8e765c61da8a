//! Terminals.

use super::{Result, check};
use std::os::fd::{AsFd, AsRawFd};

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
