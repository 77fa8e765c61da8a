//! No layer gets out of its directory: the cases by which container engines were broken, and those of their own tests.
//!
//! Each runs with openat2(2) and with the walk that replaces it on older kernels; both must give the same.

mod archive;

use archive::{Item, dir, file, hardlink, item, mode, symlink, tar, unpack};
use coracle::image::layer::{LayerOptions, Mode};
use coracle::image::tar::Kind;

/// What a case must come to: an error that says this, or a tree that has these paths (with this text in their line).
enum Outcome {
    Refused(&'static str),
    Tree(&'static [(&'static str, &'static str)]),
}
use Outcome::{Refused, Tree};

fn check(name: &str, items: &[Item], outcome: &Outcome) {
    let archive = tar(items);
    let run = |openat2| unpack(&archive, &LayerOptions { openat2, ..LayerOptions::default() });
    let (fast, walked) = (run(true), run(false));
    match outcome {
        Refused(why) => {
            for result in [fast, walked] {
                let error = result.expect_err(name).to_string();
                assert!(error.contains(why), "{name}: {error}");
            }
        }
        Tree(paths) => {
            let (fast, walked) = (fast.unwrap().1, walked.unwrap().1);
            assert_eq!(fast, walked, "{name}: with and without openat2");
            for (path, what) in *paths {
                let line = fast.get(*path).unwrap_or_else(|| panic!("{name}: no {path} in {fast:#?}"));
                assert!(line.contains(what), "{name}: {path}: {line}");
            }
        }
    }
}

fn table(test: &str, cases: &[(&str, Vec<Item>, Outcome)]) {
    if archive::is_root(test) {
        cases.iter().for_each(|(name, items, outcome)| check(name, items, outcome));
    }
}

#[test]
fn names_stay_inside() {
    table(
        "names_stay_inside",
        &[
            ("dot-dot", vec![file("../canary", "x")], Refused("'..'")),
            ("dot-dot inside", vec![dir("a"), file("a/../../canary", "x")], Refused("'..'")),
            ("dot-dot that would stay inside", vec![dir("a"), file("a/../b", "x")], Refused("'..'")),
            ("only dot-dot", vec![dir("..")], Refused("'..'")),
            ("absolute", vec![file("/etc/passwd", "x")], Tree(&[("etc/passwd", "\"x\"")])),
            ("slashes", vec![file("//etc//./passwd", "x")], Tree(&[("etc/passwd", "\"x\"")])),
            ("missing parents", vec![file("a/b/c", "x")], Tree(&[("a", "dir 0755"), ("a/b/c", "\"x\"")])),
            ("deep", vec![file(&"d/".repeat(70), "")], Refused("ends in '/'")),
            ("too deep", vec![dir(&"d/".repeat(70))], Refused("path_depth")),
            ("component too long", vec![file(&"n".repeat(300), "x")], Refused("ENAMETOOLONG")),
        ],
    );
}

#[test]
fn the_root_is_never_replaced() {
    let mut cases = Vec::new();
    for root in [".", "./", "/", "//", "./."] {
        let slash = root.ends_with('/');
        for kind in [Kind::Symlink(b"/etc".to_vec()), Kind::HardLink(b"a".to_vec()), Kind::Fifo] {
            cases.push((
                root,
                vec![file("a", "x"), item(root, kind, 0o777), file("b", "y")],
                Refused("root directory"),
            ));
        }
        let refused = if slash { "ends in '/'" } else { "root directory" };
        cases.push((root, vec![file(root, "x")], Refused(refused)));
        cases.push((root, vec![mode(dir(root), 0o750), file("b", "y")], Tree(&[("b", "\"y\"")])));
    }
    table("the_root_is_never_replaced", &cases);
}

#[test]
fn symbolic_links_are_followed_inside_the_root_only() {
    table(
        "symbolic_links_are_followed_inside_the_root_only",
        &[
            (
                "absolute link to a directory",
                vec![symlink("out", "/etc"), file("out/passwd", "x")],
                Tree(&[("out", "-> /etc"), ("etc/passwd", "\"x\"")]),
            ),
            (
                "relative link out",
                vec![symlink("out", "../../../../etc"), file("out/passwd", "x")],
                Tree(&[("etc/passwd", "\"x\"")]),
            ),
            (
                "nested link out",
                vec![dir("a/b"), symlink("a/b/out", "../../../tmp"), file("a/b/out/x", "x")],
                Tree(&[("tmp/x", "\"x\"")]),
            ),
            (
                "link chain",
                vec![symlink("one", "two"), symlink("two", "/three/../four"), file("one/x", "x")],
                Tree(&[("four/x", "\"x\"")]),
            ),
            ("link to itself", vec![symlink("me", "me"), file("me/x", "x")], Refused("symbolic links")),
            (
                "links to each other",
                vec![symlink("a", "b/x"), symlink("b", "a/x"), file("a/y", "x")],
                Refused("symbolic links"),
            ),
            ("link to dot-dot", vec![symlink("up", ".."), file("up/x", "x")], Tree(&[("x", "\"x\"")])),
            ("link to the root", vec![symlink("top", "/"), file("top/x", "x")], Tree(&[("x", "\"x\"")])),
            (
                "merged usr",
                vec![dir("usr/lib"), symlink("lib", "usr/lib"), file("lib/a.so", "x")],
                Tree(&[("lib", "-> usr/lib"), ("usr/lib/a.so", "\"x\"")]),
            ),
            ("a file as a parent", vec![file("a", "x"), file("a/b", "y")], Refused("no directory")),
            (
                "link to a file as a parent",
                vec![file("a", "x"), symlink("l", "a"), file("l/b", "y")],
                Refused("no directory"),
            ),
            (
                "link to proc",
                vec![symlink("p", "/proc/self/root"), file("p/x", "x")],
                Tree(&[("proc/self/root/x", "x")]),
            ),
        ],
    );
}

#[test]
fn nothing_is_written_through_a_link() {
    table(
        "nothing_is_written_through_a_link",
        &[
            (
                "file over absolute link",
                vec![symlink("l", "/etc/passwd"), file("l", "x")],
                Tree(&[("l", "file \"x\"")]),
            ),
            ("file over relative link", vec![symlink("l", "../canary"), file("l", "x")], Tree(&[("l", "file \"x\"")])),
            (
                "directory over link to a directory",
                vec![symlink("l", "../etc"), mode(dir("l"), 0o700), file("l/passwd", "x")],
                Tree(&[("l", "dir 0700"), ("l/passwd", "\"x\"")]),
            ),
            (
                "mode through a link inside",
                vec![mode(dir("keep"), 0o700), symlink("l", "keep"), mode(dir("l"), 0o777)],
                Tree(&[("keep", "dir 0700"), ("l", "dir 0777")]),
            ),
            (
                "link over link",
                vec![symlink("l", "../etc"), symlink("l", "a"), file("l/x", "x")],
                Tree(&[("l", "-> a"), ("a/x", "\"x\"")]),
            ),
            (
                "directory, then link, then file beneath",
                vec![dir("d"), file("d/x", "1"), symlink("d", "../etc"), file("d/passwd", "x")],
                Tree(&[("d", "-> ../etc"), ("etc/passwd", "\"x\"")]),
            ),
            (
                "directory replaced by a file",
                vec![dir("d"), file("d/x/y", "1"), file("d", "x")],
                Tree(&[("d", "file \"x\"")]),
            ),
            (
                "file replaced by a directory",
                vec![file("d", "x"), dir("d"), file("d/y", "1")],
                Tree(&[("d", "dir"), ("d/y", "\"1\"")]),
            ),
            (
                "fifo over link",
                vec![symlink("l", "../canary"), item("l", Kind::Fifo, 0o644)],
                Tree(&[("l", "fifo 0644")]),
            ),
            ("removal stops at links", vec![symlink("d/l", "../../etc"), file("d", "x")], Tree(&[("d", "\"x\"")])),
        ],
    );
}

#[test]
fn hard_links_stay_inside() {
    table(
        "hard_links_stay_inside",
        &[
            ("absolute", vec![hardlink("p", "/etc/passwd")], Refused("hard link to \"/etc/passwd\"")),
            ("relative", vec![hardlink("p", "../etc/passwd")], Refused("'..'")),
            ("missing", vec![hardlink("p", "nothing")], Refused("no file of this layer")),
            ("to the root", vec![hardlink("p", "/")], Refused("no file of this layer")),
            ("to a directory", vec![dir("d"), hardlink("p", "d")], Refused("no file of this layer")),
            ("to itself", vec![file("p", "x"), hardlink("p", "p")], Refused("no file of this layer")),
            ("to itself by another name", vec![file("p", "x"), hardlink("./p", "p")], Refused("no file of this layer")),
            (
                "to itself through a link",
                vec![file("d/p", "x"), symlink("l", "d"), hardlink("l/p", "d/p")],
                Tree(&[("d/p", "\"x\"")]),
            ),
            (
                "through a link out",
                vec![symlink("l", "../etc"), hardlink("p", "l/passwd")],
                Refused("no file of this layer"),
            ),
            (
                "to a link out, then written",
                vec![symlink("l", "../canary"), hardlink("p", "l"), file("p", "x")],
                Tree(&[("l", "-> ../canary"), ("p", "file \"x\"")]),
            ),
            (
                "to a link out, mode",
                vec![symlink("l", "../canary"), mode(hardlink("p", "l"), 0o4777)],
                Tree(&[("p", "-> ../canary")]),
            ),
            (
                "one of two names is replaced",
                vec![file("a", "1"), hardlink("b", "a"), file("b", "2")],
                Tree(&[("a", "\"1\""), ("b", "\"2\"")]),
            ),
            (
                "over a directory that holds its target",
                vec![file("d/a", "1"), hardlink("d", "d/a")],
                Refused("no file of this layer"),
            ),
            ("to a whiteout", vec![file(".wh.a", ""), hardlink("b", "a")], Refused("no file of this layer")),
        ],
    );
}

#[test]
fn whiteouts_stay_inside_and_have_good_names() {
    let dev = |path| item(path, Kind::CharDevice { major: 0, minor: 0 }, 0o644);
    table(
        "whiteouts_stay_inside_and_have_good_names",
        &[
            ("of nothing", vec![file(".wh.", "")], Refused("whiteout")),
            ("of dot", vec![file(".wh..", "")], Refused("whiteout")),
            ("of dot-dot", vec![file("a/.wh...", "")], Refused("whiteout")),
            ("a directory", vec![dir(".wh.a")], Refused("whiteout")),
            ("a link", vec![symlink(".wh.a", "/etc")], Refused("whiteout")),
            ("with entries beneath", vec![file(".wh.a/b", "x")], Refused("whiteout")),
            ("of aufs", vec![file(".wh..wh.plnk/1", "x"), file("a", "y")], Tree(&[("a", "\"y\"")])),
            ("plain", vec![file("a/.wh.b", "")], Tree(&[("a/b", "device 0x0")])),
            ("opaque", vec![file("a/.wh..wh..opq", "")], Tree(&[("a", "opaque dir")])),
            (
                "through a link out",
                vec![symlink("l", "../etc"), file("l/.wh.passwd", "")],
                Tree(&[("etc/passwd", "device")]),
            ),
            (
                "opaque through a link out",
                vec![symlink("l", "../etc"), file("l/.wh..wh..opq", "")],
                Tree(&[("etc", "opaque dir")]),
            ),
            ("as a device node", vec![dev("a")], Refused("0:0")),
        ],
    );
}

#[test]
fn a_root_filesystem_has_nothing_to_hide() {
    let archive = tar(&[file("a/.wh.b", ""), file("a/.wh..wh..opq", ""), file("a/b", "x")]);
    let owners = nix::unistd::geteuid().is_root();
    let options = LayerOptions { mode: Mode::Rootfs, owners, ..LayerOptions::default() };
    let (report, tree) = unpack(&archive, &options).unwrap();
    assert_eq!(report.whiteouts, 2);
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["a", "a/b"]);
}
