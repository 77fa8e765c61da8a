//! What a hostile process inside a container tries, and that it gets nowhere: by the answer inside and by what an
//! observer outside sees. Names of attempts and vulnerabilities stand beside them.

mod container;

use container::probe::value;
use container::{Rootfs, binary, said};
use coracle::seccomp::Arch;
use coracle::seccomp::syscalls::Sys;
use std::fs;

/// What of the host an escape would change.
#[derive(Debug, PartialEq)]
struct Host {
    binary: Vec<u8>,
    core_pattern: String,
    modules: Vec<String>,
    hostname: String,
    boot: String,
    mounts: Vec<String>,
}

fn host() -> Host {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let words = |path: &str, column: usize| {
        let mut all: Vec<String> =
            text(path).lines().filter_map(|line| line.split(' ').nth(column)).map(str::to_owned).collect();
        all.sort();
        all
    };
    Host {
        binary: fs::read(binary()).unwrap(),
        core_pattern: text("/proc/sys/kernel/core_pattern"),
        modules: words("/proc/modules", 0),
        hostname: text("/proc/sys/kernel/hostname"),
        boot: text("/proc/sys/kernel/random/boot_id"),
        mounts: words("/proc/self/mountinfo", 4).into_iter().filter(|path| path.contains("coracle-test-")).collect(),
    }
}

fn call(call: Sys, arguments: &str) -> String {
    format!("syscall {} {arguments}", call.number(Arch::NATIVE).unwrap())
}

/// Makes the attempts and checks that each ends in one of its wanted answers.
fn refused(rootfs: &Rootfs, options: &[&str], attempts: &[(String, &[&str])]) {
    let before = host();
    let mut words = vec!["try"];
    words.extend(attempts.iter().map(|(attempt, _)| attempt.as_str()));
    let text = rootfs.probe(options, &words);
    let wrong: Vec<String> = attempts
        .iter()
        .filter(|(attempt, wanted)| !wanted.contains(&value(&text, attempt)))
        .map(|(attempt, wanted)| format!("{attempt}: {}, not one of {wanted:?}", value(&text, attempt)))
        .collect();
    assert!(wrong.is_empty(), "{options:?}:\n{}", wrong.join("\n"));
    assert_eq!(before, host());
}

const PERM: &[&str] = &["EPERM"];
/// What may not be opened for writing: read-only, without permission, or not there.
const SHUT: &[&str] = &["EROFS", "EACCES", "EPERM", "ENOENT", "ETXTBSY"];
/// What may not be reached of another process.
const FOREIGN: &[&str] = &["EACCES", "EPERM", "ENOENT", "ok 0 reached", "ok 0 reached, the folder is empty"];
/// What needs a capability, on a kernel that may lack it.
const PERM_OR_LACKING: &[&str] = &["EPERM", "ENOSYS"];

/// What the file system and the capabilities alone refuse.
fn without_filter() -> Vec<(String, &'static [&'static str])> {
    let shut = [
        "/proc/sys/kernel/core_pattern", // CVE-2022-0811
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hotplug",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/power/state",
        "/sys/kernel/uevent_helper",
        "/sys/kernel/mm/ksm/run",
        "/probe",
    ];
    let foreign = [
        "append /proc/1/exe", // CVE-2019-5736
        "read /proc/1/exe",
        "read /proc/1/mem",
        "read /proc/1/environ",
        "ls /proc/1/root",
        "ls /proc/1/cwd",
        "reach /proc/1/fd",
        "reach /proc/1/map_files",
        "reach /proc/1/ns",
        "setns /proc/1/ns/mnt",
        "read /dev/mem",
        "read /dev/kmem",
        "read /dev/port",
        "read /dev/kmsg",
        "read /dev/sda",
        "read /dev/vda",
    ];
    let perm = [
        "mount cgroup /tmp cgroup", // CVE-2022-0492
        "mount none /tmp tmpfs",
        "mount none / none 0x1020", // MS_REMOUNT|MS_BIND: a read-only mount made writable
        "umount /proc 2",
        "umount /sys 2",
        "chroot /tmp",
        "mknod /tmp/disk b 8 0",
        "mknod /tmp/mem c 1 1",
        "socket 17 3 3",
        "socket 2 3 1",
    ];
    let calls = [
        call(Sys::reboot, "0 0 0"),
        call(Sys::kexec_load, "0 0 0 0"),
        call(Sys::init_module, "0 0 0"),
        call(Sys::finit_module, "-1 0 0"),
        call(Sys::delete_module, "0 0"),
        call(Sys::pivot_root, "0 0"),
        call(Sys::sethostname, "0 0"),
        call(Sys::swapon, "0 0"),
        call(Sys::vhangup, ""),
    ];
    let mut all: Vec<(String, &'static [&'static str])> = Vec::new();
    all.extend(shut.map(|path| (format!("append {path}"), SHUT)));
    all.extend(foreign.map(|attempt| (attempt.to_owned(), FOREIGN)));
    all.extend(perm.map(|attempt| (attempt.to_owned(), PERM)));
    all.extend(calls.map(|attempt| (attempt, PERM_OR_LACKING)));
    all
}

#[test]
fn attempts_meet_the_filter() {
    let Some(rootfs) = Rootfs::new("attempts_meet_the_filter") else { return };
    let mut all = without_filter();
    let perm = [
        Sys::kexec_file_load,
        Sys::bpf,
        Sys::perf_event_open,
        Sys::userfaultfd,
        Sys::keyctl,
        Sys::add_key,
        Sys::request_key,
        Sys::ptrace,
        Sys::process_vm_readv,
        Sys::process_vm_writev,
        Sys::pidfd_getfd,
        Sys::setns,
        Sys::fsopen,
        Sys::fsconfig,
        Sys::move_mount,
        Sys::open_tree,
        Sys::mount_setattr,
        Sys::open_by_handle_at,
        Sys::io_uring_setup,
        Sys::clock_settime,
        Sys::settimeofday,
        Sys::adjtimex,
        Sys::setdomainname,
        Sys::syslog,
        Sys::acct,
    ];
    all.extend(perm.map(|name| (call(name, "0 0 0 0 0"), PERM)));
    all.push((call(Sys::clone3, "0 0"), &["ENOSYS"]));
    // Each new namespace by clone and by unshare.
    for flag in ["0x10000000", "0x12000000", "0x20000", "0x40000000", "0x20000000", "0x4000000", "0x8000000", "0x80"] {
        all.push((format!("unshare {flag}"), PERM));
    }
    all.push((call(Sys::clone, "0x10000011 0"), PERM));
    for socket in ["38 5 0", "40 1 0", "16 3 9", "15 3 2", "17 2 0", "29 3 1"] {
        all.push((format!("socket {socket}"), PERM)); // 38: AF_ALG, CVE-2026-31431
    }
    refused(&rootfs, &[], &all);
}

#[test]
fn attempts_without_a_filter_meet_the_capabilities() {
    let Some(rootfs) = Rootfs::new("attempts_without_a_filter_meet_the_capabilities") else { return };
    refused(&rootfs, &["--seccomp", "off"], &without_filter());
}

#[test]
fn attempts_of_a_plain_user_get_no_further() {
    let Some(rootfs) = Rootfs::new("attempts_of_a_plain_user_get_no_further") else { return };
    refused(&rootfs, &["--user", "1000:1000"], &without_filter());
}

#[test]
fn a_process_starts_with_what_it_was_given_and_nothing_else() {
    let Some(rootfs) = Rootfs::new("a_process_starts_with_what_it_was_given") else { return };
    let text = rootfs.probe(&[], &["status"]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(value(&text, set), "0000000000000000", "{set}");
    }
    assert_eq!(value(&text, "NoNewPrivs"), "1");
    assert_eq!(value(&text, "Seccomp"), "2");
    let fds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("fd: ")).collect();
    let numbers: Vec<&str> = fds.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{fds:?}");
    for line in text.lines().filter_map(|line| line.strip_prefix("ns: ")) {
        let (name, link) = line.split_once(" -> ").unwrap();
        let ours = fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
        let shared = ["user", "time", "time_for_children"].contains(&name);
        assert_eq!(link == ours, shared, "{line}: the host's is {ours}");
    }
    assert!(text.contains("cgroup: "), "{text}");
    for line in text.lines().filter_map(|line| line.strip_prefix("cgroup: ")) {
        assert!(line.ends_with(":/"), "a path of the host's cgroups shows: {line}");
    }
    assert!(!text.contains("coracle-test-"), "a path of the host shows:\n{text}");
}

#[test]
fn the_init_is_confined_as_soon_as_main_runs() {
    let Some(rootfs) = Rootfs::new("the_init_is_confined_as_soon_as_main_runs") else { return };
    // Main runs a moment before its init has confined itself.
    let text = rootfs.probe(&[], &["try", "pause 300", "read /proc/1/status"]);
    let status = value(&text, "read /proc/1/status").replace('|', "\n").replace('\t', " ");
    for (key, wanted) in [
        ("Seccomp", "2"),
        ("NoNewPrivs", "1"),
        ("CapPrm", "0000000000000020"),
        ("CapEff", "0000000000000020"),
        ("CapInh", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        assert_eq!(value(&status, key).trim(), wanted, "{key}, of which CAP_KILL is 20");
    }
}

#[test]
fn kill_reaches_no_process_outside() {
    let Some(rootfs) = Rootfs::new("kill_reaches_no_process_outside") else { return };
    // First the proof that the numbers below mean the container's own processes.
    let status = rootfs.probe(&[], &["status"]);
    let pid: u32 = value(&status, "Pid").parse().unwrap();
    assert!(pid < 10, "no pid namespace of its own: {pid}");
    let mut bystander = std::process::Command::new("sleep").arg("30").spawn().unwrap();
    let host_pid = format!("kill {} 9", bystander.id());
    let text = rootfs.probe(&[], &["try", "kill 1 19", "kill 1 9", "kill -1 9", &host_pid, "read /proc/1/comm"]);
    assert_eq!(value(&text, &host_pid), "ESRCH");
    assert!(value(&text, "read /proc/1/comm").starts_with("ok"), "{text}");
    assert!(bystander.try_wait().unwrap().is_none(), "the process outside ended");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_fork_bomb_ends_at_the_limit() {
    let Some(rootfs) = Rootfs::new("a_fork_bomb_ends_at_the_limit") else { return };
    let text = rootfs.probe(&["--pids", "20"], &["try", "fork-until-refused 500"]);
    let answer = value(&text, "fork-until-refused 500");
    let children: u32 = answer.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(answer.ends_with("EAGAIN") && (10..=20).contains(&children), "{answer}");
    let text = rootfs.probe(&[], &["try", "fork-until-refused 500"]);
    assert!(value(&text, "fork-until-refused 500").ends_with("EAGAIN"), "64 is the default: {text}");
}

#[test]
fn a_memory_hog_dies_alone() {
    let Some(rootfs) = Rootfs::new("a_memory_hog_dies_alone") else { return };
    let output = rootfs.run(&["--memory", "16M"], &["/probe", "try", "eat 200"]);
    assert_eq!(output.status.code(), Some(137), "{}", said(&output));
    let text = rootfs.probe(&["--memory", "64M"], &["try", "eat 20"]);
    assert_eq!(value(&text, "eat 20"), "ok 20 MiB held");
}

#[test]
fn what_is_written_to_tmpfs_counts_as_memory() {
    let Some(rootfs) = Rootfs::new("what_is_written_to_tmpfs_counts_as_memory") else { return };
    for path in ["/tmp/x", "/dev/shm/x", "/run/x"] {
        let output = rootfs.run(&["--memory", "16M"], &["/probe", "try", &format!("fill {path} 200")]);
        let text = said(&output);
        let full = text.contains("MiB, then ENOSPC");
        assert!(full || output.status.code() == Some(137), "{path}: {:?} {text}", output.status);
    }
}

#[test]
fn descriptors_end_at_the_limit() {
    let Some(rootfs) = Rootfs::new("descriptors_end_at_the_limit") else { return };
    let text = rootfs.probe(&[], &["try", "open-until-refused 2000000"]);
    assert!(value(&text, "open-until-refused 2000000").ends_with("EMFILE"), "{text}");
}

#[test]
fn the_network_of_the_host_is_not_there() {
    let Some(rootfs) = Rootfs::new("the_network_of_the_host_is_not_there") else { return };
    use std::os::linux::net::SocketAddrExt;
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("coracle-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _unix = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let (to_tcp, to_unix) = (format!("connect-tcp {}", tcp.local_addr().unwrap()), format!("connect-abstract {name}"));
    let text = rootfs.probe(&[], &["try", &to_tcp, &to_unix, "connect-tcp 192.0.2.1:80"]);
    assert_eq!(value(&text, &to_tcp), "ECONNREFUSED");
    assert_eq!(value(&text, &to_unix), "ECONNREFUSED");
    assert_eq!(value(&text, "connect-tcp 192.0.2.1:80"), "ENETUNREACH");
    let text = rootfs.probe(&["--network", "host"], &["try", &to_tcp]);
    assert_eq!(value(&text, &to_tcp), "ok", "network host is the host's");
}

#[test]
fn limits_cannot_be_raised_from_inside() {
    let Some(rootfs) = Rootfs::new("limits_cannot_be_raised_from_inside") else { return };
    let listing = rootfs.probe(&[], &["try", "ls /sys/fs/cgroup"]);
    let top = value(&listing, "ls /sys/fs/cgroup");
    let mut attempts = vec![("mkdir /sys/fs/cgroup/x".to_owned(), SHUT)];
    for name in top.trim_start_matches("ok").split_whitespace() {
        for file in
            ["", "/cgroup.procs", "/tasks", "/memory.limit_in_bytes", "/memory.max", "/pids.max", "/release_agent"]
        {
            let wanted: &[&str] = &["EROFS", "EACCES", "EPERM", "ENOENT", "ENOTDIR", "errno 21"];
            attempts.push((format!("append /sys/fs/cgroup/{name}{file}"), wanted));
        }
    }
    refused(&rootfs, &["--seccomp", "off"], &attempts);
}

#[test]
fn real_time_scheduling_is_refused() {
    let Some(rootfs) = Rootfs::new("real_time_scheduling_is_refused") else { return };
    let text = rootfs.probe(&[], &["try", "fifo"]);
    assert_eq!(value(&text, "fifo"), "EPERM");
}

#[test]
fn what_the_kernel_tells_of_the_host_is_masked() {
    let Some(rootfs) = Rootfs::new("what_the_kernel_tells_of_the_host_is_masked") else { return };
    let masked = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats"];
    let folders = ["/sys/firmware", "/proc/acpi", "/proc/scsi", "/sys/devices/virtual/powercap"];
    let mut attempts: Vec<(String, &[&str])> = Vec::new();
    attempts.extend(masked.map(|path| (format!("read {path}"), ["ok", "EACCES", "EPERM", "ENOENT"].as_slice())));
    attempts.extend(folders.map(|path| (format!("ls {path}"), ["ok", "EACCES", "ENOENT"].as_slice())));
    refused(&rootfs, &[], &attempts);
}
