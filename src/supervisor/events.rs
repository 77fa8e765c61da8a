//! The event ring: each step that the supervisor takes with a service or the board, with a code for its reason, in
//! `RUN/events`. Kept in the form of a log ring ([`crate::log::entry`]), so it is bounded, versioned, counts what was
//! overwritten, and is read without a supervisor. An entry's text is `CODE SERVICE SENTENCE`.
#![forbid(unsafe_code)]

use super::init::stamp;
use super::report::Report;
use super::service::{Reason, Service};
use crate::base::limits::LOG_TEXT_BYTES;
use crate::log::entry::Stream;
use crate::log::ring::{self, Writer};
use crate::sys::meaning;
use core::fmt;
use nix::errno::Errno;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// The ring's file name in the run directory.
pub const RING: &str = "events";
/// Its size: some three hundred steps.
const RING_BYTES: u64 = 32 << 10;
/// Stands for the board where no service is concerned; no service can be called so.
pub const BOARD: &str = "-";

/// The writing side.
pub struct Events(Option<Box<Writer>>);

impl Events {
    /// Goes on with the ring of an earlier supervisor, or begins one. A run directory without room costs the ring alone.
    pub fn open(run_dir: &Path, report: &mut Report) -> Events {
        let dir = File::open(run_dir).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)));
        match dir.and_then(|dir| ring::prepare(dir, RING, RING_BYTES)).and_then(Writer::open) {
            Ok(ring) => Events(Some(Box::new(ring))),
            Err(errno) => {
                report.line(format_args!("events cannot be kept: {}", meaning(errno)));
                Events(None)
            }
        }
    }

    /// Keeps one step of `service`, or of the [`BOARD`]. Allocates nothing; what does not fit an entry is cut.
    pub fn note(&mut self, code: fmt::Arguments<'_>, service: &str, sentence: fmt::Arguments<'_>) {
        let Some(ring) = &mut self.0 else { return };
        let mut text = [0; LOG_TEXT_BYTES];
        let mut rest = text.as_mut_slice();
        let _ = write!(rest, "{code} {service} {sentence}");
        let left = rest.len();
        ring.append(stamp(), Stream::Note, false, text.get(..LOG_TEXT_BYTES - left).unwrap_or_default());
        ring.flush();
    }
}

/// What a step is called: what the service does now, behind a slash why.
pub struct Code<'a>(pub &'a str, pub &'a Service);

impl fmt::Display for Code<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1.reason {
            Reason::None => f.write_str(self.0),
            reason => write!(f, "{}/{}", self.0, reason.code()),
        }
    }
}

/// An entry's text, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// Its code, `backoff/exit`.
    pub code: &'a str,
    /// The service, or [`BOARD`].
    pub service: &'a str,
    /// A sentence for people, which may hold bytes of the service's choice.
    pub sentence: &'a [u8],
}

impl<'a> Step<'a> {
    /// Reads an entry's text; `None` if it is none.
    pub fn of(text: &'a [u8]) -> Option<Step<'a>> {
        let mut words = text.splitn(3, |byte| *byte == b' ');
        let mut word = || core::str::from_utf8(words.next()?).ok();
        let (code, service) = (word()?, word()?);
        Some(Step { code, service, sentence: words.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::reader::Reader;
    use crate::supervisor::event::Status;
    use crate::supervisor::report::Places;

    #[test]
    fn what_is_noted_is_read_back_and_goes_on_behind_an_earlier_supervisor() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let mut events = Events::open(dir.path(), &mut Report::open(None, Places::Console));
            let service = Service { reason: Reason::Exit(Status::Signal(9)), ..Service::new() };
            let code = Code("backoff", &service);
            events.note(format_args!("{code}"), "web", format_args!("web ended {round}: {}", "x".repeat(3000)));
        }
        let mut reader = Reader::open(File::open(dir.path().join(RING)).unwrap()).unwrap().unwrap();
        let mut count = 0;
        let lost = reader.read_new(&mut |entry| {
            let step = Step::of(entry.text).unwrap();
            assert_eq!((step.code, step.service), ("backoff/signal", "web"));
            assert!(step.sentence.starts_with(format!("web ended {count}: xxx").as_bytes()));
            count += 1;
        });
        assert_eq!((count, lost), (3, Ok(0)));
    }

    #[test]
    fn text_of_something_else_is_no_step() {
        for text in [&b""[..], b"one", b"one two", b"\xff a b"] {
            assert_eq!(Step::of(text), None);
        }
        let step = Step { code: "running", service: BOARD, sentence: b"a b" };
        assert_eq!(Step::of(b"running - a b"), Some(step));
    }
}
