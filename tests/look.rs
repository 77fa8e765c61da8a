//! What a person sees: `inspect`, `stats`, the supervisor's own log. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, probe, said, service};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

#[test]
fn root_inspect_shows_the_steps_of_a_start() {
    let name = "root_inspect_shows_the_steps_of_a_start";
    let more = r#""user": "app", "mounts": [{ "type": "volume", "source": "kept", "target": "/data" }],"#;
    let Some(mut board) = Board::new(name, &[service("web", IDLE, more)]) else { return };
    let config = board.path("config.json");
    let early = board.coracle(&["inspect", "--steps", "-c", config.to_str().unwrap(), "web"]);
    // A folder is used in place: nothing has to be unpacked before.
    assert!(said(&early).contains("exec "), "{}", said(&early));
    board.up();
    board.until_logged("web", "up");
    let running = board.says(&["inspect", "--steps", "web"]);
    let from_file = board.says(&["inspect", "--steps", "-c", config.to_str().unwrap(), "web"]);
    for text in [&running, &from_file] {
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in\n{text}"));
        assert!(
            at("clone ") < at("propagation ") && at("pivot ") < at("fork ") && at("fork ") < at("seccomp "),
            "{text}"
        );
        assert!(text.contains("state/volumes/kept on /data read-write"), "{text}");
        assert!(text.contains("user 1000, group 1001"), "{text}");
        assert!(text.lines().last().unwrap().starts_with("exec "), "{text}");
        assert!(
            text.lines().all(|line| coracle::sandbox::stage::Stage::ALL.iter().any(|s| line.starts_with(s.word())))
        );
    }
    assert!(running.contains("cgroup-join") && !from_file.contains("cgroup-join"), "{running}");
    assert!(board.coracle(&["stop", "web"]).status.success());
    assert!(said(&board.coracle(&["inspect", "--steps", "web"])).contains("-c FILE web"));
    let typo = board.coracle(&["inspect", "--steps", "-c", config.to_str().unwrap(), "wbe"]);
    assert_eq!(typo.status.code(), Some(4));
    assert!(said(&typo).contains("did you mean 'web'?"), "{}", said(&typo));
}

#[test]
fn root_inspect_device_shows_the_board() {
    let Some(mut board) = Board::new("root_inspect_device_shows_the_board", &[service("web", IDLE, "")]) else {
        return;
    };
    board.up();
    let text = board.says(&["inspect", "device"]);
    coracle::base::json::check(text.trim().as_bytes(), 8).unwrap();
    let state = board.path("state").display().to_string();
    for part in
        [state.as_str(), "\"memory_sum\":{\"limits\":\"16M\"", "\"controllers\":[{\"name\":\"memory\"", "linux/"]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn root_stats_go_on_each_second_and_see_what_starts_later() {
    let name = "root_stats_go_on_each_second_and_see_what_starts_later";
    let services = [service("web", IDLE, ""), service("late", IDLE, r#""enabled": false,"#)];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_logged("web", "up");
    let mut follow = board.command(&["stats", "-f", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.starts_with("[{\"name\":\"web\"") && !first.contains("late"), "{first}");
    board.says(&["start", "late"]);
    let later = lines.by_ref().take(30).find(|line| line.contains("\"late\""));
    assert!(later.is_some_and(|line| line.contains("\"web\"") && line.ends_with(']')));
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn root_the_supervisors_own_log_stays_in_the_background_and_over_its_death() {
    let name = "root_the_supervisors_own_log_stays_in_the_background_and_over_its_death";
    let Some(mut board) = Board::new(name, &[service("crash", &["sh", "-c", "exit 3"], "")]) else { return };
    let none = board.coracle(&["logs", "--supervisor"]);
    assert_eq!(none.status.code(), Some(1), "{}", said(&none));
    let config = board.path("config.json");
    let up = board.command(&["up", "-d", "-c"]).arg(&config).status().unwrap();
    assert!(up.success());
    board.until("its own log", |board| board.says(&["logs", "--supervisor"]).contains("crash ended: exit code 3"));
    let json = board.says(&["logs", "--supervisor", "--json", "-n", "1"]);
    assert!(json.starts_with("{\"service\":\"(supervisor)\""), "{json}");
    assert_eq!(board.coracle(&["logs", "--supervisor", "crash"]).status.code(), Some(2));
    // The next supervisor in the same place goes on with it.
    let device = board.says(&["inspect", "device"]);
    let pid = device.split("\"supervisor\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    board.until("its end", |board| board.coracle(&["ps"]).status.code() == Some(3));
    board.up();
    let log = board.says(&["logs", "--supervisor"]);
    assert!(log.contains("crash ended: exit code 3"), "{log}");
    board.says(&["down"]);
    assert!(!board.path("run").exists());
}

#[test]
fn root_lines_that_the_log_file_does_not_take_are_told_in_the_log() {
    let name = "root_lines_that_the_log_file_does_not_take_are_told_in_the_log";
    let more = r#""log": { "file": "64K" },"#;
    let script = ["sh", "-c", "echo first; sleep 1; seq 1 20; exec sleep 1000"];
    let Some(mut board) = Board::new(name, &[service("web", &script, more)]) else { return };
    std::fs::create_dir_all(board.path("state/logs")).unwrap();
    let full = board.path("state/logs");
    let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=4k", "none"]).arg(&full).status();
    assert!(mount.unwrap().success());
    let unmount = busybox_board::board::Unmount(full.clone());
    std::fs::write(full.join("ballast"), vec![b'x'; 3000]).unwrap();
    board.up();
    board.until_logged("web", "lines that the log file did not take so far: 1");
    board.until_logged("web", "out  20");
    board.until("a second note", |board| board.says(&["logs", "web"]).matches("did not take so far").count() > 1);
    board.says(&["down"]);
    drop(unmount);
}

#[test]
fn root_nobody_inside_sees_the_words_of_coracle() {
    let name = "root_nobody_inside_sees_the_words_of_coracle";
    let Some(mut board) = Board::new(name, &[service("web", IDLE, "")]) else { return };
    board.up();
    board.until_logged("web", "up");
    let words = ["exec", "web", "probe", "try", "read /proc/1/cmdline", "read /proc/1/comm", "read /proc/1/environ"];
    let text = board.says(&words);
    assert_eq!(probe::value(&text, "read /proc/1/cmdline").trim_end_matches('\0'), "ok coracle-init");
    assert_eq!(probe::value(&text, "read /proc/1/comm"), "ok coracle-init");
    assert_eq!(probe::value(&text, "read /proc/1/environ"), "EACCES");
    // The supervisor keeps its own.
    let device = board.says(&["inspect", "device"]);
    let pid = device.split("\"supervisor\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let own = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(String::from_utf8_lossy(&own).contains("config.json"), "{own:?}");
}

/// Everything in a folder with its size and its last change.
fn changes(folder: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let meta = entry.metadata().unwrap();
        found.push((entry.path(), meta.len(), meta.ctime(), meta.ctime_nsec()));
        if meta.is_dir() {
            found.extend(changes(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn root_what_goes_on_all_the_time_writes_nothing_to_the_boards_flash() {
    let name = "root_what_goes_on_all_the_time_writes_nothing_to_the_boards_flash";
    let quick = r#""restart": { "delay": "10ms", "max_delay": "100ms", "tries": 3, "within": "1m" },"#;
    let volume = r#""mounts": [{ "type": "volume", "source": "kept", "target": "/data" }],"#;
    let asked =
        format!(r#"{volume} "watchdog": "30s", "health": {{ "exec": ["probe", "exit"], "interval": "100ms" }},"#);
    let services = [
        service("fails", &["sh", "-c", "echo going down; exit 7"], quick),
        service("talks", &["probe", "try", "pings 20 1000000"], &asked),
        service("says", &["sh", "-c", "while :; do echo line; sleep 0.05; done"], ""),
        service("timed", &["echo", "now"], r#""type": "oneshot", "timer": { "every": "1s" },"#),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    let number = |board: &busybox_board::board::Board, key: &str| board.field("fails", key).parse::<u32>().unwrap_or(0);
    // The incident has begun, and the crash loop too.
    board.until("its crash record", |board| board.path("state/crashes/000001-fails").exists());
    board.until("a crash loop", |board| board.field("fails", "state") == "crash-loop");
    let state = board.path("state");
    let before = changes(&state);
    assert!(before.iter().any(|(path, ..)| path.ends_with("volumes/kept")), "{before:?}");
    let restarts = number(&board, "restarts");
    board.until_logged("timed", "now");
    board.until("twenty restarts more", |board| {
        board.says(&["ps"]);
        board.says(&["stats"]);
        number(board, "restarts") > restarts + 20
    });
    board.says(&["hold", "--for", "1s", "talks"]);
    board.says(&["restart", "says"]);
    board.kill_supervisor();
    board.up();
    board.until("it goes on", |board| number(board, "restarts") > restarts + 25);
    let after = changes(&state);
    assert_eq!(before, after);
    board.down();
}
