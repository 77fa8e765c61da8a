//! The steps of a start, from what is to be and what was found: data in, data out, with the kernel's constants but none
//! of its calls.
#![forbid(unsafe_code)]

use super::rootfs::HIDDEN;
use super::secrets::{self, Copy};
use super::spec::{Act, Bind, FileSystem, Net, Node, Reach, Source, Stdio, Step};
use super::stage::Stage;
use crate::base::units::Bytes;
use crate::image::mountable::Mountable;
use crate::plan::RootFs;
use std::ffi::{CStr, CString};
use std::fmt::Write;

/// What the steps are made from.
pub(super) struct Found {
    pub(super) root: FoundRoot,
    pub(super) root_fs: RootFs,
    /// User and group of the service.
    pub(super) owner: (u32, u32),
    /// What a tmpfs may hold: the service's memory limit.
    pub(super) memory: Option<Bytes>,
    pub(super) mounts: Vec<FoundMount>,
    pub(super) devices: Vec<Node>,
    pub(super) secrets: Vec<Copy>,
    /// Names and contents of the generated files in `/etc`.
    pub(super) files: Vec<(&'static CStr, Vec<u8>)>,
    pub(super) working_dir: CString,
    pub(super) hostname: CString,
    /// A cgroup v2 folder to show, read-only, at `/sys/fs/cgroup`.
    pub(super) cgroup: Option<Source>,
    /// Folders of `/sys` to hide beyond the usual ones.
    pub(super) hidden: Vec<CString>,
    pub(super) own_network: bool,
    /// Whether it gets a notify socket.
    pub(super) notify: bool,
    pub(super) stdio: Stdio,
}

/// The root file system.
pub(super) enum FoundRoot {
    /// One folder, which has all the mount points.
    Folder { source: Source, may_create: bool },
    /// A block device with a read-only file system, which has all the mount points.
    Disk(Source, Mountable),
    /// What lies beneath an upper layer in memory or in a folder.
    Layers { lower: Lower, upper: Option<Source> },
}

/// What lies beneath an upper layer.
pub(super) enum Lower {
    /// Layers, the highest first.
    Folders(Vec<Source>),
    /// A block device with a read-only file system.
    Disk(Source, Mountable),
}

/// A mount of the service.
pub(super) enum FoundMount {
    Bind(Bind),
    Tmpfs { target: CString, size: Bytes, read_only: bool },
}

/// Directories that are memory unless the service mounts something there, with their permissions.
pub(super) const SCRATCH: [(&CStr, u32); 3] = [(c"tmp", 0o1777), (c"run", 0o755), (c"var/tmp", 0o1777)];

/// Files of /proc that tell about, or change, the host (moby's list).
const MASKED_FILES: [&CStr; 7] = [
    c"proc/interrupts",
    c"proc/kcore",
    c"proc/keys",
    c"proc/latency_stats",
    c"proc/sched_debug",
    c"proc/timer_list",
    c"proc/timer_stats",
];
/// Directories of /proc and /sys likewise.
const MASKED_DIRS: [&CStr; 4] = [c"proc/acpi", c"proc/asound", c"proc/scsi", c"sys/devices/virtual/powercap"];
/// What of /proc may be read but not written.
const READ_ONLY: [&CStr; 5] = [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];
/// The devices that every container has: path, major, minor.
pub(super) const NODES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];
const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
    (c"pts/ptmx", c"dev/ptmx"),
];

const SAFE: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// Memory for the mount points and generated files over a read-only image.
const UPPER_OPTIONS: &CStr = c"size=1m,nr_inodes=1k,mode=755";

/// All steps in their order.
pub(super) fn compose(found: Found) -> Vec<Step> {
    let mut steps = Steps(Vec::with_capacity(64));
    steps.add(Stage::Propagation, Act::Private);
    let in_upper = matches!(found.root, FoundRoot::Layers { .. });
    steps.root(found.root, found.root_fs, found.memory);
    steps.kernel_file_systems();
    steps.dev();
    // Before the service's mounts: a folder of the host at /etc must keep its own files, and a file that is mounted over
    // one of these wins.
    for (name, content) in found.files {
        steps.add(Stage::File, Act::File { dir: c"etc", name, content, in_place: in_upper });
    }
    let targets: Vec<CString> = found.mounts.iter().map(|mount| mount.target().to_owned()).collect();
    for (path, mode) in SCRATCH.into_iter().filter(|(path, _)| !targets.iter().any(|target| **target == **path)) {
        let owner = if path == c"run" { found.owner } else { (0, 0) };
        let options = tmpfs_options(mode, found.memory, owner);
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        steps.mount(c"tmpfs", path, flags, &options, Reach::InRoot, false);
    }
    for mount in found.mounts {
        steps.service_mount(mount);
    }
    for node in found.devices {
        steps.device(node);
    }
    steps.0.extend(secrets::steps(found.secrets));
    if !found.working_dir.is_empty() {
        steps.add(Stage::WorkingDir, Act::WorkingDir { path: found.working_dir, owner: found.owner });
    }
    steps.masks(found.hidden, found.cgroup.is_some());
    if let Some(source) = found.cgroup {
        steps.cgroup(source);
    }
    steps.add(Stage::ReadOnly, Act::SealRoot { read_only: found.root_fs == RootFs::ReadOnly });
    steps.add(Stage::Pivot, Act::Pivot);
    steps.add(Stage::Hostname, Act::Hostname(found.hostname));
    if found.own_network {
        steps.add(Stage::Loopback, Act::Loopback);
    }
    match found.stdio {
        Stdio::Pipes | Stdio::Device(_) => steps.add(Stage::DevLog, Act::DevLog),
        Stdio::Terminal { rows, columns } => {
            steps.add(Stage::Session, Act::Terminal { rows, columns, owner: found.owner });
        }
        Stdio::Inherit => {}
    }
    if found.notify {
        steps.add(Stage::Notify, Act::Notify);
    }
    steps.0
}

/// The steps of a service on the host's root: it sees what is there.
pub(super) fn on_host(net: Net) -> Vec<Step> {
    match net {
        Net::New | Net::Existing(_) => vec![Step { stage: Stage::Loopback, act: Act::Loopback }],
        Net::Host => Vec::new(),
    }
}

impl FoundMount {
    pub(super) fn target(&self) -> &CStr {
        match self {
            FoundMount::Bind(bind) => &bind.target,
            FoundMount::Tmpfs { target, .. } => target,
        }
    }
}

struct Steps(Vec<Step>);

impl Steps {
    fn add(&mut self, stage: Stage, act: Act) {
        self.0.push(Step { stage, act });
    }

    fn mount(
        &mut self,
        kind: &'static CStr,
        target: &CStr,
        flags: libc::c_ulong,
        options: &CStr,
        reach: Reach,
        optional: bool,
    ) {
        let (target, options) = (target.to_owned(), options.to_owned());
        self.add(Stage::Mount, Act::Mount(FileSystem { kind, target, flags, options, reach, optional }));
    }

    fn root(&mut self, root: FoundRoot, root_fs: RootFs, memory: Option<Bytes>) {
        let (lower, upper) = match root {
            FoundRoot::Folder { source, may_create } => {
                return self.add(Stage::Root, Act::BindRoot { source, may_create });
            }
            FoundRoot::Disk(device, kind) => {
                return self.add(Stage::Root, Act::Disk { device, kind, as_root: true });
            }
            FoundRoot::Layers { lower, upper } => (lower, upper),
        };
        match upper {
            Some(folder) => self.add(Stage::Root, Act::Enter(folder)),
            None => {
                let options = match root_fs {
                    RootFs::Scratch => tmpfs_options(0o755, memory, (0, 0)),
                    _ => UPPER_OPTIONS.to_owned(),
                };
                self.add(Stage::Root, Act::Stage { options });
            }
        }
        let lower = match lower {
            Lower::Folders(lower) => lower,
            Lower::Disk(device, kind) => {
                self.add(Stage::Root, Act::Disk { device, kind, as_root: false });
                Vec::new()
            }
        };
        self.add(Stage::Root, Act::Overlay { lower });
    }

    fn kernel_file_systems(&mut self) {
        self.mount(c"proc", c"proc", SAFE, c"", Reach::Strict, false);
        self.mount(c"sysfs", c"sys", SAFE | libc::MS_RDONLY, c"", Reach::Strict, false);
    }

    fn dev(&mut self) {
        let options = c"mode=755,size=64k,nr_inodes=256";
        self.mount(c"tmpfs", c"dev", libc::MS_NOSUID, options, Reach::Strict, false);
        for (path, major, minor) in NODES {
            let (device, mode) = (libc::makedev(major, minor), libc::S_IFCHR | 0o666);
            self.add(Stage::Device, Act::Node(Node { path: path.to_owned(), mode, device, owner: None }));
        }
        for (to, path) in LINKS {
            self.add(Stage::Link, Act::Link { to, path });
        }
        for path in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
            self.add(Stage::Target, Act::Dir { path: path.to_owned(), mode: 0o755 });
        }
        let pts = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
        self.mount(c"devpts", c"dev/pts", libc::MS_NOSUID | libc::MS_NOEXEC, pts, Reach::Ours, false);
        self.mount(c"tmpfs", c"dev/shm", SAFE, c"mode=1777,size=64m", Reach::Ours, false);
        // A kernel without POSIX message queues has none to keep apart.
        self.mount(c"mqueue", c"dev/mqueue", SAFE, c"", Reach::Ours, true);
    }

    fn service_mount(&mut self, mount: FoundMount) {
        match mount {
            FoundMount::Bind(bind) => self.add(Stage::Mount, Act::Bind(bind)),
            FoundMount::Tmpfs { target, size, read_only } => {
                let mut flags = libc::MS_NOSUID | libc::MS_NODEV;
                if read_only {
                    flags |= libc::MS_RDONLY;
                }
                let options = tmpfs_options(0o1777, Some(size), (0, 0));
                self.mount(c"tmpfs", &target, flags, &options, Reach::InRoot, false);
            }
        }
    }

    /// A device of the service, with the directories above it in our own `/dev`.
    fn device(&mut self, node: Node) {
        let bytes = node.path.to_bytes();
        let slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for parent in slashes.skip(1).filter_map(|at| CString::new(bytes.get(..at)?).ok()) {
            let made = |step: &Step| matches!(&step.act, Act::Dir { path, .. } if *path == parent);
            if !self.0.iter().any(made) {
                self.add(Stage::Target, Act::Dir { path: parent, mode: 0o755 });
            }
        }
        self.add(Stage::Device, Act::Node(node));
    }

    fn masks(&mut self, hidden: Vec<CString>, cgroup_shown: bool) {
        self.mount(c"tmpfs", HIDDEN, SAFE | libc::MS_RDONLY, c"size=0k,nr_inodes=2", Reach::Ours, false);
        let usual = MASKED_DIRS.into_iter().map(CStr::to_owned);
        let cgroup = (!cgroup_shown).then(|| c"sys/fs/cgroup".to_owned());
        for path in usual.chain(hidden).chain(cgroup) {
            self.add(Stage::Mask, Act::MaskDir(path));
        }
        for path in MASKED_FILES {
            self.add(Stage::Mask, Act::MaskFile(path));
        }
        for path in READ_ONLY {
            self.add(Stage::ReadOnly, Act::ReadOnly(path));
        }
    }

    fn cgroup(&mut self, source: Source) {
        let target = c"sys/fs/cgroup".to_owned();
        let bind = Bind { source, target, directory: true, read_only: true, devices: false };
        self.add(Stage::Mount, Act::Bind(bind));
    }
}

/// tmpfs(5) options: permissions, size (a tmpfs without one may take half of the board's memory, so it always has one)
/// and owner.
fn tmpfs_options(mode: u32, size: Option<Bytes>, owner: (u32, u32)) -> CString {
    const WITHOUT_LIMIT: Bytes = Bytes(64 << 20);
    let size = size.unwrap_or(WITHOUT_LIMIT).0;
    let mut text = format!("mode={mode:o},size={size}");
    if owner != (0, 0) {
        // Writing to a String does not fail.
        let _ = write!(text, ",uid={},gid={}", owner.0, owner.1);
    }
    CString::new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: FoundRoot) -> Found {
        Found {
            root,
            root_fs: RootFs::ReadOnly,
            owner: (0, 0),
            memory: Some(Bytes(4 << 20)),
            mounts: Vec::new(),
            devices: Vec::new(),
            secrets: Vec::new(),
            files: Vec::new(),
            working_dir: CString::default(),
            hostname: c"h".to_owned(),
            cgroup: None,
            hidden: Vec::new(),
            own_network: true,
            notify: false,
            stdio: Stdio::Pipes,
        }
    }

    fn shown(found: Found) -> String {
        compose(found).iter().map(|step| format!("{step}\n")).collect()
    }

    fn folder() -> FoundRoot {
        FoundRoot::Folder { source: Source { fd: 5, path: c"/srv/root".to_owned() }, may_create: false }
    }

    #[test]
    fn mounts_come_before_masks_and_the_root_is_sealed_before_the_pivot() {
        let steps = shown(found(folder()));
        let at = |what: &str| steps.find(what).unwrap_or_else(|| panic!("{what} in {steps}"));
        assert!(at("make every mount private") < at("/srv/root as the new root"));
        assert!(at("proc on /proc") < at("hide file /proc/kcore"));
        assert!(at("/proc/sys read-only") < at("the root becomes read-only"));
        assert!(at("the root becomes read-only") < at("pivot into"));
        assert!(at("pivot into") < at("loopback up"));
    }

    #[test]
    fn a_mount_of_the_service_replaces_the_default_tmpfs() {
        let mut one = found(folder());
        let target = c"tmp".to_owned();
        one.mounts.push(FoundMount::Tmpfs { target, size: Bytes(4096), read_only: false });
        let steps = shown(one);
        assert_eq!(steps.matches("tmpfs on /tmp ").count(), 1, "{steps}");
        assert!(steps.contains("size=4096"), "{steps}");
    }

    #[test]
    fn folders_above_a_device_are_made_once() {
        let mut one = found(folder());
        for path in [c"dev/snd/pcm", c"dev/snd/ctl"] {
            one.devices.push(Node { path: path.to_owned(), mode: libc::S_IFCHR, device: 0, owner: None });
        }
        assert_eq!(shown(one).matches("directory /dev/snd ").count(), 1);
    }
}
