//! Whether and when a service that has ended is started again, and what else is when that does not help.
#![forbid(unsafe_code)]

use super::{State, Step};
use crate::base::exit;
use crate::base::units::Millis;
use crate::plan::{Kind, Plan, RestartPolicy, Service as Configured};
use crate::supervisor::action::{Action, Verdict};
use crate::supervisor::backoff::{Next, proof};
use crate::supervisor::escalation::Rung;
use crate::supervisor::event::{Index, Status, Token};
use crate::supervisor::graph::{self, Marks};
use crate::supervisor::service::{After, Phase, Reason, Service};

impl State {
    /// The first critical service that is neither well nor within what may be done for its recovery: as long as there is
    /// one, the board's watchdog is not to be fed.
    pub fn lacking(&self, plan: &Plan, now: Millis) -> Option<Index> {
        let lacks = |(configured, service): (&Configured, &Service)| {
            let left_alone = !service.wanted || service.hold.is_some();
            let hopeless = service.phase == Phase::Failed || service.backoff.is_exhausted(&configured.restart, now);
            configured.critical && !left_alone && hopeless && !is_well(configured, service, now)
        };
        let lacking = plan.services.iter().zip(&self.services).position(lacks);
        lacking.filter(|_| !self.shutdown).map(|index| index as Index)
    }

    /// Whether a service fails again and again, or others have been started again for it.
    pub fn is_recovering(&self, plan: &Plan, now: Millis) -> bool {
        let looping = |service: &Service| service.backoff.is_looping() || service.backoff.rung() > Rung::Alone;
        let services = plan.services.iter().zip(&self.services);
        services.into_iter().any(|(configured, service)| looping(service) && !is_well(configured, service, now))
    }
}

/// Whether a service is well: what has failed before proves itself by lasting.
pub fn is_well(configured: &Configured, service: &Service, now: Millis) -> bool {
    let backoff = &service.backoff;
    let doubtful = backoff.is_looping() || backoff.rung() > Rung::Alone;
    match service.phase {
        Phase::Running => !doubtful || now.since(service.since) > proof(&configured.restart),
        phase => phase == Phase::Done,
    }
}

impl Step<'_> {
    pub(super) fn by_policy(&mut self, index: Index, reason: Reason) {
        let Some(configured) = self.plan.services.get(usize::from(index)) else { return };
        let policy = configured.restart;
        let again = match (policy.policy, configured.kind) {
            (RestartPolicy::Always, Kind::Daemon) => true,
            (RestartPolicy::Always, Kind::Oneshot) | (RestartPolicy::OnFailure, _) => reason.is_failure(),
            (RestartPolicy::No, _) => false,
        };
        // It would only say the same again.
        let again = again && reason != Reason::Exit(Status::Code(exit::INVALID));
        if reason.is_failure()
            && let Some(service) = self.service(index)
            && service.hold.is_none()
            && service.backoff.incident(&policy, service.ran)
        {
            service.reason = reason;
            self.actions.push(Action::Crashed(index));
        }
        if !again {
            let phase = if reason.is_failure() { Phase::Failed } else { Phase::Done };
            return self.enter(index, phase, reason, None);
        }
        if let Some(until) = self.service(index).and_then(|service| service.hold) {
            return self.enter(index, Phase::Backoff, reason, Some(until));
        }
        let (now, random) = (self.now, self.random());
        let Some(service) = self.service(index) else { return };
        let first = service.backoff.is_first(&policy, service.ran);
        let (wait, rung) = match service.backoff.next(&policy, service.ran, now, random) {
            Next::Wait(wait) => (wait, Rung::Alone),
            Next::Climb(rung, wait) => (wait, rung),
            Next::GiveUp => return self.enter(index, Phase::Failed, reason, None),
        };
        // Counted, and never put off.
        service.booked = first && !service.backoff.is_looping();
        if service.booked {
            self.state.budget.book(self.plan.device.restarts_per_minute, now);
        }
        self.enter(index, Phase::Backoff, reason, Some(now.plus(wait)));
        self.climb(index, rung, policy.within);
    }

    /// The wait of `index` is over: it begins, unless the device has too many restarts just now.
    pub(super) fn again(&mut self, index: Index) {
        let (now, per_minute) = (self.now, self.plan.device.restarts_per_minute);
        let Some(service) = self.state.services.get_mut(usize::from(index)) else { return };
        if !core::mem::replace(&mut service.booked, true) {
            let at = self.state.budget.book(per_minute, now);
            if at > now {
                service.deadline = Some(at);
                if self.state.budget.tell(now) {
                    self.actions.push(Action::PutOff(index));
                }
                return;
            }
        }
        self.begin(index);
    }

    /// Recovery of `index` goes on from `rung`.
    fn climb(&mut self, index: Index, rung: Rung, within: Millis) {
        if rung == Rung::Alone {
            return;
        }
        self.actions.push(Action::Climbed(index, rung));
        match rung {
            Rung::Dependants => self.restart_along(index, &graph::dependants(self.plan, index)),
            // Once for all who come here in that time: one of them may be what ails the others.
            Rung::Everything if self.state.everything.is_none_or(|at| self.now.since(at) > within) => {
                self.state.everything = Some(self.now);
                let mut marks = graph::lifelines(self.plan);
                marks.iter_mut().for_each(|mark| *mark = !*mark);
                self.restart_along(index, &marks);
            }
            Rung::Alone | Rung::Everything | Rung::Reboot => {}
        }
    }

    /// Someone wants `index` left alone for `time`, or no longer.
    pub(super) fn hold_off(&mut self, token: Token, index: Index, time: Millis) {
        let until = (time.0 > 0).then(|| self.now.plus(time));
        let now = self.now;
        if let Some(service) = self.service(index) {
            service.hold = Some(until.unwrap_or(now));
        }
        self.actions.push(Action::Answer(token, Verdict::OnHold(index, until.is_some())));
        match until {
            Some(_) => self.actions.push(Action::OnHold(index, true)),
            None => drop(self.on_hold(index)),
        }
    }

    /// Whether `index` is left alone: what is due for it then waits. Ends it when its time is over.
    pub(super) fn on_hold(&mut self, index: Index) -> bool {
        let (now, configured) = (self.now, self.plan.services.get(usize::from(index)));
        let timeout = configured.map_or(Millis(0), |configured| configured.start_timeout);
        let Some(service) = self.service(index) else { return false };
        let Some(until) = service.hold else { return false };
        let over = until <= now;
        self.hold_probes(index, if over { now } else { until }, over);
        let Some(service) = self.service(index) else { return false };
        if over {
            service.hold = None;
            service.backoff.let_go(now);
        }
        // Whatever was held up has its whole time again.
        let alive = matches!(service.phase, Phase::Started | Phase::Running) && !service.paused;
        let again = if over { now } else { until };
        if over && alive || service.ping_by.is_some_and(|at| at <= now) {
            service.ping_by = service.period.map(|period| again.plus(period));
            service.late = false;
        }
        let later = match service.phase {
            Phase::Starting | Phase::Started | Phase::Running => again.plus(timeout),
            // What is being ended is ended.
            Phase::Stopping(_) => return over && self.held_over(index),
            _ => again,
        };
        if over || service.deadline.is_some_and(|at| at <= now) {
            service.deadline = service.deadline.map(|_| later);
        }
        if over { self.held_over(index) } else { true }
    }

    fn held_over(&mut self, index: Index) -> bool {
        self.actions.push(Action::OnHold(index, false));
        false
    }

    /// Ends the marked services that run, to start them again.
    fn restart_along(&mut self, with: Index, marks: &Marks) {
        for index in self.indices().filter(|index| *index != with && graph::marked(marks, *index)) {
            let on_hold = self.service(index).is_some_and(|service| service.hold.is_some());
            if !on_hold && matches!(self.phase(index), Some(Phase::Starting | Phase::Started | Phase::Running)) {
                self.stop(index, Reason::Escalated(with), After::Along);
            }
        }
    }
}
