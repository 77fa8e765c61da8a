//! What the store remembers: one record for each unpacked image, one for each layer. Both are JSON with a version; an
//! unknown version is as good as no record, and nothing of it is deleted.
#![forbid(unsafe_code)]

use super::ImageError;
use super::config::{HealthCheck, ImageConfig, stop_signal};
use super::digest::Digest;
use super::mountable::Mountable;
use super::platform::Platform;
use super::text::{List, need, parse, quote, quote_list, text, texts};
use crate::base::limits::{ARGV, ENV, LAYERS};
use crate::base::units::Millis;
use crate::objects;
use crate::plan::Times;
use core::fmt::Write;

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

objects! {
    struct RawImage<'a> {
        version: Option<u32>,
        reference: Option<&'a str>,
        size: Option<u64>,
        mtime_ns: Option<i64>,
        inode: Option<u64>,
        names: Option<List<&'a str, RECORD_NAMES>>,
        image_id: Option<&'a str>,
        layers: Option<List<&'a str, LAYERS>>,
        folder: Option<&'a str>,
        squashfs: Option<&'a str>,
        erofs: Option<&'a str>,
        entrypoint: Option<List<&'a str, ARGV>>,
        cmd: Option<List<&'a str, ARGV>>,
        env: Option<List<&'a str, ENV>>,
        user: Option<&'a str>,
        working_dir: Option<&'a str>,
        stop_signal: Option<&'a str>,
        health: Option<List<&'a str, ARGV>>,
        interval: Option<u64>,
        timeout: Option<u64>,
        start_period: Option<u64>,
        retries: Option<u8>,
        os: Option<&'a str>,
        architecture: Option<&'a str>,
        variant: Option<&'a str>,
    }

    struct RawLayer {
        version: Option<u32>,
        bytes: Option<u64>,
        entries: Option<u64>,
        setuid: Option<u64>,
        capabilities: Option<u64>,
        devices: Option<u64>,
        xattrs: Option<u64>,
        opaque_root: Option<bool>,
        tree: Option<u64>,
        times: Option<bool>,
    }
}

fn known(what: &str, version: Option<u32>) -> Result<(), ImageError> {
    match need(what, "version", version)? {
        VERSION => Ok(()),
        other => Err(ImageError::failed(&format_args!("{what} is of version {other}, known is {VERSION}"))),
    }
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
        if let Some(check) = &self.config.health {
            out.push_str(",\"health\":");
            quote_list(&mut out, check.command.iter().map(|word| &**word));
            let Times { interval, timeout, start_period, retries } = check.times;
            let times = [("interval", interval), ("timeout", timeout), ("start_period", start_period)];
            for (key, time) in times.into_iter().filter_map(|(key, time)| Some((key, time?))) {
                let _ = write!(out, ",\"{key}\":{}", time.0);
            }
            let _ = write!(out, ",\"retries\":{}", retries.unwrap_or(0));
        }
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
        let what = "the image record";
        let raw: RawImage<'_> = parse(what, bytes)?;
        known(what, raw.version)?;
        let digest = |raw: &str| {
            Digest::parse(&text(Some(raw))).ok_or_else(|| ImageError::invalid(&"the image record holds a bad digest"))
        };
        let root = match (raw.layers, raw.folder, raw.squashfs, raw.erofs) {
            (Some(List(layers)), None, None, None) => {
                Root::Layers(layers.into_iter().map(digest).collect::<Result<_, _>>()?)
            }
            (None, folder @ Some(_), None, None) => Root::Folder(text(folder)),
            (None, None, file @ Some(_), None) => Root::File(Mountable::Squashfs, text(file)),
            (None, None, None, file @ Some(_)) => Root::File(Mountable::Erofs, text(file)),
            _ => return Err(ImageError::invalid(&"the image record has not exactly one kind of root")),
        };
        let platform = match (raw.os, raw.architecture) {
            (os @ Some(_), architecture @ Some(_)) => {
                Some(Platform { os: text(os), architecture: text(architecture), variant: text(raw.variant) })
            }
            _ => None,
        };
        Ok(ImageRecord {
            reference: text(Some(need(what, "reference", raw.reference)?)),
            source: SourceId {
                size: need(what, "size", raw.size)?,
                mtime_ns: need(what, "mtime_ns", raw.mtime_ns)?,
                inode: need(what, "inode", raw.inode)?,
            },
            names: texts(&need(what, "names", raw.names)?),
            image_id: raw.image_id.map(digest).transpose()?,
            root,
            config: ImageConfig {
                entrypoint: texts(&need(what, "entrypoint", raw.entrypoint)?),
                cmd: texts(&need(what, "cmd", raw.cmd)?),
                env: texts(&need(what, "env", raw.env)?),
                user: text(Some(need(what, "user", raw.user)?)),
                working_dir: text(Some(need(what, "working_dir", raw.working_dir)?)),
                stop_signal: stop_signal(&text(raw.stop_signal))?,
                health: raw.health.map(|command| {
                    let times = Times {
                        interval: raw.interval.map(Millis),
                        timeout: raw.timeout.map(Millis),
                        start_period: raw.start_period.map(Millis),
                        retries: raw.retries,
                    };
                    Box::new(HealthCheck { command: texts(&command), times })
                }),
                platform,
            },
        })
    }
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
        let what = "the layer record";
        let raw: RawLayer = parse(what, bytes)?;
        known(what, raw.version)?;
        Ok(LayerRecord {
            stats: LayerStats {
                bytes: need(what, "bytes", raw.bytes)?,
                entries: need(what, "entries", raw.entries)?,
                setuid: need(what, "setuid", raw.setuid)?,
                capabilities: need(what, "capabilities", raw.capabilities)?,
                devices: need(what, "devices", raw.devices)?,
                xattrs: need(what, "xattrs", raw.xattrs)?,
            },
            opaque_root: need(what, "opaque_root", raw.opaque_root)?,
            tree: need(what, "tree", raw.tree)?,
            // Records of before there were baked stores do not say so.
            times: raw.times.unwrap_or(true),
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
                health: Some(Box::new(HealthCheck {
                    command: vec!["/bin/check".into(), "-a b".into()],
                    times: Times {
                        interval: Some(Millis(1)),
                        start_period: Some(Millis(0)),
                        retries: Some(9),
                        timeout: None,
                    },
                })),
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
        assert!(ImageRecord::from_json(newer.as_bytes()).unwrap_err().text().contains("version 2"));
    }
}
