//! The supervisor's decisions: a function of the plan, the state, an event and the time. No clock, no file descriptor, no
//! system call, so that every pair of state and event can be tested, and weeks in a moment.
//!
//! The rules that a person notices:
//! - what is enabled runs, unless someone stopped it; a stop lasts until a start or restart;
//! - a service that ends is started again as its policy says, and each wait is twice the one before ([`super::backoff`]);
//! - a oneshot is done once it has ended with exit code 0, and again started by hand alone; what is skipped is done too;
//! - needs are about starting ([`super::graph`]); someone who starts a service starts what it needs as well;
//! - an end takes three steps: the stop signal, after `stop.timeout` SIGKILL for everything (and at last for its init), and
//!   if even that does not help the service is named as stuck and the supervisor goes on without it;
//! - what is frozen is thawed before it is ended, since a frozen process cannot die on cgroup v1;
//! - one process killed for want of memory ends the whole instance: half a service is worse than none.
#![forbid(unsafe_code)]

use super::action::{Action, Actions, Refusal, Verdict};
use super::backoff::Next;
use super::event::{Event, Index, InstanceEvent, Order, Status, Token};
use super::graph;
use super::service::{After, Ending, Phase, Reason, Service};
use super::waits::{Goal, WAITS, Wait, verdict};
use crate::base::units::Millis;
use crate::plan::{Kind, Plan, RestartPolicy};

/// From main's own end to the end of its init, which only has to read pipes empty and reap.
pub const SWEEP_TIME: Millis = Millis::from_secs(5);
/// From SIGKILL to the next step, and at last to giving up: a process in the kernel, on a dead disk or network file
/// system, may never die.
pub const KILL_TIME: Millis = Millis::from_secs(5);
/// The signal that cannot be caught, the same number on every architecture.
const SIGKILL: u8 = 9;

/// Everything that the core remembers.
#[derive(Debug)]
pub struct State {
    services: Vec<Service>,
    waits: heapless::Vec<Wait, WAITS>,
    shutdown: bool,
    complete: bool,
    random: u32,
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
        }
    }

    /// The services, in the order of the plan.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Whether everything is being stopped.
    pub fn is_shutting_down(&self) -> bool {
        self.shutdown
    }

    /// When [`Event::Timer`] is due; `None`: nothing happens by itself.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.services.iter().filter_map(|service| service.deadline).min()
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
            Event::Request(token, index, order) => self.request(token, index, order),
            Event::WaitSettled(token) => {
                self.wait(token, Goal::Settled);
            }
            Event::Shutdown(token) => self.shutdown(token),
            Event::Forget(client) => self.state.waits.retain(|wait| wait.token.client != client),
            Event::Ready(index) if self.phase(index) == Some(Phase::Preparing) => self.spawn(index),
            Event::Skipped(index, why) if self.phase(index) == Some(Phase::Preparing) => self.skip(index, why),
            Event::Held(index, why) => self.hold(index, Reason::Board, why),
            Event::ImageFailed(index, why) => self.hold(index, Reason::Image, why),
            Event::Unheld(index) if self.phase(index) == Some(Phase::Held) => self.begin(index),
            Event::Ready(_) | Event::Unheld(_) | Event::Skipped(..) => {}
            Event::Instance(index, number, event) => {
                let current = self.service(index).is_some_and(|s| s.has_instance() && s.number == number);
                if current {
                    self.instance(index, event);
                }
            }
        }
    }

    fn boot(&mut self) {
        for i in 0..self.plan.start_order.len() {
            let Some(index) = self.plan.start_order.get(i).copied() else { continue };
            let enabled = self.plan.services.get(usize::from(index)).is_some_and(|service| service.enabled);
            if enabled && self.phase(index) == Some(Phase::Stopped) {
                self.want(index, true);
                self.begin(index);
            }
        }
    }

    fn timer(&mut self) {
        for index in self.indices() {
            let now = self.now;
            let Some(service) = self.service(index) else { continue };
            if service.deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            service.deadline = None;
            match service.phase {
                Phase::Starting => self.kill(index, Reason::StartTimeout),
                Phase::Stopping(Ending::Asked | Ending::Sweeping) => {
                    let reason = service.reason;
                    self.kill(index, reason);
                }
                Phase::Stopping(Ending::Killed) => {
                    let (reason, number) = (service.reason, service.number);
                    self.end(index, Ending::Felled, reason, KILL_TIME);
                    self.actions.push(Action::KillInit(index, number));
                }
                Phase::Stopping(Ending::Felled) => {
                    let number = service.number;
                    self.enter(index, Phase::Stopping(Ending::Stuck), Reason::Stuck, None);
                    self.actions.push(Action::GiveUp(index, number));
                }
                Phase::Backoff => self.begin(index),
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
                    Phase::Starting | Phase::Running | Phase::Stopping(_) => {
                        self.want(index, true);
                        self.stop(index, Reason::Asked, After::Again);
                    }
                    _ => self.start(index),
                }
                self.wait(token, Goal::Up(index));
            }
            Order::Kill(signal) => {
                if !matches!(phase, Phase::Running | Phase::Stopping(Ending::Asked)) {
                    return self.refuse(token, index, Refusal::NotRunning);
                }
                if signal == SIGKILL {
                    self.thaw(index);
                }
                self.actions.push(Action::Signal(index, number, Some(signal)));
                self.actions.push(Action::Answer(token, Verdict::Sent(index)));
            }
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
                Phase::Waiting | Phase::Preparing | Phase::Starting | Phase::Running => {}
            }
        }
    }

    fn shutdown(&mut self, token: Option<Token>) {
        self.state.shutdown = true;
        for index in self.indices() {
            let Some(service) = self.service(index) else { continue };
            service.after = After::Stay;
            if !service.has_instance() {
                self.enter(index, Phase::Stopped, Reason::Shutdown, None);
            }
        }
        if let Some(token) = token {
            self.wait(token, Goal::Ended);
        }
    }

    fn instance(&mut self, index: Index, event: InstanceEvent) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        let (phase, number) = (service.phase, service.number);
        match event {
            InstanceEvent::Spawned => {}
            InstanceEvent::SpawnFailed(why) => self.gone(index, Reason::SpawnFailed, Some(why)),
            InstanceEvent::MainStarted if phase == Phase::Starting => {
                service.detail = None;
                self.enter(index, Phase::Running, Reason::None, None);
            }
            InstanceEvent::MainStarted => {}
            InstanceEvent::MainFailed(why) if phase == Phase::Starting => {
                service.detail = Some(why);
                self.end(index, Ending::Sweeping, Reason::SpawnFailed, SWEEP_TIME);
            }
            InstanceEvent::MainFailed(_) => {}
            InstanceEvent::MainExited(status) => match phase {
                Phase::Starting | Phase::Running => {
                    self.thaw(index);
                    self.end(index, Ending::Sweeping, Reason::Exit(status), SWEEP_TIME);
                }
                Phase::Stopping(Ending::Asked) => {
                    service.phase = Phase::Stopping(Ending::Sweeping);
                    service.deadline = Some(now.plus(SWEEP_TIME));
                }
                _ => {}
            },
            InstanceEvent::InitGone(status) => {
                let reason = match (service.phase, status) {
                    (Phase::Stopping(_), _) => service.reason,
                    (_, Some(status)) => Reason::Exit(status),
                    (_, None) => Reason::InitLost,
                };
                self.gone(index, reason, None);
            }
            InstanceEvent::OutOfMemory => self.out_of_memory(index),
            InstanceEvent::Frozen(Ok(frozen)) => match phase {
                Phase::Running => {
                    service.paused = frozen;
                    service.reason = Reason::None;
                    self.actions.push(Action::Changed(index, Phase::Running));
                }
                // Frozen after all, while it was already being ended.
                _ if frozen => self.actions.push(Action::Freeze(index, number, false)),
                _ => {}
            },
            InstanceEvent::Frozen(Err(why)) => {
                if phase == Phase::Running {
                    service.reason = Reason::Freezer;
                    service.detail = Some(why);
                }
                self.answer_all(|goal| matches!(goal, Goal::Frozen(i, _) if i == index), Verdict::Failed(index));
            }
        }
    }

    fn out_of_memory(&mut self, index: Index) {
        let Some(service) = self.service(index) else { return };
        if !service.oom {
            service.oom = true;
            service.oom_kills = service.oom_kills.saturating_add(1);
        }
        match service.phase {
            Phase::Starting | Phase::Running => self.kill(index, Reason::OutOfMemory),
            Phase::Stopping(Ending::Asked) => {
                let reason = service.reason;
                self.kill(index, reason);
            }
            // The kernel's victim was main itself, and the word of its death came first.
            Phase::Stopping(Ending::Sweeping) if service.reason == Reason::Exit(Status::Signal(SIGKILL)) => {
                service.reason = Reason::OutOfMemory;
            }
            _ => {}
        }
    }

    /// Begins a start: waits for what is needed, then has the image prepared.
    fn begin(&mut self, index: Index) {
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
        let Some(service) = self.service(index) else { return };
        service.number = service.number.saturating_add(1);
        (service.oom, service.paused, service.ran) = (false, false, Millis(0));
        (service.after, service.detail) = (After::Policy, None);
        let number = service.number;
        self.enter(index, Phase::Starting, Reason::None, Some(self.now.plus(timeout)));
        self.actions.push(Action::Spawn(index, number));
    }

    fn hold(&mut self, index: Index, reason: Reason, why: Box<str>) {
        let Some(service) = self.service(index) else { return };
        if matches!(service.phase, Phase::Preparing | Phase::Held) {
            service.detail = Some(why);
            self.enter(index, Phase::Held, reason, None);
        }
    }

    fn skip(&mut self, index: Index, why: Box<str>) {
        if let Some(service) = self.service(index) {
            service.detail = Some(why);
        }
        self.enter(index, Phase::Done, Reason::Skipped, None);
    }

    /// Ends `index` as far as there is something to end; what comes then is `after`.
    fn stop(&mut self, index: Index, reason: Reason, after: After) {
        let timeout = self.plan.services.get(usize::from(index)).map_or(Millis(0), |service| service.stop.timeout);
        let Some(service) = self.service(index) else { return };
        let number = service.number;
        service.after = after;
        match service.phase {
            // There is no main yet that could be asked.
            Phase::Starting => self.kill(index, reason),
            Phase::Running => {
                self.thaw(index);
                self.end(index, Ending::Asked, reason, timeout);
                self.actions.push(Action::Signal(index, number, None));
            }
            Phase::Stopping(Ending::Stuck) => {}
            Phase::Stopping(_) => service.reason = reason,
            Phase::Stopped => {}
            _ => self.enter(index, Phase::Stopped, reason, None),
        }
    }

    fn kill(&mut self, index: Index, reason: Reason) {
        self.thaw(index);
        self.end(index, Ending::Killed, reason, KILL_TIME);
        if let Some(number) = self.service(index).map(|service| service.number) {
            self.actions.push(Action::KillTree(index, number));
        }
    }

    fn thaw(&mut self, index: Index) {
        let Some(service) = self.service(index) else { return };
        let number = service.number;
        if core::mem::take(&mut service.paused) {
            self.actions.push(Action::Freeze(index, number, false));
        }
    }

    /// The instance is being ended and has `time` for it.
    fn end(&mut self, index: Index, ending: Ending, reason: Reason, time: Millis) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        if service.phase == Phase::Running {
            service.ran = now.since(service.since);
        }
        if matches!(service.phase, Phase::Stopping(_)) {
            service.phase = Phase::Stopping(ending);
            service.reason = reason;
            service.deadline = Some(now.plus(time));
        } else {
            self.enter(index, Phase::Stopping(ending), reason, Some(now.plus(time)));
        }
    }

    /// The instance is no more.
    fn gone(&mut self, index: Index, reason: Reason, detail: Option<Box<str>>) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        if service.phase == Phase::Running {
            service.ran = now.since(service.since);
        }
        if detail.is_some() {
            service.detail = detail;
        }
        let reason = match reason {
            Reason::Exit(Status::Signal(SIGKILL)) | Reason::InitLost if service.oom => Reason::OutOfMemory,
            reason => reason,
        };
        let (number, after) = (service.number, service.after);
        // The next instance lives in the same group and must not be born frozen.
        self.thaw(index);
        self.actions.push(Action::Cleanup(index, number));
        match after {
            _ if self.state.shutdown => self.enter(index, Phase::Stopped, reason, None),
            After::Stay => self.enter(index, Phase::Stopped, reason, None),
            After::Again => {
                if let Some(service) = self.service(index) {
                    service.backoff.reset();
                }
                self.begin(index);
            }
            After::Policy => self.by_policy(index, reason),
        }
    }

    fn by_policy(&mut self, index: Index, reason: Reason) {
        let Some(configured) = self.plan.services.get(usize::from(index)) else { return };
        let policy = configured.restart;
        let again = match (policy.policy, configured.kind) {
            (RestartPolicy::Always, Kind::Daemon) => true,
            (RestartPolicy::Always, Kind::Oneshot) | (RestartPolicy::OnFailure, _) => reason.is_failure(),
            (RestartPolicy::No, _) => false,
        };
        if !again {
            let phase = if reason.is_failure() { Phase::Failed } else { Phase::Done };
            return self.enter(index, phase, reason, None);
        }
        let (now, random) = (self.now, self.random());
        let Some(service) = self.service(index) else { return };
        match service.backoff.next(&policy, service.ran, now, random) {
            Next::Wait(wait) => self.enter(index, Phase::Backoff, reason, Some(now.plus(wait))),
            Next::GiveUp => self.enter(index, Phase::Failed, reason, None),
        }
    }

    /// What follows from where everything stands now: who waited can begin, who is no longer needed can end.
    fn sweep(&mut self) {
        for index in self.indices() {
            match self.phase(index) {
                Some(Phase::Waiting) => match graph::unmet(self.plan, &self.state.services, index) {
                    None => self.begin(index),
                    Some(needed) => {
                        if let Some(service) = self.service(index) {
                            service.reason = Reason::Needs(needed);
                        }
                    }
                },
                Some(Phase::Starting | Phase::Running)
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
            self.answer_all(|goal| goal == Goal::Ended, Verdict::Ended);
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

    fn answer_all(&mut self, which: impl Fn(Goal) -> bool, verdict: Verdict) {
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
        if let Some(service) = self.service(index) {
            service.wanted = wanted;
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
