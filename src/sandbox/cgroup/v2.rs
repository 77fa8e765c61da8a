//! What is particular to cgroup v2 (kernel: `Documentation/admin-guide/cgroup-v2.rst`).

use super::devices::{self, Rule};
use super::discover::Hierarchy;
use super::{Controller, Error, Result, file};
use crate::plan::Feature;
use crate::sys::{Errno, bpf};
use std::os::fd::AsFd;

/// The leaf that this process moves to where its own cgroup has to become an inner one. No service has such a name.
pub const SUPERVISOR: &str = "_supervisor";

/// The controllers that decide where groups are made.
pub const ESSENTIAL: [Controller; 2] = [Controller::Memory, Controller::Pids];

/// Controllers that cannot be had, each with the reason.
pub type Absent = Vec<(Controller, String)>;

/// The group beneath which coracle's folder is, prepared to hand controllers down.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its path.
    pub path: String,
    /// The common folder beneath it, if groups are in one.
    folder: Option<String>,
    /// What it hands down, as far as that was looked at.
    on: String,
    /// Controllers that are enabled down to where groups are made.
    enabled: Vec<Controller>,
    /// What was switched on in the base here, and the leaf that this process moved to because of it.
    moved: Option<(String, Vec<&'static str>)>,
}

/// The controllers that the group at `path` can hand down, and what v2 has without a controller.
pub fn controllers(path: &str) -> Vec<Controller> {
    let Ok(names) = file::read(path, "cgroup.controllers") else { return Vec::new() };
    let listed = |controller: &Controller| match controller.v2_name() {
        Some(wanted) => names.split(' ').any(|name| name == wanted),
        None => *controller != Controller::Cpuacct,
    };
    Controller::ALL.into_iter().filter(listed).collect()
}

/// `own` without the part that a supervisor adds when it moves itself: what a successor that it starts finds.
pub fn without_supervisor(own: &str) -> &str {
    let (parent, last) = own.rsplit_once('/').unwrap_or((own, ""));
    match last.strip_suffix(SUPERVISOR) {
        Some("") => parent.rsplit_once('/').map_or(parent, |(base, _)| base),
        Some(_) => parent,
        None => own,
    }
}

impl Base {
    /// Chooses the group to work beneath: this process's own, or the nearest enclosing one that can hand down memory
    /// and pids (if these are `wanted`); other controllers do not count, so that coracle stays where it was delegated.
    ///
    /// A group with processes in it cannot hand down controllers (the "no internal processes" rule). If this process
    /// is the only one there, it moves to a leaf; if others share the group (a login session), an enclosing one is used.
    pub fn find(place: &Hierarchy, prefix: &str, wanted: &[Controller]) -> Result<Base> {
        let essential = wanted.iter().filter(|one| ESSENTIAL.contains(one));
        let names: Vec<&'static str> = essential.filter_map(|one| one.v2_name()).collect();
        let mut base = Base {
            path: place.own.clone(),
            folder: prefix.strip_suffix('/').map(str::to_string),
            on: String::new(),
            enabled: Vec::new(),
            moved: None,
        };
        let mut first = None;
        for path in enclosing(&place.own, &place.mount) {
            base.path = path.to_string();
            match base.hand_down(prefix, &names) {
                Ok(()) => return Ok(base),
                Err(error) => first.get_or_insert(error),
            };
        }
        let failed = Error::Failed { doing: "use cgroup", path: place.own.clone(), errno: Errno(libc::ENOENT) };
        Err(first.unwrap_or(failed))
    }

    fn hand_down(&mut self, prefix: &str, names: &[&'static str]) -> Result<()> {
        let failed =
            |path: &str, errno| Error::Failed { doing: "hand down controllers from", path: path.to_string(), errno };
        self.on.clear();
        match switch_on(&self.path, names, &mut self.on) {
            Err(Errno(libc::EBUSY)) => {}
            other => return other.map(|_| ()).map_err(|errno| failed(&self.path, errno)),
        }
        let own = std::process::id();
        let alone = file::pids(&self.path).is_ok_and(|pids| pids.iter().all(|pid| u32::try_from(*pid) == Ok(own)));
        if !alone {
            return Err(failed(&self.path, Errno(libc::EBUSY)));
        }
        if let Some(folder) = &self.folder {
            file::make(&format!("{}/{folder}", self.path))?;
        }
        let leaf = format!("{}/{prefix}{SUPERVISOR}", self.path);
        file::make(&leaf)?;
        file::write(&leaf, "cgroup.procs", "0").map_err(|errno| failed(&leaf, errno))?;
        match switch_on(&self.path, names, &mut self.on) {
            Ok(on) => {
                self.moved = Some((leaf, on));
                Ok(())
            }
            Err(errno) => {
                // Another process entered meanwhile: all back to where it was.
                file::write(&self.path, "cgroup.procs", "0").map_err(|errno| failed(&self.path, errno))?;
                file::remove(&leaf).map_err(|errno| failed(&leaf, errno))?;
                Err(failed(&self.path, errno))
            }
        }
    }

    /// Enables `wanted` down to where groups are made; tells what cannot be had.
    pub fn enable(&mut self, wanted: &[Controller]) -> Result<Absent> {
        let mut absent = Vec::new();
        let folder = self.folder.as_ref().map(|folder| format!("{}/{folder}", self.path));
        if let Some(folder) = &folder {
            file::make(folder)?;
        }
        let new: Vec<(Controller, &'static str)> = wanted
            .iter()
            .filter(|one| !self.enabled.contains(one))
            .filter_map(|one| Some((*one, one.v2_name()?)))
            .collect();
        let names: Vec<&'static str> = new.iter().map(|(_, name)| *name).collect();
        // All at one go; where that is refused, one by one, so that the one that cannot be had is known.
        if names.is_empty() || self.enable_in(folder.as_deref(), &names).is_ok() {
            self.enabled.extend(new.iter().map(|(controller, _)| *controller));
            return Ok(absent);
        }
        for (controller, name) in new {
            match self.enable_in(folder.as_deref(), &[name]) {
                Ok(()) => self.enabled.push(controller),
                Err(errno) => {
                    absent.push((controller, format!("{} cannot hand down the {name} controller: {errno}", self.path)));
                }
            }
        }
        Ok(absent)
    }

    fn enable_in(&mut self, folder: Option<&str>, names: &[&'static str]) -> crate::sys::Result<()> {
        let on = switch_on(&self.path, names, &mut self.on)?;
        if let Some((_, switched)) = &mut self.moved {
            switched.extend(on);
        }
        folder.map_or(Ok(()), |folder| write_on(folder, names))
    }

    /// Goes back to the group that this process came from and removes the leaf, if it moved.
    pub fn leave(self) -> Result<()> {
        let Some((leaf, on)) = self.moved else { return Ok(()) };
        let failed = |path: &str, errno| Error::Failed { doing: "go back to cgroup", path: path.to_string(), errno };
        let folder = self.folder.map(|folder| format!("{}/{folder}", self.path));
        for path in folder.iter().chain([&self.path]) {
            let off: Vec<String> = on.iter().map(|name| format!("-{name}")).collect();
            file::write(path, "cgroup.subtree_control", &off.join(" ")).map_err(|errno| failed(path, errno))?;
        }
        file::write(&self.path, "cgroup.procs", "0").map_err(|errno| failed(&self.path, errno))?;
        file::remove(&leaf).map_err(|errno| failed(&leaf, errno))
    }
}

/// `own` and the groups around it up to `mount`, from the inside out.
fn enclosing<'a>(own: &'a str, mount: &'a str) -> impl Iterator<Item = &'a str> {
    let outward =
        |path: &&'a str| if path.len() > mount.len() { path.rsplit_once('/').map(|(parent, _)| parent) } else { None };
    std::iter::successors(Some(own), outward)
}

/// Adds controllers to what the group hands down; the answer are those that were not handed down before. `known` is what
/// it hands down as far as that is known: it is looked at again only for more.
fn switch_on(path: &str, names: &[&'static str], known: &mut String) -> crate::sys::Result<Vec<&'static str>> {
    let missing = |known: &str, name: &str| !known.split(' ').any(|on| on == name);
    if names.iter().any(|name| missing(known, name)) {
        *known = file::read(path, "cgroup.subtree_control")?;
    }
    let new: Vec<&'static str> = names.iter().copied().filter(|name| missing(known, name)).collect();
    if !new.is_empty() {
        write_on(path, &new)?;
    }
    Ok(new)
}

/// Adds controllers to what the group hands down; those that it hands down already are no news to the kernel.
fn write_on(path: &str, names: &[&'static str]) -> crate::sys::Result<()> {
    let words: Vec<String> = names.iter().map(|name| format!("+{name}")).collect();
    file::write(path, "cgroup.subtree_control", &words.join(" "))
}

/// Refuses every device but those of `rules`, through a BPF program that stays attached to the group (Linux 4.15).
pub fn attach_devices(folder: &str, rules: &[Rule]) -> Result<()> {
    let program: Vec<u64> = devices::program(rules).into_iter().map(devices::Insn::word).collect();
    let attached = || {
        let program = bpf::load_device_program(&program)?;
        let group = std::fs::File::open(folder)?;
        bpf::attach_device_program(group.as_fd(), program.as_fd())
    };
    attached().map_err(|errno| match errno {
        Errno(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => Error::Missing {
            feature: Feature::Devices,
            reason: format!("the kernel takes no device program for cgroup {folder}: {errno}"),
        },
        errno => Error::Refused {
            feature: Feature::Devices,
            file: folder.to_string(),
            value: "the device program".to_string(),
            errno,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_finds_the_base_of_its_predecessor() {
        assert_eq!(without_supervisor("/sys/fs/cgroup/a/coracle/_supervisor"), "/sys/fs/cgroup/a");
        assert_eq!(without_supervisor("/sys/fs/cgroup/a/coracle-run-_supervisor"), "/sys/fs/cgroup/a");
        assert_eq!(without_supervisor("/sys/fs/cgroup/a"), "/sys/fs/cgroup/a");
        assert_eq!(without_supervisor(""), "");
    }

    #[test]
    fn enclosing_groups_end_at_the_mount() {
        let found: Vec<&str> = enclosing("/sys/fs/cgroup/a/b", "/sys/fs/cgroup").collect();
        assert_eq!(found, ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        assert_eq!(enclosing("/sys/fs/cgroup", "/sys/fs/cgroup").count(), 1);
    }
}
