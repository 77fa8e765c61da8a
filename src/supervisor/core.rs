//! The supervisor's decisions: a function of the plan, the state, an event and the time. No clock, no file descriptor, no
//! system call, so that every pair of state and event can be tested, and weeks in a moment.
//!
//! The rules that a person notices:
//! - what is enabled runs, unless someone stopped it; a stop lasts until a start or restart;
//! - a service that ends is started again as its policy says, and each wait is twice the one before ([`super::backoff`]);
//! - one that does not recover takes others with it, step by step, as its config says ([`super::escalation`]), and all
//!   restarts together are bounded ([`super::budget`]);
//! - what someone holds their hand over is left alone: no restart, no watchdog, no timeout of its start ([`Order::Hold`]);
//! - a oneshot is done once it has ended with exit code 0, and again started by hand alone; what is skipped is done too;
//! - needs are about starting ([`super::graph`]); someone who starts a service starts what it needs as well;
//! - an end takes three steps: the stop signal, after `stop.timeout` SIGKILL for everything (and at last for its init), and
//!   if even that does not help the service is named as stuck and its next instance does not wait for this one;
//! - what is frozen is thawed before it is ended, since a frozen process cannot die on cgroup v1;
//! - a service that has to say that it is ready is starting until then, and one that reloads has as long for that; one that has to ping and does not is aborted,
//!   during its start too ([`super::notify`]);
//! - a oneshot with a timer starts when it is due, never a second time while it runs ([`super::timer`]);
//! - one that is asked whether it works and fails too often is aborted as well, or shown as not ready, as the role of its
//!   check says; until its startup check has succeeded it is asked nothing else ([`super::health`]);
//! - exit code 78 says that starting again is of no use;
//! - one process killed for want of memory ends the whole instance: half a service is worse than none.
#![forbid(unsafe_code)]

use super::action::{Action, Actions, Refusal, Verdict};
use super::budget::Budget;
use super::event::{Event, Index, InstanceEvent, Number, Order, Token};
use super::graph;
use super::health::Checks;
use super::service::{After, Ending, Phase, Reason, Service};
use super::waits::{Goal, WAITS, Wait, verdict};
use crate::base::units::Millis;
use crate::plan::Plan;

mod adopt;
mod ending;
mod instance;
mod probing;
mod recovery;
mod timed;

pub use adopt::Found;
use ending::EXTENSION;
pub use ending::{ABORT_TIME, KILL_TIME, SWEEP_TIME};
pub use recovery::is_well;

/// The signal that cannot be caught, the same number on every architecture.
const SIGKILL: u8 = 9;

/// Instances of the whole device that may be left behind, stuck in the kernel: each may hold memory for good. The next one
/// blocks its service.
pub const LEFT: usize = 8;

/// Everything that the core remembers.
#[derive(Debug)]
pub struct State {
    services: Vec<Service>,
    waits: heapless::Vec<Wait, WAITS>,
    shutdown: bool,
    complete: bool,
    random: u32,
    budget: Budget,
    /// Instances that do not die and are waited for no longer.
    left: heapless::Vec<(Index, Number), LEFT>,
    /// When a service that does not recover last had everything but lifelines started again.
    everything: Option<Millis>,
    /// By how much the wall clock is ahead of the monotonic one, where it is known.
    wall: Option<i64>,
}

impl State {
    /// The state before [`Event::Boot`]. `seed` feeds the jitter of restart delays.
    pub fn new(plan: &Plan, seed: u32) -> State {
        State {
            services: plan.services.iter().map(|_| Service::new()).collect(),
            waits: heapless::Vec::new(),
            shutdown: false,
            complete: false,
            random: seed | 1,
            budget: Budget::default(),
            left: heapless::Vec::new(),
            everything: None,
            wall: None,
        }
    }

    /// The services, in the order of the plan.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// When the row of restarts that are booked ends, for the next supervisor.
    pub fn booked(&self) -> Millis {
        self.budget.row()
    }

    /// Whether everything is being stopped.
    pub fn is_shutting_down(&self) -> bool {
        self.shutdown
    }

    /// When [`Event::Timer`] is due; `None`: nothing happens by itself.
    pub fn next_deadline(&self) -> Option<Millis> {
        let mut next = None;
        for service in &self.services {
            let Service { deadline, ping_by, hold, due, health, .. } = service;
            next = Millis::earliest(&[next, *deadline, *ping_by, *hold, due.at, health.next().map(|(at, _)| at)]);
        }
        next
    }
}

/// Takes in `event`, which happened at `now`, and appends what is to be done.
pub fn step(plan: &Plan, state: &mut State, event: Event, now: Millis, actions: &mut Actions) {
    let mut step = Step { plan, state, now, actions };
    step.take(event);
    step.sweep();
    step.answer_waits();
}

struct Step<'a> {
    plan: &'a Plan,
    state: &'a mut State,
    now: Millis,
    actions: &'a mut Actions,
}

impl Step<'_> {
    fn take(&mut self, event: Event) {
        match event {
            Event::Boot => self.boot(),
            Event::Timer => self.timer(),
            Event::Clock(wall) => self.clock_set(wall),
            Event::Request(token, index, order) => self.request(token, index, order),
            Event::WaitSettled(token) => {
                self.wait(token, Goal::Settled);
            }
            Event::Shutdown(token) => self.shutdown(token),
            Event::Forget(client) => self.state.waits.retain(|wait| wait.token.client != client),
            Event::Ready(index) if self.phase(index) == Some(Phase::Preparing) => self.spawn(index),
            Event::Skipped(index, why) if self.phase(index) == Some(Phase::Preparing) => self.skip(index, why),
            Event::Held(index, why) => self.hold(index, Phase::Held, Reason::Board, why),
            Event::ImageFailed(index, why) => self.hold(index, Phase::Held, Reason::Image, why),
            Event::Awaits(index, why) => self.hold(index, Phase::Waiting, Reason::Awaits, why),
            Event::Unheld(index) if self.service(index).is_some_and(|s| s.waits_for_board()) => self.begin(index),
            Event::Unplugged(index) => self.unplugged(index),
            Event::Ready(_) | Event::Unheld(_) | Event::Skipped(..) => {}
            Event::Instance(index, number, event) => {
                let current = self.service(index).is_some_and(|s| s.has_instance() && s.number == number);
                if current {
                    self.instance(index, event);
                } else if matches!(event, InstanceEvent::InitGone(_)) {
                    self.left_gone(index, number);
                }
            }
        }
    }

    fn boot(&mut self) {
        for i in 0..self.plan.start_order.len() {
            let Some(index) = self.plan.start_order.get(i).copied() else { continue };
            let enabled = self.plan.services.get(usize::from(index)).is_some_and(|service| service.enabled);
            // What someone has stopped stays down, also when the supervisor that was told so is no more.
            let begins = |service: &Service| service.wanted || enabled && service.reason == Reason::Disabled;
            if self.state.services.get(usize::from(index)).is_some_and(begins)
                && self.phase(index) == Some(Phase::Stopped)
            {
                self.want(index, true);
                match self.is_daily(index) {
                    true => self.enter(index, Phase::Waiting, Reason::Timer, None),
                    false => self.begin(index),
                }
            }
        }
    }

    fn timer(&mut self) {
        for index in self.indices() {
            let now = self.now;
            self.due(index);
            if self.on_hold(index) {
                continue;
            }
            let Some(service) = self.service(index) else { continue };
            if let Some(ping_by) = service.ping_by.take_if(|at| *at <= now) {
                self.overdue(index, ping_by);
            }
            self.probes_due(index);
            let Some(service) = self.service(index) else { continue };
            if service.deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            service.deadline = None;
            match service.phase {
                Phase::Starting => self.kill(index, Reason::StartTimeout),
                Phase::Started => self.stop(index, Reason::StartTimeout, After::Policy),
                Phase::Running => self.stop(index, Reason::ReloadTimeout, After::Policy),
                Phase::Stopping(Ending::Asked | Ending::Sweeping) => {
                    let reason = service.reason;
                    self.kill(index, reason);
                }
                Phase::Stopping(Ending::Killed) => {
                    let (reason, number) = (service.reason, service.number);
                    self.end(index, Ending::Felled, reason, KILL_TIME);
                    self.actions.push(Action::KillInit(index, number));
                }
                Phase::Stopping(Ending::Felled) => self.leave(index),
                Phase::Backoff => self.again(index),
                _ => {}
            }
        }
    }

    fn request(&mut self, token: Token, index: Index, order: Order) {
        let Some(service) = self.service(index) else { return };
        let (phase, number, paused) = (service.phase, service.number, service.paused);
        if self.state.shutdown && !matches!(order, Order::Stop | Order::Kill(_)) {
            return self.refuse(token, index, Refusal::ShuttingDown);
        }
        match order {
            Order::Start => {
                self.start(index);
                self.wait(token, Goal::Up(index));
            }
            Order::Stop => {
                self.want(index, false);
                self.stop(index, Reason::Asked, After::Stay);
                self.wait(token, Goal::Down(index));
            }
            Order::Restart => {
                match phase {
                    Phase::Starting | Phase::Started | Phase::Running | Phase::Stopping(_) => {
                        self.want(index, true);
                        self.stop(index, Reason::Asked, After::Again);
                    }
                    _ => self.start(index),
                }
                self.wait(token, Goal::Up(index));
            }
            Order::Kill(signal) => {
                if !matches!(phase, Phase::Started | Phase::Running | Phase::Stopping(Ending::Asked)) {
                    return self.refuse(token, index, Refusal::NotRunning);
                }
                if signal == SIGKILL {
                    self.thaw(index);
                }
                self.actions.push(Action::Signal(index, number, Some(signal)));
                self.actions.push(Action::Answer(token, Verdict::Sent(index)));
            }
            Order::Hold(time) => self.hold_off(token, index, time),
            Order::Pause | Order::Unpause => {
                let freeze = order == Order::Pause;
                if phase != Phase::Running {
                    return self.refuse(token, index, Refusal::NotRunning);
                }
                if paused == freeze {
                    let refusal = if freeze { Refusal::AlreadyPaused } else { Refusal::NotPaused };
                    return self.refuse(token, index, refusal);
                }
                if self.wait(token, Goal::Frozen(index, freeze)) {
                    self.actions.push(Action::Freeze(index, number, freeze));
                }
            }
        }
    }

    /// Someone wants `index` to run: it and all that it needs get a fresh start.
    fn start(&mut self, index: Index) {
        let marks = graph::with_unmet(self.plan, &self.state.services, index);
        for i in 0..self.plan.start_order.len() {
            let Some(next) = self.plan.start_order.get(i).copied().filter(|next| graph::marked(&marks, *next)) else {
                continue;
            };
            self.want(next, true);
            let Some(service) = self.service(next) else { continue };
            match service.phase {
                Phase::Stopped | Phase::Backoff | Phase::Held | Phase::Failed | Phase::Done => {
                    service.backoff.reset();
                    self.begin(next);
                }
                Phase::Stopping(_) => service.after = After::Again,
                // A fresh look, in case that what it waits for came unseen.
                Phase::Waiting if service.waits_for_board() || service.waits_for_its_time() => self.begin(next),
                Phase::Waiting | Phase::Preparing | Phase::Starting | Phase::Started | Phase::Running => {}
            }
        }
    }

    fn shutdown(&mut self, token: Option<Token>) {
        self.state.shutdown = true;
        for index in self.indices() {
            let Some(service) = self.service(index) else { continue };
            (service.after, service.due.at) = (After::Stay, None);
            if !service.has_instance() {
                self.enter(index, Phase::Stopped, Reason::Shutdown, None);
            }
        }
        if let Some(token) = token {
            self.wait(token, Goal::Ended);
        }
    }

    /// Begins a start: waits for what is needed, then has the image prepared.
    fn begin(&mut self, index: Index) {
        let now = self.now;
        if let Some(service) = self.service(index) {
            service.backoff.begin(now);
        }
        match graph::unmet(self.plan, &self.state.services, index) {
            _ if self.state.shutdown => {}
            Some(needed) => self.enter(index, Phase::Waiting, Reason::Needs(needed), None),
            None => {
                self.enter(index, Phase::Preparing, Reason::None, None);
                self.actions.push(Action::Prepare(index));
            }
        }
    }

    fn spawn(&mut self, index: Index) {
        if let Some(needed) = graph::unmet(self.plan, &self.state.services, index) {
            return self.enter(index, Phase::Waiting, Reason::Needs(needed), None);
        }
        let timeout = self.plan.services.get(usize::from(index)).map_or(Millis(0), |service| service.start_timeout);
        let furthest = self.now.plus(Millis(timeout.0.saturating_mul(EXTENSION)));
        let Some(service) = self.service(index) else { return };
        service.number = service.number.saturating_add(1);
        (service.oom, service.paused, service.late, service.ran) = (false, false, false, Millis(0));
        (service.after, service.detail, service.said) = (After::Policy, None, None);
        service.health = Checks::default();
        let number = service.number;
        service.furthest = Some(furthest);
        self.enter(index, Phase::Starting, Reason::None, Some(self.now.plus(timeout)));
        self.actions.push(Action::Spawn(index, number));
    }

    fn hold(&mut self, index: Index, phase: Phase, reason: Reason, why: Box<str>) {
        let Some(service) = self.service(index) else { return };
        if service.phase == Phase::Preparing || service.waits_for_board() {
            service.detail = Some(why);
            self.enter(index, phase, reason, None);
        }
    }

    fn skip(&mut self, index: Index, why: Box<str>) {
        if let Some(service) = self.service(index) {
            service.detail = Some(why);
        }
        self.enter(index, Phase::Done, Reason::Skipped, None);
    }

    /// What follows from where everything stands now: who waited can begin, who is no longer needed can end. In the start
    /// order, so that whoever needs another one finds it where it stands now.
    fn sweep(&mut self) {
        for i in 0..self.plan.start_order.len() {
            let Some(index) = self.plan.start_order.get(i).copied() else { continue };
            match self.phase(index) {
                Some(Phase::Waiting) if self.service(index).is_some_and(|s| !matches!(s.reason, Reason::Needs(_))) => {}
                Some(Phase::Waiting) => match graph::unmet(self.plan, &self.state.services, index) {
                    None => self.begin(index),
                    Some(needed) => {
                        if let Some(service) = self.service(index) {
                            service.reason = Reason::Needs(needed);
                        }
                    }
                },
                Some(Phase::Starting | Phase::Started | Phase::Running)
                    if self.state.shutdown && graph::dependants_down(self.plan, &self.state.services, index) =>
                {
                    self.stop(index, Reason::Shutdown, After::Stay);
                }
                _ => {}
            }
        }
        let down = |service: &Service| !service.has_instance() || service.is_stuck();
        if self.state.shutdown && !self.state.complete && self.state.services.iter().all(down) {
            self.state.complete = true;
            self.answer_all(&|goal| goal == Goal::Ended, Verdict::Ended);
            self.actions.push(Action::Complete);
        }
    }

    fn answer_waits(&mut self) {
        if self.state.waits.is_empty() {
            return;
        }
        let blocked = graph::blocked(self.plan, &self.state.services);
        let (plan, services, actions) = (self.plan, &self.state.services, &mut *self.actions);
        self.state.waits.retain(|wait| match verdict(plan, services, &blocked, wait.goal) {
            Some(verdict) => {
                actions.push(Action::Answer(wait.token, verdict));
                false
            }
            None => true,
        });
    }

    fn answer_all(&mut self, which: &dyn Fn(Goal) -> bool, verdict: Verdict) {
        let actions = &mut *self.actions;
        self.state.waits.retain(|wait| {
            let hit = which(wait.goal);
            if hit {
                actions.push(Action::Answer(wait.token, verdict));
            }
            !hit
        });
    }

    /// Remembers a request; `false`: there is no room, and it was told so.
    fn wait(&mut self, token: Token, goal: Goal) -> bool {
        let kept = self.state.waits.push(Wait { token, goal }).is_ok();
        if !kept {
            self.actions.push(Action::Answer(token, Verdict::Busy));
        }
        kept
    }

    fn refuse(&mut self, token: Token, index: Index, refusal: Refusal) {
        self.actions.push(Action::Answer(token, Verdict::Refused(index, refusal)));
    }

    fn enter(&mut self, index: Index, phase: Phase, reason: Reason, deadline: Option<Millis>) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        let changed = service.phase != phase;
        if changed {
            service.since = now;
        }
        (service.phase, service.reason, service.deadline) = (phase, reason, deadline);
        if changed {
            self.actions.push(Action::Changed(index, phase));
        }
    }

    fn want(&mut self, index: Index, wanted: bool) {
        let now = self.now;
        if let Some(service) = self.service(index) {
            if !core::mem::replace(&mut service.wanted, wanted) {
                service.backoff.let_go(now);
            }
            self.schedule(index);
        }
    }

    fn service(&mut self, index: Index) -> Option<&mut Service> {
        self.state.services.get_mut(usize::from(index))
    }

    fn phase(&self, index: Index) -> Option<Phase> {
        self.state.services.get(usize::from(index)).map(|service| service.phase)
    }

    fn indices(&self) -> core::ops::Range<Index> {
        0..Index::try_from(self.state.services.len()).unwrap_or(Index::MAX)
    }

    /// xorshift32: enough to keep restarts apart.
    fn random(&mut self) -> u32 {
        let mut x = self.state.random;
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.state.random = x;
        x
    }
}
