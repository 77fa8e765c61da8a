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
//! Beside it there may be a read-only one that the firmware carries, see [`Baked`]: its layers are looked for first.
//! A layer appears by one rename(2), whole and synced, and so does a record, after its layers.
#![forbid(unsafe_code)]

mod baked;
mod flatten;
mod gc;
mod staging;

pub use baked::Baked;
pub use gc::Removed;
pub use staging::Staging;

use super::ImageError;
use super::digest::Digest;
use super::record::{ImageRecord, LayerRecord, Root, SourceId};
use super::reference::Reference;
use crate::base::read::read_up_to;
use crate::plan::Device;
use crate::sys::folder;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest record read: an image record with all lists at their caps and long entries.
const RECORD_BYTES: u64 = 4 << 20;

/// The store in one state folder, and the read-only one beside it, if any.
#[derive(Debug)]
pub struct Store {
    state: PathBuf,
    baked: Option<Baked>,
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
    ImageError::failed(&format_args!("cannot {action} {}: {error}", path.display()))
}

impl Store {
    /// Opens the store in `state`, making its folders (mode 0700) and removing what dead unpackers left.
    pub fn open(state: &Path) -> Result<Store, ImageError> {
        for name in ["layers", "images", "flat", "staging"] {
            let path = state.join(name);
            folder::make_all(&path, 0o700).map_err(|error| fail("make the folder", &path, error))?;
        }
        let store = Store { state: state.to_owned(), baked: None };
        store.clean_staging()?;
        Ok(store)
    }

    /// The same with a read-only store beside it.
    pub fn beside(self, baked: Option<Baked>) -> Store {
        Store { baked, ..self }
    }

    /// Opens the store of a device.
    pub fn of(device: &Device) -> Result<Store, ImageError> {
        Ok(Store::open(Path::new(&*device.state))?.beside(Baked::of(device)))
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where this store keeps a layer of its own.
    fn layer_folder(&self, layer: &Digest) -> PathBuf {
        self.state.join("layers").join(layer.hex())
    }

    /// The file that says that a layer of the read-only store is damaged.
    fn distrust(&self, layer: &Digest) -> PathBuf {
        self.state.join("damaged").join(layer.hex())
    }

    /// The layer's folder in the read-only store, if it is there and not known to be damaged.
    fn baked_layer(&self, layer: &Digest) -> Option<PathBuf> {
        let baked = self.baked.as_ref().filter(|baked| baked.has_layer(layer))?;
        (!self.distrust(layer).exists()).then(|| baked.layer(layer))
    }

    /// Whether a layer is used from the read-only store.
    pub fn is_baked(&self, layer: &Digest) -> bool {
        self.baked_layer(layer).is_some()
    }

    /// Where the files of a layer are. Nothing below it may be changed.
    pub fn layer_path(&self, layer: &Digest) -> PathBuf {
        self.baked_layer(layer).unwrap_or_else(|| self.layer_folder(layer)).join("tree")
    }

    /// Whether a layer is there, here or in the read-only store, and not known to be damaged.
    pub fn has_layer(&self, layer: &Digest) -> bool {
        let folder = self.layer_folder(layer);
        self.is_baked(layer) || folder.join("record").exists() && !folder.join("damaged").exists()
    }

    /// All layers that are there and not known to be damaged, those in both stores twice.
    pub fn layers(&self) -> Result<Vec<Digest>, ImageError> {
        let own = self.state.join("layers");
        let mut paths = folder::list(&own).map_err(|error| fail("list", &own, error))?;
        if let Some(baked) = &self.baked {
            // A read-only store that is not there has none.
            paths.append(&mut folder::list(&baked.folder().join("layers")).unwrap_or_default());
        }
        let layer = |path: &PathBuf| Digest::parse_hex(path.file_name()?.to_str()?);
        Ok(paths.iter().filter_map(layer).filter(|layer| self.has_layer(layer)).collect())
    }

    /// The record of a layer.
    pub fn layer_record(&self, layer: &Digest) -> Result<LayerRecord, ImageError> {
        let folder = self.baked_layer(layer).unwrap_or_else(|| self.layer_folder(layer));
        LayerRecord::from_json(&read(&folder.join("record"))?)
    }

    /// The image that `image` (by the absolute path of its file) stands for, if it is unpacked, whole, and the file
    /// is still the one that it was unpacked from. An image of the read-only store needs no file.
    pub fn lookup(&self, image: &Reference) -> Result<Option<ImageRecord>, ImageError> {
        let whole = |record: &ImageRecord| record.root.layers().iter().all(|layer| self.has_layer(layer));
        let baked = self.baked.as_ref().and_then(|baked| baked.image(image)).filter(whole);
        let source = match source_id(Path::new(&*image.file)) {
            Ok(source) => source,
            Err(error) => return baked.map(Some).ok_or(error),
        };
        let own = self.own_record(image).filter(|record| record.source == source && whole(record));
        Ok(own.or_else(|| baked.filter(|record| baked::same_file(&record.source, &source))))
    }

    /// The record of `image` as it was last unpacked, whatever has become of its file.
    pub fn remembered(&self, image: &Reference) -> Option<ImageRecord> {
        self.own_record(image).or_else(|| self.baked.as_ref()?.image(image))
    }

    fn own_record(&self, image: &Reference) -> Option<ImageRecord> {
        let bytes = read(&self.record_path(&image.to_string())).ok()?;
        ImageRecord::from_json(&bytes).ok()
    }

    /// The folder of the read-only store, if the record of an image is in it alone.
    pub fn carried(&self, record: &ImageRecord) -> Option<&Path> {
        let own = self.record_path(&record.reference).exists();
        self.baked.as_ref().filter(|_| !own).map(Baked::folder)
    }

    /// All images, by reference, and the number of records that could not be read.
    pub fn images(&self) -> Result<(Vec<ImageRecord>, usize), ImageError> {
        let (mut images, mut unreadable) = self.baked.as_ref().map_or(Ok((Vec::new(), 0)), Baked::images)?;
        images.retain(|record| self.carried(record).is_some());
        for path in self.record_files()? {
            match read(&path).and_then(|bytes| ImageRecord::from_json(&bytes)) {
                Ok(record) if path == self.record_path(&record.reference) => images.push(record),
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
        }
        crate::base::sort::sort_by(&mut images, |a, b| a.reference.cmp(&b.reference));
        Ok((images, unreadable))
    }

    /// Opens the folders of an image's layers, lowest first.
    pub fn rootfs_layers(&self, record: &ImageRecord) -> Result<Vec<OwnedFd>, ImageError> {
        let open = |path: &PathBuf| {
            let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY | nix::libc::O_CLOEXEC;
            OpenOptions::new().read(true).custom_flags(flags).open(path).map(OwnedFd::from)
        };
        let paths = record.root.layers().iter().map(|layer| self.layer_path(layer));
        paths.map(|path| open(&path).map_err(|error| fail("open the layer", &path, error))).collect()
    }

    /// A handle on an image's record. While any process holds it, `rmi` and `prune` leave the image and its layers
    /// alone, even when its file is replaced and unpacked anew.
    pub fn pin(&self, record: &ImageRecord) -> Result<OwnedFd, ImageError> {
        let path = match (self.record_path(&record.reference), &self.baked) {
            (own, Some(baked)) if !own.exists() => baked.record_path(&record.reference),
            (own, _) => own,
        };
        let file = File::open(&path).map_err(|error| fail("open", &path, error))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(file.into()),
            Err(error) => Err(ImageError::failed(&format_args!("{} is being removed: {error}", record.reference))),
        }
    }

    /// Makes the layers and the record of a finished unpack visible. The layers were synced by whoever wrote them.
    ///
    /// The record that is kept leaves out the layers below one that hides them all.
    pub fn commit(&self, staging: Staging, mut record: ImageRecord) -> Result<ImageRecord, ImageError> {
        let _lock = self.lock()?;
        if let Root::Layers(layers) = &mut record.root {
            let hides = |layer: &Digest| {
                let staged = read(&staging.path().join(layer.hex()).join("record"));
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
            // An archive that is compressed as a whole gives its layers before it tells which they are.
            if self.is_baked(layer) {
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
            return Err(ImageError::failed(&format_args!(
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
        let temporary = folder::beside(&path, ".new");
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
        let mut health = Health::Missing;
        if let Some(baked) = self.baked.as_ref().filter(|baked| baked.has_layer(layer)) {
            let mark = self.distrust(layer);
            if is_whole(&baked.layer(layer)) {
                return match fs::remove_file(&mark) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail("remove", &mark, error)),
                    _ => Ok(Health::Good),
                };
            }
            let damaged = self.state.join("damaged");
            folder::make_all(&damaged, 0o700).map_err(|error| fail("make", &damaged, error))?;
            health = remember_damage(&mark)?;
        }
        let folder = self.layer_folder(layer);
        match folder.exists() {
            true if is_whole(&folder) => Ok(Health::Good),
            true => remember_damage(&folder.join("damaged")),
            false => Ok(health),
        }
    }

    fn lock(&self) -> Result<File, ImageError> {
        let path = self.state.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|error| fail("open", &path, error))?;
        file.lock().map_err(|error| fail("lock", &path, error))?;
        Ok(file)
    }

    fn record_path(&self, reference: &str) -> PathBuf {
        self.state.join("images").join(key(reference))
    }

    fn record_files(&self) -> Result<Vec<PathBuf>, ImageError> {
        let folder = self.state.join("images");
        let mut files = folder::list(&folder).map_err(|error| fail("list", &folder, error))?;
        files.retain(|path| path.extension().is_none_or(|ending| ending != "new"));
        Ok(files)
    }
}

/// A record's bytes.
fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let read = File::open(path).and_then(|mut file| read_up_to(&mut file, RECORD_BYTES));
    read.map_err(|error| fail("read", path, error))
}

/// Whether the tree in a layer's folder is what its record says.
fn is_whole(folder: &Path) -> bool {
    let Ok(record) = read(&folder.join("record")).and_then(|bytes| LayerRecord::from_json(&bytes)) else {
        return false;
    };
    let sum = File::open(folder.join("tree")).and_then(|root| super::tree::checksum(root.into(), record.times));
    sum.is_ok_and(|sum| sum == record.tree)
}

fn remember_damage(mark: &Path) -> Result<Health, ImageError> {
    File::create(mark).and_then(|file| file.sync_all()).map_err(|error| fail("write", mark, error))?;
    Ok(Health::Damaged)
}

/// The name of the file that an image's record is in.
pub fn key(reference: &str) -> String {
    let mut key = Digest(Sha256::digest(reference.as_bytes()).into()).hex();
    key.truncate(32);
    key
}

/// What identifies the file or folder at `path` by one stat(2): an archive by itself, an OCI layout by its
/// `index.json`, a rootfs folder by its inode alone, because it is used in place.
pub fn source_id(path: &Path) -> Result<SourceId, ImageError> {
    let stat = |path: &Path| {
        fs::metadata(path)
            .map_err(|error| ImageError::invalid(&format_args!("cannot read the image {}: {error}", path.display())))
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
        return Err(ImageError::invalid(&format_args!("the image {} is neither a file nor a folder", path.display())));
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

/// Whether `path` is a folder with a root file system, used as it is. An archive takes one look: in what is no folder
/// nothing can be missing (ENOTDIR).
pub fn is_rootfs(path: &Path) -> bool {
    fs::metadata(path.join("oci-layout")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) && path.is_dir()
}

fn sync_folder(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| fail("sync", path, error))
}

#[cfg(test)]
mod tests;
