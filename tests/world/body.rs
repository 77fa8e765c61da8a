//! An instance in the world: what it does by itself, and what anyone outside coracle would know of it.

use coracle::base::units::Millis;
use coracle::plan::{Probe, Ready, Role, Service, Times};
use coracle::supervisor::event::InstanceEvent;
use coracle::supervisor::notify::Standing;

#[derive(Debug, Default)]
pub struct Body {
    pub number: u32,
    pub spawned: Millis,
    pub frozen: bool,
    pub immortal: bool,
    /// Whether main runs, and when it last pinged or had no reason to: its start, its thaw.
    pub runs: bool,
    pub pinged: Millis,
    /// The period of its watchdog as it knows it, and until when it pings within it.
    pub period: Option<Millis>,
    pub pings_until: Millis,
    /// When it was last heard: since then it may have stood still with the board, and the loop been late: how often.
    pub heard: Millis,
    pub stalls: u32,
    /// Whether it has asked for its own abort.
    pub triggered: bool,
    /// Whether it has become ready, and since when it reads its configuration anew.
    pub ready: bool,
    pub reloads: Option<Millis>,
    /// Of which check a probe is on its way to it, and whether its answers can be bad or late.
    pub asked: Option<Role>,
    pub sick: bool,
    /// Of the check of each role the probes in a row that failed, and how many have to.
    pub misses: [u8; 3],
    pub retries: [u8; 3],
    /// Whether its startup check has succeeded.
    pub started: bool,
    /// How many its image wants, if it says so.
    pub image: Option<u8>,
    /// Whether another supervisor has taken it over.
    pub taken_over: bool,
    /// Whether it was stopped for a reason that needs no time to pass: someone asked, main has ended, memory ran out.
    pub is_ending: bool,
}

impl Body {
    /// What it knows of an event of its own; `false`: it cannot do that now.
    pub fn does(&mut self, event: &InstanceEvent, configured: &Service, now: Millis) -> bool {
        match event {
            InstanceEvent::MainStarted => {
                self.runs = true;
                self.lives(now);
                self.ready |= configured.ready == Ready::Started;
            }
            InstanceEvent::MainExited(_) | InstanceEvent::MainFailed(_) => (self.runs, self.is_ending) = (false, true),
            InstanceEvent::OutOfMemory => self.is_ending = true,
            InstanceEvent::Notified(_) if self.frozen || !self.runs => return false,
            InstanceEvent::Notified(notice) => {
                self.triggered |= notice.trigger;
                match notice.standing {
                    Some(Standing::Ready) => (self.ready, self.reloads) = (true, None),
                    Some(Standing::ReadyThenReloading) => (self.ready, self.reloads) = (true, Some(now)),
                    Some(Standing::Reloading) if self.ready => self.reloads = self.reloads.or(Some(now)),
                    Some(Standing::Stopping) => self.is_ending = true,
                    Some(Standing::Reloading) | None => {}
                }
                self.period = notice.watchdog.or(self.period);
                if notice.ping || notice.watchdog.is_some() {
                    self.lives(now);
                }
            }
            InstanceEvent::Probing(times) => {
                self.image = times.retries;
                self.knows(configured, *times);
            }
            InstanceEvent::Probed(answer) => {
                // What was given up has no answer any more.
                let Some(role) = self.asked.take() else { return false };
                let misses = &mut self.misses[role as usize];
                *misses = if answer.is_ok() { 0 } else { misses.saturating_add(1) };
                self.ready |= answer.is_ok() && configured.ready_by() == Some(role);
                self.started |= answer.is_ok() && role == Role::Startup;
            }
            _ => {}
        }
        true
    }

    /// How often each of its checks may fail, as the config says or its image.
    pub fn knows(&mut self, configured: &Service, image: Times) {
        for check in &configured.health {
            let times = if check.probe == Probe::Image { check.times.or(image) } else { check.times };
            self.retries[check.role as usize] = times.retries();
        }
    }

    /// Whether its check of this role has failed too often.
    pub fn fails(&self, configured: &Service, role: Role) -> bool {
        configured.check(role).is_some() && self.misses[role as usize] >= self.retries[role as usize]
    }

    /// It has pinged, or has its whole time for it again.
    pub fn lives(&mut self, now: Millis) {
        (self.pinged, self.heard, self.stalls) = (now, now, 0);
    }

    /// Whether it is not well by its own doing: too slow, silent, or failing its probes.
    pub fn is_bad(&self, configured: &Service, now: Millis) -> bool {
        let passed = |since: Millis, time: Millis| now.since(since) >= time;
        let slow = !self.ready && passed(self.spawned, configured.start_timeout);
        let lost = self.reloads.is_some_and(|since| passed(since, configured.start_timeout));
        // That the board stood still is seen by a timer that is late, and forgiven once.
        let unseen = |period| passed(self.heard, period) && !passed(self.heard, period.plus(Millis(1001)));
        let silent = |period| passed(self.pinged, period) || self.stalls > 1 || self.stalls > 0 && unseen(period);
        let silent = self.period.is_some_and(silent);
        slow || lost || silent || self.triggered || self.fails(configured, Role::Live)
    }
}
