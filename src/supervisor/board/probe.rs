//! Looking at the running kernel and board, feature by feature. Changes nothing.
#![forbid(unsafe_code)]

use super::features::{FEATURES, index};
use super::here;
use super::profile::{DEVICES, Profile};
use crate::image::platform::Platform;
use crate::plan::Plan;
use crate::sandbox::cgroup::{Controller, Tree};
use crate::sys::probe::{Call, clones_into_cgroup, has, has_filters};
use crate::sys::{bpf, caps, landlock, meaning};
use core::cell::OnceCell;
use nix::fcntl::AtFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::inotify::{InitFlags, Inotify};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::fstatat;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// What services are judged by.
pub(super) const NEEDED: [&str; 15] = [
    "cgroup.memory",
    "cgroup.pids",
    "cgroup.cpu",
    "cgroup.cpuacct",
    "cgroup.cpuset",
    "cgroup.io",
    "cgroup.freezer",
    DEVICE_LISTS,
    "ns.mnt",
    "ns.pid",
    "ns.net",
    "ns.ipc",
    "ns.uts",
    "ns.cgroup",
    "seccomp.filter",
];

/// The one of them that costs more than a glance; services that may use every device do without.
const DEVICE_LISTS: &str = "cgroup.devices";

/// What images that are file systems are judged by. A kernel may load it later, so that it is looked at when there is one.
const IMAGES: [&str; 3] = ["fs.squashfs", "fs.erofs", "loop"];

/// The oldest kernel that coracle is made for.
const OLDEST: (u32, u32) = (4, 19);

/// CAP_SYS_RESOURCE (capabilities(7)).
const SYS_RESOURCE: u8 = 24;

type Answer = Result<String, String>;

impl Profile {
    /// What services are judged by.
    pub fn needed() -> Profile {
        let tree = Tree::discover("coracle").map_err(String::from);
        let profile = Profile { memory: here::memory(), cores: cores(), ..probe(&mut NEEDED.into_iter(), tree) };
        profile.with_images()
    }

    /// As much of it as the services of `plan` are judged by, where the cgroups have been looked at already.
    pub fn asked_for(plan: &Plan, tree: &Tree) -> Profile {
        let lists = plan.services.iter().any(|service| !service.has_all_devices());
        let pinned = plan.services.iter().any(|service| service.limits.cpus.is_some());
        let mut names = NEEDED.into_iter().filter(|name| lists || *name != DEVICE_LISTS);
        Profile { cores: if pinned { cores() } else { "".into() }, ..probe(&mut names, Ok(tree.clone())) }
    }

    /// The same with what images that are file systems are judged by.
    pub fn with_images(mut self) -> Profile {
        let texts = Texts::new(Err(String::new()));
        IMAGES.into_iter().for_each(|name| self.look(name, &texts));
        self
    }

    /// Everything.
    pub fn full() -> Profile {
        let tree = Tree::discover("coracle").map_err(String::from);
        let profile = probe(&mut FEATURES.iter().map(|feature| feature.name), tree);
        let release = text("/proc/sys/kernel/osrelease").trim().into();
        Profile { release, memory: here::memory(), cores: cores(), devices: nodes(), ..profile }
    }

    fn look(&mut self, name: &str, texts: &Texts) {
        if let Some(place) = index(name) {
            self.note(place, answer(name, texts));
        }
    }
}

/// A text that is read when it is first asked for, and once.
struct Later {
    path: &'static str,
    text: OnceCell<String>,
}

impl core::ops::Deref for Later {
    type Target = str;
    fn deref(&self) -> &str {
        self.text.get_or_init(|| text(self.path))
    }
}

/// What answers are taken from.
struct Texts {
    tree: Result<Tree, String>,
    /// The folder of this process's namespaces.
    namespaces: Option<fs::File>,
    release: Later,
    filesystems: Later,
    mounts: Later,
    /// What can be loaded.
    modules: OnceCell<String>,
}

impl Texts {
    fn new(tree: Result<Tree, String>) -> Texts {
        let later = |path| Later { path, text: OnceCell::new() };
        Texts {
            tree,
            namespaces: None,
            release: later("/proc/sys/kernel/osrelease"),
            filesystems: later("/proc/filesystems"),
            mounts: later("/proc/self/mounts"),
            modules: OnceCell::new(),
        }
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The cores that there may be.
fn cores() -> Box<str> {
    text("/sys/devices/system/cpu/present").trim().into()
}

fn probe(names: &mut dyn Iterator<Item = &'static str>, tree: Result<Tree, String>) -> Profile {
    let mut texts = Texts::new(tree);
    texts.namespaces = fs::File::open("/proc/self/ns").ok();
    let mut profile = Profile {
        release: "".into(),
        platform: Platform::native(),
        memory: None,
        cores: "".into(),
        have: 0,
        details: Vec::new(),
        devices: Vec::new(),
    };
    names.for_each(|name| profile.look(name, &texts));
    profile
}

fn answer(name: &str, texts: &Texts) -> Answer {
    if let Some(controller) = name.strip_prefix("cgroup.").and_then(controller) {
        return controls(controller, texts);
    }
    if let Some(namespace) = name.strip_prefix("ns.") {
        let found = |folder: &fs::File| fstatat(folder, namespace, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok();
        let missing = || format!("there is no /proc/self/ns/{namespace}");
        return texts.namespaces.as_ref().filter(|folder| found(folder)).map(|_| String::new()).ok_or_else(missing);
    }
    match name {
        "kernel" if version(&texts.release).is_some_and(|version| version >= OLDEST) => Ok(texts.release.trim().into()),
        "kernel" => Err(format!("it is {}", texts.release.trim())),
        "cgroup.v2" => v2_root(texts).map(|place| format!("at {place}")).ok_or_else(|| "it is not mounted".into()),
        "cgroup.swap" => swap(texts),
        "cgroup.kill" if on_v1(texts) => Err("the groups of services are on v1".into()),
        "cgroup.kill" => younger(version(&texts.release) >= Some((5, 14))),
        "clone_into_cgroup" => younger(clones_into_cgroup()),
        "seccomp.filter" if has_filters() => Ok(String::new()),
        "seccomp.filter" => Err("the kernel has no system call filters".into()),
        "seccomp.actions" => actions(&text("/proc/sys/kernel/seccomp/actions_avail")),
        "no_new_privs" if text("/proc/self/status").contains("\nNoNewPrivs:") => Ok(String::new()),
        "fs.proc" if !texts.filesystems.is_empty() => Ok(String::new()),
        "fs.sysfs" | "fs.tmpfs" | "fs.devpts" | "fs.devtmpfs" | "fs.mqueue" | "fs.overlay" | "fs.squashfs"
        | "fs.erofs" => filesystem(name.strip_prefix("fs.").unwrap_or(name), texts),
        "loop" => there("/dev/loop-control").or_else(|missing| module("loop", texts).ok_or(missing)),
        "epoll" => made(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)),
        "signalfd" => made(SignalFd::with_flags(&SigSet::empty(), SfdFlags::SFD_CLOEXEC)),
        "timerfd" => made(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)),
        "inotify" => made(Inotify::init(InitFlags::IN_CLOEXEC)),
        "unix" => made(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)),
        "pidfd" => younger(has(Call::PidfdOpen)),
        "clone3" => younger(has(Call::Clone3)),
        "openat2" => younger(has(Call::Openat2)),
        "close_range" => younger(has(Call::CloseRange)),
        "mount_api" => younger(has(Call::MountSetattr)),
        "landlock" => match landlock::version() {
            Some(version @ 2..) => Ok(format!("version {version}")),
            Some(version) => Err(format!("version {version} forbids every link between folders")),
            None => Err("it is not there or switched off (lsm=)".into()),
        },
        "watchdog" => there("/dev/watchdog0").or_else(|missing| there("/dev/watchdog").map_err(|_| missing)),
        "rtc" => there("/dev/rtc0").or_else(|missing| there("/dev/rtc").map_err(|_| missing)),
        "pstore" => {
            let backend = text("/sys/module/pstore/parameters/backend");
            let backend = backend.trim();
            match backend {
                "" | "(null)" => Err("no memory is set aside for it (ramoops)".into()),
                backend => Ok(format!("kept by {backend}")),
            }
        }
        "kmsg" => there("/dev/kmsg"),
        "cap.sys_resource" => match caps::get() {
            Ok(sets) if sets.effective >> SYS_RESOURCE & 1 == 1 => Ok(String::new()),
            _ => Err("this process does not have it".into()),
        },
        _ => Err("it was not found".into()),
    }
}

fn controller(name: &str) -> Option<Controller> {
    let name = if name == "io" { "blkio" } else { name };
    Controller::from_v1_name(name)
}

fn controls(controller: Controller, texts: &Texts) -> Answer {
    let tree = texts.tree.as_ref().map_err(Clone::clone)?;
    let (version, own) = tree.place(controller)?;
    if version == 1 || controller != Controller::Devices {
        return Ok(if version == 1 { "v1" } else { "v2" }.into());
    }
    let keeps = fs::File::open(own).is_ok_and(|group| bpf::keeps_device_programs(group.as_fd()));
    // Who may not ask may still be allowed to load one. r0 = 1; exit: every access is allowed.
    let loads = || bpf::load_device_program(&[0x0000_0001_0000_00b7, 0x0000_0000_0000_0095]).map(drop);
    match if keeps { Ok(()) } else { loads() } {
        Ok(()) => Ok("v2, by BPF".into()),
        Err(errno) => Err(format!("no program can be loaded for it: {errno}")),
    }
}

/// Whether the groups of services are on v1.
fn on_v1(texts: &Texts) -> bool {
    texts.tree.as_ref().is_ok_and(|tree| tree.place(Controller::Pids).is_ok_and(|(version, _)| version == 1))
}

/// Where the v2 tree is mounted.
fn v2_root(texts: &Texts) -> Option<&str> {
    texts.mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then_some(place)
    })
}

fn swap(texts: &Texts) -> Answer {
    if text("/proc/swaps").lines().count() <= 1 {
        return Ok("there is no swap space".into());
    }
    let v1 = texts.mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let counted = v1.filter(|place| place.starts_with("/sys/fs/cgroup")).any(|place| {
        let file = |name: &str| Path::new(place).join(name).exists();
        let below = || {
            fs::read_dir(place).is_ok_and(|mut groups| {
                groups.any(|group| group.is_ok_and(|group| group.path().join("memory.swap.max").exists()))
            })
        };
        file("memory.memsw.limit_in_bytes") || file("memory.swap.max") || below()
    });
    if counted { Ok(String::new()) } else { Err("it is not counted (swapaccount=1)".into()) }
}

fn actions(available: &str) -> Answer {
    let has = |wanted: &str| available.split_whitespace().any(|word| word == wanted);
    match ["kill_process", "log"].into_iter().find(|wanted| !has(wanted)) {
        None => Ok(String::new()),
        Some(missing) => Err(format!("there is no action {missing}")),
    }
}

/// Whether the kernel knows a file system, or has it as a module that a mount loads.
fn filesystem(name: &str, texts: &Texts) -> Answer {
    if texts.filesystems.lines().any(|line| line.split_whitespace().last() == Some(name)) {
        return Ok(String::new());
    }
    module(name, texts).ok_or_else(|| format!("the kernel does not know {name}"))
}

fn module(name: &str, texts: &Texts) -> Option<String> {
    let list = texts.modules.get_or_init(|| text(&format!("/lib/modules/{}/modules.dep", texts.release.trim())));
    list.contains(&format!("/{name}.ko")).then(|| "as a module".into())
}

fn there(path: &str) -> Answer {
    if Path::new(path).exists() { Ok(String::new()) } else { Err(format!("there is no {path}")) }
}

fn younger(known: bool) -> Answer {
    if known { Ok(String::new()) } else { Err("the kernel is too old".into()) }
}

fn made<T>(answer: nix::Result<T>) -> Answer {
    answer.map(|_| String::new()).map_err(|errno| meaning(errno).into())
}

/// `6.1` of `6.1.0-18-arm64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The device nodes beneath /dev, three folders deep.
fn nodes() -> Vec<(Box<str>, bool)> {
    let mut found = Vec::new();
    let mut open = vec![("/dev".to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            // A link counts as what it leads to: /dev/serial/by-id is made of them.
            let Ok(kind) = fs::metadata(&path).map(|meta| meta.file_type()) else { continue };
            let link = entry.file_type().is_ok_and(|own| own.is_symlink());
            if kind.is_dir() && depth < 3 && !link && path != "/dev/pts" {
                open.push((path, depth + 1));
            } else if (kind.is_block_device() || kind.is_char_device()) && found.len() < DEVICES {
                found.push((path.into(), kind.is_block_device()));
            }
        }
    }
    crate::base::sort::sort(&mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_of_the_table_is_looked_at() {
        let profile = Profile::full();
        for (place, feature) in FEATURES.iter().enumerate() {
            assert_ne!(profile.detail(place), "it was not found", "{}", feature.name);
        }
        for name in NEEDED.into_iter().chain(IMAGES) {
            assert!(index(name).is_some(), "{name}");
        }
        assert!(profile.has("fs.proc") && profile.has("epoll") && profile.has("no_new_privs"));
        assert_eq!(profile.devices.iter().find(|(path, _)| &**path == "/dev/null"), Some(&("/dev/null".into(), false)));
    }

    #[test]
    fn releases_are_read_however_they_end() {
        for (text, read) in [
            ("6.1.0-18-arm64", Some((6, 1))),
            ("4.19", Some((4, 19))),
            ("5.10-rc1+", Some((5, 10))),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(version(text), read, "{text}");
        }
    }
}
