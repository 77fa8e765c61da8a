//! What can go wrong with a cgroup, each as one sentence with the file, the value, the cause and the way out.

use crate::plan::Feature;
use crate::sys::Errno;
use core::fmt;

/// A failure of the cgroup layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    cause: Cause,
    sentence: Box<str>,
}

/// What someone can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The kernel, or the place in the cgroup tree, cannot enforce this.
    Missing(Feature),
    /// The kernel refused a value.
    Refused(Errno),
    /// Anything else.
    Other,
}

impl Error {
    fn new(cause: Cause, sentence: String) -> Error {
        Error { cause, sentence: sentence.into() }
    }

    /// The kernel, or the place in the cgroup tree, cannot enforce `feature`; `reason` says why.
    pub(super) fn missing(feature: Feature, reason: &str) -> Error {
        let (word, hint) = (feature.word(), kernel_option(feature));
        let sentence =
            format!("{word} cannot be enforced here: {reason}; {hint}, or list \"{word}\" in device.allow_missing");
        Error::new(Cause::Missing(feature), sentence)
    }

    /// The file that would enforce `feature` is not there.
    pub(super) fn no_file(feature: Feature, folder: &str, name: &str) -> Error {
        Error::missing(feature, &format!("{folder}/{name} is not there"))
    }

    /// The kernel refused `value` in `file`.
    pub(super) fn refused(feature: Feature, file: &str, value: &str, errno: Errno) -> Error {
        let word = feature.word();
        let sentence = format!("{word}: the kernel refused {value:?} in {file}: {errno}; {}", advice(errno));
        Error::new(Cause::Refused(errno), sentence)
    }

    /// The kernel took `value` in `file` but `shows` something else.
    pub(super) fn not_kept(feature: Feature, file: &str, value: &str, shows: &str) -> Error {
        let word = feature.word();
        let way_out = "the limit does not hold: choose a value that this board can enforce";
        Error::other(format!("{word}: {file} shows {shows:?} after {value:?} was written; {way_out}"))
    }

    /// `path` could not be used, as in "cannot {doing} PATH".
    pub(super) fn failed(doing: &str, path: &str, errno: Errno) -> Error {
        Error::other(format!("cannot {doing} {path}: {errno}; {}", advice(errno)))
    }

    /// The same of the file `name` in `folder`.
    pub(super) fn failed_in(doing: &str, folder: &str, name: &str, errno: Errno) -> Error {
        Error::failed(doing, &format!("{folder}/{name}"), errno)
    }

    /// The group still holds processes, of which `pids` are the first.
    pub(super) fn busy(path: &str, pids: &[i32]) -> Error {
        let way_out = "are still in it; end them, or wait until the kernel lets them go";
        Error::other(format!("cannot remove cgroup {path}: processes {pids:?} {way_out}"))
    }

    /// The group could not be frozen in time.
    pub(super) fn not_frozen(path: &str) -> Error {
        let why = "(a process waits inside the kernel) and was let go again; try again later";
        Error::other(format!("cgroup {path} did not freeze in time {why}"))
    }

    /// A record of a group's folders does not read as one.
    pub(super) fn bad_record() -> Error {
        Error::other("the record of the cgroup's folders is damaged; restart the service".to_owned())
    }

    fn other(sentence: String) -> Error {
        Error::new(Cause::Other, sentence)
    }

    /// What was asked for and cannot be had here, if that is the failure.
    pub fn feature(&self) -> Option<Feature> {
        match self.cause {
            Cause::Missing(feature) => Some(feature),
            Cause::Refused(_) | Cause::Other => None,
        }
    }

    /// The number with which the kernel refused a value, if that is the failure.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self.cause {
            Cause::Refused(errno) => Some(errno),
            Cause::Missing(_) | Cause::Other => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Error {}

impl From<Error> for String {
    fn from(error: Error) -> String {
        error.sentence.into()
    }
}

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
