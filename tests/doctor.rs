//! `coracle doctor` and what a build host makes of its profile.

use coracle::base::json;
use coracle::supervisor::board::doctor::{Verdict, judge, suffices};
use coracle::supervisor::board::features::FEATURES;
use coracle::supervisor::board::profile::Profile;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn coracle(words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_coracle")).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A board that has everything but the features named.
fn without(missing: &[&str]) -> String {
    let features: Vec<String> = FEATURES
        .iter()
        .map(|feature| {
            let have = !missing.contains(&feature.name);
            format!(
                "{{\"name\":\"{}\",\"have\":{have},\"detail\":\"{}\"}}",
                feature.name,
                if have { "" } else { "gone" }
            )
        })
        .collect();
    format!(
        "{{\"version\":1,\"release\":\"5.10.1\",\"architecture\":\"arm64\",\"variant\":\"\",\"cores\":\"0-1\",\
         \"memory\":67108864,\"features\":[{}],\"devices\":[{{\"path\":\"/dev/ttyS1\",\"block\":false}}]}}",
        features.join(",")
    )
}

#[test]
fn the_doctor_says_of_each_feature_how_it_stands_and_what_to_change() {
    let (_, text, complaint) = coracle(&["doctor"]);
    assert_eq!(complaint, "");
    for feature in FEATURES {
        let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(feature.name));
        let line = line.unwrap_or_else(|| panic!("{} in {text}", feature.name));
        assert!(["ok", "degraded", "missing"].contains(&line.split(' ').next().unwrap()), "{line}");
    }
    let (_, profile, _) = coracle(&["doctor", "--json"]);
    json::check(profile.as_bytes(), 8).unwrap();
    let profile = Profile::from_json(profile.as_bytes()).unwrap();
    assert!(profile.devices.iter().any(|(path, block)| &**path == "/dev/null" && !block));
    let shown = judge(&profile).filter(|finding| finding.verdict == Verdict::Ok).count();
    assert!(text.ends_with(&format!("{} missing\n", text.matches("\nmissing ").count())), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), shown);
}

#[test]
fn what_is_replaced_is_degraded_and_what_is_needed_decides() {
    let judged = |missing: &[&str]| {
        let profile = Profile::from_json(without(missing).as_bytes()).unwrap();
        let words: Vec<&str> =
            judge(&profile).filter(|f| f.verdict != Verdict::Ok).map(|finding| finding.verdict.word()).collect();
        (words.join(" "), suffices(&profile))
    };
    assert_eq!(judged(&[]), (String::new(), true));
    assert_eq!(judged(&["fs.overlay", "watchdog"]), ("degraded missing".into(), true));
    assert_eq!(judged(&["cgroup.memory"]), ("missing".into(), false));
}

/// What `check --board` makes of a config with this profile.
fn checked(profile: &str, service: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir_all(folder.path().join("root/images/app")).unwrap();
    fs::write(at("board.json"), profile).unwrap();
    let config = format!(
        r#"{{ "version": 1, "device": {{ "images": ["/images"], "memory_reserve": "16M" }},
             "services": [ {{ "name": "x", "image": "app", "command": ["/x"], {service} }} ] }}"#
    );
    fs::write(at("config.json"), config).unwrap();
    coracle(&["check", "--root", &at("root"), "--board", &at("board.json"), &at("config.json")])
}

#[test]
fn a_config_is_judged_by_the_profile_of_its_board() {
    let good = r#""limits": { "memory": "8M", "cpus": "0-1" }, "devices": [ { "path": "/dev/ttyS1" } ]"#;
    let (code, out, complaint) = checked(&without(&[]), good);
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{out}");
    assert!(!out.contains("not checked") && !out.contains("not looked into"), "{out}");
    for (missing, service, word) in [
        ("cgroup.memory", good, "limits.memory cannot be enforced here: gone"),
        ("ns.net", good, "the kernel has no net namespaces"),
        ("seccomp.filter", good, "the kernel has no system call filters"),
        ("", r#""limits": { "memory": "8M", "cpus": "3" }"#, "the board has no core 3"),
        (
            "",
            r#""limits": { "memory": "8M" }, "devices": [ { "path": "/dev/ttyS9" } ]"#,
            "device /dev/ttyS9 is missing",
        ),
        ("", r#""limits": { "memory": "60M" }"#, "more than the board has for them: 48M"),
    ] {
        let (code, out, complaint) = checked(&without(&[missing]), service);
        assert!(code == Some(78) && complaint.contains(word), "{word}: {out}{complaint}");
    }
    let (code, _, complaint) = checked("{}", good);
    assert!(code == Some(1) && complaint.contains("cannot use the board's profile"), "{complaint}");
}

#[test]
fn this_machine_and_its_profile_give_the_same_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (_, profile, _) = coracle(&["doctor", "--json"]);
    fs::write(at("board.json"), profile).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/sensor-gateway.json").display().to_string();
    assert_eq!(coracle(&["check", &example]), coracle(&["check", "--board", &at("board.json"), &example]));
}
