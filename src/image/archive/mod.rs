//! From a file or folder to staged layers: tells what kind of image it is, chooses one of it, checks every digest while
//! the layers stream by. Runs in the confined worker.
//!
//! | kind | told by |
//! |---|---|
//! | OCI layout folder | the file `oci-layout` |
//! | OCI archive, `docker save` of today | the members `oci-layout` and `index.json`, preferred when both formats are there |
//! | older `docker save`, `podman save`, skopeo, buildah | the member `manifest.json` |
//! | plain rootfs tarball | none of these |
//!
//! An archive that is not compressed as a whole is indexed by reading its headers alone; then each layer is read from
//! its place. A compressed one is read once from front to back: layers are unpacked as they come and matched with the
//! manifest when that has come, too.
#![forbid(unsafe_code)]

mod choose;
mod inspect;
mod members;
mod names;
mod shape;
mod sink;
mod stream;

pub use inspect::{Inspected, inspect};
pub use sink::{Progress, Sink, Unrecorded};

use super::ImageError;
use super::config::ImageConfig;
use super::decompress::Compression;
use super::digest::Digest;
use super::platform::Platform;
use super::reference::Select;
use crate::base::escaped::Escaped;
use crate::plan::device::ImageCaps;
use choose::{Choice, Expected};
use members::Members;
use shape::Shape;
use sink::Done;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// What is unpacked.
pub enum Source {
    /// An archive, or a rootfs tarball.
    File(File),
    /// An OCI layout folder.
    Layout(OwnedFd),
}

/// Which image of the source is wanted.
pub struct Wanted<'a> {
    /// The one of this name or digest.
    pub select: &'a Select,
    /// The one that this machine runs.
    pub platform: &'a Platform,
    /// Caps.
    pub caps: ImageCaps,
    /// Layers that need not be unpacked again.
    pub have: &'a dyn Fn(&Digest) -> bool,
}

/// The image that was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// Names that the archive gives it.
    pub names: Vec<Box<str>>,
    /// SHA-256 of its config.
    pub image_id: Option<Digest>,
    /// Diff IDs, lowest first. Those that were not there before are staged.
    pub layers: Vec<Digest>,
    /// What it says about the process.
    pub config: ImageConfig,
}

/// Where an image's documents and layers come from.
trait Blobs {
    /// A small member whole; `None` if there is none of that name.
    fn document(&mut self, name: &str) -> Result<Option<Vec<u8>>, ImageError>;

    /// Bytes stored of a member; `None` if there is none of that name.
    fn size(&mut self, name: &str) -> Result<Option<u64>, ImageError>;

    /// Unpacks a layer. `place` names it in errors.
    fn layer(&mut self, name: &str, sink: &mut Sink<'_>) -> Result<Done, ImageError>;
}

/// Unpacks the wanted image of `source` into `sink`.
pub fn unpack(source: Source, wanted: &Wanted<'_>, sink: &mut Sink<'_>) -> Result<Unpacked, ImageError> {
    match source {
        Source::Layout(folder) => image(&mut members::Layout::new(folder, wanted.caps.manifest), wanted, sink),
        Source::File(file) => {
            let before = stamp(&file)?;
            let result = archive(&file, wanted, sink);
            // A change explains every other error, so it comes first.
            match stamp(&file)? == before {
                true => result,
                false => Err(ImageError::invalid(
                    &"the file changed while it was read; wait until it is copied, or copy it beside and rename it",
                )),
            }
        }
    }
}

/// What changes when a file is written to: size, modification and change time.
fn stamp(file: &File) -> Result<[i64; 5], ImageError> {
    let meta = file.metadata().map_err(|error| ImageError::failed(&format_args!("cannot be read: {error}")))?;
    Ok([meta.size() as i64, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()])
}

fn archive(file: &File, wanted: &Wanted<'_>, sink: &mut Sink<'_>) -> Result<Unpacked, ImageError> {
    let (shape, compression) = shape::probe(file, &wanted.caps)?;
    if shape == Shape::Image {
        let found = match compression {
            Compression::Plain => {
                let mut members = Members::index(file, &wanted.caps)?;
                members.has_manifest().then(|| image(&mut members, wanted, sink))
            }
            _ => {
                let mut stream = stream::Stream::read(rewound(file)?, &wanted.caps, Some(sink))?;
                stream.has_manifest().then(|| image(&mut stream, wanted, sink))
            }
        };
        if let Some(result) = found {
            return result;
        }
    }
    rootfs(file, sink)
}

fn rewound(mut file: &File) -> Result<&File, ImageError> {
    file.seek(SeekFrom::Start(0)).map_err(|error| ImageError::failed(&format_args!("cannot be read: {error}")))?;
    Ok(file)
}

/// A plain tarball of a root file system: one layer, no config.
fn rootfs(file: &File, sink: &mut Sink<'_>) -> Result<Unpacked, ImageError> {
    let size = file.metadata().map_or(0, |meta| meta.size());
    sink.expect(size, 1);
    let done = sink.unpack(&mut rewound(file)?)?;
    let layer = done.diff;
    sink.accept(done)?;
    Ok(Unpacked { names: Vec::new(), image_id: None, layers: vec![layer], config: ImageConfig::empty() })
}

/// An image with manifest and config.
fn image(blobs: &mut dyn Blobs, wanted: &Wanted<'_>, sink: &mut Sink<'_>) -> Result<Unpacked, ImageError> {
    let Choice { names, image_id, config, layers } = choose::choose(blobs, wanted)?;
    let mut missing: Vec<(usize, &Expected)> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let twice = missing.iter().any(|(_, other)| other.diff == layer.diff);
        if !twice && !(wanted.have)(&layer.diff) {
            missing.push((index, layer));
        }
    }
    let mut total = 0u64;
    for (index, _) in &missing {
        total = total.saturating_add(stored_size(blobs, *index, &layers)?);
    }
    sink.expect(total, missing.len());
    for (index, layer) in &missing {
        let done = blobs.layer(&layer.member, sink).map_err(|error| error.at(&place(*index, &layers)))?;
        check(&done, layer).map_err(|error| error.at(&place(*index, &layers)))?;
        sink.accept(done)?;
    }
    Ok(Unpacked { names, image_id: Some(image_id), layers: layers.iter().map(|layer| layer.diff).collect(), config })
}

/// The bytes stored of a layer: it is there, in the size that the manifest says.
fn stored_size(blobs: &mut dyn Blobs, index: usize, layers: &[Expected]) -> Result<u64, ImageError> {
    let Some(layer) = layers.get(index) else { return Ok(0) };
    let size = blobs.size(&layer.member)?.ok_or_else(|| missing_layer(index, layers.len(), layer))?;
    if layer.size.is_some_and(|expected| expected != size) {
        let error = ImageError::invalid(&format_args!("has {size} bytes, the manifest says otherwise"));
        return Err(error.at(&place(index, layers)));
    }
    Ok(size)
}

fn place(index: usize, layers: &[Expected]) -> String {
    let name = Escaped(layers.get(index).map_or("", |layer| &layer.member));
    format!("layer {} of {} ({name})", index + 1, layers.len())
}

fn missing_layer(index: usize, count: usize, layer: &Expected) -> ImageError {
    let name = Escaped(&layer.member);
    ImageError::invalid(&format_args!(
        "layer {} of {count} ({name}) is missing: the archive does not hold it",
        index + 1
    ))
}

fn check(done: &Done, layer: &Expected) -> Result<(), ImageError> {
    if layer.stored.is_some_and(|expected| expected != done.stored) {
        return Err(ImageError::invalid(&format_args!(
            "its SHA-256 is {}, not what its name says: the archive is damaged, copy it again",
            done.stored
        )));
    }
    if layer.diff != done.diff {
        return Err(ImageError::invalid(&format_args!(
            "its content has the diff ID {}, the image config says {}: the archive is damaged, copy it again",
            done.diff, layer.diff
        )));
    }
    Ok(())
}

/// An I/O error of the archive, or what the decoder hid in one.
fn unreadable(error: io::Error) -> ImageError {
    match error.raw_os_error() {
        Some(_) => ImageError::failed(&format_args!("cannot be read: {error}")),
        None => ImageError::invalid(&error),
    }
}
