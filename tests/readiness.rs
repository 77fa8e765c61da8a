//! Readiness, watchdogs and all else that services say about themselves, from inside private pid and network namespaces
//! and on the host's root. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, probe, said, service};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

const VOLUME: &str = r#""mounts": [{ "type": "volume", "source": "kept", "target": "/data" }],"#;

/// A service whose main process makes these attempts of the probe.
fn says(name: &str, attempts: &[&str], more: &str) -> String {
    service(name, &[&["probe", "try"], attempts].concat(), more)
}

/// The same on the host's root, as a user who is nobody.
fn says_on_host(name: &str, attempts: &[&str], more: &str) -> String {
    let words: Vec<String> =
        [&[probe::path().to_str().unwrap(), "try"], attempts].concat().iter().map(|word| format!("{word:?}")).collect();
    let command = words.join(",");
    format!(r#"{{ "name": "{name}", "root": "host", "limits": {{ "memory": "16M" }}, {more} "command": [{command}] }}"#)
}

/// Lets the run directory of a test be reached by users who are nobody, as `/run/coracle` is.
fn open_up(board: &Board) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(board.path(""), fs::Permissions::from_mode(0o711)).unwrap();
}

/// The file in the volume `kept` that services wait for.
fn make(board: &Board, name: &str) {
    fs::write(board.path("state/volumes/kept").join(name), "").unwrap();
}

/// The number behind `"key":` in what `inspect` says.
fn counted(board: &busybox_board::board::Board, service: &str, key: &str) -> u32 {
    let text = board.says(&["inspect", service]);
    let (_, rest) = text.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {text}"));
    rest.split([',', '}']).next().unwrap().trim().parse().unwrap_or_else(|_| panic!("{key} in {text}"))
}

#[test]
fn root_a_service_is_starting_until_it_says_ready() {
    let name = "root_a_service_is_starting_until_it_says_ready";
    let notify = format!(r#"{VOLUME} "ready": "notify","#);
    let services = [
        says("db", &["notify STATUS=loading", "await /data/go", "notify READY=1|STATUS=up", "pause 1000000"], &notify),
        service("web", busybox_board::IDLE, r#""needs": ["db:ready"],"#),
        service("log", busybox_board::IDLE, r#""needs": ["db"],"#),
        says_on_host("native", &["notify READY=1", "pause 1000000"], r#""ready": "notify", "user": "12345:12345","#),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    open_up(&board);
    board.up();
    board.until("its status", |board| board.field("db", "reason") == "loading");
    board.until_running("log");
    board.until_running("native");
    assert_eq!((board.field("db", "state"), board.field("web", "state")), ("starting".into(), "waiting".into()));
    assert_eq!(board.field("web", "reason"), "waits for db to be ready");
    let mut waiting = board.command(&["start", "db"]).spawn().unwrap();
    make(&board, "go");
    board.until_running("web");
    assert!(waiting.wait().unwrap().success(), "`start` waits until it is ready");
    assert_eq!((board.field("db", "state"), board.field("db", "reason")), ("running".into(), "up".into()));
    assert!(board.says(&["inspect", "db"]).contains("up"));
    board.down();
    assert!(!board.path("run").exists(), "the notify sockets are left");
}

#[test]
fn root_a_service_that_does_not_get_ready_in_time_is_started_again() {
    let name = "root_a_service_that_does_not_get_ready_in_time_is_started_again";
    let more = r#""ready": "notify", "start_timeout": "500ms", "restart": { "policy": "no" },"#;
    let longer = r#""ready": "notify", "start_timeout": "500ms","#;
    let services = [
        says("never", &["notify ERRNO=2|STATUS=x", "pause 1000000"], more),
        says("asks", &["notify EXTEND_TIMEOUT_USEC=4000000", "pause 1500", "notify READY=1", "pause 1000000"], longer),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until("its end", |board| board.field("never", "state") == "failed");
    assert_eq!(board.field("never", "reason"), "was not ready within its start_timeout; it said ERRNO=2");
    board.until_running("asks");
    assert_eq!(board.field("asks", "restarts"), "0", "{}", board.report());
    board.down();
}

#[test]
fn root_a_reload_that_does_not_end_in_time_ends_the_service() {
    let name = "root_a_reload_that_does_not_end_in_time_ends_the_service";
    let more = r#""ready": "notify", "start_timeout": "1s", "restart": { "policy": "no" },"#;
    let reload = ["notify READY=1", "notify RELOADING=1|MONOTONIC_USEC=1"];
    let services = [
        says("never", &[&reload[..], &["pause 1000000"]].concat(), more),
        says("ends", &[&reload[..], &["notify READY=1", "pause 1000000"]].concat(), more),
        says("shows", &[&reload[..], &["pause 1000000"]].concat(), &more.replace("1s", "1h")),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until("the reload", |board| board.field("shows", "reason") == "reads its configuration anew");
    assert_eq!(board.field("shows", "state"), "running");
    board.until("its end", |board| board.field("never", "state") == "failed");
    assert_eq!(board.field("never", "reason"), "was not ready again within its start_timeout after a reload");
    assert_eq!((board.field("ends", "state"), board.field("ends", "reason")), ("running".into(), "".into()));
    board.down();
}

#[test]
fn root_pre_start_prepares_what_main_finds_and_its_failure_is_a_failed_start() {
    let name = "root_pre_start_prepares_what_main_finds_and_its_failure_is_a_failed_start";
    let no = r#""restart": { "policy": "no" }, "#;
    let pre = |words: &str, more: &str| format!(r#"{no} "pre_start": [{words}], {more}"#);
    let sh = |script: &str| format!(r#""sh", "-c", "{script}""#);
    let shows = ["sh", "-c", "cat /run/made; while :; do sleep 1; done"];
    // More than a pipe holds, and a process that it leaves behind.
    let chatty = "seq 1 30000; sleep 1000000 & id -u > /run/made";
    let services = [
        service("good", &shows, &pre(&sh(chatty), r#""user": "1000", "log": { "ring": "512K", "rate": 0 },"#)),
        service("bad", &shows, &pre(&sh("echo no >&2; exit 7"), "")),
        service("none", &shows, &pre(r#""/bin/none""#, "")),
        service("slow", &shows, &pre(&sh("sleep 1000000"), r#""start_timeout": "500ms","#)),
        service("stopped", &shows, &pre(&sh("sleep 1000000"), "")),
        says_on_host("host", &["pause 1000000"], &pre(r#""/bin/sh", "-c", "echo before""#, "")),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    for service in ["bad", "none", "slow"] {
        board.until(service, |board| board.field(service, "state") == "failed");
    }
    assert_eq!(board.field("bad", "reason"), "could not be started: its pre_start failed: exit code 7");
    assert!(board.logs("bad").contains("no"), "{}", board.logs("bad"));
    assert!(
        board.field("none", "reason").contains("/bin/none: command not found"),
        "{}",
        board.field("none", "reason")
    );
    assert_eq!(board.field("slow", "reason"), "was not ready within its start_timeout");
    board.until_running("good");
    board.until_logged("good", " 1000");
    assert!(board.logs("good").contains(" 30000"), "what it said is kept");
    board.until_running("host");
    board.until_logged("host", "before");
    assert_eq!((board.field("stopped", "state"), board.field("stopped", "pid")), ("starting".into(), "null".into()));
    board.says(&["stop", "stopped"]);
    assert_eq!(board.field("stopped", "state"), "stopped");
    assert!(board.says(&["inspect", "--steps", "good"]).contains("pre-start"));
    board.down();
}

#[test]
fn root_only_who_has_a_say_is_listened_to() {
    let name = "root_only_who_has_a_say_is_listened_to";
    let lie = ["in-child notify READY=1|STATUS=lie", "in-child notify WATCHDOG=trigger", "pause 1000000"];
    let more = r#""ready": "notify","#;
    let all = r#""ready": "notify", "notify_access": "all","#;
    let honest = ["in-child notify READY=1", "pause 1000000"];
    let garbage = ["notify READY=0", "notify XYZ", "notify WATCHDOG_USEC=0|READY=1", "pause 1000000"];
    let services = [
        says("main", &lie, more),
        says_on_host("main-host", &lie, more),
        says("all", &honest, all),
        // With a log file its init holds all the descriptors that an init can have.
        says_on_host("all-host", &["pause 1000000"], &format!(r#"{all} "log": {{ "file": "64K" }},"#)),
        says_on_host("all-inner", &["in-child pause 300", "in-child notify READY=1", "pause 1000000"], all),
        says("garbage", &garbage, more),
        says("opens", &["notify NOTIFYACCESS=all", "in-child notify READY=1", "pause 1000000"], more),
        says("closes", &["notify NOTIFYACCESS=none", "notify READY=1", "pause 1000000"], all),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_running("opens");
    board.until("its own word is refused", |board| counted(board, "closes", "refused") == 1);
    assert_eq!(board.field("closes", "state"), "starting");
    for service in ["main", "main-host"] {
        board.until(service, |board| counted(board, service, "refused") == 2);
        assert_eq!((board.field(service, "state"), board.field(service, "reason")), ("starting".into(), "".into()));
        board.until_logged(service, "it is not main");
        assert_eq!(board.logs(service).matches("it is not main").count(), 1);
    }
    board.until_running("all");
    board.until_running("garbage");
    assert_eq!(counted(&board, "garbage", "malformed"), 3);
    // A process of the machine that may write to the socket but is none of the service's.
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(b"READY=1", board.path("run/notify/all-host")).unwrap();
    board.until("the refusal", |board| counted(board, "all-host", "refused") == 1);
    assert_eq!(board.field("all-host", "state"), "starting");
    // On cgroup v1 a child that has ended is in no group; one that is there when it is read is found.
    board.until("the word is taken or refused", |board| {
        board.field("all-inner", "state") == "running" || counted(board, "all-inner", "refused") == 1
    });
    board.down();
}

#[test]
fn root_a_service_that_stops_pinging_is_aborted_and_started_again() {
    let name = "root_a_service_that_stops_pinging_is_aborted_and_started_again";
    let more = r#""watchdog": "1s", "restart": { "policy": "always", "delay": "1s" },"#;
    let hangs = ["pings 200 10", "write /dev/stderr hangs now", "pause 1000000"];
    let stubborn = r#"trap "" ABRT; echo ignores it; while :; do sleep 1; done"#;
    let services = [
        says("hangs", &hangs, more),
        says_on_host("hangs-host", &hangs, more),
        says("lives", &["pings 200 1000000"], more),
        service("silent", &["sh", "-c", stubborn], more),
        says(
            "asks",
            &["notify WATCHDOG=trigger", "pause 1000000"],
            r#""notify_access": "main", "restart": { "policy": "no" },"#,
        ),
        service("status", &["sh", "-c", "exec probe status"], r#""watchdog": "10s", "restart": { "policy": "no" },"#),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    open_up(&board);
    board.up();
    board.until_running("lives");
    let lives = board.field("lives", "pid");
    for service in ["hangs", "hangs-host"] {
        board.until(service, |board| board.field(service, "restarts") != "0");
        let report = board.report();
        assert!(report.contains(&format!("{service} ended: its watchdog expired")), "{report}");
        let log = board.logs(service);
        assert!(log.contains("hangs now") && log.contains("ended: killed by signal 6"), "{log}");
    }
    // SIGABRT does not end it; five seconds later everything of it is killed.
    board.until("silent", |board| board.field("silent", "restarts") != "0");
    assert!(board.logs("silent").contains("ended: killed by signal 9"), "{}", board.logs("silent"));
    board.until("asks", |board| board.field("asks", "state") == "failed");
    assert_eq!(board.field("asks", "reason"), "its watchdog expired");
    assert_eq!((board.field("lives", "restarts"), board.field("lives", "pid")), ("0".into(), lives));
    board.until("status", |board| board.field("status", "state") == "done");
    let status = board.logs("status");
    let field = |key: &str| {
        let (_, rest) = status.split_once(key).unwrap_or_else(|| panic!("no {key} in {status}"));
        rest.lines().next().unwrap().trim().to_owned()
    };
    assert_eq!(field("env: WATCHDOG_PID="), field("Pid: "), "{status}");
    assert_eq!((field("env: WATCHDOG_USEC="), field("env: NOTIFY_SOCKET=")), ("10000000".into(), "/dev/notify".into()));
    board.down();
}

#[test]
fn root_a_paused_service_is_not_taken_for_a_hanging_one() {
    let name = "root_a_paused_service_is_not_taken_for_a_hanging_one";
    let lives = says("lives", &["pings 100 1000000"], r#""watchdog": "500ms","#);
    let Some(mut board) = Board::new(name, &[lives]) else { return };
    board.up();
    board.until_running("lives");
    let pid = board.field("lives", "pid");
    for _ in 0..2 {
        board.says(&["pause", "lives"]);
        std::thread::sleep(std::time::Duration::from_millis(1500));
        board.says(&["unpause", "lives"]);
        std::thread::sleep(std::time::Duration::from_millis(700));
    }
    assert_eq!((board.field("lives", "pid"), board.field("lives", "state")), (pid, "running".into()));
    board.down();
}

#[test]
fn root_a_flood_of_messages_hurts_nobody_else() {
    let name = "root_a_flood_of_messages_hurts_nobody_else";
    let flood = ["notify-flood 50000 STATUS=again", "notify-flood 50000 READY=no", "pause 1000000"];
    let stranger = ["in-child notify-flood 1000000 READY=1", "pings 200 1000000"];
    let services = [
        says("flood", &flood, r#""ready": "notify", "start_timeout": "1h","#),
        says("beset", &stranger, r#""watchdog": "10s","#),
        says("healthy", &["pings 100 1000000"], r#""watchdog": "2s","#),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_running("healthy");
    let healthy = board.field("healthy", "pid");
    board.until_logged("flood", "notify-flood 50000 READY=no: ok longest wait");
    board.until("what was said is counted", |board| counted(board, "flood", "malformed") == 50_000);
    for line in board.logs("flood").lines().filter_map(|line| line.split_once("longest wait ")) {
        let waited: u64 = line.1.trim().parse().unwrap();
        assert!(waited < 1000, "a sender waited {waited} ms");
    }
    assert!(counted(&board, "beset", "refused") > 100);
    assert_eq!((board.field("healthy", "pid"), board.field("healthy", "restarts")), (healthy, "0".into()));
    assert_eq!(board.field("beset", "restarts"), "0", "{}", board.report());
    assert_eq!(board.field("flood", "state"), "starting");
    board.down();
}

#[test]
fn root_the_socket_works_on_without_its_supervisor() {
    let name = "root_the_socket_works_on_without_its_supervisor";
    let script = "i=0; while :; do i=$((i+1)); probe try 'notify STATUS=round' >/dev/null && echo round $i; done";
    let hangs = says("hangs", &["pings 100 10", "pause 1000000"], r#""watchdog": "1s","#);
    let services = [service("talks", &["sh", "-c", script], r#""notify_access": "all","#), hangs];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_logged("talks", "round 5");
    board.until_running("hangs");
    let (talks, hangs) = (board.field("talks", "pid"), board.field("hangs", "pid"));
    board.kill_supervisor();
    let rounds = |board: &busybox_board::board::Board| -> u32 {
        let log = board.says(&["logs", "-n", "1", "talks"]);
        log.rsplit_once("round ").map_or(0, |(_, number)| number.trim().parse().unwrap())
    };
    let before = rounds(&board);
    // Far more than fits into any queue between them.
    board.until("it goes on talking", |board| rounds(board) > before + 400);
    for pid in [&talks, &hangs] {
        assert!(Path::new("/proc").join(pid).exists(), "a service died with its supervisor");
    }
    board.up();
    board.until_running("talks");
    board.until("its status", |board| board.field("talks", "reason") == "round");
    board.down();
}

#[test]
fn root_a_line_on_a_descriptor_says_ready_as_s6_has_it() {
    let name = "root_a_line_on_a_descriptor_says_ready_as_s6_has_it";
    let wait = format!(r#"{VOLUME} "ready": "fd","#);
    let other = r#""ready": "fd", "ready_fd": 12,"#;
    let closes = r#""ready": "fd", "start_timeout": "1s", "restart": { "policy": "no" },"#;
    let attempts = [
        "write-fd 3 not yet",
        "await /data/go",
        "write-fd 3 |more",
        "await /data/on",
        "write-fd 3 and on",
        "pause 1000000",
    ];
    let services = [
        says("waits", &attempts, &wait),
        says("other", &["write-fd 12 |", "pause 1000000"], other),
        says_on_host("host", &["write-fd 12 |", "pause 1000000"], other),
        service("closes", &["sh", "-c", "exec 3>&-; sleep 1000000"], closes),
        service("shows", &["probe", "status"], r#""ready": "fd", "ready_fd": 5, "restart": { "policy": "no" },"#),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_running("other");
    board.until_running("host");
    board.until_logged("waits", "write-fd 3 not");
    assert_eq!(board.field("waits", "state"), "starting");
    make(&board, "go");
    board.until_running("waits");
    // Whoever goes on writing is told that nobody reads any more, and does not wait once the pipe is full.
    make(&board, "on");
    board.until_logged("waits", "write-fd 3 and on: EPIPE");
    board.until("closes", |board| board.field("closes", "state") == "failed");
    assert_eq!(board.field("closes", "reason"), "was not ready within its start_timeout");
    board.until_logged("shows", "fd: 5 -> pipe:");
    let log = board.logs("shows");
    assert!(!log.contains("fd: 3 ") && !log.contains("fd: 4 ") && !log.contains("fd: 6 "), "{log}");
    board.down();
}

#[test]
fn root_every_readiness_descriptor_can_be_had() {
    let name = "root_every_readiness_descriptor_can_be_had";
    // Up to the numbers that the start itself uses and beyond them.
    let numbers = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 255];
    let one = |number: &i32| {
        let more = format!(r#""ready": "fd", "ready_fd": {number},"#);
        says(&format!("fd{number}"), &[&format!("write-fd {number} |"), "pause 1000000"], &more)
    };
    let services: Vec<String> = numbers.iter().map(one).collect();
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    numbers.iter().for_each(|number| board.until_running(&format!("fd{number}")));
    board.down();
}

#[test]
fn root_last_words_are_heard_however_soon_the_end_comes() {
    let name = "root_last_words_are_heard_however_soon_the_end_comes";
    let more = r#""notify_access": "main", "restart": { "policy": "no" },"#;
    let words = ["notify STATUS=a", "notify STATUS=b", "notify ERRNO=5|EXIT_STATUS=3"];
    let services: Vec<String> = (0..10).map(|number| says(&format!("s{number}"), &words, more)).collect();
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    for number in 0..10 {
        let service = format!("s{number}");
        board.until(&service, |board| board.field(&service, "state") == "done");
        assert_eq!(board.field(&service, "reason"), "exit code 0; it said ERRNO=5 EXIT_STATUS=3");
    }
    board.down();
}

#[test]
fn root_exit_code_78_waits_for_someone() {
    let name = "root_exit_code_78_waits_for_someone";
    let wrong = service("wrong", &["sh", "-c", "exit 78"], r#""restart": { "policy": "always", "delay": "10ms" },"#);
    let Some(mut board) = Board::new(name, &[wrong]) else { return };
    board.up();
    for restarts in ["0", "1"] {
        board.until("its end", |board| board.field("wrong", "state") == "failed");
        assert_eq!(board.field("wrong", "reason"), "exit code 78: its configuration is wrong");
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(board.field("wrong", "restarts"), restarts);
        let _ = board.coracle(&["restart", "wrong"]);
    }
    board.down();
}

#[test]
fn root_a_barrier_is_lifted_and_stored_descriptors_are_closed() {
    let name = "root_a_barrier_is_lifted_and_stored_descriptors_are_closed";
    let attempts = [
        "notify READY=1",
        "notify-with 1 BARRIER=1",
        "notify-with 1 FDSTORE=1",
        "notify-with 4 FDSTORE=1",
        "notify-with 250 FDSTORE=1",
        "notify-with 2 BARRIER=1",
        "pause 1000000",
    ];
    let Some(mut board) = Board::new(name, &[says("barrier", &attempts, r#""ready": "notify","#)]) else { return };
    board.up();
    board.until_logged("barrier", "notify-with 2 BARRIER=1: ok closed");
    let log = board.logs("barrier");
    assert_eq!(log.matches(": ok closed").count(), 5, "{log}");
    board.until("the false barrier is counted", |board| counted(board, "barrier", "malformed") == 1);
    board.down();
}

#[test]
fn root_main_can_hand_over_to_a_process_of_the_service_and_to_no_other() {
    let name = "root_main_can_hand_over_to_a_process_of_the_service_and_to_no_other";
    let hand_over = "sleep 1000000 & exec probe try \"notify READY=1|MAINPID=$!\" 'pause 200'";
    let more = r#""ready": "notify", "restart": { "policy": "no" },"#;
    let lie = ["notify READY=1|MAINPID=1", "pause 200"];
    let stranger = format!("notify READY=1|MAINPID={}", std::process::id());
    // By a descriptor as well; one of something else, and none, name nobody.
    let by_fd = "sleep 1000000 & exec probe try \"notify-pidfd $! READY=1|MAINPIDFD=1\" 'pause 200'";
    let no_process = ["notify READY=1|MAINPIDFD=1", "notify-with 1 MAINPIDFD=1", "pause 200"];
    // Linux 5.3.
    let has_pidfds = coracle::sys::process::pidfd_open(std::process::id() as i32).is_ok();
    let by_fd = if has_pidfds { by_fd } else { hand_over };
    let services = [
        service("daemon", &["sh", "-c", hand_over], more),
        service("by-fd", &["sh", "-c", by_fd], more),
        says("lies", &lie, more),
        says("lies-fd", &no_process, more),
        says_on_host("lies-host", &[stranger.as_str(), "pause 200"], more),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    for service in ["lies", "lies-fd", "lies-host"] {
        board.until(service, |board| board.field(service, "state") == "done");
    }
    for service in ["daemon", "by-fd"] {
        board.until("the new main", |board| {
            let pid = board.field(service, "pid");
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("sleep"))
        });
    }
    assert_eq!((board.field("daemon", "state"), board.field("daemon", "restarts")), ("running".into(), "0".into()));
    assert!(said(&board.coracle(&["stop", "daemon"])).contains("stopped"));
    assert!(board.logs("daemon").contains("ended: killed by signal 15"), "{}", board.logs("daemon"));
    board.down();
}
