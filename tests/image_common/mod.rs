//! What the tests of images share: crafted archives, the command, and trees to compare.
#![allow(dead_code)]

use coracle::image::tar::write::Writer;
use coracle::image::tar::{Entry, Kind, Mtime};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const COMMAND: &str = env!("CARGO_BIN_EXE_coracle");

/// Whether the test may run: root with the namespaces that the unpacker needs.
pub fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skip: {test}: needs root");
    }
    root
}

/// Whether programs of other makers are there.
pub fn tools(test: &str, names: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let there = |name: &&&str| path.split(':').any(|folder| Path::new(folder).join(name).exists());
    match names.iter().find(|name| !there(name)) {
        Some(missing) => {
            eprintln!("skip: {test}: {missing} is not installed");
            false
        }
        None => true,
    }
}

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program of another maker and insists on success.
pub fn sh(folder: &Path, program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A folder for one test, with a state folder in it.
pub struct Scene {
    pub folder: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Scene {
        Scene { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn coracle(&self, command: &str, more: &[&str]) -> Ran {
        let state = self.path("state");
        let mut args = vec![command, "--state", state.to_str().unwrap()];
        args.extend(more);
        ran(Command::new(COMMAND).args(&args).current_dir(self.folder.path()).output().unwrap())
    }

    pub fn unpack(&self, image: &str) -> Ran {
        self.coracle("unpack", &[image])
    }

    /// Unpacks and insists on success.
    pub fn unpacked(&self, image: &str) -> String {
        let ran = self.unpack(image);
        assert_eq!(ran.code, 0, "{image}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// The diff IDs of an unpacked image, lowest first, as hex.
    pub fn layers(&self, image: &str) -> Vec<String> {
        let listed = self.coracle("images", &["--json"]).out;
        let at = listed.find(&format!("{image}\"")).unwrap_or_else(|| panic!("{image} is not in {listed}"));
        let list = &listed[at..];
        let list = &list[list.find("\"layers\":[").unwrap() + 10..];
        let list = &list[..list.find(']').unwrap()];
        list.split(',').map(|id| id.trim_matches('"').trim_start_matches("sha256:").to_owned()).collect()
    }

    pub fn layer(&self, hex: &str) -> PathBuf {
        self.path("state/layers").join(hex).join("tree")
    }

    /// What is visible in the state folder: layers, images, and staging folders.
    pub fn visible(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in ["layers", "images", "staging"] {
            for entry in fs::read_dir(self.path("state").join(folder)).into_iter().flatten().flatten() {
                found.push(format!("{folder}/{}", entry.file_name().to_string_lossy()));
            }
        }
        found
    }
}

/// Type, mode, owner, size, time and link target of everything below a folder.
pub fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let mut text = format!("{:o} {}:{} {}", meta.mode() & !0o6000, meta.uid(), meta.gid(), meta.mtime());
            if meta.is_symlink() {
                text += &format!(" -> {}", fs::read_link(&path).unwrap().display());
            } else if meta.is_file() {
                text += &format!(" {} {}", meta.size(), hex(&fs::read(&path).unwrap()));
            }
            found.insert(name, text);
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn file(name: &str, size: usize) -> Entry {
    Entry {
        path: name.as_bytes().to_vec(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Mtime { seconds: 1_000_000_000, nanoseconds: 0 },
        size: size as u64,
        xattrs: Vec::new(),
        offset: 0,
        data_offset: 0,
    }
}

/// A tar of files with the given contents.
pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in members {
        writer.append(&file(name, content.len()), *content).unwrap();
    }
    writer.finish().unwrap()
}

/// A tar of entries without contents.
pub fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.append(entry, std::io::empty()).unwrap();
    }
    writer.finish().unwrap()
}

/// The documents and layers of one image, to be spoilt before it becomes an archive.
pub struct Image {
    pub config: String,
    pub layers: Vec<Vec<u8>>,
    pub names: String,
}

impl Image {
    pub fn new(layers: Vec<Vec<u8>>) -> Image {
        let diffs: Vec<String> = layers.iter().map(|layer| format!("\"sha256:{}\"", hex(layer))).collect();
        Image { config: config("amd64", &diffs.join(",")), layers, names: "\"app:1\"".into() }
    }

    pub fn simple() -> Image {
        Image::new(vec![tar(&[("etc/low", b"low"), ("etc/both", b"low")]), tar(&[("etc/both", b"high")])])
    }

    pub fn manifest(&self) -> String {
        let layers: Vec<String> = self
            .layers
            .iter()
            .map(|layer| {
                format!(
                    "{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:{}\",\"size\":{}}}",
                    hex(layer),
                    layer.len()
                )
            })
            .collect();
        format!(
            "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\
             \"digest\":\"sha256:{}\",\"size\":{}}},\"layers\":[{}]}}",
            hex(self.config.as_bytes()),
            self.config.len(),
            layers.join(",")
        )
    }

    pub fn index(&self, more: &str) -> String {
        let manifest = self.manifest();
        format!(
            "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
             \"digest\":\"sha256:{}\",\"size\":{}{more}}}]}}",
            hex(manifest.as_bytes()),
            manifest.len()
        )
    }

    pub fn docker(&self) -> String {
        let layers: Vec<String> = self.layers.iter().map(|layer| format!("\"blobs/sha256/{}\"", hex(layer))).collect();
        format!(
            "[{{\"Config\":\"blobs/sha256/{}\",\"RepoTags\":[{}],\"Layers\":[{}]}}]",
            hex(self.config.as_bytes()),
            self.names,
            layers.join(",")
        )
    }

    pub fn blobs(&self) -> Vec<(String, Vec<u8>)> {
        let documents = [self.config.clone().into_bytes(), self.manifest().into_bytes()];
        let all = documents.into_iter().chain(self.layers.iter().cloned());
        let mut blobs: Vec<_> = all.map(|bytes| (format!("blobs/sha256/{}", hex(&bytes)), bytes)).collect();
        blobs.sort();
        blobs.dedup();
        blobs
    }

    /// Both formats in one archive, as `docker save` writes it today.
    pub fn save(&self) -> Vec<(String, Vec<u8>)> {
        let mut members = self.blobs();
        members.push(("index.json".into(), self.index("").into_bytes()));
        members.push(("manifest.json".into(), self.docker().into_bytes()));
        members.push(("oci-layout".into(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec()));
        members
    }

    /// docker's format alone.
    pub fn docker_only(&self) -> Vec<(String, Vec<u8>)> {
        self.save().into_iter().filter(|(name, _)| name != "oci-layout" && name != "index.json").collect()
    }
}

pub fn config(architecture: &str, diffs: &str) -> String {
    format!(
        "{{\"architecture\":\"{architecture}\",\"os\":\"linux\",\"config\":{{\"Cmd\":[\"/bin/app\"]}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{diffs}]}}}}"
    )
}

pub fn archive(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    tar(&members)
}

/// A rootfs tarball of one large file of zeros, which costs no disk.
pub fn large_tarball(path: &Path) {
    const SIZE: usize = 96 << 20;
    let header = &tar_of(&[file("etc/large", 0)])[..512];
    let mut header = header.to_vec();
    header[124..136].copy_from_slice(format!("{SIZE:011o}\0").as_bytes());
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut file = File::create(path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(512 + SIZE as u64 + 1024).unwrap();
}

/// Starts to unpack a large tarball and waits until the worker writes.
pub fn half_way(scene: &Scene) -> Child {
    large_tarball(&scene.path("x.tar"));
    let state = scene.path("state");
    let child = Command::new(COMMAND)
        .args(["unpack", "--state", state.to_str().unwrap(), scene.path("x.tar").to_str().unwrap()])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let writing = || {
        let jobs = fs::read_dir(state.join("staging")).into_iter().flatten().flatten();
        jobs.into_iter()
            .any(|job| fs::metadata(job.path().join("new-0/tree/etc/large")).is_ok_and(|file| file.len() > 0))
    };
    while !writing() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the unpacker never began to write");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

pub fn end(child: Child) -> Ran {
    ran(child.wait_with_output().unwrap())
}

/// The process that unpacks for a running command.
pub fn worker_of(command: &Child) -> i32 {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", command.id())).unwrap();
    children.split_whitespace().next().expect("the command has a worker").parse().unwrap()
}
