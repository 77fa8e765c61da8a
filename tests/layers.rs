//! Images of several layers as a running service sees them, with overlayfs and without. Needs root, cgroups and busybox.

mod board;
#[allow(clippy::duplicate_mod)]
mod image_common;

use board::{Board, installed, text};
use coracle::image::tar::write::Writer;
use coracle::image::tar::{Entry, Kind};
use image_common::{Image, archive, file};
use std::fs;

/// A board, where busybox can run on it.
fn board(test: &str) -> Option<Board> {
    if installed(test, &["busybox"]) { Board::new(test) } else { None }
}

/// Whether containers get an overlay, or the layers merged.
fn overlay() -> bool {
    coracle::sandbox::prepare::has_overlayfs()
}

/// A layer of small files; a name that ends in a slash is a folder.
fn layer(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in members {
        let folder = name.ends_with('/');
        let kind = if folder { Kind::Directory } else { Kind::File };
        writer.append(&Entry { mode: 0o755, kind, ..file(name, content.len()) }, *content).unwrap();
    }
    writer.finish().unwrap()
}

/// A layer with busybox and nothing that anything could be mounted on.
fn busybox() -> Vec<u8> {
    layer(&[("bin/busybox", &fs::read(board::find("busybox").unwrap()).unwrap()), ("data/", b"")])
}

/// Puts an image of these layers, above one with busybox, onto the board.
fn put(board: &Board, name: &str, layers: Vec<Vec<u8>>) {
    let layers = [vec![busybox()], layers].concat();
    board.image(name, &archive(&Image::new(layers).save()));
}

/// A service that runs a script.
fn service(name: &str, image: &str, script: &str, more: &str) -> String {
    format!(
        r#"{{ "name": "{name}", "image": "{image}", "command": ["/bin/busybox", "sh", "-c", "{script}"],
            "limits": {{ "memory": "16M" }}, "stop": {{ "timeout": "1s" }} {more} }}"#
    )
}

#[test]
fn three_layers_with_whiteouts_are_one_root() {
    let Some(mut board) = board("three_layers_with_whiteouts_are_one_root") else { return };
    let low = layer(&[
        ("app/keep", b"low"),
        ("app/gone", b"low"),
        ("app/replaced", b"low"),
        ("app/opaque/old", b"low"),
        ("app/folder/x", b"low"),
        ("app/becomes-file/x", b"low"),
        ("app/back", b"low"),
    ]);
    let middle = layer(&[
        ("app/.wh.gone", b""),
        ("app/.wh.back", b""),
        ("app/opaque/new", b"middle"),
        ("app/opaque/.wh..wh..opq", b""),
        ("app/.wh.folder", b""),
        ("app/becomes-file", b"middle"),
    ]);
    let high = layer(&[("app/replaced", b"high"), ("app/back", b"high"), ("app/folder/y", b"high")]);
    put(&board, "app.tar", vec![low, middle, high]);
    let script = "cd /app; for f in $(busybox find . -type f | busybox sort); do echo $f=$(busybox cat $f); done; \
                  echo end; exec busybox sleep 1000";
    board.configure(&service("app", "app.tar", script, ""));
    board.up();
    board.until_logged("app", "end");
    let logged = board.logs("app");
    let seen: Vec<&str> = logged.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let wanted = [
        "./back=high",
        "./becomes-file=middle",
        "./folder/y=high",
        "./keep=low",
        "./opaque/new=middle",
        "./replaced=high",
        "end",
    ];
    assert_eq!(seen, wanted);
    board.down();
}

#[test]
fn an_image_of_127_layers_starts() {
    let Some(mut board) = board("an_image_of_127_layers_starts") else { return };
    let one = |number: usize| layer(&[(&format!("l/{number}"), b"x"), ("l/last", number.to_string().as_bytes())]);
    put(&board, "many.tar", (1..127).map(one).collect());
    let script = "echo files $(busybox ls /l | busybox wc -l) last $(busybox cat /l/last); exec busybox sleep 1000";
    board.configure(&service("many", "many.tar", script, ""));
    board.up();
    board.until_logged("many", "files 127 last 126");
    board.down();
}

#[test]
fn only_a_persistent_root_keeps_what_was_written() {
    let Some(mut board) = board("only_a_persistent_root_keeps_what_was_written") else { return };
    put(&board, "app.tar", vec![layer(&[("data/note", b"of the image")])]);
    let script =
        "echo found $(busybox cat /data/note); echo written > /data/note && echo wrote; exec busybox sleep 1000";
    let kinds = ["read-only", "scratch", "persistent"];
    let all = kinds.map(|kind| service(kind, "app.tar", script, &format!(r#", "root_fs": "{kind}""#)));
    board.configure(&all.join(","));
    board.up();
    board.until_logged("read-only", "Read-only file system");
    if !overlay() {
        for kind in ["scratch", "persistent"] {
            board.until(kind, |board| text(&board.coracle(&["inspect", kind])).contains("no overlayfs"));
        }
        return board.down();
    }
    for kind in ["scratch", "persistent"] {
        board.until_logged(kind, "wrote");
        board.says(&["restart", kind]);
    }
    board.until_logged("persistent", "found written");
    board.until("scratch has run twice", |board| board.logs("scratch").matches("wrote").count() == 2);
    assert_eq!(board.logs("scratch").matches("found of the image").count(), 2);
    board.down();
    // Also over the end of the supervisor.
    board.up();
    board.until("persistent runs", |board| board.logs("persistent").contains("found written"));
    board.down();
    assert!(!board.says(&["verify"]).contains("damaged"), "a layer was written to");
}

#[test]
fn a_full_scratch_root_hurts_its_service_alone() {
    let Some(mut board) = board("a_full_scratch_root_hurts_its_service_alone") else { return };
    if !overlay() {
        return println!("skip: a_full_scratch_root_hurts_its_service_alone: no overlayfs");
    }
    put(&board, "app.tar", Vec::new());
    let fill = "busybox dd if=/dev/zero of=/fill bs=64k count=1024 2>&1; echo filled $(busybox wc -c < /fill); \
                exec busybox sleep 1000";
    let scratch = r#", "root_fs": "scratch", "restart": { "policy": "no" }"#;
    let other = service("other", "app.tar", "echo up; exec busybox sleep 1000", "");
    board.configure(&format!("{}, {other}", service("full", "app.tar", fill, scratch)));
    board.up();
    board.until("other has a process", |board| !matches!(board.field("other", "pid").as_str(), "" | "null"));
    let before = board.field("other", "pid");
    board.until("the root is full or its service was killed", |board| {
        let killed = board.field("full", "state") == "failed" && board.field("full", "reason").contains("memory");
        killed || board.logs("full").contains("No space left on device")
    });
    assert!(!board.logs("full").contains("filled 67108864"), "{}", board.logs("full"));
    assert_eq!((board.field("other", "state").as_str(), board.field("other", "pid")), ("running", before));
    board.down();
}

#[test]
fn a_service_keeps_its_layers_while_the_supervisor_is_dead() {
    let Some(mut board) = board("a_service_keeps_its_layers_while_the_supervisor_is_dead") else { return };
    put(&board, "app.tar", vec![layer(&[("data/note", b"still there")])]);
    let script = "echo up; while busybox sleep 0.1; do echo note $(busybox cat /data/note 2>&1); done";
    board.configure(&service("app", "app.tar", script, ""));
    board.up();
    board.until_logged("app", "note still there");
    let image = board.path("images/app.tar");
    let image = image.to_str().unwrap();
    for dead in [false, true] {
        if dead {
            board.kill_supervisor();
        }
        let refused = text(&board.coracle(&["rmi", image]));
        assert!(refused.contains("in use"), "supervisor dead: {dead}: {refused}");
        board.says(&["prune"]);
        assert_eq!(fs::read_dir(board.path("state/layers")).unwrap().count(), 2);
    }
    // Its file is gone: prune would forget the image if nobody used it.
    fs::rename(image, board.path("elsewhere")).unwrap();
    board.says(&["prune"]);
    assert_eq!(fs::read_dir(board.path("state/layers")).unwrap().count(), 2);
    let lines = board.logs("app").matches("note still there").count();
    board.until("it goes on", |board| board.logs("app").matches("note still there").count() > lines);
    let pid = fs::read_to_string(board.path("run/services/app/instance")).unwrap();
    let init: i32 = pid
        .lines()
        .find_map(|line| line.strip_prefix("init "))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), nix::sys::signal::Signal::SIGKILL).unwrap();
    board.until("what it held goes with it", |board| {
        board.says(&["prune"]);
        fs::read_dir(board.path("state/layers")).unwrap().count() == 0
    });
    board.up();
    board.down();
}
