//! Whether and when a service that has ended is started again, and what else is when that does not help.
#![forbid(unsafe_code)]

use super::Step;
use crate::base::exit;
use crate::base::units::Millis;
use crate::plan::{Kind, RestartPolicy};
use crate::supervisor::action::Action;
use crate::supervisor::backoff::Next;
use crate::supervisor::escalation::Rung;
use crate::supervisor::event::{Index, Status};
use crate::supervisor::graph::{self, Marks};
use crate::supervisor::service::{After, Phase, Reason};

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
        if !again {
            let phase = if reason.is_failure() { Phase::Failed } else { Phase::Done };
            return self.enter(index, phase, reason, None);
        }
        let (now, random) = (self.now, self.random());
        let Some(service) = self.service(index) else { return };
        let (wait, rung) = match service.backoff.next(&policy, service.ran, now, random) {
            Next::Wait(wait) => (wait, Rung::Alone),
            Next::Climb(rung, wait) => (wait, rung),
            Next::GiveUp => return self.enter(index, Phase::Failed, reason, None),
        };
        service.booked = false;
        self.enter(index, Phase::Backoff, reason, Some(now.plus(wait)));
        self.climb(index, rung, policy.within);
    }

    /// The wait of `index` is over: it begins, unless the device has too many restarts just now.
    pub(super) fn again(&mut self, index: Index) {
        let (now, per_minute) = (self.now, self.plan.device.restarts_per_minute);
        let Some(service) = self.state.services.get_mut(usize::from(index)) else { return };
        if !core::mem::replace(&mut service.booked, true) {
            let at = self.state.budget.book(per_minute, now);
            if at > now && !service.backoff.is_first() {
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

    /// Ends the marked services that run, to start them again.
    fn restart_along(&mut self, with: Index, marks: &Marks) {
        for index in self.indices().filter(|index| *index != with && graph::marked(marks, *index)) {
            if matches!(self.phase(index), Some(Phase::Starting | Phase::Started | Phase::Running)) {
                self.stop(index, Reason::Escalated(with), After::Along);
            }
        }
    }
}
