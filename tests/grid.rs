//! Every restart and escalation configuration of a finite grid, each with every way to fail, over a virtual day in the pure
//! core: how often a service is restarted is bounded from above and from below, recovery goes as far as configured and no
//! further, and nothing ends without a word. A debug build looks at an hour instead of a day.

mod tame;

use coracle::base::exit;
use coracle::base::units::Millis;
use coracle::plan::{Device, Need, Ready, Restart, RestartPolicy, Service, Then};
use coracle::supervisor::backoff::proof;
use coracle::supervisor::escalation::Rung;
use coracle::supervisor::event::Event;
use coracle::supervisor::service::Phase;
use tame::{Behaviour, Note, Tame, service};

const POLICIES: [RestartPolicy; 3] = [RestartPolicy::No, RestartPolicy::OnFailure, RestartPolicy::Always];
const DELAYS: [u64; 3] = [0, 100, 30_000];
const MAX_DELAYS: [u64; 3] = [5000, 60_000, 600_000];
const TRIES: [u16; 4] = [0, 1, 3, 10];
const WITHIN: [u64; 3] = [1000, 60_000, 3_600_000];
const THEN: [Then; 4] = [Then::KeepTrying, Then::Stop, Then::Dependants, Then::Reboot];

/// The shortest wait that there is.
const FLOOR: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It ends after so long, in milliseconds, with this exit code.
    Ends(u64, u8),
    /// It never pings within its watchdog's five seconds.
    Hangs,
    /// It is never ready within its three seconds.
    NeverReady,
    CannotStart,
}

const FAULTS: [Fault; 8] = [
    Fault::Ends(1, 1),
    Fault::Ends(1, 0),
    Fault::Ends(1, exit::INVALID),
    Fault::Ends(5000, 1),
    Fault::Ends(700_000, 1),
    Fault::Hangs,
    Fault::NeverReady,
    Fault::CannotStart,
];

impl Fault {
    /// How long one run takes, in milliseconds.
    fn time(self) -> u64 {
        match self {
            Fault::Ends(time, _) => time,
            Fault::Hangs => 5000,
            Fault::NeverReady => 3000,
            Fault::CannotStart => 0,
        }
    }

    /// How long of it the service was up.
    fn up(self) -> u64 {
        if self == Fault::NeverReady { 0 } else { self.time() }
    }

    /// Whether the restart policy sees a failure that a restart may help.
    fn is_failure(self) -> bool {
        !matches!(self, Fault::Ends(_, 0))
    }
}

fn end() -> Millis {
    Millis::from_secs(if cfg!(debug_assertions) { 3600 } else { 86_400 })
}

/// The service, one that needs it, one that has nothing to do with it, and a lifeline.
fn device(restart: Restart, fault: Fault) -> Tame {
    let bad = Service {
        restart,
        critical: true,
        start_timeout: Millis(3000),
        watchdog: (fault == Fault::Hangs).then_some(Millis(5000)),
        ready: if fault == Fault::NeverReady { Ready::Notify } else { Ready::Started },
        ..service(0)
    };
    let dependant = Service { needs: vec![Need::Started(0)], ..service(1) };
    let lifeline = Service { lifeline: true, ..service(3) };
    let behaviour = match fault {
        Fault::Ends(time, code) => Behaviour::Ends(Millis(time), code),
        Fault::Hangs | Fault::NeverReady => Behaviour::Runs,
        Fault::CannotStart => Behaviour::CannotStart,
    };
    let behaviours = vec![behaviour, Behaviour::Runs, Behaviour::Runs, Behaviour::Runs];
    let mut device = Tame::new(vec![bad, dependant, service(2), lifeline], behaviours);
    device.plan.device = Device { restarts_per_minute: 0, ..Device::default() };
    device
}

/// What must come of it, said without the core's own words.
struct Expected {
    restarts: bool,
    /// The longest wait.
    cap: u64,
    /// Whether a run is long enough to forget the failures before it.
    healthy: bool,
}

impl Expected {
    fn of(policy: &Restart, fault: Fault) -> Expected {
        let restarts = match policy.policy {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure => fault.is_failure(),
            RestartPolicy::Always => true,
        };
        Expected {
            restarts: restarts && !matches!(fault, Fault::Ends(_, exit::INVALID)),
            cap: policy.max_delay.0.max(policy.delay.0).max(FLOOR),
            healthy: fault.up() > policy.max_delay.0,
        }
    }

    /// The wait after `failures` failures in a row.
    fn wait(&self, policy: &Restart, failures: u32) -> u64 {
        let failures = if self.healthy { 0 } else { failures };
        let (first, doublings) = match (policy.delay.0, failures) {
            (0, 1..) => (FLOOR, failures - 1),
            (delay, _) => (delay, failures),
        };
        first.saturating_mul(1u64.checked_shl(doublings).unwrap_or(u64::MAX)).min(self.cap)
    }

    /// The shortest and the longest time from the first end of a rung to the one that uses up its tries; `before` failures
    /// are known already.
    fn window(&self, policy: &Restart, fault: Fault, before: u32) -> (u64, u64) {
        let waits: u64 = (before..before + u32::from(policy.tries)).map(|n| self.wait(policy, n)).sum();
        let runs = fault.time() * u64::from(policy.tries);
        (waits - waits / 10 + runs, waits + runs)
    }
}

/// How many rungs `then` has above the first.
fn rungs(then: Then) -> usize {
    match then {
        Then::KeepTrying | Then::Stop => 0,
        Then::Dependants => 1,
        Then::Reboot => 3,
    }
}

fn judge(policy: Restart, fault: Fault) -> u64 {
    let mut device = device(policy, fault);
    device.feed(Event::Boot);
    let case = format!("{fault:?} {policy:?}");
    let fed_at_first = device.state.lacking(&device.plan, device.now).is_none();
    assert!(fed_at_first, "{case}: the watchdog is not fed from the start");
    device.run(end());
    let expected = Expected::of(&policy, fault);
    let spawns: Vec<u64> =
        device.notes.iter().filter(|(_, note)| *note == Note::Spawned(0)).map(|(at, _)| at.0).collect();
    let climbs: Vec<Rung> = device
        .notes
        .iter()
        .filter_map(|(_, note)| if let Note::Climbed(0, rung) = note { Some(*rung) } else { None })
        .collect();
    let count = spawns.len() as u64;

    // How far recovery goes: in order, no further than configured, and there if the tries are used up in their window.
    let way = [Rung::Dependants, Rung::Everything, Rung::Reboot];
    let most = if policy.tries == 0 || !expected.restarts { 0 } else { rungs(policy.then) };
    let lasting = fault.up() > proof(&policy).0;
    if !lasting || policy.then != Then::Reboot {
        assert!(climbs.len() <= most && climbs == way[..climbs.len()], "{case}: {climbs:?}");
    }
    let (shortest, longest) = expected.window(&policy, fault, 0);
    let used_up = policy.tries > 0 && expected.restarts && longest <= policy.within.0 && 2 * longest < end().0;
    let never_used_up = policy.tries == 0 || shortest > policy.within.0;
    if never_used_up {
        assert!(climbs.is_empty(), "{case}: {climbs:?}, and the tries last {shortest} ms at least");
    }
    if used_up && most > 0 {
        assert!(!climbs.is_empty(), "{case}: the tries are used up within {longest} ms, and nothing follows");
        let (_, longer) = expected.window(&policy, fault, 1);
        if longer <= policy.within.0 && 8 * longer < end().0 {
            assert_eq!(climbs.len(), most, "{case}: {climbs:?}");
        }
    }

    // What else is restarted: dependants and everything but lifelines, once a rung, and only what was reached.
    let starts = |at: u16| device.notes.iter().filter(|(_, note)| *note == Note::Spawned(at)).count();
    let reached = |rung| usize::from(climbs.contains(&rung));
    assert_eq!(starts(3), 1, "{case}: a lifeline is restarted");
    assert!(starts(2) <= 1 + reached(Rung::Everything), "{case}: a bystander is restarted {} times", starts(2));

    // Never a silent end: what is down for good says so, and only where that was asked for.
    let stopped = used_up && policy.then == Then::Stop;
    match device.phase(0) {
        Phase::Failed => {
            let given_up = policy.then == Then::Stop && policy.tries > 0 && !never_used_up;
            assert!(!expected.restarts && fault.is_failure() || given_up, "{case}: given up");
        }
        Phase::Done => assert!(!expected.restarts && !fault.is_failure(), "{case}: done"),
        phase => {
            assert!(expected.restarts && !stopped, "{case}: {phase:?}");
            let service = &device.state.services()[0];
            let next = service.deadline.is_some() || matches!(phase, Phase::Running | Phase::Preparing);
            assert!(next, "{case}: nothing will change {phase:?}");
        }
    }
    let crashes = device.notes.iter().filter(|(_, note)| *note == Note::Crashed(0)).count();
    assert!(crashes >= usize::from(fault.is_failure() && fault.time() < end().0), "{case}: not told");
    assert!(lasting || crashes <= 1, "{case}: one incident is told {crashes} times");

    // How often it is restarted.
    if !expected.restarts {
        assert_eq!(count, 1, "{case}");
        return count;
    }
    let gaps = spawns.windows(2).map(|two| two[1] - two[0] - fault.time());
    for (at, gap) in gaps.enumerate() {
        let least = if at == 0 || expected.healthy { policy.delay.0 } else { FLOOR };
        assert!((least..=expected.cap).contains(&gap), "{case}: restart {at} after {gap} ms");
    }
    // Each rung begins with short waits once more.
    let quick = 40 * (climbs.len() as u64 + 1);
    let wait = if expected.healthy { expected.wait(&policy, 0) } else { expected.cap * 9 / 10 };
    let upper = end().0 / (wait + fault.time()) + 2 + if expected.healthy { 0 } else { quick };
    assert!(count <= upper, "{case}: {count} restarts, {upper} at most");
    if device.phase(0) != Phase::Failed {
        let lower = end().0 / (expected.cap + fault.time());
        assert!(count >= lower, "{case}: {count} restarts, {lower} at least");
    }

    // Whether the hardware watchdog is still fed for it.
    let lacking = device.state.lacking(&device.plan, device.now);
    let hopeless = device.phase(0) == Phase::Failed || climbs.contains(&Rung::Reboot) && !lasting;
    assert!(!hopeless || lacking == Some(0), "{case}: the watchdog is fed, and nothing will help");
    assert!(lacking.is_none() || !lasting || policy.tries > 0, "{case}: the watchdog is not fed: {lacking:?}");
    count
}

#[test]
fn every_restart_configuration_keeps_its_bounds_over_a_day() {
    let (mut cases, mut starts) = (0, 0);
    for policy in POLICIES {
        for (delay, max_delay) in DELAYS.iter().flat_map(|delay| MAX_DELAYS.iter().map(move |most| (*delay, *most))) {
            for (tries, within) in TRIES.iter().flat_map(|tries| WITHIN.iter().map(move |within| (*tries, *within))) {
                for (then, fault) in THEN.iter().flat_map(|then| FAULTS.iter().map(move |fault| (*then, *fault))) {
                    let (delay, max_delay, within) = (Millis(delay), Millis(max_delay), Millis(within));
                    starts += judge(Restart { policy, delay, max_delay, tries, within, then }, fault);
                    cases += 1;
                }
            }
        }
    }
    println!("measured: {cases} restart configurations over {} virtual hours, {starts} starts", end().0 / 3_600_000);
}
