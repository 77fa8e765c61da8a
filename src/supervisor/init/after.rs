//! What comes after main: the end of all that it has left behind, its exit record, and the command that runs then.
#![forbid(unsafe_code)]

use super::{Init, Log, end_note, stamp};
use crate::base::units::Millis;
use crate::plan::NotifyAccess;
use crate::sandbox::child::Reach;
use crate::sandbox::parked::{self, Parked};
use crate::supervisor::inbox::Inbox;
use crate::supervisor::notify::Line;
use crate::supervisor::record::{Ended, ExitRecord};
use crate::supervisor::wire::FromInit;
use crate::sys::process::exit_now;
use crate::sys::wait::wait_any;
use core::fmt::Write as _;
use nix::poll::{PollFd, PollFlags, poll};
use std::os::fd::AsFd as _;

/// How often, and milliseconds apart, a group is killed until nothing of it is left: 4 s, less than
/// [`crate::supervisor::core::SWEEP_TIME`].
const SWEEPS: usize = 40;
const SWEEP_MS: u16 = 100;

impl Init<'_> {
    /// Main has ended: keeps its last words, writes the record, tells, ends.
    pub(super) fn end(&mut self, status: i32, post_stop_time: Millis, log: &mut Log) -> ! {
        let ended = stamp();
        self.sweep();
        self.drain(log);
        log.now = stamp();
        log.report_dropped(true);
        log.report_unwritten(true);
        log.note(&end_note(status));
        log.flush();
        let how = if self.killed { Ended::Killed } else { Ended::Main };
        let mut record = ExitRecord { status, ended: how, stamp: ended, dropped: log.dropped };
        self.reporter.record(&record);
        self.reporter.say(FromInit::Exited { status });
        if let Some(parked) = self.parked.take() {
            self.over = Some(status);
            self.run_after(parked, post_stop_time, log);
            record.dropped = log.dropped;
            self.reporter.record(&record);
        }
        exit_now(0)
    }
    /// Ends what main has left behind in its group. In a pid namespace the kernel does that when this process ends.
    fn sweep(&mut self) {
        let Reach::Group(killer) = self.reach else { return };
        for _ in 0..SWEEPS {
            killer.kill();
            loop {
                match wait_any() {
                    Ok(Some((pid, _))) => self.reaped(pid),
                    Ok(None) if self.parked.is_some() && !killer.finds() => return,
                    Ok(None) => break,
                    // No child is left: nor is anything of the service.
                    Err(_) => return,
                }
            }
            let _ = poll(&mut [PollFd::new(self.children.as_fd(), PollFlags::POLLIN)], SWEEP_MS);
            while matches!(self.children.read_signal(), Ok(Some(_))) {}
        }
    }

    /// Main has ended and nothing of the service is left: the command that waited for that has `time`. Not inlined, as
    /// [`super::Source::read`].
    #[inline(never)]
    fn run_after(&mut self, parked: Parked, time: Millis, log: &mut Log) {
        let ended = parked::Ended { status: self.over.unwrap_or(0), killed: core::mem::take(&mut self.killed) };
        self.until_ns = Some(log.now.mono_ns.saturating_add(time.0.saturating_mul(1_000_000)));
        let mut failed = Line::new();
        // What does not fit is cut: the rest is in no other place, and no reason to fail.
        match parked.go(ended, time) {
            Err(failure) => {
                let detail = core::str::from_utf8(failure.detail()).unwrap_or("?");
                let _ = write!(failed, "{}: {detail}: {}", failure.stage.word(), failure.errno);
            }
            Ok(pid) => {
                self.inbox = Inbox::new(None, None, NotifyAccess::Main, pid);
                self.status = None;
                let status = self.watch(log);
                let late = self.killed && self.until_ns.is_none();
                self.sweep();
                self.drain(log);
                if late {
                    let _ = write!(failed, "it took longer than stop.timeout and was killed");
                } else if status != 0 {
                    let note = end_note(status);
                    let _ = write!(failed, "{}", note.strip_prefix("ended: ").unwrap_or(&note));
                }
            }
        }
        log.report_dropped(true);
        log.report_unwritten(true);
        if !failed.is_empty() {
            let mut note = heapless::String::<160>::new();
            let _ = write!(note, "post_stop failed: {failed}");
            log.note(&note);
            self.reporter.say(FromInit::PostStop(failed));
        }
        log.flush();
    }
}
