//! The config as typed: texts borrowed from the file, escapes not decoded yet.
//!
//! Filled by `serde-json-core` from text that the scanner has passed, one service at a time. Words of a fixed list are
//! the plan's own types already, unless a later check has to say where they stand.

#![allow(missing_docs)] // The keys are documented in the table, `keys`.

use crate::base::limits;
use crate::plan::{Kind, Network, NotifyAccess, Seccomp, Then};
use heapless::Vec;
use serde::Deserialize;

/// `device`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device<'a> {
    pub hostname: Option<&'a str>,
    #[serde(borrow)]
    pub images: Vec<&'a str, { limits::IMAGE_DIRS }>,
    pub state: Option<&'a str>,
    pub store: Option<&'a str>,
    pub memory: Option<&'a str>,
    pub memory_reserve: Option<&'a str>,
    #[serde(borrow)]
    pub allow_missing: Vec<&'a str, 10>,
    #[serde(borrow)]
    pub modules: Vec<&'a str, { limits::MODULES }>,
    #[serde(borrow)]
    pub sysctls: Vec<Sysctl<'a>, { limits::SYSCTLS }>,
    #[serde(borrow)]
    pub mounts: Vec<BoardMount<'a>, { limits::BOARD_MOUNTS }>,
    #[serde(borrow)]
    pub watchdog: Option<Watchdog<'a>>,
    #[serde(borrow)]
    pub rescue: Rescue<'a>,
    #[serde(borrow)]
    pub log: DeviceLog<'a>,
    #[serde(borrow)]
    pub image_caps: ImageCaps<'a>,
}

/// `device.log`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceLog<'a> {
    pub ring: Option<&'a str>,
}

/// `device.image_caps`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sysctl<'a> {
    pub name: Option<&'a str>,
    pub value: Option<&'a str>,
}

/// An entry of `device.mounts`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoardMount<'a> {
    pub source: Option<&'a str>,
    pub target: Option<&'a str>,
    #[serde(rename = "type")]
    pub kind: Option<&'a str>,
    pub options: Option<&'a str>,
    pub wait: Option<&'a str>,
    pub fallback: Option<&'a str>,
}

/// `device.watchdog`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Watchdog<'a> {
    pub device: Option<&'a str>,
    pub timeout: Option<&'a str>,
}

/// `device.rescue`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rescue<'a> {
    pub shell: bool,
    pub reboot_after: Option<&'a str>,
}

/// An entry of `vars`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Var<'a> {
    pub name: Option<&'a str>,
    pub value: Option<&'a str>,
    pub file: Option<&'a str>,
    pub default: Option<&'a str>,
}

/// One entry of `services` or `overrides`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service<'a> {
    pub name: Option<&'a str>,
    pub image: Option<&'a str>,
    pub root: Option<&'a str>,
    #[serde(rename = "type")]
    pub kind: Option<Kind>,
    #[serde(borrow)]
    pub when: When<'a>,
    #[serde(borrow)]
    pub command: Option<Vec<&'a str, { limits::ARGV }>>,
    pub user: Option<&'a str>,
    #[serde(borrow)]
    pub env: Option<Vec<&'a str, { limits::ENV }>>,
    #[serde(borrow)]
    pub env_files: Option<Vec<&'a str, { limits::ENV_FILES }>>,
    #[serde(borrow)]
    pub secrets: Option<Vec<Secret<'a>, { limits::SECRETS }>>,
    pub tty: Option<&'a str>,
    pub working_dir: Option<&'a str>,
    pub hostname: Option<&'a str>,
    #[serde(borrow)]
    pub limits: Limits<'a>,
    #[serde(borrow)]
    pub rlimits: Option<Vec<Rlimit<'a>, { limits::RLIMITS }>>,
    pub oom_score_adj: Option<i16>,
    pub root_fs: Option<&'a str>,
    #[serde(borrow)]
    pub mounts: Option<Vec<Mount<'a>, { limits::MOUNTS }>>,
    #[serde(borrow)]
    pub needs: Option<Vec<&'a str, { limits::NEEDS }>>,
    #[serde(borrow)]
    pub restart: Restart<'a>,
    #[serde(borrow)]
    pub stop: Stop<'a>,
    pub start_timeout: Option<&'a str>,
    pub ready: Option<&'a str>,
    pub ready_fd: Option<u8>,
    pub notify_access: Option<NotifyAccess>,
    pub watchdog: Option<&'a str>,
    pub network: Option<Network>,
    #[serde(borrow)]
    pub capabilities: Option<Vec<&'a str, 41>>,
    pub seccomp: Option<Seccomp>,
    #[serde(borrow)]
    pub devices: Option<Vec<DeviceNode<'a>, { limits::DEVICES }>>,
    #[serde(borrow)]
    pub log: Log<'a>,
    pub enabled: Option<bool>,
    pub lifeline: Option<bool>,
}

/// A service's `when`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When<'a> {
    pub exists: Option<&'a str>,
    pub missing: Option<&'a str>,
}

/// An entry of `secrets`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secret<'a> {
    pub file: Option<&'a str>,
    pub target: Option<&'a str>,
}

/// `limits`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits<'a> {
    pub memory: Option<&'a str>,
    pub memory_high: Option<&'a str>,
    pub swap: Option<&'a str>,
    pub pids: Option<u32>,
    pub cpu: Option<&'a str>,
    pub cpu_weight: Option<u16>,
    pub cpus: Option<&'a str>,
    #[serde(borrow)]
    pub io: Option<Vec<Io<'a>, { limits::IO_LIMITS }>>,
}

/// An entry of `limits.io`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Io<'a> {
    pub device: Option<&'a str>,
    pub read_bps: Option<&'a str>,
    pub write_bps: Option<&'a str>,
    pub read_iops: Option<u64>,
    pub write_iops: Option<u64>,
}

/// An entry of `rlimits`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rlimit<'a> {
    pub name: Option<&'a str>,
    pub soft: Option<&'a str>,
    pub hard: Option<&'a str>,
}

/// A mount's type.
#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountType {
    Volume,
    Bind,
    Tmpfs,
}

/// An entry of `mounts`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mount<'a> {
    #[serde(rename = "type")]
    pub kind: Option<MountType>,
    pub source: Option<&'a str>,
    pub target: Option<&'a str>,
    pub read_only: bool,
    pub size: Option<&'a str>,
}

/// `restart`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restart<'a> {
    pub policy: Option<&'a str>,
    pub delay: Option<&'a str>,
    pub max_delay: Option<&'a str>,
    pub tries: Option<u16>,
    pub within: Option<&'a str>,
    pub then: Option<Then>,
}

/// `stop`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stop<'a> {
    pub signal: Option<&'a str>,
    pub timeout: Option<&'a str>,
}

/// A device's access.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    R,
    W,
    Rw,
}

/// An entry of `devices`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceNode<'a> {
    pub path: Option<&'a str>,
    pub access: Option<Access>,
    pub optional: bool,
}

/// A service's `log`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log<'a> {
    pub ring: Option<&'a str>,
    pub rate: Option<u32>,
    pub file: Option<&'a str>,
    pub keep: Option<u8>,
}
