//! Images as the field's tools write them today and wrote them before: each is unpacked by the command and compared with
//! what tar or umoci makes of it. Needs root; those that use skopeo, umoci, buildah or podman skip without them.

mod image_common;

use image_common::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// A small root file system with links of both kinds, a long name and odd modes.
fn rootfs(folder: &Path) {
    for name in ["bin", "etc", "usr/lib", "tmp"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    fs::write(folder.join("bin/app"), vec![7u8; 100_000]).unwrap();
    fs::set_permissions(folder.join("bin/app"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(folder.join("bin/app"), folder.join("bin/same")).unwrap();
    symlink("../bin/app", folder.join("usr/lib/link")).unwrap();
    fs::write(folder.join(format!("etc/{}", "long".repeat(50))), "x").unwrap();
    fs::set_permissions(folder.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
}

/// An OCI layout of two layers made by umoci: the second one deletes a file and replaces another.
fn umoci_layout(scene: &Scene) {
    let at = scene.folder.path();
    sh(at, "umoci", &["init", "--layout", "oci"]);
    sh(at, "umoci", &["new", "--image", "oci:app"]);
    sh(at, "umoci", &["unpack", "--image", "oci:app", "b1"]);
    rootfs(&scene.path("b1/rootfs"));
    sh(at, "umoci", &["repack", "--image", "oci:app", "b1"]);
    sh(at, "umoci", &["unpack", "--image", "oci:app", "b2"]);
    fs::remove_file(scene.path("b2/rootfs/bin/same")).unwrap();
    fs::write(scene.path("b2/rootfs/etc/new"), "new").unwrap();
    sh(at, "umoci", &["repack", "--image", "oci:app", "b2"]);
    sh(at, "umoci", &["config", "--image", "oci:app", "--config.entrypoint", "/bin/app", "--config.user", "7:8"]);
    sh(at, "umoci", &["unpack", "--image", "oci:app", "expected"]);
}

/// The layers merged by hand: whiteouts are character devices.
fn merged(scene: &Scene, image: &str) -> std::collections::BTreeMap<String, String> {
    let mut all = std::collections::BTreeMap::new();
    for hex in scene.layers(image) {
        for (name, text) in tree(&scene.layer(&hex)) {
            if text.starts_with("20") {
                let beneath = format!("{name}/");
                all.retain(|other: &String, _| *other != name && !other.starts_with(&beneath));
            } else {
                all.insert(name, text);
            }
        }
    }
    all
}

fn without_folder_times(tree: std::collections::BTreeMap<String, String>) -> Vec<String> {
    let show = |(name, text): (String, String)| match text.starts_with("40") {
        // A folder's time is the highest layer's; umoci's is that of its last change.
        true => format!("{name} {}", text.rsplit_once(' ').unwrap().0),
        false => format!("{name} {text}"),
    };
    tree.into_iter().map(show).collect()
}

#[test]
fn every_form_that_skopeo_writes_gives_the_tree_that_umoci_gives() {
    let name = "every_form_that_skopeo_writes_gives_the_tree_that_umoci_gives";
    if !root(name) || !tools(name, &["skopeo", "umoci", "gzip", "zstd"]) {
        return;
    }
    let scene = Scene::new();
    umoci_layout(&scene);
    let at = scene.folder.path();
    let copy = |to: &str| sh(at, "skopeo", &["--insecure-policy", "copy", "-q", "oci:oci:app", to]);
    copy("docker-archive:docker.tar:app:1");
    copy("oci-archive:oci.tar:app");
    for format in ["docker.tar", "oci.tar"] {
        sh(at, "gzip", &["-k", format]);
        sh(at, "zstd", &["-q", format]);
    }
    let zstd = ["--insecure-policy", "copy", "-q", "--dest-compress-format", "zstd", "oci:oci:app", "oci:zlayers:app"];
    sh(at, "skopeo", &zstd);
    let expected = without_folder_times(tree(&scene.path("expected/rootfs")));
    for image in
        ["oci", "docker.tar", "oci.tar", "docker.tar.gz", "oci.tar.gz", "docker.tar.zst", "oci.tar.zst", "zlayers"]
    {
        // A state folder of its own, so that no layer is there beforehand.
        let _ = fs::remove_dir_all(scene.path("state"));
        let told = scene.unpacked(image);
        assert!(told.contains("2 layers"), "{image}: {told}");
        assert_eq!(without_folder_times(merged(&scene, image)), expected, "{image}");
        assert_eq!(scene.coracle("verify", &[]).code, 0);
    }
}

#[test]
fn images_of_buildah_and_podman_are_read() {
    let name = "images_of_buildah_and_podman_are_read";
    if !root(name) || !tools(name, &["buildah", "podman"]) {
        return;
    }
    let scene = Scene::new();
    let at = scene.folder.path();
    rootfs(&scene.path("src"));
    let (store, run) = (scene.path("cs"), scene.path("cr"));
    let store = ["--root", store.to_str().unwrap(), "--runroot", run.to_str().unwrap(), "--storage-driver", "vfs"];
    fs::write(scene.path("Dockerfile"), "FROM scratch\nCOPY src /\nENV A=b\nUSER 7:8\nCMD [\"/bin/app\",\"<&>\"]\n")
        .unwrap();
    fs::write(scene.path("policy.json"), "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}").unwrap();
    let mut build = store.to_vec();
    build.extend(["bud", "--isolation", "chroot", "--signature-policy", "policy.json", "-q", "-t", "app:1", "."]);
    sh(at, "buildah", &build);
    for (format, file) in [("docker-archive", "p.tar"), ("oci-archive", "po.tar"), ("oci-dir", "pdir")] {
        let mut save = store.to_vec();
        save.extend(["save", "-q", "--format", format, "-o", file, "localhost/app:1"]);
        sh(at, "podman", &save);
        scene.unpacked(file);
        let tree = merged(&scene, file);
        assert!(tree.contains_key("bin/same") && tree.contains_key("usr/lib/link"), "{file}: {tree:?}");
    }
    let record =
        fs::read_dir(scene.path("state/images")).unwrap().map(|e| fs::read_to_string(e.unwrap().path()).unwrap());
    for text in record {
        assert!(text.contains("\"cmd\":[\"/bin/app\",\"<&>\"]") && text.contains("\"user\":\"7:8\""), "{text}");
    }
}

#[test]
fn both_formats_in_one_archive_give_one_image() {
    if !root("both_formats_in_one_archive_give_one_image") {
        return;
    }
    let scene = Scene::new();
    let image = Image::simple();
    fs::write(scene.path("save.tar"), archive(&image.save())).unwrap();
    fs::write(scene.path("old.tar"), archive(&image.docker_only())).unwrap();
    // The manifests first, the layers last.
    let mut members = image.save();
    members.reverse();
    fs::write(scene.path("reversed.tar"), archive(&members)).unwrap();
    for file in ["save.tar", "old.tar", "reversed.tar", "save.tar#app:1", "save.tar#app:2"] {
        let ran = scene.unpack(file);
        // The OCI index of this archive names no image, so no name can be asked for.
        assert_eq!(ran.code == 0, !file.contains('#'), "{file}: {}", ran.err);
    }
    scene.unpacked("old.tar#app:1");
    let ran = scene.unpack("old.tar#app:2");
    assert!(ran.code == 78 && ran.err.contains("it holds app:1"), "{}", ran.err);
}

#[test]
fn layers_behind_links_between_members_are_found() {
    if !root("layers_behind_links_between_members_are_found") {
        return;
    }
    use coracle::image::tar::{Kind, write::Writer};
    let scene = Scene::new();
    let image = Image::simple();
    let mut writer = Writer::new(Vec::new());
    let docker = "[{\"Config\":\"c.json\",\"RepoTags\":null,\"Layers\":[\"a/layer.tar\",\"b/layer.tar\"]}]";
    let low = hex(&image.layers[0]);
    let members: [(&str, &[u8]); 5] = [
        ("a/VERSION", b"1.0"),
        ("a/json", b"{}"),
        ("b/layer.tar", &image.layers[1]),
        (&format!("{low}.tar"), &image.layers[0]),
        ("c.json", image.config.as_bytes()),
    ];
    for (name, bytes) in members {
        writer.append(&file(name, bytes.len()), bytes).unwrap();
    }
    let link = coracle::image::tar::Entry {
        kind: Kind::Symlink(format!("../{low}.tar").into_bytes()),
        ..file("a/layer.tar", 0)
    };
    writer.append(&link, std::io::empty()).unwrap();
    writer.append(&file("manifest.json", docker.len()), docker.as_bytes()).unwrap();
    fs::write(scene.path("links.tar"), writer.finish().unwrap()).unwrap();
    scene.unpacked("links.tar");
    assert_eq!(scene.layers("links.tar").len(), 2);
}

#[test]
fn a_rootfs_tarball_or_folder_is_an_image_without_config() {
    if !root("a_rootfs_tarball_or_folder_is_an_image_without_config") {
        return;
    }
    let scene = Scene::new();
    rootfs(&scene.path("root"));
    let at = scene.folder.path();
    sh(at, "tar", &["-C", "root", "-cf", "r.tar", "."]);
    sh(at, "tar", &["-C", "root", "-czf", "r.tar.gz", "bin", "etc", "tmp", "usr"]);
    for file in ["r.tar", "r.tar.gz"] {
        scene.unpacked(file);
        assert_eq!(tree(&scene.layer(&scene.layers(file)[0])), tree(&scene.path("root")), "{file}");
    }
    let told = scene.unpacked("root");
    assert!(told.contains("used in place"), "{told}");
}

#[test]
fn an_index_gives_the_platform_that_is_asked_for() {
    if !root("an_index_gives_the_platform_that_is_asked_for") {
        return;
    }
    let scene = Scene::new();
    let platforms = [("amd64", ""), ("arm", "v6"), ("arm", "v7"), ("386", "")];
    let mut members = Vec::new();
    let mut entries = Vec::new();
    for (architecture, variant) in platforms {
        let layer = tar(&[("platform", format!("{architecture}{variant}").as_bytes())]);
        let mut image = Image::new(vec![layer.clone()]);
        image.config = config(architecture, &format!("\"sha256:{}\"", hex(&layer)));
        let manifest = image.manifest();
        entries.push(format!(
            "{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:{}\",\"size\":{},\
             \"platform\":{{\"os\":\"linux\",\"architecture\":\"{architecture}\",\"variant\":\"{variant}\"}}}}",
            hex(manifest.as_bytes()),
            manifest.len()
        ));
        members.extend(image.blobs());
    }
    let index = format!("{{\"schemaVersion\":2,\"manifests\":[{}]}}", entries.join(","));
    members.push(("index.json".into(), index.into_bytes()));
    members.push(("oci-layout".into(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec()));
    fs::write(scene.path("multi.tar"), archive(&members)).unwrap();
    for (arch, expected) in [("amd64", "amd64"), ("armv7l", "armv7"), ("arm/v6", "armv6"), ("386", "386")] {
        let ran = scene.coracle("unpack", &["--arch", arch, "multi.tar"]);
        assert_eq!(ran.code, 0, "{arch}: {}", ran.err);
        let layer = scene.layer(&scene.layers("multi.tar")[0]);
        assert_eq!(fs::read_to_string(layer.join("platform")).unwrap(), expected);
    }
    let ran = scene.coracle("unpack", &["--arch", "riscv64", "multi.tar"]);
    assert_eq!(ran.code, 78);
    for word in ["linux/arm/v7", "linux/386", "wanted is linux/riscv64"] {
        assert!(ran.err.contains(word), "{}", ran.err);
    }
}

#[test]
fn a_second_unpack_reads_nothing_and_a_replaced_file_is_noticed() {
    if !root("a_second_unpack_reads_nothing_and_a_replaced_file_is_noticed") {
        return;
    }
    let scene = Scene::new();
    fs::write(scene.path("a.tar"), archive(&Image::simple().save())).unwrap();
    scene.unpacked("a.tar");
    assert!(scene.unpacked("a.tar").contains("unpacked already"));
    let other = Image::new(vec![tar(&[("other", b"other")])]);
    fs::write(scene.path("new"), archive(&other.save())).unwrap();
    fs::rename(scene.path("new"), scene.path("a.tar")).unwrap();
    assert!(!scene.unpacked("a.tar").contains("already"));
    assert_eq!(scene.layers("a.tar"), [hex(&other.layers[0])]);
    assert!(scene.coracle("prune", &[]).out.contains("2 layers"));
    let removed = scene.coracle("rmi", &["a.tar"]);
    assert!(removed.code == 0 && removed.out.contains("1 layers"), "{}{}", removed.out, removed.err);
    assert_eq!(scene.visible(), Vec::<String>::new());
}

#[test]
fn a_damaged_layer_is_found_and_rebuilt_from_its_file() {
    if !root("a_damaged_layer_is_found_and_rebuilt_from_its_file") {
        return;
    }
    let scene = Scene::new();
    fs::write(scene.path("a.tar"), archive(&Image::simple().save())).unwrap();
    scene.unpacked("a.tar");
    let victim = scene.layer(&scene.layers("a.tar")[0]).join("etc/low");
    // As a power cut leaves it: the name is there, the bytes are not.
    fs::write(&victim, "").unwrap();
    let ran = scene.coracle("verify", &[]);
    assert!(ran.code == 1 && ran.out.contains("layer 1 of 2"), "{}{}", ran.out, ran.err);
    assert!(!scene.unpacked("a.tar").contains("already"));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "low");
    assert_eq!(scene.coracle("verify", &[]).code, 0);
}

#[test]
fn what_pack_writes_is_read_by_skopeo_and_by_coracle_and_is_the_same_twice() {
    let name = "what_pack_writes_is_read_by_skopeo_and_by_coracle_and_is_the_same_twice";
    if !root(name) {
        return;
    }
    let scene = Scene::new();
    rootfs(&scene.path("root"));
    let at = scene.folder.path();
    for file in ["a.tar", "b.tar"] {
        let args = [
            "pack",
            "root",
            "-o",
            file,
            "--name",
            "app:1",
            "--entrypoint",
            "/bin/app",
            "--env",
            "A=<b>",
            "--user",
            "7:8",
        ];
        sh(at, COMMAND, &args);
    }
    assert!(fs::read(scene.path("a.tar")).unwrap() == fs::read(scene.path("b.tar")).unwrap());
    scene.unpacked("a.tar#app:1");
    let layer = scene.layer(&scene.layers("a.tar#app:1")[0]);
    assert_eq!(tree(&layer), tree(&scene.path("root")));
    if tools(name, &["skopeo"]) {
        sh(at, "skopeo", &["--insecure-policy", "copy", "-q", "docker-archive:a.tar", "oci:one"]);
        sh(at, "skopeo", &["--insecure-policy", "copy", "-q", "oci-archive:a.tar", "oci:two"]);
    }
}
