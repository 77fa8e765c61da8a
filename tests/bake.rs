//! `coracle bake` as a firmware build meets it, and the board that gets the store.

mod archive;
mod board;
mod image_common;

use archive::{Item, dir, file, hardlink, item, mode, symlink, xattr};
use board::Board;
use coracle::image::tar::Kind;
use image_common::{COMMAND, Image, Ran, ran, root, sh, tools};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Somebody without any privilege.
const NOBODY: u32 = 65534;

/// A firmware build: `rootfs` with the config, `images` with the archives, `out` for what is made.
struct Build {
    folder: tempfile::TempDir,
}

fn owned_by(uid: u32, gid: u32, Item(entry, data): Item) -> Item {
    Item(coracle::image::tar::Entry { uid, gid, ..entry }, data)
}

/// Two layers with all that only root can put on a disk.
fn layers() -> [Vec<u8>; 2] {
    let low = archive::tar(&[
        mode(dir("etc"), 0o755),
        file("etc/old", "old"),
        file("lib/a/x", "x"),
        owned_by(1000, 1001, mode(file("bin/app", "app"), 0o4755)),
        hardlink("bin/other", "bin/app"),
        symlink("bin/sh", "app"),
        owned_by(33, 33, mode(dir("var/www"), 0o2770)),
        xattr(file("var/www/page", "page"), "user.mime_type", b"text/html"),
        item("var/fifo", Kind::Fifo, 0o600),
    ]);
    let high =
        archive::tar(&[file("etc/.wh.old", ""), dir("lib/a"), file("lib/a/.wh..wh..opq", ""), file("lib/a/y", "y")]);
    [low, high]
}

impl Build {
    fn new(services: &str) -> Build {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let build = Build { folder };
        for name in ["rootfs/etc/coracle", "images", "out"] {
            fs::create_dir_all(build.path(name)).unwrap();
        }
        let config = format!(
            r#"{{ "version": 1, "device": {{ "images": ["/data/images", "/opt/images"], "state": "/data/coracle",
                 "memory": "128M", "store": "/usr/share/coracle/store" }}, "services": [ {services} ] }}"#
        );
        fs::write(build.path("rootfs/etc/coracle/config.json"), config).unwrap();
        build
    }

    /// Two images that share a layer; `both` is for arm64 and of two layers, `low` a plain tarball of the lower.
    fn usual() -> Build {
        let build = Build::new(
            r#"{ "name": "one", "image": "both.tar#app:1", "limits": { "memory": "8M" } },
               { "name": "again", "image": "both.tar#app:1", "command": ["/bin/sh"], "limits": { "memory": "8M" } },
               { "name": "two", "image": "low.tar", "command": ["/bin/app"], "limits": { "memory": "8M" } }"#,
        );
        let [low, high] = layers();
        fs::write(build.path("images/low.tar"), &low).unwrap();
        let mut image = Image::new(vec![low, high]);
        image.config = image.config.replace("amd64", "arm64");
        fs::write(build.path("images/both.tar"), image_common::archive(&image.docker_only())).unwrap();
        build
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, output: &str) -> Command {
        let mut command = Command::new(COMMAND);
        command.args(["bake", "--arch", "arm64", "--root"]).arg(self.path("rootfs"));
        command.arg("--images").arg(self.path("images")).arg("-o").arg(self.path(output));
        command.env_remove("SOURCE_DATE_EPOCH");
        command
    }

    fn bake(&self, output: &str) -> Ran {
        ran(self.command(output).output().unwrap())
    }

    fn baked(&self, output: &str) -> String {
        let ran = self.bake(output);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        ran.out
    }

    /// A config for this machine whose store is `store`, and what a command says with it.
    fn on_board(&self, store: &str, words: &[&str]) -> Ran {
        let text = fs::read_to_string(self.path("rootfs/etc/coracle/config.json")).unwrap();
        let text = text.replace("/usr/share/coracle/store", self.path(store).to_str().unwrap());
        let text = text.replace("/data/coracle", self.path("state").to_str().unwrap());
        fs::write(self.path("board.json"), text).unwrap();
        ran(Command::new(COMMAND).args(words).arg("-c").arg(self.path("board.json")).output().unwrap())
    }
}

#[test]
fn the_same_images_give_the_same_bytes_whoever_bakes_and_when() {
    let build = Build::usual();
    let said = build.baked("out/first.tar");
    assert!(said.contains("2 images for linux/arm64/v8, 2 layers"), "{said}");
    assert!(said.contains("1 setuid and setgid bits dropped"), "{said}");
    fs::copy(build.path("images/low.tar"), build.path("images/copy")).unwrap();
    fs::rename(build.path("images/copy"), build.path("images/low.tar")).unwrap();
    if nix::unistd::geteuid().is_root() {
        chown(build.path("out"), Some(NOBODY), Some(NOBODY)).unwrap();
        let nobody = ran(build.command("out/second.tar").uid(NOBODY).gid(NOBODY).output().unwrap());
        assert_eq!(nobody.code, 0, "{}{}", nobody.out, nobody.err);
        assert_eq!(fs::metadata(build.path("out/second.tar")).unwrap().uid(), NOBODY);
    } else {
        build.baked("out/second.tar");
    }
    assert!(fs::read(build.path("out/first.tar")).unwrap() == fs::read(build.path("out/second.tar")).unwrap());
    let left: Vec<_> = fs::read_dir(build.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn the_tar_unpacked_by_others_is_the_store_that_verify_expects() {
    const NAME: &str = "the_tar_unpacked_by_others_is_the_store_that_verify_expects";
    if !root(NAME) {
        return;
    }
    let build = Build::usual();
    build.baked("out/store.tar");
    fs::create_dir(build.path("store")).unwrap();
    let tar = ["--xattrs", "--xattrs-include=*", "-C", "store", "-xf", "out/store.tar"];
    sh(build.folder.path(), "tar", &tar);
    let verified = build.on_board("store", &["verify"]);
    assert_eq!(
        (verified.code, verified.out.trim()),
        (0, "2 of 2 layers are as they were unpacked"),
        "{}",
        verified.err
    );
    let listed = build.on_board("store", &["images"]).out;
    assert_eq!(listed.matches("read-only").count(), 2, "{listed}");
    assert!(listed.contains("/data/images/both.tar#app:1"), "{listed}");
    for (command, image) in [("rmi", "low.tar"), ("prune", "")] {
        let words: Vec<&str> = [command, image].into_iter().filter(|word| !word.is_empty()).collect();
        let ran = build.on_board("store", &words);
        assert_eq!(ran.err.contains("goes with the firmware"), command == "rmi", "{}{}", ran.out, ran.err);
    }
    // Firmware builds set all times to one.
    sh(build.folder.path(), "find", &["store", "-exec", "touch", "-h", "-d", "@1", "{}", "+"]);
    assert_eq!(build.on_board("store", &["verify"]).code, 0);
    let page = build.path("store/layers");
    let page = fs::read_dir(page).unwrap().map(|layer| layer.unwrap().path().join("tree/var/www/page"));
    chown(page.into_iter().find(|path| path.exists()).unwrap(), Some(7), None).unwrap();
    let verified = build.on_board("store", &["verify"]);
    assert!(verified.code == 1 && verified.out.contains("is damaged"), "{}", verified.out);
}

#[test]
fn a_folder_is_made_by_root_alone_and_is_the_same_store() {
    if !root("a_folder_is_made_by_root_alone_and_is_the_same_store") {
        return;
    }
    let build = Build::usual();
    chown(build.path("out"), Some(NOBODY), Some(NOBODY)).unwrap();
    let nobody = ran(build.command("out/store/").uid(NOBODY).gid(NOBODY).output().unwrap());
    assert_eq!(nobody.code, 1);
    assert!(nobody.err.contains("only root makes; write a tar"), "{}", nobody.err);
    assert_eq!(fs::read_dir(build.path("out")).unwrap().count(), 0);
    build.baked("out/store/");
    let verified = build.on_board("out/store", &["verify"]);
    assert_eq!(
        (verified.code, verified.out.trim()),
        (0, "2 of 2 layers are as they were unpacked"),
        "{}",
        verified.err
    );
    let again = build.bake("out/store");
    assert!(again.code == 1 && again.err.contains("is not empty"), "{}", again.err);
}

#[test]
fn squashfs_and_erofs_are_made_of_the_tar_as_it_is() {
    const NAME: &str = "squashfs_and_erofs_are_made_of_the_tar_as_it_is";
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    if !root(NAME) || !tools(NAME, &["sqfstar", "mount"]) {
        return;
    }
    if !known.contains("squashfs") || !Path::new("/dev/loop-control").exists() {
        eprintln!("skip: {NAME}: this kernel has no squashfs or no loop devices");
        return;
    }
    let build = Build::usual();
    build.baked("out/store.tar");
    let make = "sqfstar -no-progress -all-time 1 out/store.squashfs < out/store.tar > /dev/null";
    sh(build.folder.path(), "sh", &["-c", make]);
    fs::create_dir(build.path("store")).unwrap();
    sh(build.folder.path(), "mount", &["-o", "loop,ro", "out/store.squashfs", "store"]);
    let verified = build.on_board("store", &["verify"]);
    let removed = build.on_board("store", &["rmi", "low.tar"]);
    sh(build.folder.path(), "umount", &["store"]);
    assert_eq!(
        (verified.code, verified.out.trim()),
        (0, "2 of 2 layers are as they were unpacked"),
        "{}",
        verified.err
    );
    assert!(removed.err.contains("goes with the firmware"), "{}", removed.err);
}

#[test]
fn what_the_board_would_refuse_is_refused_here() {
    let build = Build::usual();
    let refused = |word: &str| {
        let ran = build.bake("out/store.tar");
        assert!(ran.code == 78 && ran.err.contains(word), "{word}: {}{}", ran.out, ran.err);
        assert_eq!(fs::read_dir(build.path("out")).unwrap().count(), 0);
    };
    let good = fs::read(build.path("images/both.tar")).unwrap();
    let mut bad = good.clone();
    // The name in the header ends the same way; the content comes after it.
    let at = bad.windows(8).rposition(|eight| eight == b"page\0\0\0\0").unwrap();
    bad[at] ^= 1;
    fs::write(build.path("images/both.tar"), &bad).unwrap();
    refused("the archive is damaged");
    fs::remove_file(build.path("images/both.tar")).unwrap();
    refused("image \"both.tar\" is missing");
    fs::write(build.path("images/both.tar"), good).unwrap();
    let config = build.path("rootfs/etc/coracle/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"8M\"", "\"64M\"")).unwrap();
    refused("more than the board has");
    fs::write(&config, text.replace("\"limits\"", "\"limit\"")).unwrap();
    refused("did you mean");
    fs::write(&config, text).unwrap();
    let mut other = build.command("out/store.tar");
    let wrong = ran(other.args(["--arch", "arm64"]).output().unwrap());
    assert_eq!(wrong.code, 2, "an option twice");
}

#[test]
fn an_escape_from_the_archive_reaches_nothing() {
    let build = Build::new(r#"{ "name": "x", "image": "x.tar", "command": ["/x"], "limits": { "memory": "8M" } }"#);
    let out = build.path("images").display().to_string();
    let items = [symlink("a", &out), symlink("b", "../../../../../../.."), file("a/evil", "x"), file("b/evil", "x")];
    fs::write(build.path("images/x.tar"), archive::tar(&items)).unwrap();
    build.baked("out/store.tar");
    assert!(!build.path("images/evil").exists() && !Path::new("/evil").exists());
    let list = Command::new("tar").args(["-tf"]).arg(build.path("out/store.tar")).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.lines().all(|name| name.starts_with("layers/") || name.starts_with("images/")), "{list}");
}

#[test]
fn a_board_with_a_baked_store_starts_without_unpacking_anything() {
    const NAME: &str = "a_board_with_a_baked_store_starts_without_unpacking_anything";
    let Some(mut board) = Board::new(NAME) else { return };
    if !board::installed(NAME, &["busybox"]) {
        return;
    }
    let build = Build::new(
        r#"{ "name": "web", "image": "web.tar", "command": ["/bin/busybox", "sleep", "1000"], "limits": { "memory": "8M" } }"#,
    );
    let program = fs::read(board::find("busybox").unwrap()).unwrap();
    let Item(entry, _) = mode(file("bin/busybox", ""), 0o755);
    let entry = coracle::image::tar::Entry { size: program.len() as u64, ..entry };
    fs::write(build.path("images/web.tar"), archive::tar(&[Item(entry, program)])).unwrap();
    build.baked("out/store/");
    let text = fs::read_to_string(build.path("rootfs/etc/coracle/config.json")).unwrap();
    let text = text.replace("/usr/share/coracle/store", build.path("out/store").to_str().unwrap());
    fs::write(board.path("config.json"), text.replace("/data/coracle", board.path("state").to_str().unwrap())).unwrap();
    board.up();
    board.until_running("web");
    assert!(!board.report().contains("unpacking"), "{}", board.report());
    let unpacked_nothing = || {
        for folder in ["layers", "images", "staging"] {
            assert_eq!(fs::read_dir(board.path("state").join(folder)).unwrap().count(), 0, "{folder}");
        }
    };
    unpacked_nothing();

    // `run` looks into the store that the device's config names, which is in /etc.
    let script = "mount -t tmpfs none /etc && mkdir /etc/coracle && cp \"$0\" /etc/coracle/config.json && exec \"$@\"";
    let config = board.path("config.json");
    let words = [env!("CARGO_BIN_EXE_coracle"), "run", "web.tar", "/bin/busybox", "echo", "out of the store"];
    let mut command = std::process::Command::new("unshare");
    let ran = command.args(["--mount", "sh", "-c", script]).arg(config).args(words).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "out of the store\n", "{}", board::text(&ran));
    unpacked_nothing();
    board.down();
}
