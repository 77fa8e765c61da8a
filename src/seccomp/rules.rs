//! The calls that are decided by their arguments.

use super::policy::{Case, Cond, REFUSED, Rule, UNKNOWN, Verdict, Width};
use super::syscalls::Sys;
use crate::plan::CapSet;

const NET_ADMIN: CapSet = CapSet::EMPTY.with(12);
const NET_RAW: CapSet = CapSet::EMPTY.with(13);
const SYS_ADMIN: CapSet = CapSet::EMPTY.with(21);
const AUDIT_WRITE: CapSet = CapSet::EMPTY.with(29);

/// The namespaces that clone(2) can make: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. (Its bit of
/// NEWTIME is part of the exit signal.)
const NAMESPACES: u64 = 0x7e02_0000;
/// NEWTIME, which unshare(2) can make too.
const NEWTIME: u64 = 0x80;

/// Argument `arg`, of which the kernel reads the lower half, equals `value`.
const fn is(arg: u8, value: u64) -> Cond {
    Cond { arg, width: Width::Low32, mask: 0xffff_ffff, value }
}

/// Argument `arg`, of which the kernel reads the lower half, has none of the bits of `mask`.
const fn without(arg: u8, mask: u64) -> Cond {
    Cond { arg, width: Width::Low32, mask, value: 0 }
}

const fn allow(when: &'static [Cond]) -> Case {
    Case { when, with: None, then: Verdict::Allow }
}

const fn refuse(when: &'static [Cond]) -> Case {
    Case { when, with: None, then: REFUSED }
}

const fn allow_with(with: CapSet, when: &'static [Cond]) -> Case {
    Case { when, with: Some(with), then: Verdict::Allow }
}

const fn rule(call: Sys, cases: &'static [Case], otherwise: Verdict) -> Rule {
    Rule { call, cases, otherwise, lifted_by: CapSet::EMPTY }
}

const AF_UNIX: Cond = is(0, 1);
const AF_INET: Cond = is(0, 2);
const AF_INET6: Cond = is(0, 10);
const AF_NETLINK: Cond = is(0, 16);
const AF_PACKET: Cond = is(0, 17);
const AF_CAN: Cond = is(0, 29);
const AF_BLUETOOTH: Cond = is(0, 31);

/// The rules of the default policy.
pub static RULES: &[Rule] = &[
    // Threads and processes, but no namespaces. The kernel reads the lower half of the flags (kernel/fork.c).
    Rule { call: Sys::clone, cases: &[allow(&[without(0, NAMESPACES)])], otherwise: REFUSED, lifted_by: SYS_ADMIN },
    // Its flags lie in memory where no filter sees them; every libc falls back to clone.
    Rule { call: Sys::clone3, cases: &[], otherwise: UNKNOWN, lifted_by: SYS_ADMIN },
    // Sharing less with one's own threads is fine. The kernel refuses any higher bit.
    Rule {
        call: Sys::unshare,
        cases: &[allow(&[without(0, NAMESPACES | NEWTIME)])],
        otherwise: REFUSED,
        lifted_by: SYS_ADMIN,
    },
    rule(
        Sys::socket,
        &[
            allow(&[AF_UNIX]),
            allow(&[AF_INET]),
            allow(&[AF_INET6]),
            // NETLINK_ROUTE: what getifaddrs(3) and if_nameindex(3) speak.
            allow(&[AF_NETLINK, is(2, 0)]),
            // NETLINK_AUDIT, for login programs.
            allow_with(AUDIT_WRITE, &[AF_NETLINK, is(2, 9)]),
            allow_with(NET_ADMIN, &[AF_NETLINK]),
            allow_with(NET_ADMIN, &[AF_BLUETOOTH]),
            allow_with(NET_RAW, &[AF_PACKET]),
            // The kernel asks no capability for CAN; here it must be named like other raw access to a bus.
            allow_with(NET_RAW, &[AF_CAN]),
        ],
        REFUSED,
    ),
    rule(Sys::socketpair, &[allow(&[AF_UNIX])], REFUSED),
    // What it can switch off are address randomisation and no-exec memory.
    rule(
        Sys::personality,
        &[
            allow(&[is(0, 0)]),
            allow(&[is(0, 0x8)]),         // PER_LINUX32
            allow(&[is(0, 0x2_0000)]),    // UNAME26
            allow(&[is(0, 0x2_0008)]),    // both
            allow(&[is(0, 0xffff_ffff)]), // a question
        ],
        REFUSED,
    ),
    // Typing into a terminal that someone else reads: TIOCSTI, TIOCLINUX. The kernel reads the lower half.
    rule(Sys::ioctl, &[refuse(&[is(1, 0x5412)]), refuse(&[is(1, 0x541c)])], Verdict::Allow),
    // PR_SET_MM moves the borders that /proc shows.
    rule(Sys::prctl, &[refuse(&[is(0, 35)])], Verdict::Allow),
];

/// The rules of the worker's policy.
pub static WORKER_RULES: &[Rule] = &[
    // FIFOs and the 0:0 node that is a whiteout; no other device. The kernel reads the lower half.
    rule(Sys::mknodat, &[allow(&[is(3, 0)])], REFUSED),
    rule(Sys::mknod, &[allow(&[is(2, 0)])], REFUSED),
];
