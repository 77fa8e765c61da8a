//! What can go wrong with a cgroup, each as one sentence with the file, the value, the cause and the way out.

use crate::plan::Feature;
use crate::sys::Errno;
use core::fmt;

/// A failure of the cgroup layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The kernel, or the place in the cgroup tree, cannot enforce something that was asked for.
    Missing {
        /// What was asked for.
        feature: Feature,
        /// Why it cannot be had.
        reason: String,
    },
    /// The kernel refused a value.
    Refused {
        /// What was asked for.
        feature: Feature,
        /// The file.
        file: String,
        /// What was written to it.
        value: String,
        /// The answer.
        errno: Errno,
    },
    /// The kernel took a value but does not show it.
    NotKept {
        /// What was asked for.
        feature: Feature,
        /// The file.
        file: String,
        /// What was written to it.
        value: String,
        /// What it shows.
        shows: String,
    },
    /// A file or folder of the cgroup file system could not be used.
    Failed {
        /// What was being done, as in "cannot {doing} PATH".
        doing: &'static str,
        /// The path.
        path: String,
        /// The answer.
        errno: Errno,
    },
    /// A group still holds processes.
    Busy {
        /// Its folder.
        path: String,
        /// The first of them.
        pids: Vec<i32>,
    },
    /// A group could not be frozen in time.
    NotFrozen {
        /// Its folder.
        path: String,
    },
    /// A record of a group's folders does not read as one.
    BadRecord,
}

impl Error {
    /// What was asked for and cannot be had, if that is the failure.
    pub fn feature(&self) -> Option<Feature> {
        match self {
            Error::Missing { feature, .. } | Error::Refused { feature, .. } | Error::NotKept { feature, .. } => {
                Some(*feature)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Missing { feature, reason } => write!(
                f,
                "{word} cannot be enforced here: {reason}; {hint}, or list \"{word}\" in device.allow_missing",
                word = feature.word(),
                hint = kernel_option(*feature),
            ),
            Error::Refused { feature, file, value, errno } => {
                write!(f, "{}: the kernel refused {value:?} in {file}: {errno}; {}", feature.word(), advice(*errno))
            }
            Error::NotKept { feature, file, value, shows } => write!(
                f,
                "{}: {file} shows {shows:?} after {value:?} was written; the limit does not hold: choose a value that this board can enforce",
                feature.word()
            ),
            Error::Failed { doing, path, errno } => {
                write!(f, "cannot {doing} {path}: {errno}; {}", advice(*errno))
            }
            Error::Busy { path, pids } => write!(
                f,
                "cannot remove cgroup {path}: processes {pids:?} are still in it; end them, or wait until the kernel lets them go"
            ),
            Error::NotFrozen { path } => write!(
                f,
                "cgroup {path} did not freeze in time (a process waits inside the kernel) and was let go again; try again later"
            ),
            Error::BadRecord => write!(f, "the record of the cgroup's folders is damaged; restart the service"),
        }
    }
}

impl std::error::Error for Error {}

/// What a kernel or its command line needs for `feature`.
fn kernel_option(feature: Feature) -> &'static str {
    match feature {
        Feature::Memory => "boot a kernel with CONFIG_MEMCG (on a Raspberry Pi: cgroup_enable=memory)",
        Feature::Swap => "boot a kernel with CONFIG_SWAP and CONFIG_MEMCG, with swapaccount=1, or use no swap",
        Feature::Pids => "boot a kernel with CONFIG_CGROUP_PIDS",
        Feature::Cpu => "boot a kernel with CONFIG_CGROUP_SCHED and CONFIG_CFS_BANDWIDTH",
        Feature::Cpus => "boot a kernel with CONFIG_CPUSETS",
        Feature::Io => "boot a kernel with CONFIG_BLK_CGROUP and CONFIG_BLK_DEV_THROTTLING",
        Feature::Devices => "boot a kernel with CONFIG_CGROUP_BPF (cgroup v2) or CONFIG_CGROUP_DEVICE (v1)",
        Feature::Freezer => "boot a kernel with CONFIG_CGROUP_FREEZER, or 5.2 and later with cgroup v2",
        Feature::Seccomp => "boot a kernel with CONFIG_SECCOMP_FILTER",
        Feature::Ipc => "boot a kernel with CONFIG_IPC_NS",
    }
}

/// The way out of an error number of the cgroup file system.
fn advice(errno: Errno) -> &'static str {
    match errno.0 {
        libc::EACCES | libc::EPERM => "run coracle as root in a cgroup that it may write to",
        libc::EROFS => "mount the cgroup file system writable",
        libc::EBUSY => {
            "what is used already exceeds it, or other processes share the cgroup: free memory, or start coracle in a cgroup of its own"
        }
        libc::EINVAL => "the value is outside of what the enclosing cgroup or this board allows: choose a smaller one",
        libc::ENODEV | libc::ENXIO => "name a whole disk of this board, not a partition",
        libc::ENOSPC => "the kernel is out of cgroups: remove unused ones",
        libc::ENOMEM => "the board is out of memory",
        libc::ENOENT => "mount the cgroup file system, or restart the service",
        _ => "see the kernel log",
    }
}
