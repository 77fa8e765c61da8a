//! A service's group: joining it, freezing and killing what is in it, watching it, removing it.

use super::{Controller, Controllers, Error, Result, file};
use crate::plan::{Feature, FeatureSet};
use crate::sys::Errno;
use crate::sys::wait::send_signal;
use core::fmt::Write as _;
use nix::fcntl::OFlag;
use nix::sys::epoll::EpollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io::Read as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Wait between two looks at a state that the kernel reaches on its own, and how many looks before giving up.
const PAUSE: Duration = Duration::from_millis(1);
const LOOKS: usize = 50;
/// Rounds of signalling what is left of a group that cannot be frozen or killed in one go.
const KILL_ROUNDS: usize = 100;

/// A folder of the group in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dir {
    /// 1 or 2.
    pub version: u8,
    /// What of it serves this group.
    pub controllers: Controllers,
    /// Its path.
    pub path: String,
}

/// One service's cgroup: its folders in all hierarchies. Dropping it leaves the kernel's group alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    pub(super) dirs: Rc<Vec<Dir>>,
    pub(super) missing: FeatureSet,
}

/// What a process needs to enter a group: inherited by the child that becomes main.
#[derive(Debug)]
pub struct Join {
    /// For clone3(2) with `CLONE_INTO_CGROUP` (Linux 5.7): the folder in the v2 hierarchy, opened `O_PATH`. Where clone3
    /// cannot do it the process writes `0` to `cgroup.procs` in it, and waits for a kernel grace period (milliseconds).
    pub into: Option<OwnedFd>,
    /// v1 groups' `tasks` files, to each of which the process, while it has one thread, writes `0`. Does not wait.
    pub tasks: Vec<OwnedFd>,
}

/// A descriptor that becomes ready when a group runs out of memory. It need not be read.
#[derive(Debug)]
pub enum OomEvent {
    /// v1: an eventfd.
    Counter(OwnedFd),
    /// v2: `memory.events`, which can always be read.
    File(OwnedFd),
}

impl OomEvent {
    /// The descriptor.
    pub fn fd(&self) -> &OwnedFd {
        let (OomEvent::Counter(fd) | OomEvent::File(fd)) = self;
        fd
    }

    /// What to register it for, edge-triggered.
    pub fn events(&self) -> EpollFlags {
        EpollFlags::EPOLLET
            | match self {
                OomEvent::Counter(_) => EpollFlags::EPOLLIN,
                OomEvent::File(_) => EpollFlags::EPOLLPRI,
            }
    }
}

impl Group {
    /// What the service does without because `allow_missing` says so.
    pub fn missing(&self) -> FeatureSet {
        self.missing
    }

    /// The group's folders as one line without newlines, for [`Group::open`] in another process.
    pub fn record(&self) -> String {
        let mut record = String::new();
        for dir in &*self.dirs {
            let tab = if record.is_empty() { "" } else { "\t" };
            let _ = write!(record, "{tab}{}:", dir.version);
            for (place, controller) in dir.controllers.each().enumerate() {
                record.push_str(if place == 0 { "" } else { "," });
                record.push_str(controller.v1_name());
            }
            let _ = write!(record, ":{}", dir.path);
        }
        record
    }

    /// The group that [`Group::record`] described.
    pub fn open(record: &str) -> Result<Group> {
        let mut dirs = Vec::new();
        for field in record.split('\t').filter(|field| !field.is_empty()) {
            let Some((version, (names, path))) =
                field.split_once(':').and_then(|(version, rest)| Some((version, rest.split_once(':')?)))
            else {
                return Err(Error::bad_record());
            };
            let version = match version {
                "1" => 1,
                "2" => 2,
                _ => return Err(Error::bad_record()),
            };
            if !path.starts_with('/') {
                return Err(Error::bad_record());
            }
            dirs.push(Dir { version, controllers: Controllers::of_v1(names), path: path.to_string() });
        }
        Ok(Group { dirs: dirs.into(), missing: FeatureSet::default() })
    }

    /// The folder that `controller` is in.
    pub(super) fn dir(&self, controller: Controller) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.controllers.has(controller))
    }

    /// The path of its folder in the v2 hierarchy, if it has one there.
    pub fn unified(&self) -> Option<&str> {
        self.dirs.iter().find(|dir| dir.version == 2).map(|dir| dir.path.as_str())
    }

    /// Opens what a process needs to enter the group. All descriptors are close-on-exec.
    pub fn join(&self) -> Result<Join> {
        let mut join = Join { into: None, tasks: Vec::with_capacity(self.dirs.len()) };
        for dir in &*self.dirs {
            let opened = |name: &str, flags: OFlag| {
                let opened = file::open(&dir.path, name, flags).map(OwnedFd::from);
                opened.map_err(|errno| Error::failed_in("open", &dir.path, name, errno))
            };
            if dir.version == 2 {
                join.into = Some(opened("", OFlag::O_PATH | OFlag::O_DIRECTORY)?);
            } else {
                join.tasks.push(opened("tasks", OFlag::O_WRONLY)?);
            }
        }
        Ok(join)
    }

    /// The processes in the group, by their ids as this process sees them.
    pub fn pids(&self) -> Vec<i32> {
        self.dirs.first().and_then(|dir| file::pids(&dir.path).ok()).unwrap_or_default()
    }

    /// Stops every process of the group where it is, or lets them go on. Waits up to 50 ms for the kernel; a group that
    /// does not freeze in time is let go again and the error says so.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let Some(dir) = self.dir(Controller::Freezer) else {
            return Err(Error::missing(Feature::Freezer, "the group has no freezer"));
        };
        let (name, on, off) = match dir.version {
            2 => ("cgroup.freeze", "1", "0"),
            _ => ("freezer.state", "FROZEN", "THAWED"),
        };
        let set = |value: &str| {
            file::write(&dir.path, name, value).map_err(|errno| Error::failed_in("write to", &dir.path, name, errno))
        };
        if !frozen {
            return set(off);
        }
        set(on)?;
        for _ in 0..LOOKS {
            if self.frozen() {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        set(off)?;
        Err(Error::not_frozen(&dir.path))
    }

    /// Whether every process of the group is stopped by the freezer.
    pub fn frozen(&self) -> bool {
        let Some(dir) = self.dir(Controller::Freezer) else { return false };
        match dir.version {
            2 => file::read(&dir.path, "cgroup.events").is_ok_and(|text| file::keyed(&text, "frozen") == Some(1)),
            _ => file::read(&dir.path, "freezer.state").is_ok_and(|state| state == "FROZEN"),
        }
    }

    /// Kills every process of the group, also a frozen one, and those that it forks meanwhile. Does not wait for their
    /// end.
    ///
    /// v2 from Linux 5.14: `cgroup.kill`. Before, and on v1: frozen if that can be had, so that nothing forks and no
    /// process id changes hands; then signalled one by one; then thawed.
    pub fn kill(&self) -> Result<()> {
        if let Some(dir) = self.dirs.iter().find(|dir| dir.version == 2) {
            match file::write(&dir.path, "cgroup.kill", "1") {
                Ok(()) => return self.thaw_v1(),
                Err(Errno(libc::ENOENT)) => {}
                Err(errno) => return Err(Error::failed_in("kill by", &dir.path, "cgroup.kill", errno)),
            }
        }
        let held = self.freeze(true).is_ok();
        let mut signalled: Vec<i32> = Vec::new();
        for _ in 0..KILL_ROUNDS {
            let mut fresh = self.pids();
            fresh.retain(|pid| !signalled.contains(pid));
            if fresh.is_empty() {
                break;
            }
            for pid in fresh {
                // ESRCH: it ended meanwhile, which is what was wanted.
                let _ = send_signal(pid, libc::SIGKILL);
                signalled.push(pid);
            }
        }
        if held { self.freeze(false) } else { self.thaw_v1() }
    }

    /// v1 keeps a killed process as long as it is frozen; v2 lets it end.
    fn thaw_v1(&self) -> Result<()> {
        match self.dir(Controller::Freezer) {
            Some(dir) if dir.version == 1 => self.freeze(false),
            _ => Ok(()),
        }
    }

    /// What becomes ready when the group runs out of memory, from now on until it is closed.
    ///
    /// What happened is told by [`Group::oom_kills`]: v2 reports other memory events as well. v1: an eventfd registered with
    /// `memory.oom_control`; v2: `memory.events`, of which the kernel wakes pollers.
    pub fn oom_event(&self) -> Result<Option<OomEvent>> {
        let Some(dir) = self.dir(Controller::Memory) else { return Ok(None) };
        let failed =
            |name: &str, errno: Errno| Error::failed_in("watch for memory shortage by", &dir.path, name, errno);
        let opened = |name: &str| file::open(&dir.path, name, OFlag::O_RDONLY).map_err(|errno| failed(name, errno));
        if dir.version == 2 {
            let mut events = opened("memory.events")?;
            // The first event is the first change after a read through this very descriptor; unread it is ready at once.
            let mut text = [0; 512];
            events.read(&mut text).map_err(|error| failed("memory.events", error.into()))?;
            return Ok(Some(OomEvent::File(events.into())));
        }
        let control = opened("memory.oom_control")?;
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| failed("memory.oom_control", errno.into()))?;
        let registration = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        file::write(&dir.path, "cgroup.event_control", &registration)
            .map_err(|errno| failed("cgroup.event_control", errno))?;
        Ok(Some(OomEvent::Counter(event.into())))
    }

    /// How many processes of the group the kernel has killed for lack of memory since the group was made.
    pub fn oom_kills(&self) -> u64 {
        let Some(dir) = self.dir(Controller::Memory) else { return 0 };
        let name = if dir.version == 2 { "memory.events" } else { "memory.oom_control" };
        file::read(&dir.path, name).ok().and_then(|text| file::keyed(&text, "oom_kill")).unwrap_or(0)
    }

    /// Whether all its folders are there.
    pub fn is_there(&self) -> bool {
        self.dirs.iter().all(|dir| std::path::Path::new(&dir.path).exists())
    }

    /// Whether no process is left in the group. Who is in one of its v1 folders is in the first, where they all go first.
    pub fn is_empty(&self) -> bool {
        let looked = self.dirs.iter().enumerate().filter(|(at, dir)| *at == 0 || dir.version == 2);
        looked.map(|(_, dir)| dir).all(|dir| match dir.version {
            2 => file::read(&dir.path, "cgroup.events").map_or(true, |text| file::keyed(&text, "populated") != Some(1)),
            _ => file::pids(&dir.path).map_or(true, |pids| pids.is_empty()),
        })
    }

    /// Removes the group's folders. Waits up to 50 ms for processes that are ending; one that stays is an error,
    /// and the call can be repeated later.
    pub fn remove(&self) -> Result<()> {
        for dir in &*self.dirs {
            remove_tree(&dir.path)?;
        }
        Ok(())
    }
}

/// Removes a folder and the groups that a service may have made beneath its own.
pub(super) fn remove_tree(path: &str) -> Result<()> {
    for look in 0.. {
        let failure = match file::remove(path) {
            Ok(()) => return Ok(()),
            Err(errno) => errno,
        };
        let inner = file::children(path);
        if failure == Errno(libc::EBUSY) && look < LOOKS {
            if inner.is_empty() {
                std::thread::sleep(PAUSE);
            }
            for child in inner {
                remove_tree(&format!("{path}/{child}"))?;
            }
            continue;
        }
        let mut pids = file::pids(path).unwrap_or_default();
        pids.truncate(5);
        return Err(match failure {
            Errno(libc::EBUSY) => Error::busy(path, &pids),
            errno => Error::failed("remove cgroup", path, errno),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_damage_is_refused() {
        let group = Group {
            dirs: Rc::new(vec![
                Dir { version: 1, controllers: Controllers::of_v1("memory"), path: "/sys/fs/cgroup/memory/a:b".into() },
                Dir { version: 2, controllers: Controllers::of_v1("blkio,freezer"), path: "/x/y".into() },
            ]),
            ..Group::default()
        };
        assert_eq!(Group::open(&group.record()), Ok(group));
        assert_eq!(Group::open("").map(|group| group.dirs.len()), Ok(0));
        for bad in ["3:memory:/a", "1:memory", "1:memory:relative", "junk"] {
            assert_eq!(Group::open(bad), Err(Error::bad_record()), "{bad}");
        }
    }

    #[test]
    fn a_vanished_group_is_empty_and_gone() {
        let dirs = vec![Dir { version: 2, controllers: Controllers::default(), path: "/nonexistent/group".into() }];
        let group = Group { dirs: Rc::new(dirs), ..Group::default() };
        assert!(group.is_empty() && group.pids().is_empty() && group.remove().is_ok());
        assert_eq!(group.freeze(true).unwrap_err().feature(), Some(Feature::Freezer));
    }
}
