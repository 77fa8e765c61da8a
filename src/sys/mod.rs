//! The only `unsafe` of the project: thin wrappers over what `nix` and `std` do not have, or do not have without an
//! allocation. Each wrapper's doc opens with the C call, its man page and the first kernel version.
#![allow(unsafe_code)]

mod abort;
pub mod board;
pub mod bpf;
pub mod caps;
pub mod datagram;
mod early;
pub mod fault;
pub mod folder;
pub mod heap;
pub mod landlock;
pub mod loopdev;
#[cfg(any(test, target_env = "musl"))]
mod malloc;
pub mod mount;
mod pages;
pub mod path;
pub mod probe;
pub mod process;
pub mod reserve;
pub mod stack;
pub mod terminal;
pub mod title;
#[cfg(all(panic = "abort", target_env = "musl", not(target_arch = "arm")))]
mod unwind;
pub mod wait;
mod walk;
pub mod watchdog;
pub mod workspace;
pub mod xattr;

use core::ffi::CStr;
use core::fmt;

/// An error number (errno(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.0);
        write!(f, "{} ({errno:?})", meaning(errno))
    }
}

/// strerror(3): what an error number means, in the C library's words. `nix` would bring a second table of them along.
pub fn meaning(errno: nix::errno::Errno) -> &'static str {
    // SAFETY: for a number of the system's, which every `Errno` is, the answer is a text that nobody changes or frees.
    unsafe { CStr::from_ptr(libc::strerror(errno as i32)) }.to_str().unwrap_or_default()
}

impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Errno {
        Errno(errno as i32)
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// The answer of a system call.
pub type Result<T> = core::result::Result<T, Errno>;

/// Turns the kernel's -1 into the error number. Compiled once: nearly every wrapper calls it.
#[inline(never)]
pub fn check(answer: libc::c_long) -> Result<libc::c_long> {
    match answer {
        -1 => Err(Errno(nix::errno::Errno::last_raw())),
        value => Ok(value),
    }
}
