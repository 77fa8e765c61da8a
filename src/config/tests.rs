//! What a whole file gives, whatever its bytes.

use super::keys::{self, FILE, Key, Object, SERVICE};
use super::*;
use crate::base::units::{Bytes, Millis};
use crate::plan::{
    CapSet, Condition, DeviceNode, Kind, Memory, MountKind, Need, Network, NotifyAccess, Probe, Ready, RestartPolicy,
    RlimitKind, Role, Root, RootFs, Schedule, Seccomp, Service, Then, Timer, Times,
};

/// A config with every key, all kinds of values, comments, escapes and free keys.
const FULL: &str = include_str!("tests/full.json");

/// The seed of every test here that invents texts.
const SEED: u64 = 0x5eed_c0ac_1e00_0001;

/// Xorshift64*: enough to choose places and bytes.
struct Random(u64);

impl Random {
    fn new() -> Random {
        println!("seed: {SEED:#x}");
        Random(SEED)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

/// Loads the text and checks what must hold for any bytes.
fn survive(bytes: &[u8]) -> Result<Plan, Problems> {
    match load("c.json", bytes) {
        Ok((plan, _)) => {
            let mut order = plan.start_order.clone();
            order.sort_unstable();
            assert_eq!(order, (0..plan.services.len() as u16).collect::<Vec<u16>>());
            Ok(plan)
        }
        Err(problems) => {
            let shown = problems.to_string();
            assert!(!problems.list.is_empty());
            assert!(!shown.contains("cannot be read:"), "the table and the raw types disagree: {shown}");
            assert!(!shown.contains(": this value "), "the table lacks a rule: {shown}");
            assert!(!shown.bytes().any(|byte| byte < b' ' && byte != b'\n'), "{shown:?}");
            Err(problems)
        }
    }
}

mod docs;
mod files;

fn good(text: &str) -> Plan {
    survive(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_smallest_config_is_a_plan_of_defaults() {
    let plan = good(r#"{"version":1,"services":[{"name":"web","image":"web.tar","limits":{"memory":"24M"}}]}"#);
    assert_eq!(plan.device, crate::plan::Device::default());
    let Service { limits, restart, stop, log, .. } = &plan.services[0];
    assert_eq!(*limits, crate::plan::Limits::with_memory(Memory::Max(Bytes(24 << 20))));
    assert_eq!(*restart, crate::plan::Restart::default());
    assert_eq!(*log, crate::plan::LogPolicy::default());
    assert_eq!((stop.signal, stop.timeout), (None, Millis::from_secs(10)));
    assert!(plan.services[0].enabled && plan.services[0].network == Network::None);
}

#[test]
fn every_key_reaches_the_plan() {
    let plan = good(FULL);
    let device = &plan.device;
    assert_eq!(device.hostname.as_deref(), Some("gateway-7"));
    assert_eq!(device.images.len(), 2);
    assert_eq!((&*device.state, device.memory), ("/data/coracle", Some(Bytes(256 << 20))));
    assert_eq!((device.memory_reserve, device.log_ring), (Bytes(32 << 20), Bytes(16 << 10)));
    assert!(device.allow_missing.has(crate::plan::Feature::Io) && device.allow_missing.has(crate::plan::Feature::Ipc));
    let caps = device.image_caps;
    assert_eq!((caps.bytes, caps.ratio, caps.entries, caps.path_depth), (Bytes(1 << 30), 100, 50_000, 32));
    assert_eq!((caps.pax, caps.zstd_window, caps.manifest), (Bytes(32 << 10), Bytes(4 << 20), Bytes(128 << 10)));

    let broker = &plan.services[0];
    assert_eq!(broker.image(), Some("mosquitto.tar#eclipse/mosquitto:2.0"));
    assert_eq!(&*broker.command[2], "/mosquitto.conf");
    assert_eq!(&*broker.command[3], "\u{1f600} \"quoted\"");
    assert_eq!(&*broker.env[1], "SITE=a//b /* c */");
    assert_eq!(broker.pre_start.join(" "), "mkdir -p /run/7");
    assert_eq!(broker.post_stop.join(" "), "rm -f /data/7.lock");
    let user = broker.user.as_ref().unwrap();
    assert_eq!((&*user.user, user.group.as_deref()), ("1883", Some("mosquitto")));
    assert_eq!((broker.working_dir.as_deref(), broker.hostname.as_deref()), (Some("/srv"), Some("broker.local")));
    let limits = &broker.limits;
    assert_eq!((limits.memory, limits.memory_high), (Memory::Max(Bytes(24 << 20)), Some(Bytes(20 << 20))));
    assert_eq!((limits.swap, limits.pids, limits.cpu, limits.cpu_weight), (Bytes(1 << 20), 16, Some(150), Some(50)));
    assert_eq!((limits.cpus.as_deref(), limits.io[0].write_iops), (Some("0-1,3"), Some(100)));
    assert_eq!(limits.io[0].read_bps, Some(8 << 20));
    assert_eq!((broker.rlimits[0].kind, broker.rlimits[0].hard), (RlimitKind::Nofile, 4096));
    assert_eq!((broker.rlimits[1].soft, broker.rlimits[1].hard), (u64::MAX, u64::MAX));
    assert_eq!((broker.oom_score_adj, broker.root_fs), (-500, RootFs::Scratch));
    assert!(matches!(&broker.mounts[0].kind, MountKind::Volume(name) if name.as_str() == "broker-7"));
    assert!(matches!(&broker.mounts[1].kind, MountKind::Bind(path) if &**path == "/etc/ssl"));
    assert!(broker.mounts[1].read_only && broker.mounts[2].kind == MountKind::Tmpfs(Bytes(4 << 20)));
    assert_eq!(broker.needs, [Need::Ready(2), Need::Started(1), Need::Done(3), Need::Done(4), Need::Soft(5)]);
    let awaits: Vec<String> = broker.awaits.iter().map(ToString::to_string).collect();
    assert_eq!(awaits, ["mount:/data", "path:/run/x y", "link:eth0.100", "clock"]);
    let restart = broker.restart;
    assert_eq!((restart.policy, restart.then, restart.tries), (RestartPolicy::OnFailure, Then::Stop, 10));
    assert_eq!((restart.delay, restart.max_delay, restart.within), (Millis(250), Millis(120_000), Millis(3_600_000)));
    assert_eq!((broker.stop.signal, broker.stop.timeout), (Some(2), Millis(5000)));
    assert_eq!((broker.start_timeout, broker.network), (Millis(60_000), Network::Host));
    assert_eq!((broker.ready, broker.notify), (Ready::Fd(7), Some(NotifyAccess::All)));
    assert_eq!(broker.watchdog, Some(Millis(10_000)));
    let [check] = &*broker.health else { panic!("{:?}", broker.health) };
    assert_eq!((check.probe.to_string().as_str(), check.role), ("tcp 127.0.0.1:1883", Role::Live));
    let (five, one) = (Some(Millis(5000)), Some(Millis(1000)));
    let times = Times { interval: five, timeout: one, start_period: Some(Millis(0)), retries: Some(4) };
    assert_eq!(check.times, times, "an override keeps what it does not name");
    let (keys, clock, getty) = (&plan.services[1], &plan.services[2], &plan.services[5]);
    let check = &keys.health[0];
    assert_eq!((&check.probe, check.role), (&Probe::File("/run/beat".into(), Millis(20_000)), Role::Ready));
    let checks: Vec<String> = clock.health.iter().map(|c| format!("{} {}", c.role.word(), c.probe)).collect();
    assert_eq!(checks, ["live unix /run/clock", "startup exec clock", "ready http://127.0.0.1:8080/now"]);
    assert_eq!((clock.ready, clock.ready_by(), broker.ready_by()), (Ready::Health, Some(Role::Ready), None));
    assert_eq!((getty.notify, getty.ping_period()), (Some(NotifyAccess::Main), Some(Millis(10_000))));
    assert_eq!((keys.ready, keys.notify, keys.watchdog), (Ready::Started, None, None));
    assert!(broker.capabilities.has(10) && broker.capabilities.has(13));
    assert_eq!(broker.seccomp, Seccomp::Strict);
    let place = |device: &DeviceNode| format!("{} {}", device.source, device.path);
    assert_eq!(
        broker.devices.iter().skip(1).map(place).collect::<Vec<_>>().join(", "),
        "/dev/rtc0 /dev/rtc0, 0403:6001@1-1.2:1.0 /dev/gps, /dev/ttyS2 /dev/modem"
    );
    assert!(broker.devices[1].optional && !broker.devices[1].rules.write && broker.devices[0].rules.write);
    let log = &broker.log;
    assert_eq!((log.ring, log.rate, log.file, log.keep), (Some(Bytes(64 << 10)), 100, Bytes(256 << 10), 3));
    assert_eq!(plan.start_order, [1, 2, 3, 4, 5, 0]);
    assert_eq!(&*broker.env_files[0], "/data/broker.env");
    assert_eq!(&*broker.secrets[0].target, "/run/secrets/tls.key");
}

#[test]
fn every_key_of_the_board_reaches_the_plan() {
    let boot = good(FULL).device.boot;
    assert_eq!(boot.modules.iter().map(|name| &**name).collect::<Vec<_>>(), ["overlay", "softdog"]);
    assert_eq!((&*boot.sysctls[0].name, &*boot.sysctls[1].value), ("net.ipv4.ip_forward", "10"));
    let data = &boot.mounts[0];
    assert_eq!((&*data.source, &*data.target, &*data.kind), ("PARTNAME=data", "/data", "ext4"));
    assert_eq!((&*data.options, data.wait, data.fallback), ("noatime,nodev", Millis(10_000), Some(Bytes(8 << 20))));
    assert_eq!((&*boot.mounts[1].options, boot.mounts[1].wait), ("", Millis(5000)));
    let watchdog = boot.watchdog.unwrap();
    assert_eq!((watchdog.device.as_deref(), watchdog.timeout), (Some("/dev/watchdog1"), Millis(20_000)));
    assert_eq!((boot.rescue.shell, boot.rescue.reboot_after), (true, Millis(0)));
    let watchdog = good(r#"{"version":1,"device":{"watchdog":{}},"services":[]}"#).device.boot.watchdog.unwrap();
    assert_eq!((watchdog.device, watchdog.timeout), (None, Millis(30_000)));
}

#[test]
fn a_program_of_the_board_is_restricted_only_where_it_is_written() {
    let plan = good(FULL);
    let [.., keygen, ids, getty] = plan.services.as_slice() else { panic!() };
    assert_eq!(
        (&keygen.root, keygen.kind, keygen.restart.policy),
        (&Root::Host, Kind::Oneshot, RestartPolicy::OnFailure)
    );
    let timer = |schedule, jitter| Some(Timer { schedule, jitter: Millis(jitter) });
    assert_eq!(keygen.timer, timer(Schedule::Every(Millis(21_600_000)), 0));
    assert_eq!(ids.timer, timer(Schedule::At(Millis(12_605_000)), 120_000));
    assert_eq!(keygen.when, [Condition::Exists("/data".into()), Condition::Missing("/data/keys/tls.key".into())]);
    let sandbox = |service: &Service| (service.network, service.capabilities, service.seccomp, service.devices.len());
    assert_eq!(sandbox(keygen), (Network::Host, CapSet::ALL, Seccomp::Off, 0));
    assert_eq!(sandbox(ids), (Network::None, CapSet::EMPTY, Seccomp::Default, 1));
    assert_eq!((getty.tty.as_deref(), getty.lifeline, getty.kind), (Some("/dev/ttyS0"), true, Kind::Daemon));
}

/// Every key of `object` and of what is in it; `whole` puts an object into a config.
fn visit(object: &'static Object, whole: &dyn Fn(String) -> String, check: &mut dyn FnMut(&'static Key, String)) {
    for key in object.keys {
        // The object with this key at `value` and with what it must have besides.
        let with = |value: &str| {
            let either = object.either.first().filter(|_| !object.either.contains(&key.name));
            let must = |other: &&Key| other.required && other.name != key.name || either == Some(&other.name);
            let others = object.keys.iter().filter(must);
            let others: String = others.map(|other| format!(", {:?}: {}", other.name, other.example)).collect();
            whole(format!("{{ {:?}: {value}{others} }}", key.name))
        };
        let mut values = vec![key.example.to_owned()];
        match key.kind {
            keys::Kind::Integer(min, max) => values.extend([min.to_string(), max.to_string()]),
            keys::Kind::Bool => values.extend(["true".into(), "false".into()]),
            keys::Kind::Word(words) => values.extend(words.iter().map(|word| format!("{word:?}"))),
            keys::Kind::Object(inner) => visit(inner, &|inner| with(&inner), check),
            keys::Kind::OneOrMore(inner, _) => {
                visit(inner, &|inner| with(&inner), check);
                visit(inner, &|inner| with(&format!("[{inner}]")), check);
            }
            keys::Kind::Objects(inner, _) | keys::Kind::Partial(inner, _) => {
                visit(inner, &|inner| with(&format!("[{inner}]")), check)
            }
            keys::Kind::Text(_) | keys::Kind::Texts(..) => {}
        }
        values.iter().for_each(|value| check(key, with(value)));
    }
}

#[test]
fn the_table_agrees_with_the_raw_types_and_every_example_is_taken() {
    let mut count = 0;
    visit(&FILE, &|whole| whole, &mut |key, text| {
        count += 1;
        assert!(FULL.contains(&format!("\"{}\":", key.name)), "tests/full.json lacks {}", key.name);
        if let Err(problems) = survive(text.as_bytes()) {
            let own = format!("{:?} ", key.name);
            let refused = problems.list.iter().find(|problem| problem.message.starts_with(&own));
            assert_eq!(refused, None, "{text}");
        }
    });
    assert!(count > 100, "{count}");
    assert!(SERVICE.keys.len() <= 64, "`seen` of the scanner has a bit for each key");
}

#[test]
fn every_truncation_is_refused() {
    let text = FULL.trim_end();
    for length in 0..text.len() {
        assert!(survive(&text.as_bytes()[..length]).is_err(), "{length}");
    }
}

#[test]
fn no_mutation_of_a_config_breaks_the_parser() {
    let mut random = Random::new();
    let pieces: [&[u8]; 20] = [
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"/*",
        b"*/",
        b"//",
        b"null",
        b"-1",
        b"1e9",
        b"\xff",
        b"\0",
        b"\n",
        b"\\ud800",
        b"\"x-a\":",
        b"\xef\xbb\xbf",
    ];
    for _ in 0..6_000 {
        let mut text = FULL.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(text.len());
            let end = (at + random.below(12)).min(text.len());
            let piece = pieces[random.below(pieces.len())];
            match random.below(4) {
                0 => text[at] ^= 1 << random.below(8),
                1 => drop(text.splice(at..at, piece.iter().copied())),
                2 => drop(text.splice(at..end, piece.iter().copied())),
                _ => {
                    let copy = text[at..end].to_vec();
                    let other = random.below(text.len());
                    text.splice(other..other, copy);
                }
            }
        }
        let _ = survive(&text);
    }
}

#[test]
fn no_exchange_of_tokens_breaks_the_parser() {
    let mut random = Random::new();
    let mut cursor_text = FULL.as_bytes().to_vec();
    blank::blank(&mut cursor_text, &mut Sink::new(&[Source { name: "c.json", bytes: FULL.as_bytes() }]));
    let mut cursor = crate::base::json::Cursor::new(&cursor_text, 16).unwrap();
    let mut tokens = Vec::new();
    while let Some(token) = cursor.next().unwrap() {
        tokens.push(token.start..token.end);
    }
    for _ in 0..6_000 {
        let (one, other) = (tokens[random.below(tokens.len())].clone(), tokens[random.below(tokens.len())].clone());
        let mut text = cursor_text.clone();
        text.splice(one, cursor_text[other].iter().copied());
        let _ = survive(&text);
    }
}

#[test]
fn hostile_shapes_are_refused_quickly() {
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let wide =
        |item: &str| format!("{{\"version\":1,\"services\":[{}]}}", vec![item; 200_000 / (item.len() + 1)].join(","));
    let many_keys: String = (0..20_000).map(|n| format!("\"{n:x}\":0,")).collect();
    for text in [
        nested("[", "]"),
        nested("{\"a\":", "}"),
        nested("{\"x-a\":[", "]}"),
        nested("/*", "*/"),
        "\"".repeat(200_000),
        ",".repeat(200_000),
        "\\".repeat(200_000),
        wide("{}"),
        wide("0"),
        wide("{\"name\":\"a\",\"image\":\"a\",\"limits\":{\"memory\":\"1M\"},\"needs\":[\"a\"]}"),
        format!("{{{many_keys}\"version\":1}}"),
        format!("{{{}\"version\":1}}", "\"a\":0,".repeat(30_000)),
        format!("{{{}\"version\":1}}", format!("\"{}\":0,", "servicez".repeat(7)).repeat(3_500)),
        format!("{{\"{}\":1}}", "k".repeat(200_000)),
        format!("{{\"version\":{}}}", "9".repeat(200_000)),
        format!("{{\"version\":1,\"device\":{{\"state\":\"/{}\"}},\"services\":[]}}", "s".repeat(200_000)),
        " ".repeat(crate::base::limits::CONFIG_BYTES + 1),
    ] {
        let shown = survive(text.as_bytes()).unwrap_err().to_string();
        assert!(shown.len() < 64 * 1024, "{} bytes of messages", shown.len());
    }
}

#[test]
fn random_bytes_are_refused() {
    let mut random = Random::new();
    for length in 0..2_000 {
        let text: Vec<u8> = (0..length % 64).map(|_| random.below(256) as u8).collect();
        assert!(survive(&text).is_err());
    }
}
