//! What one start will do, as data: a list of steps for the init and a description of the first process.
//!
//! Nothing here calls the kernel.
#![forbid(unsafe_code)]

use super::capabilities::Credentials;
use super::cgroup::Join;
use super::secrets::Copy;
use super::stage::Stage;
use crate::base::units::Millis;
use crate::image::mountable::Mountable;
use crate::plan::CapSet;
use crate::seccomp::Filter;
use crate::sys::process::CStrings;
use core::fmt;
use std::ffi::{CStr, CString};
use std::os::fd::{OwnedFd, RawFd};

/// The notify socket of a container: in its own `/dev`, which every container has, whatever is mounted into it.
pub const NOTIFY: &CStr = c"/dev/notify";

/// Everything that a start does after the clone.
#[derive(Debug)]
pub struct Spec {
    /// Where the first process lives.
    pub place: Place,
    /// What the init does, in this order, before it starts the first process.
    pub steps: Vec<Step>,
    /// What has to end well before the first process is started.
    pub pre_start: Option<Main>,
    /// What runs once the first process has ended, and how long it may take.
    pub post_stop: Option<(Main, Millis)>,
    /// The first process.
    pub main: Main,
    /// The init's own system call filter ([`crate::seccomp::Profile::Init`]).
    pub init_filter: Filter,
    /// The network namespace.
    pub net: Net,
    /// Whether the init is killed when the process that spawned it ends (`run`), or outlives it (`up`).
    pub die_with_parent: bool,
    /// Where standard input, output and error of the first process come from.
    pub stdio: Stdio,
    /// The descriptors that the steps name.
    pub held: Vec<OwnedFd>,
    /// Descriptors that the child closes first of all: a lock, or a socket that listens, must end with its owner, also
    /// while an init is still making its sandbox.
    pub closed: Vec<RawFd>,
}

/// Where a first process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In namespaces of its own (mnt, pid, ipc, uts), which its init is the first process of.
    Container,
    /// Among the host's processes and files. Its init is the subreaper of what it starts, and its cgroup is what tells
    /// it from the rest of the machine.
    Host,
}

/// Which network namespace a service gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// The host's.
    Host,
    /// A new one.
    New,
    /// The one behind this descriptor (setns(2)), which outlives the container.
    Existing(RawFd),
}

/// Standard input, output and error of the first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// Output and error into two pipes, owned by the service's user, whose read ends the init gets; input `/dev/null`.
    Pipes,
    /// The spawning process's own 0, 1 and 2.
    Inherit,
    /// All three are this terminal of the host, which becomes the controlling one.
    Device(RawFd),
    /// A pseudo-terminal made in the container's own devpts; its master is sent back over the channel.
    Terminal {
        /// Its rows at the start.
        rows: u16,
        /// Its columns at the start.
        columns: u16,
    },
}

/// One step: what is done, and the stage that a failure of it is reported under.
#[derive(Debug)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// What is done.
    pub act: Act,
}

/// What a step does. Paths without a leading slash lie beneath the new root, which is the working directory from
/// [`Act::BindRoot`] or [`Act::Overlay`] on.
#[derive(Debug)]
pub enum Act {
    /// Makes every mount private, so that nothing propagates to or from the host.
    Private,
    /// Mounts a tmpfs where it is out of the way and vanishes with the old root; makes `upper`, `work` and `root` in it
    /// and changes into it.
    Stage {
        /// tmpfs options.
        options: CString,
    },
    /// Changes into a folder that holds `upper`, `work` and `root`.
    Enter(Source),
    /// Mounts an overlay of these layers, the highest first, on `root` of the working directory and changes into it.
    Overlay {
        /// The layers; without any, what is mounted on `root` already is the only one.
        lower: Vec<Source>,
    },
    /// Mounts a block device's read-only file system.
    Disk {
        /// The device.
        device: Source,
        /// What is on it.
        kind: Mountable,
        /// Whether it is the root itself, out of the host's way, changed into; else it is mounted on `root` of the
        /// working directory.
        as_root: bool,
    },
    /// Mounts a folder out of the host's way and changes into it.
    BindRoot {
        /// The folder.
        source: Source,
        /// Whether missing mount points may be made in it: it is coracle's own copy.
        may_create: bool,
    },
    /// Mounts a file system.
    Mount(FileSystem),
    /// Mounts what is behind a descriptor.
    Bind(Bind),
    /// Makes a directory in a file system that the container got from us, which nothing else has touched.
    Dir {
        /// Path.
        path: CString,
        /// Permissions.
        mode: u32,
    },
    /// Makes a character or block device node, or binds the host's where mknod(2) is refused.
    Node(Node),
    /// Makes a symbolic link in `/dev`.
    Link {
        /// What it says.
        to: &'static CStr,
        /// Its path.
        path: &'static CStr,
    },
    /// Replaces a file in a directory of the image; skipped where the directory is missing.
    File {
        /// The directory.
        dir: &'static CStr,
        /// The file's name.
        name: &'static CStr,
        /// Its content.
        content: Vec<u8>,
        /// Whether it is written to the root itself, which has an upper layer of the container's own; otherwise it is
        /// mounted over the one that is there.
        in_place: bool,
    },
    /// Copies a secret and mounts the copy.
    Secret(Copy),
    /// Takes the file system that the copies were made in out of the container.
    LeaveSecrets(&'static CStr),
    /// Makes the working directory, owned by the service's user, if it is missing.
    WorkingDir {
        /// Path beneath the root.
        path: CString,
        /// User and group.
        owner: (u32, u32),
    },
    /// Hides a file behind `/dev/null`, if it exists.
    MaskFile(&'static CStr),
    /// Hides a directory behind the empty read-only one, if it exists.
    MaskDir(CString),
    /// Makes what lies at a path of our own mounts read-only, if it exists.
    ReadOnly(&'static CStr),
    /// Binds the log socket.
    DevLog,
    /// Binds the notify socket.
    Notify,
    /// Opens a terminal in the container's own devpts.
    Terminal {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
        /// User and group.
        owner: (u32, u32),
    },
    /// Sets the mount flags of the root itself.
    SealRoot {
        /// Whether it becomes read-only.
        read_only: bool,
    },
    /// Makes the working directory the root and drops the old root.
    Pivot,
    /// Sets the host name.
    Hostname(CString),
    /// Brings the loopback interface up.
    Loopback,
}

/// A file system to mount.
#[derive(Debug)]
pub struct FileSystem {
    /// Its type.
    pub kind: &'static CStr,
    /// Where.
    pub target: CString,
    /// mount(2) flags.
    pub flags: libc::c_ulong,
    /// Its options.
    pub options: CString,
    /// How the target is found.
    pub reach: Reach,
    /// Whether a kernel without this file system is fine.
    pub optional: bool,
}

/// How a mount's target is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// By its path: it lies in a file system that this start has just mounted.
    Ours,
    /// Beneath the root; a symbolic link is refused, because the container's own file systems must be where they say.
    Strict,
    /// Beneath the root; symbolic links are resolved as if the root were `/`.
    InRoot,
}

/// Something of the host that gets mounted.
///
/// A mount namespace takes only its own mounts as sources, so the child opens the path again; the parent's descriptor
/// proves that it is still the same file.
#[derive(Debug)]
pub struct Source {
    /// Opened by the parent, kept in [`Spec::held`].
    pub fd: RawFd,
    /// Its path on the host.
    pub path: CString,
}

/// A bind mount.
#[derive(Debug)]
pub struct Bind {
    /// What is mounted.
    pub source: Source,
    /// Where.
    pub target: CString,
    /// Whether source and target are directories.
    pub directory: bool,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Whether device nodes on it work.
    pub devices: bool,
}

/// A device node.
#[derive(Debug)]
pub struct Node {
    /// Its path.
    pub path: CString,
    /// Type and permissions as in `st_mode`.
    pub mode: u32,
    /// Device number.
    pub device: libc::dev_t,
    /// Owner.
    pub owner: Option<(u32, u32)>,
}

/// The first process of a container, or a process that enters one.
#[derive(Debug)]
pub struct Main {
    /// The paths to try, in this order.
    pub programs: CStrings,
    /// Its words.
    pub argv: CStrings,
    /// Its environment.
    pub env: CStrings,
    /// Working directory; must lead inside the root.
    pub working_dir: CString,
    /// Who it runs as, with which capabilities.
    pub credentials: Credentials,
    /// The compiled system call filter, if any.
    pub filter: Option<Filter>,
    /// Resource limits: number, soft, hard.
    pub rlimits: Vec<(i32, u64, u64)>,
    /// Value to write to `oom_score_adj`; `None`: what it inherits is right.
    pub oom_score_adj: Option<CString>,
    /// How it gets into its cgroup; `None`: it stays in that of the init.
    pub join: Option<Join>,
    /// Whether it gets a cgroup namespace rooted at its cgroup.
    pub cgroup_namespace: bool,
    /// Whether descriptor 0 becomes the controlling terminal of the new session.
    pub terminal: bool,
    /// The descriptor on which it says that it is ready.
    pub ready_fd: Option<RawFd>,
    /// How many sockets it gets from descriptor 3 on; with any, `LISTEN_PID` with its own process id is put into its
    /// environment (sd_listen_fds(3)).
    pub sockets: usize,
    /// Whether `WATCHDOG_PID` with its own process id is put into its environment (sd_watchdog_enabled(3)).
    pub watchdog_pid: bool,
}

/// A string as people read it.
struct Text<'a>(&'a CStr);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string_lossy())
    }
}

/// Strings with a space between them.
struct Words<'a>(&'a CStrings);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, word) in self.0.strings().iter().enumerate() {
            write!(f, "{}{}", if place == 0 { "" } else { " " }, Text(word))?;
        }
        Ok(())
    }
}

impl fmt::Display for Spec {
    /// What `coracle inspect --steps` prints: the steps of the init, then those of the first process, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let net = match self.net {
            Net::Host => "the host's network",
            Net::New => "net (new)",
            Net::Existing(_) => "net (that of the instances before)",
        };
        let namespaces = match self.place {
            Place::Container => "mnt pid ipc uts",
            Place::Host => "the host's mnt pid ipc uts",
        };
        writeln!(f, "{:<16} {namespaces}, {net}", Stage::Clone.word())?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        let mut command = |stage: Stage, main: &Main| writeln!(f, "{:<16} {}", stage.word(), Words(&main.argv));
        self.pre_start.as_ref().map_or(Ok(()), |main| command(Stage::PreStart, main))?;
        self.post_stop.as_ref().map_or(Ok(()), |(main, _)| command(Stage::PostStop, main))?;
        write!(f, "{}", self.main)
    }
}

impl fmt::Display for Main {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |stage: Stage, text: &dyn fmt::Display| writeln!(f, "{:<16} {text}", stage.word());
        line(Stage::Fork, &"the first process")?;
        if self.join.is_some() {
            line(Stage::Join, &"the service's limits hold from here on")?;
        }
        if self.cgroup_namespace {
            line(Stage::CgroupNamespace, &"rooted at the service's cgroup")?;
        }
        let terminal = if self.terminal { ", with a controlling terminal" } else { "" };
        line(Stage::Session, &format_args!("a session of its own{terminal}"))?;
        for (number, soft, hard) in &self.rlimits {
            let value = |value: u64| if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
            line(
                Stage::Rlimit,
                &format_args!("{} {} {}", super::child::rlimit_name(*number), value(*soft), value(*hard)),
            )?;
        }
        if let Some(score) = &self.oom_score_adj {
            line(Stage::OomScore, &Text(score))?;
        }
        let Credentials { uid, gid, groups, caps } = &self.credentials;
        line(Stage::Ids, &format_args!("user {uid}, group {gid}, further groups {groups:?}"))?;
        let names: Vec<&str> = caps.names().collect();
        line(
            Stage::Capabilities,
            &match *caps {
                CapSet::ALL => "as they are".to_owned(),
                CapSet::EMPTY => "none; no_new_privs".to_owned(),
                _ => format!("{}; no_new_privs", names.join(" ")),
            },
        )?;
        line(Stage::WorkingDir, &Text(&self.working_dir))?;
        let ready = self.ready_fd.map_or(String::new(), |fd| format!(", and {fd} to say that it is ready"));
        line(Stage::Stdio, &format_args!("everything but 0, 1 and 2 closes{ready}"))?;
        if let Some(filter) = &self.filter {
            line(Stage::Seccomp, &format_args!("a filter of {} instructions", filter.len()))?;
        }
        write!(f, "{:<16} {} (looked for as {})", Stage::Exec.word(), Words(&self.argv), Words(&self.programs))
    }
}

impl fmt::Display for Step {
    /// One line of `coracle inspect --steps`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} ", self.stage.word())?;
        match &self.act {
            Act::Private => write!(f, "make every mount private"),
            Act::Stage { options } => write!(f, "tmpfs for the upper layer ({})", Text(options)),
            Act::Enter(folder) => write!(f, "enter {}, which keeps the upper layer", Text(&folder.path)),
            Act::Overlay { lower } => {
                write!(f, "overlay as the new root, highest layer first:")?;
                lower.iter().try_for_each(|layer| write!(f, " {}", Text(&layer.path)))
            }
            Act::Disk { device, kind, as_root } => {
                let what = if *as_root { "as the new root" } else { "beneath the upper layer" };
                write!(f, "{} with {} {what}", Text(&device.path), kind.name())
            }
            Act::BindRoot { source, .. } => write!(f, "{} as the new root", Text(&source.path)),
            Act::Mount(mount) => {
                let FileSystem { kind, target, flags, options, .. } = mount;
                write!(f, "{} on /{} flags {flags:#x} ({})", Text(kind), Text(target), Text(options))
            }
            Act::Bind(bind) => {
                let mode = if bind.read_only { "read-only" } else { "read-write" };
                write!(f, "{} on /{} {mode}", Text(&bind.source.path), Text(&bind.target))
            }
            Act::Dir { path, mode } => write!(f, "directory /{} {mode:04o}", Text(path)),
            Act::Node(node) => {
                let (major, minor) = (libc::major(node.device), libc::minor(node.device));
                write!(f, "/{} {major}:{minor} {:04o}", Text(&node.path), node.mode & 0o7777)
            }
            Act::Link { to, path } => write!(f, "/{} -> {}", Text(path), Text(to)),
            Act::File { dir, name, content, .. } => {
                write!(f, "/{}/{} ({} bytes)", Text(dir), Text(name), content.len())
            }
            Act::Secret(Copy { target, owner, .. }) => {
                write!(f, "a copy of a secret on /{}, of {owner:?}", Text(target))
            }
            Act::LeaveSecrets(place) => write!(f, "/{} goes, the copies stay on their targets", Text(place)),
            Act::WorkingDir { path, owner } => write!(f, "directory /{} if missing, of {owner:?}", Text(path)),
            Act::MaskFile(path) => write!(f, "hide file /{}", Text(path)),
            Act::MaskDir(path) => write!(f, "hide directory /{}", Text(path)),
            Act::ReadOnly(path) => write!(f, "/{} read-only", Text(path)),
            Act::DevLog => write!(f, "log socket /dev/log"),
            Act::Notify => write!(f, "notify socket {}", Text(NOTIFY)),
            Act::Terminal { rows, columns, .. } => write!(f, "terminal of {columns}x{rows}"),
            Act::SealRoot { read_only: true } => write!(f, "the root becomes read-only, nosuid, nodev"),
            Act::SealRoot { read_only: false } => write!(f, "the root becomes nosuid, nodev"),
            Act::Pivot => write!(f, "pivot into the new root, drop the old one"),
            Act::Hostname(name) => write!(f, "host name {}", Text(name)),
            Act::Loopback => write!(f, "loopback up"),
        }
    }
}
