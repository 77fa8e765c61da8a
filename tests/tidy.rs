//! The rules of the tree, as tests: layers, purity, where `unsafe` lives, file length, leftovers.

use std::fs;
use std::path::{Path, PathBuf};

/// Layers from the lowest to the highest; a file may name lower ones and its own.
const LAYERS: [&str; 12] =
    ["base", "sys", "plan", "seccomp", "config", "log", "image", "sandbox", "control", "supervisor", "boot", "cli"];

/// Longest file in lines, tests included.
const FILE_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder` with its text, sorted by name relative to the project.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().join(folder)];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no Rust file below {folder}");
    found
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn a_file_uses_lower_layers_only() {
    let mut wrong = Vec::new();
    for (name, text) in sources("src") {
        let own = name.trim_start_matches("src/").trim_end_matches(".rs").split('/').next().unwrap_or_default();
        let Some(layer) = LAYERS.iter().position(|known| *known == own) else { continue };
        for (number, line) in code_lines(without_tests(&text)) {
            for higher in &LAYERS[layer + 1..] {
                if line.contains(&format!("crate::{higher}::")) || line.contains(&format!("use crate::{higher};")) {
                    wrong.push(format!("{name}:{}: {own} reaches up to {higher}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_belongs_to_a_layer() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let name = line.trim_end_matches(';');
        assert!(LAYERS.contains(&name), "src/lib.rs has a module '{name}' that is in no layer: add it to LAYERS");
    }
}

#[test]
fn unsafe_code_stays_in_sys() {
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"];
    for (name, text) in sources("src").iter().filter(|(name, _)| !name.starts_with("src/sys/")) {
        for (number, line) in code_lines(text) {
            let found = words.iter().any(|word| line.contains(word));
            assert!(!found, "{name}:{}: unsafe belongs in src/sys/", number + 1);
        }
    }
}

#[test]
fn nothing_can_signal_more_than_one_process_but_the_init_of_a_pid_namespace() {
    // `sys::wait::send_signal` refuses numbers that mean many, `sys::stack::OwnPids` is proof of a namespace, and `sys::abort`
    // has the calling thread's own number from the kernel.
    let words =
        ["signal::kill", "libc::kill(", "killpg", "SYS_kill", "SYS_tgkill", "kill(-1", "signal(-1", "pthread_kill"];
    let mut found = Vec::new();
    for (name, text) in sources("src") {
        for (_, line) in code_lines(without_tests(&text)) {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{name}: {}", line.trim()));
            }
        }
    }
    assert_eq!(
        found,
        [
            "src/sys/abort.rs: unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), libc::SIGABRT) }",
            "src/sys/stack.rs: super::check(libc::c_long::from(unsafe { libc::kill(-1, signal) })).map(drop)",
            "src/sys/wait.rs: check(libc::c_long::from(unsafe { libc::kill(pid, signal) })).map(drop)",
        ]
    );
    let is_made = |line: &str| line.contains("OwnPids(())") && !line.starts_with("pub struct");
    let makers = |text: &str| code_lines(without_tests(text)).filter(|(_, line)| is_made(line)).count();
    let made: Vec<(String, usize)> = sources("src")
        .iter()
        .map(|(name, text)| (name.clone(), makers(text)))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(made, [("src/sys/stack.rs".to_owned(), 2)], "one file makes the proof: for a clone, and for process 1");
}

#[test]
fn files_have_one_purpose_and_fit() {
    let long: Vec<String> = sources("src")
        .iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES)
        .map(|(name, lines)| format!("{name}: {lines} lines, at most {FILE_LINES}"))
        .collect();
    assert!(long.is_empty(), "split by purpose:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        "TO\u{44}O",
        "FIX\u{4d}E",
        "XX\u{58}",
        "todo\u{21}",
        "unimplemented\u{21}",
        "for no\u{77},",
        "placeholde\u{72}",
    ];
    for folder in ["src", "tests"] {
        for (name, text) in sources(folder) {
            for (number, line) in text.lines().enumerate() {
                let left = words.iter().find(|word| line.contains(**word));
                assert_eq!(left, None, "{name}:{}", number + 1);
            }
        }
    }
}

#[test]
fn pure_files_ask_the_kernel_nothing() {
    // A file whose first lines call it pure may not reach for clocks, files or processes.
    let effects = ["std::fs", "std::process", "std::time", "std::net", "std::env", "crate::sys", "nix::", "libc::"];
    for (name, text) in sources("src") {
        let pure = text.lines().take(8).any(|line| line.starts_with("//!") && line.contains("Pure"));
        for (number, line) in code_lines(without_tests(&text)).filter(|_| pure) {
            let effect = effects.iter().find(|effect| line.contains(**effect));
            assert_eq!(effect, None, "{name}:{}: a pure file", number + 1);
        }
    }
}
