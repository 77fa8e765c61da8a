//! The supervisor's core in a random world with a virtual clock: months in a second. What must always hold is asserted at
//! every step. The seed is printed; `SIMULATE_SEED=n` repeats one run.

use coracle::base::name::Name;
use coracle::base::units::{Bytes, Millis};
use coracle::plan::{Kind, Limits, Memory, Need, Plan, Restart, RestartPolicy, Root, Service, Stop, Then};
use coracle::supervisor::action::{Action, Actions};
use coracle::supervisor::core::{State, step};
use coracle::supervisor::event::{Event, Index, InstanceEvent, Order, Status, Token};
use coracle::supervisor::service::{Ending, Phase, Reason};
use std::collections::{BTreeMap, VecDeque};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn random_plan(random: &mut Random) -> Plan {
    let count = 1 + random.below(8) as u16;
    let policies = [RestartPolicy::Always, RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::No];
    let kinds: Vec<Kind> = (0..count).map(|_| if random.one_in(3) { Kind::Oneshot } else { Kind::Daemon }).collect();
    let services = (0..count)
        .map(|i| Service {
            kind: kinds[usize::from(i)],
            needs: (0..i)
                .filter(|_| random.one_in(3))
                .map(|need| match kinds[usize::from(need)] {
                    Kind::Oneshot => Need::Done(need),
                    Kind::Daemon => Need::Started(need),
                })
                .collect(),
            restart: Restart {
                policy: policies[random.below(4) as usize],
                delay: Millis(random.below(500)),
                max_delay: Millis(1000 + random.below(60_000)),
                tries: random.below(6) as u16,
                within: Millis(random.below(600_000)),
                then: if random.one_in(3) { Then::Stop } else { Then::KeepTrying },
            },
            stop: Stop { signal: None, timeout: Millis(random.below(10_000)) },
            start_timeout: Millis(1 + random.below(30_000)),
            enabled: !random.one_in(5),
            ..Service::new(
                Name::new(&format!("s{i}")).unwrap(),
                Root::Image("x.tar".into()),
                Limits::with_memory(Memory::Max(Bytes(1 << 20))),
            )
        })
        .collect();
    Plan { services, start_order: (0..count).collect(), ..Plan::default() }
}

fn is_met(need: Need, phase: Phase) -> bool {
    match need {
        Need::Started(_) => matches!(phase, Phase::Running | Phase::Done),
        Need::Done(_) => phase == Phase::Done,
    }
}

/// An instance in the world: what it will do by itself, and when.
#[derive(Debug, Default)]
struct Body {
    number: u32,
    frozen: bool,
    immortal: bool,
}

struct World {
    random: Random,
    plan: Plan,
    state: State,
    now: Millis,
    actions: Actions,
    alive: BTreeMap<Index, Body>,
    last_number: Vec<u32>,
    /// What the world has in store, by time; the second number keeps the order of equal times.
    agenda: BTreeMap<(Millis, u64), Event>,
    serial: u64,
    /// What the loop learns while it performs an action: taken in before anything else.
    at_once: VecDeque<Event>,
    asked: BTreeMap<u32, bool>,
    complete: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let plan = random_plan(&mut random);
        let state = State::new(&plan, seed as u32);
        let last_number = vec![0; plan.services.len()];
        World {
            random,
            plan,
            state,
            now: Millis(1),
            actions: Actions::default(),
            alive: BTreeMap::new(),
            last_number,
            agenda: BTreeMap::new(),
            serial: 0,
            at_once: VecDeque::new(),
            asked: BTreeMap::new(),
            complete: false,
        }
    }

    fn later(&mut self, at_most: u64, event: Event) {
        self.serial += 1;
        let at = self.now.plus(Millis(self.random.below(at_most)));
        self.agenda.insert((at, self.serial), event);
    }

    fn feed(&mut self, event: Event) {
        if let Event::Instance(index, number, InstanceEvent::InitGone(_)) = &event {
            if self.alive.get(index).is_some_and(|body| body.number == *number) {
                self.alive.remove(index);
            } else {
                return;
            }
        }
        step(&self.plan, &mut self.state, event, self.now, &mut self.actions);
        let actions: Vec<Action> = self.actions.drain().collect();
        assert!(actions.len() <= 8 * self.plan.services.len() + 100, "one step wants {} things", actions.len());
        for action in actions {
            self.perform(action);
        }
        while let Some(event) = self.at_once.pop_front() {
            self.feed(event);
        }
    }

    fn perform(&mut self, action: Action) {
        assert!(
            !self.complete || matches!(action, Action::Answer(..) | Action::Cleanup(..) | Action::Changed(..)),
            "{action:?} after the end"
        );
        match action {
            Action::Prepare(index) => match self.random.below(12) {
                0 => self.later(5000, Event::Held(index, "no such device".into())),
                1 => self.later(5000, Event::ImageFailed(index, "bad layer".into())),
                2 => self.later(5000, Event::Skipped(index, "/data/key exists".into())),
                _ => self.later(2000, Event::Ready(index)),
            },
            Action::Spawn(index, number) => self.spawn(index, number),
            Action::Signal(index, number, signal) => {
                let body = self.living(index, number, action);
                assert!(!body.frozen || signal.is_some(), "a frozen service is asked to stop");
                if !body.immortal && (signal.is_none() || signal == Some(9)) && !self.random.one_in(4) {
                    self.end(index, number, 4000);
                }
            }
            Action::KillTree(index, number) => {
                let body = self.living(index, number, action);
                assert!(!body.frozen, "a frozen process cannot be killed");
                // Now and then init does not do what it should.
                if !body.immortal && !self.random.one_in(10) {
                    self.later(1000, Event::Instance(index, number, InstanceEvent::InitGone(None)));
                }
            }
            Action::KillInit(index, number) => {
                if !self.living(index, number, action).immortal {
                    self.later(10, Event::Instance(index, number, InstanceEvent::InitGone(None)));
                }
            }
            Action::Freeze(index, number, frozen) => {
                if let Some(body) = self.alive.get_mut(&index).filter(|body| body.number == number) {
                    body.frozen = frozen;
                }
                let result = if self.random.one_in(10) { Err("no freezer".into()) } else { Ok(frozen) };
                if frozen || result.is_ok() {
                    if result.is_err()
                        && let Some(body) = self.alive.get_mut(&index)
                    {
                        body.frozen = false;
                    }
                    self.at_once.push_back(Event::Instance(index, number, InstanceEvent::Frozen(result)));
                }
            }
            Action::Cleanup(index, number) => {
                assert!(!self.alive.contains_key(&index), "service {index} is cleaned up alive");
                assert_eq!(self.last_number[usize::from(index)], number);
            }
            Action::Answer(token, _) => {
                let answered = self.asked.get_mut(&token.id).expect("an answer to nobody");
                assert!(!std::mem::replace(answered, true), "request {} is answered twice", token.id);
            }
            Action::Complete => {
                let left = |(index, body): (&Index, &Body)| {
                    let phase = self.state.services()[usize::from(*index)].phase;
                    assert!(phase == Phase::Stopping(Ending::Stuck), "{index} {body:?} is left in {phase:?}");
                };
                self.alive.iter().for_each(left);
                self.complete = true;
            }
            Action::Changed(..) | Action::GiveUp(..) => {}
        }
    }

    fn living(&mut self, index: Index, number: u32, action: Action) -> &Body {
        let body = self.alive.get(&index).unwrap_or_else(|| panic!("{action:?}, but it is dead"));
        assert_eq!(body.number, number, "{action:?} is for an earlier instance");
        body
    }

    fn spawn(&mut self, index: Index, number: u32) {
        let last = &mut self.last_number[usize::from(index)];
        assert_eq!(number, *last + 1, "instances are counted");
        *last = number;
        assert!(!self.alive.contains_key(&index), "service {index} is started twice");
        for need in &self.plan.services[usize::from(index)].needs {
            let phase = self.state.services()[usize::from(need.service())].phase;
            assert!(is_met(*need, phase), "{index} is started, but {need:?} is {phase:?}");
        }
        let at = |event| Event::Instance(index, number, event);
        if self.random.one_in(10) {
            return self.at_once.push_back(at(InstanceEvent::SpawnFailed("no memory".into())));
        }
        let immortal = self.random.one_in(60);
        self.alive.insert(index, Body { number, immortal, ..Body::default() });
        self.at_once.push_back(at(InstanceEvent::Spawned));
        match self.random.below(10) {
            0 => {} // It never gets anywhere.
            1 => {
                self.later(100, at(InstanceEvent::MainFailed("not found".into())));
                self.later(3000, at(InstanceEvent::InitGone(None)));
            }
            _ => {
                self.later(1, at(InstanceEvent::MainStarted));
                if self.random.one_in(8) {
                    self.later(100_000, at(InstanceEvent::OutOfMemory));
                }
                if !self.random.one_in(3) && !immortal {
                    self.end(index, number, 200_000);
                }
            }
        }
    }

    /// Main ends within `time`, and then its init.
    fn end(&mut self, index: Index, number: u32, time: u64) {
        let status = match self.random.below(3) {
            0 => Status::Code(0),
            1 => Status::Code(self.random.below(256) as u8),
            _ => Status::Signal(1 + self.random.below(31) as u8),
        };
        self.later(time, Event::Instance(index, number, InstanceEvent::MainExited(status)));
        self.later(time + 2000, Event::Instance(index, number, InstanceEvent::InitGone(Some(status))));
    }

    fn order(&mut self) {
        let index = self.random.below(self.plan.services.len() as u64) as Index;
        let orders =
            [Order::Start, Order::Stop, Order::Restart, Order::Kill(9), Order::Kill(1), Order::Pause, Order::Unpause];
        let order = orders[self.random.below(7) as usize];
        let id = self.asked.len() as u32;
        self.asked.insert(id, false);
        let token = Token { client: 1, id };
        let event =
            if self.random.one_in(10) { Event::WaitSettled(token) } else { Event::Request(token, index, order) };
        self.feed(event);
        if self.random.one_in(20) {
            self.feed(Event::Unheld(index));
        }
    }

    /// Nothing that should run may be down without anything that will change it.
    fn check(&mut self) {
        if let Some(deadline) = self.state.next_deadline() {
            assert!(deadline > self.now, "a deadline that has passed would keep the loop awake");
        }
        for (index, service) in self.state.services().iter().enumerate() {
            let number = service.number;
            let body = self.alive.get(&(index as Index));
            match service.phase {
                Phase::Starting | Phase::Running => {
                    assert!(body.is_some(), "{index} is {:?} without a process", service.phase);
                    assert!(service.phase == Phase::Running || service.deadline.is_some());
                }
                Phase::Stopping(Ending::Stuck) => assert!(body.is_some()),
                Phase::Stopping(_) | Phase::Backoff => assert!(service.deadline.is_some(), "{index} {service:?}"),
                Phase::Waiting => {
                    let unmet = |need: &Need| !is_met(*need, self.state.services()[usize::from(need.service())].phase);
                    assert!(self.plan.services[index].needs.iter().any(unmet), "{index} waits for nothing");
                }
                Phase::Preparing => {
                    let coming = |event: &Event| match event {
                        Event::Ready(i) | Event::Held(i, _) | Event::ImageFailed(i, _) | Event::Skipped(i, _) => {
                            usize::from(*i) == index
                        }
                        _ => false,
                    };
                    assert!(self.agenda.values().any(coming), "{index} waits for an image that nobody prepares");
                }
                Phase::Stopped => {
                    assert!(!service.wanted || self.state.is_shutting_down(), "{index} is wanted and down")
                }
                Phase::Held | Phase::Failed => assert!(service.wanted),
                Phase::Done => {
                    assert!(service.wanted);
                    let ended_well = matches!(service.reason, Reason::Exit(Status::Code(0)) | Reason::Skipped);
                    assert!(ended_well, "{index} is done: {:?}", service.reason);
                }
            }
            assert!(body.is_none_or(|body| body.number == number));
        }
    }

    /// The next thing that happens: a deadline or an entry of the agenda, whichever is earlier.
    fn advance(&mut self) -> bool {
        let planned = self.agenda.keys().next().copied();
        match (self.state.next_deadline(), planned) {
            (None, None) => return false,
            (Some(deadline), planned) if planned.is_none_or(|(at, _)| deadline < at) => {
                self.now = deadline.max(self.now);
                self.feed(Event::Timer);
            }
            (_, Some(key)) => {
                self.now = key.0.max(self.now);
                if let Some(event) = self.agenda.remove(&key) {
                    self.feed(event);
                }
                self.feed(Event::Timer);
            }
            _ => {}
        }
        true
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    world.feed(Event::Boot);
    for _ in 0..400 {
        if world.random.one_in(6) {
            world.order();
        }
        world.advance();
        world.check();
    }
    let id = world.asked.len() as u32;
    world.asked.insert(id, false);
    world.feed(Event::Shutdown(Some(Token { client: 1, id })));
    let begun = world.now;
    for _ in 0..10_000 {
        if world.complete {
            break;
        }
        assert!(world.advance(), "nothing will ever end this shutdown");
    }
    assert!(world.complete, "the shutdown goes round in circles");
    // Each service in a row: its grace, its sweep, its kill.
    let longest = 8 * (10_000 + 5_000 + 10_000) + 1;
    assert!(world.now.since(begun).0 <= longest, "the shutdown took {}", world.now.since(begun));
    let unanswered: Vec<_> = world.asked.iter().filter(|(_, answered)| !**answered).collect();
    assert!(unanswered.is_empty(), "never answered: {unanswered:?}");
}

#[test]
fn a_random_world_never_breaks_a_promise() {
    if let Some(seed) = std::env::var("SIMULATE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return run(seed);
    }
    for seed in 1..3000 {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("repeat with SIMULATE_SEED={seed}");
        }
    }
    println!("seeds 1 to 2999");
}
