//! Images that are broken or lie: each gives one sentence that names the file and, where there is one, the layer and the
//! entry; nothing half-done is visible and nothing outside the state folder is touched. Needs root.

mod image_common;

use coracle::image::tar::{Entry, Kind};
use image_common::*;
use std::fs;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Unpacks `bytes` and expects a refusal with all of `words` in it, and nothing visible afterwards.
fn refused(what: &str, bytes: &[u8], words: &[&str]) {
    let scene = Scene::new();
    fs::write(scene.path("x.tar"), bytes).unwrap();
    fs::write(scene.path("canary"), "canary").unwrap();
    let ran = scene.unpack("x.tar");
    assert_eq!(ran.code, 78, "{what}: {}{}", ran.out, ran.err);
    assert_eq!(ran.err.trim_end().lines().count(), 1, "{what}: {}", ran.err);
    assert!(ran.err.contains("x.tar"), "{what}: {}", ran.err);
    for word in words {
        assert!(ran.err.contains(word), "{what}: no {word:?} in {}", ran.err);
    }
    assert_eq!(scene.visible(), Vec::<String>::new(), "{what}");
    assert_eq!(fs::read_to_string(scene.path("canary")).unwrap(), "canary");
    assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 3, "{what}: something was made outside the state");
}

fn replaced(members: Vec<(String, Vec<u8>)>, name: &str, bytes: &[u8]) -> Vec<u8> {
    let members: Vec<_> = members
        .into_iter()
        .map(|(member, old)| if member == name { (member, bytes.to_vec()) } else { (member, old) })
        .collect();
    archive(&members)
}

fn without(members: Vec<(String, Vec<u8>)>, name: &str) -> Vec<u8> {
    archive(&members.into_iter().filter(|(member, _)| member != name).collect::<Vec<_>>())
}

#[test]
fn archives_that_are_cut_anywhere_are_refused() {
    if !root("archives_that_are_cut_anywhere_are_refused") {
        return;
    }
    let whole = archive(&Image::simple().save());
    for length in [1, 511, 513, whole.len() / 4, whole.len() / 2, whole.len() - 3000] {
        refused(&format!("cut to {length}"), &whole[..length], &[]);
    }
    refused("empty", b"", &["no image"]);
    refused("no archive", &[b'x'; 4096], &["no image"]);
}

#[test]
fn a_flipped_bit_in_any_blob_is_found() {
    if !root("a_flipped_bit_in_any_blob_is_found") {
        return;
    }
    let image = Image::simple();
    for (name, bytes) in image.blobs() {
        let mut spoilt = bytes.clone();
        // In a tar's first file's content; in a document somewhere in the middle.
        let at = if bytes.len() > 1024 { 513 } else { bytes.len() / 2 };
        spoilt[at] ^= 1;
        refused(&name, &replaced(image.save(), &name, &spoilt), &[]);
        // docker's own format does not name the manifest that OCI has.
        if !name.ends_with(&hex(image.manifest().as_bytes())) {
            refused(&name, &replaced(image.docker_only(), &name, &spoilt), &[]);
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    if !root("what_is_missing_is_named") {
        return;
    }
    let image = Image::simple();
    let layer = format!("blobs/sha256/{}", hex(&image.layers[1]));
    refused("layer", &without(image.save(), &layer), &["layer 2 of 2", "missing", &layer]);
    refused("layer", &without(image.docker_only(), &layer), &["layer 2 of 2", "missing"]);
    let config = format!("blobs/sha256/{}", hex(image.config.as_bytes()));
    refused("config", &without(image.save(), &config), &["image config", "missing"]);
    refused("config", &without(image.docker_only(), &config), &["image config", "does not hold"]);
    let manifest = format!("blobs/sha256/{}", hex(image.manifest().as_bytes()));
    refused("manifest", &without(image.save(), &manifest), &["the manifest", "missing"]);
}

#[test]
fn digests_that_lie_are_refused() {
    if !root("digests_that_lie_are_refused") {
        return;
    }
    let mut image = Image::simple();
    let wrong = config("amd64", &format!("\"sha256:{}\",\"sha256:{}\"", hex(&image.layers[0]), "0".repeat(64)));
    image.config = wrong;
    refused("diff ID", &archive(&image.save()), &["layer 2 of 2", "diff ID"]);
    image.config = config("amd64", &format!("\"sha256:{}\"", hex(&image.layers[0])));
    refused("count", &archive(&image.save()), &["2 layers", "1 diff IDs"]);
    image.config = config("amd64", "\"sha256:../../../../etc/shadow\"");
    refused("path", &archive(&image.save()), &["no sha256 digest"]);
}

#[test]
fn documents_that_lead_astray_are_refused() {
    if !root("documents_that_lead_astray_are_refused") {
        return;
    }
    let image = Image::simple();
    let docker = |text: &str| replaced(image.docker_only(), "manifest.json", text.as_bytes());
    let config = "[{\"Config\":\"../../../../etc/shadow\",\"Layers\":[]}]";
    refused("config path", &docker(config), &["../../../../etc/shadow", "does not hold"]);
    refused("absolute", &docker("[{\"Config\":\"/etc/shadow\",\"Layers\":[\"/etc/passwd\"]}]"), &["/etc/shadow"]);
    refused("no list", &docker("{}"), &["manifest.json"]);
    refused("deep", &docker(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))), &["manifest.json"]);
    let huge = format!("[{}]", " ".repeat(300 << 10));
    refused("huge", &docker(&huge), &["manifest.json", "cap of 256K (manifest)"]);
    refused("twice", &archive(&[image.docker_only(), image.docker_only()].concat()), &["two members called"]);
    let index = |text: &str| replaced(image.save(), "index.json", text.as_bytes());
    let entry = "\"manifests\":[],\"layers\":[]";
    refused("confusion", &index(&format!("{{\"schemaVersion\":2,{entry}}}")), &["double meaning"]);
    refused("old", &index("{\"schemaVersion\":1}"), &["schema version 1"]);
    refused("none", &index("{\"schemaVersion\":2,\"manifests\":[]}"), &["no image"]);
    let own = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"digest\":\"sha256:{}\",\"size\":1}}]}}",
        "a".repeat(64)
    );
    refused("absent index", &index(&own), &["the index", "missing"]);
    let artifact = image.index(",\"artifactType\":\"application/spdx+json\"");
    refused("artifact", &index(&artifact), &["no image"]);
    let foreign = Image { config: image_common::config("s390x", ""), ..Image::simple() };
    refused("architecture", &archive(&foreign.save()), &["linux/s390x", "wanted is linux/"]);
}

#[test]
fn several_images_must_be_chosen_from() {
    if !root("several_images_must_be_chosen_from") {
        return;
    }
    let (one, mut two) = (Image::simple(), Image::new(vec![tar(&[("x", b"x")])]));
    two.names = "\"other:2\"".into();
    let manifest = format!("[{},{}]", strip_list(&one.docker()), strip_list(&two.docker()));
    let mut members = [one.blobs(), two.blobs()].concat();
    members.push(("manifest.json".into(), manifest.into_bytes()));
    refused("several", &archive(&members), &["several images", "app:1", "other:2"]);
    let scene = Scene::new();
    fs::write(scene.path("x.tar"), archive(&members)).unwrap();
    scene.unpacked("x.tar#other:2");
    scene.unpacked(&format!("x.tar#sha256:{}", hex(one.config.as_bytes())));
}

/// A JSON list of one object without its brackets.
fn strip_list(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap()
}

#[test]
fn a_bad_entry_is_named_with_its_layer() {
    if !root("a_bad_entry_is_named_with_its_layer") {
        return;
    }
    let link = |name: &str, kind: Kind| Entry { kind, ..file(name, 0) };
    let cases: [(&str, Vec<Entry>, &str); 4] = [
        ("dots", vec![file("../../canary", 0)], "canary"),
        ("device", vec![link("null", Kind::CharDevice { major: 0, minor: 0 })], "null"),
        ("hard link", vec![link("etc/x", Kind::HardLink(b"../../../canary".to_vec()))], "etc/x"),
        ("whiteout", vec![file("etc/.wh...", 0)], "etc/.wh.."),
    ];
    for (what, entries, name) in cases {
        let image = Image::new(vec![tar(&[("ok", b"ok")]), tar_of(&entries)]);
        refused(what, &archive(&image.save()), &["layer 2 of 2", "entry", name]);
        let compressed = gzip(&archive(&image.docker_only()));
        refused(what, &compressed, &["layer 2 of 2", "entry", name]);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip is everywhere");
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.stdout
}

#[test]
fn caps_are_kept_and_named() {
    if !root("caps_are_kept_and_named") {
        return;
    }
    let zeros = gzip(&tar(&[("zeros", &vec![0u8; 8 << 20])]));
    refused("ratio", &zeros, &["ratio"]);
    let scene = Scene::new();
    fs::write(scene.path("big.tar"), tar(&[("etc/big", &vec![1u8; 1 << 20])])).unwrap();
    let ran = scene.coracle("unpack", &["--max-bytes", "512K", "big.tar"]);
    assert!(ran.code == 78 && ran.err.contains("512K"), "{}", ran.err);
    let ran = scene.coracle("unpack", &["--max-entries", "2", "big.tar"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn images_of_127_layers_unpack_and_128_are_refused() {
    if !root("images_of_127_layers_unpack_and_128_are_refused") {
        return;
    }
    let layers =
        |count: u32| (0..count).map(|n| tar(&[(format!("f{n}").as_str(), &n.to_le_bytes())])).collect::<Vec<_>>();
    let scene = Scene::new();
    fs::write(scene.path("x.tar"), archive(&Image::new(layers(127)).save())).unwrap();
    scene.unpacked("x.tar");
    assert_eq!(scene.layers("x.tar").len(), 127);
    refused("128", &archive(&Image::new(layers(128)).save()), &["manifest"]);
}

/// A small file system in memory, gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: PathBuf, size: &str) -> Option<SmallDisk> {
        fs::create_dir_all(&path).unwrap();
        let options = format!("size={size}");
        nix::mount::mount(Some("tmpfs"), &path, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str()))
            .ok()?;
        Some(SmallDisk(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let name = "a_full_disk_is_said_and_leaves_nothing";
    if !root(name) {
        return;
    }
    let scene = Scene::new();
    let Some(_disk) = SmallDisk::new(scene.path("state"), "1M") else {
        eprintln!("skip: {name}: cannot mount a tmpfs");
        return;
    };
    let image = Image::new(vec![tar(&[("small", b"x")]), tar(&[("etc/large", &vec![1u8; 3 << 20])])]);
    fs::write(scene.path("x.tar"), archive(&image.save())).unwrap();
    let ran = scene.unpack("x.tar");
    assert_eq!(ran.code, 1, "{}", ran.err);
    for word in ["x.tar", "layer 2 of 2", "etc/large", "no space"] {
        assert!(ran.err.contains(word), "no {word:?} in {}", ran.err);
    }
    assert_eq!(scene.visible(), Vec::<String>::new());
}

#[test]
fn a_worker_killed_half_way_leaves_nothing() {
    if !root("a_worker_killed_half_way_leaves_nothing") {
        return;
    }
    let scene = Scene::new();
    let child = half_way(&scene);
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let worker: i32 = children.split_whitespace().next().expect("the command has a worker").parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), nix::sys::signal::Signal::SIGKILL).unwrap();
    let ran = end(child);
    assert!(ran.code == 1 && ran.err.contains("killed by signal 9") && ran.err.contains("x.tar"), "{}", ran.err);
    assert_eq!(scene.visible(), Vec::<String>::new());
}

#[test]
fn a_command_killed_half_way_takes_its_worker_along_and_the_next_one_cleans_up() {
    if !root("a_command_killed_half_way_takes_its_worker_along_and_the_next_one_cleans_up") {
        return;
    }
    let scene = Scene::new();
    let mut child = half_way(&scene);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(scene.visible().iter().all(|name| name.starts_with("staging/")), "{:?}", scene.visible());
    let begun = Instant::now();
    // The lock is gone when the worker is.
    while !scene.visible().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", scene.visible());
        assert_eq!(scene.coracle("images", &[]).code, 0);
    }
}

#[test]
fn an_archive_that_changes_while_it_is_read_is_refused() {
    if !root("an_archive_that_changes_while_it_is_read_is_refused") {
        return;
    }
    let scene = Scene::new();
    let child = half_way(&scene);
    let mut file = fs::OpenOptions::new().write(true).open(scene.path("x.tar")).unwrap();
    file.seek(SeekFrom::Start(80 << 20)).unwrap();
    file.write_all(b"changed").unwrap();
    drop(file);
    let ran = end(child);
    assert!(ran.code == 78 && ran.err.contains("changed while it was read"), "{}", ran.err);
    assert_eq!(scene.visible(), Vec::<String>::new());
}

#[test]
fn an_archive_that_is_replaced_while_it_is_read_is_refused() {
    if !root("an_archive_that_is_replaced_while_it_is_read_is_refused") {
        return;
    }
    let scene = Scene::new();
    let child = half_way(&scene);
    fs::write(scene.path("new"), archive(&Image::simple().save())).unwrap();
    fs::rename(scene.path("new"), scene.path("x.tar")).unwrap();
    let ran = end(child);
    assert!(ran.code == 78 && ran.err.contains("while it was read"), "{}", ran.err);
    assert_eq!(scene.visible(), Vec::<String>::new());
}

#[test]
fn two_gigabytes_of_zeros_behind_the_end_cost_no_memory() {
    if !root("two_gigabytes_of_zeros_behind_the_end_cost_no_memory") {
        return;
    }
    let scene = Scene::new();
    fs::write(scene.path("x.tar"), tar(&[("etc/name", b"x")])).unwrap();
    fs::OpenOptions::new().write(true).open(scene.path("x.tar")).unwrap().set_len(2 << 30).unwrap();
    let told = scene.unpacked("x.tar");
    assert!(told.contains("1 layer"), "{told}");
    let hex = scene.layers("x.tar");
    assert_eq!(fs::read(scene.layer(&hex[0]).join("etc/name")).unwrap(), b"x");
}

#[test]
fn a_million_entries_are_refused_at_the_cap() {
    if !root("a_million_entries_are_refused_at_the_cap") {
        return;
    }
    let scene = Scene::new();
    // The same folder again and again: the cheapest entry there is.
    let header = &tar_of(&[Entry { kind: Kind::Directory, mode: 0o755, ..file("folder", 0) }])[..512];
    let mut out = BufWriter::new(fs::File::create(scene.path("x.tar")).unwrap());
    for _ in 0..1_000_000 {
        out.write_all(header).unwrap();
    }
    out.write_all(&[0; 1024]).unwrap();
    drop(out.into_inner().unwrap());
    // Unpacking the default of 400,000 takes half a minute in a debug build.
    let ran = scene.coracle("unpack", &["--max-entries", "50000", "x.tar"]);
    assert!(ran.code == 78 && ran.err.contains("entries") && ran.err.contains("x.tar"), "{} {}", ran.code, ran.err);
    assert_eq!(scene.visible(), Vec::<String>::new());
}
