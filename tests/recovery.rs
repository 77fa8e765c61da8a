//! What becomes of services that do not live: events and their reasons, crash loops, escalation. Needs root, cgroups and a
//! static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, board, said, service};

/// A restart policy with these keys.
fn restart(keys: &str) -> String {
    format!("\"restart\": {{ {keys} }},")
}

/// The codes of a service's events, in order.
fn codes(board: &board::Board, service: &str) -> Vec<String> {
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
    assert_eq!(codes(&board, "fails"), ["running", "crash-record", "failed/exit"]);
    let line = said(&board.coracle(&["events", "--json", "-n1", "fails"]));
    coracle::base::json::check(line.trim().as_bytes(), 2).unwrap();
    assert!(line.contains("\"text\":\"fails has failed and is not started again: exit code 7\""), "{line}");
    let why = board.says(&["why", "fails"]);
    assert!(why.starts_with("fails: failed for ") && why.contains("exit code 7"), "{why}");
    assert!(why.contains("failed/exit") && why.contains("out  going down"), "{why}");
    assert_eq!(board.coracle(&["why", "fials"]).status.code(), Some(4));

    board.kill_supervisor();
    assert_eq!(codes(&board, "fails"), ["running", "crash-record", "failed/exit"]);
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

/// The board with one more key under `device`.
fn with_device(board: &Board, key: &str) {
    let path = board.path("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"device\": {", &format!("\"device\": {{ {key},"), 1)).unwrap();
}

#[test]
fn root_a_crash_loop_is_shown_with_its_reason_and_takes_its_dependants_along_once() {
    let name = "root_a_crash_loop_is_shown_with_its_reason_and_takes_its_dependants_along_once";
    let policy = restart(r#""delay": "10ms", "max_delay": "1h", "tries": 2, "within": "1h", "then": "dependants""#);
    let services = [
        service("broker", &["sh", "-c", "sleep 1; exit 3"], &policy),
        service("reader", IDLE, r#""needs": ["broker"],"#),
        service("other", IDLE, ""),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    // At the end of its way it waits for the longest time.
    board.until("the longest wait", |board| board.field("broker", "next_ms").parse().unwrap_or(0) > 60_000u64);
    assert_eq!(board.field("broker", "state"), "crash-loop");
    assert!(board.field("broker", "reason").contains("exit code 3"));
    let why = board.says(&["why", "broker"]);
    assert!(why.contains("broker: crash-loop") && why.contains("exit code 3, starts again in"), "{why}");
    // Two restarts alone, the one with its dependants, two more.
    assert_eq!(board.field("broker", "restarts"), "5");
    let codes = codes(&board, "broker");
    assert_eq!(codes.iter().filter(|code| *code == "escalation/dependants").count(), 1, "{codes:?}");
    assert_eq!(codes.last().unwrap(), "crash-loop/exit");
    assert_eq!(board.field("other", "restarts"), "0");
    assert_eq!(self::codes(&board, "reader").iter().filter(|code| *code == "stopping/escalated").count(), 1);
    assert_eq!((board.field("reader", "restarts"), board.field("reader", "state")), ("1".into(), "running".into()));
    // Someone who starts it gives it a fresh start.
    board.says(&["start", "broker"]);
    let fresh = "broker ended: exit code 3; starts again in 10ms";
    board.until("it ends again", |board| board.report().matches(fresh).count() == 2);
}

#[test]
fn root_a_storm_is_put_off_and_the_first_restart_of_a_healthy_service_is_not() {
    let name = "root_a_storm_is_put_off_and_the_first_restart_of_a_healthy_service_is_not";
    let storm = restart(r#""delay": "10ms", "max_delay": "10ms""#);
    let healthy = service("healthy", IDLE, &restart(r#""delay": "10ms", "max_delay": "10ms""#));
    let fails = |name: &str| service(name, &["sh", "-c", "exit 1"], &storm);
    let Some(mut board) = Board::new(name, &[fails("a"), fails("b"), fails("c"), healthy]) else { return };
    with_device(&board, "\"restarts_per_minute\": 10");
    board.up();
    board.until("the storm is told", |board| board.says(&["events"]).contains("put-off/budget"));
    board.until_running("healthy");
    let booked = |board: &board::Board| ["a", "b", "c"].map(|name| board.field(name, "next_ms").parse().unwrap_or(0));
    board.until("all of the storm waits", |board| booked(board).iter().all(|ms: &u64| *ms > 1000));
    board.says(&["kill", "healthy"]);
    board.until("it runs again", |board| {
        board.field("healthy", "restarts") == "1" && board.field("healthy", "state") == "running"
    });
    let restarts = ["a", "b", "c"].map(|name| board.field(name, "restarts").parse::<u32>().unwrap());
    assert!(restarts.iter().sum::<u32>() < 30, "{restarts:?}");
    assert_eq!(codes(&board, "healthy").iter().filter(|code| *code == "put-off/budget").count(), 0);
}

#[test]
fn root_what_does_not_die_is_named_and_the_next_instance_does_not_wait_for_it() {
    let name = "root_what_does_not_die_is_named_and_the_next_instance_does_not_wait_for_it";
    let web = service("web", IDLE, r#""stop": { "timeout": "0s" },"#);
    let Some(mut board) = Board::new(name, &[web]) else { return };
    board.up();
    board.until_running("web");
    let (groups, pid) = (board.groups("web"), board.field("web", "pid"));
    // On v1 not even SIGKILL ends a process as long as it is frozen; this one is, in a group that coracle did not make.
    let Some(freezer) = groups.iter().find(|dir| dir.join("freezer.state").exists()) else {
        println!("skip: {name}: no v1 freezer");
        return;
    };
    let inner = busybox_board::freeze(freezer, &pid);
    board.says(&["restart", "web"]);
    assert_ne!(board.field("web", "pid"), pid);
    assert!(board.report().contains("web does not die: init "), "{}", board.report());
    assert!(codes(&board, "web").contains(&"given-up/stuck".to_owned()));
    assert!(std::path::Path::new("/proc").join(&pid).exists(), "it has died");
    let fresh = board.groups("web");
    assert!(fresh.iter().all(|dir| !groups.contains(dir) && dir.exists()), "{fresh:?}");

    // The next one ends as any other, and its service can be stopped and started.
    board.says(&["restart", "web"]);
    board.says(&["stop", "web"]);
    board.says(&["start", "web"]);
    // The next supervisor is not its parent and learns of its end all the same.
    board.kill_supervisor();
    board.up();
    board.until_running("web");
    assert!(groups.iter().all(|dir| dir.exists()), "what has not died has no group");
    std::fs::write(inner.join("freezer.state"), "THAWED").unwrap();
    board.until("the end of the first one", |_| !std::path::Path::new("/proc").join(&pid).exists());
    // Where the kernel has no pidfds it is noticed when a child ends.
    board.says(&["restart", "web"]);
    board.says(&["restart", "web"]);
    board.until("nothing is left of it", |_| groups.iter().all(|dir| !dir.exists()));
    board.down();
    assert!(!board.path("run").exists());
}

#[test]
fn root_a_service_whose_group_someone_removed_starts_in_a_new_one() {
    let name = "root_a_service_whose_group_someone_removed_starts_in_a_new_one";
    let falls = service("falls", &["sh", "-c", "echo up; sleep 3; exit 3"], &restart(r#""delay": "5s""#));
    let Some(mut board) = Board::new(name, &[falls]) else { return };
    board.up();
    board.until_running("falls");
    let groups = board.groups("falls");
    assert!(!groups.is_empty());
    board.until("its end", |board| board.field("falls", "state") == "backoff");
    groups.iter().for_each(|group| std::fs::remove_dir(group).unwrap());
    board.until("it starts again", |board| board.logs("falls").matches("up").count() > 1);
    assert!(groups.iter().all(|group| group.exists()), "{groups:?}");
    assert!(board.report().contains("falls ended: could not be started"), "{}", board.report());
    board.down();
}

#[test]
fn root_hands_off_means_no_restart_until_the_time_is_over_and_is_loud() {
    let name = "root_hands_off_means_no_restart_until_the_time_is_over_and_is_loud";
    let keys = format!(r#"{} "watchdog": "1s","#, restart(r#""delay": "10ms""#));
    let web = service("web", IDLE, &restart(r#""delay": "10ms""#));
    // It never pings: its watchdog would abort it.
    let mute = service("mute", IDLE, &keys);
    let Some(mut board) = Board::new(name, &[web, mute]) else { return };
    board.up();
    board.until("mute's watchdog", |board| codes(board, "mute").contains(&"stopping/watchdog".to_owned()));
    board.says(&["hold", "--all", "--for", "1h"]);
    board.until_running("web");
    board.says(&["kill", "web"]);
    board.until("its end", |board| board.field("web", "state") == "backoff");
    let next: u64 = board.field("web", "next_ms").parse().unwrap();
    assert!(next > 3_000_000, "it starts again in {next} ms");
    let ps = said(&board.coracle(&["ps"]));
    assert!(ps.contains("HANDS OFF for ") && ps.contains("DEGRADED: hands off web for "), "{ps}");
    assert!(codes(&board, "web").contains(&"on-hold".to_owned()));
    // What someone asks for is done.
    board.says(&["start", "mute"]);
    let pid = board.field("mute", "pid");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(board.field("mute", "pid"), pid, "its watchdog was not held off");

    board.says(&["hold", "--for", "0", "web"]);
    board.until_running("web");
    board.says(&["hold", "--for", "1s", "mute"]);
    board.until("mute's watchdog again", |board| board.field("mute", "pid") != pid);
    assert!(codes(&board, "mute").contains(&"off-hold".to_owned()));
    assert!(!said(&board.coracle(&["ps"])).contains("HANDS OFF"));
    for (words, code) in [(vec!["hold", "wbe"], 4), (vec!["hold"], 2), (vec!["hold", "--for", "soon", "web"], 2)] {
        assert_eq!(board.coracle(&words).status.code(), Some(code), "{words:?}");
    }
}

#[test]
fn root_a_board_that_is_not_ours_to_reboot_is_named_as_degraded() {
    let name = "root_a_board_that_is_not_ours_to_reboot_is_named_as_degraded";
    let policy = restart(r#""delay": "10ms", "max_delay": "1h", "tries": 1, "within": "1h", "then": "reboot""#);
    let line = service("line", IDLE, r#""lifeline": true,"#);
    let services = [service("bad", &["sh", "-c", "exit 3"], &policy), service("other", IDLE, ""), line];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until("the end of its way", |board| codes(board, "bad").contains(&"escalation/reboot".to_owned()));
    board.until_running("other");
    let steps: Vec<String> = codes(&board, "bad").into_iter().filter(|code| code.starts_with("escalation/")).collect();
    assert_eq!(steps, ["escalation/dependants", "escalation/everything", "escalation/reboot"]);
    assert!(board.says(&["events", "bad"]).contains("not the board's first process and cannot reboot it"));
    let ps = said(&board.coracle(&["ps"]));
    assert!(ps.contains("DEGRADED: bad does not recover, and the board is not rebooted for it"), "{ps}");
    assert_eq!(board.field("bad", "state"), "crash-loop");
    assert_eq!((board.field("other", "restarts"), board.field("line", "restarts")), ("1".into(), "0".into()));
}

#[test]
fn root_an_incident_leaves_one_record_in_the_state_folder_and_a_day_so_many() {
    let name = "root_an_incident_leaves_one_record_in_the_state_folder_and_a_day_so_many";
    let policy = restart(r#""delay": "10ms", "max_delay": "20ms""#);
    let fails = |name: &str| service(name, &["sh", "-c", "echo the last words; exit 7"], &policy);
    let Some(mut board) = Board::new(name, &[fails("a"), fails("b"), fails("c")]) else { return };
    with_device(&board, "\"crash_records\": 2");
    board.up();
    let many = |board: &board::Board, name: &str| board.field(name, "restarts").parse::<u32>().unwrap_or(0) > 3;
    board.until("restarts", |board| ["a", "b", "c"].iter().all(|name| many(board, name)));
    let crashes = board.path("state/crashes");
    let records = || -> Vec<_> {
        let folder = std::fs::read_dir(&crashes).into_iter().flatten();
        folder.map(|entry| entry.unwrap().path()).filter(|path| !path.to_str().unwrap().contains("/.")).collect()
    };
    board.until("two records", |_| records().len() >= 2);
    assert_eq!(records().len(), 2);
    for record in records() {
        let text = std::fs::read_to_string(&record).unwrap();
        for part in ["reason exit code 7\n", "instance 1\n", "memory_limit 16777216\n", "out  the last words\n"] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }
    let written: Vec<String> = ["a", "b", "c"].iter().flat_map(|name| codes(&board, name)).collect();
    let count = |code: &str| written.iter().filter(|written| *written == code).count();
    assert_eq!((count("crash-record"), count("crash-record/budget")), (2, 1), "{written:?}");
    // The day goes on under the next supervisor; what someone starts begins a new incident.
    board.kill_supervisor();
    board.up();
    board.says(&["restart", "a"]);
    let told = |board: &board::Board| codes(board, "a").iter().filter(|code| code.starts_with("crash-record")).count();
    board.until("another incident", |board| told(board) > 1);
    assert_eq!(
        codes(&board, "a").iter().rfind(|code| code.starts_with("crash-record")).unwrap(),
        "crash-record/budget"
    );
    assert_eq!(records().len(), 2);
}

#[test]
fn root_a_crash_record_that_a_full_disk_does_not_take_is_told_and_leaves_nothing() {
    let name = "root_a_crash_record_that_a_full_disk_does_not_take_is_told_and_leaves_nothing";
    let fails = service("fails", &["sh", "-c", "exit 7"], r#""restart": { "policy": "no" },"#);
    let Some(mut board) = Board::new(name, &[fails]) else { return };
    let folder = board.path("state/crashes");
    std::fs::create_dir_all(&folder).unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&folder).status();
    assert!(mount.unwrap().success());
    let unmount = board::Unmount(folder.clone());
    let full = std::fs::write(folder.join("hog"), [1; 128 << 10]);
    assert!(full.is_err());
    board.up();
    let lost = "the crash record of fails could not be written to";
    board.until("it is told", |board| board.report().contains(lost));
    assert!(board.report().contains("No space left on device"), "{}", board.report());
    assert_eq!(codes(&board, "fails").iter().filter(|code| *code == "crash-record/lost").count(), 1);
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["hog"]);
    drop(unmount);
    board.down();
}

/// A file in the place of the kernel's memory that outlives a reset; it goes with the test.
struct Pmsg;

impl Pmsg {
    const PATH: &str = "/dev/pmsg0";

    fn new(test: &str) -> Option<Pmsg> {
        let made = std::fs::File::create_new(Pmsg::PATH);
        if let Err(error) = &made {
            println!("skip: {test}: {} cannot be made: {error}", Pmsg::PATH);
        }
        made.ok().map(|_| Pmsg)
    }
}

impl Drop for Pmsg {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Pmsg::PATH);
    }
}

#[test]
fn root_the_last_lines_of_a_crash_go_where_a_reset_leaves_them_also_when_flash_is_spared() {
    let name = "root_the_last_lines_of_a_crash_go_where_a_reset_leaves_them_also_when_flash_is_spared";
    let fails = service("fails", &["sh", "-c", "echo the last words; exit 7"], r#""restart": { "policy": "no" },"#);
    let Some(mut board) = Board::new(name, &[fails]) else { return };
    let Some(_pmsg) = Pmsg::new(name) else { return };
    with_device(&board, "\"crash_records\": 0");
    board.up();
    // Other boards of this machine may write there, too.
    board.until("the last words", |_| {
        let text = std::fs::read_to_string(Pmsg::PATH).unwrap_or_default();
        text.contains("service fails\n") && text.contains("out  the last words\n")
    });
    assert!(!board.path("state/crashes").exists());
}
