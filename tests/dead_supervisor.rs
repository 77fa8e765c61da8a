//! The supervisor killed: its services run on, whoever looks still sees them, and the next one goes on with them.
//! Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, said, service};
use std::path::Path;

#[test]
fn root_services_run_on_and_are_seen_without_their_supervisor() {
    let name = "root_services_run_on_and_are_seen_without_their_supervisor";
    let count = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"];
    let more = r#""mounts": [{ "type": "volume", "source": "kept", "target": "/data" }],"#;
    let ends =
        service("ends", &["sh", "-c", "echo waits; while [ ! -e /data/end ]; do sleep 0.05; done; exit 5"], more);
    let Some(mut board) = Board::new(name, &[service("count", &count, more), ends]) else { return };
    board.up();
    board.until_logged("count", "line 5");
    board.until_logged("ends", "waits");
    let (pid, init, ending) = (board.field("count", "pid"), board.field("count", "init"), board.field("ends", "init"));
    let groups = board.groups("count");
    board.kill_supervisor();

    let lines = |board: &busybox_board::board::Board| -> Vec<u32> {
        let log = board.says(&["logs", "count"]);
        log.lines().filter_map(|line| line.split_once("out  line ")?.1.parse().ok()).collect()
    };
    let before = lines(&board).len();
    while lines(&board).len() < before + 30 {
        assert!(Path::new("/proc").join(&pid).exists(), "it died with its supervisor");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let all = lines(&board);
    let expected: Vec<u32> = (all[0]..all[0] + all.len() as u32).collect();
    assert_eq!(all, expected, "a line is lost");

    assert_eq!(board.coracle(&["exec", "count", "sh", "-c", "exit 9"]).status.code(), Some(9));
    assert!(board.says(&["stats", "count"]).contains("16M"));
    assert!(board.says(&["top", "count"]).contains("while"), "{}", board.says(&["top", "count"]));
    assert!(said(&board.coracle(&["inspect", "count"])).contains("\"supervised\":false"));
    let ps = board.coracle(&["ps"]);
    assert!(said(&ps).contains("coracle up"), "{}", said(&ps));
    assert_eq!(board.coracle(&["stop", "count"]).status.code(), Some(3));
    // What ends meanwhile leaves its exit status behind.
    std::fs::write(board.path("state/volumes/kept/end"), "").unwrap();
    board.until("its end", |_| !Path::new("/proc").join(&ending).exists());
    assert!(board.logs("ends").contains("ended: exit code 5"));

    // The next one goes on with the one, and learns how the other has ended.
    board.up();
    board.until("how it ended is told", |board| board.report().contains("ends ended: exit code 5; starts again"));
    assert_eq!((board.field("count", "pid"), board.field("count", "init")), (pid.clone(), init));
    assert_eq!(board.field("count", "state"), "running");
    assert_eq!(board.field("count", "restarts"), "0");
    board.until("it runs again", |board| board.field("ends", "restarts") == "1");
    let now = lines(&board).len();
    board.until("more lines", |board| lines(board).len() > now + 5);
    let all = lines(&board);
    let expected: Vec<u32> = (all[0]..all[0] + all.len() as u32).collect();
    assert_eq!(all, expected, "a line is lost");
    assert!(board.coracle(&["stop", "count"]).status.success(), "{}", board.report());
    assert!(!Path::new("/proc").join(&pid).exists());
    board.down();
    let left: Vec<_> = groups.iter().filter(|dir| dir.exists() || dir.parent().is_some_and(Path::exists)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!board.path("run").exists());
}

#[test]
fn root_only_root_and_the_supervisors_user_may_control_it() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let name = "root_only_root_and_the_supervisors_user_may_control_it";
    let Some(mut board) = Board::new(name, &[service("web", busybox_board::IDLE, "")]) else { return };
    board.up();
    board.until_logged("web", "up");
    // The file's permissions are lifted, so that what refuses is the look at who is asking (SO_PEERCRED).
    let open = std::fs::Permissions::from_mode(0o777);
    for path in ["", "run", "run/control.sock"] {
        std::fs::set_permissions(board.path(path), open.clone()).unwrap();
    }
    let program = board.path("coracle");
    std::fs::copy(env!("CARGO_BIN_EXE_coracle"), &program).unwrap();
    let pid = board.field("web", "pid");
    for words in [&["ps"][..], &["stop", "web"], &["down"]] {
        let mut command = std::process::Command::new(&program);
        command.arg(words[0]).arg("--run-dir").arg(board.path("run")).args(&words[1..]).uid(12345).gid(12345);
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{words:?}");
        assert!(said(&output).contains("only root and the supervisor's own user"), "{words:?}: {}", said(&output));
    }
    assert_eq!(board.field("web", "pid"), pid);
}

#[test]
fn root_down_goes_on_where_the_one_before_was_cut_short() {
    // A folder that was gone already was an error, for good.
    let Some(mut board) =
        Board::new("root_down_goes_on_where_the_one_before_was_cut_short", &[service("count", IDLE, "")])
    else {
        return;
    };
    board.up();
    board.until_running("count");
    let (init, groups) = (board.field("count", "init"), board.groups("count"));
    board.kill_supervisor();
    assert!(std::process::Command::new("kill").args(["-9", &init]).status().unwrap().success());
    board.until("its end", |_| !Path::new("/proc").join(&init).exists());
    let freezer = groups.iter().find(|group| group.to_string_lossy().contains("freezer")).unwrap_or(&groups[0]);
    board.until("an empty group", |_| std::fs::remove_dir(freezer).is_ok());
    let down = board.coracle(&["down"]);
    assert_eq!((down.status.code(), said(&down).as_str()), (Some(0), ""));
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}
