//! Another program in the place of the supervisor: the services run on, their sockets stay open, and what the new program
//! refuses changes nothing. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, said, service};
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program at `name` of the board.
fn script(board: &Board, name: &str, text: &str) -> String {
    let path = board.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// How often a supervisor has taken over what ran.
fn arrivals(board: &busybox_board::board::Board) -> usize {
    board.report().matches("web runs on and is supervised again").count()
}

/// One that counts, one to be paused, and one that does not run and listens on `port`.
fn services(port: u16) -> [String; 3] {
    let idle = format!(
        r#""sockets": [ {{ "tcp": "127.0.0.1:{port}" }} ], "restart": {{ "delay": "1h", "max_delay": "1h" }},"#
    );
    let counts = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"];
    [service("web", &counts, ""), service("frozen", IDLE, ""), service("idle", &["sh", "-c", "exit 3"], &idle)]
}

/// What `top` and `pgrep` know the parent of a process by.
fn parent_name(pid: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    fs::read_to_string(format!("/proc/{}/comm", parent.trim())).unwrap().trim_end().to_owned()
}

#[test]
fn root_another_program_takes_over_and_nothing_notices() {
    let name = "root_another_program_takes_over_and_nothing_notices";
    let port = port();
    let services = services(port);
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_running("web");
    board.until_running("frozen");
    board.says(&["pause", "frozen"]);
    board.until("it waits", |board| board.field("idle", "state") == "backoff");
    let (pid, init) = (board.field("web", "pid"), board.field("web", "init"));
    assert_eq!(parent_name(&init), "coracle");
    // Whoever waits at a socket of a service that does not run goes on waiting.
    let mut waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
    for round in 1..4 {
        let new = board.path(&format!("coracle-{round}"));
        fs::copy(env!("CARGO_BIN_EXE_coracle"), &new).unwrap();
        let output = board.coracle(&["upgrade", new.to_str().unwrap()]);
        assert!(output.status.success(), "{}\n{}", said(&output), board.report());
        assert_eq!(arrivals(&board), round, "{}", board.report());
        assert_eq!((board.field("web", "pid"), board.field("web", "init")), (pid.clone(), init.clone()));
        assert_eq!(parent_name(&init), "coracle");
        assert_eq!((board.field("web", "state"), board.field("frozen", "state")), ("running".into(), "paused".into()));
        assert_eq!((board.field("web", "restarts"), board.field("idle", "state")), ("0".into(), "backoff".into()));
        assert!(!board.path("run/upgrade").exists());
        // The program may go: what runs is out of reach.
        fs::remove_file(new).unwrap();
    }
    waiting.set_nonblocking(true).unwrap();
    let still = std::io::Read::read(&mut waiting, &mut [0]).unwrap_err();
    assert_eq!(still.kind(), std::io::ErrorKind::WouldBlock, "it was refused");
    let log = board.says(&["logs", "web"]);
    let lines: Vec<u32> = log.lines().filter_map(|line| line.split_once("out  line ")?.1.parse().ok()).collect();
    assert!(lines.iter().zip(lines[0]..).all(|(line, expected)| *line == expected), "a line is lost");
    // It still is the parent of the services, and ends in order.
    board.says(&["kill", "--signal", "KILL", "web"]);
    board.until("it runs again", |board| board.field("web", "restarts") == "1");
    assert!(board.report().contains("web ended: killed by signal 9 (KILL)"), "{}", board.report());
    board.down();
    assert!(!board.path("run").exists());
}

#[test]
fn root_what_the_new_program_refuses_changes_nothing() {
    let name = "root_what_the_new_program_refuses_changes_nothing";
    let Some(mut board) = Board::new(name, &[service("web", IDLE, "")]) else { return };
    board.up();
    board.until_running("web");
    let (pid, supervisor) = (board.field("web", "pid"), board.field("web", "init"));
    let own = env!("CARGO_BIN_EXE_coracle");
    let refuses = script(&board, "refuses", "echo 'not with me'; exit 1");
    let dies = script(&board, "dies", "kill -9 $$");
    for (program, why) in [
        (refuses.as_str(), "the new program would not take over, and nothing has changed: not with me"),
        (dies.as_str(), "it does not say why"),
        ("/nonexistent", "the new program cannot be used"),
    ] {
        let output = board.coracle(&["upgrade", program]);
        assert_eq!(output.status.code(), Some(1), "{program}: {}", said(&output));
        assert!(said(&output).contains(why), "{program}: {}", said(&output));
        assert_eq!((board.field("web", "pid"), board.field("web", "init")), (pid.clone(), supervisor.clone()));
        assert!(!board.path("run/upgrade").exists());
    }
    // A config that is broken by now: the new program would have none.
    let config = fs::read_to_string(board.path("config.json")).unwrap();
    fs::write(board.path("config.json"), config.replace("\"memory\"", "\"memroy\"")).unwrap();
    let output = board.coracle(&["upgrade", own]);
    assert!(said(&output).contains("unknown key \"memroy\""), "{}", said(&output));
    assert_eq!(board.field("web", "state"), "running");
    fs::write(board.path("config.json"), config).unwrap();
    assert!(board.coracle(&["upgrade", own]).status.success());
    assert_eq!(board.field("web", "pid"), pid);
    board.down();
}

#[test]
fn root_a_program_that_refuses_once_it_is_executed_gives_way_to_the_old_one() {
    let name = "root_a_program_that_refuses_once_it_is_executed_gives_way_to_the_old_one";
    let Some(mut board) = Board::new(name, &[service("web", IDLE, "")]) else { return };
    board.up();
    board.until_running("web");
    let pid = board.field("web", "pid");
    // As a later version would that cannot go on: it says so to the program that it was told to go back to.
    let text = r#"[ "$1" = --takeover-check ] && exit 0; exec /proc/self/fd/$3 --takeover $2 - 'the disk is full'"#;
    let later = script(&board, "later", text);
    let output = board.coracle(&["upgrade", &later]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("went back to the one before: the disk is full"), "{}", said(&output));
    assert_eq!((board.field("web", "pid"), board.field("web", "state")), (pid.clone(), "running".to_owned()));
    assert_eq!(arrivals(&board), 1, "{}", board.report());
    // And the next attempt is a new one.
    assert!(board.coracle(&["upgrade", env!("CARGO_BIN_EXE_coracle")]).status.success());
    assert_eq!((board.field("web", "pid"), arrivals(&board)), (pid, 2));
    board.down();
}

#[test]
fn root_a_storm_is_put_off_by_the_new_program_as_by_the_old_one() {
    let name = "root_a_storm_is_put_off_by_the_new_program_as_by_the_old_one";
    let fails = |name: &str, more: &str| {
        let keys = format!(r#"{more} "restart": {{ "delay": "10ms", "max_delay": "10ms" }},"#);
        service(name, &["sh", "-c", "exit 1"], &keys)
    };
    let late = fails("late", r#""enabled": false,"#);
    let Some(mut board) = Board::new(name, &[fails("a", ""), fails("b", ""), fails("c", ""), late]) else { return };
    let config = fs::read_to_string(board.path("config.json")).unwrap();
    let bounded = config.replacen(r#""device": {"#, r#""device": { "restarts_per_minute": 1, "#, 1);
    fs::write(board.path("config.json"), bounded).unwrap();
    board.up();
    let put_off = |board: &busybox_board::board::Board, name| board.field(name, "next_ms").parse().unwrap_or(0_u64);
    board.until("all of the storm waits", |board| ["a", "b", "c"].iter().all(|name| put_off(board, name) > 30_000));
    assert!(board.coracle(&["upgrade", env!("CARGO_BIN_EXE_coracle")]).status.success(), "{}", board.report());
    // Six minutes are booked. Its first restart is counted and not put off; the next one has its place behind them all.
    board.coracle(&["start", "late"]);
    board.until("its place is behind theirs", |board| put_off(board, "late") > 240_000);
    board.down();
}

#[test]
fn root_what_does_not_die_is_remembered_by_the_new_program() {
    let name = "root_what_does_not_die_is_remembered_by_the_new_program";
    let Some(mut board) = Board::new(name, &[service("web", IDLE, r#""stop": { "timeout": "0s" },"#)]) else { return };
    board.up();
    board.until_running("web");
    let (groups, pid) = (board.groups("web"), board.field("web", "pid"));
    // Frozen in a group that coracle did not make, it dies only once it is thawed.
    let Some(freezer) = groups.iter().find(|dir| dir.join("freezer.state").exists()) else {
        println!("skip: {name}: no v1 freezer");
        return;
    };
    let inner = busybox_board::freeze(freezer, &pid);
    board.says(&["restart", "web"]);
    let next = board.field("web", "pid");
    assert_ne!(next, pid);
    for _ in 0..2 {
        assert!(board.coracle(&["upgrade", env!("CARGO_BIN_EXE_coracle")]).status.success(), "{}", board.report());
        assert_eq!(board.field("web", "pid"), next);
        assert!(!board.report().contains("could be removed"), "{}", board.report());
        assert!(fs::exists(format!("/proc/{pid}")).unwrap() && groups.iter().all(|dir| dir.exists()));
    }
    fs::write(inner.join("freezer.state"), "THAWED").unwrap();
    // Its end is noticed, and nothing of it stays.
    board.until("nothing is left of it", |_| groups.iter().all(|dir| !dir.exists()));
    let left = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("left-");
    let entries = fs::read_dir(board.path("run/services/web")).unwrap().flatten();
    assert!(!entries.into_iter().any(left));
    board.down();
    assert!(!board.path("run").exists());
}

/// A program of another version: `scripts/next` makes it of this source.
const NEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/next/coracle");

/// The numbers that the saved state of `service` has, as the head of its file counts them, and what is behind those that
/// this version knows.
fn state(board: &busybox_board::board::Board, service: &str) -> (usize, Vec<u8>) {
    use coracle::supervisor::saved;
    let bytes = fs::read(board.path("run/services").join(service).join(saved::NAME)).unwrap();
    assert!(saved::decode(&bytes).is_some(), "{bytes:?}");
    (usize::from(bytes[5]), bytes[saved::RECORD_BYTES.min(bytes.len())..].to_vec())
}

/// This version comes after the other one as well as before it: it meets what a later one has kept, and goes back to it.
#[test]
fn root_two_versions_take_over_from_each_other_and_nothing_is_lost() {
    let name = "root_two_versions_take_over_from_each_other_and_nothing_is_lost";
    let port = port();
    let services = services(port);
    if !fs::exists(NEXT).unwrap() {
        return println!("skip: {name}: no {NEXT} (scripts/next)");
    }
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_running("web");
    board.says(&["kill", "--signal", "KILL", "web"]);
    board.until("it runs again", |board| {
        board.field("web", "restarts") == "1" && board.field("web", "state") == "running"
    });
    board.until_running("frozen");
    board.says(&["pause", "frozen"]);
    board.until("it waits", |board| board.field("idle", "state") == "backoff");
    let (pid, own) = (board.field("web", "pid"), env!("CARGO_BIN_EXE_coracle"));
    let known = state(&board, "web").0;
    for (round, program) in [NEXT, own, NEXT, own].into_iter().enumerate() {
        let output = board.coracle(&["upgrade", program]);
        assert!(output.status.success(), "{program}: {}\n{}", said(&output), board.report());
        assert_eq!((board.field("web", "pid"), board.field("web", "restarts")), (pid.clone(), "1".into()));
        assert_eq!((board.field("frozen", "state"), board.field("idle", "state")), ("paused".into(), "backoff".into()));
        // Each writes as many numbers as it knows; what only the later one knows nobody takes away.
        let more = [0x5eed_u64, 7].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let counted = if program == NEXT { known + 2 } else { known };
        for service in ["web", "frozen", "idle"] {
            assert_eq!(state(&board, service), (counted, more.clone()), "{service} in round {round}");
        }
    }
    // They go on as their own.
    board.says(&["unpause", "frozen"]);
    board.says(&["start", "idle"]);
    board.says(&["kill", "--signal", "KILL", "web"]);
    board.until("it runs once more", |board| board.field("web", "restarts") == "2");
    let log = board.says(&["logs", "web"]);
    let lines: Vec<u32> = log.lines().filter_map(|line| line.split_once("out  line ")?.1.parse().ok()).collect();
    let whole = |two: &[u32]| two[1] == two[0] + 1 || two[1] == 1;
    assert!(lines.windows(2).all(whole), "a line is lost: {lines:?}");
    board.down();
}
