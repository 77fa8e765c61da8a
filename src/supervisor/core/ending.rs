//! How an instance ends, and what comes then.
#![forbid(unsafe_code)]

use super::{SIGKILL, Step};
use crate::base::units::Millis;
use crate::supervisor::action::Action;
use crate::supervisor::event::{Index, Number, Status};
use crate::supervisor::service::{After, Ending, Phase, Reason};

/// From main's own end to the end of its init, which only has to read pipes empty and reap.
pub const SWEEP_TIME: Millis = Millis::from_secs(5);
/// From SIGKILL to the next step, and at last to giving up: a process in the kernel, on a dead disk or network file
/// system, may never die.
pub const KILL_TIME: Millis = Millis::from_secs(5);
/// From the SIGABRT of a watchdog to SIGKILL: time to say where it hangs.
pub const ABORT_TIME: Millis = Millis::from_secs(5);
/// How many times its configured time a start or an end may take of a service that asks for more.
pub(super) const EXTENSION: u64 = 10;
/// A timer that fires this much too late tells of a board that stood still, and not of a service that hangs.
pub(super) const LATE: Millis = Millis::from_secs(1);
/// The signal of abort(3), the same number on every architecture that coracle runs on.
const SIGABRT: u8 = 6;

impl Step<'_> {
    /// Ends `index` as far as there is something to end; what comes then is `after`.
    pub(super) fn stop(&mut self, index: Index, reason: Reason, after: After) {
        let timeout = self.plan.services.get(usize::from(index)).map_or(Millis(0), |service| service.stop.timeout);
        let Some(service) = self.service(index) else { return };
        let number = service.number;
        service.after = after;
        match service.phase {
            // There is no main yet that could be asked.
            Phase::Starting => self.kill(index, reason),
            Phase::Started | Phase::Running => {
                self.thaw(index);
                self.ask(index, reason, timeout);
                self.actions.push(Action::Signal(index, number, None));
            }
            Phase::Stopping(Ending::Stuck) => {}
            Phase::Stopping(_) => service.reason = reason,
            Phase::Stopped => {}
            _ => self.enter(index, Phase::Stopped, reason, None),
        }
    }

    /// A device that `index` lists is gone: it ends, and begins again by waiting for it. What is on hold is looked at again
    /// afterwards.
    pub(super) fn unplugged(&mut self, index: Index) {
        let Some(service) = self.service(index) else { return };
        match service.phase {
            _ if service.hold.is_some() => {}
            Phase::Starting | Phase::Started | Phase::Running => self.stop(index, Reason::Unplugged, After::Along),
            // It noticed first.
            Phase::Stopping(_) if service.after == After::Policy => {
                (service.reason, service.after) = (Reason::Unplugged, After::Along);
            }
            _ => {}
        }
    }

    /// Main is ending, or is about to be asked to: it has `timeout`, or more if it asks for more.
    pub(super) fn ask(&mut self, index: Index, reason: Reason, timeout: Millis) {
        let furthest = self.now.plus(Millis(timeout.0.saturating_mul(EXTENSION)));
        self.end(index, Ending::Asked, reason, timeout);
        if let Some(service) = self.service(index) {
            service.furthest = Some(furthest);
        }
    }

    /// The time for a ping has passed at `ping_by`.
    pub(super) fn overdue(&mut self, index: Index, ping_by: Millis) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        match service.period {
            // Whatever kept the supervisor from looking may have kept the service from pinging: it gets one more period.
            Some(period) if !service.late && now.since(ping_by) > LATE => {
                (service.late, service.ping_by) = (true, Some(now.plus(period)));
            }
            _ => self.abort(index, Reason::Watchdog),
        }
    }

    /// Main does not live up to its watchdog or its probes: it is told so, and everything is killed if that does not end it.
    pub(super) fn abort(&mut self, index: Index, reason: Reason) {
        let Some(service) = self.service(index) else { return };
        if matches!(service.phase, Phase::Started | Phase::Running) {
            let number = service.number;
            self.thaw(index);
            self.end(index, Ending::Asked, reason, ABORT_TIME);
            self.actions.push(Action::Signal(index, number, Some(SIGABRT)));
        }
    }

    pub(super) fn kill(&mut self, index: Index, reason: Reason) {
        self.thaw(index);
        self.end(index, Ending::Killed, reason, KILL_TIME);
        if let Some(number) = self.service(index).map(|service| service.number) {
            self.actions.push(Action::KillTree(index, number));
        }
    }

    pub(super) fn thaw(&mut self, index: Index) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        let number = service.number;
        if core::mem::take(&mut service.paused) {
            service.ping_by = service.period.map(|period| now.plus(period));
            self.actions.push(Action::Freeze(index, number, false));
        }
    }

    /// The instance is being ended and has `time` for it.
    pub(super) fn end(&mut self, index: Index, ending: Ending, reason: Reason, time: Millis) {
        let now = self.now;
        self.rest_probes(index);
        self.was_up(index);
        let Some(service) = self.service(index) else { return };
        (service.ping_by, service.furthest) = (None, None);
        if matches!(service.phase, Phase::Stopping(_)) {
            service.phase = Phase::Stopping(ending);
            service.reason = reason;
            service.deadline = Some(now.plus(time));
        } else {
            self.enter(index, Phase::Stopping(ending), reason, Some(now.plus(time)));
        }
    }

    /// It may have been up until now.
    fn was_up(&mut self, index: Index) {
        let at = usize::from(index);
        let (Some(configured), Some(service)) = (self.plan.services.get(at), self.state.services.get_mut(at)) else {
            return;
        };
        if service.phase == Phase::Running {
            service.ran = self.now.since(service.since);
            service.backoff.was_up(&configured.restart, service.ran, self.now);
        }
    }

    /// SIGKILL has not helped: the instance is named and left behind, and the service goes on without it.
    pub(super) fn leave(&mut self, index: Index) {
        let Some(number) = self.service(index).map(|service| service.number) else { return };
        self.actions.push(Action::GiveUp(index, number));
        match self.state.left.push((index, number)) {
            Ok(()) => self.over(index, Reason::Stuck),
            Err(_) => self.enter(index, Phase::Stopping(Ending::Stuck), Reason::Stuck, None),
        }
    }

    /// An instance that was left behind may have ended at last: there is room for another one.
    pub(super) fn left_gone(&mut self, index: Index, number: Number) {
        let Some(at) = self.state.left.iter().position(|left| *left == (index, number)) else { return };
        self.state.left.swap_remove(at);
        self.actions.push(Action::Cleanup(index, number));
        let stuck = self.state.services.iter().position(|service| service.is_stuck());
        if let Some(stuck) = stuck {
            self.leave(stuck as Index);
        }
    }

    /// The instance is no more.
    pub(super) fn gone(&mut self, index: Index, reason: Reason, detail: Option<Box<str>>) {
        self.was_up(index);
        let Some(service) = self.service(index) else { return };
        if detail.is_some() {
            service.detail = detail;
        }
        let reason = match reason {
            Reason::Exit(Status::Signal(SIGKILL)) | Reason::InitLost if service.oom => Reason::OutOfMemory,
            reason => reason,
        };
        let number = service.number;
        // The next instance lives in the same group and must not be born frozen.
        self.thaw(index);
        self.rest_probes(index);
        if let Some(service) = self.service(index) {
            (service.ping_by, service.furthest) = (None, None);
        }
        self.actions.push(Action::Cleanup(index, number));
        self.over(index, reason);
    }

    /// What comes after an instance.
    fn over(&mut self, index: Index, reason: Reason) {
        let Some(after) = self.service(index).map(|service| service.after) else { return };
        match after {
            _ if self.state.shutdown => self.enter(index, Phase::Stopped, reason, None),
            After::Stay => self.enter(index, Phase::Stopped, reason, None),
            After::Again => {
                if let Some(service) = self.service(index) {
                    service.backoff.reset();
                }
                self.begin(index);
            }
            After::Along => self.begin(index),
            After::Policy => self.by_policy(index, reason),
        }
    }
}
