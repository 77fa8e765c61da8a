//! What is particular to cgroup v2 (kernel: `Documentation/admin-guide/cgroup-v2.rst`).

use super::devices::{self, Rule};
use super::discover::Hierarchy;
use super::{Controller, Controllers, Error, Result, file};
use crate::plan::Feature;
use crate::sys::{Errno, bpf};
use std::os::fd::AsFd;

/// The leaf that this process moves to where its own cgroup has to become an inner one. No service has such a name.
pub const SUPERVISOR: &str = "_supervisor";

/// The controllers that decide where groups are made.
pub const ESSENTIAL: Controllers = Controllers::of(&[Controller::Memory, Controller::Pids]);
/// What v2 has without a controller.
const BUILT_IN: Controllers = Controllers::of(&[Controller::Devices, Controller::Freezer]);

/// The group beneath which coracle's folder is, prepared to hand controllers down.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its path.
    pub path: String,
    /// The common folder beneath it, if groups are in one.
    folder: Option<String>,
    /// What it hands down, as far as that was looked at.
    on: Controllers,
    /// Controllers that are enabled down to where groups are made.
    enabled: Controllers,
    /// What was switched on in the base here, and the leaf that this process moved to because of it.
    moved: Option<(String, Controllers)>,
}

/// The controllers that the group at `path` can hand down, and what v2 has without a controller.
pub fn controllers(path: &str) -> Controllers {
    file::read(path, "cgroup.controllers").map_or(Controllers::default(), |names| listed(&names))
}

/// The same of a group whose `cgroup.controllers` is known.
pub fn listed(names: &str) -> Controllers {
    named(names.trim_end()).and(BUILT_IN)
}

/// The controllers that a list of v2 names.
fn named(names: &str) -> Controllers {
    Controllers::which(|one| one.v2_name().is_some_and(|wanted| names.split(' ').any(|name| name == wanted)))
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
    pub fn find(place: &Hierarchy, prefix: &str, wanted: Controllers) -> Result<Base> {
        let essential = wanted.without(wanted.without(ESSENTIAL));
        let mut base = Base {
            path: place.own.clone(),
            folder: prefix.strip_suffix('/').map(str::to_string),
            on: Controllers::default(),
            enabled: Controllers::default(),
            moved: None,
        };
        let mut first = None;
        for path in enclosing(&place.own, &place.mount) {
            base.path = path.to_string();
            base.on = if path == place.own { place.handed_down } else { Controllers::default() };
            match base.hand_down(prefix, essential) {
                Ok(()) => return Ok(base),
                Err(error) => first.get_or_insert(error),
            };
        }
        Err(first.unwrap_or_else(|| Error::failed("use cgroup", &place.own, Errno(libc::ENOENT))))
    }

    fn hand_down(&mut self, prefix: &str, wanted: Controllers) -> Result<()> {
        let failed = |path: &str, errno| Error::failed("hand down controllers from", path, errno);
        match switch_on(&self.path, wanted, &mut self.on) {
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
        match switch_on(&self.path, wanted, &mut self.on) {
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

    /// Enables `wanted` down to where groups are made; tells what cannot be had, and why.
    pub fn enable(&mut self, wanted: Controllers) -> Result<Vec<(Controller, Error)>> {
        let mut absent = Vec::new();
        let folder = self.folder();
        if let Some(folder) = &folder {
            file::make(folder)?;
        }
        let new = wanted.without(BUILT_IN).without(self.enabled);
        // All at one go; where that is refused, one by one, so that the one that cannot be had is known.
        if new.is_empty() || self.enable_in(folder.as_deref(), new).is_ok() {
            self.enabled = self.enabled.and(new);
            return Ok(absent);
        }
        for controller in new.each() {
            match self.enable_in(folder.as_deref(), Controllers::of(&[controller])) {
                Ok(()) => self.enabled.add(controller),
                Err(errno) => {
                    let name = controller.v2_name().unwrap_or_default();
                    let reason = format!("{} cannot hand down the {name} controller: {errno}", self.path);
                    absent.push((controller, Error::missing(controller.feature(), &reason)));
                }
            }
        }
        Ok(absent)
    }

    /// The common folder's path.
    fn folder(&self) -> Option<String> {
        self.folder.as_ref().map(|folder| format!("{}/{folder}", self.path))
    }

    fn enable_in(&mut self, folder: Option<&str>, wanted: Controllers) -> crate::sys::Result<()> {
        let on = switch_on(&self.path, wanted, &mut self.on)?;
        if let Some((_, switched)) = &mut self.moved {
            *switched = switched.and(on);
        }
        folder.map_or(Ok(()), |folder| switch(folder, '+', wanted))
    }

    /// Goes back to the group that this process came from and removes the leaf, if it moved.
    pub fn leave(self) -> Result<()> {
        let Some((leaf, on)) = &self.moved else { return Ok(()) };
        let failed = |path: &str, errno| Error::failed("go back to cgroup", path, errno);
        for path in self.folder().iter().chain([&self.path]) {
            switch(path, '-', *on).map_err(|errno| failed(path, errno))?;
        }
        file::write(&self.path, "cgroup.procs", "0").map_err(|errno| failed(&self.path, errno))?;
        file::remove(leaf).map_err(|errno| failed(leaf, errno))
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
fn switch_on(path: &str, wanted: Controllers, known: &mut Controllers) -> crate::sys::Result<Controllers> {
    if !wanted.without(*known).is_empty() {
        *known = named(&file::read(path, "cgroup.subtree_control")?);
    }
    let new = wanted.without(*known);
    if !new.is_empty() {
        switch(path, '+', new)?;
    }
    Ok(new)
}

/// Adds controllers to what the group hands down (`+`), or takes them from it (`-`); what is so already is no news to the
/// kernel.
fn switch(path: &str, sign: char, which: Controllers) -> crate::sys::Result<()> {
    let mut words = String::new();
    for name in which.each().filter_map(Controller::v2_name) {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push(sign);
        words.push_str(name);
    }
    file::write(path, "cgroup.subtree_control", &words)
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
        Errno(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => {
            let reason = format!("the kernel takes no device program for cgroup {folder}: {errno}");
            Error::missing(Feature::Devices, &reason)
        }
        errno => Error::refused(Feature::Devices, folder, "the device program", errno),
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
