//! The store that a firmware carries (`coracle bake`): layers and image records as in the writable one, never written to.
//!
//! ```text
//! STORE/layers/HEX/{tree,record}
//! STORE/images/KEY
//! STATE/damaged/HEX                 there: `verify` found the layer changed; a copy in the writable store replaces it
//! ```
#![forbid(unsafe_code)]

use super::{fail, key, read};
use crate::image::ImageError;
use crate::image::digest::Digest;
use crate::image::record::{ImageRecord, SourceId};
use crate::image::reference::Reference;
use crate::plan::Device;
use crate::sys::folder;
use std::io;
use std::path::{Path, PathBuf};

/// A read-only store.
#[derive(Debug, Clone)]
pub struct Baked {
    folder: PathBuf,
}

impl Baked {
    /// The one in `folder`, which need not be there: the partition that holds it may be mounted later.
    pub fn at(folder: &Path) -> Baked {
        Baked { folder: folder.to_owned() }
    }

    /// The one of a device, if it has one.
    pub fn of(device: &Device) -> Option<Baked> {
        device.store.as_ref().map(|folder| Baked::at(Path::new(&**folder)))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a layer's tree and record are, whether it has them or not.
    pub(super) fn layer(&self, layer: &Digest) -> PathBuf {
        self.folder.join("layers").join(layer.hex())
    }

    /// Whether it has a layer.
    pub fn has_layer(&self, layer: &Digest) -> bool {
        self.layer(layer).join("record").exists()
    }

    /// The file that the record of an image is in.
    pub(super) fn record_path(&self, reference: &str) -> PathBuf {
        self.folder.join("images").join(key(reference))
    }

    /// Whether it has the image that `image` (by the absolute path of its file) stands for.
    pub fn has_image(&self, image: &Reference) -> bool {
        self.record_path(&image.to_string()).exists()
    }

    /// The record of the image that `image` (by the absolute path of its file) stands for.
    pub fn image(&self, image: &Reference) -> Option<ImageRecord> {
        record(&self.record_path(&image.to_string())).ok()
    }

    /// All images; those that cannot be read are left out and counted.
    pub(super) fn images(&self) -> Result<(Vec<ImageRecord>, usize), ImageError> {
        let folder = self.folder.join("images");
        let files = match folder::list(&folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(fail("list", &folder, error)),
        };
        let (mut records, mut unreadable) = (Vec::new(), 0);
        for file in files {
            match record(&file) {
                Ok(record) => records.push(record),
                Err(_) => unreadable += 1,
            }
        }
        Ok((records, unreadable))
    }
}

fn record(path: &Path) -> Result<ImageRecord, ImageError> {
    ImageRecord::from_json(&read(path)?)
}

/// Whether an image's file on the board, `found`, is the one that a baked record was made of: size and time of change in
/// whole seconds, which every file system keeps. A record without a time fits no file: whoever baked it did not know
/// what the firmware would make of it.
pub(super) fn same_file(baked: &SourceId, found: &SourceId) -> bool {
    let seconds = |source: &SourceId| source.mtime_ns.div_euclid(1_000_000_000);
    baked.mtime_ns != 0 && baked.size == found.size && seconds(baked) == seconds(found)
}
