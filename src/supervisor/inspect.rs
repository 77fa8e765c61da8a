//! Everything known about one service or about the board, as a JSON object: the config with all defaults filled in, and
//! the state.
#![forbid(unsafe_code)]

use super::answer::{self, Why, state_word};
use super::event::Index;
use super::health::Health;
use super::run::Supervisor;
use crate::base::signal;
use crate::image::text::{quote, quote_list};
use crate::plan::{
    self, CapSet, Condition, Feature, Kind, Listen, Memory, MountKind, Network, NotifyAccess, Ready, RestartPolicy,
    RlimitKind, Root, RootFs, Schedule, Seccomp, Service as Configured, Socket, Then,
};
use crate::sandbox::cgroup::Controller;
use crate::sandbox::prepare::has_overlayfs;
use crate::sys::heap::HEAP;
use core::fmt::{Display, Write as _};
use twox_hash::XxHash64;

/// A JSON object being written, with the objects in it.
struct Object {
    text: String,
}

impl Object {
    fn new() -> Object {
        Object { text: String::from("{") }
    }

    fn key(&mut self, key: &str) -> &mut String {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        quote(&mut self.text, key);
        self.text.push(':');
        &mut self.text
    }

    fn put(&mut self, key: &str, value: &dyn Display, quoted: bool) -> &mut Object {
        match quoted {
            true => quote(self.key(key), &value.to_string()),
            // A string takes everything.
            false => drop(write!(self.key(key), "{value}")),
        }
        self
    }

    fn text(&mut self, key: &str, value: impl Display) -> &mut Object {
        self.put(key, &value, true)
    }

    fn optional(&mut self, key: &str, value: Option<impl Display>) -> &mut Object {
        match value {
            Some(value) => self.put(key, &value, true),
            None => self.put(key, &"null", false),
        }
    }

    /// A number, `true`, `false`, `null`, or JSON already written.
    fn raw(&mut self, key: &str, value: impl Display) -> &mut Object {
        self.put(key, &value, false)
    }

    /// A number, or `null`.
    fn number(&mut self, key: &str, value: Option<u64>) -> &mut Object {
        match value {
            Some(value) => self.put(key, &value, false),
            None => self.put(key, &"null", false),
        }
    }

    fn list(&mut self, key: &str, items: &[impl AsRef<str>]) -> &mut Object {
        quote_list(self.key(key), items.iter().map(AsRef::as_ref));
        self
    }

    /// Begins an object in this one, until [`Object::close`].
    fn open(&mut self, key: &str) -> &mut Object {
        self.key(key).push('{');
        self
    }

    fn close(&mut self) -> &mut Object {
        self.text.push('}');
        self
    }

    /// A list of objects, each filled in by `fill`.
    fn objects<T>(&mut self, key: &str, items: &[T], fill: impl Fn(&mut Object, &T)) -> &mut Object {
        self.key(key).push('[');
        for (index, item) in items.iter().enumerate() {
            self.text.push_str(if index == 0 { "{" } else { ",{" });
            fill(self, item);
            self.text.push('}');
        }
        self.text.push(']');
        self
    }

    fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// The object for service `index`.
pub(super) fn body(supervisor: &Supervisor, index: Index) -> String {
    let (plan, at) = (&supervisor.plan, usize::from(index));
    let mut object = Object::new();
    let (Some(service), Some(configured)) = (supervisor.state.services().get(at), plan.services.get(at)) else {
        return object.end();
    };
    let slot = supervisor.slots.get(at);
    let live = slot.and_then(|slot| slot.live.as_ref());
    object
        .text("name", &configured.name)
        .text("state", state_word(service).as_str())
        .text("reason", Why(plan, index, service))
        .raw("age_ms", supervisor.now.since(service.since).0)
        .raw("pid", live.map_or(0, |live| live.main))
        .raw("init", live.map_or(0, |live| live.init))
        .raw("instance", service.number)
        .raw("oom_kills", service.oom_kills)
        .optional("status", live.map(|live| &live.status).filter(|status| !status.is_empty()));
    // What of a notify socket was not listened to.
    match live.map(|live| &live.counts) {
        Some(counts) => object.open("notify").raw("refused", counts.refused).raw("malformed", counts.malformed).close(),
        None => object.raw("notify", "null"),
    }
    .raw("enabled", configured.enabled)
    .text("root", if configured.root == Root::Host { "host" } else { "image" })
    .text("image", configured.image().unwrap_or_default())
    .text("type", if configured.kind == Kind::Oneshot { "oneshot" } else { "daemon" })
    .raw("lifeline", configured.lifeline)
    .raw("critical", configured.critical);
    let group = slot.and_then(|slot| slot.group.as_ref()).map(|group| group.record()).unwrap_or_default();
    let folders: Vec<&str> = group.split('\t').filter_map(|dir| dir.splitn(3, ':').nth(2)).collect();
    object.list("cgroup", &folders);
    process(&mut object, configured);
    sandbox(&mut object, configured);
    object.list("needs", &answer::needs(plan, configured)).objects("when", &configured.when, |one, condition| {
        match condition {
            Condition::Exists(path) => one.text("exists", path),
            Condition::Missing(path) => one.text("missing", path),
        };
    });
    supervision(&mut object, configured, service.due.overruns);
    let fill = |one: &mut Object, check: &plan::Health| health(one, check, service.health.of(check.role));
    match &*configured.health {
        [] => {}
        [check] => {
            fill(object.open("health"), check);
            object.close();
        }
        checks => drop(object.objects("health", checks, fill)),
    }
    object.end()
}

/// The object for the board: the device's part of the config, and what this kernel can enforce.
pub(super) fn device(supervisor: &Supervisor) -> String {
    let (device, board) = (&supervisor.plan.device, &supervisor.board);
    let (allocations, workspace) = HEAP.allocations();
    let mut object = Object::new();
    object
        .raw("supervisor", std::process::id())
        .raw("allocations", allocations)
        .open("workspace")
        .raw("bytes", workspace.bytes)
        .raw("most", workspace.most)
        .raw("blocks", workspace.blocks)
        .raw("held", workspace.held)
        .close()
        .text("run_dir", supervisor.run.path().display())
        .list("images", &device.images)
        .text("state", &device.state)
        .optional("platform", board.platform.as_ref())
        .optional("memory", device.memory)
        .text("memory_reserve", device.memory_reserve)
        .optional("own_memory", super::board::memory());
    let sum = super::board::memory_sum(&supervisor.plan);
    object.open("memory_sum").text("limits", sum.limits).text("logs", sum.logs).raw("unlimited", sum.unlimited).close();
    let allowed = Feature::ALL.into_iter().filter(|feature| device.allow_missing.has(*feature));
    let allowed: Vec<&str> = allowed.map(Feature::word).collect();
    object.list("allow_missing", &allowed).objects("controllers", &Controller::ALL, |one, controller| {
        let lacks = supervisor.tree.has(*controller).err();
        one.text("name", controller.v1_name()).raw("available", lacks.is_none()).optional("reason", lacks);
    });
    let filters = board.kernel.as_ref().is_some_and(|kernel| kernel.has("seccomp.filter"));
    object.raw("overlayfs", has_overlayfs()).raw("seccomp", filters).text("log_ring", device.log_ring);
    object.raw("restarts_per_minute", device.restarts_per_minute).raw("max_resets", device.max_resets);
    object.raw("crash_records", device.crash_records);
    object.list("degraded", supervisor.keeper.degraded());
    for (key, value) in supervisor.keeper.facts() {
        object.raw(key, value);
    }
    object.end()
}

/// A health check with its times as they are, and how it stands.
fn health(object: &mut Object, check: &plan::Health, health: &Health) {
    let times = if health.due.is_some() { health.times } else { check.times.or(health.times) };
    object
        .text("probe", &check.probe)
        .text("state", health.word())
        .raw("failures", health.failures)
        .optional("last_failure", health.fault)
        .text("interval", times.interval())
        .text("timeout", times.timeout())
        .optional("start_period", times.start_period)
        .raw("retries", times.retries())
        .text("role", check.role.word());
}

fn process(object: &mut Object, service: &Configured) {
    let user = service.user.as_ref().map(|user| match &user.group {
        Some(group) => format!("{}:{group}", user.user),
        None => user.user.to_string(),
    });
    object
        .list("command", &service.command)
        .list("pre_start", &service.pre_start)
        .list("post_stop", &service.post_stop)
        .optional("user", user)
        .list("env", &service.env)
        .list("env_files", &service.env_files)
        .optional("tty", service.tty.as_deref())
        .optional("working_dir", service.working_dir.as_deref())
        .text("hostname", service.hostname.as_deref().unwrap_or(service.name.as_str()))
        .objects("sockets", &service.sockets, socket);
}

fn socket(one: &mut Object, socket: &Socket) {
    one.text("name", &socket.name);
    match &socket.listen {
        Listen::Tcp(address) => one.text("tcp", address),
        Listen::Udp(address) => one.text("udp", address),
        Listen::Unix(path, mode, owner) => {
            let owner =
                owner.as_ref().map(|user| format!("{}:{}", user.user, user.group.as_deref().unwrap_or_default()));
            one.text("unix", path).text("mode", format_args!("{mode:04o}")).optional("user", owner)
        }
    };
}

fn sandbox(object: &mut Object, service: &Configured) {
    let limits = &service.limits;
    object.open("limits");
    match limits.memory {
        Memory::Max(bytes) => object.text("memory", bytes),
        Memory::Unlimited => object.text("memory", "unlimited"),
    }
    .optional("memory_high", limits.memory_high)
    .text("swap", limits.swap)
    .raw("pids", limits.pids)
    .optional("cpu", limits.cpu.map(|percent| format!("{percent}%")))
    .number("cpu_weight", limits.cpu_weight.map(u64::from))
    .optional("cpus", limits.cpus.as_deref())
    .objects("io", &limits.io, |one, io| {
        one.text("device", &io.device)
            .number("read_bps", io.read_bps)
            .number("write_bps", io.write_bps)
            .number("read_iops", io.read_iops)
            .number("write_iops", io.write_iops);
    })
    .close();
    let root_fs = match service.root_fs {
        RootFs::ReadOnly => "read-only",
        RootFs::Scratch => "scratch",
        RootFs::Persistent => "persistent",
    };
    let seccomp = match service.seccomp {
        Seccomp::Default => "default",
        Seccomp::Strict => "strict",
        Seccomp::Log => "log",
        Seccomp::Off => "off",
    };
    let capabilities: Vec<&str> = match service.capabilities {
        CapSet::ALL => vec!["ALL"],
        kept => kept.names().collect(),
    };
    object
        .objects("rlimits", &service.rlimits, rlimit)
        .raw("oom_score_adj", service.oom_score_adj)
        .text("root_fs", root_fs)
        .objects("mounts", &service.mounts, mount)
        .objects("secrets", &service.secrets, |one, secret| {
            one.text("file", &secret.file).text("target", &secret.target);
        })
        .text("network", if service.network == Network::Host { "host" } else { "none" })
        .list("capabilities", &capabilities)
        .text("seccomp", seccomp)
        .objects("devices", &service.devices, |one, device| {
            let (read, write) = (device.rules.read, device.rules.write);
            one.text("path", &device.path).text("source", &device.source);
            one.raw("read", read).raw("write", write).raw("optional", device.optional);
        });
}

fn rlimit(one: &mut Object, limit: &crate::plan::Rlimit) {
    let name = RlimitKind::ALL.iter().find(|(kind, _)| *kind == limit.kind).map_or("?", |(_, name)| name);
    let number = |value: u64| if value == u64::MAX { "\"unlimited\"".to_owned() } else { value.to_string() };
    one.text("name", name).raw("soft", number(limit.soft)).raw("hard", number(limit.hard));
}

fn mount(one: &mut Object, mount: &crate::plan::Mount) {
    match &mount.kind {
        MountKind::Volume(name) => one.text("type", "volume").text("source", name),
        MountKind::Bind(path) => one.text("type", "bind").text("source", path),
        MountKind::Tmpfs(size) => one.text("type", "tmpfs").text("size", size),
    };
    one.text("target", &mount.target).raw("read_only", mount.read_only);
}

fn supervision(object: &mut Object, service: &Configured, overruns: u32) {
    let policy = match service.restart.policy {
        RestartPolicy::No => "no",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Always => "always",
    };
    let then = match service.restart.then {
        Then::KeepTrying => "keep-trying",
        Then::Stop => "stop",
        Then::Dependants => "dependants",
        Then::Reboot => "reboot",
    };
    let signal = service.stop.signal.map(|number| signal::name(number).map_or(number.to_string(), str::to_owned));
    object
        .open("restart")
        .text("policy", policy)
        .text("delay", service.restart.delay)
        .text("max_delay", service.restart.max_delay)
        .raw("tries", service.restart.tries)
        .text("within", service.restart.within)
        .text("then", then)
        .close()
        .open("stop")
        .optional("signal", signal)
        .text("timeout", service.stop.timeout)
        .close()
        .text("start_timeout", service.start_timeout);
    timer(object, service, overruns);
    talk(object, service);
}

fn timer(object: &mut Object, service: &Configured, overruns: u32) {
    if let Some(timer) = &service.timer {
        object.open("timer");
        match timer.schedule {
            Schedule::Every(period) => object.text("every", period),
            Schedule::At(time) => {
                let (minutes, seconds) = (time.0 / 60_000, time.0 / 1000 % 60);
                object.text("at", format_args!("{:02}:{:02}:{seconds:02}", minutes / 60, minutes % 60))
            }
        };
        object.text("jitter", timer.jitter).raw("overruns", overruns).close();
    }
}

/// What its init hears of it.
fn talk(object: &mut Object, service: &Configured) {
    let ready = match service.ready {
        Ready::Started => "started".to_owned(),
        Ready::Notify => "notify".to_owned(),
        Ready::Fd(fd) => format!("fd {fd}"),
        Ready::Health => "health".to_owned(),
    };
    let access = service.notify.map(|access| match access {
        NotifyAccess::Main => "main",
        NotifyAccess::All => "all",
    });
    object
        .text("ready", ready)
        .optional("notify_access", access)
        .optional("watchdog", service.watchdog)
        .open("log")
        .optional("ring", service.log.ring)
        .raw("rate", service.log.rate)
        .text("file", service.log.file)
        .raw("keep", service.log.keep)
        .close();
}

/// A checksum of what an instance is made of: where it differs, a running one is no longer what the config says.
pub(super) fn print(service: &Configured) -> u64 {
    let mut object = Object::new();
    object
        .raw("enabled", service.enabled)
        .text("image", service.image().unwrap_or_default())
        .raw("oneshot", service.kind == Kind::Oneshot);
    process(&mut object, service);
    sandbox(&mut object, service);
    talk(&mut object, service);
    XxHash64::oneshot(1, object.end().as_bytes())
}
