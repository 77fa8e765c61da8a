//! The store: unpacked layers by diff ID and a record for each image, in the state folder.
//!
//! ```text
//! STATE/lock                        held (flock) while something is committed or removed
//! STATE/layers/HEX/tree             the files of a layer, overlayfs's form of whiteouts
//! STATE/layers/HEX/record           sizes, what was left out, a checksum of the tree
//! STATE/layers/HEX/damaged          there: `verify` found the tree changed; the next unpack replaces it
//! STATE/layers/HEX.old-N            a replaced one that a running service still stands on; likewise in `flat`
//! STATE/images/KEY                  one record for each image
//! STATE/images/KEY.old-N            a replaced one that a running service still pins
//! STATE/flat/KEY                    layers merged into one tree, where overlayfs is missing
//! STATE/staging/job-PID-N           an unpack under way, locked (flock) by it
//! ```
//!
//! A layer appears by one rename(2), whole and synced, and so does a record, after its layers.
#![forbid(unsafe_code)]

mod flatten;
mod gc;
mod staging;

pub use gc::Removed;
pub use staging::Staging;

use super::ImageError;
use super::digest::Digest;
use super::record::{ImageRecord, LayerRecord, Root, SourceId};
use super::reference::Reference;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest record read: an image record with all lists at their caps and long entries.
const RECORD_BYTES: u64 = 4 << 20;

/// The store in one state folder.
#[derive(Debug)]
pub struct Store {
    state: PathBuf,
}

/// How a layer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As it was unpacked.
    Good,
    /// Its tree is not what was unpacked; the next unpack replaces it.
    Damaged,
    /// Not in the store.
    Missing,
}

fn fail(action: &str, path: &Path, error: io::Error) -> ImageError {
    ImageError::failed(format!("cannot {action} {}: {error}", path.display()))
}

impl Store {
    /// Opens the store in `state`, making its folders (mode 0700) and removing what dead unpackers left.
    pub fn open(state: &Path) -> Result<Store, ImageError> {
        for folder in ["layers", "images", "flat", "staging"] {
            let path = state.join(folder);
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&path).map_err(|error| fail("make the folder", &path, error))?;
        }
        let store = Store { state: state.to_owned() };
        store.clean_staging()?;
        Ok(store)
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    fn layer_folder(&self, layer: &Digest) -> PathBuf {
        self.state.join("layers").join(layer.hex())
    }

    /// Where the files of a layer are. Nothing below it may be changed.
    pub fn layer_path(&self, layer: &Digest) -> PathBuf {
        self.layer_folder(layer).join("tree")
    }

    /// Whether a layer is there and not known to be damaged.
    pub fn has_layer(&self, layer: &Digest) -> bool {
        let folder = self.layer_folder(layer);
        folder.join("record").exists() && !folder.join("damaged").exists()
    }

    /// All layers that are there and not known to be damaged.
    pub fn layers(&self) -> Result<BTreeSet<Digest>, ImageError> {
        let folder = self.state.join("layers");
        let entries = fs::read_dir(&folder).map_err(|error| fail("list", &folder, error))?;
        let names = entries.flatten().filter_map(|entry| Digest::parse_hex(entry.file_name().to_str()?));
        Ok(names.filter(|layer| self.has_layer(layer)).collect())
    }

    /// The record of a layer.
    pub fn layer_record(&self, layer: &Digest) -> Result<LayerRecord, ImageError> {
        LayerRecord::from_json(&self.read(&self.layer_folder(layer).join("record"))?)
    }

    /// The image that `image` (by the absolute path of its file) stands for, if it is unpacked, whole, and the file
    /// is still the one that it was unpacked from.
    pub fn lookup(&self, image: &Reference) -> Result<Option<ImageRecord>, ImageError> {
        let source = source_id(Path::new(&*image.file))?;
        let Some(record) = self.remembered(image) else { return Ok(None) };
        let whole = record.root.layers().iter().all(|layer| self.has_layer(layer));
        Ok((record.source == source && whole).then_some(record))
    }

    /// The record of `image` as it was last unpacked, whatever has become of its file.
    pub fn remembered(&self, image: &Reference) -> Option<ImageRecord> {
        let bytes = self.read(&self.record_path(&image.to_string())).ok()?;
        ImageRecord::from_json(&bytes).ok()
    }

    /// All images, by reference, and the number of records that could not be read.
    pub fn images(&self) -> Result<(Vec<ImageRecord>, usize), ImageError> {
        let mut images = Vec::new();
        let mut unreadable = 0;
        for path in self.record_files()? {
            match self.read(&path).and_then(|bytes| ImageRecord::from_json(&bytes)) {
                Ok(record) if path == self.record_path(&record.reference) => images.push(record),
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
        }
        crate::base::sort::sort_by(&mut images, |a, b| a.reference.cmp(&b.reference));
        Ok((images, unreadable))
    }

    /// Opens the folders of an image's root file system, lowest first.
    pub fn rootfs_layers(&self, record: &ImageRecord) -> Result<Vec<OwnedFd>, ImageError> {
        let paths: Vec<PathBuf> = match &record.root {
            Root::Folder(folder) => vec![PathBuf::from(&**folder)],
            Root::Layers(layers) => layers.iter().map(|layer| self.layer_path(layer)).collect(),
        };
        let open = |path: &PathBuf| {
            let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY | nix::libc::O_CLOEXEC;
            OpenOptions::new().read(true).custom_flags(flags).open(path).map(OwnedFd::from)
        };
        paths.iter().map(|path| open(path).map_err(|error| fail("open the layer", path, error))).collect()
    }

    /// A handle on an image's record. While any process holds it, `rmi` and `prune` leave the image and its layers
    /// alone, even when its file is replaced and unpacked anew.
    pub fn pin(&self, record: &ImageRecord) -> Result<OwnedFd, ImageError> {
        let path = self.record_path(&record.reference);
        let file = File::open(&path).map_err(|error| fail("open", &path, error))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(file.into()),
            Err(error) => Err(ImageError::failed(format!("{} is being removed: {error}", record.reference))),
        }
    }

    /// Makes the layers and the record of a finished unpack visible. The layers were synced by whoever wrote them.
    ///
    /// The record that is kept leaves out the layers below one that hides them all.
    pub fn commit(&self, staging: Staging, mut record: ImageRecord) -> Result<ImageRecord, ImageError> {
        let _lock = self.lock()?;
        if let Root::Layers(layers) = &mut record.root {
            let hides = |layer: &Digest| {
                let staged = self.read(&staging.path().join(layer.hex()).join("record"));
                let known =
                    staged.and_then(|bytes| LayerRecord::from_json(&bytes)).or_else(|_| self.layer_record(layer));
                known.is_ok_and(|record| record.opaque_root)
            };
            let first = layers.iter().rposition(hides).unwrap_or(0);
            layers.drain(..first);
        }
        for layer in record.root.layers() {
            let staged = staging.path().join(layer.hex());
            if !staged.join("record").exists() {
                continue;
            }
            let place = self.layer_folder(layer);
            if place.exists() && !self.has_layer(layer) {
                self.set_aside(layer, &staging)?;
            }
            match fs::rename(&staged, &place) {
                Ok(()) => {}
                // Another unpack of the same layer was first.
                Err(_) if self.has_layer(layer) => {}
                Err(error) => return Err(fail("make visible the layer", &place, error)),
            }
        }
        sync_folder(&self.state.join("layers"))?;
        if let Some(missing) = record.root.layers().iter().find(|layer| !self.has_layer(layer)) {
            let short = missing.short();
            return Err(ImageError::failed(format!(
                "layer {short} was removed meanwhile; unpack {} again",
                record.reference
            )));
        }
        self.write_record(&record)?;
        Ok(record)
    }

    fn write_record(&self, record: &ImageRecord) -> Result<(), ImageError> {
        let path = self.record_path(&record.reference);
        self.keep_if_pinned(&path)?;
        let temporary = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(record.to_json().as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|error| fail("write", &path, error))?;
        sync_folder(&self.state.join("images"))
    }

    /// Compares a layer's tree with the checksum taken when it was unpacked, and remembers damage.
    pub fn verify_layer(&self, layer: &Digest) -> Result<Health, ImageError> {
        let folder = self.layer_folder(layer);
        let tree = folder.join("tree");
        let Ok(record) = self.layer_record(layer) else {
            return Ok(if folder.exists() { self.mark_damaged(&folder)? } else { Health::Missing });
        };
        let sum = File::open(&tree).and_then(|root| super::tree::checksum(root.into()));
        match sum {
            Ok(sum) if sum == record.tree => Ok(Health::Good),
            _ => self.mark_damaged(&folder),
        }
    }

    fn mark_damaged(&self, folder: &Path) -> Result<Health, ImageError> {
        let mark = folder.join("damaged");
        File::create(&mark).and_then(|file| file.sync_all()).map_err(|error| fail("write", &mark, error))?;
        Ok(Health::Damaged)
    }

    fn lock(&self) -> Result<File, ImageError> {
        let path = self.state.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|error| fail("open", &path, error))?;
        file.lock().map_err(|error| fail("lock", &path, error))?;
        Ok(file)
    }

    fn record_path(&self, reference: &str) -> PathBuf {
        let hash = Digest(Sha256::digest(reference.as_bytes()).into());
        let mut key = hash.hex();
        key.truncate(32);
        self.state.join("images").join(key)
    }

    fn record_files(&self) -> Result<Vec<PathBuf>, ImageError> {
        let folder = self.state.join("images");
        let list = || fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>();
        let files = list().map_err(|error| fail("list", &folder, error))?;
        Ok(files.into_iter().filter(|path| path.extension().is_none_or(|ending| ending != "new")).collect())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(path)?.take(RECORD_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| fail("read", path, error))
    }
}

/// What identifies the file or folder at `path` by one stat(2): an archive by itself, an OCI layout by its
/// `index.json`, a rootfs folder by its inode alone, because it is used in place.
pub fn source_id(path: &Path) -> Result<SourceId, ImageError> {
    let stat = |path: &Path| {
        fs::metadata(path)
            .map_err(|error| ImageError::invalid(format!("cannot read the image {}: {error}", path.display())))
    };
    let of_file = |file: &fs::Metadata| SourceId {
        size: file.size(),
        mtime_ns: file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec()),
        inode: file.ino(),
    };
    let found = stat(path)?;
    if found.is_file() {
        return Ok(of_file(&found));
    }
    if !found.is_dir() {
        return Err(ImageError::invalid(format!("the image {} is neither a file nor a folder", path.display())));
    }
    match is_layout(path) {
        true => Ok(of_file(&stat(&path.join("index.json"))?)),
        false => Ok(SourceId { size: 0, mtime_ns: 0, inode: found.ino() }),
    }
}

/// Whether a folder is an OCI layout rather than a rootfs.
pub fn is_layout(folder: &Path) -> bool {
    folder.join("oci-layout").is_file()
}

fn sync_folder(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| fail("sync", path, error))
}

#[cfg(test)]
mod tests;
