//! Logs and exec on running services, as a person uses them. Needs root and Debian's busybox-static.

mod board;

use board::runs_busybox;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const BUSYBOX: &str = "/bin/busybox";

/// A supervisor with services of its own, taken down at the end whatever happens.
struct Board {
    dir: tempfile::TempDir,
}

impl Board {
    /// Runs services given as `name`, user, shell script, more keys of the service.
    fn up(services: &[(&str, &str, &str, &str)]) -> Board {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "run", "var/tmp"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        for name in ["sh", "cat", "sleep", "seq", "yes", "head", "true", "id", "tty", "hostname", "kill", "grep"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n").unwrap();
        let board = Board { dir };
        let services: Vec<String> = services
            .iter()
            .map(|(name, user, script, more)| {
                format!(
                    "{{\"name\":\"{name}\",\"image\":\"{}\",\"command\":[\"sh\",\"-c\",\"{script}\"],\"user\":\"{user}\",\
                     \"env\":[\"PATH=/bin\",\"LEVEL=high\"],\"limits\":{{\"memory\":\"16M\",\"pids\":20}}{more}}}",
                    root.display()
                )
            })
            .collect();
        let config = format!(
            "{{\"version\":1,\"device\":{{\"images\":[\"{0}\"],\"state\":\"{0}/state\",\"memory\":\"256M\"}},\
             \"services\":[{1}]}}",
            board.dir.path().display(),
            services.join(",")
        );
        std::fs::write(board.dir.path().join("config.json"), config).unwrap();
        let path = board.dir.path().join("config.json");
        let up = board.coracle(&["up", "-d", "-c", path.to_str().unwrap()]);
        assert!(up.status.success(), "{}", err(&up));
        board
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// `coracle COMMAND --run-dir … WORDS`.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.arg(words[0]).arg("--run-dir").arg(self.run_dir()).args(&words[1..]);
        command
    }

    fn coracle(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().unwrap()
    }

    fn exec(&self, script: &str) -> (i32, String) {
        let output = self.coracle(&["exec", "web", "sh", "-c", script]);
        (output.status.code().unwrap(), out(&output) + &err(&output))
    }

    /// Waits until the log of `service` satisfies `done`.
    fn log_until(&self, service: &str, done: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let log = out(&self.coracle(&["logs", service]));
            if done(&log) {
                return log;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let down = self.coracle(&["down"]);
        if !std::thread::panicking() {
            assert!(down.status.success(), "{}", err(&down));
        }
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const WEB: (&str, &str, &str, &str) = ("web", "app", "echo up; while :; do sleep 1; done", "");

#[test]
fn root_exec_gives_the_exit_codes_of_the_field() {
    if !runs_busybox("root_exec_gives_the_exit_codes_of_the_field") {
        return;
    }
    let board = Board::up(&[WEB]);
    board.log_until("web", |log| log.contains("out  up"));
    assert_eq!(board.exec("exit 7").0, 7);
    assert_eq!(board.exec("kill -9 $$").0, 137);
    assert_eq!(board.coracle(&["exec", "web", "nothing-there"]).status.code(), Some(127));
    assert_eq!(board.coracle(&["exec", "web", "/etc/passwd"]).status.code(), Some(126));
    let typo = board.coracle(&["exec", "wbe", "true"]);
    assert_eq!(typo.status.code(), Some(125));
    assert!(err(&typo).contains("did you mean 'web'?"), "{}", err(&typo));
    assert!(board.coracle(&["pause", "web"]).status.success());
    let paused = board.coracle(&["exec", "web", "true"]);
    assert_eq!(paused.status.code(), Some(125));
    assert!(err(&paused).contains("paused"), "{}", err(&paused));
    assert!(board.coracle(&["unpause", "web"]).status.success());
    assert_eq!(board.exec("exit 0").0, 0);
    assert!(board.coracle(&["stop", "web"]).status.success());
    let stopped = board.coracle(&["exec", "web", "true"]);
    assert_eq!(stopped.status.code(), Some(125));
    assert!(err(&stopped).contains("coracle start web"), "{}", err(&stopped));
    let unknown = board.coracle(&["stop", "nothing"]);
    assert_eq!(unknown.status.code(), Some(4), "{}", err(&unknown));
}

#[test]
fn root_exec_is_held_to_what_the_service_is_held_to() {
    if !runs_busybox("root_exec_is_held_to_what_the_service_is_held_to") {
        return;
    }
    let board = Board::up(&[WEB]);
    board.log_until("web", |log| log.contains("out  up"));
    for user in ["app", "0"] {
        let script = "id -u; hostname; echo $LEVEL; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; \
                      cat /proc/self/limits /proc/1/status | grep -E 'core|NSpid'";
        let run = board.coracle(&["exec", "-u", user, "web", "sh", "-c", script]);
        let text = out(&run);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(if user == "app" { "1000" } else { "0" }), "{}", err(&run));
        assert_eq!((lines.next(), lines.next()), (Some("web"), Some("high")));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(text.contains(&format!("{set}:\t0000000000000000")), "{text}");
        }
        assert!(text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"), "{text}");
    }
    // The group's limit of 20 processes holds for both together.
    let (_, text) = board.exec("i=0; while [ $i -lt 40 ]; do sleep 2 & i=$((i+1)); done; wait");
    assert!(text.contains("can't fork"), "{text}");
    let (_, open) = board.exec("ls /proc/self/fd 2>/dev/null || busybox ls /proc/self/fd");
    let open: Vec<&str> = open.split_whitespace().filter(|fd| *fd != "3").collect();
    assert_eq!(open, ["0", "1", "2"], "3 is the listing itself");
}

#[test]
fn root_exec_with_a_terminal_has_one_of_the_containers_own() {
    if !runs_busybox("root_exec_with_a_terminal_has_one_of_the_containers_own") {
        return;
    }
    let board = Board::up(&[WEB]);
    board.log_until("web", |log| log.contains("out  up"));
    let without = board.coracle(&["exec", "-t", "web", "tty"]);
    assert_eq!(without.status.code(), Some(2));
    let size = nix::pty::Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = board.command(&["exec", "-it", "web", "sh", "-c", "tty; busybox stty size; exit 5"]);
    let mut child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    drop((command, pty.slave));
    // What was written comes in pieces; the end of it is an error, now that nobody else has the terminal.
    let (mut shown, mut buffer) = (String::new(), [0; 4096]);
    while let Ok(count) = nix::unistd::read(&pty.master, &mut buffer) {
        shown += &String::from_utf8_lossy(&buffer[..count]);
    }
    assert!(shown.contains("/dev/pts/0") && shown.contains("33 101"), "{shown:?}");
}

#[test]
fn root_log_lines_are_complete_over_a_crash_and_restarts() {
    if !runs_busybox("root_log_lines_are_complete_over_a_crash_and_restarts") {
        return;
    }
    let more = ",\"restart\":{\"policy\":\"always\",\"delay\":\"10ms\",\"max_delay\":\"20ms\"}";
    let board = Board::up(&[("crash", "app", "seq 1 30; kill -9 $$", more)]);
    let log = board.log_until("crash", |log| log.matches("killed by signal 9").count() >= 3);
    let texts: Vec<&str> = log.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap_or("").trim()).collect();
    let first: Vec<String> = (1..=30).map(|n| n.to_string()).collect();
    for round in texts.chunks(31).take(3) {
        assert_eq!(round[..30], first);
        assert!(round[30].contains("killed by signal 9"), "{round:?}");
    }
    let json = out(&board.coracle(&["logs", "-n", "2", "--json", "crash"]));
    assert_eq!(json.lines().filter(|line| line.starts_with("{\"service\":\"crash\",")).count(), 2);
}

#[test]
fn root_a_flood_is_limited_and_counted() {
    if !runs_busybox("root_a_flood_is_limited_and_counted") {
        return;
    }
    let more = ",\"log\":{\"rate\":50},\"restart\":{\"policy\":\"no\"}";
    let board = Board::up(&[("flood", "app", "yes flood | head -n 200000", more)]);
    let log = board.log_until("flood", |log| log.contains("ended: "));
    let dropped: u64 = log
        .lines()
        .filter_map(|line| {
            line.strip_suffix(" lines dropped by the rate limit")?.rsplit(' ').next()?.parse::<u64>().ok()
        })
        .sum();
    let kept = log.lines().filter(|line| line.ends_with(" flood")).count() as u64;
    assert_eq!(kept + dropped, 200_000, "{kept} kept, {dropped} dropped");
}

#[test]
fn root_escape_sequences_never_reach_the_terminal() {
    if !runs_busybox("root_escape_sequences_never_reach_the_terminal") {
        return;
    }
    let script = "printf '\\\\033]0;title\\\\007 \\\\033[2J \\\\302\\\\233 \\\\377 end\\\\n'; sleep 1000";
    let board = Board::up(&[("evil", "app", script, "")]);
    let log = board.log_until("evil", |log| log.contains("end"));
    assert!(log.contains("\\x1b]0;title\\x07 \\x1b[2J \\u{9b} \\xff end"), "{log:?}");
    assert!(log.chars().all(|c| c == '\n' || !c.is_control()));
    let top = out(&board.coracle(&["top", "evil"]));
    assert!(top.contains("sleep 1000"), "{top}");
}

#[test]
fn root_following_a_log_survives_a_restart() {
    if !runs_busybox("root_following_a_log_survives_a_restart") {
        return;
    }
    let board = Board::up(&[("web", "app", "echo begun; while :; do sleep 1; done", "")]);
    board.log_until("web", |log| log.contains("begun"));
    let mut follow = board.command(&["logs", "-f", "web"]).stdout(Stdio::piped()).spawn().unwrap();
    assert!(board.coracle(&["restart", "web"]).status.success());
    let mut seen = String::new();
    let mut lines = std::io::BufReader::new(follow.stdout.take().unwrap());
    while seen.matches("begun").count() < 2 {
        assert!(std::io::BufRead::read_line(&mut lines, &mut seen).unwrap() > 0, "{seen}");
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(seen.contains("note ended: "), "{seen}");
}

#[test]
fn root_looking_works_without_a_supervisor() {
    if !runs_busybox("root_looking_works_without_a_supervisor") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let nobody = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.arg(words[0]).arg("--run-dir").arg(dir.path()).args(&words[1..]).output().unwrap()
    };
    for words in [vec!["ps"], vec!["stop", "web"], vec!["inspect", "web"]] {
        let output = nobody(&words);
        assert_eq!(output.status.code(), Some(3), "{words:?}");
        assert!(err(&output).contains("coracle up"), "{}", err(&output));
    }
    std::fs::create_dir_all(dir.path().join("services/web")).unwrap();
    for words in [vec!["logs", "wbe"], vec!["stats", "wbe"], vec!["top", "wbe"]] {
        let output = nobody(&words);
        assert_eq!(output.status.code(), Some(4), "{words:?}");
        assert!(err(&output).contains("did you mean 'web'?"), "{}", err(&output));
    }
}
