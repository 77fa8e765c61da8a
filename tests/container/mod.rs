//! A root folder with nothing but the probe in it, and `coracle run` on it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

#[path = "../probe/mod.rs"]
pub mod probe;

/// A root folder that goes with the test.
pub struct Rootfs {
    folder: tempfile::TempDir,
}

impl Rootfs {
    /// With the probe and the usual folders; `None` and a printed reason where containers cannot be run.
    pub fn new(test: &str) -> Option<Rootfs> {
        if !nix::unistd::geteuid().is_root() {
            println!("skip: {test}: needs root");
            return None;
        }
        let rootfs = Rootfs { folder: tempfile::Builder::new().prefix("coracle-test-").tempdir().unwrap() };
        for folder in ["dev", "proc", "sys", "tmp", "etc", "run", "data"] {
            std::fs::create_dir_all(rootfs.path(folder)).unwrap();
        }
        std::fs::copy(probe::path(), rootfs.path("probe")).unwrap();
        Some(rootfs)
    }

    /// The folder that is the container's root.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("rootfs")
    }

    /// A path inside, seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root().join(inside)
    }

    /// A path beside the root, outside of the container.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `words` in a container with `options` of `coracle run`.
    pub fn run(&self, options: &[&str], words: &[&str]) -> Output {
        self.command(options, words).output().expect("coracle runs")
    }

    /// The command of [`Rootfs::run`], not yet started.
    pub fn command(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("run").arg("--state").arg(self.beside("state")).arg("--rootfs").arg(self.root());
        command.args(options).args(words).stdin(Stdio::null());
        command
    }

    /// What the probe prints, where it must end well.
    pub fn probe(&self, options: &[&str], words: &[&str]) -> String {
        let mut all = vec!["/probe"];
        all.extend(words);
        let output = self.run(options, &all);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{:?}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
        text
    }
}

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_coracle"))
}

/// Both outputs as one text, for messages.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
