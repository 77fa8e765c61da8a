//! Builds `examples/probe.rs` as one static program: containers of the tests have nothing else in them.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of the program.
pub fn path() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| {
        // A machine without a compiler is given the program.
        if let Some(given) = std::env::var_os("PROBE") {
            return PathBuf::from(given);
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Several test programs may build it at once: each for itself, then a rename.
        let own = folder.join(format!("probe.{}", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/probe.rs");
        let options = "--edition=2024 --crate-name=probe -Ctarget-feature=+crt-static -Copt-level=s -Cpanic=abort -Cstrip=symbols";
        let built = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()))
            .args(options.split(' '))
            // rustc alone builds for its own host; tests of the 32-bit binary on a 64-bit kernel need a 32-bit probe.
            .args(cfg!(target_arch = "x86").then_some("--target=i686-unknown-linux-musl"))
            .arg("-o")
            .args([&own, &source])
            .status();
        assert!(built.expect("rustc runs").success(), "the probe does not build");
        let path = folder.join("probe");
        std::fs::rename(&own, &path).expect("the probe is put in place");
        path
    })
}

/// Runs the probe in a thread of its own that `confine` has confined for good, and gives what it printed.
pub fn confined(confine: impl FnOnce() + Send + 'static, words: &[&str]) -> String {
    let probe = path();
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let thread = std::thread::spawn(move || {
        confine();
        Command::new(probe).args(words).env_clear().output().expect("the probe runs")
    });
    let output = thread.join().expect("the thread ends");
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the probe prints text")
}

/// The value behind `key: ` in what the probe printed.
pub fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {key:?} in:\n{text}"))
}
