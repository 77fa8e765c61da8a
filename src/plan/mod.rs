//! The validated plan: what a device runs, in types that cannot express a mistake.
//!
//! `config` makes it from a file, `cli::run` from arguments; everything above only reads it.
#![forbid(unsafe_code)]

pub mod boot;
pub mod capability;
pub mod device;
pub mod feature;
pub mod health;
pub mod limits;
pub mod service;

pub use boot::{BoardMount, Boot, Rescue, Sysctl, Watchdog};
pub use capability::CapSet;
pub use device::Device;
pub use feature::{Feature, FeatureSet};
pub use health::{Health, Probe, Role, Times, Url};
pub use limits::{IoLimit, Limits, Memory, Rlimit, RlimitKind};
pub use service::{
    Await, Condition, DeviceNode, DeviceRules, Kind, Listen, LogPolicy, Mount, MountKind, Need, Network, NotifyAccess,
    Ready, Restart, RestartPolicy, Root, RootFs, Schedule, Seccomp, Secret, Service, Socket, Stop, Then, Timer,
    UserSpec,
};

/// A device with its services.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// What concerns the whole board.
    pub device: Device,
    /// The services as the file lists them. An index into this list is a service's identity while the plan lives.
    pub services: Vec<Service>,
    /// Indices of `services` so that every service comes after all that it needs. Holds each index once.
    pub start_order: Vec<u16>,
    /// A checksum of the text that it was made from; 0: unknown.
    pub digest: u64,
}

impl Plan {
    /// The index of the service called `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.services.iter().position(|service| service.name.as_str() == name)
    }
}
