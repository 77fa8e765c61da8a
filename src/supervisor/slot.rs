//! What the loop holds of a service in the kernel: descriptors, process ids, its group.
#![forbid(unsafe_code)]

use super::contact;
use super::event::{Index, Number, Status};
use super::instance::Process;
use super::leftover::Handle;
use super::notify::{Counts, Line};
use super::prober::Probing;
use super::record::{Ended, ExitRecord};
use super::wire::ToInit;
use crate::base::units::Millis;
use crate::sandbox::cgroup::{Group, OomEvent};
use crate::sandbox::sockets::Sockets;
use crate::sandbox::spec::Spec;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;

/// One service's share of the kernel.
#[derive(Debug, Default)]
pub struct Slot {
    /// Its group, from its first start to its last end.
    pub group: Option<Group>,
    /// Ready when that group runs out of memory.
    pub oom: Option<OomEvent>,
    /// Its network namespace, made by its first instance and entered by every later one.
    pub net: Option<OwnedFd>,
    /// Its listening sockets, from its first start until it is stopped.
    pub sockets: Sockets,
    /// Its probes, from its first start on.
    pub probing: Option<Box<Probing>>,
    /// Its running instance.
    pub live: Option<Live>,
    /// Whether the group is of a config that holds no longer, and not for the next instance.
    pub outdated: bool,
    /// The file of its saved state, and a checksum of what was last written to it.
    pub state: Option<(File, u32)>,
    /// Whether something happened to it since.
    pub touched: bool,
}

/// What does not die: an instance, or what is left in a group.
#[derive(Debug)]
pub struct Left {
    /// Whose it is.
    pub index: Index,
    /// Which start of it.
    pub number: Number,
    /// Its init, until that has ended.
    pub init: Option<Handle>,
    /// Its group.
    pub group: Option<Group>,
}

/// A running instance.
#[derive(Debug)]
pub struct Live {
    /// Which start it is.
    pub number: Number,
    /// Its init: a child of this process that is not waited for yet, or adopted.
    pub init: i32,
    /// An init that is not a child of this process.
    pub adopted: Option<Handle>,
    /// When to look whether an adopted init is gone, where the kernel does not tell.
    pub gone_look: Option<Millis>,
    /// Its main process; 0 before it runs.
    pub main: i32,
    /// How main ended, once its init has told: the exit record says the same.
    pub ended: Option<Status>,
    /// The channel to its init; `None` once that has closed its end.
    pub channel: Option<OwnedFd>,
    /// What is done and let go once main runs.
    pub launch: Option<Launch>,
    /// Processes of the group that the kernel had killed before this instance.
    pub oom_before: u64,
    /// When to look again whether a shortage of memory has cost a process: v1 tells before it kills.
    pub oom_look: Option<Millis>,
    /// Looks left.
    pub oom_looks: u8,
    /// Its stop signal.
    pub stop_signal: u8,
    /// What it is doing, in its own words (`STATUS=`).
    pub status: Line,
    /// What of its notify socket was not listened to.
    pub counts: Counts,
}

/// What is left to do of a start. On one core, whatever is done after the clone keeps the init from beginning, and each
/// page that is written meanwhile is copied first.
#[derive(Debug)]
pub struct Launch {
    /// What the start was made from; `None`: another start has begun since.
    pub spec: Option<Spec>,
    /// Whether it has a network namespace of its own that is new.
    pub new_net: bool,
}

impl Slot {
    /// Removes what its probes have; what does not go is a sentence.
    pub fn remove_probe(&mut self) -> Option<String> {
        self.probing.as_mut()?.take_command()?.remove().err()
    }
}

impl Live {
    /// An instance of which nothing more is known yet.
    pub fn new(number: Number, init: i32, main: i32, stop_signal: u8) -> Live {
        Live {
            number,
            init,
            adopted: None,
            gone_look: None,
            main,
            ended: None,
            channel: None,
            launch: None,
            oom_before: 0,
            oom_look: None,
            oom_looks: 0,
            stop_signal,
            status: Line::new(),
            counts: Counts::default(),
        }
    }

    /// Tells its init something; `false`: it cannot hear it. An init that is gone is noticed elsewhere.
    pub fn tell(&self, message: ToInit) -> bool {
        self.channel.as_ref().is_some_and(|channel| contact::tell(channel, message))
    }
}

/// Reads a wait status (waitpid(2)).
pub fn status(wait: i32) -> Status {
    match wait & 0x7f {
        0 => Status::Code((wait >> 8 & 0xff) as u8),
        signal => Status::Signal(signal as u8),
    }
}

/// What the exit record in a service's directory says: how main ended, or why it never ran.
pub fn exit_record(dir: &Path) -> Option<Result<Status, String>> {
    let bytes = fs::read(dir.join("exit")).ok()?;
    let record = ExitRecord::decode(&bytes)?;
    Some(match record.ended {
        Ended::Main | Ended::Killed => Ok(status(record.status)),
        Ended::NotStarted(failure) => Err(failure.to_string()),
    })
}

/// The host's number of the process that is number `inner` in the pid namespace of the group's processes: the last
/// number of `NSpid` in proc_pid_status(5).
pub fn find_main(group: &Group, inner: i32) -> Process {
    let is_main = |pid: &i32| {
        let bytes = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let numbers = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.and_then(|line| line.split_whitespace().last()).and_then(|last| last.parse().ok()) == Some(inner)
    };
    group.pids().into_iter().find(is_main).and_then(Process::find).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_read_as_the_kernel_writes_them() {
        assert_eq!(status(3 << 8), Status::Code(3));
        assert_eq!(status(255 << 8), Status::Code(255));
        assert_eq!(status(9), Status::Signal(9));
        assert_eq!(status(11 | 0x80), Status::Signal(11));
        assert_eq!(status(34), Status::Signal(34));
    }
}
