//! What an earlier supervisor left, taken over: its last word about a service, what is found of that service, and the
//! config that holds now make the state to go on from.
//!
//! - What runs and is as the config says goes on: the same instance, counters and deadlines. A watchdog gets a whole
//!   period, since nobody heard its pings meanwhile.
//! - What has ended meanwhile ends now, by its exit record, and its restart policy says what comes then.
//! - What is no longer as the config says is stopped, and started anew unless it is not to run.
//! - What did not run stays as it was: stopped, failed, done, or waiting for its next start. What was on its way to a
//!   start begins anew.
#![forbid(unsafe_code)]

use super::{EXTENSION, State, Step};
use crate::base::units::Millis;
use crate::plan::Plan;
use crate::supervisor::action::{Action, Actions};
use crate::supervisor::event::{Index, Number};
use crate::supervisor::health::Checks;
use crate::supervisor::service::{After, Phase, Reason, Service};

/// What is found of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing tells of an instance.
    Nothing,
    /// This instance runs on; whether it is frozen.
    Running(Number, bool),
    /// This instance has ended.
    Ended(Number),
}

impl State {
    /// Restarts are booked up to `row`.
    pub fn adopt_booked(&mut self, row: Millis) {
        self.budget.go_on(row);
    }

    /// Instance `number` of service `index` does not die, and is waited for no longer.
    pub fn adopt_left(&mut self, index: Index, number: Number) {
        // Beyond those that are counted it only is no longer waited for.
        let _ = self.left.push((index, number));
    }

    /// Takes over service `index`, before [`super::Event::Boot`]. `saved` is the last word about it, and whether its config
    /// is still the same. Without it, and without an instance, nobody has started the service yet. Whoever finds no running
    /// instance where the state has one then, tells of its end as of any other.
    pub fn adopt(
        &mut self,
        plan: &Plan,
        index: Index,
        saved: Option<(Service, bool)>,
        found: Found,
        now: Millis,
        actions: &mut Actions,
    ) {
        let mut step = Step { plan, state: self, now, actions };
        step.adopt(index, saved, found);
        step.schedule(index);
    }
}

impl Step<'_> {
    fn adopt(&mut self, index: Index, saved: Option<(Service, bool)>, found: Found) {
        // Of which config an instance is that nothing was written about, nobody knows.
        let (mut service, same) = saved.unwrap_or((Service::new(), found == Found::Nothing));
        let had = service.has_instance();
        match found {
            Found::Running(number, _) if !had || number != service.number => {
                self.not_written_down(index, &mut service, number);
            }
            Found::Ended(number) if number > service.number => self.not_written_down(index, &mut service, number),
            Found::Running(..) => {}
            Found::Ended(_) | Found::Nothing if had => {}
            Found::Ended(number) => {
                self.actions.push(Action::Cleanup(index, number));
                return self.rest(index, service, same);
            }
            Found::Nothing => return self.rest(index, service, same),
        }
        if let Found::Running(_, frozen) = found {
            service.paused = frozen && service.phase == Phase::Running;
            if frozen && !service.paused {
                // Nothing else would let it go on, and it could not be ended.
                self.actions.push(Action::Freeze(index, service.number, false));
            }
            let watched = watched_now(&service);
            service.ping_by = service.period.filter(|_| watched).map(|period| self.now.plus(period));
        }
        let asked = matches!(service.phase, Phase::Started | Phase::Running);
        let after = self.place(index, service, same);
        if matches!(found, Found::Running(..)) && asked {
            self.begin_probes(index);
        }
        if matches!(found, Found::Running(..)) && !same {
            self.stop(index, Reason::Changed, after);
        }
    }

    /// The instance was made, and the supervisor died before it wrote that down.
    fn not_written_down(&self, index: Index, service: &mut Service, number: Number) {
        let timeout = self.plan.services.get(usize::from(index)).map_or(Millis(0), |service| service.start_timeout);
        (service.phase, service.reason, service.number) = (Phase::Starting, Reason::None, number);
        (service.since, service.deadline) = (self.now, Some(self.now.plus(timeout)));
        service.furthest = Some(self.now.plus(Millis(timeout.0.saturating_mul(EXTENSION))));
        (service.oom, service.ran, service.after) = (false, Millis(0), After::Policy);
        (service.detail, service.wanted, service.health) = (None, true, Checks::default());
    }

    /// Goes on with a service that has an instance, or whose instance has ended. Gives what comes after that.
    fn place(&mut self, index: Index, mut service: Service, same: bool) -> After {
        service.wanted = service.wanted && (same || self.is_enabled(index));
        let after = match service.after {
            _ if !service.wanted => After::Stay,
            // Whoever began to stop everything did not live to see it.
            After::Stay => After::Again,
            _ if !same => After::Again,
            after => after,
        };
        service.after = after;
        if let Some(place) = self.service(index) {
            *place = service;
        }
        after
    }

    /// Goes on with a service that had no instance.
    fn rest(&mut self, index: Index, mut service: Service, same: bool) {
        service.wanted = service.wanted && (same || self.is_enabled(index));
        let stays = match service.phase {
            Phase::Backoff | Phase::Failed | Phase::Done => same,
            Phase::Stopped => true,
            _ => false,
        };
        if !stays {
            // What wants to run begins with the others.
            (service.phase, service.reason, service.deadline) = (Phase::Stopped, Reason::Disabled, None);
            service.detail = None;
        }
        if !same {
            service.backoff.reset();
        }
        if let Some(place) = self.service(index) {
            *place = service;
        }
    }

    fn is_enabled(&self, index: Index) -> bool {
        self.plan.services.get(usize::from(index)).is_some_and(|service| service.enabled)
    }
}

/// Whether it is watched and asked: main runs, and is not frozen.
fn watched_now(service: &Service) -> bool {
    matches!(service.phase, Phase::Started | Phase::Running) && !service.paused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::name::Name;
    use crate::base::units::Bytes;
    use crate::plan::{Limits, Memory, Root, Service as Configured};
    use crate::supervisor::core::step;
    use crate::supervisor::event::Event;
    use crate::supervisor::saved::PHASES;
    use crate::supervisor::service::Ending;

    fn adopted(saved: Option<(Service, bool)>, found: Found, enabled: bool) -> (Service, Vec<Action>) {
        let limits = Limits::with_memory(Memory::Max(Bytes(1 << 20)));
        let service = Configured::new(Name::new("web").unwrap(), Root::Image("x".into()), limits);
        let services = vec![Configured { enabled, ..service }];
        let plan = Plan { services, start_order: vec![0], ..Plan::default() };
        let (mut state, mut actions) = (State::new(&plan, 1), Actions::default());
        state.adopt(&plan, 0, saved, found, Millis(5000), &mut actions);
        step(&plan, &mut state, Event::Boot, Millis(5000), &mut actions);
        (state.services()[0].clone(), actions.drain().collect())
    }

    fn sample(phase: Phase) -> Service {
        let (since, period, number) = (Millis(7), Some(Millis(900)), 3);
        Service { phase, reason: Reason::Asked, since, period, number, wanted: true, oom_kills: 2, ..Service::new() }
    }

    #[test]
    fn what_runs_goes_on_and_is_never_started_beside_itself() {
        for phase in PHASES {
            for number in [3, 4] {
                let (service, actions) = adopted(Some((sample(phase), true)), Found::Running(number, false), true);
                assert!(service.has_instance() && service.number == number && service.wanted, "{phase:?}");
                let starts = |action: &Action| matches!(action, Action::Spawn(..) | Action::Prepare(_));
                assert!(!actions.iter().any(starts), "{phase:?}: {actions:?}");
                let known = number == 3 && sample(phase).has_instance();
                assert_eq!(service.phase, if known { phase } else { Phase::Starting });
                assert!(known || service.deadline.is_some(), "{phase:?} may start for ever");
                let watched = matches!(service.phase, Phase::Started | Phase::Running);
                assert_eq!(service.ping_by, watched.then_some(Millis(5900)), "{phase:?}");
                assert_eq!(service.oom_kills, 2);
            }
        }
    }

    #[test]
    fn what_is_no_longer_as_the_config_says_is_stopped_and_started_anew_unless_it_is_not_to_run() {
        for phase in PHASES.into_iter().filter(|phase| *phase != Phase::Stopping(Ending::Stuck)) {
            for enabled in [false, true] {
                let (service, _) = adopted(Some((sample(phase), false)), Found::Running(3, false), enabled);
                assert!(matches!(service.phase, Phase::Stopping(_)), "{phase:?}: {service:?}");
                assert_eq!(service.after, if enabled { After::Again } else { After::Stay }, "{phase:?}");
                let (service, _) = adopted(Some((sample(phase), false)), Found::Nothing, enabled);
                let begun = matches!(service.phase, Phase::Preparing);
                assert!(service.has_instance() || begun == enabled, "{phase:?}, enabled {enabled}: {service:?}");
            }
        }
        // Of an instance that nothing is known of, nobody can say that it is as the config says.
        let (service, _) = adopted(None, Found::Running(9, false), true);
        assert_eq!((service.phase, service.after), (Phase::Stopping(Ending::Killed), After::Again));
    }

    #[test]
    fn what_did_not_run_stays_as_it_was_or_begins_anew() {
        for phase in PHASES.into_iter().filter(|phase| !sample(*phase).has_instance()) {
            let (service, actions) = adopted(Some((sample(phase), true)), Found::Nothing, true);
            let stays = matches!(phase, Phase::Backoff | Phase::Failed | Phase::Done);
            assert_eq!(service.phase, if stays { phase } else { Phase::Preparing });
            assert_eq!(actions.contains(&Action::Prepare(0)), !stays, "{phase:?}");
            // Its last instance was not cleaned up.
            let (_, actions) = adopted(Some((sample(phase), true)), Found::Ended(3), true);
            assert_eq!(actions.first(), Some(&Action::Cleanup(0, 3)), "{phase:?}");
        }
        let stopped = Service { wanted: false, ..sample(Phase::Stopped) };
        for same in [false, true] {
            assert_eq!(adopted(Some((stopped.clone(), same)), Found::Nothing, true).0, stopped, "someone stopped it");
        }
    }

    #[test]
    fn a_supervisor_that_died_while_it_stopped_everything_has_stopped_nothing_for_good() {
        let ending = Service { after: After::Stay, reason: Reason::Shutdown, ..sample(Phase::Stopping(Ending::Asked)) };
        assert_eq!(adopted(Some((ending, true)), Found::Running(3, false), true).0.after, After::Again);
        let ended = Service { reason: Reason::Shutdown, ..sample(Phase::Stopped) };
        assert_eq!(adopted(Some((ended, true)), Found::Nothing, true).0.phase, Phase::Preparing);
    }

    #[test]
    fn what_is_frozen_is_paused_or_thawed() {
        let (service, actions) = adopted(Some((sample(Phase::Running), true)), Found::Running(3, true), true);
        assert!(service.paused && service.ping_by.is_none() && actions.is_empty());
        let (service, actions) = adopted(Some((sample(Phase::Started), true)), Found::Running(3, true), true);
        assert!(!service.paused && actions == [Action::Freeze(0, 3, false)]);
    }
}
