//! Services on the host's root: they see the host, are held to their limits, end as a whole, and nothing else on the
//! machine feels it. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::probe::{self, value};
use busybox_board::{Board, said, service};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A service on the host's root that runs `words`, with more keys (each with a comma behind it).
fn host(name: &str, words: &[&str], more: &str) -> String {
    let command: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    let limits = if more.contains("\"limits\"") { "" } else { r#""limits": { "memory": "16M" },"# };
    format!(r#"{{ "name": "{name}", "root": "host", {limits} {more} "command": [{}] }}"#, command.join(","))
}

fn shell(script: &str) -> [&str; 4] {
    ["/bin/busybox", "sh", "-c", script]
}

/// A process of the machine that has nothing to do with any service, and its end.
struct Canary(Child);

impl Canary {
    fn new() -> Canary {
        Canary(Command::new("/bin/busybox").args(["sleep", "100000"]).stdin(Stdio::null()).spawn().unwrap())
    }

    fn sings(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "a process outside of every service was killed");
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the process is there and no zombie.
fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Every process of a service's cgroup.
fn members(board: &Board, service: &str) -> Vec<String> {
    let groups = board.groups(service);
    let list = groups.first().map(|dir| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default());
    list.unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A script that leaves two daemons behind, each in a session of its own and without a parent, and goes on.
const DAEMONS: &str = "for i in 1 2; do busybox setsid sh -c 'trap \"\" TERM HUP; \
                       busybox sleep 100000 & echo daemon $!; wait' & done; \
                       sleep 1; echo settled; exec busybox sleep 100000";

#[test]
fn root_a_host_service_is_what_it_would_be_under_another_init() {
    let name = "root_a_host_service_is_what_it_would_be_under_another_init";
    let probe = probe::path().to_str().unwrap().to_owned();
    let script = format!("exec {probe} status");
    let as_user =
        r#""user": "12345:54321", "rlimits": [{ "name": "nofile", "soft": "77", "hard": "77" }], "env": ["A=1"],"#;
    let services = [
        host("plain", &shell(&script), r#""restart": { "policy": "no" },"#),
        host("user", &shell(&script), &format!(r#"{as_user} "restart": {{ "policy": "no" }},"#)),
        host(
            "confined",
            &shell(&script),
            r#""capabilities": ["KILL"], "seccomp": "default", "network": "none", "restart": { "policy": "no" },"#,
        ),
        host(
            "talks",
            &["/bin/busybox", "sh", "-c", "echo to out; echo to err >&2; read x || echo no input; sleep 100000"],
            "",
        ),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    for service in ["plain", "user", "confined"] {
        board.until(service, |board| board.field(service, "state") == "done");
    }
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    // A test may itself run under a filter, as that of scripts/test-old-kernel: then so does what it starts.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mine = |key: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {key} in {status}")).trim().to_owned()
    };
    let logs = |service: &str| -> String {
        let text = board.logs(service);
        text.lines().filter_map(|line| line.split_once("out  ")).map(|(_, said)| format!("{said}\n")).collect()
    };
    let plain = logs("plain");
    for kind in ["mnt", "pid", "ipc", "uts", "net", "cgroup", "user"] {
        assert!(plain.contains(&format!("ns: {kind} -> {}", own(kind))), "{kind}: {plain}");
    }
    for unchanged in ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp"] {
        assert_eq!(value(&plain, unchanged), mine(unchanged), "{unchanged}");
    }
    assert_eq!((value(&plain, "cwd"), value(&plain, "Uid")), ("/", "0 0 0 0"));
    assert_eq!(value(&plain, "session"), value(&plain, "Pid"));
    assert!(plain.contains("fd: 0 -> /dev/null") && !plain.contains("fd: 3 "), "{plain}");
    assert!(plain.contains("env: HOME=/root") && !plain.contains("env: HOSTNAME"), "{plain}");
    let user = logs("user");
    assert_eq!((value(&user, "Uid"), value(&user, "Gid")), ("12345 12345 12345 12345", "54321 54321 54321 54321"));
    assert_eq!((value(&user, "CapEff"), value(&user, "CapBnd")), ("0000000000000000", &*mine("CapBnd")));
    assert!(user.contains("env: A=1") && user.contains("Max open files            77"), "{user}");
    let confined = logs("confined");
    assert_eq!((value(&confined, "CapBnd"), value(&confined, "NoNewPrivs")), ("0000000000000020", "1"));
    assert_eq!(value(&confined, "Seccomp"), "2");
    assert!(!confined.contains(&own("net")) && confined.contains(&own("mnt")), "{confined}");

    board.until_logged("talks", "no input");
    let log = board.logs("talks");
    assert!(log.contains("out  to out") && log.contains("err  to err"), "{log}");
    // Inside is the host: exec joins the service's cgroup alone.
    let script = "readlink /proc/self/ns/mnt; readlink /proc/self/ns/cgroup; cat /proc/self/cgroup; id -u";
    let inside = board.says(&["exec", "talks", "busybox", "sh", "-c", script]);
    assert!(inside.contains(&own("mnt")) && inside.contains(&own("cgroup")), "{inside}");
    assert!(inside.contains("/talks") && inside.ends_with("\n0\n"), "{inside}");
    let top = board.says(&["top", "talks"]);
    assert!(top.contains("sleep 100000") && top.contains(&board.field("talks", "pid")), "{top}");
    let shown = board.says(&["inspect", "talks"]);
    assert!(shown.contains(r#""root":"host""#) && shown.contains(r#""capabilities":["ALL"]"#), "{shown}");
    assert!(board.says(&["inspect", "--steps", "talks"]).contains("the host's mnt pid ipc uts"));
    board.down();
}

#[test]
fn root_a_host_service_is_killed_at_its_memory_limit_and_comes_back() {
    let name = "root_a_host_service_is_killed_at_its_memory_limit_and_comes_back";
    let probe = probe::path().to_str().unwrap().to_owned();
    let hog = host("hog", &[&probe, "try", "eat 64"], r#""restart": { "policy": "always", "delay": "10ms" },"#);
    let Some(mut board) = Board::new(name, &[hog]) else { return };
    let mut canary = Canary::new();
    board.up();
    board.until("three kills", |board| board.field("hog", "oom_kills").parse().unwrap_or(0) >= 3);
    assert!(!board.logs("hog").contains("MiB held"), "{}", board.logs("hog"));
    canary.sings();
    board.down();
    canary.sings();
}

#[test]
fn root_a_fork_bomb_on_the_host_is_held_and_ends_with_its_service() {
    let name = "root_a_fork_bomb_on_the_host_is_held_and_ends_with_its_service";
    let probe = probe::path().to_str().unwrap().to_owned();
    let limits = r#""limits": { "memory": "32M", "pids": 40, "cpu": "50%" },"#;
    let Some(mut board) = Board::new(name, &[host("bomb", &[&probe, "try", "bomb"], limits)]) else { return };
    let mut canary = Canary::new();
    board.up();
    board.until("it goes off", |_| members(&board, "bomb").len() > 20);
    for _ in 0..50 {
        let most = members(&board, "bomb").len();
        assert!(most <= 40, "{most} processes");
    }
    let groups = board.groups("bomb");
    board.says(&["stop", "bomb"]);
    let left: Vec<_> = groups.iter().filter(|dir| dir.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    canary.sings();
    board.down();
}

#[test]
fn root_whatever_ends_a_host_service_ends_its_daemons_and_nothing_else() {
    let name = "root_whatever_ends_a_host_service_ends_its_daemons_and_nothing_else";
    let slow = r#""restart": { "policy": "no" }, "stop": { "timeout": "500ms" },"#;
    let leaves = "busybox setsid sh -c 'trap \"\" TERM HUP; busybox sleep 100000 & wait' & sleep 1; \
                  echo settled; while [ ! -e $END ]; do sleep 0.1; done; exit 7";
    let end = tempfile::tempdir().unwrap();
    let end = end.path().join("end");
    let env = format!(r#"{slow} "env": ["END={}"],"#, end.display());
    let deaf = format!("trap '' TERM; {DAEMONS}");
    let services = [
        host("stopped", &shell(DAEMONS), slow),
        host("deaf", &shell(&deaf), slow),
        host("killed", &shell(DAEMONS), slow),
        host("ends", &shell(leaves), &env),
        host("orphaned", &shell(DAEMONS), slow),
        host("bystander", &shell(DAEMONS), slow),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    let mut canary = Canary::new();
    board.up();
    let mut before = Vec::new();
    for service in ["stopped", "deaf", "killed", "ends", "orphaned", "bystander"] {
        board.until_logged(service, "settled");
        before.push(members(&board, service));
    }
    assert!(before.iter().all(|members| members.len() >= 3), "{before:?}");
    board.says(&["stop", "stopped"]);
    board.says(&["stop", "deaf"]);
    board.says(&["kill", "-s", "KILL", "killed"]);
    fs::write(&end, "").unwrap();
    // Its init killed from outside: the supervisor, which is told, ends the rest.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(board.field("orphaned", "init").parse().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    for (service, members) in ["stopped", "deaf", "killed", "ends", "orphaned"].iter().zip(&before) {
        board.until(&format!("the end of {service}"), |board| {
            board.field(service, "pid") == "null" && !members.iter().any(|pid| alive(pid))
        });
    }
    assert!(board.logs("ends").contains("ended: exit code 7"), "{}", board.logs("ends"));
    canary.sings();
    assert!(before[5].iter().all(|pid| alive(pid)), "a service beside them has lost a process");
    board.down();
    assert!(!before[5].iter().any(|pid| alive(pid)));
    canary.sings();
}

#[test]
fn root_host_services_outlive_their_supervisor_and_the_next_one_goes_on_with_them() {
    let name = "root_host_services_outlive_their_supervisor_and_the_next_one_goes_on_with_them";
    let end = tempfile::tempdir().unwrap();
    let end = end.path().join("end");
    let count = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done";
    let ends = "busybox setsid sh -c 'trap \"\" TERM HUP; busybox sleep 100000 & wait' & sleep 1; \
                echo settled; while [ ! -e $END ]; do sleep 0.05; done; exit 5";
    let env = format!(r#""env": ["END={}"],"#, end.display());
    let Some(mut board) = Board::new(
        name,
        &[
            host("count", &shell(count), ""),
            host("daemons", &shell(DAEMONS), r#""stop": { "timeout": "500ms" },"#),
            host("ends", &shell(ends), &env),
        ],
    ) else {
        return;
    };
    let mut canary = Canary::new();
    board.up();
    board.until_logged("count", "line 5");
    board.until_logged("daemons", "settled");
    board.until_logged("ends", "settled");
    let (init, ending) = (board.field("count", "init"), board.field("ends", "init"));
    let (daemons, leavings, groups) = (members(&board, "daemons"), members(&board, "ends"), board.groups("daemons"));
    board.kill_supervisor();

    let lines = |board: &Board| board.says(&["logs", "count"]).matches("out  line ").count();
    let before = lines(&board);
    board.until("its log goes on", |_| lines(&board) >= before + 30);
    assert_eq!(board.coracle(&["exec", "count", "busybox", "sh", "-c", "exit 9"]).status.code(), Some(9));
    assert!(said(&board.coracle(&["ps"])).contains("nobody supervises it"));
    // A main that ends now takes its daemons along although nobody is there but its init.
    fs::write(&end, "").unwrap();
    board.until("its end", |_| !alive(&ending) && !leavings.iter().any(|pid| alive(pid)));
    assert!(board.logs("ends").contains("ended: exit code 5"));
    assert!(alive(&init) && daemons.iter().all(|pid| alive(pid)));
    canary.sings();

    board.up();
    assert_eq!((board.field("count", "init"), board.field("count", "state")), (init, "running".to_owned()));
    assert!(daemons.iter().all(|pid| alive(pid)), "{}", board.report());
    board.until("how it ended is told", |board| board.report().contains("ends ended: exit code 5; starts again"));
    assert!(board.coracle(&["restart", "daemons"]).status.success(), "{}", board.report());
    assert!(!daemons.iter().any(|pid| alive(pid)), "daemons of the old one are left");
    canary.sings();
    board.down();
    let left: Vec<_> = groups.iter().filter(|dir| dir.exists() || dir.parent().is_some_and(Path::exists)).collect();
    assert!(left.is_empty(), "{left:?}");
    canary.sings();
}

#[test]
fn root_devices_of_a_host_service_are_restricted_only_where_they_are_listed() {
    let name = "root_devices_of_a_host_service_are_restricted_only_where_they_are_listed";
    // The loop control device is no device that every service has.
    if !Path::new("/dev/kmsg").exists() || fs::File::open("/dev/kmsg").is_err() {
        return println!("skip: {name}: /dev/kmsg cannot be opened here");
    }
    let script = "busybox dd if=/dev/kmsg of=/dev/null bs=8192 count=1 2>/dev/null && echo opened || echo refused; \
                  sleep 100000";
    let services =
        [host("free", &shell(script), ""), host("listed", &shell(script), r#""devices": [{ "path": "/dev/null" }],"#)];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_logged("free", "opened");
    board.until_logged("listed", "refused");
    board.down();
}

#[test]
fn root_a_host_service_whose_program_is_missing_is_held_until_it_is_there() {
    let name = "root_a_host_service_whose_program_is_missing_is_held_until_it_is_there";
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("sbin/tool");
    let tool = host("tool", &[program.to_str().unwrap(), "sleep", "100000"], "");
    let web = service("web", busybox_board::IDLE, "");
    let Some(mut board) = Board::new(name, &[tool, web]) else { return };
    board.up();
    board.until_running("web");
    board.until("it is held", |board| board.field("tool", "state") == "held");
    let ps = board.says(&["ps"]);
    assert!(ps.contains(&format!("the program {} is missing; install it", program.display())), "{ps}");
    fs::create_dir(dir.path().join("sbin")).unwrap();
    std::os::unix::fs::symlink("/bin/busybox", program.with_file_name("sleep")).unwrap();
    fs::copy("/bin/busybox", program.with_file_name("new")).unwrap();
    fs::rename(program.with_file_name("new"), &program).unwrap();
    board.until("it is tried", |board| board.field("tool", "state") != "held");
    board.down();
}
