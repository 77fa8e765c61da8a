//! Restarts and escalation, exhaustively: every configuration of a finite grid over a virtual day.
//!
//! Four services: one that fails, one that needs it, a stranger, and a lifeline. The grid is every restart policy, tries,
//! window, end of the way, first wait, longest wait, budget of the device, and way to fail that [`grid`] lists.

use coracle::base::name::Name;
use coracle::base::units::{Bytes, Millis};
use coracle::plan::{Device, Limits, Memory, Need, Plan, Restart, RestartPolicy, Root, Service, Then};
use coracle::supervisor::action::{Action, Actions};
use coracle::supervisor::core::{State, step};
use coracle::supervisor::escalation::Rung;
use coracle::supervisor::event::{Event, InstanceEvent, Status};
use coracle::supervisor::service::{After, Phase, Reason};
use std::collections::VecDeque;

const DAY: Millis = Millis::from_secs(86_400);
const FAILS: u16 = 0;
const NEEDS_IT: u16 = 1;
const STRANGER: u16 = 2;
const LIFELINE: u16 = 3;

/// How the failing service lives.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// How long each run lasts.
    runs: Millis,
    /// From which start on it lives for good.
    heals_at: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    restart: Restart,
    per_minute: u16,
    life: Life,
}

fn grid() -> Vec<Point> {
    let mut points = Vec::new();
    for policy in [RestartPolicy::No, RestartPolicy::OnFailure, RestartPolicy::Always] {
        for tries in [0, 1, 3] {
            for within in [Millis(1000), Millis::from_secs(600)] {
                for then in [Then::KeepTrying, Then::Stop, Then::Dependants, Then::Reboot] {
                    for (delay, max_delay) in [(100, 5000), (1000, 60_000), (30_000, 30_000)] {
                        for per_minute in [0, 30] {
                            for (runs, heals_at) in [(1, None), (4000, None), (61_000, None), (1, Some(6))] {
                                points.push(Point {
                                    restart: Restart {
                                        policy,
                                        tries,
                                        within,
                                        then,
                                        delay: Millis(delay),
                                        max_delay: Millis(max_delay),
                                    },
                                    per_minute,
                                    life: Life { runs: Millis(runs), heals_at },
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    points
}

/// A day of one configuration.
struct Day {
    point: Point,
    plan: Plan,
    state: State,
    now: Millis,
    actions: Actions,
    queue: VecDeque<Event>,
    /// When the running instance of the failing service ends.
    ends: Option<(Millis, u32)>,
    /// Starts of each service.
    starts: [u32; 4],
    /// When the failing service was started, each time.
    started: Vec<Millis>,
    climbs: Vec<(Rung, u32)>,
    seen_looping: bool,
    /// When the watchdog was first not to be fed, and after how many starts.
    lacking: Option<(Millis, u32)>,
}

impl Day {
    fn new(point: Point) -> Day {
        let service = |name: &str, needs: &[u16]| Service {
            needs: needs.iter().map(|need| Need::Started(*need)).collect(),
            ..Service::new(
                Name::new(name).unwrap(),
                Root::Image("x.tar".into()),
                Limits::with_memory(Memory::Max(Bytes(1 << 20))),
            )
        };
        let services = vec![
            Service { restart: point.restart, critical: true, ..service("fails", &[]) },
            service("needs-it", &[FAILS]),
            service("stranger", &[]),
            Service { lifeline: true, ..service("lifeline", &[]) },
        ];
        let device = Device { restarts_per_minute: point.per_minute, ..Device::default() };
        let plan = Plan { services, start_order: vec![0, 1, 2, 3], device, ..Plan::default() };
        Day {
            point,
            state: State::new(&plan, 7),
            plan,
            now: Millis(1000),
            actions: Actions::default(),
            queue: VecDeque::from([Event::Boot]),
            ends: None,
            starts: [0; 4],
            started: Vec::new(),
            climbs: Vec::new(),
            seen_looping: false,
            lacking: None,
        }
    }

    fn pass(&mut self) {
        let end = self.now.plus(DAY);
        loop {
            while let Some(event) = self.queue.pop_front() {
                step(&self.plan, &mut self.state, event, self.now, &mut self.actions);
                for action in self.actions.drain().collect::<Vec<_>>() {
                    self.perform(action);
                }
            }
            let failing = &self.state.services()[0];
            self.seen_looping |= failing.phase == Phase::Backoff && failing.backoff.is_looping();
            if self.state.lacking(&self.plan, self.now).is_some() {
                self.lacking.get_or_insert((self.now, self.starts[0]));
            }
            let ends = self.ends.map(|(at, _)| at);
            let Some(next) = ends.into_iter().chain(self.state.next_deadline()).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            match self.ends.filter(|(at, _)| *at <= self.now) {
                Some((_, number)) => {
                    self.ends = None;
                    let gone = InstanceEvent::InitGone(Some(Status::Code(1)));
                    self.queue.push_back(Event::Instance(FAILS, number, gone));
                }
                None => self.queue.push_back(Event::Timer),
            }
        }
        self.now = end;
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Prepare(index) => self.queue.push_back(Event::Ready(index)),
            Action::Spawn(index, number) => {
                let starts = &mut self.starts[usize::from(index)];
                *starts += 1;
                if index == FAILS {
                    self.started.push(self.now);
                    let heals = self.point.life.heals_at.is_some_and(|at| *starts >= at);
                    self.ends = (!heals).then(|| (self.now.plus(self.point.life.runs), number));
                }
                self.queue.push_back(Event::Instance(index, number, InstanceEvent::MainStarted));
            }
            Action::Signal(index, number, _) => {
                let gone = InstanceEvent::InitGone(Some(Status::Signal(15)));
                self.queue.push_back(Event::Instance(index, number, gone));
            }
            Action::Climbed(index, rung) => {
                assert_eq!(index, FAILS, "{:?}", self.point);
                self.climbs.push((rung, self.starts[0]));
                let service = &self.state.services()[usize::from(NEEDS_IT)];
                if rung == Rung::Dependants && service.phase != Phase::Waiting {
                    assert_eq!((service.reason, service.after), (Reason::Escalated(FAILS), After::Along));
                }
            }
            _ => {}
        }
    }

    /// What has to hold of a day.
    fn judge(&self) {
        let Point { restart, per_minute, life } = self.point;
        let (at, failing) = (&self.point, &self.state.services()[0]);
        let may_restart = restart.policy != RestartPolicy::No;
        let used_up = restart.tries > 0 && self.started.len() > usize::from(restart.tries);

        // It is down for good only where the config says so.
        match failing.phase {
            Phase::Failed => assert!(!may_restart || restart.then == Then::Stop && used_up, "{at:?}"),
            Phase::Running | Phase::Backoff => assert!(may_restart, "{at:?}"),
            phase => panic!("{phase:?} at the end of {at:?}"),
        }
        if life.heals_at.is_some() && may_restart && failing.phase != Phase::Failed {
            assert_eq!(failing.phase, Phase::Running, "{at:?}");
        }
        // No wait is shorter than the first one allows, and none is longer than the cap and the device's budget allow.
        for pair in self.started.windows(2) {
            let wait = pair[1].since(pair[0]).0 - life.runs.0;
            assert!(wait >= restart.delay.0 * 9 / 10, "{wait} in {at:?}");
            let most = restart.max_delay.0 + if per_minute == 0 { 0 } else { 60_000 };
            assert!(wait <= most, "{wait} in {at:?}");
        }
        if per_minute > 0 {
            for (first, start) in self.started.iter().enumerate() {
                let within = self.started[first..].iter().take_while(|at| at.since(*start) < Millis::from_secs(60));
                assert!(within.count() <= usize::from(per_minute) * 11 / 10 + 2, "{at:?}");
            }
        }
        // The way up leaves out no rung, goes no further than it may, and takes its tries on each.
        let rungs: &[Rung] = match restart.then {
            Then::KeepTrying | Then::Stop => &[],
            Then::Dependants => &[Rung::Dependants],
            Then::Reboot => &[Rung::Dependants, Rung::Everything, Rung::Reboot],
        };
        let (mut expected, mut before) = (rungs.iter(), 0);
        for (rung, starts) in &self.climbs {
            assert_eq!(Some(rung), expected.next(), "{:?} of {at:?}", self.climbs);
            // Once everything has waited, what is one start more is the end of the last rung's first try.
            assert!(*starts - before > u32::from(restart.tries), "{:?} of {at:?}", self.climbs);
            before = *starts;
        }
        // What fails for good and does it fast enough comes to the end of its way.
        let fast = restart.tries > 0
            && life.runs.plus(restart.max_delay).0 * (u64::from(restart.tries) + 1) < restart.within.0;
        if fast && life.heals_at.is_none() && may_restart {
            assert_eq!(self.climbs.len(), rungs.len(), "{at:?}");
            assert!(self.seen_looping || restart.then == Then::Stop, "a crash loop is not shown: {at:?}");
        }
        // The watchdog is fed until recovery is used up, and no longer than it lasts.
        let lacks = self.state.lacking(&self.plan, self.now);
        let recovers = failing.phase == Phase::Running && life.heals_at.is_some();
        assert!(!recovers || lacks.is_none(), "{at:?}");
        let well =
            life.runs > restart.max_delay.max(Millis::from_secs(10)) && may_restart && failing.phase != Phase::Failed;
        if !recovers && !well {
            assert_eq!(lacks, Some(FAILS), "{at:?}");
        }
        if let Some((when, starts)) = self.lacking {
            let ways = rungs.len().clamp(1, 3) as u32;
            let ways = if restart.then == Then::Dependants { 2 } else { ways };
            let late = when.since(Millis(1000)).0 > restart.within.0 * u64::from(ways);
            let tried = restart.tries > 0 && starts > u32::from(restart.tries) * ways;
            let late = late || failing.phase == Phase::Failed;
            let longest = restart.tries == 0 && self.seen_looping;
            assert!(late || tried || longest, "given up after {starts} starts at {when:?} in {at:?}");
        }
        // Others are started again by the rungs alone.
        let climbed = |rung| self.climbs.iter().filter(|(climbed, _)| *climbed == rung).count() as u32;
        assert_eq!(self.starts[usize::from(LIFELINE)], 1, "{at:?}");
        assert_eq!(self.starts[usize::from(STRANGER)], 1 + climbed(Rung::Everything), "{at:?}");
        assert!(
            self.starts[usize::from(NEEDS_IT)] <= 1 + climbed(Rung::Dependants) + climbed(Rung::Everything),
            "{at:?}"
        );
        assert_eq!(self.state.services()[usize::from(STRANGER)].phase, Phase::Running, "{at:?}");
        assert_eq!(self.state.services()[usize::from(LIFELINE)].phase, Phase::Running, "{at:?}");
    }
}

#[test]
fn every_configuration_of_the_grid_behaves_for_a_day() {
    let points = grid();
    for point in &points {
        let mut day = Day::new(*point);
        day.pass();
        day.judge();
    }
    assert_eq!(points.len(), 3 * 3 * 2 * 4 * 3 * 2 * 4);
}
