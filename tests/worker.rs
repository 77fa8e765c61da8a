//! The process that unpacks, seen from outside while it is at work: what it could reach if an image took it over.

mod image_common;

use coracle::plan::CapSet;
use coracle::seccomp::{Profile, compile, load};
use coracle::sys::process::{self, Forked};
use image_common::*;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read, Write};

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN, MKNOD.
const KEPT: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 21 | 1 << 27;

#[test]
fn a_worker_at_work_is_confined() {
    if !root("a_worker_at_work_is_confined") {
        return;
    }
    let scene = Scene::new();
    let command = half_way(&scene);
    let worker = worker_of(&command);
    let pid = Pid::from_raw(worker);
    kill(pid, Signal::SIGSTOP).unwrap();
    let of = |name: &str| fs::read_to_string(format!("/proc/{worker}/{name}")).unwrap();
    let status = of("status");
    let value =
        |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned();
    assert_eq!((value("Seccomp:").as_str(), value("NoNewPrivs:").as_str()), ("2", "1"));
    for (set, most) in [("CapInh:", 0), ("CapPrm:", KEPT), ("CapEff:", KEPT), ("CapBnd:", KEPT), ("CapAmb:", 0)] {
        assert_eq!(u64::from_str_radix(&value(set), 16).unwrap() & !most, 0, "{set}");
    }
    for kind in ["mnt", "pid", "ipc", "uts", "net"] {
        let link = |who: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).unwrap();
        // The pid namespace of the worker's own children counts: it is process 1 of it.
        assert_ne!(link(&worker.to_string()), link("self"), "{kind}");
    }
    let mounts = of("mountinfo");
    assert_eq!(
        mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count(),
        mounts.lines().count(),
        "{mounts}"
    );
    assert!(mounts.lines().last().is_some_and(|line| line.contains(" / / ro") && line.contains("tmpfs")), "{mounts}");
    let limits = of("limits");
    let limit = |name: &str| -> u64 {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().nth(1).unwrap().parse().unwrap_or(u64::MAX)
    };
    assert!(limit("Max data size") <= 256 << 20, "{limits}");
    assert!(limit("Max file size") < u64::MAX, "{limits}");
    assert_eq!((limit("Max core file size"), limit("Max open files")), (0, 1024));
    for fd in fs::read_dir(format!("/proc/{worker}/fd")).unwrap() {
        let target = fs::read_link(fd.unwrap().path()).unwrap().display().to_string();
        let own = target.starts_with("pipe:")
            || target.ends_with("/x.tar")
            || target == "/"
            || target.starts_with("/new-0")
            || target.contains("/state/staging/job-");
        assert!(own, "it holds {target}");
    }
    kill(pid, Signal::SIGCONT).unwrap();
    let ran = end(command);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

/// Tries what a taken-over worker would try, under its filter, and gives the error of each; 0 is success. (It may
/// send signals: its pid namespace holds nobody else.)
fn attempts() -> [i32; 8] {
    let answer = |result: Result<(), Errno>| result.err().map_or(0, |errno| errno as i32);
    let none = None::<&std::ffi::CStr>;
    let here = nix::fcntl::AT_FDCWD;
    let disk = nix::sys::stat::makedev(8, 0);
    let bits = nix::sys::stat::Mode::empty();
    [
        answer(nix::mount::mount(none, c"/coracle-none", none, nix::mount::MsFlags::MS_PRIVATE, none)),
        answer(nix::mount::umount(c"/coracle-none")),
        answer(unshare(CloneFlags::CLONE_NEWNET)),
        answer(setns(std::io::stderr(), CloneFlags::empty())),
        answer(nix::unistd::chroot(c"/")),
        answer(nix::unistd::execve(c"/bin/true", &[c"true"], &[c""]).map(|_| ())),
        answer(nix::sys::stat::mknodat(here, c"/tmp/coracle-disk", nix::sys::stat::SFlag::S_IFBLK, bits, disk)),
        answer(socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).map(drop)),
    ]
}

#[test]
fn a_worker_that_was_taken_over_is_refused_what_its_capabilities_would_allow() {
    if !root("a_worker_that_was_taken_over_is_refused_what_its_capabilities_would_allow") {
        return;
    }
    let filter = compile(Profile::Worker, CapSet(KEPT), false);
    let (mut read, mut write) = std::io::pipe().unwrap();
    match process::clone(0, None).unwrap() {
        // Nothing here allocates: another thread may have held the lock of the heap.
        Forked::Child => {
            let loaded = load(&filter).is_ok();
            let mut bytes = [0u8; 9];
            bytes[0] = u8::from(loaded);
            if loaded {
                attempts().iter().zip(&mut bytes[1..]).for_each(|(errno, byte)| *byte = *errno as u8);
            }
            let _ = write.write_all(&bytes);
            process::exit_now(0)
        }
        Forked::Parent(pid) => {
            drop(write);
            let mut bytes = Vec::new();
            read.read_to_end(&mut bytes).unwrap();
            process::reap(pid);
            assert_eq!(bytes, [&[1][..], &[Errno::EPERM as u8; 8]].concat());
        }
    }
}
