//! Services that start by a timer.
#![forbid(unsafe_code)]

use super::Step;
use crate::base::exit;
use crate::base::units::Millis;
use crate::plan::{Schedule, Timer};
use crate::supervisor::event::{Index, Status};
use crate::supervisor::service::{Phase, Reason};
use crate::supervisor::timer::Due;

impl Step<'_> {
    /// Whether service `index` starts at a time of day, and so not at boot.
    pub(super) fn is_daily(&self, index: Index) -> bool {
        self.timer_of(index).is_some_and(|timer| matches!(timer.schedule, Schedule::At(_)))
    }

    /// The wall clock was set.
    pub(super) fn clock_set(&mut self, wall: Option<i64>) {
        self.state.wall = wall;
        for index in self.indices() {
            if self.service(index).is_some_and(|service| service.wanted) && !self.state.shutdown {
                self.reckon(index, Due::clock_set);
            }
        }
    }

    /// Begins the timer of a service that someone wants to run, ends that of one that nobody wants.
    pub(super) fn schedule(&mut self, index: Index) {
        let Some(service) = self.service(index) else { return };
        match (service.wanted, service.due.at) {
            (true, None) => self.reckon(index, Due::begin),
            (true, Some(_)) => {}
            (false, _) => service.due.at = None,
        }
    }

    /// Starts service `index` if its timer says so.
    pub(super) fn due(&mut self, index: Index) {
        let now = self.now;
        if self.service(index).is_none_or(|service| service.due.at.is_none_or(|at| at > now)) {
            return;
        }
        self.reckon(index, Due::passed);
        let Some(service) = self.service(index) else { return };
        match service.phase {
            // What is left alone is not started.
            _ if service.hold.is_some_and(|until| until > now) => {
                service.due.overruns = service.due.overruns.saturating_add(1);
            }
            // That its configuration is wrong does not change with time.
            Phase::Failed if service.reason == Reason::Exit(Status::Code(exit::INVALID)) => {}
            Phase::Done | Phase::Failed => {
                service.backoff.reset();
                self.begin(index);
            }
            Phase::Waiting if service.waits_for_its_time() => self.begin(index),
            Phase::Starting | Phase::Started | Phase::Running | Phase::Stopping(_) => {
                service.due.overruns = service.due.overruns.saturating_add(1);
            }
            // It is on its way already, or waits for what it needs.
            Phase::Waiting | Phase::Preparing | Phase::Backoff | Phase::Held | Phase::Stopped => {}
        }
    }

    fn reckon(&mut self, index: Index, how: fn(&mut Due, &Timer, Millis, Option<i64>, u32)) {
        let Some(timer) = self.timer_of(index) else { return };
        let (now, wall, random) = (self.now, self.state.wall, self.random());
        if let Some(service) = self.service(index) {
            how(&mut service.due, &timer, now, wall, random);
        }
    }

    fn timer_of(&self, index: Index) -> Option<Timer> {
        self.plan.services.get(usize::from(index))?.timer
    }
}
