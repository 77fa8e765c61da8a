//! Where this process's cgroups are, from the text of `/proc/self/cgroup` and `/proc/self/mountinfo` (cgroups(7),
//! proc(5)). Pure: no file is opened here.
#![forbid(unsafe_code)]

use super::{Controller, Controllers};
use crate::base::mountinfo::{Mounted, has_option};

/// A cgroup file system as mounted, and this process's place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// 1 or 2.
    pub version: u8,
    /// The controllers that v1 mounted here; none for v2, where files tell.
    pub controllers: Controllers,
    /// Where it is mounted.
    pub mount: String,
    /// This process's group as a path on the file system: `mount` or beneath it.
    pub own: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// What that group of v2 is known to hand down, without a look.
    pub handed_down: Controllers,
}

/// Finds the hierarchies: v1 ones with a controller that coracle uses, and the v2 one.
///
/// A hierarchy whose mount does not show this process's group (mounted from a foreign cgroup namespace) is left out.
pub fn hierarchies(proc_cgroup: &str, mountinfo: &str) -> Vec<Hierarchy> {
    let mut mounts: Vec<(u8, Mounted<'_>)> = Vec::new();
    mounts.extend(mountinfo.lines().filter_map(mounted));
    let mut found = Vec::new();
    for line in proc_cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(names), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let version = if number == "0" && names.is_empty() { 2 } else { 1 };
        let controllers = Controllers::of_v1(names);
        if version == 1 && controllers.is_empty() {
            continue;
        }
        // The last mount over a target is the visible one; a writable one is preferred.
        let mut best: Option<(&Mounted<'_>, &str)> = None;
        for (_, mount) in mounts.iter().rev().filter(|(kind, _)| *kind == version) {
            let holds = version == 2 || names.split(',').all(|name| has_option(mount.super_options, name));
            if let Some(inside) = beneath(path, &mount.root).filter(|_| holds)
                && best.is_none_or(|(best, _)| best.is_read_only() && !mount.is_read_only())
            {
                best = Some((mount, inside));
            }
        }
        if let Some((mount, inside)) = best {
            let own = format!("{}{inside}", mount.target.trim_end_matches('/'));
            let read_only = mount.is_read_only();
            let (mount, handed_down) = (mount.target.clone(), Controllers::default());
            found.push(Hierarchy { version, controllers, mount, own, read_only, handed_down });
        }
    }
    found
}

/// Whether v1 has each controller that v2 could have, by `/proc/self/cgroup`.
pub fn v1_has_all(proc_cgroup: &str) -> bool {
    let has = |wanted: &str| {
        let mut lists = proc_cgroup.lines().filter_map(|line| line.split(':').nth(1));
        lists.any(|names| names.split(',').any(|name| name == wanted))
    };
    Controller::ALL.into_iter().filter(|one| one.v2_name().is_some()).all(|one| has(one.v1_name()))
}

/// `path` relative to the mount's `root`: empty or with a leading slash.
fn beneath<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let inside = path.strip_prefix(root.trim_end_matches('/'))?;
    if inside.split('/').any(|part| part == "..") {
        return None;
    }
    match inside {
        "" | "/" => Some(""),
        inside => inside.starts_with('/').then_some(inside),
    }
}

/// A mount of cgroups, with the version of its hierarchy.
fn mounted(line: &str) -> Option<(u8, Mounted<'_>)> {
    let mount = Mounted::parse(line)?;
    let version = match mount.kind {
        "cgroup" => 1,
        "cgroup2" => 2,
        _ => return None,
    };
    Some((version, mount))
}

/// `own`, the text of `/proc/self/cgroup`, as if this process were in `named` on v2.
pub fn placed(own: &str, named: &str) -> String {
    let lines =
        own.lines().map(|line| if line.starts_with("0::") { format!("0::{named}\n") } else { format!("{line}\n") });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(found: &[Hierarchy], controller: Controller) -> Option<&str> {
        let hierarchy = found.iter().find(|hierarchy| hierarchy.controllers.has(controller));
        hierarchy.map(|hierarchy| hierarchy.own.as_str())
    }

    fn unified(found: &[Hierarchy]) -> Option<&str> {
        found.iter().find(|hierarchy| hierarchy.version == 2).map(|hierarchy| hierarchy.own.as_str())
    }

    #[test]
    fn a_group_that_is_named_takes_the_place_of_the_own_one_on_v2_alone() {
        let placed = placed("4:memory:/a\n0::/system.slice/coracle.service\n", "/services");
        assert_eq!(placed, "4:memory:/a\n0::/services\n");
    }

    #[test]
    fn a_controller_that_v2_may_have_is_noticed() {
        let all = "9:name=systemd:/\n8:pids:/\n7:blkio:/a\n5:cpuset:/\n4:cpu,cpuacct:/x:y\n3:memory:/\n0::/\n";
        assert!(v1_has_all(all));
        assert!(!v1_has_all(&all.replace("pids", "freezer")));
        assert!(!v1_has_all("0::/\n"));
        assert!(!v1_has_all(""));
    }

    const SYSTEMD_HYBRID_MOUNTS: &str = "\
26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
27 25 0:24 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
30 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct
31 25 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:16 - cgroup cgroup rw,memory
32 25 0:29 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid shared:17 - cgroup cgroup rw,net_cls,net_prio";

    #[test]
    fn separate_v1_hierarchies_beside_an_empty_v2_tree() {
        let cgroup = "9:name=systemd:/\n8:pids:/\n4:memory:/process_api/b39e\n1:cpu:/\n0::/\n";
        let mounts = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let found = hierarchies(cgroup, mounts);
        assert_eq!(own(&found, Controller::Memory), Some("/sys/fs/cgroup/memory/process_api/b39e"));
        assert_eq!(own(&found, Controller::Pids), Some("/sys/fs/cgroup/pids"));
        assert_eq!(own(&found, Controller::Devices), None);
        assert_eq!(unified(&found), Some("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn systemd_hybrid_mounts_cpu_and_cpuacct_together() {
        let cgroup = "12:memory:/user.slice\n5:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice/user-0.slice\n0::/user.slice/user-0.slice/session-1.scope";
        let found = hierarchies(cgroup, SYSTEMD_HYBRID_MOUNTS);
        assert_eq!(own(&found, Controller::Cpu), Some("/sys/fs/cgroup/cpu,cpuacct/user.slice"));
        assert_eq!(own(&found, Controller::Cpu), own(&found, Controller::Cpuacct));
        assert_eq!(unified(&found), Some("/sys/fs/cgroup/unified/user.slice/user-0.slice/session-1.scope"));
    }

    #[test]
    fn pure_v2_with_a_delegated_group() {
        let mounts =
            "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot";
        let found = hierarchies("0::/system.slice/coracle.service\n", mounts);
        assert_eq!(found.len(), 1);
        assert_eq!(unified(&found), Some("/sys/fs/cgroup/system.slice/coracle.service"));
    }

    #[test]
    fn pure_v1_has_no_v2_tree() {
        let mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        assert_eq!(unified(&hierarchies("4:memory:/a\n0::/\n", mounts)), None);
    }

    #[test]
    fn in_a_docker_container_the_mount_shows_only_its_own_group() {
        let cgroup = "4:memory:/docker/0123\n0::/docker/0123";
        let mounts = "\
700 690 0:32 /docker/0123 /sys/fs/cgroup/memory ro,nosuid master:19 - cgroup cgroup rw,memory
701 690 0:26 /docker/0123 /sys/fs/cgroup/unified ro - cgroup2 cgroup rw";
        let found = hierarchies(cgroup, mounts);
        assert_eq!(own(&found, Controller::Memory), Some("/sys/fs/cgroup/memory"));
        assert!(found.iter().all(|hierarchy| hierarchy.read_only));
        let nested = hierarchies("4:memory:/docker/0123/init", mounts);
        assert_eq!(own(&nested, Controller::Memory), Some("/sys/fs/cgroup/memory/init"));
    }

    #[test]
    fn in_a_cgroup_namespace_paths_are_relative_to_its_root() {
        let mounts = "701 690 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(unified(&hierarchies("0::/", mounts)), Some("/sys/fs/cgroup"));
        let foreign = "701 690 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(unified(&hierarchies("0::/", foreign)), None);
        assert_eq!(unified(&hierarchies("0::/../other", mounts)), None);
    }

    #[test]
    fn a_name_that_only_begins_like_the_mounts_root_is_another_group() {
        let mounts = "700 690 0:32 /docker/01 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        assert_eq!(own(&hierarchies("4:memory:/docker/0123", mounts), Controller::Memory), None);
    }

    #[test]
    fn a_writable_mount_is_preferred_and_escapes_are_undone() {
        let mounts = "\
1 1 0:1 / /run/my\\040groups rw - cgroup2 cgroup rw
2 1 0:1 / /sys/fs/cgroup ro - cgroup2 cgroup rw";
        let found = hierarchies("0::/a", mounts);
        assert_eq!((unified(&found), found[0].read_only), (Some("/run/my groups/a"), false));
    }

    #[test]
    fn damaged_text_yields_nothing() {
        assert!(hierarchies("", "").is_empty());
        assert!(hierarchies("0:\nx\n::\n1:memory", "a b c\n - cgroup2\n1 2 3 / - cgroup2").is_empty());
    }
}
