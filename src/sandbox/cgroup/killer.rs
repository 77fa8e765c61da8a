//! Killing a group from a process that may neither allocate nor see the cgroup file system any more: a service's init.
#![forbid(unsafe_code)]

use super::{Controller, Error, Group, Result, file};
use crate::sys::path;
use crate::sys::process::write_all;
use crate::sys::wait::send_signal;
use nix::fcntl::OFlag;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The folders of one group, held open. It reaches the processes of that group and nothing else; one that holds nothing
/// kills nothing.
#[derive(Debug, Default)]
pub struct Killer {
    /// Where the group's processes are listed.
    procs: Option<OwnedFd>,
    /// Its folder in the v2 hierarchy.
    unified: Option<OwnedFd>,
    /// The folder that freezes it, and the version of that hierarchy.
    freezer: Option<(OwnedFd, u8)>,
}

impl Group {
    /// The group's killer.
    ///
    /// # Errors
    /// A folder of the group cannot be opened.
    pub fn killer(&self) -> Result<Killer> {
        let open = |folder: &str| {
            let opened = file::open(folder, "", OFlag::O_PATH | OFlag::O_DIRECTORY).map(OwnedFd::from);
            opened.map_err(|errno| Error::failed("open", folder, errno))
        };
        let mut killer = Killer::default();
        if let Some(dir) = self.dirs.first() {
            killer.procs = Some(open(&dir.path)?);
        }
        if let Some(dir) = self.dirs.iter().find(|dir| dir.version == 2) {
            killer.unified = Some(open(&dir.path)?);
        }
        if let Some(dir) = self.dir(Controller::Freezer) {
            killer.freezer = Some((open(&dir.path)?, dir.version));
        }
        Ok(killer)
    }
}

impl Killer {
    /// Whether it reaches no group.
    pub fn is_empty(&self) -> bool {
        self.procs.is_none()
    }

    /// Whether the group has a process.
    pub fn finds(&self) -> bool {
        let mut found = false;
        self.each(|_| found = true);
        found
    }

    /// As [`Group::kill`], without waiting for the freezer: who calls it looks again whether something is left.
    pub fn kill(&self) {
        // An empty group stays empty. To freeze it first would take longer than all else: v1 patches the kernel's code for it.
        if self.finds() && !self.unified.as_ref().is_some_and(|folder| write(folder, c"cgroup.kill", b"1")) {
            self.freeze(true);
            self.signal_each();
        }
        // v1 keeps a killed process as long as it is frozen.
        self.freeze(false);
    }

    fn freeze(&self, frozen: bool) {
        match (&self.freezer, frozen) {
            (Some((folder, 2)), true) => write(folder, c"cgroup.freeze", b"1"),
            (Some((folder, 2)), false) => write(folder, c"cgroup.freeze", b"0"),
            (Some((folder, _)), true) => write(folder, c"freezer.state", b"FROZEN"),
            (Some((folder, _)), false) => write(folder, c"freezer.state", b"THAWED"),
            (None, _) => false,
        };
    }

    /// Whether process `pid` is in the group.
    pub fn holds(&self, pid: i32) -> bool {
        let mut found = false;
        self.each(|member| found |= member == pid);
        found && pid > 0
    }

    /// Sends SIGKILL to each process on the list.
    fn signal_each(&self) {
        self.each(|pid| {
            // It may have ended meanwhile, which is what was wanted.
            let _ = send_signal(pid, libc::SIGKILL);
        });
    }

    /// Walks the list of processes. It is opened anew each time: v1 shows whoever reads it again through the same
    /// descriptor a list that may be a second old, with numbers that may be others' by now.
    fn each(&self, mut take: impl FnMut(i32)) {
        let Some(folder) = &self.procs else { return };
        let Ok(list) = path::open_at(folder.as_fd(), c"cgroup.procs", OFlag::O_RDONLY, 0) else { return };
        let (mut chunk, mut pid) = ([0u8; 512], 0i32);
        while let Ok(count @ 1..) = nix::unistd::read(&list, &mut chunk) {
            for byte in chunk.iter().take(count) {
                match byte {
                    b'0'..=b'9' => pid = pid.saturating_mul(10).saturating_add(i32::from(byte - b'0')),
                    _ => take(core::mem::take(&mut pid)),
                }
            }
        }
    }

    /// The descriptors that it needs.
    pub fn descriptors(&self) -> [Option<&OwnedFd>; 3] {
        [self.procs.as_ref(), self.unified.as_ref(), self.freezer.as_ref().map(|(folder, _)| folder)]
    }
}

fn write(folder: &OwnedFd, name: &CStr, value: &[u8]) -> bool {
    path::open_at(folder.as_fd(), name, OFlag::O_WRONLY, 0).is_ok_and(|file| write_all(file.as_raw_fd(), value).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn only_the_processes_on_the_list_are_killed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut listed, mut canary) = (sleeper(), sleeper());
        // What the kernel shows for a process of another namespace is 0; none of these numbers is a process.
        let list = format!("0\n{}\n99999999999\n-1\n", listed.id());
        std::fs::write(folder.path().join("cgroup.procs"), list).unwrap();
        let path = folder.path().to_str().unwrap().to_string();
        let dirs = vec![super::super::group::Dir {
            version: 1,
            controllers: super::super::Controllers::of_v1("memory"),
            path,
        }];
        let group = Group { dirs: dirs.into(), ..Group::default() };
        group.killer().unwrap().kill();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&listed.wait().unwrap()), Some(libc::SIGKILL));
        assert_eq!(canary.try_wait().unwrap(), None, "a stranger was killed");
        Killer::default().kill();
        assert_eq!(canary.try_wait().unwrap(), None);
        canary.kill().unwrap();
        canary.wait().unwrap();
    }
}
