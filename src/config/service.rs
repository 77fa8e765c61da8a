//! One service: from raw to plan, with the checks that look at several of its values.

use super::raw;
use super::validate::{Context, boxed};
use super::values;
use crate::base::units::{Bytes, Millis};
use crate::plan::{
    CapSet, DeviceNode, DeviceRules, IoLimit, Limits, LogPolicy, Memory, Mount, MountKind, Restart, Rlimit, RlimitKind,
    Root, Service, Stop,
};

/// The service without its needs, or `None` if something mandatory is missing, which the scanner has reported.
pub fn service(context: &mut Context<'_, '_, '_>, raw: &raw::Service<'_>) -> Option<Service> {
    context.repeated(&raw.env, "the variable", |entry| values::env_key(entry).to_owned());
    // Everything is read before the first `?`, so that one missing key hides no other problem.
    let name = context.read(raw.name, values::name);
    let limits = limits(context, &raw.limits);
    let rlimits = rlimits(context, &raw.rlimits);
    let mounts = mounts(context, &raw.mounts, limits.as_ref());
    let restart = restart(context, &raw.restart);
    let signal = context.read(raw.stop.signal, values::stop_signal);
    let stop_timeout = duration(context, raw.stop.timeout);
    let devices = devices(context, &raw.devices);
    let log = log(context, &raw.log);
    let capabilities = capabilities(context, &raw.capabilities);
    let user = context.read(raw.user, values::user);
    let start_timeout = duration(context, raw.start_timeout);
    if let Some(first) = raw.command.first().filter(|first| first.is_empty()) {
        let span = context.span(first);
        context.sink.problem(span, "the command's program is empty", Some("write its name or path".into()));
    }
    let default = Service::new(name?, Root::Image(boxed(raw.image?)), limits?);
    Some(Service {
        command: raw.command.iter().map(|word| boxed(word)).collect(),
        user,
        env: raw.env.iter().map(|entry| boxed(entry)).collect(),
        working_dir: raw.working_dir.map(boxed),
        hostname: raw.hostname.map(boxed),
        rlimits,
        oom_score_adj: raw.oom_score_adj.unwrap_or(default.oom_score_adj),
        root_fs: raw.root_fs.unwrap_or(default.root_fs),
        mounts,
        restart,
        stop: Stop { signal, timeout: stop_timeout.unwrap_or(default.stop.timeout) },
        start_timeout: start_timeout.unwrap_or(default.start_timeout),
        network: raw.network.unwrap_or(default.network),
        capabilities,
        seccomp: raw.seccomp.unwrap_or(default.seccomp),
        devices,
        log,
        enabled: raw.enabled.unwrap_or(default.enabled),
        ..default
    })
}

fn duration(context: &mut Context<'_, '_, '_>, raw: Option<&str>) -> Option<Millis> {
    context.read(raw, |text| values::duration(text, 0, u64::MAX))
}

fn limits(context: &mut Context<'_, '_, '_>, raw: &raw::Limits<'_>) -> Option<Limits> {
    let memory = context.read(raw.memory, |text| values::memory(text, 0, u64::MAX));
    let memory_high = context.size(raw.memory_high);
    match (memory, raw.memory, memory_high, raw.memory_high) {
        (Some(Memory::Unlimited), Some(typed), ..) => {
            let span = context.span(typed);
            let hint = "a leak in it takes the whole board down; give it a number";
            context.sink.warning(span, "the memory of this service has no limit", hint);
        }
        (Some(Memory::Max(max)), _, Some(high), Some(typed)) if high >= max => {
            let span = context.span(typed);
            let message = format!("\"memory_high\" is {high}, not less than the limit of {max}");
            context.sink.problem(span, message, Some("it has an effect only below \"memory\"".into()));
        }
        _ => {}
    }
    let names: Vec<&str> = raw.io.iter().filter_map(|io| io.device).collect();
    context.repeated(&names, "an io limit for", |path| values::parts(path).collect::<Vec<_>>().join("/"));
    let mut io = Vec::with_capacity(raw.io.len());
    for limit in &raw.io {
        let Some(device) = limit.device else { continue };
        let read_bps = context.size(limit.read_bps).map(|bytes| bytes.0);
        let write_bps = context.size(limit.write_bps).map(|bytes| bytes.0);
        let (read_iops, write_iops) = (limit.read_iops, limit.write_iops);
        if [read_bps, write_bps, read_iops, write_iops] == [None; 4] {
            let span = context.span(device);
            let hint = Some("add read_bps, write_bps, read_iops or write_iops".into());
            context.sink.problem(span, "this io limit limits nothing", hint);
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
    let names: Vec<&str> = raw.iter().filter_map(|limit| limit.name).collect();
    context.repeated(&names, "the resource limit", str::to_owned);
    let mut list = Vec::with_capacity(raw.len());
    for limit in raw {
        let soft = context.read(limit.soft, values::amount);
        let hard = context.read(limit.hard, values::amount);
        let name = limit.name.map(values::decoded);
        let kind = RlimitKind::ALL.iter().find(|(_, known)| name.as_deref() == Some(known));
        let (Some((kind, _)), Some(soft)) = (kind, soft) else { continue };
        let hard = hard.unwrap_or(soft);
        if let Some(typed) = limit.soft.filter(|_| soft > hard) {
            let span = context.span(typed);
            let shown = values::decoded(limit.hard.unwrap_or(typed)).into_owned();
            let message = format!("\"soft\" is {:?}, more than \"hard\" with {shown:?}", values::decoded(typed));
            context.sink.problem(span, message, Some("the soft limit can at most be the hard one".into()));
        }
        list.push(Rlimit { kind: *kind, soft, hard });
    }
    list
}

fn mounts(context: &mut Context<'_, '_, '_>, raw: &[raw::Mount<'_>], limits: Option<&Limits>) -> Vec<Mount> {
    let targets: Vec<&str> = raw.iter().filter_map(|mount| mount.target).collect();
    context.repeated(&targets, "a mount on", |path| values::parts(path).collect::<Vec<_>>().join("/"));
    let mut list: Vec<Mount> = Vec::with_capacity(raw.len());
    for mount in raw {
        let (Some(kind), Some(target)) = (mount.kind, mount.target) else { continue };
        let kind = mount_kind(context, kind, mount, target, limits);
        let own = values::decoded(target).into_owned();
        let hides = |earlier: &Mount| {
            let (mut inner, mut outer) = (values::parts(&earlier.target), values::parts(&own));
            loop {
                match (outer.next(), inner.next()) {
                    (None, Some(_)) => return true,
                    (Some(a), Some(b)) if a == b => {}
                    _ => return false,
                }
            }
        };
        if let Some(hidden) = list.iter().find(|earlier| hides(earlier)) {
            let span = context.span(target);
            let message = format!("this mount hides the earlier one on {:?}", hidden.target);
            context.sink.problem(span, message, Some("list the outer mount first".into()));
        }
        if let Some(kind) = kind {
            list.push(Mount { kind, target: boxed(target), read_only: mount.read_only });
        }
    }
    list
}

fn mount_kind(
    context: &mut Context<'_, '_, '_>,
    kind: raw::MountType,
    mount: &raw::Mount<'_>,
    target: &str,
    limits: Option<&Limits>,
) -> Option<MountKind> {
    let absolute = mount.source.map(|source| values::decoded(source).starts_with('/'));
    let span = context.span(mount.source.unwrap_or(target));
    let mut problem = |message: &str, hint: &str| {
        context.sink.problem(span, message, Some(hint.into()));
        None
    };
    if kind != raw::MountType::Tmpfs
        && let Some(size) = mount.size
    {
        let span = context.span(size);
        context.sink.problem(span, "only a tmpfs has a size", Some("leave \"size\" out".into()));
        return None;
    }
    match (kind, mount.source, absolute) {
        (raw::MountType::Volume, None, _) => problem("a volume needs its name", "add \"source\": \"data\""),
        (raw::MountType::Volume, Some(_), Some(true)) => {
            problem("a volume has a name, not a path", "use \"type\": \"bind\" for a path of the board")
        }
        (raw::MountType::Volume, source, _) => context.read(source, values::name).map(MountKind::Volume),
        (raw::MountType::Bind, None, _) => problem("a bind mount needs its source", "add \"source\": \"/etc/ssl\""),
        (raw::MountType::Bind, Some(_), Some(false)) => {
            problem("a bind mount's source is an absolute path", "use \"type\": \"volume\" for a volume's name")
        }
        (raw::MountType::Bind, source, _) => source.map(boxed).map(MountKind::Bind),
        (raw::MountType::Tmpfs, Some(_), _) => problem("a tmpfs has no source", "leave \"source\" out"),
        (raw::MountType::Tmpfs, None, _) => match mount.size {
            None => problem("a tmpfs needs its size", "add \"size\": \"4M\""),
            Some(typed) => {
                let size = context.size(Some(typed))?;
                tmpfs_fits(context, typed, size, limits);
                Some(MountKind::Tmpfs(size))
            }
        },
    }
}

fn tmpfs_fits(context: &mut Context<'_, '_, '_>, typed: &str, size: Bytes, limits: Option<&Limits>) {
    if let Some(Limits { memory: Memory::Max(max), .. }) = limits
        && size >= *max
    {
        let span = context.span(typed);
        let message = format!("this tmpfs of {size} can never be full within the memory limit of {max}");
        context.sink.warning(span, message, "what is written to it counts as the service's memory");
    }
}

fn restart(context: &mut Context<'_, '_, '_>, raw: &raw::Restart<'_>) -> Restart {
    let default = Restart::default();
    let delay = duration(context, raw.delay).unwrap_or(default.delay);
    let typed_max = duration(context, raw.max_delay);
    // A long first wait alone means that all are as long.
    let max_delay = typed_max.unwrap_or(default.max_delay.max(delay));
    if let Some(typed) = raw.max_delay.filter(|_| max_delay < delay) {
        let span = context.span(typed);
        let message = format!("\"max_delay\" is {max_delay}, shorter than \"delay\" with {delay}");
        context.sink.problem(span, message, Some("waits begin at \"delay\" and double up to \"max_delay\"".into()));
    }
    let within = duration(context, raw.within).unwrap_or(default.within);
    let tries = raw.tries.unwrap_or(default.tries);
    if let Some(typed) = raw.within.filter(|_| tries == 0) {
        let span = context.span(typed);
        let hint = "add \"tries\", the number of restarts that are too many";
        context.sink.warning(span, "\"within\" has no effect without \"tries\"", hint);
    }
    Restart {
        policy: raw.policy.unwrap_or(default.policy),
        delay,
        max_delay,
        tries,
        within,
        then: raw.then.unwrap_or(default.then),
    }
}

fn devices(context: &mut Context<'_, '_, '_>, raw: &[raw::DeviceNode<'_>]) -> Vec<DeviceNode> {
    let paths: Vec<&str> = raw.iter().filter_map(|device| device.path).collect();
    context.repeated(&paths, "the device", |path| values::parts(path).collect::<Vec<_>>().join("/"));
    let node = |device: &raw::DeviceNode<'_>| {
        let rules = match device.access {
            Some(raw::Access::R) => DeviceRules { read: true, write: false },
            Some(raw::Access::W) => DeviceRules { read: false, write: true },
            Some(raw::Access::Rw) | None => DeviceRules { read: true, write: true },
        };
        Some(DeviceNode { path: boxed(device.path?), rules, optional: device.optional })
    };
    raw.iter().filter_map(node).collect()
}

fn capabilities(context: &mut Context<'_, '_, '_>, raw: &[&str]) -> CapSet {
    context.repeated(raw, "the capability", CapSet::number);
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
