//! The end of the board: every process, every file system, the kernel. Nothing here gives up: what fails is said, and the
//! next thing is done.
#![forbid(unsafe_code)]

use super::early::{c_string, mountinfo};
use super::first::First;
use super::options::flag::{READ_ONLY, REMOUNT};
use super::{clock, seed};
use crate::base::mountinfo::Mounted;
use crate::base::units::Millis;
use crate::supervisor::keeper::{End, Say};
use crate::supervisor::run::monotonic;
use crate::sys::board::{Reboot, reboot};
use crate::sys::stack::OwnPids;
use crate::sys::wait::wait_any;
use crate::sys::{Errno, mount};
use nix::libc::{ECHILD, SIGKILL, SIGTERM};
use std::path::Path;
use std::time::Duration;

/// What processes that belong to no service have between SIGTERM and SIGKILL.
const GRACE: Millis = Millis::from_secs(2);
/// What the killed ones have: one that the kernel holds up may never end.
const KILLED: Millis = Millis::from_secs(2);
/// Between two looks whether they have ended.
const LOOK: Duration = Duration::from_millis(5);
/// Walks over the mounts: one that holds another may only go after it.
const WALKS: usize = 4;

/// Ends every process but this one: asks and waits, unless it is in a hurry; kills, waits. The watchdog is fed meanwhile.
pub fn end_processes(first: &mut First, say: Say<'_>) {
    // Whoever is not the first process ends nobody else's processes.
    let Some(all) = OwnPids::of_first_process() else { return };
    for (signal, time) in [(SIGTERM, GRACE), (SIGKILL, KILLED)] {
        if first.hurried && signal == SIGTERM {
            continue;
        }
        // ESRCH: there is nobody left.
        if all.signal_all(signal).is_err() || all_ended(time, first, say) {
            return;
        }
    }
    say("not every process has ended; the kernel holds up the rest".into());
}

/// Reaps until no child is left, at most for `time`. Every process is a descendant, and comes here as an orphan.
fn all_ended(time: Millis, first: &mut First, say: Say<'_>) -> bool {
    let deadline = monotonic().plus(time);
    loop {
        match wait_any() {
            Err(Errno(ECHILD)) => return true,
            Ok(Some(_)) => continue,
            _ if monotonic() >= deadline => return false,
            _ => {}
        }
        first.feed(say);
        std::thread::sleep(LOOK);
    }
}

/// What the next boot needs to know: the time and a random seed.
pub fn save(state: &Path, say: Say<'_>) {
    if !state.is_dir() {
        return;
    }
    for (what, done) in [("the random seed", seed::save(state)), ("the time", clock::save(state))] {
        if let Err(error) = done {
            say(format!("{what} is not kept in {}: {error}", state.display()));
        }
    }
}

/// Writes everything back, unmounts, and leaves read-only what is in use.
pub fn unmount(say: Say<'_>) {
    nix::unistd::sync();
    for _ in 0..WALKS {
        let text = mountinfo();
        let targets = order(&text);
        let gone = targets.iter().filter(|target| mount::unmount(&c_string(target)).is_ok()).count();
        if gone == 0 {
            break;
        }
    }
    let text = mountinfo();
    for target in order(&text).iter().map(String::as_str).chain(["/"]) {
        let path = c_string(target);
        if let Err(errno) = mount::change(&path, REMOUNT | READ_ONLY) {
            let writable = text
                .lines()
                .filter_map(Mounted::parse)
                .any(|mount| mount.target == target && !mount.is_read_only() && !IN_MEMORY.contains(&mount.kind));
            if writable {
                say(format!("{target} is in use and cannot be made read-only: {errno}"));
            }
        }
    }
    nix::unistd::sync();
}

/// File systems that have nothing to write back.
const IN_MEMORY: [&str; 4] = ["tmpfs", "ramfs", "rootfs", "devtmpfs"];
/// What stays to the end: it has nothing to write back, and the way to the end leads through it.
const KEPT: [&str; 4] = ["/", "/proc", "/sys", "/dev"];

/// What is to be unmounted, in this order: the last mount first. Pure.
fn order(mountinfo: &str) -> Vec<String> {
    let kept = |target: &str| {
        KEPT.contains(&target) || ["/proc/", "/sys/", "/dev/"].iter().any(|folder| target.starts_with(folder))
    };
    let mut targets = Vec::new();
    for mount in mountinfo.lines().rev().filter_map(Mounted::parse) {
        if !kept(&mount.target) {
            targets.push(mount.target);
        }
    }
    targets
}

/// Ends the kernel's work; returns only where it refuses, with a sentence.
pub fn end(end: &End) -> String {
    let text;
    let what = match end {
        End::Reboot(word) if !word.is_empty() => {
            text = c_string(word);
            Reboot::RestartWith(&text)
        }
        End::Reboot(_) | End::Exit => Reboot::Restart,
        End::PowerOff => Reboot::PowerOff,
        End::Halt => Reboot::Halt,
    };
    match reboot(what) {
        Ok(()) => "the kernel did not do as asked".into(),
        Err(errno) => format!("the kernel refuses reboot(2): {errno}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_goes_first_and_the_kernels_own_stay() {
        let mounts = "\
24 1 254:0 / / rw - ext4 /dev/vda rw
25 24 0:21 / /proc rw - proc proc rw
26 24 0:22 / /sys rw - sysfs sys rw
27 26 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
28 24 0:5 / /dev rw - devtmpfs dev rw
29 24 0:24 / /run rw - tmpfs tmpfs rw
30 24 254:1 / /data rw - ext4 /dev/vdb rw
31 30 254:2 / /data/my\\040disk rw - ext4 /dev/vdc rw";
        assert_eq!(order(mounts), ["/data/my disk", "/data", "/run"]);
        assert_eq!(order(""), [""; 0]);
    }

    #[test]
    fn nothing_is_saved_where_there_is_no_state() {
        let mut said = Vec::new();
        save(Path::new("/no/such/folder"), &mut |text| said.push(text));
        assert_eq!(said, [""; 0]);
    }
}
