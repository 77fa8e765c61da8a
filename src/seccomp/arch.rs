//! The architectures a filter can be made for.

/// An architecture as seccomp names it (`AUDIT_ARCH_*` of `linux/audit.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86. Its x32 numbers (bit 30 set) stand in no table, so they are unknown calls.
    X86_64,
    /// 32-bit x86.
    I686,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM, EABI. (A kernel with the old ABI beside it offers no seccomp filter: `HAVE_ARCH_SECCOMP_FILTER`.)
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Arch; 5] = [Arch::X86_64, Arch::I686, Arch::Aarch64, Arch::Arm, Arch::Riscv64];

    /// The one that this binary is built for.
    pub const NATIVE: Arch = if cfg!(target_arch = "x86_64") {
        Arch::X86_64
    } else if cfg!(target_arch = "x86") {
        Arch::I686
    } else if cfg!(target_arch = "aarch64") {
        Arch::Aarch64
    } else if cfg!(target_arch = "arm") {
        Arch::Arm
    } else if cfg!(target_arch = "riscv64") {
        Arch::Riscv64
    } else {
        panic!("coracle has system call tables for x86_64, i686, aarch64, arm and riscv64")
    };

    /// What `seccomp_data.arch` holds.
    pub const fn audit(self) -> u32 {
        match self {
            Arch::X86_64 => 0xc000_003e,
            Arch::I686 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
            Arch::Riscv64 => 0xc000_00f3,
        }
    }

    /// Whether its arguments have 64 bits.
    pub const fn is_64_bit(self) -> bool {
        matches!(self, Arch::X86_64 | Arch::Aarch64 | Arch::Riscv64)
    }

    /// The other architecture that one kernel can run beside this one.
    pub const fn partner(self) -> Option<Arch> {
        match self {
            Arch::X86_64 => Some(Arch::I686),
            Arch::I686 => Some(Arch::X86_64),
            Arch::Aarch64 => Some(Arch::Arm),
            Arch::Arm => Some(Arch::Aarch64),
            Arch::Riscv64 => None,
        }
    }
}
