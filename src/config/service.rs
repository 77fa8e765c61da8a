//! One service: from raw to plan, with the checks that look at several of its values.

use super::health::health;
use super::mounts::mounts;
use super::raw;
use super::root::root;
use super::validate::{Context, boxed, hides, list, plain_path};
use super::values::{self, Text, board};
use crate::base::units::Millis;
use crate::plan::capability::SYS_PTRACE;
use crate::plan::{
    CapSet, Condition, DeviceNode, DeviceRules, IoLimit, Kind, Limits, Listen, LogPolicy, Memory, Mount, NotifyAccess,
    Probe, Ready, Restart, RestartPolicy, Rlimit, RlimitKind, Root, RootFs, Schedule, Secret, Service, Socket, Stop,
    Timer,
};

/// Restarts before `then` happens, where that is written, or the service is critical, without `tries`.
const TRIES: u16 = 10;

/// The service without its needs, or `None` if something mandatory is missing, which the scanner has reported.
pub fn service(context: &mut Context<'_, '_, '_>, raw: &raw::Service<'_>) -> Option<Service> {
    context.repeated(list(&raw.env), |entry| Some(entry), "the variable", |entry| values::env_key(entry).to_owned());
    context.repeated(list(&raw.env_files), |file| Some(file), "the file", plain_path);
    // Everything is read before the first `?`, so that one missing key hides no other problem.
    let name = context.read(raw.name, values::name);
    let limits = limits(context, &raw.limits);
    let rlimits = rlimits(context, list(&raw.rlimits));
    let mounts = mounts(context, list(&raw.mounts), limits.as_ref());
    let kind = raw.kind.unwrap_or(Kind::Daemon);
    let restart = restart(context, raw, kind);
    let signal = context.read(raw.stop.signal, values::stop_signal);
    let stop_timeout = context.duration(raw.stop.timeout);
    let devices = devices(context, list(&raw.devices));
    let log = log(context, &raw.log);
    let capabilities = raw.capabilities.as_deref().map(|names| capabilities(context, names));
    let user = context.read(raw.user, values::user);
    let start_timeout = context.duration(raw.start_timeout);
    let watchdog = context.duration(raw.watchdog);
    let ready = ready(context, raw, kind);
    let timer = raw.timer.as_ref().and_then(|raw| timer(context, raw, kind));
    let health = health(context, raw, (kind, ready));
    let secrets = secrets(context, list(&raw.secrets), &mounts);
    let sockets = sockets(context, raw, ready);
    let root = root(context, raw);
    let command = words(context, list(&raw.command), "command");
    let pre_start = words(context, list(&raw.pre_start), "pre_start");
    let post_stop = words(context, list(&raw.post_stop), "post_stop");
    if let (Some(first), true, Some(Root::Image(_))) =
        (list(&raw.post_stop).first(), capabilities.is_some_and(|caps| caps.has(SYS_PTRACE)), &root)
    {
        // Before it runs it has all rights, and waits beside the service.
        let span = context.span(first);
        let hint = "leave one of them out";
        context.sink.problem(span, format_args!("post_stop cannot go with the capability SYS_PTRACE"), Some(hint));
    }
    let env = list(&raw.env).iter().map(|entry| context.expanded(entry, "env", Text::Env)).collect();
    let hostname = raw.hostname.map(|name| context.expanded(name, "hostname", Text::HostName));
    let texts = |raw: &[&str]| raw.iter().map(|text| boxed(text)).collect();
    let pings = health.iter().any(|check| check.probe == Probe::Notify);
    let default = Service::new(name?, root?, limits?);
    Some(Service {
        kind,
        when: when(&raw.when),
        command,
        pre_start,
        post_stop,
        user,
        env,
        env_files: texts(list(&raw.env_files)),
        secrets,
        sockets,
        tty: raw.tty.map(boxed),
        working_dir: raw.working_dir.map(boxed),
        hostname,
        rlimits,
        // The scanner has checked its range.
        oom_score_adj: raw.oom_score_adj.map_or(default.oom_score_adj, |adj| adj.clamp(-1000, 1000) as i16),
        root_fs: match raw.root_fs {
            Some("scratch") => RootFs::Scratch,
            Some("persistent") => RootFs::Persistent,
            Some(_) | None => RootFs::ReadOnly,
        },
        mounts,
        timer,
        restart,
        stop: Stop { signal, timeout: stop_timeout.unwrap_or(default.stop.timeout) },
        start_timeout: start_timeout.unwrap_or(default.start_timeout),
        ready,
        notify: raw
            .notify_access
            .or_else(|| (ready == Ready::Notify || watchdog.is_some() || pings).then_some(NotifyAccess::Main)),
        watchdog,
        health,
        network: raw.network.unwrap_or(default.network),
        capabilities: capabilities.unwrap_or(default.capabilities),
        seccomp: raw.seccomp.unwrap_or(default.seccomp),
        devices,
        log,
        enabled: raw.enabled.unwrap_or(default.enabled),
        lifeline: raw.lifeline.unwrap_or(default.lifeline),
        critical: raw.critical.unwrap_or(default.critical),
        ..default
    })
}

/// The words of a command.
fn words(context: &mut Context<'_, '_, '_>, raw: &[&str], key: &str) -> Vec<Box<str>> {
    let words: Vec<Box<str>> = raw.iter().map(|word| context.expanded(word, key, Text::Any)).collect();
    if let (Some(first), Some("")) = (raw.first(), words.first().map(|first| &**first)) {
        context.problem(first, format_args!("the command's program is empty"), "write its name or path");
    }
    words
}

/// What makes it ready; a oneshot has nothing that could be: it is done.
fn ready(context: &mut Context<'_, '_, '_>, raw: &raw::Service<'_>, kind: Kind) -> Ready {
    let ready = match raw.ready {
        Some("notify") => Ready::Notify,
        Some("fd") => Ready::Fd(raw.ready_fd.unwrap_or(3)),
        Some("health") => Ready::Health,
        Some(_) | None => Ready::Started,
    };
    if let Some(name) = raw.name.filter(|_| raw.ready_fd.is_some() && !matches!(ready, Ready::Fd(_))) {
        let message = format_args!("\"ready_fd\" of this service has no effect");
        context.warning(name, message, "add \"ready\": \"fd\", or leave it out");
    }
    if let Some(typed) = raw.ready.filter(|_| kind == Kind::Oneshot && ready != Ready::Started) {
        let message = format_args!("a oneshot is done rather than ready, so that nothing would wait for this");
        context.problem(typed, message, "leave it out, or make the service a daemon");
    }
    ready
}

fn timer(context: &mut Context<'_, '_, '_>, raw: &raw::Timer<'_>, kind: Kind) -> Option<Timer> {
    let every = context.duration(raw.every);
    let at = context.read(raw.at, values::time_of_day);
    let jitter = context.read(raw.jitter, |text| values::duration_or_none(text, 0, u64::MAX)).unwrap_or_default();
    let typed = raw.every.or(raw.at)?;
    if kind != Kind::Oneshot {
        let message = format_args!("a daemon runs all the time, so that nothing could start it by a timer");
        context.problem(typed, message, "add \"type\": \"oneshot\", or leave the timer out");
    }
    match (every, at) {
        (Some(every), None) if jitter >= every => {
            let message = format_args!("\"jitter\" is {jitter}, not less than \"every\" with {every}");
            context.problem(typed, message, "two starts could fall on the same moment");
        }
        (Some(_), Some(_)) => {
            context.problem(typed, format_args!("a timer has \"every\" or \"at\", not both"), "make them two services");
        }
        _ => {}
    }
    let schedule = every.map(Schedule::Every).or(at.map(Schedule::At))?;
    Some(Timer { schedule, jitter })
}

fn when(raw: &raw::When<'_>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if let Some(path) = raw.exists {
        conditions.push(Condition::Exists(boxed(path)));
    }
    if let Some(path) = raw.missing {
        conditions.push(Condition::Missing(boxed(path)));
    }
    conditions
}

fn secrets(context: &mut Context<'_, '_, '_>, raw: &[raw::Secret<'_>], mounts: &[Mount]) -> Vec<Secret> {
    context.repeated(raw, |secret| secret.target, "a secret at", plain_path);
    let mut list: Vec<Secret> = Vec::with_capacity(raw.len());
    for secret in raw {
        let (Some(file), Some(target)) = (secret.file, secret.target) else { continue };
        let own = Secret { file: boxed(file), target: boxed(target) };
        let over = |target: &str| hides(target, &own.target) || plain_path(target) == plain_path(&own.target);
        if let Some(mount) = mounts.iter().find(|mount| over(&mount.target)) {
            let message = format_args!("the mount on {:?} hides this secret", mount.target);
            context.problem(target, message, "put one of them elsewhere");
        }
        let both = list.iter().find(|other| hides(&other.target, &own.target) || hides(&own.target, &other.target));
        if let Some(other) = both {
            let message = format_args!("{:?} is a secret, so that nothing can be beneath it", other.target);
            context.problem(target, message, "put one of them elsewhere");
        }
        list.push(own);
    }
    list
}

/// The longest path of a socket (unix(7)), in bytes.
const SOCKET_PATH_BYTES: usize = 107;

fn sockets(context: &mut Context<'_, '_, '_>, raw: &raw::Service<'_>, ready: Ready) -> Vec<Socket> {
    let mut found: Vec<Socket> = Vec::new();
    for socket in list(&raw.sockets) {
        let named = socket.name.or(raw.name).map(boxed).unwrap_or_default();
        let (mode, user) = (context.read(socket.mode, board::mode), context.read(socket.user, values::user));
        let owned = socket.mode.or(socket.user);
        let (typed, listen) = match (socket.tcp, socket.udp, socket.unix) {
            (Some(typed), None, None) => (typed, Listen::Tcp(boxed(typed))),
            (None, Some(typed), None) => (typed, Listen::Udp(boxed(typed))),
            (None, None, Some(typed)) => (typed, Listen::Unix(boxed(typed), mode.unwrap_or(0o600), user)),
            // None at all has been reported.
            (tcp, udp, unix) => {
                if let Some(typed) = tcp.or(udp).or(unix) {
                    let hint = "keep one of tcp, udp and unix, and write another socket for the other";
                    context.problem(typed, format_args!("this socket listens in two places"), hint);
                }
                continue;
            }
        };
        if socket.unix.is_some() && values::decoded(typed).len() > SOCKET_PATH_BYTES {
            let message = format_args!("the path has more than the {SOCKET_PATH_BYTES} bytes of a socket's");
            context.problem(typed, message, "choose a shorter one");
        }
        if let (None, Some(owned)) = (socket.unix, owned) {
            let message = format_args!("only a unix socket has an owner and a mode");
            context.problem(owned, message, "leave it out");
        }
        if found.iter().any(|other| other.listen == listen) {
            context.problem(typed, format_args!("this service has this socket twice"), "leave one out");
        }
        found.push(Socket { name: named, listen });
    }
    if let (Ready::Fd(fd), Some(name)) = (ready, raw.name)
        && usize::from(fd) < 3 + found.len()
    {
        let message =
            format_args!("\"ready_fd\" of this service is {fd}, which is the descriptor of one of its sockets");
        context.problem(name, message, &format!("write \"ready_fd\": {} or more", 3 + found.len()));
    }
    found
}

fn limits(context: &mut Context<'_, '_, '_>, raw: &raw::Limits<'_>) -> Option<Limits> {
    let memory = context.read(raw.memory, |text| values::memory(text, 0, u64::MAX));
    let memory_high = context.size(raw.memory_high);
    match (memory, raw.memory, memory_high, raw.memory_high) {
        (Some(Memory::Unlimited), Some(typed), ..) => {
            let hint = "a leak in it takes the whole board down; give it a number";
            context.warning(typed, format_args!("the memory of this service has no limit"), hint);
        }
        (Some(Memory::Max(max)), _, Some(high), Some(typed)) if high >= max => {
            let message = format_args!("\"memory_high\" is {high}, not less than the limit of {max}");
            context.problem(typed, message, "it has an effect only below \"memory\"");
        }
        _ => {}
    }
    let raw_io = list(&raw.io);
    context.repeated(raw_io, |io| io.device, "an io limit for", plain_path);
    let mut io = Vec::with_capacity(raw_io.len());
    for limit in raw_io {
        let Some(device) = limit.device else { continue };
        let read_bps = context.size(limit.read_bps).map(|bytes| bytes.0);
        let write_bps = context.size(limit.write_bps).map(|bytes| bytes.0);
        let (read_iops, write_iops) = (limit.read_iops, limit.write_iops);
        if [read_bps, write_bps, read_iops, write_iops] == [None; 4] {
            let hint = "add read_bps, write_bps, read_iops or write_iops";
            context.problem(device, format_args!("this io limit limits nothing"), hint);
        }
        io.push(IoLimit { device: boxed(device), read_bps, write_bps, read_iops, write_iops });
    }
    let swap = context.size(raw.swap);
    let cpu = context.read(raw.cpu, |text| values::percent(text, 0, u32::MAX));
    let default = Limits::with_memory(memory?);
    Some(Limits {
        memory_high,
        swap: swap.unwrap_or(default.swap),
        pids: raw.pids.unwrap_or(default.pids),
        cpu,
        cpu_weight: raw.cpu_weight,
        cpus: raw.cpus.map(boxed),
        io,
        ..default
    })
}

fn rlimits(context: &mut Context<'_, '_, '_>, raw: &[raw::Rlimit<'_>]) -> Vec<Rlimit> {
    context.repeated(raw, |limit| limit.name, "the resource limit", str::to_owned);
    let mut list = Vec::with_capacity(raw.len());
    for limit in raw {
        let soft = context.read(limit.soft, values::amount);
        let hard = context.read(limit.hard, values::amount);
        let name = limit.name.map(values::decoded);
        let kind = RlimitKind::ALL.iter().find(|(_, known)| name.as_deref() == Some(known));
        let (Some((kind, _)), Some(soft)) = (kind, soft) else { continue };
        let hard = hard.unwrap_or(soft);
        if let Some(typed) = limit.soft.filter(|_| soft > hard) {
            let shown = values::decoded(limit.hard.unwrap_or(typed)).into_owned();
            let message = format_args!("\"soft\" is {:?}, more than \"hard\" with {shown:?}", values::decoded(typed));
            context.problem(typed, message, "the soft limit can at most be the hard one");
        }
        list.push(Rlimit { kind: *kind, soft, hard });
    }
    list
}

fn restart(context: &mut Context<'_, '_, '_>, service: &raw::Service<'_>, kind: Kind) -> Restart {
    let raw = &service.restart;
    let critical = service.critical == Some(true);
    let default = Restart::default();
    let delay = context.read(raw.delay, |text| values::duration_or_none(text, 0, u64::MAX)).unwrap_or(default.delay);
    let typed_max = context.duration(raw.max_delay);
    // A long first wait alone means that all are as long.
    let max_delay = typed_max.unwrap_or(default.max_delay.max(delay));
    if let Some(typed) = raw.max_delay.filter(|_| max_delay < delay) {
        let message = format_args!("\"max_delay\" is {max_delay}, shorter than \"delay\" with {delay}");
        context.problem(typed, message, "waits begin at \"delay\" and double up to \"max_delay\"");
    }
    let within = context.duration(raw.within).unwrap_or(default.within);
    let tries = raw.tries.unwrap_or(if critical || raw.then.is_some() { TRIES } else { default.tries });
    if let Some(typed) = raw.within.filter(|_| tries == 0) {
        let hint = "add \"tries\", the number of restarts that are too many";
        context.warning(typed, format_args!("\"within\" has no effect without \"tries\""), hint);
    }
    let longest = waits(delay, max_delay, tries);
    if let Some(typed) = raw.within.or(raw.max_delay).or(raw.delay).or(service.name).filter(|_| longest > within) {
        let message = format_args!(
            "{tries} restarts (\"tries\") never come within {within}: the waits between them are {longest} or more"
        );
        context.warning(typed, message, "raise \"within\", or lower \"tries\" or \"max_delay\"");
    }
    if let Some(typed) = raw.policy.filter(|policy| *policy == "always" && kind == Kind::Oneshot) {
        let message =
            format_args!("a oneshot that is done is not started again, so that \"policy\" cannot be \"always\"");
        context.problem(typed, message, "write \"on-failure\", or leave it out");
    }
    Restart {
        policy: match raw.policy {
            Some("no") => RestartPolicy::No,
            Some("on-failure") => RestartPolicy::OnFailure,
            None if kind == Kind::Oneshot => RestartPolicy::OnFailure,
            Some(_) | None => RestartPolicy::Always,
        },
        delay,
        max_delay,
        tries,
        within,
        then: raw.then.unwrap_or(default.then),
    }
}

/// The time that so many restarts take at least, to the second: jitter takes off a tenth of each wait but the first.
fn waits(delay: Millis, max_delay: Millis, tries: u16) -> Millis {
    let (mut wait, mut sum) = (delay.0, 0u64);
    for _ in 0..tries {
        sum = sum.saturating_add(wait);
        wait = wait.saturating_mul(2).min(max_delay.0);
    }
    Millis::from_secs(sum / 1000 * 9 / 10)
}

fn devices(context: &mut Context<'_, '_, '_>, raw: &[raw::DeviceNode<'_>]) -> Vec<DeviceNode> {
    context.repeated(raw, |device| device.inside.or(device.path), "the device", plain_path);
    let node = |device: &raw::DeviceNode<'_>| {
        let rules = match device.access {
            Some(raw::Access::R) => DeviceRules { read: true, write: false },
            Some(raw::Access::W) => DeviceRules { read: false, write: true },
            Some(raw::Access::Rw) | None => DeviceRules { read: true, write: true },
        };
        let source = device.usb.or(device.path)?;
        let path = device.inside.or(device.path).unwrap_or(source);
        Some(DeviceNode { path: boxed(path), source: boxed(source), rules, optional: device.optional.unwrap_or(false) })
    };
    for device in raw {
        let Some(usb) = device.usb else { continue };
        let (message, hint) = match (device.path, device.inside) {
            (Some(_), _) => ("this device has both a path and a usb device", "keep one of them"),
            (None, None) => ("a usb device needs its path inside", "add \"as\": \"/dev/gps\""),
            (None, Some(_)) => continue,
        };
        let span = context.span(usb);
        context.sink.problem(span, format_args!("{message}"), Some(hint));
    }
    raw.iter().filter_map(node).collect()
}

fn capabilities(context: &mut Context<'_, '_, '_>, raw: &[&str]) -> CapSet {
    let number = |name: &str| CapSet::number(name).map_or(String::new(), |number| number.to_string());
    context.repeated(raw, |name| Some(name), "the capability", number);
    let mut set = CapSet::EMPTY;
    for name in raw {
        if let Some(number) = context.read(Some(name), values::cap) {
            set = set.with(number);
        }
    }
    set
}

fn log(context: &mut Context<'_, '_, '_>, raw: &raw::Log<'_>) -> LogPolicy {
    let default = LogPolicy::default();
    LogPolicy {
        ring: context.size(raw.ring),
        rate: raw.rate.unwrap_or(default.rate),
        file: context.size(raw.file).unwrap_or(default.file),
        keep: raw.keep.unwrap_or(default.keep),
    }
}
