//! Where layers go: each into a folder of its own beneath the staging folder, unpacked, digested and recorded.
#![forbid(unsafe_code)]

use crate::base::read::ReadBytes;
use crate::image::ImageError;
use crate::image::decompress::{DecodeError, Decoder, Wanted};
use crate::image::digest::Digest;
use crate::image::layer::{self, LayerError, LayerOptions, LayerReport, Ledger, Problem, Used};
use crate::image::record::{LayerRecord, LayerStats};
use crate::image::tree;
use crate::sys::folder;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Bytes between two reports of progress.
const STRIDE: u64 = 512 << 10;

/// How far an unpack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes of the archive read.
    pub done: u64,
    /// Bytes to read; 0 while that is not known.
    pub total: u64,
    /// The layer being unpacked, from 1; 0 before the first.
    pub layer: u16,
    /// Layers to unpack; 0 while that is not known.
    pub layers: u16,
}

/// A layer that was unpacked but is not yet known to be the right one.
#[derive(Debug, Clone)]
pub struct Done {
    folder: PathBuf,
    /// SHA-256 of the layer as stored.
    pub stored: Digest,
    /// SHA-256 of its uncompressed tar stream.
    pub diff: Digest,
    /// Bytes as stored.
    pub stored_bytes: u64,
}

/// A layer without a record: it is written by who knows where the layer goes.
#[derive(Debug)]
pub struct Unrecorded {
    /// What was written and what was left out.
    pub stats: LayerStats,
    /// Whether it hides every layer below.
    pub opaque_root: bool,
    /// What its files should have had, if they were not given it.
    pub ledger: Option<Ledger>,
}

/// How layers are unpacked.
enum Way {
    /// To be used in place, each with its record.
    Recorded,
    /// To be taken elsewhere; their folders and what is known of them.
    Unrecorded { marked: bool, folders: Vec<(PathBuf, Unrecorded)>, accepted: Vec<(Digest, Unrecorded)> },
}

/// Takes layers and stages them.
pub struct Sink<'a> {
    root: PathBuf,
    options: LayerOptions,
    content: u64,
    next: u32,
    accepted: Vec<Digest>,
    way: Way,
    progress: Progress,
    report: &'a mut dyn FnMut(Progress),
}

impl<'a> Sink<'a> {
    /// A sink that makes folders beneath `root` and tells `report` how far it is.
    pub fn new(root: &Path, options: LayerOptions, report: &'a mut dyn FnMut(Progress)) -> Sink<'a> {
        Sink {
            root: root.to_owned(),
            options,
            content: 0,
            next: 0,
            accepted: Vec::new(),
            way: Way::Recorded,
            progress: Progress::default(),
            report,
        }
    }

    /// The same, for layers that are taken elsewhere. Unless they are `marked`, their files belong to the caller.
    pub fn without_records(self, marked: bool) -> Sink<'a> {
        Sink { way: Way::Unrecorded { marked, folders: Vec::new(), accepted: Vec::new() }, ..self }
    }

    /// What was accepted without a record, in that order; each is in the folder of its diff ID.
    pub fn into_unrecorded(self) -> Vec<(Digest, Unrecorded)> {
        match self.way {
            Way::Recorded => Vec::new(),
            Way::Unrecorded { accepted, .. } => accepted,
        }
    }

    /// Says what is to come: `total` bytes in `layers` layers.
    pub fn expect(&mut self, total: u64, layers: usize) {
        // A stream's layers are unpacked before they can be counted.
        self.progress.total = total.max(self.progress.done);
        self.progress.layers = layers as u16;
        (self.report)(self.progress);
    }

    /// Unpacks one layer, which ends where `source` ends.
    pub fn unpack(&mut self, source: &mut dyn ReadBytes) -> Result<Done, ImageError> {
        self.progress.layer = self.progress.layer.saturating_add(1);
        let folder = self.root.join(format!("new-{}", self.next));
        self.next += 1;
        let result = self.unpack_into(&folder, source);
        if result.is_err() {
            // Room for what follows; the staging folder as a whole is removed by its owner.
            let _ = fs::remove_dir_all(&folder);
        }
        result
    }

    fn unpack_into(&mut self, folder: &Path, source: &mut dyn ReadBytes) -> Result<Done, ImageError> {
        let tree = folder.join("tree");
        folder::make(folder, 0o777).and_then(|()| folder::make(&tree, 0o777)).map_err(no_room)?;
        let root = File::open(&tree).map_err(no_room)?;
        let (caps, used, options) = (self.options.caps, self.content, self.options);
        let counted = Counted { source, progress: &mut self.progress, report: self.report, next: 0 };
        let both = Wanted { stored: true, content: true };
        let mut decoder = Decoder::new(counted, &caps, used, both).map_err(undecodable)?;
        let (report, ledger) = match self.way {
            Way::Unrecorded { marked: false, .. } => {
                let unmarked = layer::unpack_unmarked(&mut decoder, root.as_fd(), &options).map_err(refused)?;
                (unmarked.0, Some(unmarked.1))
            }
            _ => (layer::unpack(&mut decoder, root.as_fd(), &options).map_err(refused)?, None),
        };
        let summary = decoder.finish().map_err(undecodable)?;
        self.content = self.content.saturating_add(summary.content_bytes);
        let Used { bytes, entries } = self.options.used;
        self.options.used =
            Used { bytes: bytes.saturating_add(report.bytes), entries: entries.saturating_add(report.entries) };
        let (stats, opaque_root) = (stats(&report), report.opaque_root);
        match &mut self.way {
            Way::Unrecorded { folders, .. } => {
                folders.push((folder.to_owned(), Unrecorded { stats, opaque_root, ledger }));
            }
            Way::Recorded => {
                let tree = tree::checksum(root.into(), true).map_err(no_room)?;
                let record = LayerRecord { stats, opaque_root, tree, times: true };
                fs::write(folder.join("record"), record.to_json()).map_err(no_room)?;
            }
        }
        Ok(Done {
            folder: folder.to_owned(),
            // Both were asked for; a zero digest fits nothing.
            stored: Digest(summary.stored.unwrap_or_default()),
            diff: Digest(summary.content.unwrap_or_default()),
            stored_bytes: summary.stored_bytes,
        })
    }

    /// Keeps a layer whose digests were checked, under its diff ID.
    pub fn accept(&mut self, done: Done) -> Result<(), ImageError> {
        if self.accepted.contains(&done.diff) {
            return Ok(());
        }
        self.accepted.push(done.diff);
        fs::rename(&done.folder, self.root.join(done.diff.hex())).map_err(no_room)?;
        if let Way::Unrecorded { folders, accepted, .. } = &mut self.way
            && let Some(place) = folders.iter().position(|(folder, _)| *folder == done.folder)
        {
            accepted.push((done.diff, folders.swap_remove(place).1));
        }
        Ok(())
    }
}

fn refused(error: LayerError) -> ImageError {
    let text = error.to_string();
    match error.problem {
        Problem::NoSpace | Problem::Os(..) => ImageError::failed(&text),
        _ => ImageError::invalid(&text),
    }
}

fn stats(report: &LayerReport) -> LayerStats {
    LayerStats {
        bytes: report.bytes,
        entries: report.entries.into(),
        setuid: u64::from(report.setuid_dropped) + u64::from(report.setgid_dropped),
        capabilities: report.filecaps_dropped.into(),
        devices: u64::from(report.devices_skipped) + u64::from(report.fifos_skipped),
        xattrs: report.xattrs_dropped.into(),
    }
}

fn no_room(error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::failed(
            &"the disk of the state folder is full; make room (coracle prune) or choose another --state",
        ),
        _ => ImageError::failed(&format_args!("cannot write to the state folder: {error}")),
    }
}

fn undecodable(error: DecodeError) -> ImageError {
    match error {
        DecodeError::Read(error) => super::unreadable(error),
        error => ImageError::invalid(&error),
    }
}

/// Counts what is read of a layer's stored bytes.
struct Counted<'a> {
    source: &'a mut dyn ReadBytes,
    progress: &'a mut Progress,
    report: &'a mut dyn FnMut(Progress),
    next: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read_bytes(buffer)?;
        self.progress.done = self.progress.done.saturating_add(length as u64);
        if self.progress.done >= self.next {
            self.next = self.progress.done.saturating_add(STRIDE);
            (self.report)(*self.progress);
        }
        Ok(length)
    }
}
