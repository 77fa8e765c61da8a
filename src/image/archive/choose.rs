//! From the documents of an archive to the one image that is wanted.
#![forbid(unsafe_code)]

use super::{Blobs, Wanted};
use crate::base::escaped::Escaped;
use crate::image::ImageError;
use crate::image::config::{ImageConfig, ParsedConfig, parse_config};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Descriptor, DockerImage, IndexEntry, Manifest, Points};
use crate::image::platform::Platform;
use crate::image::reference::Select;
use sha2::{Digest as _, Sha256};

/// Indexes within indexes: an archive's own, an image's platforms, and one to spare.
const INDEX_DEPTH: usize = 4;
/// Images and platforms looked at in one archive.
const CANDIDATES: usize = 512;

/// The chosen image.
#[derive(Debug)]
pub struct Choice {
    /// Names that the archive gives it.
    pub names: Vec<Box<str>>,
    /// SHA-256 of its config.
    pub image_id: Digest,
    /// What it says about the process.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Expected>,
}

/// A layer and what it must turn out to be.
#[derive(Debug)]
pub struct Expected {
    /// The member that holds it.
    pub member: String,
    /// SHA-256 as stored, if a digest names it.
    pub stored: Option<Digest>,
    /// Bytes as stored, if a descriptor says.
    pub size: Option<u64>,
    /// SHA-256 of the uncompressed tar.
    pub diff: Digest,
}

/// An image of the archive before its layers are looked at.
struct Candidate {
    names: Vec<Box<str>>,
    digests: Vec<Digest>,
    image_id: Digest,
    parsed: ParsedConfig,
    platform: Option<Platform>,
    blobs: Vec<(String, Option<Digest>, Option<u64>)>,
}

/// Chooses by name or digest, then by platform.
pub fn choose(blobs: &mut dyn Blobs, wanted: &Wanted<'_>) -> Result<Choice, ImageError> {
    let candidates = match blobs.document("oci-layout")? {
        Some(layout) => {
            manifest::check_layout(&layout)?;
            oci(blobs)?
        }
        None => docker(blobs)?,
    };
    let candidate = pick(candidates, wanted)?;
    let (count, diffs) = (candidate.blobs.len(), candidate.parsed.diff_ids);
    if count != diffs.len() {
        return Err(ImageError::invalid(&format_args!(
            "the manifest lists {count} layers, the image config has {} diff IDs",
            diffs.len()
        )));
    }
    if count == 0 {
        return Err(ImageError::invalid(&"the image has no layers: an artifact, no image that runs"));
    }
    let layers = candidate.blobs.into_iter().zip(diffs);
    let layers = layers.map(|((member, stored, size), diff)| Expected { member, stored, size, diff }).collect();
    let mut config = candidate.parsed.config;
    config.platform = candidate.platform;
    Ok(Choice { names: candidate.names, image_id: candidate.image_id, config, layers })
}

fn pick(candidates: Vec<Candidate>, wanted: &Wanted<'_>) -> Result<Candidate, ImageError> {
    let (chosen, others): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .partition(|one| wanted.select.accepts(one.names.iter().map(|name| &**name), &one.digests));
    if chosen.is_empty() {
        return Err(match wanted.select {
            Select::Only => ImageError::invalid(&"the archive holds no image"),
            Select::Name(name) => {
                let name = Escaped(name);
                ImageError::invalid(&format_args!(
                    "the archive holds no image \"{name}\"; it holds {}",
                    listed(&others)
                ))
            }
            Select::Digest(digest) => {
                ImageError::invalid(&format_args!("the archive holds no image {digest}; it holds {}", listed(&others)))
            }
        });
    }
    let fitness = |one: &Candidate| match &one.platform {
        Some(platform) => wanted.platform.fitness(platform),
        None => Some(u8::MAX),
    };
    let Some(best) = chosen.iter().filter_map(fitness).min() else {
        let mut found: Vec<String> =
            chosen.iter().filter_map(|one| one.platform.as_ref()).map(Platform::to_string).collect();
        crate::base::sort::sort(&mut found);
        found.dedup();
        return Err(ImageError::invalid(&format_args!(
            "the image is for {}, wanted is {}; get the image for {}",
            found.join(", "),
            wanted.platform,
            wanted.platform
        )));
    };
    let mut fitting = chosen.into_iter().filter(|one| fitness(one) == Some(best));
    let mut first = fitting.next().ok_or_else(|| ImageError::invalid(&"the archive holds no image"))?;
    let mut rest = Vec::new();
    for other in fitting {
        // The same image under several names, or its manifest listed twice.
        if other.image_id == first.image_id && other.blobs == first.blobs {
            first.names.extend(other.names);
        } else {
            rest.push(other);
        }
    }
    if !rest.is_empty() {
        rest.insert(0, first);
        return Err(ImageError::invalid(&format_args!(
            "the archive holds several images; say which with FILE#NAME: {}",
            listed(&rest)
        )));
    }
    first.names.dedup();
    first.names.truncate(crate::image::record::RECORD_NAMES);
    Ok(first)
}

fn listed(candidates: &[Candidate]) -> String {
    let name = |one: &Candidate| match one.names.first() {
        Some(name) => Escaped(name).to_string(),
        None => one.image_id.to_string(),
    };
    let mut names: Vec<String> = candidates.iter().map(name).collect();
    names.dedup();
    match names.len() {
        0 => "none".into(),
        count if count > 8 => format!("{}, and {} more", names[..8].join(", "), count - 8),
        _ => names.join(", "),
    }
}

fn sha(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Reads a document that a descriptor names, and checks length and digest.
fn blob(blobs: &mut dyn Blobs, what: &str, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let name = blob_name(&descriptor.digest);
    let bytes = blobs.document(&name)?.ok_or_else(|| {
        ImageError::invalid(&format_args!("{what} {} is missing: the archive does not hold it", descriptor.digest))
    })?;
    if bytes.len() as u64 != descriptor.size || sha(&bytes) != descriptor.digest {
        return Err(ImageError::invalid(&format_args!(
            "{what} {} is damaged: its length or SHA-256 is another; copy the archive again",
            descriptor.digest
        )));
    }
    Ok(bytes)
}

/// The candidates of an OCI layout. Manifests of a multi-platform index that the archive does not hold are left out.
fn oci(blobs: &mut dyn Blobs) -> Result<Vec<Candidate>, ImageError> {
    let bytes = blobs.document("index.json")?.ok_or_else(|| ImageError::invalid(&"index.json is missing"))?;
    let mut open: Vec<(IndexEntry, Vec<Digest>, usize)> = Vec::new();
    open.extend(manifest::parse_index(&bytes)?.into_iter().map(|entry| (entry, Vec::new(), 1)));
    open.reverse();
    let mut candidates = Vec::new();
    let mut looked_at = 0;
    let mut absent = None;
    while let Some((entry, mut digests, depth)) = open.pop() {
        looked_at += 1;
        if looked_at > CANDIDATES || depth > INDEX_DEPTH {
            return Err(ImageError::invalid(&"its indexes are nested too deep or hold too many images"));
        }
        if entry.artifact {
            continue;
        }
        digests.push(entry.blob.digest);
        if depth > 1 && blobs.size(&blob_name(&entry.blob.digest))?.is_none() {
            absent = Some(entry.platform);
            continue;
        }
        match entry.points {
            Points::Index => {
                let bytes = blob(blobs, "the index", &entry.blob)?;
                for mut inner in manifest::parse_index(&bytes)?.into_iter().rev() {
                    inner.names.extend(entry.names.iter().cloned());
                    open.push((inner, digests.clone(), depth + 1));
                }
            }
            Points::Manifest => {
                let bytes = blob(blobs, "the manifest", &entry.blob)?;
                let manifest = manifest::parse_manifest(&bytes)?;
                candidates.push(oci_candidate(blobs, entry, manifest, digests)?);
            }
        }
    }
    match (candidates.is_empty(), absent) {
        (true, Some(Some(platform))) => {
            Err(ImageError::invalid(&format_args!("the archive names an image for {platform} but does not hold it")))
        }
        _ => Ok(candidates),
    }
}

fn oci_candidate(
    blobs: &mut dyn Blobs,
    entry: IndexEntry,
    manifest: Manifest,
    mut digests: Vec<Digest>,
) -> Result<Candidate, ImageError> {
    let image_id = manifest.config.digest;
    digests.push(image_id);
    let parsed = parse_config(&blob(blobs, "the image config", &manifest.config)?)?;
    // The index knows the variant, which many configs leave out.
    let platform = entry.platform.or_else(|| parsed.config.platform.clone());
    let layers =
        manifest.layers.into_iter().map(|layer| (blob_name(&layer.digest), Some(layer.digest), Some(layer.size)));
    Ok(Candidate { names: entry.names, digests, image_id, parsed, platform, blobs: layers.collect() })
}

/// The candidates of docker's `manifest.json`.
fn docker(blobs: &mut dyn Blobs) -> Result<Vec<Candidate>, ImageError> {
    let bytes = blobs.document("manifest.json")?.ok_or_else(|| ImageError::invalid(&"manifest.json is missing"))?;
    let images = manifest::parse_docker_manifest(&bytes)?;
    images.into_iter().map(|image| docker_candidate(blobs, image)).collect()
}

fn docker_candidate(blobs: &mut dyn Blobs, image: DockerImage) -> Result<Candidate, ImageError> {
    let bytes = blobs.document(&image.config)?.ok_or_else(|| {
        let name = Escaped(&image.config);
        ImageError::invalid(&format_args!(
            "manifest.json names the image config \"{name}\", which the archive does not hold"
        ))
    })?;
    let image_id = sha(&bytes);
    if named_digest(&image.config).is_some_and(|named| named != image_id) {
        let name = Escaped(&image.config);
        return Err(ImageError::invalid(&format_args!(
            "the image config \"{name}\" is damaged: its SHA-256 is {image_id}; copy the archive again"
        )));
    }
    let parsed = parse_config(&bytes)?;
    let platform = parsed.config.platform.clone();
    // Only in `blobs/` does a name stand for the bytes as stored; elsewhere it is docker's layer ID or the diff ID.
    let stored = |name: &str| name.strip_prefix("blobs/sha256/").and_then(Digest::parse_hex);
    let layers = image.layers.iter().map(|name| (name.to_string(), stored(name), None)).collect();
    Ok(Candidate { names: image.names, digests: vec![image_id], image_id, parsed, platform, blobs: layers })
}

/// The digest that a config's name stands for: `HEX.json`, `sha256:HEX`, `blobs/sha256/HEX`.
fn named_digest(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next()?;
    let last = last.strip_suffix(".json").unwrap_or(last);
    Digest::parse(last).or_else(|| Digest::parse_hex(last))
}
