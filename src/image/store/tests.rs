//! Tests of the store.

use super::*;
use crate::image::config::ImageConfig;
use crate::image::record::LayerStats;

struct Scene {
    folder: tempfile::TempDir,
    store: Store,
}

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state")).unwrap();
    Scene { folder, store }
}

impl Scene {
    /// Commits an image of one layer whose tree has the file `name`.
    fn image(&self, file: &str, layer: u8, name: &str) -> ImageRecord {
        let path = self.folder.path().join(file);
        if !path.exists() {
            fs::write(&path, file).unwrap();
        }
        let digest = Digest([layer; 32]);
        let staging = self.store.begin().unwrap();
        let staged = staging.path().join(digest.hex());
        fs::create_dir_all(staged.join("tree/etc")).unwrap();
        fs::write(staged.join("tree/etc").join(name), "content").unwrap();
        let tree = crate::image::tree::checksum(File::open(staged.join("tree")).unwrap().into(), true).unwrap();
        let stats = LayerStats { bytes: 7, ..LayerStats::default() };
        fs::write(staged.join("record"), LayerRecord { stats, opaque_root: false, tree, times: true }.to_json())
            .unwrap();
        let record = ImageRecord {
            reference: path.to_str().unwrap().into(),
            source: source_id(&path).unwrap(),
            names: Vec::new(),
            image_id: None,
            root: Root::Layers(vec![digest]),
            config: ImageConfig::empty(),
        };
        self.store.commit(staging, record).unwrap()
    }

    fn reference(&self, file: &str) -> Reference {
        Reference::parse(self.folder.path().join(file).to_str().unwrap()).unwrap()
    }
}

#[test]
fn a_committed_image_is_found_until_its_file_is_replaced() {
    let scene = scene();
    let record = scene.image("a.tar", 1, "x");
    assert_eq!(scene.store.lookup(&scene.reference("a.tar")).unwrap(), Some(record.clone()));
    assert_eq!(scene.store.rootfs_layers(&record).unwrap().len(), 1);
    fs::write(scene.folder.path().join("new"), "another archive").unwrap();
    fs::rename(scene.folder.path().join("new"), scene.folder.path().join("a.tar")).unwrap();
    assert_eq!(scene.store.lookup(&scene.reference("a.tar")).unwrap(), None);
    assert_eq!(scene.store.remembered(&scene.reference("a.tar")), Some(record));
    let error = scene.store.lookup(&scene.reference("none.tar")).unwrap_err();
    assert!(error.text().contains("none.tar"), "{error}");
}

#[test]
fn a_layer_that_two_images_share_stays_until_both_are_removed() {
    let scene = scene();
    let (first, second) = (scene.image("a.tar", 1, "x"), scene.image("b.tar", 1, "x"));
    assert_eq!(scene.store.remove(&first).unwrap().layers, 0);
    let removed = scene.store.remove(&second).unwrap();
    assert_eq!((removed.images, removed.layers, removed.bytes), (1, 1, 7));
    assert!(!scene.store.has_layer(&Digest([1; 32])));
    assert_eq!(fs::read_dir(scene.store.state().join("staging")).unwrap().count(), 0);
}

#[test]
fn a_pinned_image_survives_removal_and_replacement() {
    let scene = scene();
    let old = scene.image("a.tar", 1, "x");
    let pin = scene.store.pin(&old).unwrap();
    assert!(scene.store.remove(&old).unwrap_err().text().contains("in use"));
    scene.image("a.tar", 2, "x");
    scene.store.prune().unwrap();
    assert!(scene.store.has_layer(&Digest([1; 32])), "the running service's layer is gone");
    drop(pin);
    assert_eq!(scene.store.prune().unwrap().layers, 1);
    assert!(!scene.store.has_layer(&Digest([1; 32])));
    assert!(scene.store.has_layer(&Digest([2; 32])));
}

#[test]
fn prune_forgets_images_whose_file_is_gone() {
    let scene = scene();
    scene.image("a.tar", 1, "x");
    scene.image("b.tar", 2, "x");
    fs::remove_file(scene.folder.path().join("a.tar")).unwrap();
    let removed = scene.store.prune().unwrap();
    assert_eq!((removed.images, removed.layers), (1, 1));
    assert_eq!(scene.store.images().unwrap().0.len(), 1);
}

#[test]
fn an_unreadable_record_keeps_all_layers() {
    let scene = scene();
    let record = scene.image("a.tar", 1, "x");
    fs::write(scene.store.state().join("images/0123"), "{\"version\":9}").unwrap();
    assert_eq!(scene.store.remove(&record).unwrap().layers, 0);
    assert_eq!(scene.store.images().unwrap(), (vec![], 1));
}

#[test]
fn damage_is_found_and_the_next_unpack_replaces_it() {
    let scene = scene();
    scene.image("a.tar", 1, "x");
    let layer = Digest([1; 32]);
    assert_eq!(scene.store.verify_layer(&layer).unwrap(), Health::Good);
    fs::write(scene.store.layer_path(&layer).join("etc/x"), "").unwrap();
    assert_eq!(scene.store.verify_layer(&layer).unwrap(), Health::Damaged);
    assert_eq!(scene.store.lookup(&scene.reference("a.tar")).unwrap(), None);
    scene.image("a.tar", 1, "x");
    assert_eq!(scene.store.verify_layer(&layer).unwrap(), Health::Good);
    assert!(scene.store.lookup(&scene.reference("a.tar")).unwrap().is_some());
    assert_eq!(scene.store.verify_layer(&Digest([9; 32])).unwrap(), Health::Missing);
}

#[test]
fn what_a_dead_unpacker_left_is_removed_and_a_live_one_is_left_alone() {
    let scene = scene();
    let live = scene.store.begin().unwrap();
    fs::create_dir_all(scene.store.state().join("staging/job-1-0/tree/deep")).unwrap();
    let again = Store::open(scene.store.state()).unwrap();
    let left: Vec<_> = fs::read_dir(again.state().join("staging")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [live.path()]);
    let path = live.path().to_owned();
    drop(live);
    assert!(!path.exists());
}

#[test]
fn folders_of_the_store_are_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let scene = scene();
    for folder in ["layers", "images", "staging", "flat"] {
        let mode = fs::metadata(scene.store.state().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
}

#[test]
fn merging_links_the_files_of_the_layers() {
    let scene = scene();
    let record = scene.image("a.tar", 1, "x");
    let merged = scene.store.flatten(&record).unwrap();
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(merged.join("etc/x")), inode(scene.store.layer_path(&Digest([1; 32])).join("etc/x")));
    assert_eq!(scene.store.verify_layer(&Digest([1; 32])).unwrap(), Health::Good);
    assert_eq!(scene.store.flatten(&record).unwrap(), merged);
    assert_eq!(scene.store.remove(&record).unwrap().flat, 1);
}

#[test]
fn a_damaged_layer_under_a_running_service_is_replaced_beside_it() {
    let scene = scene();
    let record = scene.image("a.tar", 1, "x");
    let layer = Digest([1; 32]);
    let pin = scene.store.pin(&record).unwrap();
    let merged = scene.store.flatten(&record).unwrap();
    let mounted = [File::open(scene.store.layer_path(&layer)).unwrap(), File::open(&merged).unwrap()];
    fs::write(scene.store.layer_path(&layer).join("etc/y"), "damage").unwrap();
    assert_eq!(scene.store.verify_layer(&layer).unwrap(), Health::Damaged);
    scene.image("a.tar", 1, "x");
    assert_eq!(scene.store.verify_layer(&layer).unwrap(), Health::Good);
    let still_there = |folder: &File| {
        use std::os::fd::AsRawFd;
        fs::read(format!("/proc/self/fd/{}/etc/x", folder.as_raw_fd())).is_ok_and(|content| content == b"content")
    };
    scene.store.prune().unwrap();
    assert!(mounted.iter().all(still_there), "pulled from under the service");
    drop(pin);
    let removed = scene.store.prune().unwrap();
    assert_eq!((removed.layers, removed.flat), (1, 1));
    assert!(!mounted.iter().any(still_there));
    assert_eq!(scene.store.verify_layer(&layer).unwrap(), Health::Good);
}

#[test]
fn merged_layers_hide_what_a_higher_one_deleted() {
    if !nix::unistd::geteuid().is_root() {
        println!("skip: merged_layers_hide_what_a_higher_one_deleted: needs root");
        return;
    }
    let scene = scene();
    scene.image("a.tar", 1, "gone");
    let layers: Vec<Digest> = (1..4).map(|number| Digest([number; 32])).collect();
    let tree = |number: usize| scene.store.layer_path(&layers[number]);
    for (number, file) in
        [(0, "opaque/old"), (1, "opaque/new"), (1, "etc/file"), (2, "etc/folder/x"), (0, "etc/folder")]
    {
        fs::create_dir_all(tree(number).join(file).parent().unwrap()).unwrap();
        fs::write(tree(number).join(file), file).unwrap();
    }
    fs::create_dir_all(tree(0).join("etc/file/was-a-folder")).unwrap();
    nix::sys::stat::mknod(&tree(2).join("etc/gone"), nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0)
        .unwrap();
    let opaque = File::open(tree(1).join("opaque")).unwrap();
    crate::sys::xattr::set(std::os::fd::AsFd::as_fd(&opaque), c"trusted.overlay.opaque", b"y").unwrap();
    let mut record = scene.image("b.tar", 9, "x");
    record.root = Root::Layers(layers.clone());
    let merged = scene.store.flatten(&record).unwrap();
    let mut found: Vec<String> = Vec::new();
    let mut open = vec![merged.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            found.push(entry.strip_prefix(&merged).unwrap().to_str().unwrap().to_owned());
            open.extend(entry.is_dir().then_some(entry));
        }
    }
    found.sort();
    assert_eq!(found, ["etc", "etc/file", "etc/folder", "etc/folder/x", "opaque", "opaque/new"]);
}

/// A scene whose first image was moved into a read-only store, and whose file is gone.
fn baked() -> (Scene, ImageRecord) {
    let scene = scene();
    let record = scene.image("a.tar", 1, "x");
    let at = |name: &str| scene.folder.path().join(name);
    fs::create_dir(at("baked")).unwrap();
    for folder in ["layers", "images"] {
        fs::rename(at("state").join(folder), at("baked").join(folder)).unwrap();
    }
    fs::remove_file(at("a.tar")).unwrap();
    let store = Store::open(&at("state")).unwrap().beside(Some(Baked::at(&at("baked"))));
    (Scene { store, ..scene }, record)
}

fn everything(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries
        .flat_map(|path| {
            let stamp = fs::symlink_metadata(&path).unwrap().ctime() as u64;
            if path.is_dir() { everything(&path) } else { vec![(path, stamp)] }
        })
        .collect();
    all.sort();
    all
}

#[test]
fn an_image_of_the_read_only_store_needs_no_file_and_is_never_removed() {
    let (scene, record) = baked();
    let before = everything(&scene.folder.path().join("baked"));
    let store = &scene.store;
    assert_eq!(store.lookup(&scene.reference("a.tar")).unwrap(), Some(record.clone()));
    assert_eq!(store.images().unwrap().0, std::slice::from_ref(&record));
    assert_eq!(store.verify_layer(&Digest([1; 32])).unwrap(), Health::Good);
    assert!(store.layer_path(&Digest([1; 32])).starts_with(scene.folder.path().join("baked")));
    let pin = store.pin(&record).unwrap();
    drop(pin);
    let error = store.remove(&record).unwrap_err();
    assert!(error.text().contains("goes with the firmware"), "{error}");
    assert_eq!(store.prune().unwrap(), Removed::default());
    assert_eq!(everything(&scene.folder.path().join("baked")), before);
}

#[test]
fn layers_of_one_image_come_from_both_stores() {
    let (scene, _) = baked();
    let mut record = scene.image("b.tar", 2, "y");
    record.root = Root::Layers(vec![Digest([1; 32]), Digest([2; 32])]);
    let staging = scene.store.begin().unwrap();
    let record = scene.store.commit(staging, record).unwrap();
    assert_eq!(scene.store.lookup(&scene.reference("b.tar")).unwrap(), Some(record.clone()));
    let paths: Vec<PathBuf> = record.root.layers().iter().map(|layer| scene.store.layer_path(layer)).collect();
    assert!(paths[0].starts_with(scene.folder.path().join("baked")) && paths[0].join("etc/x").exists());
    assert!(paths[1].starts_with(scene.store.state()) && paths[1].join("etc/y").exists());
    assert_eq!(scene.store.rootfs_layers(&record).unwrap().len(), 2);
    assert_eq!(scene.store.prune().unwrap(), Removed::default());
}

#[test]
fn a_layer_that_the_read_only_store_has_is_not_kept_twice() {
    let (scene, _) = baked();
    scene.image("b.tar", 1, "x");
    assert_eq!(fs::read_dir(scene.store.state().join("layers")).unwrap().count(), 0);
}

#[test]
fn a_damaged_layer_of_the_read_only_store_is_replaced_and_believed_again_once_it_is_whole() {
    let (scene, record) = baked();
    let (layer, reference) = (Digest([1; 32]), scene.reference("a.tar"));
    let file = scene.store.layer_path(&layer).join("etc/x");
    let times = fs::metadata(&file).unwrap().modified().unwrap();
    let write = |text: &str| {
        fs::write(&file, text).unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
    };
    write("c0ntent");
    assert_eq!(scene.store.verify_layer(&layer).unwrap(), Health::Damaged);
    assert!(scene.store.lookup(&reference).is_err(), "there is nothing to make it of");
    scene.image("a.tar", 1, "x");
    let anew = scene.store.lookup(&reference).unwrap().unwrap();
    assert_eq!(anew.root, record.root);
    assert!(scene.store.layer_path(&layer).starts_with(scene.store.state()));
    assert_eq!(scene.store.verify_layer(&layer).unwrap(), Health::Good, "the one that is used");
    write("content");
    assert_eq!(scene.store.verify_layer(&layer).unwrap(), Health::Good);
    assert!(scene.store.is_baked(&layer));
}

#[test]
fn a_file_beside_its_baked_image_counts_unless_it_is_the_one_that_was_baked() {
    let (scene, record) = baked();
    let path = scene.folder.path().join("a.tar");
    let written_at = |seconds: i64| {
        fs::write(&path, "a.tar").unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds as u64);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    let seconds = record.source.mtime_ns / 1_000_000_000;
    written_at(seconds + 1);
    assert_eq!(scene.store.lookup(&scene.reference("a.tar")).unwrap(), None, "a time of its own");
    written_at(seconds);
    assert_eq!(scene.store.lookup(&scene.reference("a.tar")).unwrap(), Some(record));
}
