//! What the tests on archives share: archives to unpack, a place to unpack them in, and how it looks afterwards.
#![allow(dead_code, reason = "each test file uses its own part")]

use coracle::image::layer::{self, LayerError, LayerOptions, LayerReport};
use coracle::image::tar::write::Writer;
use coracle::image::tar::{Entry, Kind, Mtime, Xattr};
use coracle::sys::xattr;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// An entry and its data.
#[derive(Clone)]
pub struct Item(pub Entry, pub Vec<u8>);

pub fn item(path: &str, kind: Kind, mode: u32) -> Item {
    let entry = Entry {
        path: path.into(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Mtime { seconds: 1_000_000_000, nanoseconds: 0 },
        size: 0,
        xattrs: Vec::new(),
        offset: 0,
        data_offset: 0,
    };
    Item(entry, Vec::new())
}

pub fn file(path: &str, data: &str) -> Item {
    let Item(entry, _) = item(path, Kind::File, 0o644);
    Item(Entry { size: data.len() as u64, ..entry }, data.into())
}

pub fn dir(path: &str) -> Item {
    item(path, Kind::Directory, 0o755)
}

pub fn symlink(path: &str, target: &str) -> Item {
    item(path, Kind::Symlink(target.into()), 0o777)
}

pub fn hardlink(path: &str, target: &str) -> Item {
    item(path, Kind::HardLink(target.into()), 0o644)
}

pub fn mode(item: Item, mode: u32) -> Item {
    Item(Entry { mode, ..item.0 }, item.1)
}

pub fn xattr(mut item: Item, name: &str, value: &[u8]) -> Item {
    item.0.xattrs.push(Xattr { name: name.into(), value: value.into() });
    item
}

/// The archive of these entries.
pub fn tar(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for Item(entry, data) in items {
        writer.append(entry, &data[..]).unwrap();
    }
    writer.finish().unwrap()
}

/// A header block with the right checksum, for what the writer does not write; `edit` changes it before that.
pub fn block(name: &str, typeflag: u8, size: u64, edit: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut block = [0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = typeflag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    edit(&mut block);
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.to_vec()
}

/// `data`, padded with zeros to whole blocks.
pub fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

/// A pax record.
pub fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let length = (1..4).map(|digits| rest + digits).find(|all| all.to_string().len() + rest == *all).unwrap();
    format!("{length} {key}={value}\n")
}

/// A pax header with these records.
pub fn pax(records: &str) -> Vec<u8> {
    [block("PaxHeaders/x", b'x', records.len() as u64, |_| {}), padded(records.as_bytes())].concat()
}

/// A folder with files that must survive and an empty one to unpack into.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        // In memory where there is a tmpfs: thousands of small trees wear a disk and wait for its journal.
        let builder = || tempfile::Builder::new().prefix("coracle-layer-").to_owned();
        let folder = builder().tempdir_in("/dev/shm").or_else(|_| builder().tempdir()).unwrap();
        for (name, text) in [("etc/passwd", "canary"), ("canary", "canary"), ("tmp/x", "canary")] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir(folder.path().join("root")).unwrap();
        Place { folder }
    }

    pub fn outside(&self) -> &Path {
        self.folder.path()
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    pub fn unpack(&self, archive: &[u8], options: &LayerOptions) -> Result<LayerReport, LayerError> {
        let root = fs::File::open(self.root()).unwrap();
        layer::unpack(archive, root.as_fd(), options)
    }

    /// Everything outside the unpacked root.
    pub fn surroundings(&self) -> BTreeMap<String, String> {
        let mut all = tree(self.folder.path());
        all.retain(|path, _| path != "root" && !path.starts_with("root/"));
        all
    }

    /// The unpacked root.
    pub fn tree(&self) -> BTreeMap<String, String> {
        tree(&self.root())
    }
}

/// Unpacks into a fresh place; panics if anything outside changed. Gives the tree on success.
pub fn unpack(archive: &[u8], options: &LayerOptions) -> Result<(LayerReport, BTreeMap<String, String>), LayerError> {
    let place = Place::new();
    let before = place.surroundings();
    let result = place.unpack(archive, options);
    assert_eq!(place.surroundings(), before, "something outside the root changed");
    result.map(|report| (report, place.tree()))
}

/// Each path below `folder` with type, mode, owner, time and contents.
pub fn tree(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let what = if kind.is_dir() {
                open.push(path.clone());
                let opaque = xattr::get(fs::File::open(&path).unwrap().as_fd(), c"trusted.overlay.opaque");
                if opaque.as_deref() == Ok(b"y") { "opaque dir".to_string() } else { "dir".to_string() }
            } else if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_char_device() || kind.is_block_device() {
                format!("device {:#x}", meta.rdev())
            } else if kind.is_fifo() {
                "fifo".to_string()
            } else {
                format!("file {:?}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
            };
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            found.insert(name, format!("{what} {:04o}", meta.permissions().mode() & 0o7777));
        }
    }
    found
}

/// Whether a test that makes whiteouts can run; says why not.
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skip: {test}: needs root");
    }
    root
}

/// A small generator of numbers (xorshift64*), the same on every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }
}
