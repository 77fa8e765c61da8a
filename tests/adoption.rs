//! One supervisor after another: what the next one knows of the services that run on, what it hears of those that did
//! not, and what it does about a config that has changed meanwhile. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, service};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

const VOLUME: &str = r#""mounts": [{ "type": "volume", "source": "kept", "target": "/data" }],"#;

fn says(name: &str, attempts: &[&str], more: &str) -> String {
    service(name, &[&["probe", "try"], attempts].concat(), more)
}

/// The file in the volume `kept` that services wait for.
fn make(board: &Board, name: &str) {
    fs::write(board.path("state/volumes/kept").join(name), "").unwrap();
}

/// Fields of `ps` of one service.
fn fields<const N: usize>(board: &Board, service: &str, fields: [&str; N]) -> [String; N] {
    fields.map(|field| board.field(service, field))
}

fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn root_the_next_supervisor_knows_all_that_the_last_one_knew() {
    let name = "root_the_next_supervisor_knows_all_that_the_last_one_knew";
    let notify = format!(r#"{VOLUME} "ready": "notify","#);
    let services = [
        says("ready", &["notify READY=1|STATUS=all is well", "pause 1000000"], &notify),
        says(
            "late",
            &["notify STATUS=loading", "await /data/go", "notify READY=1|STATUS=up", "pause 1000000"],
            &notify,
        ),
        service("after", IDLE, r#""needs": ["late:ready"],"#),
        service(
            "crashes",
            &["sh", "-c", "exit 7"],
            r#""restart": { "policy": "always", "delay": "1h", "max_delay": "1h" },"#,
        ),
        service("frozen", IDLE, ""),
        service("stopped", IDLE, ""),
        service("gave-up", &["sh", "-c", "exit 78"], ""),
        service("once", &["sh", "-c", "echo did it"], r#""type": "oneshot","#),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until("all stand where they are to", |board| {
        board.field("ready", "state") == "running"
            && board.field("late", "reason") == "loading"
            && board.field("crashes", "state") == "backoff"
            && board.field("gave-up", "state") == "failed"
            && board.field("once", "state") == "done"
    });
    board.says(&["pause", "frozen"]);
    board.says(&["stop", "stopped"]);
    let all = ["ready", "late", "after", "crashes", "frozen", "stopped", "gave-up", "once"];
    let keys = ["state", "reason", "pid", "init", "restarts"];
    let before = all.map(|name| fields(&board, name, keys));
    board.kill_supervisor();
    board.up();
    // The inits tell what they know as soon as they are asked.
    board.until("it knows all", |board| {
        all.iter().zip(&before).all(|(name, before)| keys.map(|key| board.field(name, key)) == *before)
    });

    // What is said while nobody listens is heard.
    board.kill_supervisor();
    make(&board, "go");
    std::thread::sleep(Duration::from_millis(300));
    board.up();
    board.until_running("after");
    assert_eq!(fields(&board, "late", ["state", "reason"]), ["running", "up"]);
    assert_eq!(board.field("late", "pid"), before[1][2]);
    board.says(&["unpause", "frozen"]);
    board.says(&["start", "stopped"]);
    assert!(board.logs("once").matches("did it").count() == 1, "a oneshot that was done is done again");
    board.down();
}

#[test]
fn root_a_watchdog_goes_on_under_the_next_supervisor() {
    let name = "root_a_watchdog_goes_on_under_the_next_supervisor";
    let hangs = says("hangs", &["notify WATCHDOG=1", "pause 1000000"], r#""watchdog": "2s","#);
    let Some(mut board) = Board::new(name, &[hangs]) else { return };
    board.up();
    board.until_running("hangs");
    board.kill_supervisor();
    std::thread::sleep(Duration::from_secs(3));
    board.up();
    // It had no supervisor that could have heard it: it has a period from now on.
    assert_eq!(board.field("hangs", "restarts"), "0");
    board.until("its end", |board| board.report().contains("its watchdog expired"));
    board.down();
}

#[test]
fn root_what_was_passed_over_while_hands_were_off_is_not_made_up_for_by_the_next_supervisor() {
    let name = "root_what_was_passed_over_while_hands_were_off_is_not_made_up_for_by_the_next_supervisor";
    let attempts = [
        "notify READY=1",
        "await /data/go",
        "notify WATCHDOG=trigger|STATUS=asked for its end",
        "await /data/more",
        "notify STATUS=more",
        "await /data/again",
        "notify STATUS=once again",
        "await /data/end",
        "notify WATCHDOG=trigger|STATUS=nobody listens",
        "pause 1000000",
    ];
    let Some(mut board) = Board::new(name, &[says("web", &attempts, &format!(r#"{VOLUME} "ready": "notify","#))])
    else {
        return;
    };
    let said = |board: &Board, status: &str| {
        // Its command has the words as well.
        let told = format!(r#""status":"{status}""#);
        board.until("its status", |board| board.says(&["inspect", "web"]).contains(&told));
    };
    board.up();
    board.until_running("web");
    board.says(&["hold", "--for", "1h", "web"]);
    make(&board, "go");
    said(&board, "asked for its end");
    // What came with it has been taken in once the next words have.
    make(&board, "more");
    said(&board, "more");
    board.says(&["hold", "--for", "0", "web"]);
    let pid = board.field("web", "pid");
    board.kill_supervisor();
    board.up();
    said(&board, "more");
    make(&board, "again");
    said(&board, "once again");
    assert_eq!(fields(&board, "web", ["pid", "state"]), [pid, "running".into()], "{}", board.report());
    // What it asks for while there is no supervisor is done by the next one.
    board.kill_supervisor();
    make(&board, "end");
    std::thread::sleep(Duration::from_millis(300));
    board.up();
    board.until("its end", |board| board.report().contains("its watchdog expired"));
    board.down();
}

#[test]
fn root_what_the_config_says_anew_is_done_and_nothing_else_is_touched() {
    let name = "root_what_the_config_says_anew_is_done_and_nothing_else_is_touched";
    let services = [
        service("same", IDLE, ""),
        service("changed", IDLE, ""),
        service("removed", IDLE, ""),
        service("retuned", IDLE, ""),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    for name in ["same", "changed", "removed", "retuned"] {
        board.until_running(name);
    }
    let pid = |board: &Board, name: &str| board.field(name, "pid");
    let (same, changed, removed, retuned) =
        (pid(&board, "same"), pid(&board, "changed"), pid(&board, "removed"), pid(&board, "retuned"));
    let groups = board.groups("removed");
    board.kill_supervisor();
    let services = [
        service("new", IDLE, ""),
        service("retuned", IDLE, r#""restart": { "policy": "no" }, "stop": { "timeout": "3s" },"#),
        service("changed", IDLE, r#""limits": { "memory": "20M" },"#),
        service("same", IDLE, ""),
    ];
    board.configure(&services.join(","));
    board.up();
    board.until_running("new");
    board.until("it is started anew", |board| {
        board.field("changed", "state") == "running" && board.field("changed", "pid") != changed
    });
    assert_eq!((pid(&board, "same"), pid(&board, "retuned")), (same, retuned));
    assert!(board.report().contains("changed is being stopped: its configuration has changed"), "{}", board.report());
    assert!(board.says(&["stats", "changed"]).contains("20M"), "it has its old limits");
    board.until("what is no longer in the config is gone", |_| {
        !alive(&removed) && !groups.iter().any(|group| group.exists())
    });
    assert!(!board.path("run/services/removed").exists());
    let groups = board.groups("changed");
    board.down();
    assert!(!board.path("run").exists() && !groups.iter().any(|group| group.exists()));
}

#[test]
fn root_state_that_cannot_be_read_costs_a_restart_and_a_later_versions_state_does_not() {
    let name = "root_state_that_cannot_be_read_costs_a_restart_and_a_later_versions_state_does_not";
    let services = ["damaged", "later"].map(|name| service(name, IDLE, ""));
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_running("damaged");
    board.until_running("later");
    let (damaged, later) = (board.field("damaged", "pid"), board.field("later", "pid"));
    board.kill_supervisor();
    let services = board.path("run/services");
    let file = |name: &str| {
        let path = services.join(name).join("state");
        fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
    };
    file("damaged").write_all_at(b"????", 300).unwrap();
    // A version that knows more numbers writes them behind the last one.
    let more = [0x5a; 24];
    let state = file("later");
    let length = state.metadata().unwrap().len();
    state.write_all_at(&more, length).unwrap();
    let unknown = board.path("run/services/later/something-of-a-later-version");
    fs::write(&unknown, "x").unwrap();
    board.up();
    board.until("it is started anew", |board| {
        board.field("damaged", "state") == "running" && board.field("damaged", "pid") != damaged
    });
    assert!(board.report().contains("what was written of the state of damaged cannot be read"), "{}", board.report());
    assert_eq!((board.field("later", "pid"), board.field("later", "state")), (later, "running".to_owned()));
    board.says(&["restart", "later"]);
    let mut kept = [0; 24];
    file("later").read_exact_at(&mut kept, length).unwrap();
    assert_eq!(kept, more, "what a later version knows is deleted");
    assert!(unknown.exists());
    board.down();
}

#[test]
fn root_an_init_that_was_killed_while_nobody_looked_is_missed() {
    let name = "root_an_init_that_was_killed_while_nobody_looked_is_missed";
    let Some(mut board) = Board::new(name, &[service("web", IDLE, "")]) else { return };
    board.up();
    board.until_running("web");
    let (init, pid) = (board.field("web", "init"), board.field("web", "pid"));
    board.kill_supervisor();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init.parse().unwrap()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    board.until("its end", |_| !alive(&pid));
    board.up();
    board.until("it runs again", |board| board.field("web", "restarts") == "1");
    assert!(board.report().contains("its init was killed from outside"), "{}", board.report());
    // And one that is killed under a supervisor that is not its parent.
    let init = board.field("web", "init");
    board.kill_supervisor();
    board.up();
    board.until_running("web");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init.parse().unwrap()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    board.until("it runs again", |board| board.field("web", "restarts") == "2");
    board.down();
}

#[test]
fn root_a_supervisor_that_dies_again_and_again_loses_nothing() {
    let name = "root_a_supervisor_that_dies_again_and_again_loses_nothing";
    let deaths: u32 = std::env::var("SUPERVISOR_DEATHS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let chatty = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done";
    let more = format!(r#"{VOLUME} "log": {{ "ring": "512K" }},"#);
    let mut services: Vec<String> =
        (0..20).map(|at| service(&format!("chatty{at}"), &["sh", "-c", chatty], &more)).collect();
    // Each of its ends has a status of its own, and is told once.
    let counts = "n=$(cat /data/n 2>/dev/null || echo 0); n=$((n+1)); echo $n > /data/next; busybox mv /data/next /data/n; sleep 0.2; exit $((n % 50 + 100))";
    let quick = format!(r#"{more} "restart": {{ "policy": "always", "delay": "50ms", "max_delay": "50ms" }},"#);
    services.push(service("ends", &["sh", "-c", counts], &quick));
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until("all run", |board| (0..20).all(|at| board.field(&format!("chatty{at}"), "state") == "running"));
    let pids: Vec<String> = (0..20).map(|at| board.field(&format!("chatty{at}"), "pid")).collect();
    let mut reports = String::new();
    for death in 0..deaths {
        // At every point of a start and of what follows.
        std::thread::sleep(Duration::from_millis(u64::from(death * 37 % 100)));
        board.kill_supervisor();
        reports.push_str(&board.report());
        board.spawn();
    }
    board.until("the last one answers", |board| board.coracle(&["ps"]).status.success());
    for (at, pid) in pids.iter().enumerate() {
        let service = format!("chatty{at}");
        assert_eq!(&board.field(&service, "pid"), pid, "{service} is lost");
        let log = board.says(&["logs", &service]);
        let lines: Vec<u32> = log.lines().filter_map(|line| line.split_once("out  line ")?.1.parse().ok()).collect();
        let first = lines[0];
        assert!(lines.iter().zip(first..).all(|(line, expected)| *line == expected), "{service} has lost a line");
    }
    // Each end was told once, by whichever supervisor; a start that was not written down yet is begun anew.
    board.says(&["stop", "ends"]);
    reports.push_str(&board.report());
    let text = fs::read_to_string(board.path("state/volumes/kept/n")).unwrap();
    let (started, restarts) = (text.trim().parse::<usize>().unwrap(), board.field("ends", "restarts"));
    let anew = reports.matches("it is started anew").count();
    let ends = reports.lines().filter(|line| line.contains("ends ended"));
    let mut statuses: Vec<usize> =
        ends.filter_map(|line| line.split_once("exit code ")?.1.split(';').next()?.parse().ok()).collect();
    let told = statuses.len();
    println!("{deaths} deaths, {started} starts, {restarts} restarts, {told} ends told, {anew} starts begun anew");
    let restarts: usize = restarts.parse().unwrap();
    let (least, most) = (restarts - anew, restarts + 1 + anew);
    let history: Vec<&str> = reports.lines().filter(|line| !line.contains("chatty")).collect();
    let history = history.join("\n");
    assert!((least..=most).contains(&started), "{started} starts, {restarts} restarts, {anew} anew\n{history}");
    // Told and not yet written down is told once more.
    assert!((least..restarts + 3).contains(&told), "{told} ends were told of {restarts}\n{history}");
    statuses.dedup();
    if anew == 0 {
        let expected: Vec<usize> = (1..=statuses.len()).map(|n| n % 50 + 100).collect();
        assert_eq!(statuses, expected, "an exit status is lost");
    }
    let notes = board.logs("ends").matches("ended: ").count();
    assert!(notes.abs_diff(started) <= 1 + anew, "{notes} ends of {started} starts are in the log");
    board.down();
}

#[test]
fn root_what_a_run_directory_keeps_of_another_boot_names_nobody_of_this_one() {
    let name = "root_what_a_run_directory_keeps_of_another_boot_names_nobody_of_this_one";
    let crashes = service("crashes", &["sh", "-c", "exit 7"], r#""restart": { "delay": "50ms", "max_delay": "1h" },"#);
    let Some(mut board) = Board::new(name, &[service("web", IDLE, ""), crashes]) else { return };
    board.up();
    board.until_running("web");
    board.until("it has crashed", |board| board.field("crashes", "restarts").parse::<u32>().unwrap_or(0) > 2);
    let init = nix::unistd::Pid::from_raw(board.field("web", "init").parse().unwrap());
    board.kill_supervisor();
    nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGKILL).unwrap();
    // After the reboot someone else has the number, and began at the same time.
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let process = coracle::supervisor::instance::Process::find(stranger.id() as i32).unwrap();
    let mut record = coracle::supervisor::instance::Instance::read(&board.path("run"), "web").unwrap().unwrap();
    (record.init, record.main) = (process, process);
    record.write(&board.path("run")).unwrap();
    fs::write(board.path("run/boot"), "00000000-0000-0000-0000-000000000000").unwrap();
    board.up();
    board.until_running("web");
    assert_eq!(board.field("web", "restarts"), "0");
    board.until("it crashes as if for the first time", |board| board.report().contains("crashes ended"));
    assert!(board.report().contains("was kept from another boot"), "{}", board.report());
    let restarts: usize = board.field("crashes", "restarts").parse().unwrap();
    assert!(board.report().matches("crashes ended").count() >= restarts, "{restarts} are carried on");
    assert!(stranger.try_wait().unwrap().is_none(), "a process of this boot was ended");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    board.down();
}
