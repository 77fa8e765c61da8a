//! An instance in the world: what it does by itself, and what anyone outside coracle would know of it.

use coracle::base::units::Millis;
use coracle::plan::{Ready, Role, Service};
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
    /// Whether a probe is on its way to it, and whether its answers can be bad or late.
    pub asked: bool,
    pub sick: bool,
    /// Probes in a row that failed, and how many have to.
    pub misses: u8,
    pub retries: u8,
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
                let check = configured.health.as_ref();
                self.retries = check.map_or(0, |check| check.times.or(*times).retries());
            }
            // What was given up has no answer any more.
            InstanceEvent::Probed(_) if !std::mem::take(&mut self.asked) => return false,
            InstanceEvent::Probed(answer) => {
                self.misses = if answer.is_ok() { 0 } else { self.misses.saturating_add(1) };
                self.ready |= answer.is_ok() && configured.ready == Ready::Health;
            }
            _ => {}
        }
        true
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
        let live = configured.health.as_ref().is_some_and(|check| check.role == Role::Live);
        slow || lost || silent || self.triggered || live && self.misses >= self.retries
    }
}
