//! The supervisor's core, exhaustively: every phase against every event, and every dependency graph of four services.
//!
//! `tests/transitions.txt` is the table of the first kind. After a change that means to alter it, look at the difference
//! that the failing test prints and write the new table with `UPDATE_TRANSITIONS=1 cargo test --test transitions`.

use coracle::base::name::Name;
use coracle::base::units::{Bytes, Millis};
use coracle::plan::{
    Health, Kind, Limits, Memory, Need, Plan, Probe, Ready, Restart, RestartPolicy, Role, Root, Schedule, Service,
    Stop, Then, Timer, Times,
};
use coracle::supervisor::action::{Action, Actions};
use coracle::supervisor::core::{LEFT, State, step};
use coracle::supervisor::event::{Event, InstanceEvent, Order, Status, Token};
use coracle::supervisor::fault::Fault;
use coracle::supervisor::notify::{Notice, Standing};
use coracle::supervisor::service::{Ending, Phase, Reason};
use std::fmt::Write as _;

fn service(name: &str, needs: &[u16], policy: RestartPolicy) -> Service {
    let limits = Limits::with_memory(Memory::Max(Bytes(1 << 20)));
    Service {
        needs: needs.iter().map(|need| Need::Started(*need)).collect(),
        restart: Restart { policy, tries: 3, then: Then::Stop, ..Restart::default() },
        stop: Stop { signal: None, timeout: Millis(2000) },
        start_timeout: Millis(3000),
        ..Service::new(Name::new(name).unwrap(), Root::Image("x.tar".into()), limits)
    }
}

struct Core {
    plan: Plan,
    state: State,
    now: Millis,
    actions: Actions,
}

impl Core {
    fn new(services: Vec<Service>, start_order: Vec<u16>) -> Core {
        let plan = Plan { services, start_order, ..Plan::default() };
        let state = State::new(&plan, 1);
        Core { plan, state, now: Millis(1000), actions: Actions::default() }
    }

    fn take(&mut self, event: Event) -> Vec<Action> {
        step(&self.plan, &mut self.state, event, self.now, &mut self.actions);
        self.actions.drain().collect()
    }

    fn phase(&self, index: usize) -> Phase {
        self.state.services()[index].phase
    }
}

const TOKEN: Token = Token { client: 1, id: 1 };
const LATER: Token = Token { client: 2, id: 2 };

fn instance(number: u32, event: InstanceEvent) -> Event {
    Event::Instance(0, number, event)
}

fn notified(notice: Notice) -> Event {
    instance(1, InstanceEvent::Notified(notice))
}

/// Every phase of service 0 with the events that lead there.
fn phases() -> Vec<(&'static str, Service, Vec<Event>)> {
    use InstanceEvent::*;
    let boot = [Event::Boot, Event::Instance(1, 1, MainStarted)];
    let up = |more: &[Event]| {
        let run = [Event::Ready(1), Event::Instance(1, 1, MainStarted), Event::Ready(0), instance(1, MainStarted)];
        [&[Event::Boot], &run[..], more].concat()
    };
    let ask = |order| Event::Request(TOKEN, 0, order);
    let daemon = |policy| service("a", &[1], policy);
    let always = || daemon(RestartPolicy::Always);
    let oneshot = |policy| Service { kind: Kind::Oneshot, ..daemon(policy) };
    let timed = |policy| Service {
        timer: Some(Timer { schedule: Schedule::Every(Millis(60_000)), jitter: Millis(0) }),
        ..oneshot(policy)
    };
    let daily = || Service {
        timer: Some(Timer { schedule: Schedule::At(Millis(3_600_000)), jitter: Millis(0) }),
        ..oneshot(RestartPolicy::OnFailure)
    };
    let watched = || Service { ready: Ready::Notify, watchdog: Some(Millis(1500)), ..always() };
    let asked = |role| Service { ready: Ready::Health, health: vec![check(role)], ..always() };
    let by_all = || Service { ready: Ready::Health, health: Role::ALL.map(check).to_vec(), ..always() };
    let by_word = || {
        let live = Health { probe: Probe::Notify, ..check(Role::Live) };
        let health = vec![check(Role::Startup), live, check(Role::Ready)];
        Service { ready: Ready::Health, health, ..always() }
    };
    let refused = || [Event::Timer, instance(1, Probed(Err(Fault::Errno(111))))];
    let works = |more: &[Event]| up(&[&[Event::Timer, instance(1, Probed(Ok(())))], more].concat());
    let answers = || [Event::Timer, instance(1, Probed(Ok(())))];
    let started = |more: &[Event]| up(&[&answers(), more].concat());
    let fails = || works(&[refused(), refused()].concat());
    let says = |standing| notified(Notice { standing: Some(standing), ..Notice::default() });
    let ready = |more: &[Event]| up(&[&[says(Standing::Ready)], more].concat());
    vec![
        ("fresh", always(), vec![]),
        ("waiting", always(), boot.to_vec()),
        (
            "waiting for the board",
            always(),
            vec![Event::Boot, Event::Ready(1), boot[1].clone(), Event::Awaits(0, "waits for /x".into())],
        ),
        ("preparing", always(), vec![Event::Boot, Event::Ready(1), boot[1].clone()]),
        ("held", always(), vec![Event::Boot, Event::Ready(1), boot[1].clone(), Event::Held(0, "no /dev/x".into())]),
        ("starting", always(), vec![Event::Boot, Event::Ready(1), boot[1].clone(), Event::Ready(0)]),
        ("running", always(), up(&[])),
        ("paused", always(), up(&[instance(1, Frozen(Ok(true)))])),
        ("stopping asked", always(), up(&[ask(Order::Stop)])),
        ("restarting", always(), up(&[ask(Order::Restart)])),
        ("sweeping", always(), up(&[instance(1, MainExited(Status::Code(3)))])),
        ("killed at its limit", always(), up(&[instance(1, OutOfMemory)])),
        ("felled", always(), up(&[instance(1, OutOfMemory), Event::Timer])),
        ("left behind", always(), up(&[instance(1, OutOfMemory), Event::Timer, Event::Timer])),
        ("left behind for good", always(), up(&[ask(Order::Stop), Event::Timer, Event::Timer, Event::Timer])),
        ("backoff", always(), up(&[instance(1, MainExited(Status::Code(3))), instance(1, InitGone(None))])),
        ("stopped", always(), up(&[ask(Order::Stop), instance(1, InitGone(None))])),
        ("done", daemon(RestartPolicy::OnFailure), up(&[instance(1, InitGone(Some(Status::Code(0))))])),
        ("failed", daemon(RestartPolicy::No), up(&[instance(1, InitGone(Some(Status::Code(1))))])),
        ("shutting down", always(), up(&[Event::Shutdown(Some(TOKEN))])),
        (
            "skipped",
            always(),
            vec![Event::Boot, Event::Ready(1), boot[1].clone(), Event::Skipped(0, "/x exists".into())],
        ),
        ("oneshot runs", oneshot(RestartPolicy::Always), up(&[])),
        ("oneshot asked for", oneshot(RestartPolicy::Always), up(&[ask(Order::Start)])),
        ("oneshot done", oneshot(RestartPolicy::Always), up(&[instance(1, InitGone(Some(Status::Code(0))))])),
        ("oneshot failed", oneshot(RestartPolicy::Always), up(&[instance(1, InitGone(Some(Status::Code(1))))])),
        ("oneshot given up", oneshot(RestartPolicy::No), up(&[instance(1, InitGone(Some(Status::Signal(9))))])),
        ("not ready yet", watched(), up(&[])),
        ("not ready in time", watched(), up(&[Event::Timer, instance(1, InitGone(None))])),
        ("ready and watched", watched(), ready(&[])),
        ("watched and paused", watched(), ready(&[instance(1, Frozen(Ok(true)))])),
        ("reloading", watched(), ready(&[says(Standing::Reloading)])),
        ("ending by itself", watched(), ready(&[says(Standing::Stopping)])),
        ("watchdog expired", watched(), ready(&[Event::Timer])),
        (
            "started again with what it needs",
            always(),
            up(&[
                Event::Instance(1, 1, InitGone(None)),
                Event::Timer,
                Event::Ready(1),
                Event::Instance(1, 2, MainStarted),
                Event::Instance(1, 2, InitGone(None)),
            ]),
        ),
        ("hands off", watched(), ready(&[ask(Order::Hold(Millis(60_000)))])),
        (
            "hands off while it ended",
            watched(),
            ready(&[ask(Order::Hold(Millis(60_000))), instance(1, InitGone(Some(Status::Code(3))))]),
        ),
        ("timer runs", timed(RestartPolicy::Always), up(&[])),
        ("timer done", timed(RestartPolicy::Always), up(&[instance(1, InitGone(Some(Status::Code(0))))])),
        ("timer failed", timed(RestartPolicy::No), up(&[instance(1, InitGone(Some(Status::Code(1))))])),
        ("timer misconfigured", timed(RestartPolicy::Always), up(&[instance(1, InitGone(Some(Status::Code(78))))])),
        ("timer stopped", timed(RestartPolicy::Always), up(&[ask(Order::Stop), instance(1, InitGone(None))])),
        ("its time has not come", daily(), [&[Event::Clock(Some(5000))], &boot[..]].concat()),
        ("its time is not known", daily(), boot.to_vec()),
        ("not asked yet", asked(Role::Live), up(&[])),
        ("asked before it is ready", asked(Role::Live), up(&[Event::Timer])),
        ("healthy", asked(Role::Live), works(&[])),
        ("asked", asked(Role::Live), works(&[Event::Timer])),
        ("asked the last time", asked(Role::Live), works(&[&refused()[..], &[Event::Timer]].concat())),
        ("unhealthy", asked(Role::Live), fails()),
        ("not ready any more", asked(Role::Ready), fails()),
        ("asked whether it is ready", asked(Role::Ready), [fails(), vec![Event::Timer]].concat()),
        ("healthy and paused", asked(Role::Live), works(&[instance(1, Frozen(Ok(true)))])),
        ("asked whether it has started", by_all(), up(&[Event::Timer])),
        ("has not started yet", by_all(), up(&refused())),
        ("has started", by_all(), started(&[])),
        ("has started and is ready", by_all(), started(&answers())),
        (
            "has started and is asked whether it is ready",
            by_all(),
            started(&[&answers(), &answers(), &[Event::Timer][..]].concat()),
        ),
        (
            "has started and is not ready any more",
            by_all(),
            started(&[answers(), answers(), refused(), answers(), refused()].concat()),
        ),
        ("asked whether it has started, and has to ping then", by_word(), up(&[Event::Timer])),
        ("has to ping and is asked whether it is ready", by_word(), started(&[Event::Timer])),
        ("misconfigured", always(), up(&[instance(1, InitGone(Some(Status::Code(78))))])),
    ]
}

/// Two failures in a row are too many.
fn check(role: Role) -> Health {
    let times =
        Times { interval: Some(Millis(5000)), timeout: Some(Millis(1000)), start_period: None, retries: Some(2) };
    let probe = Probe::Tcp("127.0.0.1:1883".parse().unwrap());
    Health { probe, times, role, memory: Bytes(0) }
}

/// When a service is asked, by which of its checks if it has several.
fn asked(configured: &Service, after: &coracle::supervisor::service::Service, now: Millis) -> String {
    let one = |check: &Health| {
        let health = after.health.of(check.role);
        let asking = if health.asking { "asked by" } else { "next asked in" };
        let whether = if configured.health.len() > 1 { format!("{} ", check.role.word()) } else { String::new() };
        health.due.map_or(String::new(), |at| format!(", {whether}{asking} {}", at.since(now).0))
    };
    configured.health.iter().map(one).collect()
}

fn events() -> Vec<(&'static str, Event)> {
    use InstanceEvent::*;
    let ask = |order| Event::Request(LATER, 0, order);
    let says = |standing| notified(Notice { standing: Some(standing), ..Notice::default() });
    vec![
        ("boot", Event::Boot),
        ("timer", Event::Timer),
        ("clock set", Event::Clock(Some(1_800_000))),
        ("clock lost", Event::Clock(None)),
        ("start", ask(Order::Start)),
        ("stop", ask(Order::Stop)),
        ("restart", ask(Order::Restart)),
        ("kill 9", ask(Order::Kill(9))),
        ("kill 10", ask(Order::Kill(10))),
        ("hands off", ask(Order::Hold(Millis(60_000)))),
        ("no longer hands off", ask(Order::Hold(Millis(0)))),
        ("pause", ask(Order::Pause)),
        ("unpause", ask(Order::Unpause)),
        ("wait", Event::WaitSettled(LATER)),
        ("shutdown", Event::Shutdown(Some(LATER))),
        ("forget", Event::Forget(1)),
        ("ready", Event::Ready(0)),
        ("held", Event::Held(0, "why".into())),
        ("unheld", Event::Unheld(0)),
        ("awaits", Event::Awaits(0, "why".into())),
        ("unplugged", Event::Unplugged(0)),
        ("skipped", Event::Skipped(0, "why".into())),
        ("image failed", Event::ImageFailed(0, "why".into())),
        ("spawned", instance(1, Spawned)),
        ("spawn failed", instance(1, SpawnFailed("why".into()))),
        ("main started", instance(1, MainStarted)),
        ("main failed", instance(1, MainFailed("why".into()))),
        ("main exit 0", instance(1, MainExited(Status::Code(0)))),
        ("main signal 9", instance(1, MainExited(Status::Signal(9)))),
        ("init gone", instance(1, InitGone(Some(Status::Code(0))))),
        ("init lost", instance(1, InitGone(None))),
        ("out of memory", instance(1, OutOfMemory)),
        ("frozen", instance(1, Frozen(Ok(true)))),
        ("thawed", instance(1, Frozen(Ok(false)))),
        ("not frozen", instance(1, Frozen(Err("why".into())))),
        ("main exit 78", instance(1, MainExited(Status::Code(78)))),
        ("init gone 78", instance(1, InitGone(Some(Status::Code(78))))),
        ("says ready", says(Standing::Ready)),
        ("says reloading", says(Standing::Reloading)),
        ("says ready and reloading", says(Standing::ReadyThenReloading)),
        ("says stopping", says(Standing::Stopping)),
        ("pings", notified(Notice { ping: true, ..Notice::default() })),
        ("triggers its watchdog", notified(Notice { trigger: true, ..Notice::default() })),
        ("sets its watchdog", notified(Notice { watchdog: Some(Millis(7000)), ..Notice::default() })),
        ("asks for more time", notified(Notice { extend: Some(Millis(9000)), ..Notice::default() })),
        ("asks for a day", notified(Notice { extend: Some(Millis(86_400_000)), ..Notice::default() })),
        ("wants its failures forgotten", notified(Notice { forgive: true, ..Notice::default() })),
        ("tells what is wrong", instance(1, Troubled("ERRNO=2".into()))),
        ("answers", instance(1, Probed(Ok(())))),
        ("refuses", instance(1, Probed(Err(Fault::Errno(111))))),
        ("its image says how often", instance(1, Probing(Times { retries: Some(9), ..Times::default() }))),
        ("of a dead instance", instance(7, InitGone(None))),
    ]
}

#[test]
fn every_phase_meets_every_event_as_the_table_says() {
    let mut needed = service("b", &[], RestartPolicy::Always);
    (needed.restart.tries, needed.restart.then) = (1, Then::Dependants);
    let mut table = String::from("phase | event | phase after, reason, deadline and watchdog in ms | actions\n");
    for (label, first, script) in phases() {
        for (name, event) in events() {
            let mut core = Core::new(vec![first.clone(), needed.clone()], vec![1, 0]);
            for event in script.clone() {
                if event == Event::Timer {
                    core.now = core.state.next_deadline().unwrap();
                }
                core.take(event);
            }
            // The timer is looked at when it is due, everything else a little later.
            core.now = match (name, core.state.next_deadline()) {
                ("timer", Some(deadline)) => deadline,
                _ => core.now.plus(Millis(10)),
            };
            let actions = core.take(event);
            let after = &core.state.services()[0];
            let deadline = after.deadline.map_or("-".to_string(), |at| at.since(core.now).0.to_string());
            let paused = if after.paused { " paused" } else { "" };
            let probe = asked(&first, after, core.now);
            let watchdog = after.ping_by.map_or(String::new(), |at| format!(", watchdog {}", at.since(core.now).0));
            let due = after.due.at.map_or(String::new(), |at| format!(", due {}", at.since(core.now).0));
            let _ = writeln!(
                table,
                "{label} | {name} | {:?}{paused}, {:?}, {deadline}{watchdog}{due}{probe} | {}",
                after.phase,
                after.reason,
                actions.iter().map(|action| format!("{action:?}")).collect::<Vec<_>>().join("; ")
            );
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transitions.txt");
    if std::env::var_os("UPDATE_TRANSITIONS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    let differing = table.lines().zip(expected.lines()).filter(|(new, old)| new != old);
    for (new, old) in differing.take(20) {
        println!("- {old}\n+ {new}");
    }
    assert!(table == expected, "the core does not do what tests/transitions.txt says");
}

/// Every acyclic graph of `n` services, as the needs of each, with a start order.
fn graphs(n: usize) -> Vec<(Vec<Vec<u16>>, Vec<u16>)> {
    let pairs: Vec<(usize, usize)> = (0..n).flat_map(|a| (0..n).map(move |b| (a, b))).filter(|(a, b)| a != b).collect();
    (0u32..1 << pairs.len())
        .filter_map(|bits| {
            let mut needs = vec![Vec::new(); n];
            for (bit, (a, b)) in pairs.iter().enumerate() {
                if bits >> bit & 1 == 1 {
                    needs[*a].push(*b as u16);
                }
            }
            let mut order: Vec<u16> = Vec::new();
            while let Some(next) = (0..n as u16)
                .find(|i| !order.contains(i) && needs[usize::from(*i)].iter().all(|need| order.contains(need)))
            {
                order.push(next);
            }
            (order.len() == n).then_some((needs, order))
        })
        .collect()
}

#[test]
fn every_graph_of_up_to_four_services_starts_and_stops_in_order() {
    let mut count = 0;
    for n in 1..=4 {
        for (needs, order) in graphs(n) {
            count += 1;
            let services = (0..n).map(|i| service(&format!("s{i}"), &needs[i], RestartPolicy::Always)).collect();
            let mut core = Core::new(services, order);
            let mut queue: Vec<Action> = core.take(Event::Boot);
            let mut started = Vec::new();
            while let Some(action) = queue.pop() {
                let more = match action {
                    Action::Prepare(index) => core.take(Event::Ready(index)),
                    Action::Spawn(index, number) => {
                        for need in &needs[usize::from(index)] {
                            assert!(started.contains(need), "{needs:?}: {index} before {need}");
                        }
                        started.push(index);
                        core.take(Event::Instance(index, number, InstanceEvent::MainStarted))
                    }
                    _ => Vec::new(),
                };
                queue.extend(more);
            }
            assert_eq!(started.len(), n, "{needs:?}");
            let mut queue = core.take(Event::Shutdown(Some(TOKEN)));
            let (mut stopped, mut complete) = (Vec::new(), 0);
            while let Some(action) = queue.pop() {
                match action {
                    Action::Signal(index, number, None) => {
                        for (dependant, theirs) in needs.iter().enumerate() {
                            let before = !theirs.contains(&index) || stopped.contains(&(dependant as u16));
                            assert!(before, "{needs:?}: {index} is stopped before {dependant}");
                        }
                        core.take(Event::Instance(index, number, InstanceEvent::MainExited(Status::Code(0))));
                        stopped.push(index);
                        queue.extend(core.take(Event::Instance(index, number, InstanceEvent::InitGone(None))));
                    }
                    Action::Complete => complete += 1,
                    _ => {}
                }
            }
            assert_eq!((stopped.len(), complete), (n, 1), "{needs:?}");
        }
    }
    // The labelled acyclic digraphs of 1 to 4 nodes (OEIS A003024).
    assert_eq!(count, 1 + 3 + 25 + 543);
}

#[test]
fn what_does_not_die_blocks_its_service_only_when_too_much_of_it_is_left_already() {
    let services = (0..10).map(|i| service(&format!("s{i}"), &[], RestartPolicy::Always)).collect();
    let mut core = Core::new(services, (0..10).collect());
    core.take(Event::Boot);
    for index in 0..10 {
        core.take(Event::Ready(index));
        core.take(Event::Instance(index, 1, InstanceEvent::MainStarted));
        core.take(Event::Instance(index, 1, InstanceEvent::OutOfMemory));
    }
    for _ in 0..2 {
        core.now = core.state.next_deadline().unwrap();
        core.take(Event::Timer);
    }
    let stuck = |core: &Core| (0..10).filter(|i| core.state.services()[*i].is_stuck()).count();
    assert_eq!(stuck(&core), 10 - LEFT);
    assert_eq!(core.phase(0), Phase::Backoff);
    assert_eq!(core.state.services()[0].reason, Reason::Stuck);
    // One ends at last: it is cleaned up, and there is room for another one.
    let actions = core.take(Event::Instance(3, 1, InstanceEvent::InitGone(None)));
    assert!(actions.contains(&Action::Cleanup(3, 1)) && actions.contains(&Action::GiveUp(8, 1)), "{actions:?}");
    assert_eq!((stuck(&core), core.phase(8)), (10 - LEFT - 1, Phase::Backoff));
    assert!(core.take(Event::Instance(3, 1, InstanceEvent::InitGone(None))).is_empty(), "it ends once");
}

#[test]
fn starting_a_service_starts_what_it_needs() {
    let mut services = vec![service("a", &[1], RestartPolicy::Always), service("b", &[], RestartPolicy::Always)];
    services.iter_mut().for_each(|service| service.enabled = false);
    let mut core = Core::new(services, vec![1, 0]);
    assert!(core.take(Event::Boot).is_empty());
    let actions = core.take(Event::Request(TOKEN, 0, Order::Start));
    assert!(actions.contains(&Action::Prepare(1)), "{actions:?}");
    assert_eq!(core.phase(0), Phase::Waiting);
    core.take(Event::Ready(1));
    let actions = core.take(Event::Instance(1, 1, InstanceEvent::MainStarted));
    assert!(actions.contains(&Action::Prepare(0)), "{actions:?}");
}

/// A oneshot, service 1, that service 0 needs done.
fn chain(policy: RestartPolicy) -> Core {
    let first = Service { needs: vec![Need::Done(1)], ..service("broker", &[], RestartPolicy::Always) };
    let keygen = Service { kind: Kind::Oneshot, ..service("keygen", &[], policy) };
    Core::new(vec![first, keygen], vec![1, 0])
}

#[test]
fn a_need_for_a_oneshot_to_be_done_is_met_by_exit_code_0_alone() {
    for policy in [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::No] {
        let mut core = chain(policy);
        core.take(Event::Boot);
        core.take(Event::Ready(1));
        core.take(Event::Instance(1, 1, InstanceEvent::MainStarted));
        assert_eq!((core.phase(0), core.phase(1)), (Phase::Waiting, Phase::Running), "{policy:?}");
        core.take(Event::Instance(1, 1, InstanceEvent::InitGone(Some(Status::Code(1)))));
        let again = if policy == RestartPolicy::No { Phase::Failed } else { Phase::Backoff };
        assert_eq!((core.phase(0), core.phase(1)), (Phase::Waiting, again), "{policy:?}");
        core.take(Event::Request(TOKEN, 1, Order::Start));
        core.take(Event::Ready(1));
        core.take(Event::Instance(1, 2, InstanceEvent::MainStarted));
        let actions = core.take(Event::Instance(1, 2, InstanceEvent::InitGone(Some(Status::Code(0)))));
        assert!(actions.contains(&Action::Prepare(0)), "{policy:?}: {actions:?}");
        assert_eq!(core.phase(1), Phase::Done, "{policy:?}");
    }
}

#[test]
fn what_is_skipped_meets_every_need_and_a_start_looks_again() {
    let mut core = chain(RestartPolicy::Always);
    core.take(Event::Boot);
    let actions = core.take(Event::Skipped(1, "/data/keys/tls.key exists".into()));
    assert!(actions.contains(&Action::Prepare(0)), "{actions:?}");
    assert_eq!(core.phase(1), Phase::Done);
    let actions = core.take(Event::Request(TOKEN, 1, Order::Start));
    assert!(actions.contains(&Action::Prepare(1)), "{actions:?}");
    core.take(Event::Ready(1));
    assert_eq!(core.phase(1), Phase::Starting);
}

#[test]
fn a_start_of_a_oneshot_is_answered_when_it_is_done_and_runs_it_again() {
    let mut core = chain(RestartPolicy::Always);
    core.take(Event::Boot);
    for (number, token) in [(1, TOKEN), (2, LATER)] {
        core.take(Event::Request(token, 1, Order::Start));
        core.take(Event::Ready(1));
        let running = core.take(Event::Instance(1, number, InstanceEvent::MainStarted));
        assert!(!running.iter().any(|action| matches!(action, Action::Answer(..))), "{running:?}");
        let done = core.take(Event::Instance(1, number, InstanceEvent::InitGone(Some(Status::Code(0)))));
        assert!(done.iter().any(|action| matches!(action, Action::Answer(to, _) if *to == token)), "{done:?}");
    }
}

#[test]
fn what_nothing_starts_any_more_does_not_keep_wait_waiting() {
    let services = vec![service("a", &[1], RestartPolicy::Always), service("b", &[], RestartPolicy::Always)];
    let mut core = Core::new(services, vec![1, 0]);
    core.take(Event::Boot);
    core.take(Event::WaitSettled(TOKEN));
    let actions = core.take(Event::Held(1, "no image".into()));
    assert!(actions.iter().any(|action| matches!(action, Action::Answer(TOKEN, _))), "{actions:?}");
}

#[test]
fn what_waits_for_the_board_begins_when_it_is_there_and_keeps_nobody_waiting() {
    let services = vec![service("a", &[1], RestartPolicy::Always), service("b", &[], RestartPolicy::Always)];
    let mut core = Core::new(services, vec![1, 0]);
    core.take(Event::Boot);
    core.take(Event::WaitSettled(TOKEN));
    let actions = core.take(Event::Awaits(1, "waits for /data".into()));
    assert!(actions.iter().any(|action| matches!(action, Action::Answer(TOKEN, _))), "{actions:?}");
    assert_eq!((core.phase(1), core.state.services()[1].reason), (Phase::Waiting, Reason::Awaits));
    let actions = core.take(Event::Awaits(1, "waits for /more".into()));
    assert_eq!((actions, core.state.services()[1].detail.as_deref()), (vec![], Some("waits for /more")));
    for again in [Event::Unheld(1), Event::Request(LATER, 1, Order::Start)] {
        let actions = core.take(again);
        assert!(actions.contains(&Action::Prepare(1)), "{actions:?}");
        core.take(Event::Awaits(1, "waits for /data".into()));
    }
    core.take(Event::Unheld(1));
    core.take(Event::Ready(1));
    let actions = core.take(Event::Instance(1, 1, InstanceEvent::MainStarted));
    assert!(actions.contains(&Action::Prepare(0)), "{actions:?}");
}

#[test]
fn a_soft_need_waits_only_for_what_is_on_its_way() {
    let soft = |index| Service { needs: vec![Need::Soft(index)], ..service("a", &[], RestartPolicy::Always) };
    let chain = || vec![soft(1), service("b", &[2], RestartPolicy::Always), service("c", &[], RestartPolicy::Always)];
    let booted = |services: Vec<Service>| {
        let mut core = Core::new(services, vec![2, 1, 0]);
        core.take(Event::Boot);
        core
    };
    let started = |index| Event::Instance(index, 1, InstanceEvent::MainStarted);
    let mut core = booted(chain());
    for event in [Event::Ready(2), started(2), Event::Ready(1)] {
        let actions = core.take(event);
        assert_eq!((core.phase(0), actions.contains(&Action::Prepare(0))), (Phase::Waiting, false));
    }
    assert!(core.take(started(1)).contains(&Action::Prepare(0)));
    // Whatever keeps the one that it is soft about, or what that one needs, from coming lets it go on.
    for (event, index) in [(Event::Held(2, "x".into()), 2), (Event::Awaits(2, "x".into()), 2)] {
        let actions = booted(chain()).take(event);
        assert!(actions.contains(&Action::Prepare(0)), "{index}: {actions:?}");
    }
    let mut asleep = chain();
    asleep[1].enabled = false;
    assert_eq!(booted(asleep).phase(0), Phase::Preparing);
    let mut oneshot = chain();
    oneshot[1].kind = Kind::Oneshot;
    let mut core = booted(oneshot);
    for event in [Event::Ready(2), started(2), Event::Ready(1), started(1)] {
        core.take(event);
        assert_eq!(core.phase(0), Phase::Waiting, "a oneshot is on its way until it is done");
    }
    let ended = Event::Instance(1, 1, InstanceEvent::InitGone(Some(Status::Code(1))));
    assert!(core.take(ended).contains(&Action::Prepare(0)));
}

#[test]
fn who_starts_a_service_does_not_start_what_it_needs_softly_and_stops_it_first() {
    let soft = Service { needs: vec![Need::Soft(1)], ..service("a", &[], RestartPolicy::Always) };
    let mut core = Core::new(vec![soft, service("b", &[], RestartPolicy::Always)], vec![1, 0]);
    core.take(Event::Request(TOKEN, 0, Order::Start));
    assert_eq!((core.phase(0), core.phase(1)), (Phase::Preparing, Phase::Stopped));
    core.take(Event::Ready(0));
    core.take(instance(1, InstanceEvent::MainStarted));
    core.take(Event::Request(TOKEN, 1, Order::Start));
    core.take(Event::Ready(1));
    core.take(Event::Instance(1, 1, InstanceEvent::MainStarted));
    core.take(Event::Shutdown(None));
    assert_eq!((core.phase(0), core.phase(1)), (Phase::Stopping(Ending::Asked), Phase::Running));
}

#[test]
fn an_unplugged_device_costs_no_try_also_where_the_service_notices_first() {
    for first in [false, true] {
        let mut core = Core::new(vec![service("a", &[], RestartPolicy::Always)], vec![0]);
        core.take(Event::Boot);
        // More often than the three tries that it has.
        for number in 1..=9 {
            core.take(Event::Ready(0));
            core.take(instance(number, InstanceEvent::MainStarted));
            if first {
                core.take(instance(number, InstanceEvent::MainExited(Status::Code(1))));
            }
            core.take(Event::Unplugged(0));
            assert_eq!(core.state.services()[0].reason, Reason::Unplugged);
            let actions = core.take(instance(number, InstanceEvent::InitGone(Some(Status::Code(1)))));
            assert!(actions.contains(&Action::Prepare(0)), "{number}: {actions:?}");
            core.take(Event::Held(0, "no /dev/x".into()));
            core.take(Event::Unheld(0));
        }
        core.take(Event::Ready(0));
        core.take(instance(10, InstanceEvent::MainStarted));
        core.take(Event::Request(TOKEN, 0, Order::Stop));
        core.take(Event::Unplugged(0));
        core.take(instance(10, InstanceEvent::InitGone(None)));
        assert_eq!(core.phase(0), Phase::Stopped, "a stop is a stop");
    }
}

#[test]
fn a_full_table_of_waiting_requests_says_busy() {
    let mut core = Core::new(vec![service("a", &[], RestartPolicy::Always)], vec![0]);
    core.take(Event::Boot);
    let busy = (0..200)
        .filter(|id| {
            let token = Token { client: 1, id: *id };
            core.take(Event::WaitSettled(token)).iter().any(|action| matches!(action, Action::Answer(..)))
        })
        .count();
    assert_eq!(busy, 200 - coracle::supervisor::waits::WAITS);
    core.take(Event::Forget(1));
    assert!(core.take(Event::WaitSettled(TOKEN)).is_empty());
}

/// A service that has to say that it is ready and to ping, running and not ready; service 1 needs it to be ready,
/// service 2 only to run.
fn watched() -> Core {
    let first = Service {
        ready: Ready::Notify,
        watchdog: Some(Millis(1000)),
        start_timeout: Millis(60_000),
        ..service("a", &[], RestartPolicy::Always)
    };
    let second = Service { needs: vec![Need::Ready(0)], ..service("b", &[], RestartPolicy::Always) };
    let mut core = Core::new(vec![first, second, service("c", &[0], RestartPolicy::Always)], vec![0, 1, 2]);
    core.take(Event::Boot);
    core.take(Event::Ready(0));
    core.take(instance(1, InstanceEvent::MainStarted));
    core
}

fn ping() -> Event {
    notified(Notice { ping: true, ..Notice::default() })
}

fn ready() -> Event {
    notified(Notice { standing: Some(Standing::Ready), ..Notice::default() })
}

#[test]
fn who_needs_it_ready_waits_for_its_word_and_who_needs_it_started_does_not() {
    let mut core = watched();
    assert_eq!((core.phase(0), core.phase(1), core.phase(2)), (Phase::Started, Phase::Waiting, Phase::Preparing));
    let actions = core.take(ready());
    assert!(actions.contains(&Action::Prepare(1)), "{actions:?}");
    assert_eq!(core.phase(0), Phase::Running);
}

#[test]
fn a_start_is_answered_when_the_service_is_ready() {
    let mut core = watched();
    let answered = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Answer(TOKEN, _)));
    assert!(!answered(&core.take(Event::Request(TOKEN, 0, Order::Start))));
    assert!(answered(&core.take(ready())));
}

#[test]
fn a_watchdog_counts_from_the_start_of_main_and_each_ping_gives_a_whole_period() {
    let mut core = watched();
    for _ in 0..50 {
        core.now = core.now.plus(Millis(999));
        core.take(Event::Timer);
        assert_eq!(core.phase(0), Phase::Started);
        core.take(ping());
    }
    core.now = core.now.plus(Millis(1000));
    let actions = core.take(Event::Timer);
    assert!(actions.contains(&Action::Signal(0, 1, Some(6))), "{actions:?}");
    assert_eq!(core.state.services()[0].reason, Reason::Watchdog);
    core.take(ping());
    core.now = core.state.next_deadline().unwrap();
    let actions = core.take(Event::Timer);
    assert!(actions.contains(&Action::KillTree(0, 1)), "a ping after the abort changes nothing: {actions:?}");
    core.take(instance(1, InstanceEvent::InitGone(Some(Status::Signal(6)))));
    assert_eq!((core.phase(0), core.state.services()[0].reason), (Phase::Backoff, Reason::Watchdog));
}

#[test]
fn a_supervisor_that_looks_far_too_late_gives_one_period_more_and_no_second_one() {
    let mut core = watched();
    core.now = core.now.plus(Millis(30_000));
    assert!(core.take(Event::Timer).is_empty());
    core.now = core.now.plus(Millis(30_000));
    let actions = core.take(Event::Timer);
    assert!(actions.contains(&Action::Signal(0, 1, Some(6))), "{actions:?}");
}

#[test]
fn time_that_is_asked_for_is_given_up_to_ten_times_the_timeout_in_total() {
    let mut core = watched();
    let begun = core.now;
    let more = notified(Notice { extend: Some(Millis(50_000)), ping: true, ..Notice::default() });
    let mut ended = None;
    for _ in 0..2000 {
        core.now = core.now.plus(Millis(500));
        core.take(Event::Timer);
        if core.phase(0) != Phase::Started {
            ended = Some(core.now.since(begun));
            break;
        }
        core.take(more.clone());
    }
    assert_eq!((ended, core.state.services()[0].reason), (Some(Millis(600_000)), Reason::StartTimeout));
}

#[test]
fn a_reload_that_does_not_end_in_time_ends_the_service_and_repeating_it_gives_no_more_time() {
    let says = |standing| notified(Notice { standing: Some(standing), ..Notice::default() });
    for frozen in [false, true] {
        let first = Service { ready: Ready::Notify, ..service("a", &[], RestartPolicy::Always) };
        let mut core = Core::new(vec![first], vec![0]);
        let run = [Event::Boot, Event::Ready(0), instance(1, InstanceEvent::MainStarted), ready()];
        run.into_iter().for_each(|event| drop(core.take(event)));
        assert_eq!(core.state.next_deadline(), None);
        core.take(says(Standing::Reloading));
        assert_eq!(core.state.services()[0].reason, Reason::Reloading);
        core.take(ready());
        assert_eq!((core.state.next_deadline(), core.state.services()[0].reason), (None, Reason::None));
        let mut begun = core.now;
        core.take(says(Standing::Reloading));
        for _ in 0..2 {
            core.now = core.now.plus(Millis(1000));
            core.take(says(Standing::Reloading));
        }
        if frozen {
            core.take(instance(1, InstanceEvent::Frozen(Ok(true))));
            assert_eq!(core.state.next_deadline(), None, "what is frozen cannot reload");
            core.now = core.now.plus(Millis(60_000));
            core.take(instance(1, InstanceEvent::Frozen(Ok(false))));
            begun = core.now;
        }
        core.now = core.state.next_deadline().unwrap();
        assert_eq!(core.now.since(begun), Millis(3000));
        let actions = core.take(Event::Timer);
        assert!(actions.contains(&Action::Signal(0, 1, None)), "{actions:?}");
        core.take(instance(1, InstanceEvent::InitGone(Some(Status::Code(0)))));
        assert_eq!((core.phase(0), core.state.services()[0].reason), (Phase::Backoff, Reason::ReloadTimeout));
    }
}

#[test]
fn a_service_that_ends_while_it_reloads_is_started_again() {
    let mut core = watched();
    core.take(ready());
    core.take(notified(Notice { standing: Some(Standing::Reloading), ..Notice::default() }));
    core.take(instance(1, InstanceEvent::InitGone(Some(Status::Signal(11)))));
    assert_eq!(core.phase(0), Phase::Backoff);
}

#[test]
fn exit_code_78_is_not_answered_with_a_restart_until_someone_asks() {
    for policy in [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::No] {
        for order in [Order::Start, Order::Restart] {
            let mut core = Core::new(vec![service("a", &[], policy)], vec![0]);
            core.take(Event::Boot);
            core.take(Event::Ready(0));
            core.take(instance(1, InstanceEvent::MainStarted));
            core.take(instance(1, InstanceEvent::InitGone(Some(Status::Code(78)))));
            assert_eq!((core.phase(0), core.state.next_deadline()), (Phase::Failed, None), "{policy:?}");
            let actions = core.take(Event::Request(TOKEN, 0, order));
            assert!(actions.contains(&Action::Prepare(0)), "{policy:?} {order:?}: {actions:?}");
        }
    }
}

#[test]
fn a_service_that_says_it_is_stopping_has_its_stop_timeout_and_ends_for_its_own_reason() {
    let mut core = watched();
    core.take(ready());
    let actions = core.take(notified(Notice { standing: Some(Standing::Stopping), ..Notice::default() }));
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal(..))), "nobody has to ask it: {actions:?}");
    core.take(instance(1, InstanceEvent::MainExited(Status::Code(4))));
    core.take(instance(1, InstanceEvent::InitGone(Some(Status::Code(4)))));
    assert_eq!((core.phase(0), core.state.services()[0].reason), (Phase::Backoff, Reason::Exit(Status::Code(4))));
}
