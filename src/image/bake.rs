//! Images to a read-only store for a firmware, on the build host: as a reproducible tar, for which nobody has to be root,
//! or as a folder.
//!
//! For a tar each layer is unpacked into a private folder by the very code that unpacks on the board, but as files of the
//! caller; owners, permissions, attributes, times and whiteouts are kept in memory meanwhile (`layer::Ledger`) and meet
//! the files again in the tar's headers. The same images give the same bytes, whoever bakes them and when.
#![forbid(unsafe_code)]

use super::ImageError;
use super::archive::{self, Progress, Sink, Source, Unrecorded, Wanted};
use super::digest::Digest;
use super::inodes::Inodes;
use super::layer::LayerOptions;
use super::platform::Platform;
use super::record::{ImageRecord, LayerRecord, LayerStats, Root, SourceId};
use super::reference::Reference;
use super::store::key;
use super::tar::write::Writer;
use super::tar::{Entry, Kind, Mtime};
use super::tree::{self, Content, Object, Sum, Visit};
use crate::plan::device::ImageCaps;
use crate::sys::folder;
use nix::libc;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

/// An image to be baked.
pub struct Job {
    /// Where the board looks for it.
    pub image: Reference,
    /// Its archive on this machine.
    pub source: Source,
    /// The archive's size, in bytes, and time of change, 0 for one that the board's may not be compared with.
    pub id: SourceId,
}

/// What all images have in common.
pub struct Order<'a> {
    /// The board's platform.
    pub platform: &'a Platform,
    /// Caps.
    pub caps: ImageCaps,
    /// A private folder on a disk with room for the largest image.
    pub scratch: &'a Path,
    /// No file is younger than this (SOURCE_DATE_EPOCH, seconds since 1970).
    pub newest: Option<i64>,
}

/// Where the store goes.
pub enum Output {
    /// Into a tar.
    Archive(Writer<BufWriter<File>>),
    /// Into a folder, which only root, or who passes for root, can give its files' owners.
    Folder(PathBuf),
}

/// What was baked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Baked {
    /// Images.
    pub images: usize,
    /// Layers.
    pub layers: usize,
    /// What was written and what was left out of the layers.
    pub stats: LayerStats,
}

/// Bakes the images into `out`; `report` hears how far the one at a place of the list is.
pub fn bake(
    jobs: Vec<Job>,
    order: &Order<'_>,
    mut out: Output,
    report: &mut dyn FnMut(usize, Progress),
) -> Result<Baked, ImageError> {
    let mut baked = Baked { images: jobs.len(), ..Baked::default() };
    // Each layer, and whether it hides all below it.
    let have = |known: &[(Digest, bool)], layer: &Digest| known.iter().any(|(known, _)| known == layer);
    let mut known: Vec<(Digest, bool)> = Vec::new();
    let mut records: Vec<ImageRecord> = Vec::new();
    out.folder("layers")?;
    for (number, job) in jobs.into_iter().enumerate() {
        let scratch = order.scratch.join(number.to_string());
        folder::make(&scratch, 0o777).map_err(|error| failed(&scratch, error))?;
        let options = LayerOptions { caps: order.caps, ..LayerOptions::default() };
        let mut heard = |progress| report(number, progress);
        let marked = matches!(out, Output::Folder(_));
        let mut sink = Sink::new(&scratch, options, &mut heard).without_records(marked);
        let wanted = Wanted {
            select: &job.image.select,
            platform: order.platform,
            caps: order.caps,
            have: &|layer| have(&known, layer),
        };
        let unpacked = archive::unpack(job.source, &wanted, &mut sink).map_err(|error| error.at(&job.image))?;
        for (layer, unrecorded) in sink.into_unrecorded() {
            if !have(&known, &layer) {
                known.push((layer, unrecorded.opaque_root));
                baked.stats = baked.stats.plus(unrecorded.stats);
                out.layer(&layer, &scratch.join(layer.hex()), &unrecorded, order.newest)?;
            }
        }
        // Room for the next one.
        fs::remove_dir_all(&scratch).map_err(|error| failed(&scratch, error))?;
        let mut layers = unpacked.layers;
        // What a layer hides as a whole is left out: overlayfs does not look for that mark on a layer's root.
        let first = layers.iter().rposition(|layer| known.contains(&(*layer, true))).unwrap_or(0);
        layers.drain(..first);
        records.push(ImageRecord {
            reference: job.image.to_string().into(),
            source: job.id,
            names: unpacked.names,
            image_id: unpacked.image_id,
            root: Root::Layers(layers),
            config: unpacked.config,
        });
    }
    baked.layers = known.len();
    out.folder("images")?;
    crate::base::sort::sort_by(&mut records, |a, b| a.reference.cmp(&b.reference));
    for record in &records {
        out.file(&format!("images/{}", key(&record.reference)), record.to_json().as_bytes())?;
    }
    out.finish()?;
    Ok(baked)
}

fn failed(what: &Path, error: io::Error) -> ImageError {
    ImageError::failed(&format_args!("cannot write {}: {error}", what.display()))
}

fn unwritten(error: io::Error) -> ImageError {
    ImageError::failed(&format_args!("cannot write the store: {error}"))
}

impl Output {
    /// Adds a folder of the store's own.
    fn folder(&mut self, name: &str) -> Result<(), ImageError> {
        match self {
            Output::Archive(writer) => writer.append(&own(name, Kind::Directory, 0), io::empty()),
            Output::Folder(root) => match folder::make(&root.join(name), 0o777) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                answer => answer,
            },
        }
        .map_err(unwritten)
    }

    /// Adds a file of the store's own.
    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), ImageError> {
        match self {
            Output::Archive(writer) => writer.append(&own(name, Kind::File, content.len() as u64), content),
            Output::Folder(root) => fs::write(root.join(name), content),
        }
        .map_err(unwritten)
    }

    /// Adds the layer that is unpacked in `place`.
    fn layer(
        &mut self,
        layer: &Digest,
        place: &Path,
        unrecorded: &Unrecorded,
        newest: Option<i64>,
    ) -> Result<(), ImageError> {
        let name = format!("layers/{}", layer.hex());
        let Unrecorded { stats, opaque_root, ledger } = unrecorded;
        let root = File::open(place.join("tree")).map_err(unwritten)?;
        let tree = match self {
            Output::Folder(_) => tree::checksum(root.into(), false),
            Output::Archive(writer) => {
                writer.append(&own(&name, Kind::Directory, 0), io::empty()).map_err(unwritten)?;
                let prefix = format!("{name}/tree").into_bytes();
                let mut pour = Pour { writer, sum: Sum::new(false), prefix, links: Inodes::default(), newest };
                tree::walk(root.into(), ledger.as_ref(), &mut pour).map(|()| pour.sum.finish())
            }
        };
        let tree = tree.map_err(unwritten)?;
        let record = LayerRecord { stats: *stats, opaque_root: *opaque_root, tree, times: false };
        if let Output::Folder(folder) = self {
            fs::rename(place, folder.join(&name)).map_err(unwritten)?;
        }
        self.file(&format!("{name}/record"), record.to_json().as_bytes())
    }

    fn finish(self) -> Result<(), ImageError> {
        match self {
            Output::Archive(writer) => {
                let file = writer.finish().and_then(|sink| sink.into_inner().map_err(io::IntoInnerError::into_error));
                file.and_then(|file| file.sync_all()).map_err(unwritten)
            }
            Output::Folder(folder) => {
                let synced = File::open(&folder).and_then(|root| nix::unistd::syncfs(&root).map_err(Into::into));
                synced.map_err(unwritten)
            }
        }
    }
}

/// An entry that is no image's.
fn own(name: &str, kind: Kind, size: u64) -> Entry {
    let mode = if kind == Kind::Directory { 0o700 } else { 0o600 };
    Entry {
        path: name.as_bytes().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        size,
        xattrs: Vec::new(),
        offset: 0,
        data_offset: 0,
    }
}

/// Pours a layer's tree into the tar and sums it up on the way.
struct Pour<'a> {
    writer: &'a mut Writer<BufWriter<File>>,
    sum: Sum,
    prefix: Vec<u8>,
    /// Files with several names, by their inode: the first name.
    links: Inodes<Vec<u8>>,
    newest: Option<i64>,
}

impl Visit for Pour<'_> {
    fn name(&mut self, name: &[u8]) {
        Visit::name(&mut self.sum, name);
    }

    fn object(&mut self, path: &[u8], object: Object, content: Content) -> io::Result<()> {
        let mut stored = self.prefix.clone();
        if !path.is_empty() {
            stored.push(b'/');
            stored.extend_from_slice(path);
        }
        let several = object.links > 1 && !matches!(content, Content::Folder(_));
        let known = if several { self.links.get(object.inode).cloned() } else { None };
        if several && known.is_none() {
            self.links.insert(object.inode, stored.clone());
        }
        let linked = known.is_some();
        let kind = match (known, &content) {
            (Some(first), _) => Kind::HardLink(first),
            (None, Content::Folder(_)) => Kind::Directory,
            (None, Content::File(_)) => Kind::File,
            (None, Content::Link(target)) => Kind::Symlink(target.clone()),
            // Nothing else is unpacked: whiteouts and named pipes.
            (None, Content::Nothing) if object.mode & libc::S_IFMT == libc::S_IFIFO => Kind::Fifo,
            (None, Content::Nothing) => Kind::CharDevice { major: 0, minor: 0 },
        };
        let seconds = object.mtime.seconds.min(self.newest.unwrap_or(i64::MAX));
        let entry = Entry {
            path: stored,
            size: object.size,
            kind,
            mode: object.mode & 0o7777,
            uid: object.uid,
            gid: object.gid,
            // Whole seconds: squashfs keeps no more.
            mtime: Mtime { seconds, nanoseconds: 0 },
            xattrs: if linked { Vec::new() } else { object.xattrs.clone() },
            offset: 0,
            data_offset: 0,
        };
        let size = self.writer.begin(&entry)?;
        if linked {
            return self.sum.add(&object, content, &mut io::sink());
        }
        self.sum.add(&object, content, self.writer.sink())?;
        self.writer.pad(size)
    }
}

/// The images of a list without those that come twice, by what the board calls them.
pub fn distinct(jobs: Vec<Job>) -> Vec<Job> {
    let mut distinct: Vec<Job> = Vec::new();
    for job in jobs {
        if !distinct.iter().any(|known| known.image == job.image) {
            distinct.push(job);
        }
    }
    distinct
}
