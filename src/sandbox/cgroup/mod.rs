//! Control groups (cgroups(7)): v1, v2 and the hybrid, told apart per controller, behind one interface.
//!
//! A [`Tree`] is the place for groups beneath the cgroup that coracle was started in. A [`Group`] is one service's: one
//! folder per hierarchy that is needed, carrying the limits, with the service's processes directly in it. Restarting a
//! service reuses its group and costs no cgroup work. The processes are not in leaves below the limits, because limits
//! count the whole subtree anyway, a folder more per start costs time on v1, and on v2 a program that reads
//! `/sys/fs/cgroup/memory.max` inside its cgroup namespace would not find its own limit.
//!
//! A limit is written before the first process joins, read back, and refused if the file does not show it. What this
//! kernel lacks is an error with [`Error::feature`] unless `device.allow_missing` names it; then [`Group::missing`] tells.
//!
//! | file | what |
//! |---|---|
//! | [`discover`] | pure: where this process's hierarchies are |
//! | [`limits`] | pure: limits to file contents, and whether a file shows what was written |
//! | [`devices`] | pure: the device allow-list as a program for v2 |
//! | [`stats`] | pure parsing and reading of what a group uses |
//! | `tree`, `v1`, `v2` | making groups |
//! | `group` | joining, freezing, killing, watching, removing |
//! | `killer` | killing from a service's init |

pub mod devices;
pub mod discover;
mod error;
mod file;
mod group;
mod killer;
pub mod limits;
pub mod stats;
mod tree;
mod v1;
mod v2;

pub use devices::Rule as DeviceRule;
pub use error::Error;
pub use group::{Group, Join, OomEvent};
pub use killer::Killer;
pub use stats::Stats;
pub use tree::{Known, Options, Tree, stays_put};

use crate::base::mountinfo::has_option;
use crate::plan::Feature;

/// What the names of the groups of `coracle run` begin with; they end in the number of its process.
pub const RUN_PREFIX: &str = "coracle-run";

/// The answer of this layer.
pub type Result<T> = core::result::Result<T, Error>;

/// A controller, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Memory and swap.
    Memory,
    /// Number of processes.
    Pids,
    /// Cpu quota and weight.
    Cpu,
    /// Cpu time used (v1; v2 counts it in every group).
    Cpuacct,
    /// Cores.
    Cpuset,
    /// Device access (v1; v2 has a BPF hook).
    Devices,
    /// Freezing (v1; v2 has it in every group since Linux 5.2).
    Freezer,
    /// Block devices: `blkio` in v1, `io` in v2.
    Io,
}

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 8] = [
        Controller::Memory,
        Controller::Pids,
        Controller::Cpu,
        Controller::Cpuacct,
        Controller::Cpuset,
        Controller::Devices,
        Controller::Freezer,
        Controller::Io,
    ];

    /// The name in `/proc/self/cgroup` and in v1 mount options.
    pub const fn v1_name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Cpuset => "cpuset",
            Controller::Devices => "devices",
            Controller::Freezer => "freezer",
            Controller::Io => "blkio",
        }
    }

    /// The controller of that v1 name.
    pub fn from_v1_name(name: &str) -> Option<Controller> {
        Controller::ALL.into_iter().find(|controller| controller.v1_name() == name)
    }

    /// The name in v2's `cgroup.controllers`; `None` for what v2 has without a controller.
    pub const fn v2_name(self) -> Option<&'static str> {
        match self {
            Controller::Memory => Some("memory"),
            Controller::Pids => Some("pids"),
            Controller::Cpu => Some("cpu"),
            Controller::Cpuset => Some("cpuset"),
            Controller::Io => Some("io"),
            Controller::Cpuacct | Controller::Devices | Controller::Freezer => None,
        }
    }

    /// What a service loses without it.
    pub const fn feature(self) -> Feature {
        match self {
            Controller::Memory => Feature::Memory,
            Controller::Pids => Feature::Pids,
            Controller::Cpu | Controller::Cpuacct => Feature::Cpu,
            Controller::Cpuset => Feature::Cpus,
            Controller::Devices => Feature::Devices,
            Controller::Freezer => Feature::Freezer,
            Controller::Io => Feature::Io,
        }
    }
}

/// A set of controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Controllers(u8);

impl Controllers {
    /// The set of those for which `holds`.
    pub fn which(holds: impl Fn(Controller) -> bool) -> Controllers {
        let mut set = Controllers::default();
        Controller::ALL.into_iter().filter(|one| holds(*one)).for_each(|one| set.add(one));
        set
    }

    /// Those of the `list`.
    pub const fn of(list: &[Controller]) -> Controllers {
        let (mut bits, mut at) = (0, 0);
        while at < list.len() {
            bits |= 1 << list[at] as u8;
            at += 1;
        }
        Controllers(bits)
    }

    /// Those of v1 that `names`, separated by commas, name.
    pub fn of_v1(names: &str) -> Controllers {
        Controllers::which(|one| has_option(names, one.v1_name()))
    }

    /// Whether `one` is in the set.
    pub const fn has(self, one: Controller) -> bool {
        self.0 >> one as u8 & 1 == 1
    }

    /// Adds `one`.
    pub fn add(&mut self, one: Controller) {
        self.0 |= 1 << one as u8;
    }

    /// Those of this set and of the `other`.
    #[must_use]
    pub const fn and(self, other: Controllers) -> Controllers {
        Controllers(self.0 | other.0)
    }

    /// Those of this set that are not in the `other`.
    #[must_use]
    pub const fn without(self, other: Controllers) -> Controllers {
        Controllers(self.0 & !other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, in the order of [`Controller::ALL`].
    pub fn each(self) -> impl Iterator<Item = Controller> {
        Controller::ALL.into_iter().filter(move |one| self.has(*one))
    }
}
