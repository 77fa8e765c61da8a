//! When instances are asked whether they work, and what follows from their answers.
#![forbid(unsafe_code)]

use super::Step;
use super::ending::LATE;
use crate::base::limits::SERVICES;
use crate::base::units::Millis;
use crate::plan::{self, Probe, Role, Times};
use crate::supervisor::action::Action;
use crate::supervisor::event::Index;
use crate::supervisor::fault::Fault;
use crate::supervisor::health::Health;
use crate::supervisor::service::{Phase, Reason, Service};

impl Step<'_> {
    /// Main runs: from now on it is asked, unless it is frozen.
    pub(super) fn begin_probes(&mut self, index: Index) {
        let now = self.now;
        let Some((configured, service)) = self.both(index) else { return };
        let ready_by = configured.ready_by();
        // Behind a startup check the time begins later.
        let period = if configured.check(Role::Startup).is_some() { Millis(0) } else { configured.start_timeout };
        for check in &configured.health {
            let health = service.health.of_mut(check.role);
            // By now it holds what the image says.
            health.times = check.times.or(health.times);
            health.listens = check.probe == Probe::Notify;
            health.readies = ready_by == Some(check.role);
            health.starts = health.readies || check.role == Role::Startup;
            if health.starts {
                // What runs already was adopted, or said so: its start is over. What is not ready is not by this one.
                health.proven = service.phase == Phase::Running || health.proven && !health.readies;
            }
            health.counts_from = now.plus(health.times.start_period.unwrap_or(period));
            health.due = health.due.filter(|_| health.asking);
        }
        if service.reason == Reason::NotReady && configured.check(Role::Ready).is_none() {
            service.reason = Reason::None;
        }
        // What is frozen could not answer.
        if !service.paused {
            self.resume_probes(index);
        }
    }

    /// Its image says how often it is to be asked in the way that it has itself.
    pub(super) fn image_says(&mut self, index: Index, times: Times) {
        let Some((configured, service)) = self.both(index) else { return };
        for check in configured.health.iter().filter(|check| check.probe == Probe::Image) {
            service.health.of_mut(check.role).times = times;
        }
    }

    /// Nothing is asked while it is frozen, and nothing any more once it is being ended.
    pub(super) fn rest_probes(&mut self, index: Index) {
        let Some(service) = self.service(index) else { return };
        let (number, mut asked) = (service.number, false);
        for health in service.health.all_mut() {
            asked |= health.rest();
        }
        if asked {
            self.actions.push(Action::EndProbe(index, number));
        }
    }

    /// It is left alone until `until`, or `over`: what is due waits as long.
    pub(super) fn hold_probes(&mut self, index: Index, until: Millis, over: bool) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        let (number, mut asked) = (service.number, false);
        for health in service.health.all_mut() {
            let waits = |due: Millis| due <= now || over && !health.asking;
            if health.due.is_some_and(waits) {
                asked |= health.put_off(until);
            }
        }
        if asked {
            self.actions.push(Action::EndProbe(index, number));
        }
    }

    /// It is asked, after a rest or without one: by its startup check alone until that has succeeded, then by the others.
    pub(super) fn resume_probes(&mut self, index: Index) {
        let now = self.now;
        let Some((configured, service)) = self.both(index) else { return };
        let Health { starts, proven, .. } = *service.health.of(Role::Startup);
        let starts = starts && !proven;
        let mut place = index;
        for check in &configured.health {
            let health = service.health.of_mut(check.role);
            if (check.role == Role::Startup) == starts && health.due.is_none() {
                health.begin(place, now);
            }
            place = place.wrapping_add(SERVICES as Index);
        }
    }

    /// What is due now of its checks is: a probe begins, or the one on its way has taken too long.
    pub(super) fn probes_due(&mut self, index: Index) {
        // Where the one on its way has taken too long, the next begins.
        for _ in 0..2 * Role::ALL.len() {
            match self.service(index).and_then(|service| service.health.next()) {
                Some((due, role)) if due <= self.now => self.probe_due(index, role, due),
                _ => return,
            }
        }
    }

    fn probe_due(&mut self, index: Index, role: Role, due: Millis) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        let number = service.number;
        let health = service.health.of_mut(role);
        let listens = health.listens;
        if !health.asking && !listens {
            health.ask(now);
            self.actions.push(Action::Probe(index, number, role));
            return;
        }
        // Whatever kept the supervisor from looking may have kept the service from answering.
        if now.since(due) > LATE && health.extend(now) {
            return;
        }
        if !listens {
            self.actions.push(Action::EndProbe(index, number));
        }
        self.failing(index, role, if listens { Fault::Silent } else { Fault::TimedOut });
    }

    /// The probe on its way has ended. The next one has its turn at the timer that is due now if one waits.
    pub(super) fn probed(&mut self, index: Index, outcome: Result<(), Fault>) {
        let Some(role) = self.service(index).and_then(|service| service.health.asked()) else { return };
        match outcome {
            Ok(()) => self.working(index, role),
            Err(fault) => self.failing(index, role, fault),
        }
    }

    /// It has pinged, which is all that is asked of some.
    pub(super) fn pinged(&mut self, index: Index) {
        for role in Role::ALL {
            let listens = |health: &Health| health.listens && health.due.is_some();
            if self.service(index).is_some_and(|service| listens(service.health.of(role))) {
                self.working(index, role);
            }
        }
    }

    fn working(&mut self, index: Index, role: Role) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        let health = service.health.of_mut(role);
        health.good(now);
        let becomes_ready = health.readies && service.phase == Phase::Started;
        if becomes_ready {
            service.furthest = None;
        }
        if role == Role::Startup {
            for health in service.health.all_mut() {
                health.counts_from = now.plus(health.times.start_period.unwrap_or_default());
                health.due = None;
            }
            self.resume_probes(index);
        } else if role == Role::Ready && service.phase == Phase::Running && service.reason == Reason::NotReady {
            service.reason = Reason::None;
            self.actions.push(Action::Changed(index, Phase::Running));
        }
        if becomes_ready {
            self.enter(index, Phase::Running, Reason::None, None);
        }
    }

    fn failing(&mut self, index: Index, role: Role, fault: Fault) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        let health = service.health.of_mut(role);
        if let Some(until) = service.hold {
            health.put_off(until);
            return;
        }
        let counts = health.bad(fault, now);
        if role == Role::Startup && counts {
            // The service has said meanwhile that it has started.
            health.due = None;
        }
        if !counts || !health.is_bad() {
            return;
        }
        match role {
            Role::Live => self.abort(index, Reason::Unhealthy),
            // What else there is to say comes first.
            Role::Ready if service.phase == Phase::Running && service.reason == Reason::None => {
                service.reason = Reason::NotReady;
                self.actions.push(Action::Changed(index, Phase::Running));
            }
            Role::Ready | Role::Startup => {}
        }
    }
}

impl<'a> Step<'a> {
    /// Service `index` as it is configured and as it stands.
    fn both(&mut self, index: Index) -> Option<(&'a plan::Service, &mut Service)> {
        let at = usize::from(index);
        self.plan.services.get(at).zip(self.state.services.get_mut(at))
    }
}
