//! Capability sets and the process attributes that bound them. Nothing here allocates, so a forked child may call it.

use super::{Result, check};

/// `_LINUX_CAPABILITY_VERSION_3`: 64-bit sets in two halves (Linux 2.6.26).
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three sets of a thread that capset(2) changes; bit n stands for capability number n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sets {
    /// What the kernel checks.
    pub effective: u64,
    /// What can become effective.
    pub permitted: u64,
    /// What execve(2) combines with a file's own.
    pub inheritable: u64,
}

/// `capset(&header, data)` for the calling thread: capset(2), Linux 2.6.26. EPERM: a set would grow beyond its bound.
pub fn set(sets: Sets) -> Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: header and two halves are what version 3 reads; both live until the call returns.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// `capget(&header, data)` for the calling thread: capget(2), Linux 2.6.26.
pub fn get() -> Result<Sets> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Half::default(); 2];
    // SAFETY: version 3 writes two halves, and the header's version; both are ours and live until the call returns.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let whole = |part: fn(&Half) -> u32| u64::from(part(&data[0])) | u64::from(part(&data[1])) << 32;
    Ok(Sets {
        effective: whole(|half| half.effective),
        permitted: whole(|half| half.permitted),
        inheritable: whole(|half| half.inheritable),
    })
}

/// prctl(2) with unused arguments zero, as newer operations demand.
fn prctl(operation: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> Result<libc::c_long> {
    // SAFETY: all operations used in this file take plain numbers.
    check(libc::c_long::from(unsafe { libc::prctl(operation, a, b, 0 as libc::c_ulong, 0 as libc::c_ulong) }))
}

/// `prctl(PR_CAPBSET_DROP, number)`: prctl(2), Linux 2.6.25; needs CAP_SETPCAP. EINVAL: the kernel knows no such number.
pub fn drop_bounding(number: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, number.into(), 0).map(drop)
}

/// `prctl(PR_CAPBSET_READ, number)`: prctl(2), Linux 2.6.25. EINVAL: the kernel knows no such number.
pub fn in_bounding(number: u8) -> Result<bool> {
    prctl(libc::PR_CAPBSET_READ, number.into(), 0).map(|answer| answer == 1)
}

/// `prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)`: prctl(2), Linux 4.3.
pub fn clear_ambient() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0).map(drop)
}

/// `prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)`: prctl(2), Linux 4.3. EPERM: not permitted and inheritable.
pub fn raise_ambient(number: u8) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, number.into()).map(drop)
}

/// `prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, number)`: prctl(2), Linux 4.3.
pub fn in_ambient(number: u8) -> Result<bool> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong, number.into()).map(|answer| answer == 1)
}

/// `prctl(PR_SET_KEEPCAPS, on)`: prctl(2), Linux 2.2.18. Permitted capabilities survive the change to a non-root user;
/// execve(2) clears it.
pub fn keep_caps(on: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, on.into(), 0).map(drop)
}

/// `prctl(PR_SET_NO_NEW_PRIVS, 1)`: prctl(2), Linux 3.5. No execve(2) gives privileges from here on; cannot be undone.
pub fn no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// The calls on ids; their originals of 32-bit x86 and ARM take 16-bit ids. The C library's functions would change all
/// threads of the process, by means that a forked child should not touch.
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
mod ids {
    pub const SETGROUPS: libc::c_long = libc::SYS_setgroups32;
    pub const SETRESGID: libc::c_long = libc::SYS_setresgid32;
    pub const SETRESUID: libc::c_long = libc::SYS_setresuid32;
}
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
mod ids {
    pub const SETGROUPS: libc::c_long = libc::SYS_setgroups;
    pub const SETRESGID: libc::c_long = libc::SYS_setresgid;
    pub const SETRESUID: libc::c_long = libc::SYS_setresuid;
}

/// `setgroups(count, list)` of the calling thread: setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads `len` 32-bit ids from the pointer.
    check(unsafe { libc::syscall(ids::SETGROUPS, groups.len(), groups.as_ptr()) }).map(drop)
}

/// `setresgid(gid, gid, gid)` of the calling thread: setresgid(2).
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(ids::SETRESGID, gid, gid, gid) }).map(drop)
}

/// `setresuid(uid, uid, uid)` of the calling thread: setresuid(2).
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(ids::SETRESUID, uid, uid, uid) }).map(drop)
}
