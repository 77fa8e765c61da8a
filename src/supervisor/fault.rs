//! What a probe that did not succeed has met.
#![forbid(unsafe_code)]

use crate::base::units::Millis;
use crate::sys::meaning;
use core::fmt;
use nix::errno::Errno;

/// Why a service does not seem to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The kernel's error number.
    Errno(i32),
    /// No answer in time.
    TimedOut,
    /// This HTTP status.
    Status(u16),
    /// An answer that is not HTTP.
    NotHttp,
    /// The command's exit code; 128 and more: a signal ended it.
    Code(u8),
    /// The file has not changed for so long.
    Old(Millis),
    /// It did not say that it lives.
    Silent,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Errno(number) => f.write_str(meaning(Errno::from_raw(*number))),
            Fault::TimedOut => f.write_str("no answer in time"),
            Fault::Status(status) => write!(f, "status {status}"),
            Fault::NotHttp => f.write_str("its answer is not HTTP"),
            Fault::Code(code) => write!(f, "exit code {code}"),
            Fault::Old(age) => write!(f, "not changed for {age}"),
            Fault::Silent => f.write_str("was not said in time"),
        }
    }
}
