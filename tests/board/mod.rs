//! A device with folders of its own and a supervisor on it, for tests of images under supervision.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Folders `images`, `state` and `run`. What still runs at the end of a test, also of a failed one, is taken down.
pub struct Board {
    dir: tempfile::TempDir,
    supervisor: Option<Child>,
}

impl Board {
    /// `None`, after saying why, where services cannot run.
    pub fn new(test: &str) -> Option<Board> {
        if !nix::unistd::geteuid().is_root() {
            println!("skip: {test}: needs root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("coracle-board-").tempdir().unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        Some(Board { dir, supervisor: None })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the config with these services, as the text between the list's brackets.
    pub fn configure(&self, services: &str) {
        let (images, state) = (self.path("images"), self.path("state"));
        let config = format!(
            r#"{{ "version": 1, "device": {{ "images": ["{}"], "state": "{}" }}, "services": [ {services} ] }}"#,
            images.display(),
            state.display()
        );
        fs::write(self.path("config.json"), config).unwrap();
    }

    /// Puts an image into the image folder, as one that appears whole.
    pub fn image(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path("images/new"), bytes).unwrap();
        fs::rename(self.path("images/new"), self.path("images").join(name)).unwrap();
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.arg(words[0]);
        if ["images", "unpack", "verify", "rmi", "prune"].contains(&words[0]) {
            command.arg("--state").arg(self.path("state"));
        } else {
            command.arg("--run-dir").arg(self.path("run"));
        }
        command.args(&words[1..]).stdin(Stdio::null());
        command
    }

    pub fn coracle(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What a command prints that has to end well.
    pub fn says(&self, words: &[&str]) -> String {
        let output = self.coracle(words);
        assert!(output.status.success(), "{words:?}: {}\n{}", text(&output), self.report());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a supervisor in the foreground and waits until it answers.
    pub fn up(&mut self) {
        self.spawn();
        self.until("the supervisor answers", |board| board.coracle(&["ps"]).status.success());
    }

    /// Starts a supervisor in the foreground.
    pub fn spawn(&mut self) {
        fs::File::create(self.path("report")).unwrap();
        // Whatever writes to it, nothing overwrites what something else wrote.
        let log = fs::OpenOptions::new().append(true).open(self.path("report")).unwrap();
        let mut command = self.command(&["up", "-c"]);
        command.arg(self.path("config.json")).stderr(log).stdout(Stdio::null());
        self.supervisor = Some(command.spawn().unwrap());
    }

    /// Kills the supervisor, so that it can put nothing in order.
    pub fn kill_supervisor(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What the supervisor wrote to its standard error.
    pub fn report(&self) -> String {
        fs::read_to_string(self.path("report")).unwrap_or_default()
    }

    pub fn until(&self, what: &str, reached: impl Fn(&Board) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !reached(self) {
            assert!(Instant::now() < end, "never came: {what}\n{}\n{}", self.report(), text(&self.coracle(&["ps"])));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn until_running(&self, service: &str) {
        self.until(&format!("{service} runs"), |board| board.field(service, "state") == "running");
    }

    /// A field of `ps --json` of one service.
    pub fn field(&self, service: &str, field: &str) -> String {
        let json = text(&self.coracle(&["ps", "--json"]));
        let object =
            json.split("{\"name\":").find(|part| part.starts_with(&format!("\"{service}\""))).unwrap_or_default();
        let value = object.split_once(&format!("\"{field}\":")).map_or("", |(_, rest)| rest);
        value.split([',', '}']).next().unwrap_or_default().trim_matches('"').to_owned()
    }

    /// What a service wrote, as `logs` shows it.
    pub fn logs(&self, service: &str) -> String {
        text(&self.coracle(&["logs", service]))
    }

    pub fn until_logged(&self, service: &str, line: &str) {
        self.until(&format!("{service} logs {line:?}"), |board| board.logs(service).contains(line));
    }

    /// Takes everything down and checks that nothing of the state folder is mounted still.
    pub fn down(&mut self) {
        let _ = self.coracle(&["down"]);
        self.kill_supervisor();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let folder = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(folder), "left mounted:\n{mounts}");
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.coracle(&["down"]);
        self.kill_supervisor();
        // A supervisor that was killed left its inits: the next one would adopt them, `down` ends them.
        let _ = self.coracle(&["down"]);
    }
}

/// Unmounts also where the test failed.
pub struct Unmount(pub PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether a program is installed; says so if not.
pub fn installed(test: &str, programs: &[&str]) -> bool {
    match programs.iter().find(|program| find(program).is_none()) {
        Some(missing) => {
            println!("skip: {test}: {missing} is not installed");
            false
        }
        None => true,
    }
}

/// Where a program is.
pub fn find(program: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().map(|dir| Path::new(dir).join(program)).find(|path| path.exists())
}

/// Whether this machine can run a test of busybox in a sandbox; says why not.
pub fn runs_busybox(test: &str) -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "not root"
    } else if !Path::new("/bin/busybox").exists() {
        "busybox-static is not installed"
    } else {
        return true;
    };
    println!("skip: {test}: {missing}");
    false
}
