//! squashfs and EROFS files as images: mounted as they are, by whoever runs them, and nothing left behind.

mod busybox_board;

use busybox_board::board::{self, Board, find, installed};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const KINDS: [&str; 2] = ["squashfs", "erofs"];

/// A board with `app.squashfs` and `app.erofs`, which have every mount point, and `bare.…`, which have none; `None`, after
/// saying why, where they cannot be made or mounted. A machine without the tools may bring them in the folder FILESYSTEMS.
fn board(test: &str) -> Option<Board> {
    let board = Board::new(test)?;
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    if let Some(missing) = KINDS.iter().find(|kind| !known.contains(*kind)) {
        println!("skip: {test}: this kernel has no {missing}");
        return None;
    }
    if !Path::new("/dev/loop-control").exists() {
        println!("skip: {test}: this kernel has no loop devices");
        return None;
    }
    let made = std::env::var_os("FILESYSTEMS").map(PathBuf::from);
    if made.is_none() && !installed(test, &["mksquashfs", "mkfs.erofs", "busybox"]) {
        return None;
    }
    for name in ["app", "bare"] {
        let root = board.path(name);
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        if name == "app" {
            for path in ["dev", "proc", "sys", "tmp", "run", "var/tmp"] {
                fs::create_dir_all(root.join(path)).unwrap();
            }
        }
        for kind in KINDS {
            let image = board.path("images").join(format!("{name}.{kind}"));
            match &made {
                Some(folder) => drop(fs::copy(folder.join(format!("{name}.{kind}")), image).unwrap()),
                None => make(kind, &root, &image),
            }
        }
    }
    Some(board)
}

fn make(kind: &str, root: &Path, image: &Path) {
    if !root.join("bin/busybox").exists() {
        fs::copy(find("busybox").unwrap(), root.join("bin/busybox")).unwrap();
        for name in ["sh", "cat", "id", "sleep", "touch", "echo"] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home:/bin/sh\n").unwrap();
    }
    let output = match kind {
        "squashfs" => Command::new("mksquashfs").arg(root).arg(image).args(["-noappend", "-no-progress"]).output(),
        _ => Command::new("mkfs.erofs").arg(image).arg(root).output(),
    };
    let output = output.unwrap();
    assert!(output.status.success(), "{}", board::text(&output));
}

/// `coracle run` of an image of the board.
fn run(board: &Board, options: &[&str], image: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command.args(["run", "--state"]).arg(board.path("state")).args(options);
    command.arg(board.path("images").join(image)).args(words).output().unwrap()
}

fn loops(board: &Board) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    let files = devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    let folder = board.path("images").display().to_string();
    files.filter(|file| file.contains(&folder)).collect()
}

#[test]
fn root_a_file_system_runs_without_being_unpacked() {
    let Some(board) = board("root_a_file_system_runs_without_being_unpacked") else { return };
    for kind in KINDS {
        for name in ["app", "bare"] {
            let image = format!("{name}.{kind}");
            let script = "id -u; touch /x 2>/dev/null || echo read-only; echo kept > /tmp/x && cat /tmp/x";
            let output = run(&board, &["-u", "app"], &image, &["/bin/sh", "-c", script]);
            assert_eq!(board::text(&output), "1000\nread-only\nkept\n", "{image}");
            let script = "echo x > /etc/new && cat /etc/new";
            let output = run(&board, &["--scratch"], &image, &["/bin/sh", "-c", script]);
            assert_eq!(board::text(&output), "x\n", "{image}");
        }
    }
    assert_eq!(fs::read_dir(board.path("state/layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(board.path("state/staging")).unwrap().count(), 0);
    board.until("no loop device is left", |board| loops(board).is_empty());
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(board.path("").to_str().unwrap()));
}

#[test]
fn root_a_service_of_a_file_system_starts_again_and_leaves_no_device() {
    let Some(mut board) = board("root_a_service_of_a_file_system_starts_again_and_leaves_no_device") else { return };
    let service = |name: &str, image: &str, more: &str| {
        format!(
            r#"{{ "name": "{name}", "image": "{image}", "command": ["/bin/sh", "-c", "echo begun; sleep 1000"],
                 "limits": {{ "memory": "8M" }}{more} }}"#
        )
    };
    let services = [
        service("one", "app.squashfs", ""),
        service("two", "bare.erofs", r#", "root_fs": "persistent""#),
        service("three", "app.squashfs", r#", "user": "app""#),
    ];
    board.configure(&services.join(","));
    board.up();
    for name in ["one", "two", "three"] {
        board.until_logged(name, "begun");
    }
    assert!(!board.report().contains("unpacking"), "{}", board.report());
    for _ in 0..3 {
        board.says(&["restart", "one", "two"]);
        for name in ["one", "two"] {
            board.until_running(name);
        }
    }
    board.until("each service has one device", |board| loops(board).len() == 3);
    let listed = board.says(&["images"]);
    assert!(listed.contains("squashfs") && listed.contains("erofs"), "{listed}");
    board.down();
    board.until("no loop device is left", |board| loops(board).is_empty());
}

#[test]
fn root_what_can_be_verified_of_a_file_system_is_said() {
    let Some(board) = board("root_what_can_be_verified_of_a_file_system_is_said") else { return };
    let image = board.path("images/app.erofs");
    let shown = image.to_str().unwrap();
    assert!(board.says(&["unpack", shown]).contains("mounted as it is: there is nothing to unpack"));
    let said = board.says(&["verify"]);
    assert!(said.contains("size and time are as when it was first used; its content is not verified"), "{said}");
    let named = board.coracle(&["unpack", &format!("{shown}#app:1")]);
    assert!(named.status.code() == Some(78) && board::text(&named).contains("name it without '#'"));
    // Cut in its middle it still begins like a file system.
    let bytes = fs::read(&image).unwrap();
    fs::write(&image, &bytes[..8192]).unwrap();
    let changed = board.coracle(&["verify"]);
    assert_eq!(changed.status.code(), Some(1), "{}", board::text(&changed));
    fs::write(board.path("images/cut.squashfs"), &fs::read(board.path("images/app.squashfs")).unwrap()[..4096])
        .unwrap();
    let output = run(&board, &[], "cut.squashfs", &["/bin/id"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(board::text(&output).contains("cut.squashfs cannot be mounted as squashfs"), "{}", board::text(&output));
    assert_eq!(fs::read_dir(board.path("state/staging")).unwrap().count(), 0);
    board.until("no loop device is left", |board| loops(board).is_empty());
}
