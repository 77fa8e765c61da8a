//! Looking at an image without unpacking it: is it whole, is the wanted one in it, what does it say about the process.
#![forbid(unsafe_code)]

use super::choose;
use super::members::{Layout, Members};
use super::shape::{self, Shape};
use super::stream::Stream;
use super::{Blobs, Source, Wanted, rewound, stored_size};
use crate::image::ImageError;
use crate::image::config::ImageConfig;
use crate::image::decompress::Compression;
use std::fs::File;

/// What an image says, read from its documents; its layers were not read.
#[derive(Debug)]
pub struct Inspected {
    /// Names that the archive gives it.
    pub names: Vec<Box<str>>,
    /// What it says about the process.
    pub config: ImageConfig,
    /// Number of layers.
    pub layers: usize,
}

/// Reads the documents of the wanted image, and sees that its layers are there in the size that they should have.
///
/// A source that is compressed as a whole has to be decompressed for that; nothing is written anywhere.
pub fn inspect(source: Source, wanted: &Wanted<'_>) -> Result<Inspected, ImageError> {
    match source {
        Source::Layout(folder) => described(&mut Layout::new(folder, wanted.caps.manifest), wanted),
        Source::File(file) => archive(&file, wanted),
    }
}

fn archive(file: &File, wanted: &Wanted<'_>) -> Result<Inspected, ImageError> {
    let (shape, compression) = shape::probe(file, &wanted.caps)?;
    if shape == Shape::Image && compression == Compression::Plain {
        let mut members = Members::index(file, &wanted.caps)?;
        if members.has_manifest() {
            return described(&mut members, wanted);
        }
    } else if shape == Shape::Image {
        let mut stream = Stream::read(rewound(file)?, &wanted.caps, None)?;
        if stream.has_manifest() {
            return described(&mut stream, wanted);
        }
    }
    Ok(Inspected { names: Vec::new(), config: ImageConfig::empty(), layers: 1 })
}

fn described(blobs: &mut dyn Blobs, wanted: &Wanted<'_>) -> Result<Inspected, ImageError> {
    let choice = choose::choose(blobs, wanted)?;
    for index in 0..choice.layers.len() {
        stored_size(blobs, index, &choice.layers)?;
    }
    Ok(Inspected { names: choice.names, config: choice.config, layers: choice.layers.len() })
}
