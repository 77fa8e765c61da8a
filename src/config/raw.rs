//! The config as typed: texts borrowed from the file, escapes not decoded yet.
//!
//! Filled by `serde-json-core` from text that the scanner has passed, one service at a time. Words of a fixed list are
//! the plan's own types already, unless a later check has to say where they stand.

#![allow(missing_docs)] // The keys are documented in the table, `keys`.

use crate::base::limits;
use crate::plan::{Kind, Network, NotifyAccess, Role, Seccomp, Then};
use crate::{objects, words};
use heapless::Vec;

/// A mount's type.
#[derive(Clone, Copy, PartialEq)]
pub enum MountType {
    Volume,
    Bind,
    Tmpfs,
}

/// A device's access.
#[derive(Clone, Copy, PartialEq)]
pub enum Access {
    R,
    W,
    Rw,
}

words! {
    Kind { "daemon" => Daemon, "oneshot" => Oneshot }
    NotifyAccess { "main" => Main, "all" => All }
    Then { "keep-trying" => KeepTrying, "stop" => Stop, "dependants" => Dependants, "reboot" => Reboot }
    Role { "startup" => Startup, "live" => Live, "ready" => Ready }
    Network { "none" => None, "host" => Host }
    Seccomp { "default" => Default, "strict" => Strict, "log" => Log, "off" => Off }
    MountType { "volume" => Volume, "bind" => Bind, "tmpfs" => Tmpfs }
    Access { "r" => R, "w" => W, "rw" => Rw }
}

objects! {
    /// `device`.
    pub struct Device<'a> {
        pub hostname: Option<&'a str>,
        pub images: Vec<&'a str, { limits::IMAGE_DIRS }>,
        pub state: Option<&'a str>,
        pub store: Option<&'a str>,
        pub memory: Option<&'a str>,
        pub memory_reserve: Option<&'a str>,
        pub allow_missing: Vec<&'a str, 10>,
        pub modules: Vec<&'a str, { limits::MODULES }>,
        pub sysctls: Vec<Sysctl<'a>, { limits::SYSCTLS }>,
        pub mounts: Vec<BoardMount<'a>, { limits::BOARD_MOUNTS }>,
        pub watchdog: Option<Watchdog<'a>>,
        pub rescue: Rescue<'a>,
        pub restarts_per_minute: Option<u16>,
        pub max_resets: Option<u8>,
        pub crash_records: Option<u16>,
        pub log: DeviceLog<'a>,
        pub image_caps: ImageCaps<'a>,
    }

    /// `device.log`.
    pub struct DeviceLog<'a> {
        pub ring: Option<&'a str>,
    }

    /// `device.image_caps`.
    pub struct ImageCaps<'a> {
        pub bytes: Option<&'a str>,
        pub ratio: Option<u32>,
        pub entries: Option<u32>,
        pub path_depth: Option<u16>,
        pub pax: Option<&'a str>,
        pub zstd_window: Option<&'a str>,
        pub manifest: Option<&'a str>,
    }

    /// An entry of `device.sysctls`.
    pub struct Sysctl<'a> {
        pub name: Option<&'a str>,
        pub value: Option<&'a str>,
    }

    /// An entry of `device.mounts`.
    pub struct BoardMount<'a> {
        pub source: Option<&'a str>,
        pub target: Option<&'a str>,
        pub kind = "type": Option<&'a str>,
        pub options: Option<&'a str>,
        pub wait: Option<&'a str>,
        pub fallback: Option<&'a str>,
    }

    /// `device.watchdog`.
    pub struct Watchdog<'a> {
        pub device: Option<&'a str>,
        pub timeout: Option<&'a str>,
    }

    /// `device.rescue`.
    pub struct Rescue<'a> {
        pub shell: Option<bool>,
        pub reboot_after: Option<&'a str>,
    }

    /// An entry of `vars`.
    pub struct Var<'a> {
        pub name: Option<&'a str>,
        pub value: Option<&'a str>,
        pub file: Option<&'a str>,
        pub default: Option<&'a str>,
    }

    /// One entry of `services` or `overrides`.
    pub struct Service<'a> {
        pub name: Option<&'a str>,
        pub image: Option<&'a str>,
        pub root: Option<&'a str>,
        pub kind = "type": Option<Kind>,
        pub when: When<'a>,
        pub command: Option<Vec<&'a str, { limits::ARGV }>>,
        pub pre_start: Option<Vec<&'a str, { limits::ARGV }>>,
        pub post_stop: Option<Vec<&'a str, { limits::ARGV }>>,
        pub user: Option<&'a str>,
        pub env: Option<Vec<&'a str, { limits::ENV }>>,
        pub env_files: Option<Vec<&'a str, { limits::ENV_FILES }>>,
        pub secrets: Option<Vec<Secret<'a>, { limits::SECRETS }>>,
        pub sockets: Option<Vec<Socket<'a>, { limits::SOCKETS }>>,
        pub tty: Option<&'a str>,
        pub working_dir: Option<&'a str>,
        pub hostname: Option<&'a str>,
        pub limits: Limits<'a>,
        pub rlimits: Option<Vec<Rlimit<'a>, { limits::RLIMITS }>>,
        pub oom_score_adj: Option<i64>,
        pub root_fs: Option<&'a str>,
        pub mounts: Option<Vec<Mount<'a>, { limits::MOUNTS }>>,
        pub needs: Option<Vec<&'a str, { limits::NEEDS }>>,
        pub timer: Option<Timer<'a>>,
        pub restart: Restart<'a>,
        pub stop: Stop<'a>,
        pub start_timeout: Option<&'a str>,
        pub ready: Option<&'a str>,
        pub ready_fd: Option<u8>,
        pub notify_access: Option<NotifyAccess>,
        pub watchdog: Option<&'a str>,
        pub health: Health<'a>,
        /// `health` where it is a list: the scanner marks its key, see [`super::scan`].
        pub checks = "[ealth": Option<Vec<Health<'a>, { limits::CHECKS }>>,
        pub network: Option<Network>,
        pub capabilities: Option<Vec<&'a str, 41>>,
        pub seccomp: Option<Seccomp>,
        pub devices: Option<Vec<DeviceNode<'a>, { limits::DEVICES }>>,
        pub log: Log<'a>,
        pub enabled: Option<bool>,
        pub lifeline: Option<bool>,
        pub critical: Option<bool>,
    }

    /// A service's `health`, or an entry of it.
    pub struct Health<'a> {
        pub tcp: Option<&'a str>,
        pub http: Option<&'a str>,
        pub status: Option<u16>,
        pub unix: Option<&'a str>,
        pub file: Option<&'a str>,
        pub max_age: Option<&'a str>,
        pub exec: Option<Vec<&'a str, { limits::ARGV }>>,
        pub memory: Option<&'a str>,
        pub notify: Option<bool>,
        pub image: Option<bool>,
        pub interval: Option<&'a str>,
        pub timeout: Option<&'a str>,
        pub retries: Option<u8>,
        pub start_period: Option<&'a str>,
        pub role: Option<Role>,
    }

    /// A service's `when`.
    pub struct When<'a> {
        pub exists: Option<&'a str>,
        pub missing: Option<&'a str>,
    }

    /// An entry of `secrets`.
    pub struct Secret<'a> {
        pub file: Option<&'a str>,
        pub target: Option<&'a str>,
    }

    /// An entry of `sockets`.
    pub struct Socket<'a> {
        pub name: Option<&'a str>,
        pub tcp: Option<&'a str>,
        pub udp: Option<&'a str>,
        pub unix: Option<&'a str>,
        pub mode: Option<&'a str>,
        pub user: Option<&'a str>,
    }

    /// `limits`.
    pub struct Limits<'a> {
        pub memory: Option<&'a str>,
        pub memory_high: Option<&'a str>,
        pub swap: Option<&'a str>,
        pub pids: Option<u32>,
        pub cpu: Option<&'a str>,
        pub cpu_weight: Option<u16>,
        pub cpus: Option<&'a str>,
        pub io: Option<Vec<Io<'a>, { limits::IO_LIMITS }>>,
    }

    /// An entry of `limits.io`.
    pub struct Io<'a> {
        pub device: Option<&'a str>,
        pub read_bps: Option<&'a str>,
        pub write_bps: Option<&'a str>,
        pub read_iops: Option<u64>,
        pub write_iops: Option<u64>,
    }

    /// An entry of `rlimits`.
    pub struct Rlimit<'a> {
        pub name: Option<&'a str>,
        pub soft: Option<&'a str>,
        pub hard: Option<&'a str>,
    }

    /// An entry of `mounts`.
    pub struct Mount<'a> {
        pub kind = "type": Option<MountType>,
        pub source: Option<&'a str>,
        pub target: Option<&'a str>,
        pub read_only: Option<bool>,
        pub size: Option<&'a str>,
    }

    /// `timer`.
    pub struct Timer<'a> {
        pub every: Option<&'a str>,
        pub at: Option<&'a str>,
        pub jitter: Option<&'a str>,
    }

    /// `restart`.
    pub struct Restart<'a> {
        pub policy: Option<&'a str>,
        pub delay: Option<&'a str>,
        pub max_delay: Option<&'a str>,
        pub tries: Option<u16>,
        pub within: Option<&'a str>,
        pub then: Option<Then>,
    }

    /// `stop`.
    pub struct Stop<'a> {
        pub signal: Option<&'a str>,
        pub timeout: Option<&'a str>,
    }

    /// An entry of `devices`.
    pub struct DeviceNode<'a> {
        pub path: Option<&'a str>,
        pub usb: Option<&'a str>,
        pub inside = "as": Option<&'a str>,
        pub access: Option<Access>,
        pub optional: Option<bool>,
    }

    /// A service's `log`.
    pub struct Log<'a> {
        pub ring: Option<&'a str>,
        pub rate: Option<u32>,
        pub file: Option<&'a str>,
        pub keep: Option<u8>,
    }
}
