//! What the supervisor takes from its heap once everything runs: nothing, whatever goes on and whatever is asked of it. What a
//! start or a question needs comes from its workspace, which is empty again afterwards. `coracle inspect device` shows the
//! counts. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, service};
use std::time::Duration;

/// What the supervisor has taken, as it was before this very question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    /// Blocks from the heap, since everything ran.
    heap: i64,
    /// Blocks from the workspace.
    passing: i64,
}

/// Asks for it. Nothing of the workspace may be in use now.
fn taken(board: &Board) -> Taken {
    let device = board.says(&["inspect", "device"]);
    let number = |key: &str| {
        let text = device.split(&format!("\"{key}\":")).nth(1).unwrap().trim_start();
        text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<i64>().unwrap()
    };
    assert_eq!(number("held"), 0, "the workspace is not empty: {device}");
    assert!(number("most") < number("bytes") / 2, "the workspace is too small: {device}");
    Taken { heap: number("allocations"), passing: number("blocks") }
}

/// What is taken while `work` is done, beyond what the question itself takes, which is the same each time.
fn during(board: &Board, work: impl Fn()) -> Taken {
    // What is kept from the first time on is there by now.
    work();
    let before: Vec<Taken> = (0..6).map(|_| taken(board)).collect();
    let question = |at: usize| before[at].passing - before[at - 1].passing;
    assert_eq!(question(5), question(4), "what a question takes varies: {before:?}");
    work();
    let after = taken(board);
    let heap = after.heap - before[5].heap;
    assert_eq!(heap, 0, "blocks from the heap\n{}", board.report());
    Taken { heap, passing: after.passing - before[5].passing - question(5) }
}

fn pause() {
    std::thread::sleep(Duration::from_secs(2));
}

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn root_what_goes_on_all_the_time_allocates_nothing() {
    let name = "root_what_goes_on_all_the_time_allocates_nothing";
    let (tcp, http) = (port(), port());
    let check = |asked: &str| format!(r#""network": "host", "health": {{ {asked}, "interval": "100ms" }},"#);
    let one = |asked: &str, role: &str| format!(r#"{{ {asked}, "role": "{role}", "interval": "100ms" }}"#);
    let (began, lives) = (one(r#""file": "/tmp/x""#, "startup"), one(&format!(r#""tcp": "127.0.0.1:{tcp}""#), "live"));
    let ready = one(&format!(r#""http": "http://127.0.0.1:{http}/""#), "ready");
    let all = format!(r#""network": "host", "ready": "health", "health": [ {began}, {lives}, {ready} ],"#);
    let services = [
        service("chatty", &["sh", "-c", "while :; do echo line; done"], ""),
        service(
            "pings",
            &["probe", "try", "notify READY=1", "pings 20 1000000"],
            r#""ready": "notify", "watchdog": "9s","#,
        ),
        service(
            "says",
            &["sh", "-c", "while :; do probe try 'notify-flood 50 STATUS=x'; done"],
            r#""notify_access": "all","#,
        ),
        service("file", &["sh", "-c", "while :; do echo x > /tmp/x; done"], &check(r#""file": "/tmp/x""#)),
        service(
            "tcp",
            &["probe", "try", &format!("serve 127.0.0.1:{tcp}")],
            &check(&format!(r#""tcp": "127.0.0.1:{tcp}""#)),
        ),
        service(
            "http",
            &["probe", "try", &format!("reply 127.0.0.1:{http} HTTP/1.1 200 OK")],
            &check(&format!(r#""http": "http://127.0.0.1:{http}/""#)),
        ),
        service("all", &["sh", "-c", "while :; do echo x > /tmp/x; done"], &all),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    for checked in ["file", "tcp", "http", "all"] {
        board.until(&format!("{checked} is healthy"), |board| board.field(checked, "state").contains("running"));
    }
    board.until_logged("chatty", "line");
    let taken = during(&board, pause);
    assert_eq!(taken.passing, 0, "blocks for log lines, pings, messages and checks\n{}", board.says(&["ps"]));
}

#[test]
fn root_nothing_that_is_asked_for_takes_from_the_heap() {
    let name = "root_nothing_that_is_asked_for_takes_from_the_heap";
    let ask = r#""health": { "exec": ["echo"], "interval": "100ms" }, "restart": { "delay": "10ms" },"#;
    let services = [
        service("idle", &["sleep", "1000000"], ""),
        service("asked", &["sleep", "1000000"], ask),
        service("needs", &["sleep", "1000000"], r#""needs": ["idle"], "pre_start": ["echo"], "post_stop": ["echo"],"#),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    let running = |board: &busybox_board::board::Board| {
        ["idle", "asked", "needs"].iter().all(|service| board.field(service, "state") == "running")
    };
    board.until("all of it runs", running);
    assert_eq!(taken(&board).heap, 0, "blocks from the heap by the first question\n{}", board.report());
    let mut told = String::new();
    for requests in [
        &["ps"][..],
        &["stats"],
        &["events"],
        &["logs idle"],
        &["why idle"],
        &["inspect idle"],
        &["inspect --steps idle"],
        &["kill --signal CONT idle"],
        &["pause idle", "unpause idle"],
        &["hold idle --for 1m", "hold idle --for 0s"],
        &["stop needs", "start needs"],
        &["stop asked", "start asked"],
        &["restart needs"],
        &["restart asked"],
        &["restart idle"],
    ] {
        let passing = during(&board, || {
            for request in requests {
                board.says(&request.split(' ').collect::<Vec<_>>());
            }
            board.until("all of it runs", running);
        });
        told += &format!(" {}: {},", requests.join(", "), passing.passing);
    }
    println!("measured: blocks of the workspace for{}", told.trim_end_matches(','));
}

#[test]
fn root_a_hundred_restarts_take_nothing_from_the_heap() {
    let name = "root_a_hundred_restarts_take_nothing_from_the_heap";
    let fast = r#""restart": { "delay": "10ms", "max_delay": "10ms" },"#;
    let crash = |name: &str| service(name, &["sh", "-c", "sleep 0.02; exit 1"], fast);
    let Some(mut board) = Board::new(name, &[crash("one"), crash("other")]) else { return };
    board.up();
    let restarts = |board: &busybox_board::board::Board| {
        ["one", "other"].map(|service| board.field(service, "restarts").parse::<i64>().unwrap()).iter().sum::<i64>()
    };
    let first = restarts(&board);
    board.until("they have restarted a hundred times", |board| restarts(board) >= first + 100);
    board.says(&["stop", "one", "other"]);
    assert_eq!(taken(&board).heap, 0, "blocks from the heap\n{}", board.report());
}

#[test]
fn root_what_fails_or_waits_again_and_again_takes_nothing_from_the_heap() {
    let name = "root_what_fails_or_waits_again_and_again_takes_nothing_from_the_heap";
    let dir = tempfile::tempdir().unwrap();
    let files = [dir.path().join("one"), dir.path().join("other")];
    let fast = r#""restart": { "delay": "10ms", "max_delay": "10ms" },"#;
    let waits = |name: &str, file: &std::path::Path| {
        service(name, &["sleep", "1000000"], &format!(r#""needs": ["path:{}"],"#, file.display()))
    };
    let services = [service("absent", &["/no/such/program"], fast), waits("one", &files[0]), waits("other", &files[1])];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    let restarts = |board: &busybox_board::board::Board| board.field("absent", "restarts").parse::<i64>().unwrap();
    let round = || {
        files.iter().for_each(|file| std::fs::write(file, "").unwrap());
        ["one", "other"].iter().for_each(|service| board.until_running(service));
        files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
        for service in ["one", "other"] {
            board.says(&["stop", service]);
            // It waits for its file, and whoever asks is told so.
            board.coracle(&["start", service]);
            board.until("it waits", |board| board.field(service, "state") == "waiting");
        }
    };
    // What is kept from a service's first start on is there afterwards.
    round();
    board.says(&["stop", "absent"]);
    let before = taken(&board).heap;
    // It fails again, and goes on.
    board.coracle(&["start", "absent"]);
    let first = restarts(&board);
    board.until("a start has failed a hundred times", |board| restarts(board) >= first + 100);
    assert!(board.says(&["why", "absent"]).contains("/no/such/program"), "{}", board.says(&["why", "absent"]));
    (0..5).for_each(|_| round());
    board.says(&["stop", "absent"]);
    assert_eq!(taken(&board).heap - before, 0, "blocks from the heap\n{}", board.report());
}
