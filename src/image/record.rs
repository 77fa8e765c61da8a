//! What the store remembers: one record for each unpacked image, one for each layer. Both are JSON with a version; an
//! unknown version is as good as no record, and nothing of it is deleted.
#![forbid(unsafe_code)]

use super::ImageError;
use super::config::{ImageConfig, stop_signal};
use super::digest::Digest;
use super::mountable::Mountable;
use super::platform::Platform;
use super::text::{List, Text, parse, quote, quote_list};
use crate::base::limits::{ARGV, ENV, LAYERS};
use core::fmt::Write;
use serde::Deserialize;

/// The version of both record formats.
const VERSION: u32 = 1;
/// Names kept of one image.
pub const RECORD_NAMES: usize = 64;

/// What tells that a file is still the one that was unpacked: one stat(2), no read. The path is the record's key; the
/// device number is left out because it may change from boot to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceId {
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Inode number.
    pub inode: u64,
}

/// What an image's root file system is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// Layers of the store by diff ID, lowest first.
    Layers(Vec<Digest>),
    /// A rootfs folder of the host, used in place.
    Folder(Box<str>),
    /// A file that is a file system, mounted as it is.
    File(Mountable, Box<str>),
}

impl Root {
    /// The diff IDs, lowest first; none of what is used in place.
    pub fn layers(&self) -> &[Digest] {
        match self {
            Root::Layers(layers) => layers,
            Root::Folder(_) | Root::File(..) => &[],
        }
    }
}

/// An image that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Its reference with the absolute path of the file.
    pub reference: Box<str>,
    /// The file as it was when it was unpacked.
    pub source: SourceId,
    /// Names that the archive gives it.
    pub names: Vec<Box<str>>,
    /// SHA-256 of its config, which docker shows as image ID; of a plain rootfs, none.
    pub image_id: Option<Digest>,
    /// Its root file system.
    pub root: Root,
    /// What it says about the process.
    pub config: ImageConfig,
}

/// What unpacking one layer left out and how large the result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerStats {
    /// Bytes of file content written.
    pub bytes: u64,
    /// Entries read.
    pub entries: u64,
    /// Setuid and setgid bits dropped.
    pub setuid: u64,
    /// File capabilities dropped.
    pub capabilities: u64,
    /// Device nodes, FIFOs and sockets left out.
    pub devices: u64,
    /// Extended attributes left out.
    pub xattrs: u64,
}

impl LayerStats {
    /// The sums of two layers.
    pub fn plus(self, other: LayerStats) -> LayerStats {
        LayerStats {
            bytes: self.bytes.saturating_add(other.bytes),
            entries: self.entries.saturating_add(other.entries),
            setuid: self.setuid.saturating_add(other.setuid),
            capabilities: self.capabilities.saturating_add(other.capabilities),
            devices: self.devices.saturating_add(other.devices),
            xattrs: self.xattrs.saturating_add(other.xattrs),
        }
    }
}

/// The record of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerRecord {
    /// What was written and what was left out.
    pub stats: LayerStats,
    /// Whether it hides every layer below: overlayfs does not look for that mark on a layer's root, so those are left
    /// out of the image.
    pub opaque_root: bool,
    /// The checksum of the tree, see [`super::tree`].
    pub tree: u64,
    /// Whether it covers the times of change: not in a baked store, because what makes a firmware's file system of it
    /// may set them all to one.
    pub times: bool,
}

#[derive(Deserialize)]
struct RawImage {
    version: u32,
    reference: Text,
    size: u64,
    mtime_ns: i64,
    inode: u64,
    names: List<Text, RECORD_NAMES>,
    image_id: Option<Text>,
    layers: Option<List<Text, LAYERS>>,
    folder: Option<Text>,
    squashfs: Option<Text>,
    erofs: Option<Text>,
    entrypoint: List<Text, ARGV>,
    cmd: List<Text, ARGV>,
    env: List<Text, ENV>,
    user: Text,
    working_dir: Text,
    stop_signal: Option<Text>,
    os: Option<Text>,
    architecture: Option<Text>,
    variant: Option<Text>,
}

impl ImageRecord {
    /// The record as the store keeps it.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        let _ = write!(out, "{{\"version\":{VERSION},\"reference\":");
        quote(&mut out, &self.reference);
        let SourceId { size, mtime_ns, inode } = self.source;
        let _ = write!(out, ",\"size\":{size},\"mtime_ns\":{mtime_ns},\"inode\":{inode}");
        let lists = [
            ("names", &self.names),
            ("entrypoint", &self.config.entrypoint),
            ("cmd", &self.config.cmd),
            ("env", &self.config.env),
        ];
        for (key, list) in lists {
            let _ = write!(out, ",\"{key}\":");
            quote_list(&mut out, list.iter().map(|item| &**item));
        }
        let mut texts: Vec<(&str, String)> =
            vec![("user", self.config.user.to_string()), ("working_dir", self.config.working_dir.to_string())];
        texts.extend(self.image_id.map(|id| ("image_id", id.to_string())));
        texts.extend(self.config.stop_signal.map(|number| ("stop_signal", number.to_string())));
        if let Some(platform) = &self.config.platform {
            texts.push(("os", platform.os.to_string()));
            texts.push(("architecture", platform.architecture.to_string()));
            texts.push(("variant", platform.variant.to_string()));
        }
        match &self.root {
            Root::Folder(folder) => texts.push(("folder", folder.to_string())),
            Root::File(kind, file) => texts.push((kind.name(), file.to_string())),
            Root::Layers(_) => {}
        }
        for (key, text) in texts {
            let _ = write!(out, ",\"{key}\":");
            quote(&mut out, &text);
        }
        if let Root::Layers(layers) = &self.root {
            out.push_str(",\"layers\":");
            let layers: Vec<String> = layers.iter().map(Digest::to_string).collect();
            quote_list(&mut out, layers.iter().map(String::as_str));
        }
        out.push_str("}\n");
        out
    }

    /// Reads a record of this version.
    pub fn from_json(bytes: &[u8]) -> Result<ImageRecord, ImageError> {
        let raw: RawImage = parse("the image record", bytes)?;
        if raw.version != VERSION {
            return Err(ImageError::failed(format!(
                "the image record is of version {}, known is {VERSION}",
                raw.version
            )));
        }
        let texts = |Text(text)| text;
        let digest = |Text(text): Text| {
            Digest::parse(&text).ok_or_else(|| ImageError::invalid("the image record holds a bad digest"))
        };
        let root = match (raw.layers, raw.folder, raw.squashfs, raw.erofs) {
            (Some(List(layers)), None, None, None) => {
                Root::Layers(layers.into_iter().map(digest).collect::<Result<_, _>>()?)
            }
            (None, Some(Text(folder)), None, None) => Root::Folder(folder),
            (None, None, Some(Text(file)), None) => Root::File(Mountable::Squashfs, file),
            (None, None, None, Some(Text(file))) => Root::File(Mountable::Erofs, file),
            _ => return Err(ImageError::invalid("the image record has not exactly one kind of root")),
        };
        let platform = match (raw.os, raw.architecture) {
            (Some(Text(os)), Some(Text(architecture))) => {
                Some(Platform { os, architecture, variant: raw.variant.unwrap_or_default().0 })
            }
            _ => None,
        };
        Ok(ImageRecord {
            reference: raw.reference.0,
            source: SourceId { size: raw.size, mtime_ns: raw.mtime_ns, inode: raw.inode },
            names: raw.names.0.into_iter().map(texts).collect(),
            image_id: raw.image_id.map(digest).transpose()?,
            root,
            config: ImageConfig {
                entrypoint: raw.entrypoint.0.into_iter().map(texts).collect(),
                cmd: raw.cmd.0.into_iter().map(texts).collect(),
                env: raw.env.0.into_iter().map(texts).collect(),
                user: raw.user.0,
                working_dir: raw.working_dir.0,
                stop_signal: raw.stop_signal.map(|Text(text)| stop_signal(&text)).transpose()?.flatten(),
                platform,
            },
        })
    }
}

#[derive(Deserialize)]
struct RawLayer {
    version: u32,
    bytes: u64,
    entries: u64,
    setuid: u64,
    capabilities: u64,
    devices: u64,
    xattrs: u64,
    opaque_root: bool,
    tree: u64,
    times: Option<bool>,
}

impl LayerRecord {
    /// The record as the store keeps it.
    pub fn to_json(&self) -> String {
        let LayerStats { bytes, entries, setuid, capabilities, devices, xattrs } = self.stats;
        format!(
            "{{\"version\":{VERSION},\"bytes\":{bytes},\"entries\":{entries},\"setuid\":{setuid},\
             \"capabilities\":{capabilities},\"devices\":{devices},\"xattrs\":{xattrs},\"opaque_root\":{},\"tree\":{},\"times\":{}}}\n",
            self.opaque_root, self.tree, self.times
        )
    }

    /// Reads a record of this version.
    pub fn from_json(bytes: &[u8]) -> Result<LayerRecord, ImageError> {
        let raw: RawLayer = parse("the layer record", bytes)?;
        if raw.version != VERSION {
            return Err(ImageError::failed(format!(
                "the layer record is of version {}, known is {VERSION}",
                raw.version
            )));
        }
        let RawLayer { bytes, entries, setuid, capabilities, devices, xattrs, opaque_root, tree, times, .. } = raw;
        Ok(LayerRecord {
            stats: LayerStats { bytes, entries, setuid, capabilities, devices, xattrs },
            opaque_root,
            tree,
            // Records of before there were baked stores do not say so.
            times: times.unwrap_or(true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ImageRecord {
        ImageRecord {
            reference: "/data/a \"b\".tar#x:1".into(),
            source: SourceId { size: 7, mtime_ns: -5, inode: u64::MAX },
            names: vec!["x:1".into()],
            image_id: Some(Digest([3; 32])),
            root: Root::Layers(vec![Digest([1; 32]), Digest([2; 32])]),
            config: ImageConfig {
                entrypoint: vec!["/bin/sh".into()],
                env: vec!["A=b\nc".into()],
                stop_signal: Some(15),
                platform: Some(Platform::linux("arm", "v7")),
                ..ImageConfig::empty()
            },
        }
    }

    #[test]
    fn records_read_as_they_are_written() {
        let record = sample();
        assert_eq!(ImageRecord::from_json(record.to_json().as_bytes()).unwrap(), record);
        let folder = ImageRecord { root: Root::Folder("/x".into()), image_id: None, ..record };
        assert_eq!(ImageRecord::from_json(folder.to_json().as_bytes()).unwrap(), folder);
        for kind in Mountable::ALL {
            let file = ImageRecord { root: Root::File(kind, "/x.img".into()), ..folder.clone() };
            assert_eq!(ImageRecord::from_json(file.to_json().as_bytes()).unwrap(), file);
        }
        let stats = LayerStats { bytes: 1, entries: 2, setuid: 3, capabilities: 4, devices: 5, xattrs: 6 };
        let layer = LayerRecord { stats, opaque_root: true, tree: u64::MAX, times: false };
        assert_eq!(LayerRecord::from_json(layer.to_json().as_bytes()).unwrap(), layer);
    }

    #[test]
    fn a_cut_or_newer_record_is_refused() {
        let json = sample().to_json();
        for length in 0..json.len() - 2 {
            assert!(ImageRecord::from_json(&json.as_bytes()[..length]).is_err(), "{length}");
        }
        let newer = json.replace("\"version\":1", "\"version\":2");
        assert!(ImageRecord::from_json(newer.as_bytes()).unwrap_err().text.contains("version 2"));
    }
}
