//! What a board lacks, told service by service.

use super::*;
use crate::config;
use std::fs;

fn plan(text: &str) -> Plan {
    config::load("c.json", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).0
}

const TWO: &str = r#"{ "version": 1,
  "device": { "images": ["/images", "/more"], "memory": "64M", "memory_reserve": "24M" },
  "services": [
    { "name": "web", "image": "web.tar#web:1", "limits": { "memory": "24M" },
      "mounts": [ { "type": "bind", "source": "/etc/web", "target": "/etc/web" },
                  { "type": "bind", "source": "/run/shared", "target": "/run/shared" } ],
      "devices": [ { "path": "/dev/coracle-test-none" } ] },
    { "name": "spare", "image": "spare.tar", "limits": { "memory": "1G" }, "enabled": false } ] }"#;

#[test]
fn a_root_that_is_being_built_is_looked_at_for_images_and_bind_sources() {
    let root = tempfile::tempdir().unwrap();
    let board = Board::beneath(root.path());
    let told = |board: &Board| -> Vec<String> {
        problems(&plan(TWO), board).into_iter().map(|problem| problem.message).collect()
    };
    let shown = root.path().display();
    assert_eq!(
        told(&board),
        [
            format!("image \"web.tar\" is missing (looked for {shown}/images/web.tar, {shown}/more/web.tar)"),
            format!("bind source {shown}/etc/web is missing"),
            format!("image \"spare.tar\" is missing (looked for {shown}/images/spare.tar, {shown}/more/spare.tar)"),
        ]
    );
    for folder in ["images", "more", "etc/web"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    fs::write(root.path().join("more/web.tar"), "").unwrap();
    fs::write(root.path().join("images/spare.tar"), "").unwrap();
    assert_eq!(told(&board), Vec::<String>::new());
}

#[test]
fn a_missing_device_holds_its_service_alone_unless_optional() {
    let of_web = |plan: &Plan| {
        let found = service_problems(plan, 0, &Board::here());
        assert!(found.iter().all(|problem| problem.service == Some(0)));
        found.iter().any(|problem| problem.message == "device /dev/coracle-test-none is missing")
    };
    assert!(of_web(&plan(TWO)));
    let optional = TWO.replace("test-none\" }", "test-none\", \"optional\": true }");
    assert!(!of_web(&plan(&optional)));
    let found = service_problems(&plan(&TWO.replace("coracle-test-none", "null")), 0, &Board::here());
    assert!(!found.iter().any(|problem| problem.message.starts_with("device")), "{found:?}");
}

#[test]
fn memory_limits_are_held_against_the_smallest_board() {
    let mut board = Board::beneath(Path::new("/nonexistent"));
    assert_eq!(memory_problem(&plan(TWO), &board), None, "what is not enabled does not count");
    board.memory = Some(Bytes(40 << 20));
    let problem = memory_problem(&plan(TWO), &board).unwrap();
    assert_eq!(
        problem.message,
        "the services may take 24M of memory and 32K of logs, 8.0M more than the board has for them: 16M (40M less a \
         reserve of 24M)"
    );
    board.memory = None;
    board.own_memory = Some(Bytes(20 << 20));
    assert!(memory_problem(&plan(TWO), &board).unwrap().message.ends_with("20M (20M less a reserve of 0)"));
}
