//! What a service may use.

use crate::base::units::Bytes;

/// The memory limit, which every service must state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// At most so many bytes; beyond it the service is killed as a group.
    Max(Bytes),
    /// Bounded by the board alone (a warning in `check`).
    Unlimited,
}

/// Limits that the kernel enforces through cgroups.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Memory.
    pub memory: Memory,
    /// Reclaim pressure begins here (cgroup v2 `memory.high`, v1 `memory.soft_limit_in_bytes`).
    pub memory_high: Option<Bytes>,
    /// Swap on top of memory.
    pub swap: Bytes,
    /// Processes and threads.
    pub pids: u32,
    /// Cpu time in percent of one core; 150 is one and a half.
    pub cpu: Option<u32>,
    /// Share against other services when the cpu is contended: 1 to 10000, 100 is the kernel's default.
    pub cpu_weight: Option<u16>,
    /// Cores as the kernel writes them, `0-1,3`.
    pub cpus: Option<Box<str>>,
    /// Limits per block device.
    pub io: Vec<IoLimit>,
}

impl Limits {
    /// The defaults beside a memory limit: no swap, 64 pids, nothing else.
    pub fn with_memory(memory: Memory) -> Limits {
        Limits {
            memory,
            memory_high: None,
            swap: Bytes(0),
            pids: 64,
            cpu: None,
            cpu_weight: None,
            cpus: None,
            io: Vec::new(),
        }
    }
}

/// Limits on one block device (cgroup v2 `io.max`, v1 `blkio.throttle.*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoLimit {
    /// The device's node, `/dev/mmcblk0`.
    pub device: Box<str>,
    /// Bytes read per second.
    pub read_bps: Option<u64>,
    /// Bytes written per second.
    pub write_bps: Option<u64>,
    /// Reads per second.
    pub read_iops: Option<u64>,
    /// Writes per second.
    pub write_iops: Option<u64>,
}

/// A resource limit of the process (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// Which.
    pub kind: RlimitKind,
    /// What is enforced; `u64::MAX` is unlimited.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// The resource limits by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RlimitKind {
    /// Address space, bytes.
    As,
    /// Core dump size, bytes.
    Core,
    /// Cpu seconds.
    Cpu,
    /// Data segment, bytes.
    Data,
    /// File size, bytes.
    Fsize,
    /// Locked memory, bytes.
    Memlock,
    /// POSIX message queues, bytes.
    Msgqueue,
    /// Nice ceiling.
    Nice,
    /// Open files.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Real-time priority ceiling.
    Rtprio,
    /// Real-time cpu time, microseconds.
    Rttime,
    /// Pending signals.
    Sigpending,
    /// Stack, bytes.
    Stack,
}

impl RlimitKind {
    /// All of them.
    pub const ALL: [(RlimitKind, &'static str); 14] = [
        (RlimitKind::As, "as"),
        (RlimitKind::Core, "core"),
        (RlimitKind::Cpu, "cpu"),
        (RlimitKind::Data, "data"),
        (RlimitKind::Fsize, "fsize"),
        (RlimitKind::Memlock, "memlock"),
        (RlimitKind::Msgqueue, "msgqueue"),
        (RlimitKind::Nice, "nice"),
        (RlimitKind::Nofile, "nofile"),
        (RlimitKind::Nproc, "nproc"),
        (RlimitKind::Rtprio, "rtprio"),
        (RlimitKind::Rttime, "rttime"),
        (RlimitKind::Sigpending, "sigpending"),
        (RlimitKind::Stack, "stack"),
    ];
}
