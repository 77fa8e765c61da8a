//! Random numbers from a seed, and random plans.

use coracle::base::name::Name;
use coracle::base::units::{Bytes, Millis};
use coracle::plan::{
    Device, Health, Kind, Limits, Memory, Need, Plan, Probe, Ready, Restart, RestartPolicy, Role, Root, Schedule,
    Service, Stop, Then, Timer, Times,
};

/// A linear congruential generator: a seed is all that a failure needs.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn millis(&mut self, bound: u64) -> Millis {
        Millis(self.below(bound))
    }
}

pub fn plan(random: &mut Random) -> Plan {
    let count = 1 + random.below(8) as u16;
    let kinds: Vec<Kind> = (0..count).map(|_| if random.one_in(3) { Kind::Oneshot } else { Kind::Daemon }).collect();
    let mut services: Vec<Service> = (0..count)
        .map(|i| Service {
            kind: kinds[usize::from(i)],
            needs: (0..i)
                .filter_map(|need| match (kinds[usize::from(need)], random.below(6)) {
                    (_, 2..) => (random.one_in(8)).then_some(Need::Soft(need)),
                    (Kind::Oneshot, _) => Some(Need::Done(need)),
                    (Kind::Daemon, 0) => Some(Need::Ready(need)),
                    (Kind::Daemon, _) => Some(Need::Started(need)),
                })
                .collect(),
            restart: restart(random),
            stop: Stop { signal: None, timeout: Millis(1 + random.below(9_999)) },
            start_timeout: Millis(1 + random.below(30_000)),
            watchdog: random.one_in(2).then(|| Millis(100 + random.below(5000))),
            timer: timer(random).filter(|_| kinds[usize::from(i)] == Kind::Oneshot),
            enabled: !random.one_in(5),
            critical: random.one_in(3),
            lifeline: random.one_in(6),
            ..Service::new(
                Name::new(&format!("s{i}")).unwrap(),
                Root::Image("x.tar".into()),
                Limits::with_memory(Memory::Max(Bytes(1 << 20))),
            )
        })
        .collect();
    for service in &mut services {
        service.ready = ready(random, service.kind);
        service.health = health(random, service.ready);
    }
    let restarts_per_minute = [0, 1, 600][random.below(3) as usize];
    let device = Device { restarts_per_minute, ..Device::default() };
    Plan { services, start_order: (0..count).collect(), device, ..Plan::default() }
}

pub fn restart(random: &mut Random) -> Restart {
    let policies = [RestartPolicy::Always, RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::No];
    Restart {
        policy: policies[random.below(4) as usize],
        delay: random.millis(500),
        max_delay: Millis(1000 + random.below(60_000)),
        tries: random.below(6) as u16,
        within: random.millis(600_000),
        then: [Then::KeepTrying, Then::Stop, Then::Dependants, Then::Reboot][random.below(4) as usize],
    }
}

fn ready(random: &mut Random, kind: Kind) -> Ready {
    match random.below(4) {
        _ if kind == Kind::Oneshot => Ready::Started,
        0 => Ready::Started,
        1 => Ready::Health,
        _ => Ready::Notify,
    }
}

/// No check, one, or more of different roles.
fn health(random: &mut Random, ready: Ready) -> Vec<Health> {
    let rarely = [2, 3, 3];
    let roles = [Role::Live, Role::Ready, Role::Startup].into_iter().zip(rarely);
    let mut roles: Vec<Role> = roles.filter(|(_, n)| random.one_in(*n)).map(|(role, _)| role).collect();
    roles.retain(|role| *role != Role::Startup || ready == Ready::Health);
    if random.one_in(2) {
        roles.reverse();
    }
    roles.into_iter().map(|role| check(random, role)).collect()
}

/// One that answers in time answers within two seconds.
fn check(random: &mut Random, role: Role) -> Health {
    let times = Times {
        interval: Some(Millis(100 + random.below(20_000))),
        timeout: Some(Millis(2001 + random.below(5000))),
        start_period: random.one_in(2).then(|| random.millis(20_000)),
        retries: random.one_in(2).then(|| 1 + random.below(4) as u8),
    };
    let probe = if random.one_in(3) { Probe::Image } else { Probe::Tcp("127.0.0.1:80".parse().unwrap()) };
    Health { probe, times, role, memory: Bytes(0) }
}

fn timer(random: &mut Random) -> Option<Timer> {
    let schedule = match random.below(3) {
        0 => return None,
        1 => Schedule::Every(Millis(1000 + random.below(600_000))),
        _ => Schedule::At(random.millis(86_400_000)),
    };
    let most = if let Schedule::Every(period) = schedule { period.0 / 2 } else { 3_600_000 };
    Some(Timer { schedule, jitter: random.millis(most) })
}
