//! Linux capabilities as a set of bits (capabilities(7)).

/// A set of capabilities; bit n stands for capability number n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapSet(pub u64);

/// Names by number, without `CAP_`, from `linux/capability.h` (Linux 6.18).
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// CAP_KILL, the only one that a service's init keeps.
pub const KILL: u8 = 5;
/// CAP_SYS_PTRACE.
pub const SYS_PTRACE: u8 = 19;
/// CAP_SYS_ADMIN.
pub const SYS_ADMIN: u8 = 21;

impl CapSet {
    /// The set without members.
    pub const EMPTY: CapSet = CapSet(0);
    /// Every capability that the running kernel knows, those younger than [`NAMES`] too: nothing is dropped.
    pub const ALL: CapSet = CapSet(u64::MAX);

    /// The number of the capability called `name`: `CAP_NET_RAW`, `NET_RAW` or `net_raw`.
    pub fn number(name: &str) -> Option<u8> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().position(|known| *known == bare).map(|number| number as u8)
    }

    /// Whether capability `number` is in the set.
    pub const fn has(self, number: u8) -> bool {
        self.0 >> number & 1 == 1
    }

    /// The set with capability `number` added.
    pub const fn with(self, number: u8) -> CapSet {
        CapSet(self.0 | 1 << number)
    }

    /// The names of the members, without `CAP_`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(number, _)| self.has(*number as u8)).map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for (number, name) in NAMES.iter().enumerate() {
            let number = number as u8;
            assert_eq!(CapSet::number(name), Some(number));
            let known: caps::Capability = format!("CAP_{name}").parse().unwrap();
            assert_eq!(known.index(), number);
        }
        assert_eq!(CapSet::number("cap_net_raw"), Some(13));
        assert_eq!(CapSet::number("NET_ROW"), None);
    }
}
