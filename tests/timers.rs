//! Oneshots that start by a timer: through years of a clock that is set at random, and in the kernel. The latter needs
//! root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, service};
use coracle::base::name::Name;
use coracle::base::units::{Bytes, Millis};
use coracle::plan::{Kind, Limits, Memory, Plan, Root, Schedule, Service, Timer};
use coracle::supervisor::action::{Action, Actions};
use coracle::supervisor::core::{State, step};
use coracle::supervisor::event::{Event, InstanceEvent, Status};
use nix::time::{ClockId, clock_gettime, clock_settime};
use std::time::{SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400_000;
const YEAR: i64 = 365 * DAY;
/// 03:30.
const TIME: i64 = 12_600_000;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

fn oneshot(schedule: Schedule, jitter: u64) -> Service {
    let limits = Limits::with_memory(Memory::Max(Bytes(1 << 20)));
    let timer = Some(Timer { schedule, jitter: Millis(jitter) });
    Service { kind: Kind::Oneshot, timer, ..Service::new(Name::new("a").unwrap(), Root::Image("x".into()), limits) }
}

/// One service whose every run is over at once.
struct World {
    plan: Plan,
    state: State,
    actions: Actions,
    now: Millis,
    runs: u32,
}

impl World {
    fn new(service: Service, seed: u32) -> World {
        let plan = Plan { services: vec![service], start_order: vec![0], ..Plan::default() };
        let state = State::new(&plan, seed);
        World { plan, state, actions: Actions::default(), now: Millis(1000), runs: 0 }
    }

    /// Takes in an event and runs what it starts to its end; whether something ran.
    fn take(&mut self, event: Event) -> bool {
        let (mut events, before) = (vec![event], self.runs);
        while let Some(event) = events.pop() {
            step(&self.plan, &mut self.state, event, self.now, &mut self.actions);
            for action in self.actions.drain() {
                match action {
                    Action::Prepare(0) => events.push(Event::Ready(0)),
                    Action::Spawn(0, number) => {
                        self.runs += 1;
                        let gone = InstanceEvent::InitGone(Some(Status::Code(0)));
                        events.push(Event::Instance(0, number, gone));
                        events.push(Event::Instance(0, number, InstanceEvent::MainStarted));
                    }
                    _ => {}
                }
            }
        }
        self.runs > before
    }
}

/// A time of day through steps of the clock: it runs within its jitter after its time, never twice for the same time of
/// the same day in a row, and always where the clock passed its time without a step.
fn daily(seed: u64) {
    let mut random = Random(seed);
    let jitter = [0, 1, 600_000, 20 * 3_600_000][random.below(4) as usize];
    let mut world = World::new(oneshot(Schedule::At(Millis(TIME as u64)), jitter), seed as u32);
    let mut ahead = 1_790_000_000_000_i64;
    world.take(Event::Clock(Some(ahead)));
    assert!(!world.take(Event::Boot), "not at boot");
    let (mut last, mut since) = (None, ahead + world.now.0 as i64);
    for _ in 0..400 {
        let due = world.state.next_deadline().expect("the clock is known, so the next time is");
        let pause = Millis(random.below(3 * DAY as u64 / 2));
        if random.below(3) > 0 {
            world.now = due;
            let wall = ahead + due.0 as i64;
            let meant = (wall - TIME).div_euclid(DAY) * DAY + TIME;
            assert!(world.take(Event::Timer), "a deadline starts it");
            assert!(wall - meant <= jitter as i64, "{wall} is {} ms after its time", wall - meant);
            assert_ne!(last, Some(meant), "twice for the same time");
            // The first time that the clock has come to since it was set, unless that was the last one before.
            let skipped = meant - DAY;
            let seen = skipped >= since && last != Some(skipped) && last.is_none_or(|last| last < skipped);
            assert!(!seen, "{skipped} was left out");
            (last, since) = (Some(meant), wall);
        } else if world.now.plus(pause) < due {
            world.now = world.now.plus(pause);
            let steps = [2000, 3_600_000, DAY, 11 * DAY, YEAR, 10 * YEAR];
            let step = steps[random.below(6) as usize] * if random.below(2) == 0 { 1 } else { -1 };
            ahead += step;
            assert!(!world.take(Event::Clock(Some(ahead))), "a step makes nothing up");
            since = ahead + world.now.0 as i64;
        }
    }
}

#[test]
fn a_time_of_day_is_kept_through_steps_of_years() {
    (1..500).for_each(daily);
}

#[test]
fn an_interval_does_not_care_for_the_wall_clock() {
    for jitter in [0, 1, 59_999] {
        let mut world = World::new(oneshot(Schedule::Every(Millis(60_000)), jitter), 7);
        assert!(world.take(Event::Boot), "the first run is at boot");
        let begun = world.now.0;
        for n in 1..1000 {
            world.take(Event::Clock([Some(10 * YEAR), Some(-10 * YEAR), None][n as usize % 3]));
            world.now = world.state.next_deadline().unwrap();
            assert!(world.take(Event::Timer));
            let off = world.now.0 - begun - n * 60_000;
            assert!(off <= jitter, "run {n} is {off} ms off");
        }
    }
}

#[test]
fn a_run_that_takes_longer_than_its_interval_is_not_joined_by_a_second_one() {
    let mut world = World::new(oneshot(Schedule::Every(Millis(1000)), 0), 7);
    let take = |world: &mut World, event| {
        step(&world.plan, &mut world.state, event, world.now, &mut world.actions);
        world.actions.drain().filter(|action| matches!(action, Action::Prepare(_) | Action::Spawn(..))).count()
    };
    take(&mut world, Event::Boot);
    take(&mut world, Event::Ready(0));
    take(&mut world, Event::Instance(0, 1, InstanceEvent::MainStarted));
    for overruns in 1..=3 {
        world.now = world.state.next_deadline().unwrap();
        assert_eq!(take(&mut world, Event::Timer), 0);
        assert_eq!(world.state.services()[0].due.overruns, overruns);
    }
    take(&mut world, Event::Instance(0, 1, InstanceEvent::InitGone(Some(Status::Code(0)))));
    world.now = world.state.next_deadline().unwrap();
    assert_eq!(take(&mut world, Event::Timer), 1);
}

/// The time of day in so many seconds, as the config writes it, and seconds since 1970.
fn in_seconds(seconds: u64) -> String {
    let time = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds) % 86_400;
    format!("{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60)
}

#[test]
fn root_oneshots_run_when_they_are_due_and_one_at_a_time() {
    let name = "root_oneshots_run_when_they_are_due_and_one_at_a_time";
    let more = |timer: &str| format!(r#""type": "oneshot", "timer": {{ {timer} }},"#);
    // A slow machine has to be up before it is due, or it waits for tomorrow.
    let (soon, later) = (in_seconds(12), in_seconds(20_000));
    let services = [
        service("often", &["sh", "-c", "echo run"], &more(r#""every": "1s""#)),
        service("slow", &["sh", "-c", "echo begin; sleep 2; echo end"], &more(r#""every": "1s""#)),
        service(
            "fails",
            &["sh", "-c", "echo run; exit 3"],
            &(more(r#""every": "1s""#) + r#""restart": { "policy": "no" },"#),
        ),
        service("soon", &["sh", "-c", "echo run"], &more(&format!(r#""at": "{soon}""#))),
        service("later", &["sh", "-c", "echo run"], &more(&format!(r#""at": "{later}", "jitter": "1m""#))),
        service("after", busybox_board::IDLE, r#""needs": ["often:done"],"#),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    // To what it shows already: nothing moves, and whoever watches the clock is woken.
    let set = clock_gettime(ClockId::CLOCK_REALTIME).and_then(|now| clock_settime(ClockId::CLOCK_REALTIME, now));
    if let Err(errno) = set {
        println!("the clock cannot be set here: {errno}");
    }
    board.until_running("after");
    assert_eq!(
        (board.field("later", "state"), board.field("later", "reason")),
        ("waiting".into(), "waits for its time".into())
    );
    let wait: u64 = board.field("later", "next_ms").parse().unwrap();
    assert!((19_000_000..=20_060_000).contains(&wait), "{wait}");
    assert!(board.coracle(&["ps"]).status.success());
    for (service, word, times) in [("often", "run", 4), ("slow", "begin", 3), ("fails", "run", 3), ("soon", "run", 1)] {
        board.until(service, |board| board.logs(service).matches(word).count() >= times);
    }
    let log = board.logs("slow");
    let words: Vec<&str> = log.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let runs: Vec<&str> = words.into_iter().filter(|word| ["begin", "end"].contains(word)).collect();
    assert!(runs.chunks(2).all(|run| run[0] == "begin" && *run.get(1).unwrap_or(&"end") == "end"), "{log}");
    assert!(!board.says(&["inspect", "slow"]).contains("\"overruns\":0"), "what was left out is counted");
    board.says(&["start", "later"]);
    assert_eq!(board.field("later", "state"), "done");
    assert!(board.says(&["ps"]).contains("starts again in"), "{}", board.says(&["ps"]));
    board.says(&["stop", "often"]);
    let runs = board.logs("often").matches("run").count();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(board.logs("often").matches("run").count(), runs, "stopped is stopped");
    assert_eq!(board.logs("soon").matches("run").count(), 1);
    board.down();
}
