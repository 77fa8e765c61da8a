//! The hardware watchdog's ioctls, Documentation/watchdog/watchdog-api.rst of the kernel, Linux 2.6. Opening the device
//! starts it, and any byte but `V` written to it is a sign of life: neither needs a wrapper.

use super::{Errno, Result};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// `WDIOF_SETTIMEOUT`: the timeout can be set.
pub const SET_TIMEOUT: u32 = 0x0080;
/// `WDIOF_PRETIMEOUT`: the kernel can act some time before the timeout.
pub const PRETIMEOUT: u32 = 0x0200;
/// `WDIOF_MAGICCLOSE`: a `V` before the close stops the watchdog.
pub const MAGIC_CLOSE: u32 = 0x0100;

/// Beyond the highest descriptor that a supervisor may have: its limit on them.
pub const DESCRIPTORS: RawFd = 4096;

/// `struct watchdog_info` of linux/watchdog.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Support {
    /// What the driver can do: [`SET_TIMEOUT`], [`MAGIC_CLOSE`] and others.
    pub options: u32,
    /// The firmware's version; 0 if there is none.
    pub firmware_version: u32,
    /// The driver's name for the device, filled up with zeros.
    pub identity: [u8; 32],
}

mod call {
    use super::Support;
    use libc::c_int;
    nix::ioctl_read!(get_support, b'W', 0, Support);
    nix::ioctl_read!(get_boot_status, b'W', 2, c_int);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, c_int);
    nix::ioctl_readwrite!(set_pretimeout, b'W', 8, c_int);
    nix::ioctl_read!(get_pretimeout, b'W', 9, c_int);
}

/// `ioctl(fd, WDIOC_GETSUPPORT)`: what the driver can do.
///
/// # Errors
/// `ENOTTY` for what is no watchdog.
pub fn support(fd: BorrowedFd<'_>) -> Result<Support> {
    support_of(fd.as_raw_fd())
}

fn support_of(fd: RawFd) -> Result<Support> {
    let mut support = Support::default();
    // SAFETY: the kernel fills the structure, which lives on this stack.
    unsafe { call::get_support(fd, &raw mut support) }?;
    Ok(support)
}

/// `ioctl(fd, WDIOC_GETBOOTSTATUS)`: why the board was last reset, in bits; 0 if the driver does
/// not know.
pub fn boot_status(fd: BorrowedFd<'_>) -> Result<u32> {
    let mut status = 0;
    // SAFETY: the kernel writes one int, which lives on this stack.
    unsafe { call::get_boot_status(fd.as_raw_fd(), &raw mut status) }?;
    Ok(status as u32)
}

/// `ioctl(fd, WDIOC_SETTIMEOUT)`: sets the timeout in seconds and gives the one that the driver took.
///
/// # Errors
/// `EINVAL` outside the driver's bounds, `EOPNOTSUPP` if it cannot be set.
pub fn set_timeout(fd: BorrowedFd<'_>, seconds: u32) -> Result<u32> {
    let mut timeout = libc::c_int::try_from(seconds).map_err(|_| Errno(libc::EINVAL))?;
    // SAFETY: the kernel reads and writes one int, which lives on this stack.
    unsafe { call::set_timeout(fd.as_raw_fd(), &raw mut timeout) }?;
    u32::try_from(timeout).map_err(|_| Errno(libc::EINVAL))
}

/// `ioctl(fd, WDIOC_GETTIMEOUT)`: the timeout in seconds.
///
/// # Errors
/// `EOPNOTSUPP` if the driver does not know it.
pub fn timeout(fd: BorrowedFd<'_>) -> Result<u32> {
    let mut timeout = 0;
    // SAFETY: the kernel writes one int, which lives on this stack.
    unsafe { call::get_timeout(fd.as_raw_fd(), &raw mut timeout) }?;
    u32::try_from(timeout).map_err(|_| Errno(libc::EINVAL))
}

/// `ioctl(fd, WDIOC_GETPRETIMEOUT)`: how many seconds before the timeout the kernel acts; 0: it does not.
///
/// # Errors
/// `EOPNOTSUPP` if the driver does not know it.
pub fn pretimeout(fd: BorrowedFd<'_>) -> Result<u32> {
    let mut before = 0;
    // SAFETY: the kernel writes one int, which lives on this stack.
    unsafe { call::get_pretimeout(fd.as_raw_fd(), &raw mut before) }?;
    u32::try_from(before).map_err(|_| Errno(libc::EINVAL))
}

/// `ioctl(fd, WDIOC_SETPRETIMEOUT)`: has the kernel act so many seconds before the timeout, as its governor says
/// (`pretimeout_governor` in sysfs: a line in its log, or a panic).
///
/// # Errors
/// `EINVAL` if that is not less than the timeout, `EOPNOTSUPP` if it cannot be set.
pub fn set_pretimeout(fd: BorrowedFd<'_>, seconds: u32) -> Result<()> {
    let mut before = libc::c_int::try_from(seconds).map_err(|_| Errno(libc::EINVAL))?;
    // SAFETY: the kernel reads and writes one int, which lives on this stack.
    unsafe { call::set_pretimeout(fd.as_raw_fd(), &raw mut before) }?;
    Ok(())
}

/// The open watchdog among this process's descriptors: the first of them that answers as one.
fn find() -> Option<RawFd> {
    (3..DESCRIPTORS).find(|number| support_of(*number).is_ok())
}

/// Lets the watchdog that this process has open, if it has one, stay open through the next execve(2), where [`inherit`] takes
/// it. Asks the kernel which one it is and believes nothing else, as the handler of a fault must (signal-safety(7)).
pub fn bequeath() {
    if let Some(number) = find() {
        // SAFETY: an integer command (fcntl(2)) on a descriptor that is open.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    }
}

/// Takes the watchdog that the program before an execve(2) has left open, if it has. To be called once, before this program
/// opens one itself. The next execve closes it.
pub fn inherit() -> Option<OwnedFd> {
    let number = find()?;
    // SAFETY: an integer command (fcntl(2)) on a descriptor that is open.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: nothing of this program has opened a watchdog, so none of it owns this descriptor.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
