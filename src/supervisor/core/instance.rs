//! What instances do, and what follows for their services.
#![forbid(unsafe_code)]

use super::{EXTENSION, SIGKILL, SWEEP_TIME, Step};
use crate::base::units::Millis;
use crate::plan::{Ready, Service as Configured};
use crate::supervisor::action::{Action, Verdict};
use crate::supervisor::event::{Index, InstanceEvent, Status};
use crate::supervisor::notify::{Notice, Standing};
use crate::supervisor::service::{Ending, Phase, Reason};
use crate::supervisor::waits::Goal;

impl Step<'_> {
    pub(super) fn instance(&mut self, index: Index, event: InstanceEvent) {
        let now = self.now;
        // What comes after main has its time, too.
        let post_stop = self.configured(index).map_or(Millis(0), Configured::post_stop_time);
        let sweep = SWEEP_TIME.plus(post_stop);
        let Some(service) = self.service(index) else { return };
        let (phase, number) = (service.phase, service.number);
        match event {
            InstanceEvent::Spawned => {}
            InstanceEvent::SpawnFailed(why) => self.gone(index, Reason::SpawnFailed, Some(why)),
            InstanceEvent::MainStarted if phase == Phase::Starting => self.main_started(index),
            InstanceEvent::MainStarted => {}
            InstanceEvent::MainFailed(why) if phase == Phase::Starting => {
                service.detail = Some(why);
                self.end(index, Ending::Sweeping, Reason::SpawnFailed, SWEEP_TIME);
            }
            InstanceEvent::MainFailed(_) => {}
            InstanceEvent::MainExited(status) => match phase {
                Phase::Starting | Phase::Started | Phase::Running => {
                    self.thaw(index);
                    self.end(index, Ending::Sweeping, Reason::Exit(status), sweep);
                }
                Phase::Stopping(ending @ (Ending::Asked | Ending::Killed))
                    if ending == Ending::Asked || sweep > SWEEP_TIME =>
                {
                    service.phase = Phase::Stopping(Ending::Sweeping);
                    service.deadline = Some(now.plus(sweep));
                    service.furthest = None;
                    service.reason = service.reason.or_exit(status);
                }
                _ => {}
            },
            InstanceEvent::InitGone(status) => {
                let reason = match (service.phase, status) {
                    (Phase::Stopping(_), Some(status)) => service.reason.or_exit(status),
                    (Phase::Stopping(_), None) => service.reason,
                    (_, Some(status)) => Reason::Exit(status),
                    (_, None) => Reason::InitLost,
                };
                self.gone(index, reason, None);
            }
            InstanceEvent::OutOfMemory => self.out_of_memory(index),
            InstanceEvent::Notified(notice) => self.notified(index, notice),
            InstanceEvent::Troubled(why) => service.said = Some(why),
            InstanceEvent::Probing(times) => {
                self.image_says(index, times);
                // What runs already was adopted.
                if matches!(phase, Phase::Started | Phase::Running) {
                    self.begin_probes(index);
                }
            }
            InstanceEvent::Probed(outcome) => self.probed(index, outcome),
            InstanceEvent::Frozen(Ok(frozen)) => match phase {
                Phase::Running => {
                    service.paused = frozen;
                    if service.reason == Reason::Freezer {
                        service.reason = Reason::None;
                    }
                    // What is frozen cannot ping, and what is thawed has its whole time again.
                    service.ping_by = service.period.filter(|_| !frozen).map(|period| now.plus(period));
                    service.late = false;
                    service.deadline = None;
                    if !frozen && service.furthest.is_some() {
                        self.reloads(index);
                    }
                    if frozen {
                        self.rest_probes(index);
                    } else {
                        self.resume_probes(index);
                    }
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
                self.answer_all(&|goal| matches!(goal, Goal::Frozen(i, _) if i == index), Verdict::Failed(index));
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
            Phase::Starting | Phase::Started | Phase::Running => self.kill(index, Reason::OutOfMemory),
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

    /// Main runs: its watchdog begins, and it is ready now or has yet to say so.
    fn main_started(&mut self, index: Index) {
        let now = self.now;
        let configured = self.configured(index);
        let ready = configured.is_none_or(|configured| configured.ready == Ready::Started);
        let period = configured.and_then(|configured| configured.watchdog);
        let Some(service) = self.service(index) else { return };
        service.detail = None;
        service.furthest = service.furthest.filter(|_| !ready);
        (service.period, service.ping_by) = (period, period.map(|period| now.plus(period)));
        let deadline = service.deadline.filter(|_| !ready);
        self.enter(index, if ready { Phase::Running } else { Phase::Started }, Reason::None, deadline);
        self.begin_probes(index);
    }

    /// The service said something about itself.
    fn notified(&mut self, index: Index, notice: Notice) {
        let now = self.now;
        let Some(service) = self.service(index) else { return };
        if let Some(period) = notice.watchdog {
            service.period = Some(period);
        }
        let starting = service.phase == Phase::Started;
        let alive = matches!(service.phase, Phase::Started | Phase::Running);
        if alive && !service.paused && (notice.ping || notice.watchdog.is_some()) {
            service.ping_by = service.period.map(|period| now.plus(period));
            service.late = false;
        }
        let well = alive && !service.paused && notice.ping;
        if alive && notice.forgive {
            service.backoff.forgive();
        }
        if let (Some(more), Some(deadline), Some(furthest)) = (notice.extend, service.deadline, service.furthest) {
            service.deadline = Some(deadline.max(now.plus(more).min(furthest)));
        }
        match (notice.standing, service.phase) {
            (Some(Standing::Ready), Phase::Started | Phase::Running) => {
                service.furthest = None;
                let reason = if service.reason == Reason::Reloading { Reason::None } else { service.reason };
                self.enter(index, Phase::Running, reason, None);
            }
            (Some(Standing::ReadyThenReloading), Phase::Started | Phase::Running) => {
                self.enter(index, Phase::Running, Reason::Reloading, None);
                self.reloads(index);
            }
            (Some(Standing::Reloading), Phase::Running) => {
                service.reason = Reason::Reloading;
                // Who says it again and again has no more time than who says it once.
                if service.furthest.is_none() {
                    self.reloads(index);
                }
            }
            (Some(Standing::Stopping), Phase::Started | Phase::Running) => {
                let timeout = self.configured(index).map_or(Millis(0), |configured| configured.stop.timeout);
                self.thaw(index);
                self.ask(index, Reason::Stopping, timeout);
            }
            _ => {}
        }
        let by_health = self.configured(index).is_some_and(|configured| configured.ready == Ready::Health);
        if starting && by_health && self.phase(index) == Some(Phase::Running) {
            // Its word is as good as the success that its start would have waited for.
            self.begin_probes(index);
        }
        if well {
            self.pinged(index);
        }
        if notice.trigger && alive && !self.on_hold(index) {
            self.abort(index, Reason::Watchdog);
        }
    }

    /// It reads its configuration anew, and has as long for it as for its start.
    fn reloads(&mut self, index: Index) {
        let now = self.now;
        let timeout = self.configured(index).map_or(Millis(0), |configured| configured.start_timeout);
        if let Some(service) = self.service(index) {
            // What is frozen cannot go on with it, and has its whole time when it is thawed.
            service.deadline = (!service.paused).then(|| now.plus(timeout));
            service.furthest = Some(now.plus(Millis(timeout.0.saturating_mul(EXTENSION))));
        }
    }

    fn configured(&self, index: Index) -> Option<&Configured> {
        self.plan.services.get(usize::from(index))
    }
}
