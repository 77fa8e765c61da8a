//! What a service takes in at its start: conditions, the ends of oneshots, environment files, secrets, a terminal. Needs
//! root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, service};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A service on the host's root that runs a shell script, with more keys (each with a comma behind it).
fn host(name: &str, script: &str, more: &str) -> String {
    format!(
        r#"{{ "name": "{name}", "root": "host", "limits": {{ "memory": "16M" }}, {more}
             "command": ["/bin/busybox", "sh", "-c", {script:?}] }}"#
    )
}

#[test]
fn root_a_oneshot_makes_the_keys_before_the_broker_starts_and_is_skipped_next_time() {
    let name = "root_a_oneshot_makes_the_keys_before_the_broker_starts_and_is_skipped_next_time";
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("keys/tls.key");
    // It fails once, and is started again.
    let script = format!(
        "cd {0}; mkdir -p keys; [ -e failed ] || {{ touch failed; exit 1; }}; echo made; sleep 1; echo secret > keys/tls.key",
        dir.path().display()
    );
    let once = format!(
        r#""type": "oneshot", "when": {{ "missing": "{}" }}, "restart": {{ "delay": "10ms" }},"#,
        key.display()
    );
    let secret = format!(
        r#""needs": ["keygen:done"], "secrets": [{{ "file": "{}", "target": "/run/secrets/tls.key" }}],"#,
        key.display()
    );
    let broker = service("broker", &["sh", "-c", "cat /run/secrets/tls.key; while :; do sleep 1; done"], &secret);
    let Some(mut board) = Board::new(name, &[broker, host("keygen", &script, &once)]) else { return };
    board.up();
    board.until_logged("keygen", "made");
    assert_eq!(board.field("broker", "state"), "waiting");
    assert_eq!(board.field("broker", "reason"), "waits for keygen to be done");
    board.until_logged("broker", "secret");
    assert_eq!((board.field("keygen", "state"), board.field("keygen", "restarts")), ("done".into(), "1".into()));

    // Started by hand its condition is looked at again.
    board.says(&["start", "keygen"]);
    assert_eq!(board.field("keygen", "reason"), format!("skipped: {} exists", key.display()));
    fs::remove_file(&key).unwrap();
    let answer = board.says(&["start", "keygen"]);
    assert!(key.exists() && answer.contains("keygen is done"), "{answer}");
    assert_eq!(board.logs("keygen").matches("made").count(), 2);

    board.down();
    board.up();
    board.until_running("broker");
    assert_eq!(board.field("keygen", "state"), "done");
    let ps = board.says(&["ps"]);
    assert!(ps.contains(&format!("skipped: {} exists", key.display())), "{ps}");
    board.down();
}

#[test]
fn root_env_files_stand_between_image_and_config_and_are_read_at_each_start() {
    let name = "root_env_files_stand_between_image_and_config_and_are_read_at_each_start";
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let files = format!(
        r#""env_files": ["{}", "{}"], "env": ["PATH=/bin", "C=config"], "restart": {{ "policy": "no" }},"#,
        at("one.env"),
        at("two.env")
    );
    let script = "echo A=$A B=$B C=$C D=$D HOME=$HOME";
    let services = [
        service("inside", &["sh", "-c", &format!("{script}; while :; do sleep 1; done")], &files),
        host("outside", script, &files),
        service("other", IDLE, ""),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    fs::write(at("one.env"), "# comment\nA=one\nB=one\nC=one\nHOME=/from/file\n\nD=\"with quotes\"\n").unwrap();
    board.up();
    board.until_running("other");
    let missing = format!("the env file {} is missing; put it there, and the service starts", at("two.env"));
    board.until("it is held", |board| board.field("inside", "state") == "held");
    assert!(board.says(&["ps"]).contains(&missing), "{}", board.says(&["ps"]));
    fs::write(at("new"), "B=two\nnonsense\n").unwrap();
    fs::rename(at("new"), at("two.env")).unwrap();
    let wrong = format!("the env file {}:2: there is no", at("two.env"));
    board.until("it is read", |board| board.says(&["ps"]).contains(&wrong));
    fs::write(at("two.env"), "B=two\r\n").unwrap();
    let expected = "A=one B=two C=config D=\"with quotes\" HOME=/from/file";
    for service in ["inside", "outside"] {
        board.until_logged(service, expected);
    }
    fs::write(at("two.env"), "B=three\n").unwrap();
    board.says(&["restart", "inside"]);
    board.until_logged("inside", "B=three");
    assert!(board.says(&["exec", "inside", "sh", "-c", "echo $B"]).contains("three"));
    let shown = board.says(&["inspect", "inside"]);
    assert!(shown.contains("two.env") && !shown.contains("B=three"), "{shown}");
    board.down();
}

/// Every file below a folder whose content holds `text`.
fn holding(folder: &Path, text: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => holding(&path, text, found),
            Ok(kind) if kind.is_file() => {
                let content = fs::read(&path).unwrap_or_default();
                if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
            _ => {}
        }
    }
}

#[test]
fn root_a_secret_is_the_services_own_and_nowhere_else() {
    let name = "root_a_secret_is_the_services_own_and_nowhere_else";
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let content = "correct-horse-battery-staple";
    let secrets = format!(
        r#""user": "1000:1001", "secrets": [ {{ "file": "{}", "target": "/run/secrets/deep/key" }},
             {{ "file": "{}", "target": "/run/second.key" }} ],"#,
        at("key"),
        at("second")
    );
    let script = "ls -ln /run/secrets/deep/key /run/second.key; cat /run/secrets/deep/key | wc -c; \
                  echo x 2>/dev/null > /run/secrets/deep/key || echo not writable; \
                  chmod 777 /run/second.key 2>/dev/null || echo not changed; \
                  ls /dev/secrets 2>/dev/null || echo no place; \
                  while :; do sleep 1; done";
    let services = [service("app", &["sh", "-c", script], &secrets), service("other", IDLE, "")];
    let Some(mut board) = Board::new(name, &services) else { return };
    fs::write(at("second"), "b").unwrap();
    board.up();
    board.until("it is held", |board| board.field("app", "state") == "held");
    let ps = board.says(&["ps"]);
    assert!(ps.contains(&format!("the secret {} is missing; put the file there", at("key"))), "{ps}");
    // As an editor or `cp` does it: there first, complete later.
    let mut file = fs::File::create(at("key")).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
    drop(file);
    board.until_logged("app", "no place");
    let log = board.logs("app");
    for target in ["/run/secrets/deep/key", "/run/second.key"] {
        let line = log.lines().find(|line| line.ends_with(target)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("-r--------") && line.contains(" 1000 ") && line.contains(" 1001 "), "{line}");
    }
    assert!(log.contains("out  28") && log.contains("not writable") && log.contains("not changed"), "{log}");
    assert!(board.says(&["exec", "app", "cat", "/run/secrets/deep/key"]).contains(content));
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", board.field("app", "pid"))).unwrap();
    let mount = mounts.lines().find(|line| line.contains(" /run/secrets/deep/key ")).unwrap();
    assert!(mount.contains(" ro,nosuid,nodev,noexec") && mount.contains(" - tmpfs "), "{mount}");
    assert!(!mounts.contains(" /dev/secrets "), "{mounts}");

    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("secrets/deep"));
    let inspect = board.says(&["inspect", "app"]);
    assert!(inspect.contains(&at("key")) && !inspect.contains(content), "{inspect}");
    assert!(!board.says(&["inspect", "--steps", "app"]).contains(content));
    let mut found = Vec::new();
    for folder in ["run", "state", "images"] {
        holding(&board.path(folder), content, &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
    // Neither has anybody its bytes in memory: not the supervisor, not the inits.
    let device = board.says(&["inspect", "device"]);
    let supervisor = device.split("\"supervisor\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
    for pid in [supervisor, board.field("app", "init"), board.field("other", "init")] {
        assert!(!in_memory(&pid, content), "process {pid} holds the secret");
    }
    board.down();
}

/// Whether a writable mapping of the process holds `text`.
fn in_memory(pid: &str, text: &str) -> bool {
    use std::os::unix::fs::FileExt as _;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains(" rw")).any(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        let read = memory.read_at(&mut bytes, from).unwrap_or(0);
        bytes[..read].windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn root_a_secret_that_is_no_plain_file_is_not_copied() {
    let name = "root_a_secret_that_is_no_plain_file_is_not_copied";
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/etc/shadow", &link).unwrap();
    let secret = format!(r#""secrets": [{{ "file": "{}", "target": "/run/x" }}],"#, link.display());
    let Some(mut board) = Board::new(name, &[service("app", IDLE, &secret)]) else { return };
    board.up();
    board.until("it is held", |board| board.field("app", "state") == "held");
    let ps = board.says(&["ps"]);
    assert!(ps.contains("is a symbolic link; name the file itself"), "{ps}");
    board.down();
}

/// A pseudo-terminal that plays the serial line, and a person in front of it.
struct Line {
    master: OwnedFd,
    device: String,
    shown: String,
}

impl Line {
    fn new() -> Line {
        let pty = nix::pty::openpty(None, None).unwrap();
        // A supervisor that inherits it would keep the line up.
        let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
        nix::fcntl::fcntl(&pty.master, flags).unwrap();
        let device = nix::unistd::ttyname(&pty.slave).unwrap().display().to_string();
        Line { master: pty.master, device, shown: String::new() }
    }

    /// Reads until `text` has been shown behind what was asked for before.
    fn until(&mut self, text: &str) {
        assert!(self.shows(text, Duration::from_secs(60)), "{text:?} never came: {:?}", self.shown);
    }

    /// Types until that is answered: who has just come to the line throws away what was typed before.
    fn asks(&mut self, question: &str, answer: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            self.types(question);
            if self.shows(answer, Duration::from_secs(3)) {
                return;
            }
            assert!(Instant::now() < end, "{answer:?} never came: {:?}", self.shown);
        }
    }

    /// Whether `text` is shown within `time`.
    fn shows(&mut self, text: &str, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.shown.contains(text) {
            if Instant::now() > end {
                return false;
            }
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(50u8)).unwrap() == 0 {
                continue;
            }
            let mut buffer = [0; 4096];
            // Without anybody at the other end there is an error to read; the next one opens it again.
            match nix::unistd::read(&self.master, &mut buffer) {
                Ok(got) => self.shown.push_str(&String::from_utf8_lossy(&buffer[..got])),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        let at = self.shown.find(text).unwrap() + text.len();
        self.shown.drain(..at);
        true
    }

    fn types(&self, text: &str) {
        nix::unistd::write(&self.master, text.as_bytes()).unwrap();
    }
}

#[test]
fn root_a_getty_on_a_terminal_gives_a_shell_and_comes_back_after_it() {
    let name = "root_a_getty_on_a_terminal_gives_a_shell_and_comes_back_after_it";
    let mut line = Line::new();
    let getty = format!(
        r#"{{ "name": "console", "root": "host", "limits": {{ "memory": "16M" }}, "tty": "{0}",
             "restart": {{ "policy": "always", "delay": "10ms" }}, "lifeline": true,
             "command": ["/bin/busybox", "getty", "-n", "-l", "/bin/sh", "-L", "115200", "{1}", "vt100"] }}"#,
        line.device,
        line.device.trim_start_matches("/dev/")
    );
    let Some(mut board) = Board::new(name, &[getty]) else { return };
    board.up();
    board.until_running("console");
    for round in 0..2 {
        line.asks("\necho sum=$((40+2)); tty; cat </dev/tty & wait; echo \"job $?\"; exec busybox sh\n", "sum=42");
        line.until(&line.device.clone());
        let restarts = board.field("console", "restarts");
        // The terminal is the controlling one: what is typed interrupts.
        line.types("busybox sleep 100000; echo interrupted\n");
        board.until("it sleeps", |board| board.says(&["top", "console"]).contains("sleep 100000"));
        line.types("\x03");
        board.until("it is interrupted", |board| !board.says(&["top", "console"]).contains("sleep 100000"));
        line.types("exit 3\n");
        board.until("it comes back", |board| {
            board.field("console", "restarts") != restarts && board.field("console", "state") == "running"
        });
        let log = board.logs("console");
        assert!(log.contains(&format!("what it says goes to {}, not here", line.device)), "{log}");
        assert!(log.contains("ended: exit code 3") && !log.contains("sum=42"), "{round}: {log}");
    }
    assert!(board.says(&["inspect", "console"]).contains(r#""lifeline":true"#));
    board.down();
}

#[test]
fn root_a_terminal_of_the_host_reaches_into_a_container() {
    let name = "root_a_terminal_of_the_host_reaches_into_a_container";
    let mut line = Line::new();
    let more = format!(r#""tty": "{}", "user": "1000:1001", "restart": {{ "policy": "no" }},"#, line.device);
    let shell = service("shell", &["sh", "-i"], &more);
    let gone = service("gone", IDLE, r#""tty": "/dev/coracle-test-none","#);
    let Some(mut board) = Board::new(name, &[shell, gone]) else { return };
    board.up();
    board.until_running("shell");
    line.asks("ls -d /data; id -u; echo $TERM; echo x > /dev/tty && echo opened\n", "/data");
    for text in ["1000", "vt220", "opened"] {
        line.until(text);
    }
    assert!(!line.shown.contains("job control turned off"), "{}", line.shown);
    let ps = board.says(&["ps"]);
    assert!(ps.contains("the terminal /dev/coracle-test-none is missing; load its driver"), "{ps}");
    // The line hangs up, and who is in front of it has gone.
    drop(line);
    board.until("it ends", |board| board.field("shell", "pid") == "null");
    board.down();
}
