//! What a kernel may lack: the words of `device.allow_missing`.

/// One thing that a service can ask for and a kernel can lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Memory limit.
    Memory,
    /// Swap limit.
    Swap,
    /// Limit on processes and threads.
    Pids,
    /// Cpu quota and weight.
    Cpu,
    /// Pinning to cores.
    Cpus,
    /// Limits on block devices.
    Io,
    /// Allow-list of devices.
    Devices,
    /// Freezing (`pause`).
    Freezer,
    /// System call filter.
    Seccomp,
    /// POSIX message queues and System V IPC of its own.
    Ipc,
}

impl Feature {
    /// All of them, in the order of their bits.
    pub const ALL: [Feature; 10] = [
        Feature::Memory,
        Feature::Swap,
        Feature::Pids,
        Feature::Cpu,
        Feature::Cpus,
        Feature::Io,
        Feature::Devices,
        Feature::Freezer,
        Feature::Seccomp,
        Feature::Ipc,
    ];

    /// The word in `device.allow_missing`.
    pub const fn word(self) -> &'static str {
        match self {
            Feature::Memory => "limits.memory",
            Feature::Swap => "limits.swap",
            Feature::Pids => "limits.pids",
            Feature::Cpu => "limits.cpu",
            Feature::Cpus => "limits.cpus",
            Feature::Io => "limits.io",
            Feature::Devices => "devices",
            Feature::Freezer => "freezer",
            Feature::Seccomp => "seccomp",
            Feature::Ipc => "ipc",
        }
    }

    /// The feature that `word` stands for.
    pub fn from_word(word: &str) -> Option<Feature> {
        Feature::ALL.into_iter().find(|feature| feature.word() == word)
    }
}

/// A set of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureSet(u16);

impl FeatureSet {
    /// Whether `feature` is in the set.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 >> feature as u16 & 1 == 1
    }

    /// The set with `feature` added.
    #[must_use]
    pub const fn with(self, feature: Feature) -> FeatureSet {
        FeatureSet(self.0 | 1 << feature as u16)
    }
}
