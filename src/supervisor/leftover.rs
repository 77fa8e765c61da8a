//! What a supervisor that died has left running: taken down in order, by its records alone.
//!
//! Each instance gets the end that its supervisor would have given it: thawed, asked with its stop signal, given its
//! time, killed. This waits, because nothing else runs meanwhile.
#![forbid(unsafe_code)]

use super::contact;
use super::core::KILL_TIME;
use super::instance::{Instance, Process};
use super::rundir::RunDir;
use super::wire::ToInit;
use crate::base::units::Millis;
use crate::sandbox::cgroup::{Error, Group, Tree};
use crate::sys::process::{pidfd_open, pidfd_send_signal};
use crate::sys::wait::send_signal;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Between two looks at a process that this kernel gives no descriptor for.
const LOOK: Duration = Duration::from_millis(10);
/// How long after its supervisor's death a process that it has made may take to come into its group, and to die there.
const ENTERING: Duration = Duration::from_secs(1);
const SIGKILL: i32 = nix::libc::SIGKILL;

/// Takes down everything that the records in `run` and the groups in its cgroup folder tell of, and removes it. `say`
/// gets a sentence for everything found. Returns whether nothing is left.
pub fn take_down(run: &RunDir, tree: Option<&Tree>, say: &mut dyn FnMut(&str)) -> bool {
    let (records, unreadable) = run.leftovers();
    for why in run.outdated().into_iter().chain(unreadable.iter().map(String::as_str)) {
        say(why);
    }
    let mut clean = true;
    for record in &records {
        if record.init.is_alive() {
            say(&format!(
                "{} runs on from a supervisor that ended without stopping it (init {}); it is being stopped",
                record.service, record.init.pid
            ));
        }
        match end(run, record) {
            Ok(()) => run.forget(&record.service),
            Err(why) => {
                clean = false;
                say(&format!("{}: {why}", record.service));
            }
        }
    }
    tree.is_none_or(|tree| sweep(tree, |_| false, say)) && clean
}

/// Removes the groups in `tree` that are nobody's: all but those that are `kept`. Returns whether that could be done.
pub(super) fn sweep(tree: &Tree, kept: impl Fn(&str) -> bool, say: &mut dyn FnMut(&str)) -> bool {
    let mut clean = true;
    for name in &tree.leftovers() {
        let Some(group) = tree.group(name).filter(|_| !kept(name)) else { continue };
        // Processes here are a service's whose record is lost, or an exec into one.
        let _ = group.kill();
        if let Err(error) = group.remove() {
            clean = false;
            say(&format!("{name}: {error}"));
        }
    }
    clean
}

/// Ends one instance, whose directory is in `run`, and removes its group.
pub(super) fn end(run: &RunDir, record: &Instance) -> Result<(), String> {
    let group = Group::open(&record.cgroup)?;
    if record.init.is_alive() {
        // Without a freezer nothing is frozen.
        let _ = group.freeze(false);
        let handle = Handle::of(record.init);
        if Handle::of(record.main).signal(i32::from(record.stop_signal)) {
            handle.wait(Millis(record.stop_ms));
        }
        if record.init.is_alive() {
            // Its init kills all but what it starts after them, and ends last, with the last lines of the log and the exit record.
            let channel = run.service(&record.service).ok().and_then(|dir| contact::find(&dir).ok());
            let told = channel.is_some_and(|channel| contact::tell(&channel, ToInit::Kill));
            let after = if told { Millis(record.stop_ms) } else { Millis(0) };
            let _ = (!told).then(|| group.kill());
            handle.wait(KILL_TIME.plus(after));
        }
        if record.init.is_alive() {
            handle.signal(SIGKILL);
            handle.wait(KILL_TIME);
        }
        if record.init.is_alive() {
            return Err(format!("its init {} does not die: it is stuck in the kernel", record.init.pid));
        }
    }
    clear(&group).map_err(String::from)
}

/// Kills what is in a group and removes it.
fn clear(group: &Group) -> Result<(), Error> {
    let begin = Instant::now();
    loop {
        // On the host's root the end of an init is not that of its service: its group tells. And a process that was just
        // being made comes into the group behind the kill before. What cannot be killed is named by what comes next.
        while !group.is_empty() && begin.elapsed() < Duration::from_millis(KILL_TIME.0) {
            let _ = group.kill();
            std::thread::sleep(LOOK);
        }
        match group.remove() {
            Err(_) if begin.elapsed() < ENTERING => std::thread::sleep(LOOK),
            other => return other,
        }
    }
}

/// A process that cannot be mistaken for another: a descriptor, or on kernels before 5.3 its start time.
#[derive(Debug)]
pub struct Handle {
    pub(super) process: Process,
    pub(super) pidfd: Option<OwnedFd>,
}

impl Handle {
    pub(super) fn of(process: Process) -> Handle {
        let pidfd = (process.pid > 0).then(|| pidfd_open(process.pid).ok()).flatten();
        Handle { process, pidfd }
    }

    /// Sends the signal; `false`: the process is gone.
    pub(super) fn signal(&self, signal: i32) -> bool {
        // Looked at after the descriptor was made: if it is this process now, the descriptor is its own.
        if !self.process.is_alive() {
            return false;
        }
        match &self.pidfd {
            Some(pidfd) => pidfd_send_signal(pidfd.as_fd(), signal).is_ok(),
            None => send_signal(self.process.pid, signal).is_ok(),
        }
    }

    pub(super) fn wait(&self, at_most: Millis) {
        let end = Instant::now() + Duration::from_millis(at_most.0.min(86_400_000));
        while self.process.is_alive() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match &self.pidfd {
                Some(pidfd) => {
                    let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
                    let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout);
                }
                None => std::thread::sleep(LOOK.min(left)),
            }
        }
    }
}
