//! Removing images and what no image needs.
#![forbid(unsafe_code)]

use super::{Staging, Store, fail, sync_folder};
use crate::base::sort::sort;
use crate::image::ImageError;
use crate::image::digest::Digest;
use crate::image::record::ImageRecord;
use crate::sys::folder;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Image records.
    pub images: u64,
    /// Layers.
    pub layers: u64,
    /// Merged trees.
    pub flat: u64,
    /// Unfinished unpacks.
    pub staging: u64,
    /// Bytes of file content in the layers.
    pub bytes: u64,
}

impl Store {
    /// Removes an image by its full reference, and the layers that no other image needs.
    pub fn remove(&self, record: &ImageRecord) -> Result<Removed, ImageError> {
        let _lock = self.lock()?;
        if let Some(store) = self.carried(record) {
            let (image, store) = (&record.reference, store.display());
            return Err(ImageError::failed(&format_args!(
                "{image} is in the read-only store {store}; it goes with the firmware"
            )));
        }
        let path = self.record_path(&record.reference);
        let Some(_unused) = unpinned(&path)? else {
            return Err(ImageError::failed(&format_args!(
                "{} is in use by a running service; stop it first",
                record.reference
            )));
        };
        fs::remove_file(&path).map_err(|error| fail("remove", &path, error))?;
        sync_folder(&self.state.join("images"))?;
        let mut removed = self.sweep()?;
        removed.images += 1;
        Ok(removed)
    }

    /// Removes the records of images whose file is gone or replaced, layers and merged trees that no image needs, and
    /// what dead unpackers left.
    pub fn prune(&self) -> Result<Removed, ImageError> {
        let _lock = self.lock()?;
        let mut images = 0;
        for path in self.record_files()? {
            let Ok(record) = super::read(&path).and_then(|bytes| ImageRecord::from_json(&bytes)) else { continue };
            let file = record.reference.rsplit_once('#').map_or(&*record.reference, |(file, _)| file);
            let current = super::source_id(Path::new(file)).is_ok_and(|source| source == record.source);
            let replaced = path != self.record_path(&record.reference);
            if (replaced || !current) && unpinned(&path)?.is_some() {
                fs::remove_file(&path).map_err(|error| fail("remove", &path, error))?;
                images += 1;
            }
        }
        sync_folder(&self.state.join("images"))?;
        let mut removed = self.sweep()?;
        removed.images += images;
        removed.staging += self.clean_staging()?;
        Ok(removed)
    }

    /// Before a record is replaced: if a running service pins it, it stays under another name.
    pub(super) fn keep_if_pinned(&self, path: &Path) -> Result<(), ImageError> {
        if !path.exists() || unpinned(path)?.is_some() {
            return Ok(());
        }
        let old = old_name(path)?;
        fs::hard_link(path, &old).map_err(|error| fail("keep", path, error))
    }

    /// Takes a damaged layer, and what was merged of it, out of the way of a new one. Where a running service stands on
    /// them they stay under another name: whoever empties a mounted layer pulls the files from under its processes.
    pub(super) fn set_aside(&self, layer: &Digest, staging: &Staging) -> Result<(), ImageError> {
        let mut places = vec![self.layer_folder(layer)];
        let mut pinned = false;
        for path in self.record_files()? {
            let Ok(record) = super::read(&path).and_then(|bytes| ImageRecord::from_json(&bytes)) else {
                // It may name any layer.
                pinned |= unpinned(&path)?.is_none();
                continue;
            };
            if record.root.layers().contains(layer) {
                pinned |= unpinned(&path)?.is_none();
                let merged = self.state.join("flat").join(super::flatten::key(&record));
                if !places.contains(&merged) && merged.exists() {
                    places.push(merged);
                }
            }
        }
        for (number, place) in places.iter().enumerate() {
            let aside =
                if pinned { old_name(place)? } else { staging.path().join(format!("old-{}-{number}", layer.hex())) };
            fs::rename(place, &aside).map_err(|error| fail("set aside the damaged", place, error))?;
        }
        Ok(())
    }

    /// Removes layers and merged trees that no record names. A record that cannot be read may name any: then all stay.
    fn sweep(&self) -> Result<Removed, ImageError> {
        let mut removed = Removed::default();
        let (mut used, mut pinned) = (Vec::new(), Vec::new());
        for path in self.record_files()? {
            let Ok(record) = super::read(&path).and_then(|bytes| ImageRecord::from_json(&bytes)) else {
                return Ok(removed);
            };
            let mut names: Vec<String> = record.root.layers().iter().map(Digest::hex).collect();
            names.push(super::flatten::key(&record));
            if unpinned(&path)?.is_none() {
                pinned.extend(names.iter().cloned());
            }
            used.extend(names);
        }
        sort(&mut used);
        sort(&mut pinned);
        let among = |names: &[String], name: &str| names.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
        let unused = |name: &str| match name.split_once(".old-") {
            Some((replaced, _)) => !among(&pinned, replaced),
            None => !among(&used, name),
        };
        for (folder, name) in self.entries("layers")?.into_iter().filter(|(_, name)| unused(name)) {
            let layer = Digest::parse_hex(&name).and_then(|layer| self.layer_record(&layer).ok());
            removed.bytes += layer.map_or(0, |record| record.stats.bytes);
            self.discard(&folder)?;
            removed.layers += 1;
        }
        for (folder, _) in self.entries("flat")?.into_iter().filter(|(_, name)| unused(name)) {
            self.discard(&folder)?;
            removed.flat += 1;
        }
        Ok(removed)
    }

    fn entries(&self, folder: &str) -> Result<Vec<(PathBuf, String)>, ImageError> {
        let folder = self.state.join(folder);
        let paths = folder::list(&folder).map_err(|error| fail("list", &folder, error))?;
        let mut entries = Vec::with_capacity(paths.len());
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            entries.push((path, name));
        }
        Ok(entries)
    }

    /// Takes a folder out of sight by one rename, then removes it.
    fn discard(&self, folder: &Path) -> Result<(), ImageError> {
        let staging = self.begin()?;
        fs::rename(folder, staging.path().join("gone")).map_err(|error| fail("remove", folder, error))
    }
}

/// A free name for what is replaced while in use.
fn old_name(path: &Path) -> Result<PathBuf, ImageError> {
    let free = (0..10_000).map(|number| folder::beside(path, &format!(".old-{number}"))).find(|old| !old.exists());
    free.ok_or_else(|| ImageError::failed(&format_args!("{} was replaced too often while in use", path.display())))
}

/// The record's lock if no running service holds it.
fn unpinned(path: &Path) -> Result<Option<File>, ImageError> {
    let file = File::open(path).map_err(|error| fail("open", path, error))?;
    Ok(file.try_lock().is_ok().then_some(file))
}
