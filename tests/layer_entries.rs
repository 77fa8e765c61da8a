//! What a layer's entries become: whiteouts in any order, dropped privileges, kept attributes, sparse files, caps.

mod archive;

use archive::{Item, Place, block, dir, file, hardlink, item, mode, padded, pax, record, symlink, tar, unpack, xattr};
use coracle::base::units::Bytes;
use coracle::image::layer::{LayerOptions, Mode, NodePolicy, Used};
use coracle::image::tar::{Entry, Kind, Mtime};
use coracle::plan::device::ImageCaps;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Options that work without root too.
fn plain() -> LayerOptions {
    LayerOptions { mode: Mode::Rootfs, owners: nix::unistd::geteuid().is_root(), ..LayerOptions::default() }
}

/// Calls `each` with all orders of `items` (Heap's algorithm).
fn permutations(items: &mut Vec<Item>, length: usize, each: &mut impl FnMut(&[Item])) {
    if length <= 1 {
        return each(items);
    }
    for i in 0..length {
        permutations(items, length - 1, each);
        items.swap(if length.is_multiple_of(2) { i } else { 0 }, length - 1);
    }
}

#[test]
fn whiteouts_mean_the_same_in_any_order() {
    if !archive::is_root("whiteouts_mean_the_same_in_any_order") {
        return;
    }
    let mut items = vec![
        file("d/.wh.old", ""),
        file("d/new", "1"),
        file("d/.wh.new", ""),
        file(".wh.redone", ""),
        file("redone/x", "2"),
        file("redone/.wh..wh..opq", ""),
    ];
    let length = items.len();
    let mut trees = std::collections::BTreeSet::new();
    let mut openat2 = false;
    permutations(&mut items, length, &mut |order| {
        openat2 = !openat2;
        let place = Place::new();
        place.unpack(&tar(order), &LayerOptions { openat2, ..LayerOptions::default() }).unwrap();
        trees.insert(format!("{:#?}", place.tree()));
    });
    assert_eq!(trees.len(), 1, "{trees:#?}");
    let tree = trees.first().unwrap();
    for line in
        ["\"d\": \"dir", "d/old\": \"device 0x0", "d/new\": \"file", "\"redone\": \"opaque dir", "redone/x\": \"file"]
    {
        assert!(tree.contains(line), "{line} in {tree}");
    }
}

#[test]
fn a_whiteout_and_a_directory_of_one_name_hide_what_is_below_only() {
    if !archive::is_root("a_whiteout_and_a_directory_of_one_name_hide_what_is_below_only") {
        return;
    }
    let mut items = vec![file(".wh.d", ""), dir("d"), file("d/x", "1"), dir("d/e")];
    let length = items.len();
    permutations(&mut items, length, &mut |order| {
        let (_, tree) = unpack(&tar(order), &LayerOptions::default()).unwrap();
        let lines: Vec<_> = tree.into_iter().collect();
        let expected = [("d", "opaque dir 0755"), ("d/e", "dir 0755"), ("d/x", "file \"1\" 0644")];
        assert_eq!(lines, expected.map(|(path, line)| (path.to_string(), line.to_string())));
    });
}

#[test]
fn an_opaque_root_is_reported() {
    if !archive::is_root("an_opaque_root_is_reported") {
        return;
    }
    assert!(unpack(&tar(&[file(".wh..wh..opq", "")]), &LayerOptions::default()).unwrap().0.opaque_root);
    assert!(!unpack(&tar(&[file("a/.wh..wh..opq", "")]), &LayerOptions::default()).unwrap().0.opaque_root);
}

#[test]
fn what_raises_privileges_is_dropped_and_counted() {
    let cap = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let items = [
        mode(file("su", "x"), 0o4755),
        mode(file("wall", "x"), 0o2755),
        mode(file("both", "x"), 0o6755),
        hardlink("again", "su"),
        mode(dir("mail"), 0o2775),
        mode(dir("tmp"), 0o1777),
        xattr(file("ping", "x"), "security.capability", cap),
    ];
    let place = Place::new();
    let report = place.unpack(&tar(&items), &plain()).unwrap();
    assert_eq!((report.setuid_dropped, report.setgid_dropped, report.filecaps_dropped), (2, 2, 1));
    let tree = place.tree();
    for (path, line) in [
        ("su", "file \"x\" 0755"),
        ("wall", "file \"x\" 0755"),
        ("both", "file \"x\" 0755"),
        ("again", "file \"x\" 0755"),
        ("mail", "dir 2775"),
        ("tmp", "dir 1777"),
    ] {
        assert_eq!(tree[path], line, "{path}");
    }
    let ping = fs::File::open(place.root().join("ping")).unwrap();
    assert!(coracle::sys::xattr::get(ping.as_fd(), c"security.capability").is_err());
}

#[test]
fn attributes_that_steer_the_host_are_dropped_and_counted() {
    let mut item = xattr(dir("d"), "user.note", b"kept\0\n");
    for name in
        ["trusted.overlay.redirect", "trusted.overlay.metacopy", "trusted.overlay.opaque", "user.overlay.opaque"]
    {
        item = xattr(item, name, b"y");
    }
    item = xattr(item, "security.selinux", b"system_u:object_r:bin_t:s0");
    item = xattr(item, "trusted.md5sum", b"x");
    let place = Place::new();
    let report = place.unpack(&tar(&[item]), &plain()).unwrap();
    let folder = fs::File::open(place.root().join("d")).unwrap();
    let names = coracle::sys::xattr::list(folder.as_fd()).unwrap();
    if names.is_empty() {
        println!("skip: user attributes: the file system of the temporary folder has none");
        assert_eq!(report.xattrs_dropped, 7);
        return;
    }
    assert_eq!(names, [c"user.note".to_owned()]);
    assert_eq!(report.xattrs_dropped, 6);
    assert_eq!(coracle::sys::xattr::get(folder.as_fd(), c"user.note").unwrap(), b"kept\0\n");
}

#[test]
fn nodes_follow_the_policy() {
    let items = [
        item("disk", Kind::BlockDevice { major: 8, minor: 0 }, 0o660),
        item("null", Kind::CharDevice { major: 1, minor: 3 }, 0o666),
        item("pipe", Kind::Fifo, 0o622),
    ];
    let run = |devices, fifos| unpack(&tar(&items), &LayerOptions { devices, fifos, ..plain() });
    let (report, tree) = run(NodePolicy::Skip, NodePolicy::Keep).unwrap();
    assert_eq!((report.devices_skipped, report.fifos_skipped), (2, 0));
    assert_eq!(tree.into_iter().collect::<Vec<_>>(), [("pipe".to_string(), "fifo 0622".to_string())]);
    let (report, tree) = run(NodePolicy::Skip, NodePolicy::Skip).unwrap();
    assert_eq!((report.devices_skipped, report.fifos_skipped, tree.len()), (2, 1, 0));
    let error = run(NodePolicy::Refuse, NodePolicy::Keep).unwrap_err().to_string();
    assert!(error.starts_with("entry \"disk\": device nodes"), "{error}");
    if archive::is_root("device nodes are made when the policy keeps them") {
        let (_, tree) = run(NodePolicy::Keep, NodePolicy::Keep).unwrap();
        assert_eq!(tree["null"], "device 0x103 0666");
        assert_eq!(tree["disk"], "device 0x800 0660");
    }
}

#[test]
fn owners_times_and_long_names_are_kept() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let at = |item: Item, seconds, nanoseconds| {
        Item(Entry { mtime: Mtime { seconds, nanoseconds }, uid: 12, gid: 3_000_000, ..item.0 }, item.1)
    };
    let items = [
        at(dir("."), 5, 0),
        at(dir("a"), 86_400, 7),
        at(file("a/f", "x"), 1_700_000_000, 123_456_789),
        at(file(&long, "x"), -86_400, 0),
        at(symlink("l", &long), 7, 0),
        at(dir("a/b"), 9, 0),
    ];
    let place = Place::new();
    place.unpack(&tar(&items), &plain()).unwrap();
    for (path, seconds, nanoseconds) in [
        ("", 5, 0),
        ("a", 86_400, 7),
        ("a/f", 1_700_000_000, 123_456_789),
        (&long, -86_400, 0),
        ("l", 7, 0),
        ("a/b", 9, 0),
    ] {
        let meta = fs::symlink_metadata(place.root().join(path)).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, nanoseconds), "{path:?}");
        if plain().owners {
            assert_eq!((meta.uid(), meta.gid()), (12, 3_000_000), "{path:?}");
        }
    }
}

#[test]
fn sparse_files_keep_their_holes() {
    const SIZE: u64 = 8 << 20;
    let map = format!("2\n{}\n4\n{SIZE}\n0\n", SIZE / 2);
    let version_1 = [
        pax(&[
            record("GNU.sparse.major", "1"),
            record("GNU.sparse.minor", "0"),
            record("GNU.sparse.name", "holes"),
            record("GNU.sparse.realsize", &SIZE.to_string()),
        ]
        .concat()),
        block("GNUSparseFile.0/holes", b'0', 516, |_| {}),
        padded(map.as_bytes()),
        padded(b"data"),
        vec![0; 1024],
    ]
    .concat();
    let version_01 = [
        pax(&[
            record("GNU.sparse.size", &SIZE.to_string()),
            record("GNU.sparse.map", &format!("{},4", SIZE / 2)),
            record("GNU.sparse.name", "holes"),
        ]
        .concat()),
        block("GNUSparseFile.0/holes", b'0', 4, |_| {}),
        padded(b"data"),
    ]
    .concat();
    let old = [
        block("holes", b'S', 4, |block| {
            block[257..265].copy_from_slice(b"ustar  \0");
            block[386..397].copy_from_slice(format!("{:011o}", SIZE / 2).as_bytes());
            block[398..409].copy_from_slice(b"00000000004");
            block[483..494].copy_from_slice(format!("{SIZE:011o}").as_bytes());
        }),
        padded(b"data"),
    ]
    .concat();
    for (dialect, bytes) in [("1.0", version_1), ("0.1", version_01), ("old", old)] {
        let place = Place::new();
        let report = place.unpack(&bytes, &plain()).unwrap_or_else(|error| panic!("{dialect}: {error}"));
        assert_eq!(report.bytes, SIZE, "{dialect}");
        let path = place.root().join("holes");
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), SIZE, "{dialect}");
        assert!(meta.blocks() * 512 < 1 << 20, "{dialect}: {} blocks", meta.blocks());
        let content = fs::read(&path).unwrap();
        let middle = (SIZE / 2) as usize;
        assert_eq!(&content[middle..middle + 4], b"data", "{dialect}");
        assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 4, "{dialect}");
    }
}

#[test]
fn each_cap_has_its_own_error() {
    let refused = |archive: &[u8], caps: ImageCaps, used: Used| {
        unpack(archive, &LayerOptions { caps, used, ..plain() }).unwrap_err().to_string()
    };
    let caps = ImageCaps::default();
    let three = tar(&[file("a", "x"), file("b", "x"), file("c", "xyz")]);
    let error = refused(&three, ImageCaps { entries: 2, ..caps }, Used::default());
    assert!(error.starts_with("entry \"c\": the image has more than 2 entries"), "{error}");
    let error = refused(&three, ImageCaps { entries: 7, ..caps }, Used { entries: 5, bytes: 0 });
    assert!(error.contains("more than 7 entries"), "what other layers used counts: {error}");
    let error = refused(&three, ImageCaps { bytes: Bytes(4), ..caps }, Used::default());
    assert!(error.starts_with("entry \"c\": the image's files exceed the cap of 4"), "{error}");
    let error = refused(&tar(&[dir("a/b/c")]), ImageCaps { path_depth: 2, ..caps }, Used::default());
    assert!(error.contains("more than 2 components"), "{error}");
    let long = tar(&[xattr(file("a", "x"), "user.big", &[7; 2000])]);
    let error = refused(&long, ImageCaps { pax: Bytes(1024), ..caps }, Used::default());
    assert!(error.contains("more than the cap of 1K (pax)"), "{error}");
    let liar = block("PaxHeaders/x", b'x', 0o77777777777, |_| {});
    assert!(refused(&liar, caps, Used::default()).contains("8589934591 bytes, more than the cap of 64K (pax)"));
}

#[test]
fn a_false_sparse_size_is_refused_before_a_byte_is_written() {
    let records = [record("GNU.sparse.size", "8796093022208"), record("GNU.sparse.map", "0,4")].concat();
    let bytes = [pax(&records), block("liar", b'0', 4, |_| {}), padded(b"data")].concat();
    let place = Place::new();
    let error = place.unpack(&bytes, &plain()).unwrap_err().to_string();
    assert!(error.starts_with("entry \"liar\": the image's files exceed the cap"), "{error}");
    assert!(place.tree().is_empty());
}

#[test]
fn a_full_disk_says_so() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    if !archive::is_root("a_full_disk_says_so") {
        return;
    }
    let place = Place::new();
    let target = place.root();
    let options = "size=256k,mode=0755";
    if let Err(errno) = mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::empty(), Some(options)) {
        println!("skip: a_full_disk_says_so: no tmpfs here: {errno}");
        return;
    }
    let result = place.unpack(&tar(&[file("small", "x"), file("big", &"x".repeat(1 << 20))]), &plain());
    umount2(&target, MntFlags::MNT_DETACH).unwrap();
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("entry \"big\": no space is left"), "{error}");
}

#[test]
fn the_root_of_an_archive_that_does_not_list_it_can_be_entered_by_every_user() {
    let place = Place::new();
    fs::set_permissions(place.root(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    place.unpack(&tar(&[file("a", "x")]), &plain()).unwrap();
    assert_eq!(fs::metadata(place.root()).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_directory_that_was_replaced_leaves_no_folder_where_its_name_leads_now() {
    for openat2 in [true, false] {
        let place = Place::new();
        let archive = tar(&[dir("b/l/a"), file("b", ""), dir("l"), symlink("b", "l")]);
        place.unpack(&archive, &LayerOptions { openat2, ..plain() }).unwrap();
        assert_eq!(fs::read_dir(place.root().join("l")).unwrap().count(), 0);
    }
}
