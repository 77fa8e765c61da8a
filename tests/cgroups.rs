//! What a group's limits do to real processes, on whatever cgroup version this kernel has. Needs root.

use coracle::base::units::Bytes;
use coracle::plan::{IoLimit, Limits, Memory};
use coracle::sandbox::cgroup::devices::{Access, Kind};
use coracle::sandbox::cgroup::{Controller, DeviceRule, Group, Join, Options, Tree};
use std::io::{BufRead, BufReader, Write};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// On v2 the first group may move this process to a leaf, and back when the last tree goes: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A tree of its own for one test; whatever happens, nothing of it stays.
struct Place {
    tree: Tree,
    groups: Vec<Group>,
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Place {
    /// `None`, with the reason printed, where the test cannot run.
    fn new(test: &str, needs: &[Controller]) -> Option<Place> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !nix::unistd::geteuid().is_root() {
            println!("skip: {test}: needs root");
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let tree = Tree::discover(&format!("coracle-test-{}-{number}", std::process::id())).unwrap();
        if let Some(reason) = needs.iter().find_map(|controller| tree.has(*controller).err()) {
            println!("skip: {test}: {reason}");
            return None;
        }
        Some(Place { tree, groups: Vec::new(), _turn: turn })
    }

    fn group(&mut self, name: &str, limits: &Limits) -> Group {
        let options = Options { measure: true, ..Options::default() };
        let group = self.tree.create(name, limits, &rules(), &options).unwrap_or_else(|error| panic!("{error}"));
        self.groups.push(group.clone());
        group
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for group in &self.groups {
            let _ = group.kill();
            wait_until_empty(group);
            let _ = group.remove();
        }
        for name in self.tree.leftovers() {
            let _ = self.tree.group(&name).map(|group| group.remove());
        }
        let removed = self.tree.remove();
        if !std::thread::panicking() {
            removed.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

fn wait_until_empty(group: &Group) {
    for _ in 0..5000 {
        if group.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Null, tty and pseudo terminals.
fn rules() -> Vec<DeviceRule> {
    let access = Access::READ.and(Access::WRITE);
    let rule = |major, minor| DeviceRule { kind: Kind::Char, major, minor, access };
    vec![rule(1, Some(3)), rule(5, Some(0)), rule(136, None)]
}

fn limits(memory: u64) -> Limits {
    Limits::with_memory(Memory::Max(Bytes(memory)))
}

/// A process in a group. The shell before it opens the join files by this process's descriptors, so these stay open.
struct Running {
    child: Child,
    _join: Join,
}

impl Running {
    fn output(self) -> Output {
        self.child.wait_with_output().unwrap()
    }
}

impl Deref for Running {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

/// Starts a command that enters the group before its first instruction.
fn start(group: &Group, command: &[&str]) -> Running {
    let join = group.join().unwrap_or_else(|error| panic!("{error}"));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "while [ \"$1\" != -- ]; do echo 0 > \"$1\" || exit 99; shift; done; shift; exec \"$@\"", "sh"]);
    let files = join.tasks.iter().map(|fd| (fd, "")).chain(join.into.iter().map(|fd| (fd, "/cgroup.procs")));
    for (fd, file) in files {
        shell.arg(format!("/proc/{}/fd/{}{file}", std::process::id(), fd.as_raw_fd()));
    }
    shell.arg("--").args(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    // It has joined every hierarchy once the shell has become the command; amid execve(2) the words are our own, then empty.
    let words = format!("/proc/{}/cmdline", child.id());
    let own = std::fs::read_to_string("/proc/self/cmdline").unwrap();
    let joins = |words: String| words.is_empty() || words == own || words.contains("exit 99");
    while std::fs::read_to_string(&words).is_ok_and(joins) {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Running { child, _join: join }
}

/// Starts this test program again as `job` inside the group.
fn start_job(group: &Group, job: &str) -> Running {
    let own = std::env::current_exe().unwrap();
    let job = format!("JOB={job}");
    start(group, &["env", &job, own.to_str().unwrap(), "--exact", "the_work_of_the_other_tests", "--nocapture"])
}

/// Not a test by itself: what the other tests run inside their groups.
#[test]
fn the_work_of_the_other_tests() {
    match std::env::var("JOB").as_deref() {
        Ok("hog") => {
            let mut held: Vec<Vec<u8>> = Vec::new();
            for _ in 0..256 {
                held.push(vec![7; 1 << 20]);
            }
            println!("held {} MiB", held.len());
        }
        Ok("burn") => {
            let mut sum = 0u64;
            let used = || {
                let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
                time.tv_sec() as u64 * 1000 + time.tv_nsec() as u64 / 1_000_000
            };
            while used() < 150 {
                sum = (0..10_000u64).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
            }
            println!("{sum}");
        }
        _ => {}
    }
}

#[test]
fn a_memory_hog_is_killed_at_its_limit_and_counted() {
    let Some(mut place) = Place::new("a_memory_hog_is_killed_at_its_limit", &[Controller::Memory]) else { return };
    let group = place.group("hog", &limits(24 << 20));
    let event = group.oom_event().unwrap().expect("a memory controller");
    let epoll = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    use nix::sys::epoll::{EpollEvent, EpollTimeout};
    epoll.add(event.fd(), EpollEvent::new(event.events(), 1)).unwrap();
    let mut seen = [EpollEvent::empty()];
    assert_eq!(epoll.wait(&mut seen, EpollTimeout::ZERO), Ok(0), "nothing has happened yet");
    assert_eq!(group.oom_kills(), 0);
    assert_eq!(epoll.wait(&mut seen, EpollTimeout::ZERO).unwrap(), 0, "nothing happened yet");

    let status = start_job(&group, "hog").wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
    assert!(epoll.wait(&mut seen, EpollTimeout::from(10_000u16)).unwrap() == 1, "the event fires");
    assert!(group.oom_kills() >= 1);
    let stats = group.stats();
    assert_eq!(stats.memory_limit, Some(24 << 20));
    assert!(stats.memory_peak.is_none_or(|peak| peak <= 24 << 20), "{stats:?}");
}

#[test]
fn a_fork_bomb_is_held_at_its_limit() {
    let Some(mut place) = Place::new("a_fork_bomb_is_held_at_its_limit", &[Controller::Pids]) else { return };
    let group = place.group("bomb", &Limits { pids: 8, ..limits(64 << 20) });
    let mut child = start(&group, &["sh", "-c", "bomb() { bomb & bomb & sleep 100; }; bomb"]);
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(2));
        assert!(group.pids().len() <= 8);
    }
    assert!(group.stats().pids.is_some_and(|pids| pids <= 8));
    assert_eq!(group.stats().pids_limit, Some(8));
    group.kill().unwrap();
    child.wait().unwrap();
    wait_until_empty(&group);
    assert!(group.is_empty(), "left: {:?}", group.pids());
}

#[test]
fn a_cpu_quota_makes_a_busy_process_wait() {
    let Some(mut place) = Place::new("a_cpu_quota_makes_a_busy_process_wait", &[Controller::Cpu]) else { return };
    let group = place.group("busy", &Limits { cpu: Some(20), cpu_weight: Some(50), ..limits(64 << 20) });
    assert!(start_job(&group, "burn").wait().unwrap().success());
    let stats = group.stats();
    assert!(stats.throttled.is_some_and(|times| times >= 1), "{stats:?}");
    assert!(stats.cpu_usage.is_none_or(|usage| usage >= 100_000), "{stats:?}");
}

#[test]
fn a_frozen_group_stands_still_until_it_is_thawed() {
    let Some(mut place) = Place::new("a_frozen_group_stands_still", &[Controller::Freezer]) else { return };
    let group = place.group("frozen", &limits(64 << 20));
    let mut child = start(&group, &["cat"]);
    let (mut input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut line = String::new();
    input.write_all(b"one\n").unwrap();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");

    group.freeze(true).unwrap();
    assert!(group.frozen() && group.stats().frozen);
    input.write_all(b"two\n").unwrap();
    use nix::poll::{PollFd, PollFlags, poll};
    use std::os::fd::AsFd;
    let mut waiting = [PollFd::new(output.get_ref().as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut waiting, 50u8).unwrap(), 0, "a frozen process wrote");

    group.freeze(false).unwrap();
    assert!(!group.frozen());
    line.clear();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "two\n");

    group.freeze(true).unwrap();
    group.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL), "a frozen group can be killed");
}

#[test]
fn kill_reaches_what_left_its_session_and_its_parent() {
    let Some(mut place) = Place::new("kill_reaches_the_whole_tree", &[]) else { return };
    let group = place.group("tree", &limits(64 << 20));
    let script = "for n in 1 2 3 4 5; do setsid sh -c 'trap \"\" TERM HUP INT; (sleep 100 & sleep 100) & sleep 100' & done; wait";
    let mut child = start(&group, &["sh", "-c", script]);
    for _ in 0..2500 {
        if group.pids().len() >= 16 {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(group.pids().len() >= 16, "{:?}", group.pids());
    let busy = group.remove().unwrap_err().to_string();
    assert!(busy.contains(&format!("processes [{}, ", group.pids()[0])), "{busy}");
    group.kill().unwrap();
    child.wait().unwrap();
    wait_until_empty(&group);
    assert!(group.is_empty(), "left: {:?}", group.pids());
    group.remove().unwrap();
}

#[test]
fn a_device_outside_of_the_rules_cannot_be_opened() {
    let Some(mut place) = Place::new("a_device_outside_of_the_rules", &[Controller::Devices]) else { return };
    let group = place.group("devices", &limits(64 << 20));
    let open = start(&group, &["sh", "-c", "echo x > /dev/null && echo written; head -c 1 /dev/zero"]);
    let output = open.output();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "written\n");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("not permitted"), "{message}");
}

#[test]
fn cores_are_pinned() {
    let Some(mut place) = Place::new("cores_are_pinned", &[Controller::Cpuset]) else { return };
    let group = place.group("pinned", &Limits { cpus: Some("0".into()), ..limits(64 << 20) });
    let output = start(&group, &["grep", "Cpus_allowed_list", "/proc/self/status"]).output();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "Cpus_allowed_list:\t0");
    let absent = Limits { cpus: Some("0,7000".into()), ..limits(64 << 20) };
    let error = place.tree.create("absent", &absent, &rules(), &Options::default()).unwrap_err();
    assert!(error.to_string().starts_with("limits.cpus: "), "{error}");
    assert!(error.to_string().contains("cpuset.cpus"), "{error}");
}

#[test]
fn a_limit_is_rounded_down_to_pages() {
    let Some(mut place) = Place::new("a_limit_is_rounded_down", &[Controller::Memory]) else { return };
    let group = place.group("odd", &limits((8 << 20) + 100));
    assert_eq!(group.stats().memory_limit, Some(8 << 20));
}

#[test]
fn a_group_in_use_keeps_its_processes_and_takes_new_limits() {
    let Some(mut place) = Place::new("a_group_in_use_takes_new_limits", &[Controller::Memory]) else { return };
    let first = place.group("live", &limits(16 << 20));
    let mut child = start(&first, &["sleep", "100"]);
    for memory in [64 << 20, 32 << 20] {
        let again = place.group("live", &limits(memory));
        assert_eq!(again.stats().memory_limit, Some(memory));
        assert_eq!(again.pids(), [child.id() as i32]);
    }
    first.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_a_dead_supervisor_left_is_found_and_removed() {
    let Some(mut place) = Place::new("what_a_dead_supervisor_left", &[]) else { return };
    let record = place.group("orphan", &limits(16 << 20)).record();
    let mut child = start(&place.groups[0], &["sleep", "100"]);
    assert_eq!(place.tree.leftovers(), ["orphan"]);
    let found = place.tree.group("orphan").expect("the group");
    assert_eq!(found.pids(), [child.id() as i32]);
    assert_eq!(Group::open(&record).unwrap().pids(), [child.id() as i32]);
    assert_eq!(Group::open(&record).unwrap().stats().pids, Some(1));
    found.kill().unwrap();
    child.wait().unwrap();
    wait_until_empty(&found);
    found.remove().unwrap();
    assert!(place.tree.leftovers().is_empty());
    assert!(place.tree.group("orphan").is_none());
}

#[test]
fn a_single_group_needs_no_common_folder() {
    let Some(place) = Place::new("a_single_group", &[]) else { return };
    let prefix = format!("coracle-flat-{}", std::process::id());
    let mut tree = Tree::discover_flat(&prefix).unwrap();
    let group = tree.create("one", &limits(16 << 20), &rules(), &Options::default()).unwrap();
    assert!(start(&group, &["true"]).wait().unwrap().success());
    assert_eq!(tree.leftovers(), ["one"]);
    wait_until_empty(&group);
    group.remove().unwrap();
    assert!(tree.leftovers().is_empty());
    tree.remove().unwrap();
    drop(place);
}

#[test]
fn a_limit_on_something_that_is_no_block_device_is_refused() {
    let Some(mut place) = Place::new("a_limit_on_no_block_device", &[]) else { return };
    for (device, part) in [("/dev/null", "ENOTBLK"), ("/dev/nonexistent-disk", "ENOENT")] {
        let io = IoLimit {
            device: device.into(),
            read_bps: Some(1 << 20),
            write_bps: None,
            read_iops: None,
            write_iops: None,
        };
        let limits = Limits { io: vec![io], ..limits(16 << 20) };
        let error = place.tree.create("disk", &limits, &rules(), &Options::default()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(device) && message.contains(part), "{message}");
    }
    assert!(place.tree.leftovers().is_empty(), "a failed group leaves nothing");
}

#[test]
fn a_disk_is_limited() {
    let Some(mut place) = Place::new("a_disk_is_limited", &[Controller::Io]) else { return };
    let disks = std::fs::read_dir("/sys/block").map(|disks| disks.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let names = disks.iter().filter_map(|disk| disk.file_name().into_string().ok());
    let Some(disk) = names.map(|name| format!("/dev/{name}")).find(|path| std::fs::metadata(path).is_ok()) else {
        println!("skip: a_disk_is_limited: no block device");
        return;
    };
    let io = IoLimit {
        device: disk.into(),
        read_bps: Some(1 << 20),
        write_bps: None,
        read_iops: None,
        write_iops: Some(100),
    };
    place.group("disk", &Limits { io: vec![io], ..limits(16 << 20) });
}

#[test]
fn a_kernel_without_cgroup_kill_or_freezer_kills_one_by_one() {
    let Some(mut place) = Place::new("a_kernel_without_cgroup_kill", &[]) else { return };
    let record = place.group("old", &limits(64 << 20)).record();
    // The folder of a v1 hierarchy has no `cgroup.kill`, like a v2 folder before Linux 5.14.
    let Some(path) = record.split('\t').find_map(|field| field.strip_prefix("1:")?.split_once(':')) else {
        println!("skip: a_kernel_without_cgroup_kill: no v1 hierarchy");
        return;
    };
    let old = Group::open(&format!("2:memory:{}", path.1)).unwrap();
    let mut child = start(&place.groups[0], &["sh", "-c", "bomb() { bomb & bomb & sleep 100; }; bomb"]);
    old.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..1000 {
        old.kill().unwrap();
        if old.pids().is_empty() {
            break;
        }
        // Nobody but the machine's first process waits for them, and others may be on its processors.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(old.pids(), []);
}
