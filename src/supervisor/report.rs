//! The lines that a supervisor in the foreground writes to its standard error, one per event.
//!
//! A terminal that is stopped or a pipe that nobody reads must not stop the supervisor: what does not fit at once is
//! counted, and the count is told when there is room again.
#![forbid(unsafe_code)]

use crate::log::format::Safe;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

/// Standard error, opened anew so that making it non-blocking concerns nobody else.
#[derive(Debug)]
pub struct Report {
    file: Option<File>,
    lost: u64,
}

impl Report {
    /// Opens it. A socket, as systemd gives one, cannot be opened anew and is written to as it is, without waiting.
    pub fn open() -> Report {
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_APPEND;
        let file = OpenOptions::new().append(true).custom_flags(flags).open("/proc/self/fd/2").ok();
        Report { file, lost: 0 }
    }

    /// Writes one line, or counts it.
    pub fn line(&mut self, text: impl fmt::Display) {
        let text = text.to_string();
        let mut line = match self.lost {
            0 => String::new(),
            lost => format!("coracle: {lost} lines were lost here because nobody read them\n"),
        };
        for part in text.trim_end().lines() {
            line.push_str(&format!("coracle: {}\n", Safe(part.as_bytes())));
        }
        let written = match &mut self.file {
            Some(file) => file.write(line.as_bytes()).is_ok_and(|count| count == line.len()),
            None => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                match send(std::io::stderr().as_raw_fd(), line.as_bytes(), flags) {
                    Ok(count) => count == line.len(),
                    // No socket either: there is no standard error.
                    Err(Errno::ENOTSOCK | Errno::EBADF) => true,
                    Err(_) => false,
                }
            }
        };
        self.lost = if written { 0 } else { self.lost.saturating_add(1) };
    }
}
