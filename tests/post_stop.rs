//! The command that runs after each end of a service. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, service};
use std::fs;

const NO: &str = r#""restart": { "policy": "no" },"#;
const VOLUME: &str = r#""mounts": [{ "type": "volume", "source": "kept", "target": "/data" }],"#;
const TELL: &str = "echo after $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS";

fn after(script: &str, more: &str) -> String {
    format!(r#""post_stop": ["sh", "-c", {script:?}], {more}"#)
}

fn sh(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

#[test]
fn root_post_stop_runs_after_each_end_and_is_told_how_it_was() {
    let name = "root_post_stop_runs_after_each_end_and_is_told_how_it_was";
    let stop = format!(r#"{NO} "stop": {{ "timeout": "1s" }},"#);
    let mine = "id -u; [ \"$(cat /proc/self/cgroup)\" = \"$(cat /tmp/group)\" ] && echo one group; \
                kill -0 $(cat /tmp/left) 2>/dev/null || echo nothing is left";
    let leaves = "cat /proc/self/cgroup > /tmp/group; sleep 1000000 & echo $! > /tmp/left; exit 3";
    let host = format!(
        r#"{{ "name": "host", "root": "host", "limits": {{ "memory": "16M" }}, {} {NO}
        "command": ["/bin/busybox", "sh", "-c", "sleep 1000000 & exit 4"] }}"#,
        after(TELL, "").replace(r#"["sh""#, r#"["/bin/busybox", "sh""#)
    );
    let services = [
        service("clean", &sh("exit 0"), &after(TELL, NO)),
        service("code", &sh(leaves), &after(&format!("{TELL}; {mine}"), &format!(r#"{NO} "user": "1000","#))),
        service("signal", &sh("kill -9 $$"), &after(TELL, NO)),
        service("stopped", IDLE, &after(TELL, &stop)),
        service("stubborn", &sh("trap '' TERM; echo up; while :; do sleep 1; done"), &after(TELL, &stop)),
        // All that it can end besides itself.
        service("alone", &sh("trap '' TERM; kill -15 -1; exit 6"), &after(TELL, NO)),
        host,
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_logged("clean", "after success exited 0");
    board.until_logged("code", "after exit-code exited 3");
    for line in [" 1000", "one group", "nothing is left"] {
        board.until_logged("code", line);
    }
    board.until_logged("signal", "after signal killed KILL");
    board.until_logged("alone", "after exit-code exited 6");
    board.until_logged("host", "after exit-code exited 4");
    for service in ["stopped", "stubborn"] {
        board.until_logged(service, "up");
        board.says(&["stop", service]);
        assert_eq!(board.field(service, "state"), "stopped");
    }
    assert!(board.logs("stopped").contains("after success killed TERM"), "{}", board.logs("stopped"));
    assert!(board.logs("stubborn").contains("after killed killed KILL"), "{}", board.logs("stubborn"));
    let config = board.path("config.json").to_string_lossy().into_owned();
    assert!(board.says(&["inspect", "--steps", "-c", &config, "clean"]).contains("post-stop"));
    board.down();
}

#[test]
fn root_the_kill_of_a_stubborn_service_spares_its_post_stop() {
    // Both the supervisor and its init killed the group, and the later kill hit what had just come into it.
    let name = "root_the_kill_of_a_stubborn_service_spares_its_post_stop";
    let more = format!(r#"{NO} "stop": {{ "timeout": "300ms" }},"#);
    let script = "trap '' TERM; echo up; while :; do sleep 1; done";
    let names: Vec<String> = (0..8).map(|number| format!("stubborn{number}")).collect();
    let one = |name: &String| service(name, &sh(script), &after("echo after; sleep 0.02; echo done", &more));
    let Some(mut board) = Board::new(name, &names.iter().map(one).collect::<Vec<_>>()) else { return };
    board.up();
    for round in 1..=8 {
        for name in &names {
            board.until("another start", |board| board.logs(name).matches("out  up").count() == round);
        }
        let stops: Vec<_> = names.iter().map(|name| board.command(&["stop", name]).spawn().unwrap()).collect();
        for mut stop in stops {
            assert!(stop.wait().unwrap().success(), "round {round}");
        }
        for name in &names {
            let log = board.logs(name);
            assert_eq!(log.matches("out  done").count(), round, "{log}");
            board.says(&["start", name]);
        }
    }
    board.down();
}

#[test]
fn root_what_post_stop_does_wrong_is_shown_and_changes_nothing() {
    let name = "root_what_post_stop_does_wrong_is_shown_and_changes_nothing";
    let again = r#""restart": { "policy": "always", "delay": "10ms", "max_delay": "10ms", "tries": 1000 }, "stop": { "timeout": "300ms" },"#;
    let services = [
        service("bad", &sh("echo run; exit 3"), &after("echo no; exit 7", again)),
        service("slow", &sh("echo run; exit 3"), &after("sleep 1000000", again)),
        service("none", &sh("echo run; exit 3"), &format!(r#""post_stop": ["/bin/none"], {again}"#)),
        service("last", IDLE, &after("trap '' TERM; sleep 1000000", again)),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    for (service, why) in [
        ("bad", "the post_stop of bad failed: exit code 7"),
        ("slow", "the post_stop of slow failed: it took longer than stop.timeout and was killed"),
        ("none", "the post_stop of none failed: exec: /bin/none: No such file or directory"),
    ] {
        board.until(service, |board| board.logs(service).matches("run").count() > 2);
        assert!(board.logs(service).contains("post_stop failed: "), "{}", board.logs(service));
        let events = board.says(&["events", service]);
        assert!(events.contains(why) && events.contains("post-stop/failed"), "{events}");
        assert!(board.says(&["why", service]).contains("exit code 3"), "its own end is the reason");
    }
    board.until_logged("last", "up");
    board.down();
}

#[test]
fn root_post_stop_needs_no_supervisor() {
    let name = "root_post_stop_needs_no_supervisor";
    let waits = "echo up; while ! [ -e /data/go ]; do sleep 1; done; exit 5";
    let script = "echo $SERVICE_RESULT $EXIT_STATUS > /data/after; while ! [ -e /data/end ]; do sleep 1; done";
    let services =
        [service("waits", &sh(waits), &after(script, &format!("{NO} {VOLUME} \"stop\": {{ \"timeout\": \"1h\" }},")))];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_logged("waits", "up");
    board.kill_supervisor();
    let kept = board.path("state/volumes/kept");
    fs::write(kept.join("go"), "").unwrap();
    board.until("its post_stop", |_| fs::read_to_string(kept.join("after")).is_ok_and(|text| text == "exit-code 5\n"));
    // The next one comes while it runs, and waits for it.
    board.up();
    board.until("its end", |board| board.field("waits", "reason") == "exit code 5");
    assert_eq!(board.field("waits", "state"), "stopping");
    fs::write(kept.join("end"), "").unwrap();
    board.until("its end", |board| board.field("waits", "state") == "failed");
    assert_eq!(board.field("waits", "reason"), "exit code 5");
    board.down();
}

#[test]
fn root_down_leaves_the_kill_of_a_stubborn_service_to_its_init_where_no_supervisor_lives() {
    // A kill of the whole group could hit the command that had just come into it.
    let name = "root_down_leaves_the_kill_of_a_stubborn_service_to_its_init_where_no_supervisor_lives";
    let more = format!(r#"{NO} {VOLUME} "stop": {{ "timeout": "200ms" }},"#);
    let script = "echo $SERVICE_RESULT > /data/after; sleep 0.1; echo done >> /data/after";
    let stubborn = sh("trap '' TERM; echo up; while :; do sleep 1; done");
    let Some(mut board) = Board::new(name, &[service("stubborn", &stubborn, &after(script, &more))]) else { return };
    board.up();
    board.until_logged("stubborn", "up");
    board.kill_supervisor();
    board.says(&["down"]);
    assert_eq!(fs::read_to_string(board.path("state/volumes/kept/after")).unwrap(), "killed\ndone\n");
}
