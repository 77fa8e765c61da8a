//! A board whose services are all of one image: a folder with busybox and the probe.
#![allow(dead_code, unused_imports)]

#[path = "../board/mod.rs"]
pub mod board;
#[path = "../probe/mod.rs"]
pub mod probe;

pub use board::text as said;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

pub struct Board(board::Board);

impl Deref for Board {
    type Target = board::Board;
    fn deref(&self) -> &board::Board {
        &self.0
    }
}

impl DerefMut for Board {
    fn deref_mut(&mut self) -> &mut board::Board {
        &mut self.0
    }
}

impl Board {
    /// With these services, of [`service`]; `None`, after saying why, where they cannot run.
    pub fn new(test: &str, services: &[String]) -> Option<Board> {
        if !Path::new("/bin/busybox").exists() {
            println!("skip: {test}: no /bin/busybox (Debian: busybox-static)");
            return None;
        }
        let board = Board(board::Board::new(test)?);
        let root = board.path("images/root");
        for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "run", "var/tmp", "data"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        fs::copy(probe::path(), root.join("bin/probe")).unwrap();
        for applet in ["sh", "sleep", "echo", "cat", "seq", "id", "nc", "kill", "dd", "tty", "ls", "mkfifo", "env"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1001:\nextra:x:2002:app\n").unwrap();
        board.configure(&services.join(","));
        Some(board)
    }

    /// The folder that is every service's image.
    pub fn root(&self) -> PathBuf {
        self.path("images/root")
    }

    /// The folders of a running service's cgroup.
    pub fn groups(&self, service: &str) -> Vec<PathBuf> {
        let record = fs::read_to_string(self.path("run/services").join(service).join("instance")).unwrap_or_default();
        let line = record.lines().find_map(|line| line.strip_prefix("cgroup ")).unwrap_or_default();
        line.split('\t').filter_map(|dir| dir.splitn(3, ':').nth(2).map(PathBuf::from)).collect()
    }
}

/// A service that runs `words`, with more keys (each with a comma behind it).
pub fn service(name: &str, words: &[&str], more: &str) -> String {
    let command: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    let command = command.join(",");
    let limits = if more.contains("\"limits\"") { "" } else { r#""limits": { "memory": "16M" },"# };
    let env = if more.contains("\"env\"") { "" } else { r#""env": ["PATH=/bin"],"# };
    format!(r#"{{ "name": "{name}", "image": "root", {limits} {env} {more} "command": [{command}] }}"#)
}

/// Freezes a process in a group of its own below this one of cgroup v1, where not even SIGKILL ends it; gives that group.
pub fn freeze(freezer: &Path, pid: &str) -> PathBuf {
    let inner = freezer.join("frozen");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("tasks"), pid).unwrap();
    fs::write(inner.join("freezer.state"), "FROZEN").unwrap();
    inner
}

/// What a service does that just runs.
pub const IDLE: &[&str] = &["sh", "-c", "echo up; while :; do sleep 1; done"];
