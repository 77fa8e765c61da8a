//! Looking into the images of a plan before anything is unpacked.

use super::{Board, BoardProblem, Files};
use crate::image::ImageError;
use crate::image::archive::{Inspected, Source, Wanted, inspect};
use crate::image::config::ImageConfig;
use crate::image::mountable::Mountable;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::store::{is_layout, source_id};
use crate::plan::{Device, Plan};
use nix::libc::{O_DIRECTORY, O_NOCTTY, O_NONBLOCK};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What is wrong with the images that are there: damaged, without the wanted one, for another architecture, without a
/// program to run.
///
/// Reads each archive's headers and documents, a compressed one whole. Nothing without the board's platform.
pub fn image_problems(plan: &Plan, board: &Board) -> Vec<BoardProblem> {
    let Some(platform) = &board.platform else { return Vec::new() };
    let mut found = Vec::new();
    let mut known: Vec<(&str, Result<Inspected, ImageError>)> = Vec::new();
    for (index, service) in plan.services.iter().enumerate() {
        let Some(image) = service.image() else { continue };
        let Ok(reference) = Reference::parse(image) else { continue };
        let Some(hit) = board.files.image(&plan.device, &reference) else { continue };
        if !known.iter().any(|(known, _)| *known == image) {
            let place = board.files.archive(&hit.path, &reference);
            let result = match &place {
                Some(place) => look(place, &reference, platform, &plan.device),
                None => carried(&board.files, &reference.located_at(&hit.path), platform, &plan.device),
            };
            let shown = place.unwrap_or(hit.path);
            known.push((image, result.map_err(|error| error.at(&shown.display()))));
        }
        let Some((_, result)) = known.iter().find(|(known, _)| *known == image) else { continue };
        let mut add = |message: String, hint: &str| {
            found.push(BoardProblem { service: Some(index), message, hint: hint.into() });
        };
        match result {
            Err(error) => add(format!("image {error}"), ""),
            Ok(found) if service.command.is_empty() && names_no_program(&found.config) => {
                add(format!("image {image:?} names no program"), "add \"command\": [\"/path/of/program\"]");
            }
            Ok(_) => {}
        }
    }
    found
}

fn names_no_program(config: &ImageConfig) -> bool {
    config.entrypoint.is_empty() && config.cmd.is_empty()
}

/// An image that is in the read-only store alone.
fn carried(files: &Files, image: &Reference, platform: &Platform, device: &Device) -> Result<Inspected, ImageError> {
    let baked = files.baked(device).ok_or_else(|| ImageError::failed(&"is missing"))?;
    let store = baked.folder().display();
    let record = baked.image(image);
    let record = record
        .ok_or_else(|| ImageError::invalid(&format_args!("its record in {store} cannot be read; bake it anew")))?;
    if let Some(missing) = record.root.layers().iter().find(|layer| !baked.has_layer(layer)) {
        return Err(ImageError::invalid(&format_args!("{store} lacks its layer {}; bake it anew", missing.short())));
    }
    match &record.config.platform {
        Some(made_for) if platform.fitness(made_for).is_none() => Err(ImageError::invalid(&format_args!(
            "is in {store} for {made_for}, and the board is {platform}; bake it with --arch {platform}"
        ))),
        _ => Ok(Inspected { layers: record.root.layers().len(), names: record.names, config: record.config }),
    }
}

fn look(path: &Path, reference: &Reference, platform: &Platform, device: &Device) -> Result<Inspected, ImageError> {
    // A regular file or a folder; neither a FIFO nor a device is opened.
    source_id(path)?;
    let folder = path.is_dir();
    let in_place = if folder { !is_layout(path) } else { Mountable::at(path).is_some() };
    if in_place {
        return Ok(Inspected { names: Vec::new(), config: ImageConfig::empty(), layers: 0 });
    }
    let kind = if folder { O_DIRECTORY } else { 0 };
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY | kind).open(path);
    let file = file.map_err(|error| ImageError::failed(&format_args!("cannot be opened: {error}")))?;
    let source = if folder { Source::Layout(file.into()) } else { Source::File(file) };
    inspect(source, &Wanted { select: &reference.select, platform, caps: device.image_caps, have: &|_| false })
}
