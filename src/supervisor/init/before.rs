//! The command that runs before main.

use super::{Init, Log, Reporter, Source, end_note};
use crate::log::entry::Stream;
use crate::log::lines::Lines;
use crate::plan::NotifyAccess;
use crate::sandbox::child::{Outlets, Reach, Starting};
use crate::sandbox::stage::{Failure, Stage};
use crate::supervisor::inbox::Inbox;
use nix::sys::signalfd::SignalFd;
use std::os::fd::OwnedFd;

/// Waits for the command that runs before main, and keeps what it says. Not inlined, as [`super::Source::read`].
#[inline(never)]
pub(super) fn run<'a>(
    starting: Starting,
    outlets: &mut Outlets,
    (reporter, reach, children): (Reporter<'a>, &'a Reach, &'a SignalFd),
    (out, err): (Option<&'a OwnedFd>, Option<&'a OwnedFd>),
    dev_log: Option<&'a OwnedFd>,
) -> Result<(), Failure> {
    let process = starting.finish()?;
    let ring = outlets.ring.as_ref().and_then(|ring| ring.try_clone().ok());
    let log = &mut Log::new(ring, outlets.sink.take(), outlets.rate);
    let mut init = Init {
        reporter,
        reach,
        children,
        // It has nothing to say about main.
        inbox: Inbox::new(None, None, NotifyAccess::Main, process),
        status: None,
        killed: false,
        supervised: true,
        out: Source { pipe: out, stream: Stream::Out, lines: &mut Lines::default() },
        err: Source { pipe: err, stream: Stream::Err, lines: &mut Lines::default() },
        dev_log,
        contact: None,
        sockets: &[],
        parked: None,
        over: None,
        until_ns: None,
    };
    let status = init.watch(log);
    init.drain(log);
    log.report_dropped(true);
    log.flush();
    outlets.sink = log.sink.take();
    if status == 0 && !init.killed {
        return Ok(());
    }
    let note = end_note(status);
    Err(Failure::new(Stage::PreStart, crate::sys::Errno(0), note.strip_prefix("ended: ").unwrap_or(&note).as_bytes()))
}
