//! Everything known about one service or about the board, as a JSON object: the config with all defaults filled in, and
//! the state.
#![forbid(unsafe_code)]

use super::answer::{self, Why, state_word};
use super::event::Index;
use super::health::Health;
use super::notify::Counts;
use super::run::Supervisor;
use crate::base::signal;
use crate::image::text::{quote, quote_list};
use crate::plan::{
    self, CapSet, Condition, Feature, Kind, Listen, Memory, MountKind, Network, NotifyAccess, Ready, RestartPolicy,
    RlimitKind, Role, Root, RootFs, Schedule, Seccomp, Service as Configured, Socket, Then,
};
use crate::sandbox::cgroup::Controller;
use crate::sandbox::prepare::has_overlayfs;
use core::fmt::Display;
use twox_hash::XxHash64;

/// A JSON object being written.
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

    fn text(&mut self, key: &str, value: impl Display) -> &mut Object {
        let value = value.to_string();
        quote(self.key(key), &value);
        self
    }

    fn optional(&mut self, key: &str, value: Option<impl Display>) -> &mut Object {
        match value {
            Some(value) => self.text(key, value),
            None => self.raw(key, "null"),
        }
    }

    /// A number, `true`, `false`, `null`, or JSON already written.
    fn raw(&mut self, key: &str, value: impl Display) -> &mut Object {
        let value = value.to_string();
        self.key(key).push_str(&value);
        self
    }

    fn list<'a>(&mut self, key: &str, items: impl IntoIterator<Item = &'a str>) -> &mut Object {
        quote_list(self.key(key), items);
        self
    }

    fn objects(&mut self, key: &str, items: impl IntoIterator<Item = String>) -> &mut Object {
        let items: Vec<String> = items.into_iter().collect();
        self.raw(key, format_args!("[{}]", items.join(",")))
    }

    fn end(&mut self) -> String {
        self.text.push('}');
        core::mem::take(&mut self.text)
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
        .optional("status", live.map(|live| &live.status).filter(|status| !status.is_empty()))
        .raw("notify", live.map_or("null".to_owned(), |live| notify(&live.counts)))
        .raw("enabled", configured.enabled)
        .text("root", if configured.root == Root::Host { "host" } else { "image" })
        .text("image", configured.image().unwrap_or_default())
        .text("type", if configured.kind == Kind::Oneshot { "oneshot" } else { "daemon" })
        .raw("lifeline", configured.lifeline)
        .raw("critical", configured.critical);
    let group = slot.and_then(|slot| slot.group.as_ref()).map(|group| group.record()).unwrap_or_default();
    let folders = group.split('\t').filter_map(|dir| dir.splitn(3, ':').nth(2));
    object.list("cgroup", folders);
    process(&mut object, configured);
    sandbox(&mut object, configured);
    let needs = answer::needs(plan, configured);
    object.list("needs", needs.iter().map(String::as_str));
    object.objects(
        "when",
        configured.when.iter().map(|condition| {
            let mut one = Object::new();
            match condition {
                Condition::Exists(path) => one.text("exists", path),
                Condition::Missing(path) => one.text("missing", path),
            };
            one.end()
        }),
    );
    supervision(&mut object, configured, service.due.overruns);
    if let Some(check) = &configured.health {
        object.raw("health", health(check, &service.health));
    }
    object.end()
}

/// The object for the board: the device's part of the config, and what this kernel can enforce.
pub(super) fn device(supervisor: &Supervisor) -> String {
    let (device, board) = (&supervisor.plan.device, &supervisor.board);
    let mut object = Object::new();
    object
        .raw("supervisor", std::process::id())
        .text("run_dir", supervisor.run.path().display())
        .list("images", device.images.iter().map(|folder| &**folder))
        .text("state", &device.state)
        .optional("platform", board.platform.as_ref())
        .optional("memory", device.memory)
        .text("memory_reserve", device.memory_reserve)
        .optional("own_memory", super::board::memory());
    let sum = super::board::memory_sum(&supervisor.plan);
    let mut sums = Object::new();
    sums.text("limits", sum.limits).text("logs", sum.logs).raw("unlimited", sum.unlimited);
    let allowed = Feature::ALL.into_iter().filter(|feature| device.allow_missing.has(*feature));
    object.raw("memory_sum", sums.end()).list("allow_missing", allowed.map(Feature::word));
    object.objects(
        "controllers",
        Controller::ALL.into_iter().map(|controller| {
            let mut one = Object::new();
            let lacks = supervisor.tree.has(controller).err();
            one.text("name", controller.v1_name()).raw("available", lacks.is_none()).optional("reason", lacks);
            one.end()
        }),
    );
    let filters = board.kernel.as_ref().is_some_and(|kernel| kernel.has("seccomp.filter"));
    object.raw("overlayfs", has_overlayfs()).raw("seccomp", filters).text("log_ring", device.log_ring);
    object.raw("restarts_per_minute", device.restarts_per_minute).raw("max_resets", device.max_resets);
    object.raw("crash_records", device.crash_records);
    object.list("degraded", supervisor.keeper.degraded().iter().map(String::as_str));
    for (key, value) in supervisor.keeper.facts() {
        object.raw(key, value);
    }
    object.end()
}

/// What of a notify socket was not listened to.
fn notify(counts: &Counts) -> String {
    let mut one = Object::new();
    one.raw("refused", counts.refused).raw("malformed", counts.malformed).end()
}

/// The health check with its times as they are, and how it stands.
fn health(check: &plan::Health, health: &Health) -> String {
    let times = if health.due.is_some() { health.times } else { check.times.or(health.times) };
    let role = match check.role {
        Role::Live => "live",
        Role::Ready => "ready",
    };
    let mut one = Object::new();
    one.text("probe", &check.probe)
        .text("state", health.word())
        .raw("failures", health.failures)
        .optional("last_failure", health.fault)
        .text("interval", times.interval())
        .text("timeout", times.timeout())
        .optional("start_period", times.start_period)
        .raw("retries", times.retries())
        .text("role", role)
        .end()
}

fn process(object: &mut Object, service: &Configured) {
    let user = service.user.as_ref().map(|user| match &user.group {
        Some(group) => format!("{}:{group}", user.user),
        None => user.user.to_string(),
    });
    object
        .list("command", service.command.iter().map(|word| &**word))
        .list("pre_start", service.pre_start.iter().map(|word| &**word))
        .optional("user", user)
        .list("env", service.env.iter().map(|entry| &**entry))
        .list("env_files", service.env_files.iter().map(|file| &**file))
        .optional("tty", service.tty.as_deref())
        .optional("working_dir", service.working_dir.as_deref())
        .text("hostname", service.hostname.as_deref().unwrap_or(service.name.as_str()))
        .objects("sockets", service.sockets.iter().map(socket));
}

fn socket(socket: &Socket) -> String {
    let mut one = Object::new();
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
    one.end()
}

fn sandbox(object: &mut Object, service: &Configured) {
    let limits = &service.limits;
    let mut inner = Object::new();
    match limits.memory {
        Memory::Max(bytes) => inner.text("memory", bytes),
        Memory::Unlimited => inner.text("memory", "unlimited"),
    };
    inner
        .optional("memory_high", limits.memory_high)
        .text("swap", limits.swap)
        .raw("pids", limits.pids)
        .optional("cpu", limits.cpu.map(|percent| format!("{percent}%")))
        .raw("cpu_weight", limits.cpu_weight.map_or("null".to_owned(), |weight| weight.to_string()))
        .optional("cpus", limits.cpus.as_deref());
    inner.objects(
        "io",
        limits.io.iter().map(|io| {
            let mut one = Object::new();
            one.text("device", &io.device);
            let rates = [
                ("read_bps", io.read_bps),
                ("write_bps", io.write_bps),
                ("read_iops", io.read_iops),
                ("write_iops", io.write_iops),
            ];
            for (key, rate) in rates {
                one.raw(key, rate.map_or("null".to_owned(), |rate| rate.to_string()));
            }
            one.end()
        }),
    );
    let limits = inner.end();
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
        .raw("limits", limits)
        .objects("rlimits", service.rlimits.iter().map(rlimit))
        .raw("oom_score_adj", service.oom_score_adj)
        .text("root_fs", root_fs)
        .objects("mounts", service.mounts.iter().map(mount))
        .objects(
            "secrets",
            service.secrets.iter().map(|secret| {
                let mut one = Object::new();
                one.text("file", &secret.file).text("target", &secret.target).end()
            }),
        )
        .text("network", if service.network == Network::Host { "host" } else { "none" })
        .list("capabilities", capabilities)
        .text("seccomp", seccomp)
        .objects(
            "devices",
            service.devices.iter().map(|device| {
                let mut one = Object::new();
                let (read, write) = (device.rules.read, device.rules.write);
                one.text("path", &device.path).raw("read", read).raw("write", write).raw("optional", device.optional);
                one.end()
            }),
        );
}

fn rlimit(limit: &crate::plan::Rlimit) -> String {
    let name = RlimitKind::ALL.iter().find(|(kind, _)| *kind == limit.kind).map_or("?", |(_, name)| name);
    let number = |value: u64| if value == u64::MAX { "\"unlimited\"".to_owned() } else { value.to_string() };
    let mut one = Object::new();
    one.text("name", name).raw("soft", number(limit.soft)).raw("hard", number(limit.hard));
    one.end()
}

fn mount(mount: &crate::plan::Mount) -> String {
    let mut one = Object::new();
    match &mount.kind {
        MountKind::Volume(name) => one.text("type", "volume").text("source", name),
        MountKind::Bind(path) => one.text("type", "bind").text("source", path),
        MountKind::Tmpfs(size) => one.text("type", "tmpfs").text("size", size),
    };
    one.text("target", &mount.target).raw("read_only", mount.read_only);
    one.end()
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
    let mut restart = Object::new();
    restart
        .text("policy", policy)
        .text("delay", service.restart.delay)
        .text("max_delay", service.restart.max_delay)
        .raw("tries", service.restart.tries)
        .text("within", service.restart.within)
        .text("then", then);
    let mut stop = Object::new();
    let signal = service.stop.signal.map(|number| signal::name(number).map_or(number.to_string(), str::to_owned));
    stop.optional("signal", signal).text("timeout", service.stop.timeout);
    object.raw("restart", restart.end()).raw("stop", stop.end()).text("start_timeout", service.start_timeout);
    timer(object, service, overruns);
    talk(object, service);
}

fn timer(object: &mut Object, service: &Configured, overruns: u32) {
    if let Some(timer) = &service.timer {
        let mut one = Object::new();
        match timer.schedule {
            Schedule::Every(period) => one.text("every", period),
            Schedule::At(time) => {
                let (minutes, seconds) = (time.0 / 60_000, time.0 / 1000 % 60);
                one.text("at", format_args!("{:02}:{:02}:{seconds:02}", minutes / 60, minutes % 60))
            }
        };
        let timer = one.text("jitter", timer.jitter).raw("overruns", overruns).end();
        object.raw("timer", timer);
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
    let mut log = Object::new();
    log.optional("ring", service.log.ring)
        .raw("rate", service.log.rate)
        .text("file", service.log.file)
        .raw("keep", service.log.keep);
    object
        .text("ready", ready)
        .optional("notify_access", access)
        .optional("watchdog", service.watchdog)
        .raw("log", log.end());
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
