//! A service's init in a real sandbox: main's output in the ring, its end in the exit record, nothing left behind.
//! Needs root for the namespaces and Debian's busybox-static for the root file system.

mod board;

use board::runs_busybox;
use coracle::base::name::Name;
use coracle::base::units::Millis;
use coracle::image::config::ImageConfig;
use coracle::log::reader::Reader;
use coracle::log::ring;
use coracle::log::sink::Sink;
use coracle::plan::{self, Limits, Memory, Service, Stop};
use coracle::sandbox::child::Outlets;
use coracle::sandbox::prepare::{Order, Root, prepare};
use coracle::sandbox::spawn::{Spawned, spawn};
use coracle::sandbox::spec::{Net, Stdio};
use coracle::supervisor::init;
use coracle::supervisor::record::{Ended, ExitRecord};
use coracle::supervisor::wire::{FromInit, MESSAGE_BYTES, ToInit};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BUSYBOX: &str = "/bin/busybox";

/// A running service whose files lie in a folder of the test's own.
struct Running {
    dir: tempfile::TempDir,
    spawned: Spawned,
    reaped: bool,
}

fn folder(path: &Path) -> OwnedFd {
    OwnedFd::from(File::open(path).unwrap())
}

fn rootfs(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "run", "var/tmp"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    // By another process: an init that is cloned while this one writes the file would hold it open, and nobody could execute it.
    let copied = std::process::Command::new("cp").arg(BUSYBOX).arg(root.join("bin/busybox")).status().unwrap();
    assert!(copied.success());
    for name in ["sh", "cat", "sleep", "head", "printf", "logger", "seq", "yes", "kill", "echo", "true", "tr", "id"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    root
}

fn service(script: &[&str]) -> Service {
    let root = plan::Root::Image("".into());
    Service {
        command: script.iter().map(|word| (*word).into()).collect(),
        env: vec!["PATH=/bin".into()],
        stop: Stop { signal: None, timeout: Millis(1000) },
        start_timeout: Millis(1000),
        ..Service::new(Name::new("test").unwrap(), root, Limits::with_memory(Memory::Unlimited))
    }
}

/// Starts `script` in a sandbox; `rate` lines a second are kept.
fn start(script: &[&str], rate: u32) -> Running {
    start_in(tempfile::tempdir().unwrap(), script, rate)
}

fn start_in(dir: tempfile::TempDir, script: &[&str], rate: u32) -> Running {
    let root = dir.path().join("root");
    if !root.exists() {
        rootfs(dir.path());
    }
    let root = Root::Folder(folder(&root), CString::default());
    start_as(service(script), Some(root), dir, rate)
}

/// Starts `service` on this root, or on the host's.
fn start_as(service: Service, root: Option<Root>, dir: tempfile::TempDir, rate: u32) -> Running {
    let state = dir.path().to_str().unwrap().to_owned();
    let order = Order {
        service: &service,
        image: &ImageConfig::empty(),
        env: &[],
        root,
        state: &state,
        net: if service.root == plan::Root::Host { Net::Host } else { Net::New },
        stdio: Stdio::Pipes,
        join: None,
        cgroup_namespace: false,
        cgroup: None,
        notify: None,
        die_with_parent: true,
    };
    let spec = prepare(order).unwrap();
    let exit = File::options().create(true).write(true).truncate(true).open(dir.path().join("exit")).unwrap();
    let outlets = Outlets {
        pin: None,
        exit: Some(exit.into()),
        // Room for all that the rate lets through, however long a slow machine takes.
        ring: Some(ring::prepare(folder(dir.path()), "log", 1 << 20).unwrap()),
        sink: Some(Sink::open(folder(dir.path()), "test", 10_000, 1).unwrap()),
        rate,
        ..Outlets::default()
    };
    let spawned = spawn(&spec, outlets, init::run).unwrap();
    Running { dir, spawned, reaped: false }
}

impl Running {
    /// The next message of the init, `None` when it has closed the channel.
    fn hear(&self) -> Option<FromInit> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let mut ready = [PollFd::new(self.spawned.channel.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ready, PollTimeout::from(60_000u16)), Ok(1), "the init says nothing");
        let mut message = [0; MESSAGE_BYTES];
        let flags = nix::sys::socket::MsgFlags::empty();
        match nix::sys::socket::recv(self.spawned.channel.as_raw_fd(), &mut message, flags) {
            Ok(0) | Err(_) => None,
            Ok(count) => Some(FromInit::decode(&message[..count]).expect("a message of this version")),
        }
    }

    fn say(&self, message: ToInit) {
        let flags = nix::sys::socket::MsgFlags::MSG_NOSIGNAL;
        nix::sys::socket::send(self.spawned.channel.as_raw_fd(), &message.encode(), flags).unwrap();
    }

    /// Waits for the init's end and gives what it recorded.
    fn end(&mut self) -> ExitRecord {
        while self.hear().is_some() {}
        let ended = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(self.spawned.pid), None).unwrap();
        self.reaped = true;
        let record = ExitRecord::decode(&std::fs::read(self.dir.path().join("exit")).unwrap());
        record.unwrap_or_else(|| panic!("no exit record, and the init ended as {ended:?}"))
    }

    /// `stream text` of every entry in the ring, and how many were lost.
    fn log(&self) -> (Vec<String>, u64) {
        let file = File::open(self.dir.path().join("log")).unwrap();
        let mut lines = Vec::new();
        let lost = Reader::open(file).unwrap().unwrap().read_new(&mut |entry| {
            let part = if entry.partial { "+" } else { "" };
            lines.push(format!("{}{part} {}", entry.stream.as_str(), String::from_utf8_lossy(entry.text)));
        });
        (lines, lost.unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let pid = nix::unistd::Pid::from_raw(self.spawned.pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, None);
        }
    }
}

#[test]
fn root_what_main_says_is_kept_and_how_it_ends_is_recorded() {
    if !runs_busybox("root_what_main_says_is_kept_and_how_it_ends_is_recorded") {
        return;
    }
    let script = "echo one; echo two >&2; printf 'no end'; exit 7";
    let mut running = start(&["/bin/sh", "-c", script], 0);
    let said = running.hear();
    assert!(matches!(said, Some(FromInit::Started { main }) if main > 1), "{said:?}");
    assert_eq!(running.hear(), Some(FromInit::Exited { status: 7 << 8 }));
    let record = running.end();
    assert_eq!((record.status, record.ended), (7 << 8, Ended::Main));
    let (mut lines, lost) = running.log();
    assert_eq!(lost, 0);
    assert_eq!(lines.pop().unwrap(), "note ended: exit code 7");
    lines.sort();
    assert_eq!(lines, ["err two", "out no end", "out one"]);
    let file = std::fs::read_to_string(running.dir.path().join("test.log")).unwrap();
    assert_eq!(file.lines().count(), 4, "{file}");
}

#[test]
fn root_a_command_that_is_missing_is_said_and_recorded() {
    if !runs_busybox("root_a_command_that_is_missing_is_said_and_recorded") {
        return;
    }
    let mut running = start(&["/bin/nothing"], 0);
    let Some(FromInit::Failed(failure)) = running.hear() else { panic!("it started") };
    assert!(failure.to_string().contains("/bin/nothing"), "{failure}");
    assert_eq!(running.end().ended, Ended::NotStarted(failure));
}

#[test]
fn root_signals_reach_main_and_kill_reaches_all() {
    if !runs_busybox("root_signals_reach_main_and_kill_reaches_all") {
        return;
    }
    let mut running = start(&["/bin/sh", "-c", "trap 'echo got it; exit 3' USR1; while :; do sleep 0.05; done"], 0);
    assert!(matches!(running.hear(), Some(FromInit::Started { .. })));
    // The shell needs a moment to set its trap.
    std::thread::sleep(Duration::from_millis(300));
    running.say(ToInit::Signal(10));
    assert_eq!(running.end().status, 3 << 8);
    assert!(running.log().0.contains(&"out got it".to_owned()));

    let mut running = start(&["/bin/sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000 & wait"], 0);
    assert!(matches!(running.hear(), Some(FromInit::Started { .. })));
    std::thread::sleep(Duration::from_millis(300));
    running.say(ToInit::Signal(15));
    running.say(ToInit::Kill);
    let record = running.end();
    assert_eq!((record.status, record.ended), (9, Ended::Killed));
}

#[test]
fn root_an_init_among_the_hosts_processes_kills_its_main_and_no_other() {
    if !runs_busybox("root_an_init_among_the_hosts_processes_kills_its_main_and_no_other") {
        return;
    }
    let mut canary = std::process::Command::new(BUSYBOX).args(["sleep", "1000"]).spawn().unwrap();
    let script = "trap '' TERM; while :; do sleep 0.05; done";
    let one = Service { root: plan::Root::Host, ..service(&[BUSYBOX, "sh", "-c", script]) };
    let mut running = start_as(one, None, tempfile::tempdir().unwrap(), 0);
    let Some(FromInit::Started { main }) = running.hear() else { panic!("it does not start") };
    assert!(Path::new(&format!("/proc/{main}")).exists(), "{main} is the number that everybody sees");
    // It has no group to end: what it knows is main.
    running.say(ToInit::Kill);
    let record = running.end();
    assert_eq!((record.status, record.ended), (9, Ended::Killed));
    assert_eq!(canary.try_wait().unwrap(), None, "a stranger was killed");
    canary.kill().unwrap();
    canary.wait().unwrap();
}

#[test]
fn root_a_main_that_a_realtime_signal_kills_is_noticed() {
    if !runs_busybox("root_a_main_that_a_realtime_signal_kills_is_noticed") {
        return;
    }
    let mut running = start(&["/bin/sleep", "1000"], 0);
    assert!(matches!(running.hear(), Some(FromInit::Started { .. })));
    running.say(ToInit::Signal(40));
    assert_eq!(running.end().status, 40);
}

#[test]
fn root_a_process_that_holds_the_pipe_does_not_delay_the_end() {
    if !runs_busybox("root_a_process_that_holds_the_pipe_does_not_delay_the_end") {
        return;
    }
    let mut running = start(&["/bin/sh", "-c", "(while :; do sleep 0.01; echo child; done) & sleep 0.2; exit 5"], 0);
    assert_eq!(running.end().status, 5 << 8);
    let lines = running.log().0;
    assert_eq!(lines.last().unwrap(), "note ended: exit code 5");
    assert!(lines.contains(&"out child".to_owned()));
}

#[test]
fn root_orphans_are_reaped_while_main_runs() {
    if !runs_busybox("root_orphans_are_reaped_while_main_runs") {
        return;
    }
    let storm = "i=0; while [ $i -lt 300 ]; do (sleep 0 &) ; i=$((i+1)); done; sleep 0.5; \
                 cat /proc/[0-9]*/stat | tr -cd 'Z' ; echo; echo done; sleep 1000";
    let running = start(&["/bin/sh", "-c", storm], 0);
    let begun = Instant::now();
    while !running.log().0.contains(&"out done".to_owned()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", running.log().0);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(running.log().0[0], "out ", "zombies are left");
}

#[test]
fn root_a_flood_is_limited_and_counted_and_does_not_block_main() {
    if !runs_busybox("root_a_flood_is_limited_and_counted_and_does_not_block_main") {
        return;
    }
    let mut running = start(&["/bin/sh", "-c", "yes 'a line of the flood' | head -n 1000000; echo end >&2"], 100);
    let record = running.end();
    let (lines, lost) = running.log();
    assert_eq!(lost, 0);
    let dropped: u64 = lines
        .iter()
        .filter_map(|line| {
            line.strip_prefix("note ")?.strip_suffix(" lines dropped by the rate limit")?.parse::<u64>().ok()
        })
        .sum();
    assert_eq!(dropped, record.dropped);
    let kept = lines.iter().filter(|line| line.starts_with("out ") || line.starts_with("err ")).count() as u64;
    assert_eq!(kept + dropped, 1_000_001);
    assert!(kept >= 500, "{kept} kept");
    for name in ["test.log", "test.log.1"] {
        let size = std::fs::metadata(running.dir.path().join(name)).unwrap().len();
        assert!(size <= 10_000, "{name}: {size} bytes");
    }
}

#[test]
fn root_long_lines_and_nul_bytes_are_kept() {
    if !runs_busybox("root_long_lines_and_nul_bytes_are_kept") {
        return;
    }
    let script = "head -c 30000 /dev/zero | tr '\\0' x; echo; printf 'a\\0b\\n'";
    let mut running = start(&["/bin/sh", "-c", script], 0);
    running.end();
    let (lines, _) = running.log();
    let parts: Vec<&String> = lines.iter().filter(|line| line.contains("xx")).collect();
    assert!(parts.iter().rev().skip(1).all(|line| line.starts_with("out+ ")));
    assert_eq!(parts.iter().map(|line| line.split_once(' ').unwrap().1.len()).sum::<usize>(), 30_000);
    assert!(lines.contains(&"out a\0b".to_owned()));
}

#[test]
fn root_dev_log_feeds_the_same_ring() {
    if !runs_busybox("root_dev_log_feeds_the_same_ring") {
        return;
    }
    let mut running = start(&["/bin/sh", "-c", "logger -t app said by syslog; sleep 0.2"], 0);
    running.end();
    let (lines, _) = running.log();
    assert!(lines.iter().any(|line| line.starts_with("syslog ") && line.contains("app: said by syslog")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains('<')), "{lines:?}");
}

#[test]
fn root_the_ring_goes_on_over_restarts_and_a_lost_supervisor_changes_nothing() {
    if !runs_busybox("root_the_ring_goes_on_over_restarts_and_a_lost_supervisor_changes_nothing") {
        return;
    }
    let mut dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let mut running = start_in(dir, &["/bin/sh", "-c", &format!("seq 1 20; echo round {round}; exit 1")], 0);
        running.end();
        let (lines, lost) = running.log();
        assert_eq!((lines.len(), lost), (22 * (round + 1), 0));
        let moved = std::mem::replace(&mut running.dir, tempfile::tempdir().unwrap());
        drop(running);
        dir = moved;
    }
}
