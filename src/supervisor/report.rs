//! The lines that a supervisor writes, one per event: to its standard error, to a ring of its own in the run directory,
//! which stays when the supervisor runs in the background or dies, and as the board's first process to the kernel's log.
//!
//! A terminal that is stopped or a pipe that nobody reads must not stop the supervisor: what does not fit at once is
//! counted, and the count is told when there is room again.
#![forbid(unsafe_code)]

use super::init::stamp;
use crate::base::limits::LOG_TEXT_BYTES;
use crate::log::entry::Stream;
use crate::log::format::Safe;
use crate::log::ring::{self, Writer};
use crate::sys::meaning;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, send};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The ring's file name in the run directory (see [`crate::log::entry`]).
pub const RING: &str = "log";
/// Its size: some hundred lines.
const RING_BYTES: u64 = 16 << 10;

/// The kernel's log (dev-kmsg of its ABI documentation): what is written becomes an entry of its own.
const KERNEL_LOG: &str = "/dev/kmsg";
/// What an entry begins with: facility daemon, priority info (syslog(3)).
const INFO: &str = "<30>";
/// The same with priority debug: the kernel keeps it and does not show it on the console, which has the line already.
const SHOWN: &str = "<31>";

/// Where lines go beside the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Places {
    /// To standard error, which is the console of a first process.
    #[default]
    Console,
    /// To the kernel's log, or to standard error where there is none.
    Kernel,
    /// To both.
    Both,
}

/// Standard error, opened anew so that making it non-blocking concerns nobody else, the ring, and the kernel's log.
pub struct Report {
    file: Option<File>,
    ring: Option<Box<Writer>>,
    kernel: Kernel,
    priority: &'static str,
    lost: u64,
}

/// The kernel's log, which costs 32 KiB of the kernel's memory to open.
enum Kernel {
    /// To be opened with the first line.
    Later,
    Open(File),
    /// It is not written to, or cannot be.
    No,
}

impl Kernel {
    fn open() -> Kernel {
        open(KERNEL_LOG).map_or(Kernel::No, Kernel::Open)
    }
}

fn open(path: &str) -> Option<File> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_APPEND;
    OpenOptions::new().append(true).custom_flags(flags).open(path).ok()
}

/// Standard error, if it is one that does not block already, as a first process has it.
fn console() -> Option<File> {
    let flags = fcntl(std::io::stderr(), FcntlArg::F_GETFL).map(OFlag::from_bits_truncate).ok()?;
    let ready = flags.contains(OFlag::O_NONBLOCK) && std::io::stderr().is_terminal();
    ready.then(|| std::io::stderr().as_fd().try_clone_to_owned().ok()).flatten().map(File::from)
}

impl Report {
    /// Opens them; without a run directory there is no ring. A socket, as systemd gives one, cannot be opened anew and is written to as it is, without waiting. A run
    /// directory without room is said and costs the ring alone.
    pub fn open(run_dir: Option<&Path>, places: Places) -> Report {
        let kernel = match places {
            Places::Console => Kernel::No,
            Places::Kernel => Kernel::open(),
            Places::Both => Kernel::Later,
        };
        let file = match &kernel {
            Kernel::Open(_) => OpenOptions::new().append(true).open("/dev/null").ok(),
            _ => console().or_else(|| open("/proc/self/fd/2")),
        };
        let shown = places == Places::Both && std::io::stderr().is_terminal();
        let priority = if shown { SHOWN } else { INFO };
        let mut report = Report { file, ring: None, kernel, priority, lost: 0 };
        let Some(run_dir) = run_dir else { return report };
        let dir = File::open(run_dir).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)));
        match dir.and_then(|dir| ring::prepare(dir, RING, RING_BYTES)).and_then(Writer::open) {
            Ok(ring) => report.ring = Some(Box::new(ring)),
            Err(errno) => report.line(format_args!("the supervisor's own log cannot be kept: {}", meaning(errno))),
        }
        report
    }

    /// Whether what it says is kept in a ring.
    pub fn is_kept(&self) -> bool {
        self.ring.is_some()
    }

    /// Writes one line, or counts it.
    pub fn line(&mut self, text: impl fmt::Display) {
        self.write(&text.to_string());
    }

    fn write(&mut self, text: &str) {
        let mut line = match self.lost {
            0 => String::new(),
            lost => format!("coracle: {lost} lines were lost here because nobody read them\n"),
        };
        for part in text.trim_end().lines() {
            if let Some(ring) = &mut self.ring {
                part.as_bytes()
                    .chunks(LOG_TEXT_BYTES)
                    .for_each(|chunk| ring.append(stamp(), Stream::Note, false, chunk));
                ring.flush();
            }
            let shown = format!("coracle: {}\n", Safe(part.as_bytes()));
            if let Kernel::Later = self.kernel {
                self.kernel = Kernel::open();
            }
            if let Kernel::Open(kernel) = &mut self.kernel {
                // What it does not take it counts itself.
                let _ = kernel.write(format!("{}{shown}", self.priority).as_bytes());
            }
            line.push_str(&shown);
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
