//! One service of a plan.

use super::{CapSet, Health, Limits, Probe, Rlimit, Role};
use crate::base::name::Name;
use crate::base::units::{Bytes, Millis};

/// A service: what to run, in what sandbox, inside which limits, and what to do when it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// What its root file system is made of.
    pub root: Root,
    /// Whether it runs until it is stopped, or does one thing and ends.
    pub kind: Kind,
    /// What must hold on the board for it to start at all; otherwise it is skipped, as done.
    pub when: Vec<Condition>,
    /// Command and arguments; empty: the image's entrypoint and cmd.
    pub command: Vec<Box<str>>,
    /// Command and arguments that have to end with exit code 0 before each start of `command`; empty: none.
    pub pre_start: Vec<Box<str>>,
    /// Command and arguments that run after each end of `command`; empty: none.
    pub post_stop: Vec<Box<str>>,
    /// User and group; `None`: the image's.
    pub user: Option<UserSpec>,
    /// `KEY=value` entries, over those of the files and the image.
    pub env: Vec<Box<str>>,
    /// Files of the host with `KEY=value` lines, over the image's entries; a later one wins.
    pub env_files: Vec<Box<str>>,
    /// Files of the host that are copied to a tmpfs inside.
    pub secrets: Vec<Secret>,
    /// Sockets that listen for it, from descriptor 3 on.
    pub sockets: Vec<Socket>,
    /// The terminal that becomes its standard input, output, error and controlling terminal, for a getty.
    pub tty: Option<Box<str>>,
    /// Working directory; `None`: the image's.
    pub working_dir: Option<Box<str>>,
    /// Host name inside; `None`: the service's name.
    pub hostname: Option<Box<str>>,
    /// What it may use.
    pub limits: Limits,
    /// Resource limits, over the defaults (core 0).
    pub rlimits: Vec<Rlimit>,
    /// Who the kernel kills first when the board is out of memory: -1000 (never) to 1000 (first).
    pub oom_score_adj: i16,
    /// What happens to the root file system.
    pub root_fs: RootFs,
    /// Mounts, in this order.
    pub mounts: Vec<Mount>,
    /// The services that must be there before it starts.
    pub needs: Vec<Need>,
    /// What must have come about on the board before it starts.
    pub awaits: Vec<Await>,
    /// When it starts again by itself, if it is a oneshot that does.
    pub timer: Option<Timer>,
    /// What happens when it ends.
    pub restart: Restart,
    /// How it is stopped.
    pub stop: Stop,
    /// From spawn to being ready.
    pub start_timeout: Millis,
    /// When it is ready.
    pub ready: Ready,
    /// Whose messages its notify socket takes; `None`: it has no such socket.
    pub notify: Option<NotifyAccess>,
    /// The longest time between two of its pings, from the start of main on; `None`: it is not watched.
    pub watchdog: Option<Millis>,
    /// How it is asked whether it works; empty: it is not.
    pub health: Vec<Health>,
    /// Its network.
    pub network: Network,
    /// Capabilities it keeps; [`CapSet::ALL`]: whatever there are.
    pub capabilities: CapSet,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Devices it may use beyond null, zero, full, random, urandom and tty. On the host's root an empty list means all
    /// devices.
    pub devices: Vec<DeviceNode>,
    /// Its log.
    pub log: LogPolicy,
    /// `false`: known, shown, not started at boot.
    pub enabled: bool,
    /// Whether it also runs in rescue: what makes a board reachable.
    pub lifeline: bool,
    /// Whether the hardware watchdog is fed only while it is well, or may still recover.
    pub critical: bool,
}

impl Service {
    /// A service with all defaults.
    ///
    /// On the host's root the sandbox is off: the host's network, all capabilities, no filter, no list of devices. Whatever
    /// of these differs was asked for and is enforced.
    pub fn new(name: Name, root: Root, limits: Limits) -> Service {
        let (network, capabilities, seccomp) = match root {
            Root::Image(_) => (Network::None, CapSet::EMPTY, Seccomp::Default),
            Root::Host => (Network::Host, CapSet::ALL, Seccomp::Off),
        };
        Service {
            name,
            root,
            kind: Kind::Daemon,
            when: Vec::new(),
            command: Vec::new(),
            pre_start: Vec::new(),
            post_stop: Vec::new(),
            user: None,
            env: Vec::new(),
            env_files: Vec::new(),
            secrets: Vec::new(),
            sockets: Vec::new(),
            tty: None,
            working_dir: None,
            hostname: None,
            limits,
            rlimits: Vec::new(),
            oom_score_adj: 0,
            root_fs: RootFs::ReadOnly,
            mounts: Vec::new(),
            needs: Vec::new(),
            awaits: Vec::new(),
            timer: None,
            restart: Restart::default(),
            stop: Stop { signal: None, timeout: Millis::from_secs(10) },
            start_timeout: Millis::from_secs(30),
            ready: Ready::Started,
            notify: None,
            watchdog: None,
            health: Vec::new(),
            network,
            capabilities,
            seccomp,
            devices: Vec::new(),
            log: LogPolicy::default(),
            enabled: true,
            lifeline: false,
            critical: false,
        }
    }

    /// Whether it may use every device of the board.
    pub fn has_all_devices(&self) -> bool {
        self.root == Root::Host && self.devices.is_empty()
    }

    /// The longest time between two of its pings, for whatever reason it has to ping.
    pub fn ping_period(&self) -> Option<Millis> {
        let pings = self.health.iter().find(|check| check.probe == Probe::Notify);
        self.watchdog.or_else(|| pings.map(|check| check.times.interval()))
    }

    /// Its health check of this role.
    pub fn check(&self, role: Role) -> Option<&Health> {
        self.health.iter().find(|check| check.role == role)
    }

    /// The role of the check whose first success makes it ready; `None`: something else does.
    pub fn ready_by(&self) -> Option<Role> {
        let roles = [Role::Ready, Role::Startup, Role::Live].into_iter();
        roles.filter(|_| self.ready == Ready::Health).find(|role| self.check(*role).is_some())
    }

    /// How long what comes after main may take.
    pub fn post_stop_time(&self) -> Millis {
        if self.post_stop.is_empty() { Millis(0) } else { self.stop.timeout }
    }

    /// The image, if its root comes from one.
    pub fn image(&self) -> Option<&str> {
        match &self.root {
            Root::Image(image) => Some(image),
            Root::Host => None,
        }
    }
}

/// What the root file system of a service is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// An image: a file name looked up in the device's image folders or an absolute path, optionally with `#name:tag` or
    /// `#sha256:…` behind it (see [`crate::image::reference`]).
    Image(Box<str>),
    /// The host's own root: a program of the firmware under the same supervision, limits and logs, without the sandbox.
    /// Everything that it starts belongs to it and ends with it, logins of an ssh server too.
    Host,
}

/// Whether a service runs until it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It runs until it is stopped; that it ends is an incident.
    Daemon,
    /// It does one thing and ends; with exit code 0 it is done, whatever its restart policy. After any other end it is
    /// started again unless the policy is [`RestartPolicy::No`]: what a board needs done has to be done.
    Oneshot,
}

/// What must hold on the board for a service to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// This path of the host exists.
    Exists(Box<str>),
    /// This path of the host does not exist.
    Missing(Box<str>),
}

/// A file of the host that a service gets a copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its path on the host.
    pub file: Box<str>,
    /// Its path inside, beneath `/run`: a read-only copy in memory, owned by the service's user, mode 0400.
    pub target: Box<str>,
}

/// A socket that listens for a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Socket {
    /// Its name in LISTEN_FDNAMES.
    pub name: Box<str>,
    /// Where it listens.
    pub listen: Listen,
}

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq)]
pub enum Listen {
    /// A TCP address with its port, as numbers.
    Tcp(Box<str>),
    /// The same for UDP.
    Udp(Box<str>),
    /// A stream socket at this path of the host, with these permissions and this owner (`None`: root).
    Unix(Box<str>, u16, Option<UserSpec>),
}

/// Who a service runs as. Names are looked up in the image's passwd and group files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// A user name or a decimal uid.
    pub user: Box<str>,
    /// A group name or a decimal gid.
    pub group: Option<Box<str>>,
}

/// What happens to the root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootFs {
    /// Nothing can be written to it.
    ReadOnly,
    /// Written to memory, inside the service's limit, gone at the end of the instance.
    Scratch,
    /// Written to the state folder and kept.
    Persistent,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where: absolute, resolved beneath the service's root.
    pub target: Box<str>,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A folder of the state folder, `volumes/NAME`, kept over everything.
    Volume(Name),
    /// A path of the host.
    Bind(Box<str>),
    /// Memory, inside the service's limit.
    Tmpfs(Bytes),
}

/// A service that must be there before another one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Main of the service with this index runs, or the service is done.
    Started(u16),
    /// The service with this index is ready, or done.
    Ready(u16),
    /// The oneshot with this index has ended with exit code 0.
    Done(u16),
    /// The service with this index is not on its way any more: it is there, or does not come by itself.
    Soft(u16),
}

impl Need {
    /// The service that is needed.
    pub fn service(&self) -> u16 {
        let (Need::Started(index) | Need::Ready(index) | Need::Done(index) | Need::Soft(index)) = self;
        *index
    }
}

/// What must have come about on the board before a service starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Await {
    /// Something is mounted at this path.
    Mount(Box<str>),
    /// There is something at this path.
    Path(Box<str>),
    /// This network interface is up and has a carrier.
    Link(Box<str>),
    /// The time of day is known.
    Clock,
}

impl core::fmt::Display for Await {
    /// As the config writes it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (word, what) = match self {
            Await::Mount(path) => ("mount:", &**path),
            Await::Path(path) => ("path:", &**path),
            Await::Link(name) => ("link:", &**name),
            Await::Clock => ("clock", ""),
        };
        write!(f, "{word}{what}")
    }
}

/// When a oneshot starts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// The rule.
    pub schedule: Schedule,
    /// Each start is put off by a random part of this, so that a fleet does not do the same thing at the same time.
    pub jitter: Millis,
}

/// The rule of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// At boot, and then after this time again and again.
    Every(Millis),
    /// Once a day at this time after midnight, UTC.
    At(Millis),
}

/// When a service is ready: what `NAME:ready` and whoever starts it wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// When its program runs.
    Started,
    /// When it says `READY=1` over its notify socket (sd_notify(3)).
    Notify,
    /// When it writes a newline to this descriptor, as s6 has it.
    Fd(u8),
    /// When its health check succeeds for the first time.
    Health,
}

/// Whose messages a notify socket takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotifyAccess {
    /// The main process's.
    #[default]
    Main,
    /// Those of every process of the service.
    All,
}

/// What happens when a service ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// When it is started again.
    pub policy: RestartPolicy,
    /// Wait before the first restart; doubles with each further one.
    pub delay: Millis,
    /// The longest wait. A run longer than this counts as healthy and resets the wait.
    pub max_delay: Millis,
    /// Restarts within `within` before `then` happens; 0: no bound.
    pub tries: u16,
    /// The window in which `tries` are counted.
    pub within: Millis,
    /// What happens after `tries`.
    pub then: Then,
}

impl Default for Restart {
    fn default() -> Self {
        Restart {
            policy: RestartPolicy::Always,
            delay: Millis(100),
            max_delay: Millis::from_secs(60),
            tries: 0,
            within: Millis::from_secs(600),
            then: Then::KeepTrying,
        }
    }
}

/// When a service is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    No,
    /// When it failed: an exit code other than 0, a signal, out of memory, a start that did not succeed.
    OnFailure,
    /// Whatever the reason, unless someone stopped it.
    Always,
}

/// What happens after `tries` restarts within `within`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Go on at the longest delay.
    KeepTrying,
    /// Leave it down, as `failed`.
    Stop,
    /// Start those that need it again with it, then go on at the longest delay.
    Dependants,
    /// Start those that need it again, then everything but lifelines, then reboot the board.
    Reboot,
}

/// How a service is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The signal; `None`: the image's, else TERM. A number of the running architecture.
    pub signal: Option<u8>,
    /// From the signal to the kill of everything that is left.
    pub timeout: Millis,
}

/// A service's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A namespace of its own with nothing but loopback.
    None,
    /// The host's.
    Host,
}

/// A service's system call filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    /// The allow-list that common programs need.
    Default,
    /// The default without what a static network server does not need.
    Strict,
    /// The default, but what it would refuse is allowed and logged by the kernel.
    Log,
    /// No filter.
    Off,
}

/// A device of the host that the service gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Its path inside: `/dev/ttyS1`.
    pub path: Box<str>,
    /// Its path on the host; or, of one without a `/` in front, the usb device: `VID:PID`, `PORT` or `VID:PID@PORT`.
    pub source: Box<str>,
    /// What may be done with it.
    pub rules: DeviceRules,
    /// Whether its absence is fine.
    pub optional: bool,
}

/// What may be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRules {
    /// Opened for reading.
    pub read: bool,
    /// Opened for writing.
    pub write: bool,
}

/// A service's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPolicy {
    /// Size of its ring; `None`: the device's.
    pub ring: Option<Bytes>,
    /// Lines per second kept, beyond a burst of five seconds' worth; what exceeds it is dropped and counted. 0: no bound.
    pub rate: u32,
    /// A file beside the ring: its size before it is rotated; 0: no file.
    pub file: Bytes,
    /// Rotated files kept.
    pub keep: u8,
}

impl Default for LogPolicy {
    fn default() -> Self {
        LogPolicy { ring: None, rate: 1000, file: Bytes(0), keep: 2 }
    }
}
