//! A whole device on a virtual clock: services that do anything, a board, people, and supervisors that die.

mod body;
pub mod promises;
pub mod random;
pub mod tally;

use body::Body;
use coracle::base::units::Millis;
use coracle::plan::{Kind, Need, Plan, Probe, Role, Times};
use coracle::supervisor::action::{Action, Actions, Verdict};
use coracle::supervisor::core::{Found, LEFT, State, step};
use coracle::supervisor::escalation::Rung;
use coracle::supervisor::event::{Event, Index, InstanceEvent, Order, Status, Token};
use coracle::supervisor::fault::Fault;
use coracle::supervisor::notify::{Notice, Standing};
use coracle::supervisor::saved;
use coracle::supervisor::service::{Ending, Phase, Reason, Service};
use promises::{Track, is_met};
use random::Random;
use std::collections::{BTreeMap, VecDeque};
use tally::{Tally, What};

/// The signal of an expired watchdog.
const SIGABRT: u8 = 6;
/// Ten years in milliseconds.
const TEN_YEARS: u64 = 315_360_000_000;

pub struct World {
    pub random: Random,
    plan: Plan,
    state: State,
    pub now: Millis,
    actions: Actions,
    alive: BTreeMap<Index, Body>,
    /// Instances that did not die and were left behind.
    left: Vec<(Index, u32)>,
    last_number: Vec<u32>,
    tracks: Vec<Track>,
    /// What the world has in store, by time; the second number keeps the order of equal times.
    agenda: BTreeMap<(Millis, u64), Event>,
    serial: u64,
    /// What the loop learns while it performs an action: taken in before anything else.
    at_once: VecDeque<Event>,
    /// Who asked what, and whether that was answered.
    pub asked: BTreeMap<(u32, u32), bool>,
    clients: [u32; 3],
    pub complete: bool,
    /// By how much the wall clock is ahead, if it is known.
    wall: Option<i64>,
    /// How rarely an instance does not die.
    immortals: u64,
    /// When the loop was last late.
    late: Millis,
    /// Whether the supervisor dies in the middle of the next event.
    doomed: bool,
    /// Whose recovery has just gone on, and from which rung.
    climbed: Option<(Index, Rung)>,
    /// Whether the hardware watchdog is not fed.
    unfed: bool,
    /// Whether it prints all that happens.
    pub tells: bool,
    pub tally: Tally,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let plan = random::plan(&mut random);
        let state = State::new(&plan, seed as u32);
        let count = plan.services.len();
        let immortals = [1, 4, 60, 60, 60, 60, 60, 60][random.below(8) as usize];
        let wall = random.one_in(2).then(|| 1_700_000_000_000 + random.below(TEN_YEARS) as i64);
        World {
            random,
            plan,
            state,
            now: Millis(1),
            actions: Actions::default(),
            alive: BTreeMap::new(),
            left: Vec::new(),
            last_number: vec![0; count],
            tracks: vec![Track::default(); count],
            agenda: BTreeMap::new(),
            serial: 0,
            at_once: VecDeque::new(),
            asked: BTreeMap::new(),
            clients: [1, 2, 3],
            complete: false,
            wall,
            immortals,
            late: Millis(0),
            doomed: false,
            climbed: None,
            unfed: false,
            tells: false,
            tally: Tally::default(),
        }
    }

    pub fn boot(&mut self) {
        self.feed(Event::Clock(self.wall));
        self.feed(Event::Boot);
    }

    /// The supervisor dies in the middle of the next event.
    pub fn doom(&mut self) {
        self.doomed = true;
    }

    /// The supervisor is dead, and another one goes on with what was `written`.
    fn die(&mut self, written: &[Service]) {
        self.tally.count(What::Deaths);
        // Whoever asked sees the connection end, and whoever looked at the board or unpacked died too.
        self.asked.values_mut().for_each(|answered| *answered = true);
        self.alive.values_mut().for_each(|body| (body.asked, body.taken_over) = (None, true));
        self.agenda.retain(|_, event| matches!(event, Event::Instance(..)));
        self.at_once.clear();
        // Nobody waits for them any more.
        self.left.clear();
        let spent = [self.state.booked().0, 0];
        self.state = State::new(&self.plan, self.random.below(1 << 30) as u32);
        let changed = self.random.one_in(6).then(|| self.random.below(written.len() as u64) as usize);
        if let Some(at) = changed {
            let service = &mut self.plan.services[at];
            service.restart = random::restart(&mut self.random);
            service.enabled ^= self.random.one_in(4);
        }
        let mut ended = Vec::new();
        for (index, service) in written.iter().enumerate() {
            let saved = saved::decode(&saved::encode(service, 0, [1; 2], spent)).unwrap();
            self.state.adopt_booked(coracle::base::units::Millis(saved.spent[0]));
            let service = saved.service;
            let (at, same) = (index as Index, changed != Some(index));
            self.tracks[index].hold = service.hold;
            if let Some(body) = self.alive.get_mut(&at) {
                // An answer that nobody has written down is forgotten.
                let known = Role::ALL.map(|role| service.health.of(role).failures);
                body.misses.iter_mut().zip(known).for_each(|(misses, known)| *misses = known.max(*misses));
            }
            let body = self.alive.get_mut(&at);
            let found = body.as_ref().map_or(Found::Nothing, |body| Found::Running(body.number, body.frozen));
            if let Some(body) = body.filter(|_| !same) {
                body.is_ending = true;
                // Its recovery so far was by other rules.
                self.tracks[index].ends = u64::from(u32::MAX);
            }
            self.state.adopt(&self.plan, at, Some((service, same)), found, self.now, &mut self.actions);
            let service = &self.state.services()[index];
            self.last_number[index] = service.number;
            if found == Found::Nothing && service.has_instance() {
                ended.push((at, service.number));
            }
        }
        let actions: Vec<Action> = self.actions.drain().collect();
        actions.into_iter().for_each(|action| self.perform(action));
        for (index, number) in ended {
            self.alive.insert(index, Body { number, ..Body::default() });
            self.feed(Event::Instance(index, number, InstanceEvent::InitGone(Some(Status::Code(0)))));
        }
        for index in 0..self.plan.services.len() as Index {
            if let Some((number, retries)) = self.alive.get(&index).and_then(|body| Some((body.number, body.image?))) {
                let times = Times { retries: Some(retries), ..Times::default() };
                self.feed(Event::Instance(index, number, InstanceEvent::Probing(times)));
            }
        }
        self.boot();
        for index in 0..self.plan.services.len() as Index {
            let now = self.now;
            let Some(body) = self.alive.get_mut(&index).filter(|body| body.runs) else { continue };
            let standing = body.ready.then_some(Standing::Ready);
            let notice = Notice { standing, watchdog: body.period, trigger: body.triggered, ..Notice::default() };
            let number = body.number;
            body.lives(now);
            self.feed(Event::Instance(index, number, InstanceEvent::MainStarted));
            self.feed(Event::Instance(index, number, InstanceEvent::Notified(notice)));
        }
        self.timer();
    }

    fn later(&mut self, at_most: u64, event: Event) {
        self.serial += 1;
        let at = self.now.plus(Millis(self.random.below(at_most)));
        self.agenda.insert((at, self.serial), event);
    }

    fn feed(&mut self, event: Event) {
        if self.complete {
            return;
        }
        if let Event::Instance(index, number, InstanceEvent::InitGone(_)) = &event {
            if self.alive.get(index).is_some_and(|body| body.number == *number) {
                self.alive.remove(index);
            } else if !self.left.contains(&(*index, *number)) {
                return;
            }
        }
        if !self.world_does(&event) {
            return;
        }
        self.tally.count(What::Events);
        let doomed = std::mem::take(&mut self.doomed);
        let is_timer = event == Event::Timer;
        let before = if doomed || is_timer { self.state.services().to_vec() } else { Vec::new() };
        self.climbed = None;
        let days: Vec<Option<i64>> = self.tracks.iter().map(|track| track.day).collect();
        if self.tells {
            println!("{:?} {event:?}", self.now);
        }
        step(&self.plan, &mut self.state, event, self.now, &mut self.actions);
        let actions: Vec<Action> = self.actions.drain().collect();
        if self.tells && !actions.is_empty() {
            println!("    {actions:?}");
        }
        assert!(actions.len() <= 8 * self.plan.services.len() + 100, "one step wants {} things", actions.len());
        if is_timer {
            self.judge_timers(&before);
        }
        let done = if doomed { self.random.below(actions.len() as u64 + 2) as usize } else { actions.len() };
        for action in actions.iter().take(done) {
            self.perform(*action);
        }
        if doomed {
            // Of what was done all is known, or some, or nothing: what was written last are the states, one after another.
            let most = if done >= actions.len() { before.len() } else { 0 };
            let known = self.random.below(most as u64 + 1) as usize;
            // A start that was due and that nobody knows of is due again.
            self.tracks[known..].iter_mut().zip(&days[known..]).for_each(|(track, day)| track.day = *day);
            let written = [&self.state.services()[..known], &before[known..]].concat();
            return self.die(&written);
        }
        while let Some(event) = self.at_once.pop_front() {
            self.feed(event);
        }
    }

    /// What the world knows of an event of its own; `false`: it cannot happen now.
    fn world_does(&mut self, event: &Event) -> bool {
        let now = self.now;
        match event {
            Event::Instance(index, number, event) => {
                match event {
                    InstanceEvent::MainExited(status) if *status != Status::Code(0) => self.tally.count(What::Crashes),
                    InstanceEvent::OutOfMemory => self.tally.count(What::MemoryKills),
                    InstanceEvent::SpawnFailed(_) => self.tally.count(What::FailedSpawns),
                    _ => {}
                }
                let configured = &self.plan.services[usize::from(*index)];
                let body = self.alive.get_mut(index).filter(|body| body.number == *number);
                return body.is_none_or(|body| body.does(event, configured, now));
            }
            Event::Clock(wall) => self.wall = *wall,
            Event::Held(index, _) | Event::ImageFailed(index, _) => self.tracks[usize::from(*index)].kept = true,
            Event::Ready(index) if self.state.services()[usize::from(*index)].phase == Phase::Preparing => {
                self.tracks[usize::from(*index)].kept = false;
            }
            // What is on hold is left alone.
            Event::Unplugged(index) if self.tracks[usize::from(*index)].hold.is_some_and(|until| now < until) => {}
            Event::Unplugged(index) | Event::Request(_, index, Order::Stop | Order::Restart) => {
                if let Some(body) = self.alive.get_mut(index) {
                    body.is_ending = true;
                }
            }
            Event::Request(_, index, Order::Hold(time)) if !self.state.is_shutting_down() => {
                let track = &mut self.tracks[usize::from(*index)];
                track.hold = (time.0 > 0).then(|| now.plus(*time));
                track.held = track.held.max(now.plus(*time));
            }
            _ => {}
        }
        true
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
                3 => {
                    self.at_once.push_back(Event::Awaits(index, "waits for /data".into()));
                    self.later(50_000, Event::Unheld(index));
                }
                _ => self.later(2000, Event::Ready(index)),
            },
            Action::Spawn(index, number) => self.spawn(index, number),
            Action::Signal(index, number, signal) => {
                let body = self.living(index, number, action);
                assert!(!body.frozen || signal.is_some(), "a frozen service is asked to stop");
                let (frozen, immortal) = (body.frozen, body.immortal);
                if signal.is_none() || signal == Some(SIGABRT) {
                    assert!(!frozen, "a frozen service is asked to end");
                    self.judge_end(index);
                }
                if signal == Some(SIGABRT) {
                    self.tally.count(What::Hangs);
                }
                if !immortal && matches!(signal, None | Some(9 | SIGABRT)) && !self.random.one_in(4) {
                    self.end(index, number, 4000);
                }
            }
            Action::KillTree(index, number) => {
                let body = self.living(index, number, action);
                assert!(!body.frozen, "a frozen process cannot be killed");
                let immortal = body.immortal;
                self.judge_end(index);
                // Now and then init does not do what it should.
                if !immortal && !self.random.one_in(10) {
                    self.later(1000, Event::Instance(index, number, InstanceEvent::InitGone(None)));
                }
            }
            Action::KillInit(index, number) => {
                if !self.living(index, number, action).immortal {
                    self.later(10, Event::Instance(index, number, InstanceEvent::InitGone(None)));
                }
            }
            Action::Freeze(index, number, frozen) => self.freeze(index, number, frozen),
            Action::Probe(index, number, role) => {
                let answer = [Ok(()), Ok(()), Err(Fault::Errno(111))][self.random.below(3) as usize];
                let hangs = self.random.one_in(3);
                let starts_by_check = self.plan.services[usize::from(index)].check(Role::Startup).is_some();
                let body = self.living(index, number, action);
                // Who has taken it over may ask before it hears that main has ended.
                let alone = (body.runs || body.taken_over) && !body.frozen && body.asked.is_none();
                assert!(alone, "asked out of turn: {body:?}");
                body.asked = Some(role);
                // What one supervisor knew and the next does not is asked again.
                let begins = role == Role::Startup && (!body.started || body.taken_over);
                let gate = starts_by_check && !body.started && !body.ready;
                assert!(begins || role != Role::Startup && !gate, "asked by its {role:?} check: {body:?}");
                let answer = if body.sick { answer } else { Ok(()) };
                if !body.sick || !hangs {
                    self.later(2000, Event::Instance(index, number, InstanceEvent::Probed(answer)));
                }
            }
            Action::EndProbe(index, number) => {
                // What ends by itself takes its probe with it.
                if let Some(body) = self.alive.get_mut(&index).filter(|body| body.number == number) {
                    let role = body.asked.take().expect("nothing was on its way");
                    let misses = &mut body.misses[role as usize];
                    *misses = misses.saturating_add(1);
                }
            }
            Action::Cleanup(index, number) => {
                if let Some(at) = self.left.iter().position(|left| *left == (index, number)) {
                    self.left.swap_remove(at);
                    return;
                }
                assert!(!self.alive.contains_key(&index), "service {index} is cleaned up alive");
                assert_eq!(self.last_number[usize::from(index)], number);
            }
            Action::Answer(Token { client, id }, verdict) => {
                let answered = self.asked.get_mut(&(client, id)).expect("an answer to nobody");
                assert!(!std::mem::replace(answered, true), "request {id} is answered twice");
                if verdict == Verdict::Busy {
                    self.tally.count(What::FullOfRequests);
                }
            }
            Action::Complete => {
                let left = |(index, body): (&Index, &Body)| {
                    let phase = self.state.services()[usize::from(*index)].phase;
                    assert!(phase == Phase::Stopping(Ending::Stuck), "{index} {body:?} is left in {phase:?}");
                };
                self.alive.iter().for_each(left);
                self.complete = true;
            }
            Action::GiveUp(index, number) => {
                // What dies while the board stands still, dies too late.
                let late = self.late == self.now;
                assert!(self.living(index, number, action).immortal || late, "{index} was given up too early");
                if self.state.services()[usize::from(index)].is_stuck() {
                    return self.tally.count(What::FullOfLeftovers);
                }
                self.alive.remove(&index);
                self.left.push((index, number));
                assert!(self.left.len() <= LEFT);
                // The disk answers at last, or never.
                if self.random.one_in(2) {
                    self.later(100_000, Event::Instance(index, number, InstanceEvent::InitGone(None)));
                }
            }
            Action::OnHold(index, on) => {
                let track = &mut self.tracks[usize::from(index)];
                track.hold = track.hold.filter(|_| on);
                if let Some(body) = self.alive.get_mut(&index).filter(|_| !on) {
                    // Whatever was held up has its whole time again.
                    body.lives(self.now);
                    body.spawned = self.now;
                    body.reloads = body.reloads.map(|_| self.now);
                }
            }
            Action::Changed(index, Phase::Backoff | Phase::Failed) => self.tracks[usize::from(index)].ends += 1,
            Action::Climbed(index, rung) => {
                // Told right after the end that it follows.
                self.judge_climb(index, rung);
                self.climbed = Some((index, rung));
            }
            Action::Changed(index, Phase::Running) => {
                let fails = self.state.services()[usize::from(index)].reason == Reason::NotReady;
                self.tally.count(if fails { What::LostReadiness } else { What::Readiness });
            }
            Action::Changed(..) | Action::Crashed(_) | Action::PutOff(_) => {}
        }
    }

    fn freeze(&mut self, index: Index, number: u32, frozen: bool) {
        let result = if self.random.one_in(10) { Err("no freezer".into()) } else { Ok(frozen) };
        if let Some(body) = self.alive.get_mut(&index).filter(|body| body.number == number) {
            body.frozen = frozen && result.is_ok();
            if result.is_ok() || !frozen {
                // What is thawed has its whole time again.
                body.lives(self.now);
                body.reloads = body.reloads.map(|_| self.now);
            }
        }
        if frozen || result.is_ok() {
            self.at_once.push_back(Event::Instance(index, number, InstanceEvent::Frozen(result)));
        }
    }

    fn needed(&self, need: Need) -> (Phase, Kind) {
        let index = usize::from(need.service());
        (self.state.services()[index].phase, self.plan.services[index].kind)
    }

    fn living(&mut self, index: Index, number: u32, action: Action) -> &mut Body {
        let body = self.alive.get_mut(&index).unwrap_or_else(|| panic!("{action:?}, but it is dead"));
        assert_eq!(body.number, number, "{action:?} is for an earlier instance");
        body
    }

    fn spawn(&mut self, index: Index, number: u32) {
        let last = &mut self.last_number[usize::from(index)];
        assert_eq!(number, *last + 1, "instances are counted");
        *last = number;
        assert!(!self.alive.contains_key(&index), "service {index} is started twice");
        assert!(!self.state.is_shutting_down(), "{index} is started while everything ends");
        for need in &self.plan.services[usize::from(index)].needs {
            let (phase, kind) = self.needed(*need);
            assert!(is_met(*need, phase, kind), "{index} is started, but {need:?} is {phase:?}");
            let reason = self.state.services()[usize::from(need.service())].reason;
            let fails = matches!(need, Need::Ready(_)) && reason == Reason::NotReady;
            assert!(!fails, "{index} is started, but {need:?} is not ready any more");
        }
        let at = |event| Event::Instance(index, number, event);
        if self.random.one_in(10) {
            return self.at_once.push_back(at(InstanceEvent::SpawnFailed("no memory".into())));
        }
        let (immortal, sick) = (self.random.one_in(self.immortals), self.random.one_in(2));
        let configured = &self.plan.services[usize::from(index)];
        let period = configured.watchdog;
        // Some ping for ever, some stop after a while, some never begin.
        let pings = [0, self.random.below(60_000), u64::MAX / 2][self.random.below(3) as usize];
        let (pings_until, spawned) = (self.now.plus(Millis(pings)), self.now);
        let mut body = Body { number, spawned, immortal, period, pings_until, sick, ..Body::default() };
        body.knows(configured, Times::default());
        let asks_image = configured.health.iter().any(|check| check.probe == Probe::Image);
        self.alive.insert(index, body);
        self.at_once.push_back(at(InstanceEvent::Spawned));
        if asks_image && !self.random.one_in(3) {
            let times = Times { retries: Some(1 + self.random.below(5) as u8), ..Times::default() };
            self.at_once.push_back(at(InstanceEvent::Probing(times)));
        }
        match self.random.below(10) {
            0 => {} // It never gets anywhere.
            1 => {
                self.later(100, at(InstanceEvent::MainFailed("not found".into())));
                self.later(3000, at(InstanceEvent::InitGone(None)));
            }
            start => {
                let slow = start == 2;
                self.later(if slow { 40_000 } else { 1 }, at(InstanceEvent::MainStarted));
                if slow {
                    self.tally.count(What::SlowStarts);
                }
                for _ in 0..self.random.below(4) {
                    let notice = self.word();
                    self.later(40_000, at(InstanceEvent::Notified(notice)));
                }
                if self.random.one_in(8) {
                    self.later(100_000, at(InstanceEvent::OutOfMemory));
                }
                if !self.random.one_in(3) && !immortal && !slow {
                    self.end(index, number, 200_000);
                }
            }
        }
    }

    /// Something that a service says, other than its ping.
    fn word(&mut self) -> Notice {
        let none = Notice::default();
        match self.random.below(9) {
            8 => Notice { standing: Some(Standing::ReadyThenReloading), ..none },
            0 => Notice { standing: Some(Standing::Reloading), ..none },
            1 => Notice { standing: Some(Standing::Stopping), ..none },
            2 => Notice { extend: Some(self.random.millis(100_000)), ..none },
            3 => Notice { watchdog: Some(Millis(100 + self.random.below(5000))), ..none },
            4 if self.random.one_in(4) => Notice { trigger: true, ..none },
            5 if self.random.one_in(4) => Notice { forgive: true, ..none },
            _ => Notice { standing: Some(Standing::Ready), ..none },
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

    /// Someone asks for something.
    pub fn order(&mut self) {
        let index = self.random.below(self.plan.services.len() as u64) as Index;
        let orders =
            [Order::Start, Order::Stop, Order::Restart, Order::Kill(9), Order::Kill(1), Order::Pause, Order::Unpause];
        let hold = Order::Hold(Millis(self.random.below(3) * 20_000));
        let order = orders.get(self.random.below(8) as usize).copied().unwrap_or(hold);
        let token = self.token();
        let event =
            if self.random.one_in(10) { Event::WaitSettled(token) } else { Event::Request(token, index, order) };
        self.feed(event);
        match self.random.below(40) {
            0 | 1 => self.feed(Event::Unheld(index)),
            2 => self.feed(Event::Unplugged(index)),
            3 => self.hang_up(),
            _ => {}
        }
    }

    fn token(&mut self) -> Token {
        let (client, id) = (self.clients[self.random.below(3) as usize], self.asked.len() as u32);
        self.asked.insert((client, id), false);
        Token { client, id }
    }

    /// A client is gone, and another one comes.
    fn hang_up(&mut self) {
        let at = self.random.below(3) as usize;
        let gone = std::mem::replace(&mut self.clients[at], 4 + self.asked.len() as u32);
        self.asked.iter_mut().filter(|((client, _), _)| *client == gone).for_each(|(_, answered)| *answered = true);
        self.feed(Event::Forget(gone));
    }

    /// More words than anyone can listen to, or more requests than can wait.
    pub fn flood(&mut self) {
        self.tally.count(What::Floods);
        if self.random.one_in(4) {
            return (0..100).for_each(|_| {
                let index = self.random.below(self.plan.services.len() as u64) as Index;
                let order = [Order::Start, Order::Restart][self.random.below(2) as usize];
                let token = self.token();
                self.feed(Event::Request(token, index, order));
            });
        }
        let at = self.random.below(self.alive.len() as u64) as usize;
        let Some((index, number)) = self.alive.iter().nth(at).map(|(index, body)| (*index, body.number)) else {
            return;
        };
        for _ in 0..50 + self.random.below(200) {
            let mut notice = self.word();
            // Who floods says anything but that it ends.
            notice.standing = notice.standing.filter(|standing| *standing != Standing::Stopping);
            notice.trigger = false;
            self.feed(Event::Instance(index, number, InstanceEvent::Notified(notice)));
        }
    }

    /// The wall clock is set, by seconds or by years, or the board was suspended: the monotonic clock stood still.
    pub fn clock(&mut self) {
        let wall = self.wall.unwrap_or(1_700_000_000_000 - self.now.0 as i64);
        let step = match self.random.below(3) {
            0 => {
                self.tally.count(What::Suspends);
                self.random.below(7 * 86_400_000) as i64
            }
            1 => {
                self.tally.count(What::ClockSteps);
                self.random.below(2 * TEN_YEARS) as i64 - TEN_YEARS as i64
            }
            _ => self.random.below(20_000) as i64 - 10_000,
        };
        let unknown = self.random.one_in(20);
        self.feed(Event::Clock((!unknown).then_some(wall + step)));
    }

    /// The loop looks again after a time in which it did not, and meanwhile everything went on, or nothing did.
    pub fn stall(&mut self) {
        let time = Millis(1001 + self.random.below(60_000));
        let stood_still = self.random.one_in(2);
        self.tally.count(if stood_still { What::Stalls } else { What::LateLoops });
        self.now = self.now.plus(time);
        self.late = self.now;
        self.alive.values_mut().for_each(|body| body.stalls += 1);
        if stood_still {
            let agenda = std::mem::take(&mut self.agenda);
            self.agenda = agenda.into_iter().map(|((at, serial), event)| ((at.plus(time), serial), event)).collect();
            for body in self.alive.values_mut() {
                body.pinged = body.pinged.plus(time);
                body.pings_until = body.pings_until.plus(time);
            }
        } else {
            // Whoever pings has, and what has happened is taken in before any deadline is judged.
            while let Some((_, index, number)) = self.pings().filter(|(at, ..)| *at <= self.now) {
                self.ping(index, number);
            }
            while let Some(key) = self.agenda.keys().next().copied().filter(|(at, _)| *at <= self.now) {
                let event = self.agenda.remove(&key);
                event.into_iter().for_each(|event| self.feed(event));
            }
        }
        self.timer();
    }

    /// Whoever pings does so a millisecond before its time is over.
    fn pings(&mut self) -> Option<(Millis, Index, u32)> {
        let due = |(index, body): (&Index, &Body)| {
            let at = body.pinged.plus(body.period.filter(|_| body.runs && !body.frozen)?);
            let at = Millis(at.0.saturating_sub(1));
            (at <= body.pings_until).then_some((at, *index, body.number))
        };
        self.alive.iter().filter_map(due).min()
    }

    fn ping(&mut self, index: Index, number: u32) {
        let ping = Notice { ping: true, ..Notice::default() };
        self.feed(Event::Instance(index, number, InstanceEvent::Notified(ping)));
    }

    /// As the loop has it: once more where what is done at once is due at once, and what would go on for ever is caught.
    fn timer(&mut self) {
        for _ in 0..=self.plan.services.len() {
            self.feed(Event::Timer);
            if self.state.next_deadline().is_none_or(|deadline| deadline > self.now) {
                return;
            }
        }
    }

    /// The next thing that happens: a deadline or an entry of the agenda, whichever is earlier. `false`: nothing will.
    pub fn advance(&mut self) -> bool {
        let planned = self.agenda.keys().next().copied();
        let first = [self.state.next_deadline(), planned.map(|(at, _)| at)].into_iter().flatten().min();
        if let Some((at, index, number)) = self.pings().filter(|(at, ..)| first.is_some_and(|first| *at < first)) {
            self.now = at.max(self.now);
            self.ping(index, number);
            return true;
        }
        match (self.state.next_deadline(), planned) {
            (None, None) => return false,
            (Some(deadline), planned) if planned.is_none_or(|(at, _)| deadline < at) => {
                self.now = deadline.max(self.now);
                self.timer();
            }
            (_, Some(key)) => {
                self.now = key.0.max(self.now);
                if let Some(event) = self.agenda.remove(&key) {
                    self.feed(event);
                }
                self.timer();
            }
            _ => {}
        }
        true
    }

    /// Everything is stopped, and has to be within the time that it may take.
    pub fn shut_down(&mut self, longest: Millis) {
        self.doomed = false;
        let token = self.token();
        self.feed(Event::Shutdown(Some(token)));
        let begun = self.now;
        for _ in 0..10_000 {
            if self.complete {
                break;
            }
            assert!(self.advance(), "nothing will ever end this shutdown");
        }
        assert!(self.complete, "the shutdown goes round in circles");
        assert!(self.now.since(begun) <= longest, "the shutdown took {:?}", self.now.since(begun));
        let unanswered: Vec<_> = self.asked.iter().filter(|(_, answered)| !**answered).collect();
        assert!(unanswered.is_empty(), "never answered: {unanswered:?}");
    }
}
