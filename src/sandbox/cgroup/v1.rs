//! What is particular to cgroup v1 (kernel: `Documentation/admin-guide/cgroup-v1/`).

use super::devices::{Access, Kind, Rule};
use super::limits::Setting;
use super::{Controller, Controllers, Error, Result, file, tree};
use crate::plan::Feature;
use crate::sys::Errno;
use nix::fcntl::OFlag;
use std::io::Write;

/// Makes the common folder and gives it what a v1 folder does not inherit by itself.
pub fn prepare_folder(path: &str, controllers: Controllers) -> Result<()> {
    let fresh = file::make(path)?;
    if controllers.has(Controller::Cpuset) {
        inherit_cpuset(path)?;
    }
    // Before Linux 5.11 limits bind a subtree only where this says so, and it cannot change once there are children.
    if fresh && controllers.has(Controller::Memory) && file::number(path, "memory.use_hierarchy") == Some(0) {
        file::write(path, "memory.use_hierarchy", "1")
            .map_err(|errno| Error::refused(Feature::Memory, &format!("{path}/memory.use_hierarchy"), "1", errno))?;
    }
    Ok(())
}

/// Copies cores and memory nodes from the enclosing group: empty ones refuse every process (cpusets.rst, 1.9).
pub fn inherit_cpuset(path: &str) -> Result<()> {
    let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if file::read(path, name).is_ok_and(|own| !own.is_empty()) {
            continue;
        }
        let failed = |folder: &str, errno| Error::failed_in("inherit", folder, name, errno);
        let inherited = file::read(parent, name).map_err(|errno| failed(parent, errno))?;
        file::write(path, name, &inherited).map_err(|errno| failed(path, errno))?;
    }
    Ok(())
}

/// Writes `memory.limit_in_bytes`, which may never exceed `memory.memsw.limit_in_bytes`: where the limit of a group in
/// use is raised, the latter goes first.
pub fn write_memory(folder: &file::Folder<'_>, setting: &Setting, all: &[Setting], page: u64) -> Result<()> {
    match tree::write(folder, setting, page) {
        Err(error) if error.errno() == Some(Errno(libc::EINVAL)) => {}
        other => return other,
    }
    if let Some(both) = all.iter().find(|setting| setting.file == "memory.memsw.limit_in_bytes") {
        tree::write(folder, both, page)?;
    }
    tree::write(folder, setting, page)
}

/// Refuses every device, then allows those of `rules` (devices.rst).
pub fn write_devices(folder: &str, rules: &[Rule]) -> Result<()> {
    let refused = |name: &str, value: &str, errno| match errno {
        Errno(libc::ENOENT) => Error::no_file(Feature::Devices, folder, name),
        errno => Error::refused(Feature::Devices, &format!("{folder}/{name}"), value, errno),
    };
    file::write(folder, "devices.deny", "a").map_err(|errno| refused("devices.deny", "a", errno))?;
    let allow = "devices.allow";
    let mut file = file::open(folder, allow, OFlag::O_WRONLY).map_err(|errno| refused(allow, "", errno))?;
    for rule in rules.iter().filter(|rule| rule.access.0 != 0) {
        // The kernel takes one rule with each write.
        let line = line(rule);
        file.write_all(line.as_bytes()).map_err(|error| refused(allow, &line, error.into()))?;
    }
    let shows = file::read(folder, "devices.list").unwrap_or_else(|errno| errno.to_string());
    if shows.lines().all(|line| rules.iter().any(|rule| covers(rule, line))) {
        return Ok(());
    }
    Err(Error::not_kept(Feature::Devices, &format!("{folder}/devices.list"), "the device rules", &shows))
}

/// A rule as `devices.allow` takes it: `c 1:3 rwm`.
fn line(rule: &Rule) -> String {
    let kind = if rule.kind == Kind::Block { 'b' } else { 'c' };
    let minor = rule.minor.map_or("*".to_string(), |minor| minor.to_string());
    let letters = [(Access::READ, "r"), (Access::WRITE, "w"), (Access::MKNOD, "m")];
    let access: String =
        letters.iter().filter(|(bit, _)| rule.access.0 & bit.0 != 0).map(|(_, letter)| *letter).collect();
    format!("{kind} {}:{minor} {access}", rule.major)
}

/// Whether a line of `devices.list` speaks of the device of `rule`. The kernel joins the access of equal devices.
fn covers(rule: &Rule, shown: &str) -> bool {
    let mut shown = shown.split(' ');
    let text = line(rule);
    let mut wanted = text.split(' ');
    shown.next() == wanted.next() && shown.next() == wanted.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Access = Access::READ.and(Access::WRITE).and(Access::MKNOD);
    const NULL: Rule = Rule { kind: Kind::Char, major: 1, minor: Some(3), access: ALL };

    #[test]
    fn a_device_list_that_still_allows_all_is_noticed() {
        assert_eq!(line(&Rule { kind: Kind::Block, access: Access::READ, ..NULL }), "b 1:3 r");
        assert!(covers(&NULL, "c 1:3 rwm"));
        assert!(!covers(&NULL, "a *:* rwm"));
        assert!(!covers(&NULL, "c 1:* rwm"));
        let terminals = Rule { minor: None, major: 136, ..NULL };
        assert!(covers(&terminals, "c 136:* rwm") && !covers(&terminals, "b 136:* rwm"));
    }
}
