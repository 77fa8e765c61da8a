//! Entering a running container: its namespaces, and a process in it that is held to what its service is held to.
#![forbid(unsafe_code)]

use super::capabilities::Credentials;
use super::cgroup::Join;
use super::child::{self, Handed, Starting};
use super::command;
use super::ids::Ids;
use super::spec::Main;
use super::stage::Failure;
use crate::base::read::read_up_to;
use crate::plan::{CapSet, RlimitKind, Seccomp, UserSpec};
use crate::seccomp;
use crate::sys::path;
use crate::sys::process::{self, CStrings};
use nix::fcntl::OFlag;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Largest passwd or group file read, in bytes.
const SMALL_FILE_BYTES: u64 = 256 << 10;

/// The namespaces of a process (namespaces(7)), mount last: it takes the view of `/proc` away.
const NAMESPACES: [(&str, u64); 5] = [
    ("ipc", process::NEW_IPC),
    ("uts", process::NEW_UTS),
    ("net", process::NEW_NET),
    ("pid", process::NEW_PID),
    ("mnt", process::NEW_NS),
];

/// The way into a container, or to a service on the host's root: its namespaces, held open.
#[derive(Debug)]
pub struct Doors(Vec<(&'static str, u64, OwnedFd)>);

impl Doors {
    /// Opens the namespaces of process `init`; on the host's root only the network can be one of its own. The caller makes sure afterwards that it is still the process that was
    /// meant: what is open by then is that process's.
    ///
    /// # Errors
    /// A sentence.
    pub fn open(init: i32, host_root: bool) -> Result<Doors, String> {
        let mut doors = Vec::with_capacity(NAMESPACES.len());
        for (name, kind) in NAMESPACES.into_iter().filter(|(name, _)| !host_root || *name == "net") {
            let file = std::fs::File::open(format!("/proc/{init}/ns/{name}")).map_err(|error| {
                format!(
                    "the {name} namespace of process {init} cannot be opened: {error}; run this as root on the host"
                )
            })?;
            doors.push((name, kind, file.into()));
        }
        Ok(Doors(doors))
    }

    /// Enters all of them, not dumpable from before the first one on, so that nothing inside can look into this process
    /// (CVE-2016-9962). The pid namespace becomes that of children alone.
    ///
    /// # Errors
    /// A sentence. The process is then half inside and should end.
    pub fn enter(&self) -> Result<(), String> {
        process::set_dumpable(false).map_err(|errno| format!("PR_SET_DUMPABLE failed: {errno}"))?;
        self.0.iter().try_for_each(|(name, kind, fd)| {
            let entered = process::enter(fd.as_raw_fd(), *kind);
            entered.map_err(|errno| format!("the container's {name} namespace cannot be entered: {errno}"))
        })
    }
}

/// A process to start inside.
#[derive(Debug)]
pub struct Guest {
    /// Program and arguments.
    pub words: Vec<String>,
    /// `KEY=value`; later entries replace earlier ones.
    pub env: Vec<String>,
    /// Absolute.
    pub working_dir: String,
    /// Who it runs as.
    pub ids: Ids,
    /// The capabilities it keeps.
    pub caps: CapSet,
    /// Its system call filter.
    pub seccomp: Seccomp,
    /// Resource limits: number, soft, hard.
    pub rlimits: Vec<(i32, u64, u64)>,
    /// Value for `oom_score_adj`.
    pub oom_score_adj: Option<String>,
    /// The way into the service's cgroup.
    pub join: Join,
    /// Whether descriptor 0 is a terminal that it gets as its controlling one.
    pub terminal: bool,
    /// Whether it is in a container, and sees its cgroup as the root of all.
    pub container: bool,
}

impl Guest {
    /// Starts it with these descriptors as 0, 1 and 2 (-1: `/dev/null`), after [`Doors::enter`]; its pid as the host
    /// numbers it.
    ///
    /// # Errors
    /// What failed, or a sentence about words that cannot be handed on.
    pub fn start(self, stdio: [RawFd; 3]) -> Result<i32, Refused> {
        let strings = |list: &[String]| CStrings::of(list).map_err(|_| Refused::Words);
        let mut env = Vec::new();
        self.env.iter().for_each(|entry| command::set(&mut env, entry));
        let program = self.words.first().filter(|word| !word.is_empty()).ok_or(Refused::Words)?;
        let programs = command::programs(program, &env);
        let main = Main {
            programs: strings(&programs)?,
            argv: strings(&self.words)?,
            env: strings(&env)?,
            working_dir: CString::new(self.working_dir).map_err(|_| Refused::Words)?,
            credentials: Credentials {
                uid: self.ids.uid,
                gid: self.ids.gid,
                groups: self.ids.groups.as_slice().into(),
                caps: self.caps,
            },
            filter: seccomp::for_service(self.seccomp, self.caps, false),
            rlimits: self.rlimits,
            oom_score_adj: self.oom_score_adj.and_then(|value| CString::new(value).ok()),
            join: Some(self.join),
            cgroup_namespace: self.container,
            terminal: self.terminal,
            ready_fd: None,
            watchdog_pid: false,
            sockets: 0,
        };
        child::spawn_main(&main, main.join.as_ref(), Handed::only(stdio))
            .and_then(Starting::finish)
            .map_err(Refused::Start)
    }
}

/// Why a guest was not started.
#[derive(Debug)]
pub enum Refused {
    /// A word is empty or has a NUL byte in it.
    Words,
    /// The start failed.
    Start(Failure),
}

/// The ids that `user` (`USER`, `USER:GROUP`, names or numbers) stands for in the root file system that this process is
/// in.
///
/// # Errors
/// A sentence.
pub fn find_user(user: &str) -> Result<Ids, String> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group.into())),
        None => (user, None),
    };
    let spec = UserSpec { user: name.into(), group };
    Ids::lookup(&spec, &small_file(c"/etc/passwd"), &small_file(c"/etc/group")).map_err(|error| error.to_string())
}

/// A file of the image, empty if it is missing, no regular file, or far too large.
fn small_file(path: &std::ffi::CStr) -> Vec<u8> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    match path::open(path, flags).map(std::fs::File::from) {
        Ok(mut file) if file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= SMALL_FILE_BYTES) => {
            read_up_to(&mut file, SMALL_FILE_BYTES).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The resource limits of process `pid` from `/proc/PID/limits`, which unlike prlimit(2) needs no capability.
pub fn limits_of(pid: i32) -> Vec<(i32, u64, u64)> {
    parse_limits(&std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default())
}

fn parse_limits(text: &str) -> Vec<(i32, u64, u64)> {
    const ROWS: [(&str, RlimitKind); 14] = [
        ("Max cpu time", RlimitKind::Cpu),
        ("Max file size", RlimitKind::Fsize),
        ("Max data size", RlimitKind::Data),
        ("Max stack size", RlimitKind::Stack),
        ("Max core file size", RlimitKind::Core),
        ("Max processes", RlimitKind::Nproc),
        ("Max open files", RlimitKind::Nofile),
        ("Max locked memory", RlimitKind::Memlock),
        ("Max address space", RlimitKind::As),
        ("Max pending signals", RlimitKind::Sigpending),
        ("Max msgqueue size", RlimitKind::Msgqueue),
        ("Max nice priority", RlimitKind::Nice),
        ("Max realtime priority", RlimitKind::Rtprio),
        ("Max realtime timeout", RlimitKind::Rttime),
    ];
    let value = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
    let row = |line: &str| {
        let (name, kind) = ROWS.iter().find(|(name, _)| line.starts_with(name))?;
        let mut words = line.get(name.len()..)?.split_whitespace();
        Some((super::prepare::resource(*kind), value(words.next()?)?, value(words.next()?)?))
    };
    let mut limits = Vec::with_capacity(ROWS.len());
    limits.extend(text.lines().filter_map(row));
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_as_the_kernel_shows_them() {
        let own = limits_of(std::process::id() as i32);
        assert_eq!(own.len(), 14);
        let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        assert!(own.contains(&(libc::RLIMIT_NOFILE as i32, soft, hard)));
        assert_eq!(
            parse_limits("Max core file size  0  unlimited  bytes\nMax rubbish\nMax cpu time x y\n"),
            [(libc::RLIMIT_CORE as i32, 0, u64::MAX)]
        );
    }
}
