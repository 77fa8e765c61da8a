//! What becomes of services that do not live: events and their reasons, crash loops, escalation. Needs root, cgroups and a
//! static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, said, service};

/// A restart policy with these keys.
fn restart(keys: &str) -> String {
    format!("\"restart\": {{ {keys} }},")
}

/// The codes of a service's events, in order.
fn codes(board: &Board, service: &str) -> Vec<String> {
    let json = said(&board.coracle(&["events", "--json", service]));
    let field = |line: &str, key: &str| {
        let rest = line.split_once(&format!("\"{key}\":\"")).map_or("", |(_, rest)| rest);
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let code = |line: &str| match field(line, "reason").as_str() {
        "" => field(line, "event"),
        reason => format!("{}/{reason}", field(line, "event")),
    };
    json.lines().map(code).collect()
}

#[test]
fn root_each_step_is_an_event_with_its_reason_and_is_read_without_a_supervisor() {
    let name = "root_each_step_is_an_event_with_its_reason_and_is_read_without_a_supervisor";
    let fails = service("fails", &["sh", "-c", "echo going down; exit 7"], &restart(r#""policy": "no""#));
    let Some(mut board) = Board::new(name, &[fails, service("web", IDLE, "")]) else { return };
    board.up();
    board.until("its end", |board| board.field("fails", "state") == "failed");
    board.until_logged("web", "up");
    assert_eq!(codes(&board, "fails"), ["running", "failed/exit"]);
    let line = said(&board.coracle(&["events", "--json", "-n1", "fails"]));
    coracle::base::json::check(line.trim().as_bytes(), 2).unwrap();
    assert!(line.contains("\"text\":\"fails has failed and is not started again: exit code 7\""), "{line}");
    let why = board.says(&["why", "fails"]);
    assert!(why.starts_with("fails: failed for ") && why.contains("exit code 7"), "{why}");
    assert!(why.contains("failed/exit") && why.contains("out  going down"), "{why}");
    assert_eq!(board.coracle(&["why", "fials"]).status.code(), Some(4));

    board.kill_supervisor();
    assert_eq!(codes(&board, "fails"), ["running", "failed/exit"]);
    let why = board.says(&["why", "fails"]);
    assert!(why.contains("does not run") && why.contains("failed/exit"), "{why}");
    let why = board.says(&["why", "web"]);
    assert!(why.starts_with("web: running for ") && why.contains("nobody supervises it"), "{why}");
    assert_eq!(board.coracle(&["why", "fials"]).status.code(), Some(4));
}

#[test]
fn root_events_that_were_overwritten_are_counted() {
    let name = "root_events_that_were_overwritten_are_counted";
    let Some(mut board) = Board::new(name, &[service("web", IDLE, "")]) else { return };
    board.up();
    board.until_running("web");
    for _ in 0..400 {
        board.says(&["pause", "web"]);
        board.says(&["unpause", "web"]);
    }
    let events = board.says(&["events"]);
    let (first, rest) = events.split_once('\n').unwrap();
    let lost: usize = first.strip_prefix("--- ").and_then(|text| text.split(' ').next()?.parse().ok()).expect(first);
    assert!(first.contains("earlier events overwritten") && lost > 0, "{first}");
    // Once it has begun, it is paused and goes on 400 times.
    assert_eq!(lost + rest.lines().count(), 801);
    assert!(std::fs::metadata(board.path("run/events")).unwrap().len() < 40_000);
}
