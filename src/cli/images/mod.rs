//! The commands about images: images, unpack, verify, rmi, prune, pack.
#![forbid(unsafe_code)]

pub mod list;
pub mod pack;
pub mod unpack;

use super::output;
use crate::base::exit;
use crate::image::reference::Reference;
use crate::image::store::Store;
use crate::image::{ImageError, Kind};
use crate::plan::Device;
use crate::supervisor::board::Files;
use crate::supervisor::config_file;
use std::path::{Path, PathBuf};

/// Says what went wrong and gives the exit code.
pub fn fault(error: &ImageError) -> u8 {
    output::complain(&error.text());
    match error.kind() {
        Kind::Invalid => exit::INVALID,
        Kind::Failed => exit::FAILED,
    }
}

/// The device part of the config, or the defaults where `state` is given and no config is.
pub fn device(state: Option<&Path>, config: Option<&Path>) -> Result<Device, u8> {
    let mut device = match (state, config) {
        (Some(_), None) => Device::default(),
        (_, config) => {
            let file = config.unwrap_or(Path::new(config_file::DEFAULT));
            match config_file::load(file) {
                Ok((plan, _)) => plan.device,
                Err(config_file::Fault::Problems(problems)) => {
                    output::explain(&problems);
                    return Err(exit::INVALID);
                }
                Err(config_file::Fault::Unreadable(sentence)) => {
                    output::complain(&format_args!("{sentence} with -c, or the state folder with --state"));
                    return Err(exit::FAILED);
                }
            }
        }
    };
    if let Some(state) = state {
        let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        device.state = state.to_string_lossy().into();
    }
    Ok(device)
}

/// Opens the store of a device.
pub fn store(device: &Device) -> Result<Store, u8> {
    Store::of(device).map_err(|error| fault(&error))
}

/// Finds the file that a person typed: a path from here if it has a slash or is there, else a name in the image folders.
pub fn locate(device: &Device, typed: &str) -> Result<Reference, u8> {
    let here = |file: &str| file.starts_with("./") || file.starts_with("../") || Path::new(file).exists();
    let file = typed.rsplit_once('#').map_or(typed, |(file, _)| file);
    let absolute = match std::path::absolute(file) {
        Ok(path) if here(file) => Some(normal(&path)),
        _ => None,
    };
    let text = match &absolute {
        Some(path) => format!("{}{}", path.display(), &typed[file.len()..]),
        None => typed.to_owned(),
    };
    let reference = Reference::parse(&text).map_err(|bad| {
        output::complain(&format_args!("\"{typed}\" names no image: {bad}"));
        exit::INVALID
    })?;
    let Some(found) = Files::here().image(device, &reference) else {
        let folders: Vec<&str> = device.images.iter().map(|folder| &**folder).collect();
        let places = match folders.is_empty() || reference.file.starts_with('/') {
            true => String::new(),
            false => format!(" in {}", folders.join(", ")),
        };
        output::complain(&format_args!("there is no image file {}{places}", reference.file));
        return Err(exit::INVALID);
    };
    for hidden in &found.shadowed {
        output::complain(&format_args!("{} hides {}", found.path.display(), hidden.display()));
    }
    Ok(reference.located_at(&found.path))
}

/// A path without `.` and `..`, so that one file has one name in the store.
fn normal(path: &Path) -> PathBuf {
    match path.parent().map(Path::canonicalize) {
        Some(Ok(parent)) => path.file_name().map_or_else(|| parent.clone(), |name| parent.join(name)),
        _ => path.to_owned(),
    }
}
