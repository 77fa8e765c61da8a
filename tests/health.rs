//! Health checks of every kind, of services in networks of their own and on the host's root. Needs root, cgroups and a
//! static busybox.

mod busybox_board;
#[allow(clippy::duplicate_mod)]
mod image_common;

use busybox_board::{Board, probe, service};
use image_common::{Image, archive};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const VOLUME: &str = r#""mounts": [{ "type": "volume", "source": "kept", "target": "/data" }],"#;
const ONCE: &str = r#""restart": { "policy": "no" },"#;
/// What fails two checks in a row is ended within a second.
const QUICK: &str = r#""interval": "150ms", "timeout": "2s", "retries": 2, "start_period": "0""#;

/// A service whose main process makes these attempts of the probe, with this check.
fn asked(name: &str, attempts: &[&str], check: &str, more: &str) -> String {
    let more = format!(r#""health": {{ {check}, {QUICK} }}, {more}"#);
    service(name, &[&["probe", "try"], attempts, &["pause 1000000"]].concat(), &more)
}

/// The same on the host's root.
fn asked_on_host(name: &str, attempts: &[&str], check: &str, more: &str) -> String {
    let words = [&[probe::path().to_str().unwrap(), "try"], attempts, &["pause 1000000"]].concat();
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    let command = words.join(",");
    let health = format!(r#""health": {{ {check}, {QUICK} }}"#);
    format!(
        r#"{{ "name": "{name}", "root": "host", "limits": {{ "memory": "16M" }}, {more} {health}, "command": [{command}] }}"#
    )
}

/// A port of this machine that nobody has.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The folders of the cgroup in which a service's commands run.
fn probe_groups(board: &Board, service: &str) -> Vec<PathBuf> {
    let beside = |group: PathBuf| group.with_file_name(format!("{service}+probe"));
    let groups: Vec<PathBuf> = board.groups(service).into_iter().map(beside).filter(|group| group.exists()).collect();
    assert!(!groups.is_empty(), "{service} has no group for its commands");
    groups
}

/// How many processes are in it.
fn processes(groups: &[PathBuf]) -> usize {
    fs::read_to_string(groups[0].join("cgroup.procs")).unwrap().lines().count()
}

/// The processes of this machine that have ended and nobody has waited for, as a rule none.
fn zombies_beneath(pid: &str) -> Vec<String> {
    let stat = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = |pid: &str| -> Option<(char, String)> {
        let text = stat(pid);
        let mut rest = text.rsplit_once(") ")?.1.split(' ');
        Some((rest.next()?.chars().next()?, rest.next()?.to_owned()))
    };
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().display().to_string());
    all.filter(|other| fields(other).is_some_and(|(state, parent)| state == 'Z' && parent == pid)).collect()
}

#[test]
fn root_each_kind_of_check_makes_its_service_ready() {
    let name = "root_each_kind_of_check_makes_its_service_ready";
    let ready = r#""ready": "health","#;
    let port = free_port();
    let (tcp_host, own) = (format!(r#""tcp": "127.0.0.1:{port}""#), format!("serve 127.0.0.1:{port}"));
    let beats = "while :; do echo >/tmp/beat; sleep 1; done";
    let beat_check = format!(r#"{ready} "health": {{ "file": "/tmp/beat", "max_age": "5s", {QUICK} }},"#);
    let services = [
        asked("tcp", &["serve 127.0.0.1:8080"], r#""tcp": "127.0.0.1:8080""#, ready),
        asked("tcp6", &["serve [::1]:8080"], r#""tcp": "[::1]:8080""#, ready),
        asked_on_host("tcp-host", &[&own], &tcp_host, ready),
        service(
            "http",
            &["busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/etc"],
            &format!(r#"{ready} "health": {{ "http": "http://127.0.0.1:8080/passwd", {QUICK} }},"#),
        ),
        asked(
            "status",
            &["reply 127.0.0.1:8080 HTTP/1.0 404 No||"],
            r#""http": "http://127.0.0.1:8080/x?y", "status": 404"#,
            ready,
        ),
        asked("unix", &["listen /run/sock"], r#""unix": "/run/sock""#, ready),
        service("file", &["sh", "-c", beats], &beat_check),
        asked("exec", &["create /tmp/works"], r#""exec": ["cat", "/tmp/works"]"#, ready),
        asked_on_host("exec-host", &[], r#""exec": ["/bin/busybox", "true"]"#, ready),
        service(
            "notify",
            &["probe", "try", "pings 100 1000000"],
            &format!(r#"{ready} "health": {{ "notify": true, {QUICK} }},"#),
        ),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    let names = ["tcp", "tcp6", "tcp-host", "http", "status", "unix", "file", "exec", "exec-host", "notify"];
    for service in names {
        board.until_running(service);
        assert_eq!(board.field(service, "health"), "healthy", "{service}");
    }
    let pids = names.map(|service| board.field(service, "pid"));
    // Some more rounds of each.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(names.map(|service| board.field(service, "pid")), pids, "{}", board.report());
    assert!(board.says(&["ps"]).contains("running (healthy)"));
    let inspected = board.says(&["inspect", "http"]);
    assert!(
        inspected.contains("http://127.0.0.1:8080/passwd") && inspected.contains("\"state\":\"healthy\""),
        "{inspected}"
    );
    let service = &board.groups("exec")[0];
    assert_eq!(service.file_name().unwrap(), "exec");
    probe_groups(&board, "exec");
    board.down();
}

#[test]
fn root_what_refuses_is_ended_with_a_reason() {
    let name = "root_what_refuses_is_ended_with_a_reason";
    let services = [
        asked("tcp", &[], r#""tcp": "127.0.0.1:1883""#, ONCE),
        asked_on_host("tcp-host", &[], &format!(r#""tcp": "127.0.0.1:{}""#, free_port()), ONCE),
        asked("http", &["reply 127.0.0.1:8080 HTTP/1.1 503 Later||"], r#""http": "http://127.0.0.1:8080/""#, ONCE),
        asked(
            "status",
            &["reply 127.0.0.1:8080 HTTP/1.1 200 OK||"],
            r#""http": "http://127.0.0.1:8080/", "status": 204"#,
            ONCE,
        ),
        asked("no-http", &["reply 127.0.0.1:8080 SSH-2.0-OpenSSH_9|"], r#""http": "http://127.0.0.1:8080/""#, ONCE),
        asked("unix", &[], r#""unix": "/run/sock""#, ONCE),
        asked("file", &[], r#""file": "/run/beat""#, ONCE),
        asked("stale", &["create /run/beat"], r#""file": "/run/beat", "max_age": "300ms""#, ONCE),
        asked("exec", &[], r#""exec": ["sh", "-c", "echo no luck; exit 3"]"#, ONCE),
        asked("missing", &[], r#""exec": ["/bin/none"]"#, ONCE),
        asked_on_host("exec-host", &[], r#""exec": ["/bin/busybox", "false"]"#, ONCE),
        asked("notify", &["notify WATCHDOG=1"], r#""notify": true"#, ONCE),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    for (service, reason) in [
        ("tcp", "unhealthy: tcp 127.0.0.1:1883: Connection refused"),
        ("tcp-host", "Connection refused"),
        ("http", "unhealthy: http://127.0.0.1:8080/: status 503"),
        ("status", "status 200"),
        ("no-http", "its answer is not HTTP"),
        ("unix", "unhealthy: unix /run/sock: No such file or directory"),
        ("file", "unhealthy: file /run/beat: No such file or directory"),
        ("stale", "unhealthy: file /run/beat: not changed for "),
        ("exec", "unhealthy: exec sh: exit code 3"),
        ("missing", "unhealthy: exec /bin/none: exit code 127"),
        ("exec-host", "exit code 1"),
        ("notify", "unhealthy: WATCHDOG=1: was not said in time"),
    ] {
        board.until(service, |board| board.field(service, "state") == "failed");
        let ps = board.says(&["ps"]);
        let line = ps.lines().find(|line| line.split_whitespace().next() == Some(service)).unwrap();
        assert!(line.contains(reason) && line.contains(", 2 times"), "{line}");
        assert!(board.logs(service).contains("killed by signal 6"), "{}", board.logs(service));
    }
    let report = board.report();
    assert!(report.contains("exec: its check says: no luck"), "{report}");
    assert!(report.contains("exec tcp has failed") || report.contains("tcp has failed"), "{report}");
    board.down();
}

#[test]
fn root_what_does_not_answer_is_ended_too() {
    let name = "root_what_does_not_answer_is_ended_too";
    let hangs = |name: &str| {
        asked(name, &[], r#""exec": ["sh", "-c", "trap : TERM ABRT; sleep 1000000 & sleep 1000000"]"#, ONCE)
    };
    let services = [
        asked("tcp", &["deaf 127.0.0.1:1883"], r#""tcp": "127.0.0.1:1883""#, ONCE),
        asked("http", &["listen 127.0.0.1:8080"], r#""http": "http://127.0.0.1:8080/""#, ONCE),
        hangs("exec"),
        asked_on_host(
            "exec-host",
            &[],
            r#""exec": ["/bin/busybox", "sh", "-c", "sleep 1000000 & sleep 1000000"]"#,
            ONCE,
        ),
        asked("lives", &["serve 127.0.0.1:8080"], r#""tcp": "127.0.0.1:8080""#, ""),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    for service in ["tcp", "http", "exec", "exec-host"] {
        board.until(service, |board| board.field(service, "state") == "failed");
        assert!(board.says(&["ps"]).contains("no answer in time"), "{}", board.says(&["ps"]));
    }
    assert_eq!((board.field("lives", "health"), board.field("lives", "restarts")), ("healthy".into(), "0".into()));
    board.down();
}

#[test]
fn root_a_command_leaves_nothing_behind_however_it_ends() {
    let name = "root_a_command_leaves_nothing_behind_however_it_ends";
    let check = |script: &str| {
        format!(r#""exec": ["sh", "-c", "echo x >>/data/$NAME; {script}"], "role": "ready", "memory": "4M""#)
    };
    let env = |name: &str| format!(r#"{VOLUME} "env": ["PATH=/bin", "NAME={name}"],"#);
    let forks = "sleep 1000000 & sleep 1000000 & exit 0";
    let services = [
        asked("forks", &[], &check(forks), &env("forks")),
        asked("hangs", &[], &check("sleep 1000000 & sleep 1000000"), &env("hangs")),
        asked("eats", &[], &check("exec probe try 'eat 64'"), &env("eats")),
        asked("floods", &[], &check("exec seq 1 100000"), &env("floods")),
        asked("bombs", &[], &check("exec probe try bomb"), &env("bombs")),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    let names = ["forks", "hangs", "eats", "floods", "bombs"];
    names.iter().for_each(|service| board.until_running(service));
    let pids = names.map(|service| board.field(service, "pid"));
    let rounds = |board: &busybox_board::board::Board, service: &str| {
        fs::read_to_string(board.path("state/volumes/kept").join(service)).unwrap_or_default().lines().count()
    };
    for service in names {
        board.until(&format!("five checks of {service}"), |board| rounds(board, service) >= 5);
        let groups = probe_groups(&board, service);
        // A check or what it has left, never more than that of one and what is just dying of the one before.
        assert!(processes(&groups) <= 32, "{service}");
    }
    for service in ["eats", "hangs", "bombs"] {
        board.until(service, |board| board.field(service, "reason").starts_with("not ready: exec sh: "));
        assert_eq!(board.field(service, "state"), "running");
    }
    for service in ["forks", "floods"] {
        // On a slow machine what the others do can make it late for a while.
        board.until(&format!("{service} works"), |board| board.field(service, "health") == "healthy");
    }
    assert_eq!(board.field("eats", "oom_kills"), "0", "the service is charged for its check");
    assert_eq!(names.map(|service| board.field(service, "pid")), pids, "{}", board.report());
    for service in names {
        let init = board.field(service, "init");
        board.until("its zombies are gone", |_| zombies_beneath(&init).is_empty());
    }
    // No check runs while it is paused, and what ran then is gone.
    names.iter().for_each(|service| drop(board.says(&["pause", service])));
    for service in names {
        let groups = probe_groups(&board, service);
        board.until(&format!("{service} is left alone"), |_| processes(&groups) == 0);
    }
    let before = names.map(|service| rounds(&board, service));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(names.map(|service| rounds(&board, service)), before, "asked while paused");
    names.iter().for_each(|service| drop(board.says(&["unpause", service])));
    for (service, before) in names.iter().zip(before) {
        board.until(&format!("{service} is asked again"), |board| rounds(board, service) > before);
    }
    let groups = names.map(|service| probe_groups(&board, service));
    board.down();
    for group in groups.iter().flatten() {
        assert!(!group.exists(), "{} is left", group.display());
    }
}

#[test]
fn root_a_failing_ready_check_is_shown_and_ends_nothing() {
    let name = "root_a_failing_ready_check_is_shown_and_ends_nothing";
    let check = r#""exec": ["cat", "/data/works"], "role": "ready""#;
    let services = [
        asked("db", &[], check, &format!(r#"{VOLUME} "ready": "health","#)),
        service("web", busybox_board::IDLE, r#""needs": ["db:ready"],"#),
        service("late", busybox_board::IDLE, r#""needs": ["db:ready"], "enabled": false,"#),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    let works = |board: &Board| board.path("state/volumes/kept/works");
    board.until("db", |board| board.field("db", "state") == "starting");
    assert_eq!((board.field("db", "health"), board.field("web", "state")), ("starting".into(), "waiting".into()));
    fs::write(works(&board), "").unwrap();
    board.until_running("web");
    let pids = (board.field("db", "pid"), board.field("web", "pid"));
    fs::remove_file(works(&board)).unwrap();
    board.until("not ready", |board| board.field("db", "reason") == "not ready: exec cat: exit code 1");
    assert_eq!((board.field("db", "state"), board.field("db", "health")), ("running".into(), "unhealthy".into()));
    let mut late = board.command(&["start", "late"]).spawn().unwrap();
    board.until("late waits", |board| board.field("late", "state") == "waiting");
    fs::write(works(&board), "").unwrap();
    board.until_running("late");
    assert!(late.wait().unwrap().success());
    assert_eq!((board.field("db", "reason"), board.field("db", "health")), ("".into(), "healthy".into()));
    assert_eq!((board.field("db", "pid"), board.field("web", "pid")), pids);
    board.down();
}

/// A service whose main process makes these attempts of the probe, with a list of these checks.
fn asked_by_all(name: &str, attempts: &[&str], checks: &[&str], more: &str) -> String {
    let checks: Vec<String> = checks.iter().map(|check| format!("{{ {check}, {QUICK} }}")).collect();
    let more = format!(r#"{VOLUME} "ready": "health", "health": [ {} ], {more}"#, checks.join(", "));
    service(name, &[&["probe", "try"], attempts, &["pause 1000000"]].concat(), &more)
}

#[test]
fn root_what_is_live_becomes_ready_and_stops_being_ready_without_a_restart() {
    let name = "root_what_is_live_becomes_ready_and_stops_being_ready_without_a_restart";
    let checks = [r#""unix": "/run/sock""#, r#""exec": ["cat", "/data/works"], "role": "ready""#];
    let services = [
        asked_by_all("db", &["listen /run/sock"], &checks, ONCE),
        service("web", busybox_board::IDLE, r#""needs": ["db:ready"],"#),
        service("late", busybox_board::IDLE, r#""needs": ["db:ready"], "enabled": false,"#),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    let works = board.path("state/volumes/kept/works");
    let stands = |board: &busybox_board::board::Board, check: &str, state: &str| {
        board.says(&["inspect", "db"]).contains(&format!(r#""probe":"{check}","state":"{state}""#))
    };
    board.until("it lives", |board| stands(board, "unix /run/sock", "healthy"));
    assert_eq!((board.field("db", "state"), board.field("db", "health")), ("starting".into(), "starting".into()));
    assert_eq!(board.field("web", "state"), "waiting");
    fs::write(&works, "").unwrap();
    board.until_running("web");
    assert_eq!((board.field("db", "state"), board.field("db", "health")), ("running".into(), "healthy".into()));
    let pids = (board.field("db", "pid"), board.field("web", "pid"));
    fs::remove_file(&works).unwrap();
    let why = "not ready: exec cat: exit code 1";
    board.until("not ready", |board| board.field("db", "reason") == why);
    assert_eq!((board.field("db", "state"), board.field("db", "health")), ("running".into(), "unhealthy".into()));
    assert!(board.says(&["why", "db"]).contains(why), "{}", board.says(&["why", "db"]));
    assert!(board.says(&["events"]).contains("not-ready"), "{}", board.says(&["events"]));
    assert!(stands(&board, "unix /run/sock", "healthy") && stands(&board, "exec cat", "unhealthy"));
    let mut late = board.command(&["start", "late"]).spawn().unwrap();
    board.until("late waits", |board| board.field("late", "state") == "waiting");
    // The next supervisor knows how both stand before it has asked.
    board.kill_supervisor();
    late.wait().unwrap();
    board.up();
    assert!(board.field("db", "reason").starts_with("not ready"), "{}", board.field("db", "reason"));
    assert_eq!((board.field("db", "health"), board.field("late", "state")), ("unhealthy".into(), "waiting".into()));
    fs::write(&works, "").unwrap();
    board.until_running("late");
    assert_eq!((board.field("db", "reason"), board.field("db", "health")), ("".into(), "healthy".into()));
    assert_eq!((board.field("db", "pid"), board.field("web", "pid")), pids);
    // The other check ends it.
    board.says(&["exec", "db", "probe", "try", "unlink /run/sock"]);
    board.until("it is ended", |board| board.field("db", "state") == "failed");
    assert!(board.field("db", "reason").contains("unhealthy: unix /run/sock: "), "{}", board.field("db", "reason"));
    assert_eq!(board.field("web", "pid"), pids.1);
    board.down();
}

#[test]
fn root_nothing_else_is_asked_before_the_startup_check_has_succeeded_and_that_never_again() {
    let name = "root_nothing_else_is_asked_before_the_startup_check_has_succeeded_and_that_never_again";
    let check = |role: &str, more: &str| {
        format!(r#""exec": ["sh", "-c", "echo {role} >>/data/$NAME; {more}"], "role": "{role}""#)
    };
    let checks = [check("live", "true"), check("startup", "cat /data/begun"), check("ready", "true")];
    let checks = checks.each_ref().map(String::as_str);
    let env = |name: &str| format!(r#""env": ["PATH=/bin", "NAME={name}"],"#);
    let services = [
        asked_by_all("slow", &[], &checks, &env("slow")),
        asked_by_all("never", &[], &checks, &format!(r#"{} {ONCE} "start_timeout": "1s","#, env("never"))),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    let kept = board.path("state/volumes/kept");
    let asked = |service: &str, role: &str| {
        let text = fs::read_to_string(kept.join(service)).unwrap_or_default();
        text.lines().filter(|line| *line == role).count()
    };
    board.until("never is ended", |board| board.field("never", "state") == "failed");
    let reason = board.field("never", "reason");
    assert!(reason.contains("was not ready within its start_timeout: exec sh: exit code 1"), "{reason}");
    board.until("slow is asked", |_| asked("slow", "startup") > 3);
    assert_eq!(board.field("slow", "state"), "starting");
    for service in ["slow", "never"] {
        assert_eq!((asked(service, "live"), asked(service, "ready")), (0, 0), "{service}");
    }
    fs::write(kept.join("begun"), "").unwrap();
    board.until_running("slow");
    let startups = asked("slow", "startup");
    board.until("it is asked by the others", |_| asked("slow", "live") > 3 && asked("slow", "ready") > 3);
    fs::remove_file(kept.join("begun")).unwrap();
    board.kill_supervisor();
    board.up();
    let (live, ready) = (asked("slow", "live"), asked("slow", "ready"));
    let more = |_: &busybox_board::board::Board| asked("slow", "live") > live + 3 && asked("slow", "ready") > ready + 3;
    board.until("it is asked by the others again", more);
    assert_eq!(asked("slow", "startup"), startups);
    assert_eq!((board.field("slow", "restarts"), board.field("slow", "health")), ("0".into(), "healthy".into()));
    board.down();
}

#[test]
fn root_a_check_that_hangs_takes_nothing_from_the_other_one() {
    let name = "root_a_check_that_hangs_takes_nothing_from_the_other_one";
    let works = r#""exec": ["sh", "-c", "echo x >>/data/asked"]"#;
    let hangs =
        r#""exec": ["sleep", "1000000"], "role": "ready", "interval": "150ms", "timeout": "300ms", "retries": 2"#;
    let health = format!(r#"{VOLUME} "health": [ {{ {works}, {QUICK} }}, {{ {hangs} }} ],"#);
    let Some(mut board) = Board::new(name, &[service("web", busybox_board::IDLE, &health)]) else { return };
    board.up();
    board.until("not ready", |board| board.field("web", "reason") == "not ready: exec sleep: no answer in time");
    let asked = |board: &busybox_board::board::Board| {
        fs::read_to_string(board.path("state/volumes/kept/asked")).unwrap_or_default().lines().count()
    };
    let before = asked(&board);
    board.until("the other one is asked", |board| asked(board) > before + 3);
    let inspected = board.says(&["inspect", "web"]);
    assert!(inspected.contains(r#""probe":"exec sh","state":"healthy","failures":0"#), "{inspected}");
    assert_eq!(board.field("web", "restarts"), "0", "{}", board.report());
    board.down();
}

#[test]
fn root_a_check_of_a_path_does_not_lead_out_of_the_service() {
    let name = "root_a_check_of_a_path_does_not_lead_out_of_the_service";
    let Some(mut board) = Board::new(name, &[]) else { return };
    let (secret, socket) = (board.path("beat"), board.path("sock"));
    fs::write(&secret, "").unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let link = |to: &std::path::Path| format!("symlink {} /tmp/link", to.display());
    let up = format!("symlink /../../../..{} /tmp/link", secret.display());
    let services = [
        asked("file", &[&link(&secret)], r#""file": "/tmp/link""#, ONCE),
        asked("climbs", &[&up], r#""file": "/tmp/link""#, ONCE),
        asked("unix", &[&link(&socket)], r#""unix": "/tmp/link""#, ONCE),
        asked("magic", &["symlink /proc/1/root/etc/passwd /tmp/link"], r#""file": "/tmp/link""#, ONCE),
        asked("plain", &["create /tmp/plain"], r#""unix": "/tmp/plain""#, ONCE),
    ];
    board.configure(&services.join(","));
    board.up();
    for service in ["file", "climbs", "unix", "magic", "plain"] {
        board.until(service, |board| board.field(service, "state") == "failed");
        assert!(board.field(service, "reason").starts_with("unhealthy: "), "{}", board.field(service, "reason"));
    }
    board.down();
}

#[test]
fn root_a_loaded_machine_is_not_taken_for_a_hanging_service() {
    let name = "root_a_loaded_machine_is_not_taken_for_a_hanging_service";
    let slow = r#""interval": "100ms", "timeout": "1s", "retries": 3, "start_period": "0""#;
    let check = format!(r#"{VOLUME} "health": {{ "exec": ["probe", "try", "append /data/x", "spin 0"], {slow} }},"#);
    let spin = |name: &str| service(name, &["sh", "-c", "for i in 1 2 3 4; do (while :; do :; done) & done; wait"], "");
    let services = [
        service("exec", &["sh", "-c", "echo >/data/x; while :; do sleep 1; done"], &check),
        asked("tcp", &["serve 127.0.0.1:8080"], r#""tcp": "127.0.0.1:8080""#, ""),
        asked("http", &["reply 127.0.0.1:8080 HTTP/1.1 200 OK||"], r#""http": "http://127.0.0.1:8080/""#, ""),
        spin("one"),
        spin("two"),
        spin("three"),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    let names = ["exec", "tcp", "http"];
    names.iter().for_each(|service| board.until_running(service));
    std::thread::sleep(Duration::from_secs(10));
    for service in names {
        assert_eq!(board.field(service, "restarts"), "0", "{service}: {}", board.report());
        assert_eq!(board.field(service, "health"), "healthy", "{service}");
    }
    board.down();
}

#[test]
fn root_the_health_check_of_an_image_counts_where_it_is_asked_for() {
    let name = "root_the_health_check_of_an_image_counts_where_it_is_asked_for";
    let one = |name: &str, image: &str, more: &str| {
        let command = r#""command": ["/bin/busybox", "sleep", "1000000"]"#;
        format!(r#"{{ "name": "{name}", "image": "{image}", {command}, "limits": {{ "memory": "8M" }}, {more} }}"#)
    };
    let quick = r#""interval": "150ms", "start_period": "0""#;
    let services = [
        one("works", "works.tar", r#""ready": "health", "health": { "image": true }"#),
        one("fails", "fails.tar", &format!(r#"{ONCE} "health": {{ "image": true, {quick} }}"#)),
        one("not-asked", "fails.tar", ONCE.trim_end_matches(',')),
        one("has-none", "none.tar", &format!(r#"{ONCE} "health": {{ "image": true }}"#)),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    let busybox = fs::read("/bin/busybox").unwrap();
    let mut writer = coracle::image::tar::write::Writer::new(Vec::new());
    let entry = image_common::file("bin/busybox", busybox.len());
    writer.append(&coracle::image::tar::Entry { mode: 0o755, ..entry }, &busybox[..]).unwrap();
    let layer = writer.finish().unwrap();
    for (name, check) in [
        ("works.tar", r#""Healthcheck":{"Test":["CMD","/bin/busybox","true"]},"#),
        ("fails.tar", r#""Healthcheck":{"Test":["CMD","/bin/busybox","sh","-c","echo broken; exit 1"],"Retries":2},"#),
        ("none.tar", ""),
    ] {
        let mut image = Image::new(vec![layer.clone()]);
        image.config = image.config.replace(r#""Cmd":"#, &format!(r#"{check}"Cmd":"#));
        board.image(name, &archive(&image.save()));
    }
    board.up();
    board.until_running("works");
    assert_eq!(board.field("works", "health"), "healthy");
    board.until("fails", |board| board.field("fails", "state") == "failed");
    let ps = board.says(&["ps"]);
    assert!(ps.contains("unhealthy: the image's HEALTHCHECK: exit code 1, 2 times"), "{ps}");
    assert!(board.report().contains("fails: its check says: broken"), "{}", board.report());
    board.until("has-none", |board| board.field("has-none", "state") == "failed");
    assert!(board.field("has-none", "reason").contains("its image has no HEALTHCHECK"));
    assert_eq!(
        (board.field("not-asked", "state"), board.field("not-asked", "health")),
        ("running".into(), "null".into())
    );
    board.down();
}

#[test]
fn root_what_another_supervisor_has_taken_over_is_asked_as_before() {
    let name = "root_what_another_supervisor_has_taken_over_is_asked_as_before";
    let ready = r#""ready": "health","#;
    let more = format!("{ONCE} {ready}");
    let exec = r#""exec": ["cat", "/tmp/works"]"#;
    let services = [
        asked("exec", &["create /tmp/works"], exec, &more),
        asked("paused", &["create /tmp/works"], exec, &more),
        asked("unix", &["listen /run/sock"], r#""unix": "/run/sock""#, &more),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    let names = ["exec", "paused", "unix"];
    names.iter().for_each(|service| board.until_running(service));
    let pids = names.map(|service| board.field(service, "pid"));
    board.says(&["pause", "paused"]);
    board.kill_supervisor();
    board.up();
    assert_eq!(names.map(|service| board.field(service, "pid")), pids, "{}", board.report());
    assert_eq!(board.field("paused", "state"), "paused");
    for service in ["exec", "unix"] {
        board.until(&format!("{service} is asked"), |board| board.field(service, "health") == "healthy");
    }
    // Longer than it would take to fail, if what is frozen were asked.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(board.field("paused", "state"), "paused", "{}", board.report());
    board.says(&["unpause", "paused"]);
    board.until("it is asked again", |board| board.field("paused", "health") == "healthy");
    assert_eq!(names.map(|service| board.field(service, "pid")), pids, "{}", board.report());
    for (service, file, why) in [
        ("exec", "/tmp/works", "unhealthy: exec cat: exit code 1"),
        ("paused", "/tmp/works", "unhealthy: exec cat: exit code 1"),
        ("unix", "/run/sock", "unhealthy: unix /run/sock: No such file or directory"),
    ] {
        board.says(&["exec", service, "probe", "try", &format!("unlink {file}")]);
        board.until(&format!("{service} is ended"), |board| board.field(service, "state") == "failed");
        assert!(board.says(&["why", service]).contains(why), "{}", board.says(&["why", service]));
    }
    board.down();
}
