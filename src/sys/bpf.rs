//! eBPF programs for cgroups.

use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that loading a program needs (all of Linux 4.15's; what follows counts as zero).
#[repr(C, align(8))]
#[derive(Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C, align(8))]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

/// Whether the kernel keeps device programs for cgroups: it is asked how many this one has (`bpf(BPF_PROG_QUERY, …)`,
/// Linux 4.15), which costs a twentieth of loading one.
pub fn keeps_device_programs(cgroup: BorrowedFd<'_>) -> bool {
    let mut attributes = Query { target: cgroup.as_raw_fd() as u32, kind: BPF_CGROUP_DEVICE, ..Query::default() };
    // SAFETY: the attributes, which the kernel writes to, live until the call returns; there is no room for ids.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attributes, size_of::<Query>() as libc::c_uint)
    };
    check(answer).is_ok()
}

/// `bpf(BPF_PROG_LOAD, …)` of a cgroup device program: bpf(2), Linux 4.15; needs CAP_BPF or CAP_SYS_ADMIN.
///
/// `instructions` are in the kernel's 8-byte form. EINVAL: the kernel has no `CONFIG_CGROUP_BPF`; E2BIG: too many for it.
pub fn load_device_program(instructions: &[u64]) -> Result<OwnedFd> {
    let attributes = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the attributes and what they point to live until the call returns.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<Load>() as libc::c_uint)
    })?;
    // SAFETY: the kernel gave a new descriptor (close-on-exec) that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// `bpf(BPF_PROG_ATTACH, …)` to a cgroup v2 directory, beside what ancestors have: bpf(2), Linux 4.15.
///
/// The program stays until the cgroup is removed.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attributes = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attributes live until the call returns; both descriptors are borrowed for as long.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size_of::<Attach>() as libc::c_uint)
    })
    .map(drop)
}
