//! The file systems that every program expects, mounted from one table. What is there already is fine, so that a second
//! walk changes nothing; what cannot be had is said, and boot goes on without it.
#![forbid(unsafe_code)]

use super::options::flag::{NO_DEV, NO_EXEC, NO_SUID};
use crate::base::mountinfo::Mounted;
use crate::sandbox::cgroup::Known;
use crate::supervisor::keeper::Say;
use crate::sys::folder;
use crate::sys::{Errno, meaning, mount, process};
use core::ffi::{CStr, c_ulong};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{AccessFlags, access};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::symlink;

/// One line of the table.
struct Place {
    kind: &'static CStr,
    target: &'static CStr,
    flags: c_ulong,
    data: &'static CStr,
    /// Mounted only where nothing can be written otherwise.
    if_read_only: bool,
}

const fn place(kind: &'static CStr, target: &'static CStr, flags: c_ulong, data: &'static CStr) -> Place {
    Place { kind, target, flags, data, if_read_only: false }
}

/// What most files of the kernel's have less than.
const READ_BYTES: usize = 4096;

/// Where processes are.
const PROC: Place = place(c"proc", c"/proc", NO_SUID | NO_DEV | NO_EXEC, c"");

/// In this order. Group 5 is the one that owns terminals everywhere (pts(4)).
const TABLE: [Place; 6] = [
    place(c"sysfs", c"/sys", NO_SUID | NO_DEV | NO_EXEC, c""),
    place(c"devtmpfs", c"/dev", NO_SUID, c"mode=0755"),
    place(c"devpts", c"/dev/pts", NO_SUID | NO_EXEC, c"mode=0620,gid=5,ptmxmode=0666"),
    place(c"tmpfs", c"/dev/shm", NO_SUID | NO_DEV, c"mode=1777"),
    place(c"tmpfs", c"/run", NO_SUID | NO_DEV, c"mode=0755"),
    Place { kind: c"tmpfs", target: c"/tmp", flags: NO_SUID | NO_DEV, data: c"mode=1777", if_read_only: true },
];

/// What outlived the reset, where the kernel keeps something (kernel: `Documentation/admin-guide/ramoops.rst`).
const PSTORE: Place = place(c"pstore", c"/sys/fs/pstore", NO_SUID | NO_DEV | NO_EXEC, c"");

/// Nodes for a kernel without devtmpfs: name, permissions, major and minor number (kernel:
/// `Documentation/admin-guide/devices.txt`).
const NODES: [(&str, u32, u64, u64); 9] = [
    ("console", 0o600, 5, 1),
    ("full", 0o666, 1, 7),
    ("kmsg", 0o600, 1, 11),
    ("null", 0o666, 1, 3),
    ("ptmx", 0o666, 5, 2),
    ("random", 0o666, 1, 8),
    ("tty", 0o666, 5, 0),
    ("urandom", 0o666, 1, 9),
    ("zero", 0o666, 1, 5),
];

/// Links that programs expect in /dev.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts /proc, unless it is there; gives what is mounted then.
pub fn proc(say: Say<'_>) -> String {
    match mountinfo() {
        text if text.is_empty() => {
            mount_place(&PROC, &text, say);
            mountinfo()
        }
        text => text,
    }
}

/// Mounts the rest of the table. `before`: what is mounted. The caller's umask takes nothing away.
pub fn rest(before: &str, say: Say<'_>) {
    for place in &TABLE {
        mount_place(place, before, say);
    }
}

/// What programs on the board's own root or network expect beside the table, and nothing in a container of its own: the
/// loopback interface, the links in /dev, and what outlived the reset. What is there already is fine here, too.
pub fn for_host(say: Say<'_>) {
    if let Err(errno) = process::loopback_up() {
        say(format!("the loopback interface cannot be brought up: {errno}"));
    }
    // A kernel that has it has made the folder.
    if access(PSTORE.target, AccessFlags::F_OK).is_ok() {
        mount_place(&PSTORE, "", say);
    }
    for (to, path) in LINKS {
        match symlink(to, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                say(format!("{path} cannot be made: {error}"));
            }
            _ => {}
        }
    }
}

/// The mounts as this process sees them; empty without /proc.
pub fn mountinfo() -> String {
    read("/proc/self/mountinfo")
}

/// A small file of the kernel's, at one go; empty if there is none.
pub fn read(path: &str) -> String {
    let mut text = String::with_capacity(READ_BYTES);
    // What is no text says nothing.
    let _ = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    text
}

/// Whether something is mounted at `target`.
pub fn is_mounted(mountinfo: &str, target: &str) -> bool {
    mountinfo.lines().filter_map(Mounted::parse).any(|mount| mount.target == target)
}

fn mount_place(place: &Place, before: &str, say: Say<'_>) {
    let (kind, target) = (text(place.kind), text(place.target));
    if is_mounted(before, target) {
        return;
    }
    let try_it = || mount::mount(place.kind, place.target, place.flags, place.data);
    // Most often there is a folder for it; a new /dev has none.
    let at_once = !place.if_read_only && !target.starts_with("/dev/");
    let mut done = if at_once { try_it() } else { Err(Errno(nix::libc::ENOENT)) };
    if done == Err(Errno(nix::libc::ENOENT)) {
        let mode = if place.data == c"mode=1777" { 0o1777 } else { 0o755 };
        if let Err(error) = make_dir(target, mode) {
            return say(format!("{target} cannot be made: {error}; make it in the root file system"));
        }
        if place.if_read_only && access(target, AccessFlags::W_OK).is_ok() {
            return;
        }
        done = try_it();
    }
    match done {
        // The kernel mounts some of them itself.
        Ok(()) | Err(Errno(nix::libc::EBUSY)) => {}
        Err(Errno(nix::libc::ENODEV)) if place.kind == c"devtmpfs" => {
            say("the kernel has no devtmpfs: /dev gets a few nodes; boot a kernel with CONFIG_DEVTMPFS".into());
            nodes(say);
        }
        Err(errno) => say(format!("{kind} cannot be mounted on {target}: {errno}")),
    }
}

/// Makes a directory; what is there already of that name tells itself when something is mounted on it.
pub fn make_dir(path: &str, mode: u32) -> std::io::Result<()> {
    match folder::make(path.as_ref(), mode) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn nodes(say: Say<'_>) {
    if let Err(errno) = mount::mount(c"tmpfs", c"/dev", NO_SUID, c"mode=0755") {
        return say(format!("tmpfs cannot be mounted on /dev: {errno}"));
    }
    for (name, mode, major, minor) in NODES {
        let path = format!("/dev/{name}");
        let made = mknod(&*path, SFlag::S_IFCHR, Mode::from_bits_truncate(mode), makedev(major, minor));
        if let Err(errno) = made {
            say(format!("{path} cannot be made: {}", meaning(errno)));
        }
    }
}

/// The controllers of v1, those together that people expect together.
const V1: [&str; 7] = ["memory", "pids", "cpu,cpuacct", "cpuset", "devices", "freezer", "blkio"];
const CGROUPS: &CStr = c"/sys/fs/cgroup";
/// What is known of the first process in a v2 tree that it has mounted itself.
const UNIFIED: Known<'static> = Known {
    own: "0::/\n",
    mounts: "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    controllers: String::new(),
    handed_down: false,
};

/// Mounts the cgroup hierarchies: v2 with all its controllers handed down, or v1 where the kernel has memory and pids
/// only there. `before`: what is mounted. Gives what is known about them then, for [`crate::sandbox::cgroup::Tree::known`].
pub fn cgroups(before: &str, say: Say<'_>) -> Option<Known<'static>> {
    let root = text(CGROUPS);
    if before.lines().filter_map(Mounted::parse).any(|mount| matches!(mount.kind, "cgroup" | "cgroup2")) {
        return None;
    }
    let flags = NO_SUID | NO_DEV | NO_EXEC;
    let unified = mount::mount(c"cgroup2", CGROUPS, flags, c"");
    let given = if unified.is_ok() { read(&format!("{root}/cgroup.controllers")) } else { String::new() };
    if has_essential(&given, |_| true) {
        return Some(Known { handed_down: hand_down(&given), controllers: given, ..UNIFIED });
    }
    let known = read("/proc/cgroups");
    if !given.is_empty() && has_essential(&given, |name| is_enabled(&known, name)) {
        return Some(Known { handed_down: hand_down(&given), controllers: given, ..UNIFIED });
    }
    let wanted: Vec<String> = v1(&known);
    if wanted.is_empty() {
        match unified {
            Ok(()) => say(format!(
                "{root} has neither memory nor pids: what limits them is held; boot a kernel with CONFIG_MEMCG and CONFIG_CGROUP_PIDS"
            )),
            Err(errno) => {
                say(format!("no cgroups can be mounted on {root}: {errno}; boot a kernel with CONFIG_CGROUPS"))
            }
        }
        return None;
    }
    if unified.is_ok() {
        let _ = mount::unmount(CGROUPS);
    }
    if let Err(errno) = mount::mount(c"tmpfs", CGROUPS, flags, c"mode=0755") {
        say(format!("tmpfs cannot be mounted on {root}: {errno}"));
        return None;
    }
    for names in wanted {
        let target = format!("{root}/{names}");
        let made = make_dir(&target, 0o755).map_err(Errno::from);
        let mounted = made.and_then(|()| mount::mount(c"cgroup", &c_string(&target), flags, &c_string(&names)));
        if let Err(errno) = mounted {
            say(format!("the cgroup controllers {names} cannot be mounted on {target}: {errno}"));
        }
    }
    None
}

/// Hands all controllers down: together, and where the kernel refuses that (`false`), each that it does not refuse alone.
fn hand_down(given: &str) -> bool {
    let control = format!("{}/cgroup.subtree_control", text(CGROUPS));
    let mut all = String::new();
    for controller in given.split_whitespace() {
        all.push_str(&format!("+{controller} "));
    }
    let together = fs::write(&control, &all).is_ok();
    if !together {
        // One that cannot be handed down is missed, and named, by the service that wants it.
        for word in all.split_whitespace() {
            let _ = fs::write(&control, word);
        }
    }
    together
}

/// Whether v2, with the controllers `given`, has memory and pids as far as the kernel has them at all (`enabled`).
fn has_essential(given: &str, enabled: impl Fn(&str) -> bool) -> bool {
    let has = |name: &str| given.split_whitespace().any(|given| given == name);
    ["memory", "pids"].iter().all(|name| has(name) || !enabled(name))
}

/// Whether the text of /proc/cgroups (cgroups(7)) has a controller as enabled: name, hierarchy, groups, enabled.
fn is_enabled(known: &str, wanted: &str) -> bool {
    known.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.next() == Some(wanted) && fields.nth(2) == Some("1")
    })
}

/// The v1 hierarchies to mount.
fn v1(known: &str) -> Vec<String> {
    let mut wanted = Vec::new();
    for names in V1 {
        let mut have = Vec::new();
        have.extend(names.split(',').filter(|name| is_enabled(known, name)));
        if !have.is_empty() {
            wanted.push(have.join(","));
        }
    }
    wanted
}

fn text(string: &'static CStr) -> &'static str {
    string.to_str().unwrap_or_default()
}

/// A path or a name of ours, which holds no NUL byte.
pub fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_found_by_its_whole_path() {
        let mounts = "22 1 0:21 / /proc rw - proc proc rw\n23 1 0:22 / /dev/pts rw - devpts devpts rw\n";
        assert!(is_mounted(mounts, "/proc") && is_mounted(mounts, "/dev/pts"));
        assert!(!is_mounted(mounts, "/dev") && !is_mounted(mounts, "/proc/x"));
    }

    #[test]
    fn only_controllers_that_the_kernel_has_are_mounted() {
        let known = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t0\npids\t0\t1\t1\n";
        assert_eq!(v1(known), ["pids", "cpu"]);
        assert_eq!(v1(""), [""; 0]);
    }

    #[test]
    fn v1_is_for_kernels_that_have_memory_or_pids_there_alone() {
        let known = "memory\t0\t1\t1\npids\t0\t1\t1\n";
        let is_enough = |given: &str, known: &str| has_essential(given, |name| is_enabled(known, name));
        assert!(is_enough("cpu memory pids", known));
        assert!(!is_enough("cpu pids", known) && !is_enough("", known));
        let disabled = known.replace("memory\t0\t1\t1", "memory\t0\t1\t0");
        assert!(is_enough("cpu pids", &disabled), "a controller that is switched off is not in v1 either");
    }
}
