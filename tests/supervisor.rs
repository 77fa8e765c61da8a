//! The supervision path as a person meets it: `coracle up` with services of the busybox binary. Needs root and cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");

/// A device with its own folders; what still runs at the end of a test, also of a failed one, is taken down.
struct Board {
    dir: tempfile::TempDir,
    supervisor: Option<Child>,
}

impl Board {
    /// `None`, after saying why, where these tests cannot run.
    fn new(test: &str, services: &str) -> Option<Board> {
        if !nix::unistd::geteuid().is_root() {
            println!("skip: {test}: not root");
            return None;
        }
        if !Path::new("/bin/busybox").exists() {
            println!("skip: {test}: no /bin/busybox (Debian: busybox-static)");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("coracle-up-").tempdir().unwrap();
        let bin = dir.path().join("images/root/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in ["sh", "sleep", "echo", "true", "false", "cat", "tail", "dd"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let board = Board { dir, supervisor: None };
        board.configure(services);
        Some(board)
    }

    fn configure(&self, services: &str) {
        let (images, state) = (self.path("images"), self.path("state"));
        let config = format!(
            r#"{{ "version": 1, "device": {{ "images": ["{}"], "state": "{}" }}, "services": [ {services} ] }}"#,
            images.display(),
            state.display()
        );
        fs::write(self.path("config.json"), config).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(CORACLE);
        command.arg(words[0]).arg("--run-dir").arg(self.path("run")).args(&words[1..]);
        command
    }

    fn coracle(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Starts a supervisor in the foreground and waits until it answers.
    fn up(&mut self) {
        let config = self.path("config.json");
        let log = fs::File::create(self.path("report")).unwrap();
        let child = self.command(&["up", "-c"]).arg(config).stderr(log).stdout(Stdio::null()).spawn().unwrap();
        self.supervisor = Some(child);
        self.until("the supervisor answers", |board| board.coracle(&["ps"]).status.success());
    }

    fn pid(&self) -> i32 {
        self.supervisor.as_ref().unwrap().id() as i32
    }

    /// What the supervisor wrote to its standard error.
    fn report(&self) -> String {
        fs::read_to_string(self.path("report")).unwrap_or_default()
    }

    fn until(&self, what: &str, reached: impl Fn(&Board) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !reached(self) {
            assert!(Instant::now() < end, "never came: {what}\n{}\n{}", self.report(), text(&self.coracle(&["ps"])));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn until_reported(&self, line: &str) {
        self.until(line, |board| board.report().contains(line));
    }

    /// A field of `ps --json` of one service.
    fn field(&self, service: &str, field: &str) -> String {
        let json = text(&self.coracle(&["ps", "--json"]));
        let object =
            json.split("{\"name\":").find(|part| part.starts_with(&format!("\"{service}\""))).unwrap_or_default();
        let value = object.split_once(&format!("\"{field}\":")).map_or("", |(_, rest)| rest);
        value.split([',', '}']).next().unwrap_or_default().trim_matches('"').to_owned()
    }

    fn state(&self, service: &str) -> String {
        self.field(service, "state")
    }

    fn end(&mut self) -> i32 {
        self.supervisor.take().map_or(-1, |mut child| child.wait().unwrap().code().unwrap_or(-1))
    }

    fn groups(&self) -> Vec<PathBuf> {
        let record = |name: &str| fs::read_to_string(self.path("run").join("services").join(name).join("instance"));
        let names: Vec<String> = fs::read_dir(self.path("run/services"))
            .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
            .unwrap_or_default();
        let texts = names.iter().filter_map(|name| record(name).ok());
        texts
            .flat_map(|text| {
                text.lines().filter_map(|line| line.strip_prefix("cgroup ").map(str::to_owned)).collect::<Vec<_>>()
            })
            .flat_map(|line| {
                line.split('\t').filter_map(|dir| dir.splitn(3, ':').nth(2).map(PathBuf::from)).collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.coracle(&["down"]);
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn send(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

fn service(name: &str, script: &str, more: &str) -> String {
    format!(
        r#"{{ "name": "{name}", "image": "root", "command": ["/bin/sh", "-c", "{script}"], "limits": {{ "memory": "8M" }} {more} }}"#
    )
}

#[test]
fn root_services_start_in_order_and_sigterm_leaves_nothing() {
    let name = "root_services_start_in_order_and_sigterm_leaves_nothing";
    let services = [service("web", "exec sleep 1000", r#", "needs": ["db"]"#), service("db", "exec sleep 1000", "")];
    let Some(mut board) = Board::new(name, &services.join(",")) else { return };
    board.up();
    board.until_reported("web is running");
    let report = board.report();
    assert!(report.find("db is running") < report.find("web is running"), "{report}");
    let groups = board.groups();
    assert!(!groups.is_empty() && groups.iter().all(|group| group.is_dir()), "{groups:?}");
    let inits: Vec<String> = ["db", "web"].map(|name| board.field(name, "init")).into();
    let second = board.command(&["up", "-c"]).arg(board.path("config.json")).output().unwrap();
    assert!(!second.status.success() && text(&second).contains("another supervisor"), "{}", text(&second));

    send(board.pid(), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(board.end(), 0);
    let report = board.report();
    assert!(report.find("web is stopped") < report.find("db is being stopped"), "{report}");
    assert!(!board.path("run").exists(), "the run directory is left");
    let left: Vec<_> =
        groups.iter().filter(|group| group.exists() || group.parent().is_some_and(Path::exists)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(inits.iter().all(|pid| !Path::new("/proc").join(pid).exists()), "{inits:?}");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(board.dir.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn root_a_crash_is_started_again_with_growing_delay() {
    let services = service("crash", "exit 3", "");
    let Some(mut board) = Board::new("root_a_crash_is_started_again_with_growing_delay", &services) else { return };
    board.up();
    board
        .until("three restarts", |board| board.field("crash", "restarts").parse::<u32>().is_ok_and(|count| count >= 3));
    let report = board.report();
    assert!(report.contains("crash ended: exit code 3; starts again in 100ms"), "{report}");
    let waits: Vec<u64> = report
        .lines()
        .filter_map(|line| line.rsplit_once("starts again in ")?.1.strip_suffix("ms")?.parse().ok())
        .collect();
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
}

#[test]
fn root_a_service_over_its_memory_limit_is_told_as_out_of_memory() {
    let services = service("hog", "sleep 0.2; tail /dev/zero", "");
    let name = "root_a_service_over_its_memory_limit_is_told_as_out_of_memory";
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_reported("hog ended: out of memory");
    assert_ne!(board.field("hog", "oom_kills"), "0");
}

#[test]
fn root_what_ignores_its_stop_signal_is_killed_after_its_time() {
    let services =
        service("stubborn", "trap '' TERM; while true; do sleep 1; done", r#", "stop": { "timeout": "300ms" }"#);
    let name = "root_what_ignores_its_stop_signal_is_killed_after_its_time";
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_reported("stubborn is running");
    let init = board.field("stubborn", "init");
    let begun = Instant::now();
    assert!(board.coracle(&["stop", "stubborn"]).status.success());
    assert!(begun.elapsed() >= Duration::from_millis(300), "it was not given its time");
    assert_eq!(board.state("stubborn"), "stopped");
    assert!(!Path::new("/proc").join(init).exists());
    // A stop lasts until a start.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(board.state("stubborn"), "stopped");
    assert!(board.coracle(&["start", "stubborn"]).status.success());
    assert_eq!(board.state("stubborn"), "running");
}

#[test]
fn root_pause_stops_the_clock_of_a_service_and_restart_thaws_it() {
    let services = service("tick", "while true; do echo t; sleep 0.05; done", r#", "log": { "rate": 1000 }"#);
    let name = "root_pause_stops_the_clock_of_a_service_and_restart_thaws_it";
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_reported("tick is running");
    let count = |board: &Board| text(&board.coracle(&["logs", "tick"])).lines().count();
    board.until("lines", |board| count(board) > 2);
    assert!(board.coracle(&["pause", "tick"]).status.success());
    assert_eq!(board.state("tick"), "paused");
    assert!(!board.coracle(&["pause", "tick"]).status.success());
    std::thread::sleep(Duration::from_millis(100));
    let before = count(&board);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(count(&board), before);
    assert!(board.coracle(&["unpause", "tick"]).status.success());
    board.until("more lines", |board| count(board) > before);
    assert!(board.coracle(&["pause", "tick"]).status.success());
    let first = board.field("tick", "pid");
    assert!(board.coracle(&["restart", "tick"]).status.success());
    assert_eq!(board.state("tick"), "running");
    assert_ne!(board.field("tick", "pid"), first);
}

#[test]
fn root_kill_sends_the_signal_and_the_policy_decides() {
    let services = [
        service("once", "exec sleep 1000", r#", "restart": { "policy": "no" }"#),
        service("again", "exec sleep 1000", ""),
    ];
    let name = "root_kill_sends_the_signal_and_the_policy_decides";
    let Some(mut board) = Board::new(name, &services.join(",")) else { return };
    board.up();
    board.until("both run", |board| board.state("once") == "running" && board.state("again") == "running");
    assert!(board.coracle(&["kill", "once", "again"]).status.success());
    board.until_reported("once has failed and is not started again: killed by signal 9 (KILL)");
    board.until("it runs again", |board| board.state("again") == "running" && board.field("again", "restarts") == "1");
    let unknown = board.coracle(&["start", "agian"]);
    assert_eq!(unknown.status.code(), Some(4));
    assert!(text(&unknown).contains("did you mean \"again\""), "{}", text(&unknown));
}

#[test]
fn root_a_start_that_fails_says_why_and_is_tried_again() {
    let services = r#"{ "name": "lost", "image": "root", "command": ["/bin/nothing"], "limits": { "memory": "8M" } }"#;
    let name = "root_a_start_that_fails_says_why_and_is_tried_again";
    let Some(mut board) = Board::new(name, services) else { return };
    board.up();
    board.until("a second try", |board| board.report().matches("lost ended").count() >= 2);
    let report = board.report();
    assert!(report.contains("/bin/nothing"), "{report}");
}

#[test]
fn root_a_missing_image_holds_its_service_until_it_appears() {
    let services = [
        service("here", "exec sleep 1000", ""),
        service("late", "exec sleep 1000", "").replace("\"root\"", "\"late\""),
    ];
    let name = "root_a_missing_image_holds_its_service_until_it_appears";
    let Some(mut board) = Board::new(name, &services.join(",")) else { return };
    board.up();
    board.until("here runs", |board| board.state("here") == "running");
    assert_eq!(board.state("late"), "held");
    fs::rename(board.path("images/root"), board.path("images/late")).unwrap();
    board.until("late runs", |board| board.state("late") == "running");
}

#[test]
fn root_services_outlive_a_dead_supervisor_and_are_taken_over_or_down() {
    let services = service("web", "echo $$; exec sleep 1000", "");
    let name = "root_services_outlive_a_dead_supervisor_and_are_taken_over_or_down";
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_reported("web is running");
    let pid = board.field("web", "pid");
    send(board.pid(), nix::sys::signal::Signal::SIGKILL);
    board.end();
    assert!(Path::new("/proc").join(&pid).exists(), "it died with its supervisor");
    board.up();
    board.until_reported("web runs on and is supervised again");
    assert_eq!((board.state("web"), board.field("web", "pid")), ("running".to_owned(), pid.clone()));
    let groups = board.groups();
    send(board.pid(), nix::sys::signal::Signal::SIGKILL);
    board.end();
    assert!(board.coracle(&["down"]).status.success());
    assert!(!Path::new("/proc").join(&pid).exists() && !board.path("run").exists());
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
    assert_eq!(board.coracle(&["down"]).status.code(), Some(3));
}

#[test]
fn root_up_in_the_background_returns_when_all_run_or_says_what_does_not() {
    let bad = service("bad", "exec sleep 1000", "").replace("\"root\"", "\"missing\"");
    let services = [service("good", "exec sleep 1000", ""), bad];
    let name = "root_up_in_the_background_returns_when_all_run_or_says_what_does_not";
    let Some(board) = Board::new(name, &services[0]) else { return };
    let up = |board: &Board| {
        // The background keeps nothing of ours: output() would wait for it otherwise.
        board.command(&["up", "--wait", "-c"]).arg(board.path("config.json")).output().unwrap()
    };
    let all = up(&board);
    assert!(all.status.success(), "{}", text(&all));
    assert_eq!(board.state("good"), "running");
    assert!(board.coracle(&["down"]).status.success());
    assert!(!board.path("run").exists());
    board.configure(&services.join(","));
    let some = up(&board);
    assert_eq!(some.status.code(), Some(1), "{}", text(&some));
    assert!(text(&some).contains("bad is held: image \"missing\" is missing"), "{}", text(&some));
}

#[test]
fn root_an_idle_supervisor_and_its_inits_never_wake() {
    let services = [service("a", "exec sleep 1000", ""), service("b", "exec sleep 1000", "")];
    let name = "root_an_idle_supervisor_and_its_inits_never_wake";
    let Some(mut board) = Board::new(name, &services.join(",")) else { return };
    board.up();
    board.until("both run", |board| board.state("a") == "running" && board.state("b") == "running");
    let pids: Vec<String> =
        [board.pid().to_string(), board.field("a", "init"), board.field("b", "init")].into_iter().collect();
    let switches = || -> Vec<String> {
        let own = |pid: &String| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
        };
        pids.iter().map(own).collect()
    };
    // What the last client and a busy machine left to be done comes to an end; a timer or a poll never would.
    let quiet = (0..10).any(|_| {
        let before = switches();
        std::thread::sleep(Duration::from_secs(3));
        switches() == before
    });
    assert!(quiet, "something wakes them at least every three seconds: {:?}", switches());
}

#[test]
fn a_config_with_problems_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    fs::write(&config, "{ \"version\": 1, \"services\": [ { \"nam\": 1 }, ] ").unwrap();
    let up =
        Command::new(CORACLE).args(["up", "-c"]).arg(&config).arg("--run-dir").arg(dir.path().join("run")).output();
    let up = up.unwrap();
    assert_eq!(up.status.code(), Some(78), "{}", text(&up));
    assert!(text(&up).contains("config.json:1:"), "{}", text(&up));
    assert!(!dir.path().join("run").exists());
}

#[test]
fn root_down_cleans_up_whenever_the_supervisor_was_killed() {
    // While an init made its sandbox it held the supervisor's lock and socket open: `down` then met a supervisor that
    // was dead and seemed to live.
    let unique = format!("killed{}", std::process::id());
    let services = [service(&unique, "sleep 1000 & exec sleep 1000", ""), service("crash", "exit 1", "")];
    let name = "root_down_cleans_up_whenever_the_supervisor_was_killed";
    let Some(board) = Board::new(name, &services.join(",")) else { return };
    let groups = || -> Vec<PathBuf> {
        let folders = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let hierarchies = folders(Path::new("/sys/fs/cgroup"));
        let ours = hierarchies.flat_map(|place| folders(&place).collect::<Vec<_>>()).map(|place| place.join(&unique));
        ours.filter(|group| group.exists()).collect()
    };
    for round in 0..24 {
        let mut up = board.command(&["up", "-c"]);
        let mut supervisor = up.arg(board.path("config.json")).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 4));
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        let down = board.coracle(&["down"]);
        assert!(matches!(down.status.code(), Some(0 | 3)), "round {round}: {}", text(&down));
        assert!(!board.path("run/services").exists(), "round {round}");
        assert_eq!(groups(), Vec::<PathBuf>::new(), "round {round}");
    }
}

#[test]
fn root_restarts_use_up_nothing() {
    let quick = r#", "restart": { "policy": "always", "delay": "10ms", "max_delay": "10ms" }"#;
    let services = [service("crash", "echo x; exit 1", quick), service("calm", "exec sleep 1000", "")];
    let Some(mut board) = Board::new("root_restarts_use_up_nothing", &services.join(",")) else { return };
    board.up();
    let process = PathBuf::from(format!("/proc/{}", board.pid()));
    let entries = |path: PathBuf| fs::read_dir(path).unwrap().count();
    // Anonymous memory in KiB, descriptors, children, the groups' parents' entries: of a supervisor at rest.
    let used = |restarts: usize| {
        let end = Instant::now() + Duration::from_secs(60);
        while board.field("crash", "restarts").parse().unwrap_or(0) < restarts {
            assert!(Instant::now() < end, "{restarts} restarts never came: {}", text(&board.coracle(&["ps"])));
            std::thread::sleep(Duration::from_millis(20));
        }
        let stopped = board.coracle(&["stop", "crash"]);
        assert!(stopped.status.success(), "{}", text(&stopped));
        let memory = fs::read_to_string(process.join("smaps_rollup")).unwrap();
        let memory = memory.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        let memory: usize = memory.trim().trim_end_matches(" kB").parse().unwrap();
        let children = fs::read_to_string(process.join(format!("task/{}/children", board.pid()))).unwrap();
        let folders = board.groups().iter().filter_map(|group| group.parent()).map(|all| entries(all.into())).sum();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = mounts.matches(board.dir.path().to_str().unwrap()).count();
        // The last client's connection may be closing yet: what counts is what stays.
        let descriptors = || {
            std::thread::sleep(Duration::from_millis(20));
            entries(process.join("fd"))
        };
        let descriptors = (0..20).map(|_| descriptors()).min().unwrap_or(0);
        (memory, [descriptors, children.split_whitespace().count(), folders, ours])
    };
    let (before, held) = used(40);
    assert!(board.coracle(&["start", "crash"]).status.success());
    let (after, held_after) = used(300);
    assert_eq!(held_after, held, "descriptors, children, cgroup entries, mounts");
    assert!(after <= before + 8, "{before} KiB became {after} KiB");
}
