//! How often the world did what.

/// What a world does to a supervisor.
#[derive(Debug, Clone, Copy)]
pub enum What {
    Events,
    Crashes,
    Hangs,
    SlowStarts,
    MemoryKills,
    Floods,
    ClockSteps,
    Suspends,
    LateLoops,
    Stalls,
    FailedSpawns,
    FullOfRequests,
    FullOfLeftovers,
    Deaths,
    Timers,
    Unfed,
    Readiness,
    LostReadiness,
}

const NAMES: [&str; 18] = [
    "events",
    "crashes",
    "hangs",
    "slow starts",
    "kills for want of memory",
    "floods",
    "clock steps",
    "suspends",
    "late loops",
    "boards that stood still",
    "failed spawns",
    "requests refused for want of room",
    "times full of instances that do not die",
    "supervisor deaths",
    "timers",
    "times the hardware watchdog went unfed",
    "times a service was ready",
    "times one was not ready any more",
];

#[derive(Debug, Default, Clone, Copy)]
pub struct Tally([u64; NAMES.len()]);

impl Tally {
    pub fn count(&mut self, what: What) {
        self.0[what as usize] += 1;
    }

    pub fn of(&self, what: What) -> u64 {
        self.0[what as usize]
    }

    pub fn add(&mut self, other: &Tally) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    /// What never happened.
    pub fn never(&self) -> Vec<&'static str> {
        NAMES.iter().zip(self.0).filter(|(_, count)| *count == 0).map(|(name, _)| *name).collect()
    }

    pub fn line(&self) -> String {
        let parts: Vec<String> = NAMES.iter().zip(self.0).map(|(name, count)| format!("{count} {name}")).collect();
        parts.join(", ")
    }
}
