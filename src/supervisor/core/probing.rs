//! When instances are asked whether they work, and what follows from their answers.
#![forbid(unsafe_code)]

use super::Step;
use super::ending::LATE;
use crate::base::units::Millis;
use crate::plan::{self, Probe, Ready, Role};
use crate::supervisor::action::Action;
use crate::supervisor::event::Index;
use crate::supervisor::fault::Fault;
use crate::supervisor::service::{Phase, Reason};

impl Step<'_> {
    /// Main runs: from now on it is asked, unless it is frozen.
    pub(super) fn begin_probes(&mut self, index: Index) {
        let now = self.now;
        let Some(configured) = self.plan.services.get(usize::from(index)) else { return };
        let (Some(check), Some(service)) = (&configured.health, self.state.services.get_mut(usize::from(index))) else {
            return;
        };
        let health = &mut service.health;
        // By now it holds what the image says.
        health.times = check.times.or(health.times);
        health.starts = configured.ready == Ready::Health;
        health.counts_from = now.plus(health.times.start_period.unwrap_or(configured.start_timeout));
        // What is frozen could not answer.
        if !service.paused {
            health.begin(&check.probe, index, now);
        }
    }

    /// Nothing is asked while it is frozen, and nothing any more once it is being ended.
    pub(super) fn rest_probes(&mut self, index: Index) {
        let Some(service) = self.service(index) else { return };
        let number = service.number;
        if service.health.rest() {
            self.actions.push(Action::EndProbe(index, number));
        }
    }

    /// It is left alone until `until`, or `over`: what is due waits as long.
    pub(super) fn hold_probes(&mut self, index: Index, until: Millis, over: bool) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        let (number, health) = (service.number, &mut service.health);
        let waits = |due: Millis| due <= now || over && !health.asking;
        if health.due.is_some_and(waits) && health.put_off(until) {
            self.actions.push(Action::EndProbe(index, number));
        }
    }

    /// It runs again, after a rest or without one.
    pub(super) fn resume_probes(&mut self, index: Index) {
        let now = self.now;
        if let (Some(check), Some(service)) = (self.check(index), self.service(index))
            && service.health.due.is_none()
        {
            service.health.begin(&check.probe, index, now);
        }
    }

    /// What was due at `due` is: a probe begins, or the one on its way has taken too long.
    pub(super) fn probe_due(&mut self, index: Index, due: Millis) {
        let now = self.now;
        let (Some(check), Some(service)) = (self.check(index), self.service(index)) else { return };
        let (number, notify) = (service.number, check.probe == Probe::Notify);
        let health = &mut service.health;
        if !health.asking && !notify {
            health.ask(now);
            self.actions.push(Action::Probe(index, number));
            return;
        }
        // Whatever kept the supervisor from looking may have kept the service from answering.
        if now.since(due) > LATE && health.extend(now) {
            return;
        }
        if !notify {
            self.actions.push(Action::EndProbe(index, number));
        }
        self.failing(index, if notify { Fault::Silent } else { Fault::TimedOut });
    }

    /// The probe on its way has ended.
    pub(super) fn probed(&mut self, index: Index, outcome: Result<(), Fault>) {
        if self.service(index).is_some_and(|service| service.health.asking) {
            match outcome {
                Ok(()) => self.working(index),
                Err(fault) => self.failing(index, fault),
            }
        }
    }

    /// It has pinged, which is all that is asked of some.
    pub(super) fn pinged(&mut self, index: Index) {
        let asked = self.check(index).is_some_and(|check| check.probe == Probe::Notify);
        if asked && self.service(index).is_some_and(|service| service.health.due.is_some()) {
            self.working(index);
        }
    }

    fn working(&mut self, index: Index) {
        let now = self.now;
        let (Some(check), Some(service)) = (self.check(index), self.service(index)) else { return };
        service.health.good(&check.probe, now);
        match service.phase {
            Phase::Started if service.health.starts => {
                service.furthest = None;
                self.enter(index, Phase::Running, Reason::None, None);
            }
            Phase::Running if service.reason == Reason::NotReady => {
                service.reason = Reason::None;
                self.actions.push(Action::Changed(index, Phase::Running));
            }
            _ => {}
        }
    }

    fn failing(&mut self, index: Index, fault: Fault) {
        let now = self.now;
        let (Some(check), Some(service)) = (self.check(index), self.service(index)) else { return };
        if let Some(until) = service.hold {
            service.health.put_off(until);
            return;
        }
        if !service.health.bad(fault, now) || !service.health.is_bad() {
            return;
        }
        match (check.role, service.phase) {
            (Role::Live, _) => self.abort(index, Reason::Unhealthy),
            // What else there is to say comes first.
            (Role::Ready, Phase::Running) if service.reason == Reason::None => {
                service.reason = Reason::NotReady;
                self.actions.push(Action::Changed(index, Phase::Running));
            }
            (Role::Ready, _) => {}
        }
    }
}

impl<'a> Step<'a> {
    fn check(&self, index: Index) -> Option<&'a plan::Health> {
        self.plan.services.get(usize::from(index))?.health.as_deref()
    }
}
