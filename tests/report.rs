//! The report for the support desk. Needs root, cgroups, a static busybox and tar.

mod busybox_board;

use busybox_board::{Board, IDLE, service};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The members of a tar and what they hold.
fn members(tar: &Path) -> Vec<(String, String)> {
    let run = |words: &[&str]| {
        let output = Command::new("tar").args(words).arg(tar).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let names = run(&["-tf"]);
    let content = |name: &str| {
        let output = Command::new("tar").arg("-xOf").arg(tar).arg(name).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    names.lines().map(|name| (name.trim_start_matches("coracle-report/").to_owned(), content(name))).collect()
}

fn member<'a>(members: &'a [(String, String)], name: &str) -> &'a str {
    let found = members.iter().find(|(found, _)| found == name);
    &found.unwrap_or_else(|| panic!("no {name} among {:?}", members.iter().map(|(name, _)| name).collect::<Vec<_>>())).1
}

#[test]
fn root_a_report_holds_what_is_known_and_no_secret() {
    let name = "root_a_report_holds_what_is_known_and_no_secret";
    let secret = tempfile::tempdir().unwrap();
    let (env, key) = (secret.path().join("env"), secret.path().join("key"));
    fs::write(&env, "# none\nSITE=from-a-file-7\n").unwrap();
    fs::write(&key, "line-of-a-key-1\nline-of-a-key-2\n").unwrap();
    let more = format!(
        r#""env": ["PATH=/bin", "API_TOKEN=abcdef-in-config"], "env_files": ["{}"],
           "secrets": [{{ "file": "{}", "target": "/run/key" }}], "log": {{ "ring": "256K", "rate": 0 }},"#,
        env.display(),
        key.display()
    );
    // As careless as a service can be.
    let tells = "echo $SITE; echo $API_TOKEN; cat /run/key; seq 1 9000 | sed s/^/line-/; echo told; sleep 1000000";
    let services = [service("tells", &["sh", "-c", tells], &more), service("crashes", &["sh", "-c", "exit 7"], "")];
    let Some(mut board) = Board::new(name, &services) else { return };
    std::os::unix::fs::symlink("busybox", board.root().join("bin/sed")).unwrap();
    board.up();
    board.until_logged("tells", "told");
    board.until("a crash record", |board| board.path("state/crashes").is_dir());
    let (tar, config) = (board.path("report.tar"), board.path("config.json").to_string_lossy().into_owned());
    let path = tar.to_string_lossy().into_owned();
    board.says(&["report", "-c", &config, "-o", &path]);
    assert!(fs::metadata(&tar).unwrap().len() <= 1 << 20);
    let found = members(&tar);
    for (file, part) in [
        ("versions", "coracle "),
        ("meminfo", "MemTotal"),
        ("check", "crashes"),
        ("ps", "crashes"),
        ("stats", "tells"),
        ("device.json", "{"),
        ("doctor", "features:"),
        ("events", "exit code 7"),
        ("last-boot", "pstore"),
        ("supervisor.log", "tells is running"),
        ("logs/tells", "told"),
        ("logs/tells", "[cut: "),
        ("logs/crashes", "exit code 7"),
        ("crashes/000001-crashes", "reason exit code 7"),
        (&format!("config{config}"), "\"API_TOKEN=(removed)\""),
    ] {
        let text = member(&found, file);
        assert!(text.contains(part), "{file}:\n{}", &text[..text.len().min(2000)]);
    }
    assert!(!member(&found, "dmesg").is_empty());
    for (file, text) in &found {
        for secret in ["from-a-file-7", "abcdef-in-config", "line-of-a-key"] {
            assert!(!text.contains(secret), "{secret} is in {file}");
        }
    }
    board.down();
}

#[test]
fn root_a_report_needs_neither_supervisor_nor_config() {
    let name = "root_a_report_needs_neither_supervisor_nor_config";
    let Some(board) = Board::new(name, &[service("web", IDLE, "")]) else { return };
    let output = board.coracle(&["report", "-c", "/none.json", "-o", "-"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tar = board.path("report.tar");
    fs::write(&tar, output.stdout).unwrap();
    let found = members(&tar);
    for (file, part) in [
        ("ps", "no supervisor"),
        ("device.json", "no supervisor"),
        ("config/missing", "/none.json"),
        ("crashes", "no state folder"),
        ("events", "coracle: "),
        ("meminfo", "MemTotal"),
    ] {
        assert!(member(&found, file).contains(part), "{file}: {}", member(&found, file));
    }
}
