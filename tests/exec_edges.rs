//! `coracle exec` where something is in its way. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, said, service};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

#[test]
fn root_exec_passes_signals_on() {
    let Some(mut board) = Board::new("root_exec_passes_signals_on", &[service("web", IDLE, "")]) else { return };
    board.up();
    board.until_logged("web", "up");
    for (signal, word, code) in
        [(Signal::SIGUSR1, "USR1", 9), (Signal::SIGTERM, "TERM", 10), (Signal::SIGINT, "INT", 11)]
    {
        let script = format!("trap 'echo got; exit {code}' {word}; echo ready; while :; do sleep 0.05; done");
        let mut child = board.command(&["exec", "web", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(lines.next().as_deref(), Some("got"), "{word}");
        assert_eq!(child.wait().unwrap().code(), Some(code), "{word}");
    }
    let output = board.coracle(&["exec", "web", "sh", "-c", "kill -40 $$"]);
    assert_eq!(output.status.code(), Some(168), "{}", said(&output));
}

#[test]
fn root_exec_takes_users_from_the_image() {
    let Some(mut board) = Board::new("root_exec_takes_users_from_the_image", &[service("web", IDLE, "")]) else {
        return;
    };
    board.up();
    board.until_logged("web", "up");
    let id = |user: &str| board.says(&["exec", "-u", user, "web", "sh", "-c", "id -u; id -g; id -G"]);
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(id("app")), ["1000", "1001", "1001 2002"]);
    assert_eq!(lines(id("app:extra"))[..2], ["1000", "2002"]);
    assert_eq!(lines(id("77:88"))[..2], ["77", "88"]);
    let unknown = board.coracle(&["exec", "-u", "daemon", "web", "true"]);
    assert_eq!(unknown.status.code(), Some(125), "{}", said(&unknown));
    assert!(said(&unknown).contains("daemon"), "the host's users count for nothing: {}", said(&unknown));
}

#[test]
fn root_exec_runs_no_code_of_the_image_before_it_is_confined() {
    let name = "root_exec_runs_no_code_of_the_image_before_it_is_confined";
    let env = r#""env": ["PATH=/bin", "LD_PRELOAD=/bin/evil.so", "LD_LIBRARY_PATH=/bin"], "user": "app","#;
    let Some(mut board) = Board::new(name, &[service("web", IDLE, env)]) else { return };
    // A dynamic loader would complain about both; the image's shell is the probe, which runs no script.
    std::fs::write(board.root().join("etc/ld.so.preload"), "/bin/evil.so\n").unwrap();
    std::fs::write(board.root().join("bin/evil.so"), "no library").unwrap();
    board.up();
    board.until_logged("web", "up");
    for root_user in [false, true] {
        let options: &[&str] = if root_user { &["-u", "0"] } else { &[] };
        let output = board.coracle(&[&["exec"], options, &["web", "probe", "status"]].concat());
        let text = said(&output);
        assert!(output.status.success() && output.stderr.is_empty(), "{text}");
        for wanted in ["CapEff: 0000000000000000", "CapBnd: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2"] {
            assert!(text.contains(wanted), "no {wanted:?} in {text}");
        }
    }
    // The name of a file of the image is never looked up by coracle itself as a program of the host's.
    let missing = board.coracle(&["exec", "web", "ps"]);
    assert_eq!(missing.status.code(), Some(127), "{}", said(&missing));
}

#[test]
fn root_exec_into_a_service_that_is_being_stopped_ends_with_it() {
    let name = "root_exec_into_a_service_that_is_being_stopped_ends_with_it";
    let stubborn = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"];
    let Some(mut board) = Board::new(name, &[service("web", &stubborn, r#""stop": { "timeout": "700ms" },"#)]) else {
        return;
    };
    board.up();
    board.until_logged("web", "up");
    let groups = board.groups("web");
    let mut long = board.command(&["exec", "web", "sleep", "1000"]).spawn().unwrap();
    let mut stop = board.command(&["stop", "web"]).spawn().unwrap();
    let mut refused = String::new();
    while stop.try_wait().unwrap().is_none() {
        let output = board.coracle(&["exec", "web", "sh", "-c", "exit 3"]);
        match output.status.code() {
            Some(3) => {}
            // Killed with the service, or too late for it.
            Some(137 | 125) => refused = said(&output),
            other => panic!("{other:?}: {}", said(&output)),
        }
    }
    assert!(stop.wait().unwrap().success(), "{refused}");
    assert_eq!(long.wait().unwrap().code(), Some(137));
    let late = board.coracle(&["exec", "web", "true"]);
    assert!(said(&late).contains("coracle start web"), "{}", said(&late));
    let left: Vec<_> = groups.iter().filter(|dir| dir.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn root_a_lower_oom_score_is_had_or_its_lack_is_said() {
    let name = "root_a_lower_oom_score_is_had_or_its_lack_is_said";
    let Some(mut board) = Board::new(name, &[service("web", IDLE, r#""oom_score_adj": -500,"#)]) else { return };
    board.up();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let sys_resource = u64::from_str_radix(caps, 16).unwrap() & 1 << 24 != 0;
    if !sys_resource {
        return board.until("the reason", |board| board.report().contains("coracle itself lacks CAP_SYS_RESOURCE"));
    }
    board.until_logged("web", "up");
    assert_eq!(board.says(&["exec", "web", "cat", "/proc/self/oom_score_adj"]).trim(), "-500");
}
