//! What the supervisor takes from its heap once everything runs: nothing for what goes on all the time, and a known number of
//! blocks for what happens now and then. `coracle inspect device` shows the count. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, service};
use std::time::Duration;

/// Allocations since everything ran, as they were before this very question.
fn count(board: &Board) -> i64 {
    let device = board.says(&["inspect", "device"]);
    let number = device.split("\"allocations\":").nth(1).unwrap().split(',').next().unwrap();
    number.trim().parse().unwrap()
}

/// Allocations that happen while `work` does, beyond those of the question itself, which takes the same each time.
fn during(board: &Board, work: impl Fn()) -> i64 {
    // What is kept from the first time on is there by now.
    work();
    let counts: Vec<i64> = (0..6).map(|_| count(board)).collect();
    let question = counts[5] - counts[4];
    assert_eq!(question, counts[4] - counts[3], "what a question takes varies: {counts:?}");
    work();
    count(board) - counts[5] - question
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
    println!("measured: {taken} allocations by log lines, pings, messages and checks in 2 s");
    assert_eq!(taken, 0, "{}", board.says(&["ps"]));
}

#[test]
fn root_requests_and_restarts_allocate_no_more_than_is_known() {
    let name = "root_requests_and_restarts_allocate_no_more_than_is_known";
    let Some(mut board) = Board::new(name, &[service("idle", &["sleep", "1000000"], "")]) else { return };
    board.up();
    let mut told = String::new();
    for (words, most) in [
        (&["ps"][..], 0),
        (&["stats"], 0),
        (&["events"], 0),
        (&["kill", "--signal", "CONT", "idle"], 1),
        (&["inspect", "idle"], 100),
        (&["restart", "idle"], 400),
    ] {
        let taken = during(&board, || drop(board.says(words)));
        told += &format!(" {}: {taken},", words[0]);
        assert!(taken <= most, "{words:?}: {taken} allocations");
    }
    println!("measured: allocations of one{}", told.trim_end_matches(','));
}

#[test]
fn root_a_hundred_restarts_take_a_hundred_times_one() {
    let name = "root_a_hundred_restarts_take_a_hundred_times_one";
    let fast = r#""restart": { "delay": "10ms", "max_delay": "10ms" },"#;
    let Some(mut board) = Board::new(name, &[service("crash", &["sh", "-c", "sleep 0.02; exit 1"], fast)]) else {
        return;
    };
    board.up();
    let restarts = |board: &busybox_board::board::Board| board.field("crash", "restarts").parse::<i64>().unwrap();
    let (first, before) = (restarts(&board), count(&board));
    board.until("it has restarted a hundred times", |board| restarts(board) >= first + 100);
    let (after, last) = (count(&board), restarts(&board));
    let each = (after - before) / (last - first);
    println!("measured: {each} allocations a restart, with what asking for it takes");
    assert!(each <= 1000, "{each} a restart");
}
