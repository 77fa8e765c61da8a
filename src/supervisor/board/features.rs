//! The table of what coracle asks of a kernel and a board: what is lost without it and how to get it. Pure.

/// Something that a kernel or a board has or lacks.
#[derive(Debug)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Kernel options that bring it; none for what only a newer kernel or another board brings.
    pub options: &'static [&'static str],
    /// What to change where no option brings it.
    pub otherwise: &'static str,
    /// What is in force without it; empty: nothing.
    pub instead: &'static str,
    /// What is lost without it.
    pub lost: &'static str,
    /// Whether coracle cannot do its work without it.
    pub required: bool,
}

/// Most features that a profile can hold: the bits of one word.
pub const MOST: usize = 64;

const fn required(name: &'static str, options: &'static [&'static str], lost: &'static str) -> Feature {
    Feature { name, options, otherwise: "", instead: "", lost, required: true }
}

const fn wanted(name: &'static str, options: &'static [&'static str], lost: &'static str) -> Feature {
    Feature { required: false, ..required(name, options, lost) }
}

const fn replaced(
    name: &'static str,
    options: &'static [&'static str],
    instead: &'static str,
    lost: &'static str,
) -> Feature {
    Feature { instead, ..wanted(name, options, lost) }
}

const fn younger(name: &'static str, otherwise: &'static str, instead: &'static str, lost: &'static str) -> Feature {
    Feature { otherwise, ..replaced(name, &[], instead, lost) }
}

/// All of them. A profile keeps them by name, so that one of an older coracle can be read.
pub static FEATURES: &[Feature] = &[
    Feature { otherwise: "a kernel of 4.19 or later", ..required("kernel", &[], "what older kernels do is not known") },
    replaced(
        "cgroup.v2",
        &["CONFIG_CGROUPS"],
        "the v1 hierarchies, controller by controller",
        "one consistent tree: a group is killed process by process",
    ),
    required("cgroup.memory", &["CONFIG_MEMCG"], "memory limits: a service that has one is held"),
    replaced(
        "cgroup.swap",
        &["CONFIG_SWAP"],
        "the memory limit alone",
        "limits on swap: a service may push its memory out to it",
    ),
    required("cgroup.pids", &["CONFIG_CGROUP_PIDS"], "limits on processes: a fork bomb takes the board"),
    wanted(
        "cgroup.cpu",
        &["CONFIG_CGROUP_SCHED", "CONFIG_FAIR_GROUP_SCHED", "CONFIG_CFS_BANDWIDTH"],
        "cpu limits and weights: a service that has one is held",
    ),
    replaced("cgroup.cpuacct", &["CONFIG_CGROUP_CPUACCT"], "nothing is counted", "cpu times in `coracle stats` on v1"),
    wanted("cgroup.cpuset", &["CONFIG_CPUSETS"], "pinning to cores (limits.cpus)"),
    wanted("cgroup.io", &["CONFIG_BLK_CGROUP", "CONFIG_BLK_DEV_THROTTLING"], "limits on block devices (limits.io)"),
    replaced("cgroup.freezer", &["CONFIG_CGROUP_FREEZER"], "nothing: `pause` is refused", "`coracle pause` on v1"),
    required(
        "cgroup.devices",
        &["CONFIG_CGROUP_DEVICE", "CONFIG_CGROUP_BPF", "CONFIG_BPF_SYSCALL"],
        "device allow-lists (v1 by a controller, v2 by BPF): services are held",
    ),
    younger(
        "cgroup.kill",
        "a kernel of 5.14 or later with cgroup v2",
        "a signal to each process until none is left",
        "killing a group at one stroke",
    ),
    younger(
        "clone_into_cgroup",
        "a kernel of 5.7 or later",
        "main joins its group itself",
        "a start that waits for nothing on v2",
    ),
    required("seccomp.filter", &["CONFIG_SECCOMP", "CONFIG_SECCOMP_FILTER"], "system call filters: services are held"),
    younger(
        "seccomp.actions",
        "a kernel of 4.14 or later",
        "the thread alone is killed, nothing is logged",
        "killing the whole process, and seccomp \"log\"",
    ),
    required("no_new_privs", &["CONFIG_MULTIUSER"], "setuid programs would raise privileges"),
    required("ns.mnt", &["CONFIG_NAMESPACES"], "a root file system of its own for each service"),
    required("ns.pid", &["CONFIG_PID_NS"], "services that see only their own processes"),
    required("ns.net", &["CONFIG_NET_NS"], "services without the host's network"),
    required("ns.ipc", &["CONFIG_IPC_NS", "CONFIG_SYSVIPC"], "shared memory that others cannot reach"),
    required("ns.uts", &["CONFIG_UTS_NS"], "a host name of its own for each service"),
    required("ns.cgroup", &["CONFIG_CGROUPS"], "services that see only their own group"),
    replaced(
        "ns.user",
        &["CONFIG_USER_NS"],
        "the host's user ids, which need none",
        "programs that make sandboxes of their own, such as browsers",
    ),
    required("fs.proc", &["CONFIG_PROC_FS"], "everything"),
    required("fs.sysfs", &["CONFIG_SYSFS"], "/sys in services, and the cgroups beneath it"),
    required("fs.tmpfs", &["CONFIG_TMPFS", "CONFIG_SHMEM"], "/tmp, /run and /dev of services"),
    required("fs.devpts", &["CONFIG_UNIX98_PTYS"], "terminals (`exec -t`) and /dev/pts of services"),
    replaced(
        "fs.devtmpfs",
        &["CONFIG_DEVTMPFS"],
        "the nodes that the firmware made",
        "device nodes that come with their drivers",
    ),
    replaced(
        "fs.mqueue",
        &["CONFIG_POSIX_MQUEUE"],
        "none: there are no queues to keep apart",
        "POSIX message queues in services",
    ),
    replaced(
        "fs.overlay",
        &["CONFIG_OVERLAY_FS"],
        "layers merged into one tree when an image is first used",
        "root_fs \"scratch\" and \"persistent\", and time and space at the first start",
    ),
    wanted(
        "fs.squashfs",
        &["CONFIG_SQUASHFS", "CONFIG_SQUASHFS_XATTR"],
        "squashfs files as images, and baked stores on squashfs",
    ),
    wanted(
        "fs.erofs",
        &["CONFIG_EROFS_FS", "CONFIG_EROFS_FS_XATTR"],
        "EROFS files as images, and baked stores on EROFS",
    ),
    wanted("loop", &["CONFIG_BLK_DEV_LOOP"], "squashfs and EROFS files as images"),
    required("epoll", &["CONFIG_EPOLL"], "the supervisor's loop"),
    required("signalfd", &["CONFIG_SIGNALFD"], "the supervisor's loop"),
    required("timerfd", &["CONFIG_TIMERFD"], "the supervisor's loop"),
    required("unix", &["CONFIG_NET", "CONFIG_UNIX"], "the control socket, and the channel to each service's init"),
    replaced(
        "inotify",
        &["CONFIG_INOTIFY_USER"],
        "a look when something else happens",
        "held services that start when what they lack appears",
    ),
    younger(
        "pidfd",
        "a kernel of 5.3 or later",
        "SIGCHLD and process numbers",
        "signals that can hit no later process of the same number",
    ),
    younger("clone3", "a kernel of 5.3 or later", "clone", "nothing that is seen"),
    younger(
        "openat2",
        "a kernel of 5.6 or later",
        "a walk, name by name, that follows no link",
        "some time for each path in an image",
    ),
    younger("close_range", "a kernel of 5.9 or later", "closing one by one", "some time at each start"),
    younger(
        "mount_api",
        "a kernel of 5.12 or later",
        "mount(2), whose flags are set by a second call",
        "binding without a moment of other flags",
    ),
    replaced(
        "landlock",
        &["CONFIG_SECURITY_LANDLOCK"],
        "the unpacker's other walls",
        "one of the walls around the unpacker of images",
    ),
    wanted("watchdog", &["CONFIG_WATCHDOG"], "a board that resets itself when supervisor or kernel hang"),
    replaced(
        "rtc",
        &["CONFIG_RTC_CLASS"],
        "the time saved last, or the build's",
        "the right time before the network is up",
    ),
    wanted(
        "pstore",
        &["CONFIG_PSTORE", "CONFIG_PSTORE_RAM", "CONFIG_PSTORE_PMSG"],
        "the last messages of a kernel that crashed, and of services before a reset",
    ),
    wanted("kmsg", &["CONFIG_PRINTK"], "messages of coracle among the kernel's"),
    Feature {
        otherwise: "start coracle with CAP_SYS_RESOURCE",
        ..replaced(
            "cap.sys_resource",
            &[],
            "limits up to those that coracle was started with",
            "raising resource limits and lowering oom_score_adj",
        )
    },
];

/// The place of a feature in the table.
pub fn index(name: &str) -> Option<usize> {
    FEATURES.iter().position(|feature| feature.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_a_name_of_its_own_and_a_way_to_get_it() {
        assert!(FEATURES.len() <= MOST);
        for (place, feature) in FEATURES.iter().enumerate() {
            assert_eq!(index(feature.name), Some(place));
            assert_ne!(feature.options.is_empty(), feature.otherwise.is_empty(), "{}", feature.name);
            assert!(!feature.lost.is_empty(), "{}", feature.name);
            assert!(!feature.required || feature.instead.is_empty(), "{}", feature.name);
        }
    }
}
