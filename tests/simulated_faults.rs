//! What random worlds have found wrong in the core (`tests/simulate.rs`), each as the shortest course that shows it.

use coracle::base::name::Name;
use coracle::base::units::{Bytes, Millis};
use coracle::plan::{Health, Kind, Limits, Memory, Plan, Probe, Ready, Role, Root, Schedule, Service, Timer, Times};
use coracle::supervisor::action::{Action, Actions};
use coracle::supervisor::core::{Found, State, step};
use coracle::supervisor::event::{Event, InstanceEvent, Order, Status, Token};
use coracle::supervisor::fault::Fault;
use coracle::supervisor::notify::{Notice, Standing};
use coracle::supervisor::saved;
use coracle::supervisor::service::{Phase, Reason};

const TOKEN: Token = Token { client: 1, id: 1 };
const HOUR: u64 = 3_600_000;

struct Core {
    plan: Plan,
    state: State,
    now: Millis,
    actions: Actions,
}

impl Core {
    /// One critical service, at one second of uptime.
    fn new(change: impl FnOnce(&mut Service)) -> Core {
        let limits = Limits::with_memory(Memory::Max(Bytes(1 << 20)));
        let mut service = Service::new(Name::new("web").unwrap(), Root::Image("x.tar".into()), limits);
        service.critical = true;
        change(&mut service);
        let plan = Plan { services: vec![service], start_order: vec![0], ..Plan::default() };
        let state = State::new(&plan, 1);
        Core { plan, state, now: Millis(1000), actions: Actions::default() }
    }

    fn take(&mut self, event: Event) -> Vec<Action> {
        step(&self.plan, &mut self.state, event, self.now, &mut self.actions);
        self.actions.drain().collect()
    }

    fn instance(&mut self, event: InstanceEvent) -> Vec<Action> {
        let number = self.state.services()[0].number;
        self.take(Event::Instance(0, number, event))
    }

    fn says(&mut self, standing: Standing) {
        self.instance(InstanceEvent::Notified(Notice { standing: Some(standing), ..Notice::default() }));
    }

    fn starts(&mut self) {
        self.take(Event::Ready(0));
        self.instance(InstanceEvent::MainStarted);
    }

    fn runs(change: impl FnOnce(&mut Service)) -> Core {
        let mut core = Core::new(change);
        core.take(Event::Boot);
        core.starts();
        core
    }

    fn later(&mut self, millis: u64) -> Vec<Action> {
        self.now = self.now.plus(Millis(millis));
        self.take(Event::Timer)
    }

    fn order(&mut self, order: Order) {
        self.take(Event::Request(TOKEN, 0, order));
    }

    /// Another supervisor goes on with it, `found` as it is.
    fn dies(&mut self, found: Found) {
        let written = saved::encode(&self.state.services()[0], 0, [0; 2], [self.state.booked().0, 0]);
        self.state = State::new(&self.plan, 1);
        let saved = saved::decode(&written).map(|saved| (saved.service, true));
        self.state.adopt(&self.plan, 0, saved, found, self.now, &mut self.actions);
        self.actions.drain();
    }

    fn phase(&self) -> Phase {
        self.state.services()[0].phase
    }

    fn is_fed(&self) -> bool {
        self.state.lacking(&self.plan, self.now).is_none()
    }
}

fn asked(role: Role) -> Vec<Health> {
    let times = Times { interval: Some(Millis(100)), timeout: Some(Millis(100)), start_period: None, retries: None };
    vec![Health { probe: Probe::Tcp("127.0.0.1:80".parse().unwrap()), times, role, memory: Bytes(0) }]
}

#[test]
fn a_service_that_was_well_for_hours_has_its_whole_recovery_before_it() {
    let mut core = Core::runs(|_| {});
    core.later(10 * HOUR);
    core.order(Order::Restart);
    assert!(core.is_fed(), "while it is being stopped");
    core.instance(InstanceEvent::MainExited(Status::Code(0)));
    core.instance(InstanceEvent::InitGone(Some(Status::Code(0))));
    core.starts();
    core.later(10 * HOUR);
    core.instance(InstanceEvent::MainExited(Status::Code(1)));
    assert!(core.is_fed(), "while what it leaves is swept up");
    let mut core = Core::runs(|_| {});
    core.later(10 * HOUR);
    core.take(Event::Unplugged(0));
    core.instance(InstanceEvent::InitGone(Some(Status::Code(0))));
    assert!(core.phase() == Phase::Preparing && core.is_fed(), "while it is started again for what is not its fault");
}

#[test]
fn a_service_that_someone_has_held_for_hours_has_its_whole_recovery_before_it() {
    let mut core = Core::new(|_| {});
    core.take(Event::Boot);
    core.order(Order::Hold(Millis(HOUR)));
    core.later(HOUR);
    assert!(core.state.services()[0].hold.is_none() && core.is_fed());
}

#[test]
fn a_start_while_it_is_being_stopped_begins_a_recovery_of_its_own() {
    let mut core = Core::runs(|service| service.ready = Ready::Notify);
    core.order(Order::Stop);
    core.now = core.now.plus(Millis(HOUR));
    core.order(Order::Start);
    assert!(core.is_fed());
}

#[test]
fn what_is_on_hold_is_not_stopped_for_a_reload_that_takes_too_long() {
    let mut core = Core::runs(|service| service.ready = Ready::Notify);
    core.says(Standing::ReadyThenReloading);
    core.order(Order::Hold(Millis(HOUR)));
    core.later(HOUR / 2);
    assert_eq!(core.phase(), Phase::Running);
    core.later(HOUR / 2);
    assert_eq!(core.phase(), Phase::Running, "it has its whole time again");
    core.later(HOUR);
    assert_eq!(core.state.services()[0].reason, Reason::ReloadTimeout);
}

#[test]
fn a_timer_that_is_due_on_hold_neither_starts_its_service_nor_keeps_the_loop_awake() {
    let every = Timer { schedule: Schedule::Every(Millis(1000)), jitter: Millis(0) };
    let mut core = Core::runs(|service| (service.kind, service.timer) = (Kind::Oneshot, Some(every)));
    core.instance(InstanceEvent::MainExited(Status::Code(0)));
    core.instance(InstanceEvent::InitGone(Some(Status::Code(0))));
    core.order(Order::Hold(Millis(10_000)));
    core.later(1500);
    assert_eq!(core.phase(), Phase::Done);
    assert!(core.state.next_deadline().is_some_and(|at| at > core.now));
    core.later(8600);
    assert_eq!(core.phase(), Phase::Preparing, "after it");
}

#[test]
fn a_time_of_day_does_not_come_twice_because_the_supervisor_died_or_someone_stopped_the_service() {
    let three = Timer { schedule: Schedule::At(Millis(3 * HOUR)), jitter: Millis(HOUR) };
    for wall in [0, -86_400_000 * 400] {
        let mut core = Core::new(|service| (service.kind, service.timer) = (Kind::Oneshot, Some(three)));
        core.take(Event::Clock(Some(wall)));
        core.take(Event::Boot);
        let day = |core: &Core| core.state.services()[0].due.at.unwrap().0 / (24 * HOUR);
        assert_eq!(day(&core), 0);
        core.now = core.state.services()[0].due.at.unwrap();
        core.take(Event::Timer);
        assert_eq!((core.phase(), day(&core)), (Phase::Preparing, 1));
        core.dies(Found::Nothing);
        core.take(Event::Clock(Some(wall)));
        assert_eq!(day(&core), 1, "the next supervisor");
        core.order(Order::Stop);
        core.order(Order::Start);
        assert_eq!(day(&core), 1, "stopped and started");
    }
}

#[test]
fn what_became_ready_by_a_probe_does_not_reload_after_a_pause() {
    let mut core = Core::runs(|service| (service.ready, service.health) = (Ready::Health, asked(Role::Ready)));
    core.later(100);
    core.instance(InstanceEvent::Probed(Ok(())));
    assert_eq!(core.phase(), Phase::Running);
    core.instance(InstanceEvent::Frozen(Ok(true)));
    core.instance(InstanceEvent::Frozen(Ok(false)));
    assert_eq!(core.state.services()[0].deadline, None);
}

#[test]
fn what_is_taken_over_paused_is_not_asked_before_it_goes_on_and_then_as_its_config_says() {
    let image = |check: Health| Health { probe: Probe::Image, ..check };
    let mut core = Core::runs(|service| service.health = asked(Role::Live).into_iter().map(image).collect());
    core.instance(InstanceEvent::Frozen(Ok(true)));
    core.dies(Found::Running(1, true));
    core.instance(InstanceEvent::Probing(Times { retries: Some(9), ..Times::default() }));
    assert_eq!(core.state.services()[0].health.next(), None);
    core.instance(InstanceEvent::Frozen(Ok(false)));
    let health = core.state.services()[0].health.of(Role::Live);
    assert_eq!((health.times.interval, health.times.retries), (Some(Millis(100)), Some(9)));
    assert!(health.due.is_some_and(|due| due <= core.now.plus(Millis(100))));
}

#[test]
fn what_had_answered_and_hung_while_nobody_supervised_it_had_to_answer_once_more_before_it_could_fail() {
    let mut core = Core::runs(|service| (service.ready, service.health) = (Ready::Health, asked(Role::Live)));
    core.later(100);
    core.instance(InstanceEvent::Probed(Ok(())));
    core.dies(Found::Running(1, false));
    for _ in 0..3 {
        assert_eq!(core.phase(), Phase::Running);
        core.later(100);
        core.instance(InstanceEvent::Probed(Err(Fault::Errno(111))));
    }
    assert_eq!(core.state.services()[0].reason, Reason::Unhealthy);
}

#[test]
fn what_said_that_it_was_ready_before_its_check_had_succeeded_could_never_fail_it() {
    for roles in [&[Role::Live][..], &[Role::Startup, Role::Live]] {
        let checks = roles.iter().flat_map(|role| asked(*role)).collect();
        let mut core = Core::runs(|service| (service.ready, service.health) = (Ready::Health, checks));
        core.later(100);
        core.says(Standing::Ready);
        core.instance(InstanceEvent::Probed(Err(Fault::Errno(111))));
        assert_eq!(core.state.services()[0].health.of(Role::Startup).due, None);
        for _ in 0..roles.len() + 1 {
            assert_eq!(core.phase(), Phase::Running);
            core.now = core.state.next_deadline().unwrap();
            core.take(Event::Timer);
            core.instance(InstanceEvent::Probed(Err(Fault::Errno(111))));
        }
        assert_eq!(core.state.services()[0].reason, Reason::Unhealthy, "{roles:?}");
    }
}

#[test]
fn what_was_not_ready_stayed_so_for_good_where_a_reload_took_its_ready_check_away() {
    let mut core = Core::runs(|service| service.health = asked(Role::Ready));
    core.later(100);
    core.instance(InstanceEvent::Probed(Ok(())));
    for _ in 0..3 {
        core.later(100);
        core.instance(InstanceEvent::Probed(Err(Fault::Errno(111))));
    }
    assert_eq!(core.state.services()[0].reason, Reason::NotReady);
    core.plan.services[0].health = asked(Role::Live);
    core.dies(Found::Running(1, false));
    assert_eq!((core.phase(), core.state.services()[0].reason), (Phase::Running, Reason::None));
    let service = &core.state.services()[0];
    assert_eq!(service.health.word(&core.plan.services[0].health), "starting");
}

#[test]
fn a_service_on_hold_was_ended_when_it_asked_for_what_its_watchdog_does() {
    let trigger = || InstanceEvent::Notified(Notice { trigger: true, ..Notice::default() });
    let mut core = Core::runs(|_| {});
    core.order(Order::Hold(Millis(HOUR)));
    core.instance(trigger());
    assert_eq!(core.phase(), Phase::Running);
    core.later(HOUR);
    core.instance(trigger());
    assert!(matches!(core.phase(), Phase::Stopping(_)), "{:?}", core.phase());
}

#[test]
fn a_service_on_hold_was_ended_when_its_device_was_unplugged() {
    let mut core = Core::runs(|_| {});
    core.order(Order::Hold(Millis(HOUR)));
    core.take(Event::Unplugged(0));
    assert_eq!(core.phase(), Phase::Running);
    // Nor is it started before its time where it ends for that.
    core.instance(InstanceEvent::MainExited(Status::Code(1)));
    core.take(Event::Unplugged(0));
    core.instance(InstanceEvent::InitGone(Some(Status::Code(1))));
    assert_eq!(core.phase(), Phase::Backoff);
    core.later(HOUR);
    core.take(Event::Unplugged(0));
    assert_eq!(core.phase(), Phase::Preparing);
}
