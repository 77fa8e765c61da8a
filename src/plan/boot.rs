//! What the board is brought up with when coracle is its first process. A supervisor under another init ignores all of it
//! but the watchdog.

use crate::base::units::{Bytes, Millis};

/// The part of `device` that PID 1 works through before the first service starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Boot {
    /// Kernel modules to load, in this order, each after what it depends on.
    pub modules: Vec<Box<str>>,
    /// Kernel parameters to set, in this order.
    pub sysctls: Vec<Sysctl>,
    /// File systems to mount, in this order.
    pub mounts: Vec<BoardMount>,
    /// The hardware watchdog; `None`: it is left alone.
    pub watchdog: Option<Watchdog>,
    /// What happens when no config can be used.
    pub rescue: Rescue,
}

/// A kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name with dots, `net.ipv4.ip_forward`; a dot within a component is written as a slash (sysctl.d(5)).
    pub name: Box<str>,
    /// Its value.
    pub value: Box<str>,
}

/// A file system of the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardMount {
    /// What: an absolute path of a block device, `PARTNAME=…`, `PARTUUID=…`, `LABEL=…`, `ubi0:volume`, or a word like
    /// `tmpfs` for a file system without a device.
    pub source: Box<str>,
    /// Where, absolute.
    pub target: Box<str>,
    /// The file system's type, as in /proc/filesystems.
    pub kind: Box<str>,
    /// Options as mount(8) takes them, separated by commas; flags among them are told apart.
    pub options: Box<str>,
    /// How long the source is waited for.
    pub wait: Millis,
    /// The size of a tmpfs that is mounted instead if it cannot be had, shown as degraded; `None`: the services that need
    /// it are held.
    pub fallback: Option<Bytes>,
}

/// The hardware watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watchdog {
    /// Its device; `None`: the first that there is, /dev/watchdog0 or /dev/watchdog.
    pub device: Option<Box<str>>,
    /// How long it waits for a sign of life before it resets the board; the driver's nearest is taken.
    pub timeout: Millis,
}

/// What happens when no config can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rescue {
    /// Whether a shell on the console may be asked for with `coracle.rescue` on the kernel's command line.
    pub shell: bool,
    /// How long rescue lasts before the board is rebooted; 0: for good.
    pub reboot_after: Millis,
}

impl Default for Rescue {
    fn default() -> Self {
        Rescue { shell: false, reboot_after: Millis::from_secs(600) }
    }
}
