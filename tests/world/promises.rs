//! What must always hold, judged from outside: by what the world did and what a person could see.

use super::World;
use super::tally::What;
use coracle::base::exit;
use coracle::base::units::Millis;
use coracle::plan::{Kind, Need, Plan, RestartPolicy, Role, Schedule, Then};
use coracle::supervisor::core::is_well;
use coracle::supervisor::escalation::Rung;
use coracle::supervisor::event::{Event, Index, Status};
use coracle::supervisor::service::{Ending, Phase, Reason, Service};

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// What is remembered of one service from step to step.
#[derive(Debug, Default, Clone)]
pub struct Track {
    /// Ends that its restart policy has judged since its past was last forgotten.
    pub ends: u64,
    /// Until when someone holds their hand over it.
    pub hold: Option<Millis>,
    /// Until when anyone has ever wanted to do so.
    pub held: Millis,
    /// Whether the world has said that the board or the image keeps it from starting.
    pub kept: bool,
    /// When it was last seen well beyond doubt, or had no reason to be.
    pub well: Millis,
    /// Since when it has had every reason to be well and never was; `None`: it is, or needs not to be.
    ill: Option<Millis>,
    /// When its timer is due, and the day of the last start that it brought at its time of day.
    due: Option<Millis>,
    pub day: Option<i64>,
}

pub fn is_met(need: Need, phase: Phase, kind: Kind) -> bool {
    match need {
        // A wait that leads nowhere does not count, and one that leads somewhere is followed by a start of its own.
        Need::Soft(_) => match phase {
            Phase::Preparing | Phase::Starting => false,
            Phase::Started | Phase::Running => kind == Kind::Daemon,
            _ => true,
        },
        Need::Started(_) => matches!(phase, Phase::Started | Phase::Running | Phase::Done),
        Need::Ready(_) => matches!(phase, Phase::Running | Phase::Done),
        Need::Done(_) => phase == Phase::Done,
    }
}

/// Whether `index` needs `other`, at once or through others.
pub fn depends(plan: &Plan, index: Index, other: Index) -> bool {
    let needs = &plan.services[usize::from(index)].needs;
    needs.iter().any(|need| need.service() == other || depends(plan, need.service(), other))
}

/// How many rungs there are to the end of a service's recovery.
pub fn rungs(then: Then) -> u64 {
    match then {
        Then::KeepTrying | Then::Stop => 1,
        Then::Dependants => 2,
        Then::Reboot => 3,
    }
}

impl World {
    /// Nothing healthy is ended: `index` is asked to end, aborted or killed, and there has to be a reason that is known.
    pub fn judge_end(&mut self, index: Index) {
        let at = usize::from(index);
        let (body, configured) = (&self.alive[&index], &self.plan.services[at]);
        let on_hold = self.tracks[at].hold.is_some_and(|until| self.now < until);
        let along = self.climbed.is_some_and(|(for_whom, rung)| match rung {
            Rung::Dependants => depends(&self.plan, index, for_whom),
            Rung::Everything => !self.keeps_a_lifeline(index),
            Rung::Alone | Rung::Reboot => false,
        });
        let why = body.is_ending
            || self.state.is_shutting_down()
            || body.triggered
            || !on_hold && (along || body.is_bad(configured, self.now));
        assert!(why, "{index} is well and is ended at {:?}: {body:?} {:?}", self.now, self.state.services()[at]);
        if self.state.is_shutting_down() && self.state.services()[at].reason == Reason::Shutdown {
            for (other, service) in self.state.services().iter().enumerate() {
                let needs = self.plan.services[other].needs.iter().any(|need| need.service() == index);
                let alive = self.alive.contains_key(&(other as Index)) && !service.is_stuck();
                assert!(!needs || !alive, "{index} is stopped before {other}, which needs it");
            }
        }
        // What comes then is the same end.
        if let Some(body) = self.alive.get_mut(&index) {
            body.is_ending = true;
        }
    }

    fn keeps_a_lifeline(&self, index: Index) -> bool {
        let lifeline = |at: usize| self.plan.services[at].lifeline;
        let needs = |at: usize| lifeline(at) && depends(&self.plan, at as Index, index);
        lifeline(usize::from(index)) || (0..self.plan.services.len()).any(needs)
    }

    /// Recovery of `index` goes on from `rung`: only as configured, and not before its tries are used up on each before.
    pub fn judge_climb(&self, index: Index, rung: Rung) {
        let policy = &self.plan.services[usize::from(index)].restart;
        let allowed = match rung {
            Rung::Alone => false,
            Rung::Dependants => matches!(policy.then, Then::Dependants | Then::Reboot),
            Rung::Everything | Rung::Reboot => policy.then == Then::Reboot,
        };
        assert!(allowed && policy.tries > 0, "{index} climbs to {rung:?} and should not: {policy:?}");
        let spent = self.tracks[usize::from(index)].ends;
        let least = rung as u64 * (u64::from(policy.tries) + 1);
        assert!(spent >= least, "{index} climbs to {rung:?} after {spent} ends: {policy:?}");
    }

    /// Timers that are due at a look at the clock: each is one start, and no time of day comes twice.
    pub fn judge_timers(&mut self, before: &[Service]) {
        for (at, service) in before.iter().enumerate() {
            let (Some(timer), Some(due)) = (self.plan.services[at].timer, service.due.at) else { continue };
            let on_hold = self.tracks[at].hold.is_some_and(|until| self.now < until);
            if due > self.now || self.state.is_shutting_down() || on_hold {
                continue;
            }
            self.tally.count(What::Timers);
            let now = &self.state.services()[at];
            let idle = matches!(service.phase, Phase::Done | Phase::Failed) || service.waits_for_its_time();
            let wrong = service.reason == Reason::Exit(Status::Code(exit::INVALID));
            let begun = !matches!(now.phase, Phase::Done | Phase::Failed) && !now.waits_for_its_time();
            assert!(!idle || wrong || begun, "{at} was due and did not begin: {now:?}");
            assert!(now.due.at.is_none_or(|next| next > self.now), "{at} is due twice");
            if let (Schedule::At(time), Some(wall)) = (timer.schedule, self.wall) {
                let day = (due.0 as i64 + wall - time.0 as i64).div_euclid(DAY);
                let last = self.tracks[at].day.replace(day);
                assert_ne!(last, Some(day), "{at} starts twice on one day");
            }
        }
    }

    /// What a timer is set to, after each step.
    fn check_timer(&mut self, at: usize) {
        let (service, track) = (&self.state.services()[at], &mut self.tracks[at]);
        let Some(timer) = self.plan.services[at].timer else { return };
        let last = std::mem::replace(&mut track.due, service.due.at);
        let Some(due) = service.due.at else {
            let comes = matches!(timer.schedule, Schedule::Every(_)) || self.wall.is_some();
            assert!(!service.wanted || !comes || self.state.is_shutting_down(), "{at} has a timer that never comes");
            return;
        };
        match (timer.schedule, self.wall) {
            (Schedule::Every(period), _) => {
                let most = self.now.plus(period).plus(timer.jitter);
                assert!(due <= most, "{at} misses a start: due {due:?} at {:?}, {timer:?}", self.now);
                if let Some(last) = last.filter(|last| *last != due && *last <= self.now) {
                    let apart = due.since(last).0 + timer.jitter.0;
                    assert!(apart >= period.0, "{at} starts too often: {last:?} {due:?} {timer:?}");
                }
            }
            (Schedule::At(time), Some(wall)) => {
                let past = (due.0 as i64 + wall - time.0 as i64).rem_euclid(DAY);
                assert!(past <= timer.jitter.0 as i64, "{at} is due {past} ms after its time of day");
                let most = self.now.0 as i64 + 2 * DAY + timer.jitter.0 as i64;
                assert!((due.0 as i64) <= most, "{at} misses a day");
            }
            (Schedule::At(_), None) => panic!("{at} has a time of day that nobody knows"),
        }
    }

    /// The hardware watchdog is fed if and only if no critical service has used up what may be done for it.
    fn check_watchdog(&mut self) {
        let lacking = self.state.lacking(&self.plan, self.now);
        if lacking.is_some() && !std::mem::replace(&mut self.unfed, lacking.is_some()) {
            self.tally.count(What::Unfed);
        }
        self.unfed = lacking.is_some();
        for (at, configured) in self.plan.services.iter().enumerate().filter(|(_, configured)| configured.critical) {
            let (service, track, policy) = (&self.state.services()[at], &self.tracks[at], &configured.restart);
            let ends = if policy.tries == 0 { 2 } else { (u64::from(policy.tries) + 1) * rungs(policy.then) };
            let longest = policy.within.0 * rungs(policy.then);
            let failed = service.phase == Phase::Failed;
            if lacking == Some(at as Index) {
                let spent = failed || track.ends >= ends || self.now.since(track.well).0 > longest;
                let up = is_well(configured, service, self.now) || !service.wanted || service.hold.is_some();
                assert!(spent && !up, "{at} may still recover, and the board is reset: {service:?} {track:?}");
            }
            let hopeless = failed && service.wanted && service.hold.is_none();
            let too_long = track.ill.is_some_and(|since| self.now.since(since).0 > longest);
            if (hopeless || too_long) && !self.state.is_shutting_down() {
                assert!(lacking.is_some(), "{at} does not recover, and the watchdog is fed: {service:?} {track:?}");
            }
        }
    }

    /// Takes in how the services are now, and says what must hold of it.
    pub fn check(&mut self) {
        if let Some(deadline) = self.state.next_deadline() {
            // But for what has just ended and is to start again at once.
            let at_once = |(service, configured): (&Service, &coracle::plan::Service)| {
                service.phase == Phase::Backoff && service.since == self.now && configured.restart.delay == Millis(0)
            };
            let at_once = self.state.services().iter().zip(&self.plan.services).any(at_once);
            assert!(deadline > self.now || at_once, "a deadline that has passed would keep the loop awake");
        }
        for at in 0..self.plan.services.len() {
            self.track(at);
            self.check_phase(at);
            self.check_timer(at);
        }
        self.check_watchdog();
    }

    fn track(&mut self, at: usize) {
        let (configured, service, track) = (&self.plan.services[at], &self.state.services()[at], &mut self.tracks[at]);
        let [failures, counted, _, standing, since] = service.backoff.numbers();
        if [failures, counted, standing] == [0; 3] {
            track.ends = 0;
        }
        // One that has never failed is well as soon as it runs, one that has once it has lasted.
        let cap = configured.restart.max_delay.max(Millis::from_secs(10));
        let lasts = track.ends == 0 || self.now.since(service.since) > cap;
        let well = service.phase == Phase::Running && lasts || service.phase == Phase::Done;
        if well || !service.wanted || service.hold.is_some() || since == 0 {
            track.well = self.now;
        }
        let away = !matches!(service.phase, Phase::Running | Phase::Done);
        let counts = away && service.wanted && service.hold.is_none() && since != 0;
        // Someone who asks for a start gives it its whole time anew.
        let since = Millis(since.saturating_sub(1));
        track.ill = if counts { Some(track.ill.map_or(self.now, |ill| ill.max(since))) } else { None };
    }

    /// Nothing that should run may be down without anything that will change it.
    fn check_phase(&mut self, at: usize) {
        let (service, index, now) = (&self.state.services()[at], at as Index, self.now);
        let (configured, policy) = (&self.plan.services[at], &self.plan.services[at].restart);
        let body = self.alive.get(&index);
        match service.phase {
            Phase::Starting | Phase::Started | Phase::Running => {
                assert!(body.is_some(), "{at} is {:?} without a process", service.phase);
                assert!(service.phase == Phase::Running || service.deadline.is_some());
                let not_ready = service.reason == Reason::NotReady;
                let fails = body.is_some_and(|body| body.fails(configured, Role::Ready));
                assert!(!not_ready || fails, "{at} is shown as not ready: {body:?} {service:?}");
                let waits = service.phase == Phase::Started && !service.health.of(Role::Startup).proven;
                let gate = waits && configured.check(Role::Startup).is_some();
                let asked = |role| service.health.of(role).due.is_some();
                assert!(!gate || !asked(Role::Live) && !asked(Role::Ready), "{at} is asked too early: {service:?}");
                let on_hold = service.hold.is_some();
                let watched = body.filter(|body| body.runs && !body.frozen && !service.paused && !on_hold);
                if let Some((body, period)) = watched.and_then(|body| Some((body, body.period?))) {
                    // Who looked too late gives one period more.
                    let alarm = body.pinged.max(self.late).plus(period).plus(Millis(1));
                    assert!(now <= alarm, "{at} hangs unseen at {now:?}: {body:?} {service:?}");
                }
            }
            Phase::Stopping(Ending::Stuck) => assert!(body.is_some()),
            Phase::Stopping(_) => assert!(service.deadline.is_some(), "{at} {service:?}"),
            Phase::Backoff => {
                let deadline = service.deadline.unwrap_or_else(|| panic!("{at} is never started again: {service:?}"));
                let own = policy.max_delay.max(policy.delay).max(Millis(10));
                // What is booked before its own, each in its place: also what did not wait for its own, under supervisors
                // that have died since. It is never more than a device may have services.
                let turn = 60_000u64.checked_div(self.plan.device.restarts_per_minute.into()).unwrap_or(0);
                let row = Millis(turn * (coracle::base::limits::SERVICES as u64 + 1));
                let held = self.tracks[at].held.max(self.late).max(service.since);
                assert!(
                    deadline <= held.plus(own).plus(row),
                    "{at} is put off beyond its deadline at {now:?}: {service:?}"
                );
            }
            Phase::Waiting => {
                let unmet = |need: &Need| {
                    let (phase, kind) = self.needed(*need);
                    let reason = self.state.services()[usize::from(need.service())].reason;
                    let failing = matches!(need, Need::Ready(_)) && reason == Reason::NotReady;
                    failing || !is_met(*need, phase, kind) || matches!(need, Need::Soft(_)) && phase == Phase::Waiting
                };
                let waits = configured.needs.iter().any(unmet);
                let coming = self.agenda.values().any(|event| *event == Event::Unheld(index));
                let timed = service.waits_for_its_time()
                    && matches!(configured.timer, Some(timer) if matches!(timer.schedule, Schedule::At(_)));
                assert!(waits || timed || coming && service.reason == Reason::Awaits, "{at} waits for nothing");
            }
            Phase::Preparing => {
                let answers = |event: &Event| {
                    use Event::{Awaits, Held, ImageFailed, Ready, Skipped};
                    matches!(event, Ready(i) | Held(i, _) | Awaits(i, _) | ImageFailed(i, _) | Skipped(i, _) if *i == index)
                };
                assert!(self.agenda.values().any(answers), "{at} waits for an image that nobody prepares");
            }
            Phase::Stopped => assert!(!service.wanted || self.state.is_shutting_down(), "{at} is wanted and down"),
            Phase::Held => assert!(service.wanted && self.tracks[at].kept, "{at} is held by nothing"),
            Phase::Failed => {
                assert!(service.wanted);
                let no_use = service.reason == Reason::Exit(Status::Code(exit::INVALID));
                let stops = policy.policy == RestartPolicy::No || policy.then == Then::Stop && policy.tries > 0;
                assert!(stops || no_use, "{at} is given up: {service:?}");
            }
            Phase::Done => {
                assert!(service.wanted);
                let ended_well = matches!(service.reason, Reason::Exit(Status::Code(0)) | Reason::Skipped);
                assert!(ended_well, "{at} is done: {:?}", service.reason);
                let stays = configured.kind == Kind::Oneshot || policy.policy != RestartPolicy::Always;
                assert!(stays || service.reason == Reason::Skipped, "{at} is a daemon and stays down");
            }
        }
        assert!(body.is_none_or(|body| body.number == service.number));
    }
}
