//! Indexes and manifests: from a digest or a name to a config and a list of layers. Paths in them name members of the
//! archive, never files of the host (OCI image-spec manifest.md and image-index.md; moby's `manifest.json`).
#![forbid(unsafe_code)]

use super::ImageError;
use super::digest::Digest;
use super::platform::Platform;
use super::text::{List, Text, parse};
use crate::base::limits::LAYERS;
use serde::Deserialize;

/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Entries of one index: as many platforms as exist, with an attestation each, for a dozen images.
const INDEX_ENTRIES: usize = 512;
/// Images in one docker archive.
const DOCKER_IMAGES: usize = 256;
/// Names of one image.
const NAMES: usize = 64;

/// What a descriptor points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Points {
    /// An index.
    Index,
    /// A manifest.
    Manifest,
}

/// A reference to a blob, with what is known of it beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// One entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The blob.
    pub blob: Descriptor,
    /// What it is.
    pub points: Points,
    /// The platform it is for, if it says.
    pub platform: Option<Platform>,
    /// The image's names, from the annotations of the OCI spec, containerd and buildah.
    pub names: Vec<Box<str>>,
    /// A build attestation or another artifact, which is never run.
    pub artifact: bool,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The image config.
    pub config: Descriptor,
    /// The layers' blobs, lowest first.
    pub layers: Vec<Descriptor>,
}

/// One image of docker's `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerImage {
    /// The member that holds the config.
    pub config: Box<str>,
    /// The image's names.
    pub names: Vec<Box<str>>,
    /// The members that hold the layers, lowest first.
    pub layers: Vec<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: Text,
    digest: Text,
    size: u64,
    platform: Option<RawPlatform>,
    annotations: Option<RawAnnotations>,
    artifact_type: Option<Text>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    architecture: Text,
    #[serde(default)]
    os: Text,
    variant: Option<Text>,
}

#[derive(Deserialize)]
struct RawAnnotations {
    #[serde(rename = "org.opencontainers.image.ref.name")]
    ref_name: Option<Text>,
    #[serde(rename = "io.containerd.image.name")]
    containerd: Option<Text>,
    #[serde(rename = "vnd.docker.reference.type")]
    docker_reference: Option<Text>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u8,
    media_type: Option<Text>,
    config: Option<RawDescriptor>,
    layers: Option<List<RawDescriptor, LAYERS>>,
    manifests: Option<List<RawDescriptor, INDEX_ENTRIES>>,
    // What images of docker's schema 1 had.
    fs_layers: Option<serde::de::IgnoredAny>,
}

fn document(what: &str, bytes: &[u8]) -> Result<RawDocument, ImageError> {
    let raw: RawDocument = parse(what, bytes)?;
    if raw.schema_version != 2 || raw.fs_layers.is_some() {
        return Err(ImageError::invalid(format!("{what} is of schema version {}, must be 2", raw.schema_version)));
    }
    if raw.manifests.is_some() && (raw.config.is_some() || raw.layers.is_some()) {
        return Err(ImageError::invalid(format!(
            "{what} is a manifest and an index at once; such a double meaning is refused"
        )));
    }
    Ok(raw)
}

fn check_type(what: &str, found: &Option<Text>, allowed: [&str; 2]) -> Result<(), ImageError> {
    match found {
        Some(Text(found)) if !found.is_empty() && !allowed.contains(&&**found) => {
            let found = found.escape_debug();
            Err(ImageError::invalid(format!("{what} calls itself \"{found}\", expected \"{}\"", allowed[0])))
        }
        _ => Ok(()),
    }
}

fn descriptor(what: &str, raw: &RawDescriptor) -> Result<Descriptor, ImageError> {
    let digest = Digest::parse(&raw.digest.0).ok_or_else(|| {
        ImageError::invalid(format!("{what} names the digest \"{}\", which is no sha256", raw.digest.0.escape_debug()))
    })?;
    Ok(Descriptor { digest, size: raw.size })
}

/// Reads an OCI index or docker manifest list. Entries of unknown kinds are left out.
pub fn parse_index(bytes: &[u8]) -> Result<Vec<IndexEntry>, ImageError> {
    let what = "the index";
    let raw = document(what, bytes)?;
    check_type(what, &raw.media_type, [OCI_INDEX, DOCKER_INDEX])?;
    let List(entries) = raw.manifests.ok_or_else(|| ImageError::invalid("the index has no \"manifests\""))?;
    let mut index = Vec::new();
    for entry in entries {
        let points = match &*entry.media_type.0 {
            OCI_INDEX | DOCKER_INDEX => Points::Index,
            // Without a media type it is a manifest, as skopeo of 2018 wrote it.
            OCI_MANIFEST | DOCKER_MANIFEST | "" => Points::Manifest,
            _ => continue,
        };
        let blob = descriptor(what, &entry)?;
        let (names, attestation) = match &entry.annotations {
            Some(notes) => {
                let names = [&notes.containerd, &notes.ref_name];
                let names = names.into_iter().flatten().map(|Text(name)| name.clone());
                (names.filter(|name| !name.is_empty()).collect(), notes.docker_reference.is_some())
            }
            None => (Vec::new(), false),
        };
        let platform = entry.platform.filter(|platform| !platform.architecture.0.is_empty()).map(|raw| Platform {
            os: raw.os.0,
            architecture: raw.architecture.0,
            variant: raw.variant.unwrap_or_default().0,
        });
        let unknown = platform.as_ref().is_some_and(|platform| &*platform.architecture == "unknown");
        let artifact = attestation || unknown || entry.artifact_type.is_some_and(|Text(kind)| !kind.is_empty());
        index.push(IndexEntry { blob, points, platform, names, artifact });
    }
    Ok(index)
}

/// Reads an OCI or docker (schema 2) manifest.
pub fn parse_manifest(bytes: &[u8]) -> Result<Manifest, ImageError> {
    let what = "the manifest";
    let raw = document(what, bytes)?;
    check_type(what, &raw.media_type, [OCI_MANIFEST, DOCKER_MANIFEST])?;
    let config = raw.config.ok_or_else(|| ImageError::invalid("the manifest has no \"config\""))?;
    if !matches!(&*config.media_type.0, OCI_CONFIG | DOCKER_CONFIG) {
        let found = config.media_type.0.escape_debug();
        return Err(ImageError::invalid(format!(
            "the manifest's config is a \"{found}\": an artifact, no image that runs"
        )));
    }
    let mut layers = Vec::new();
    for layer in &raw.layers.unwrap_or_default().0 {
        if !is_layer(&layer.media_type.0) {
            let found = layer.media_type.0.escape_debug();
            return Err(ImageError::invalid(format!("layer {} is a \"{found}\", must be a tar", layers.len() + 1)));
        }
        layers.push(descriptor(what, layer)?);
    }
    Ok(Manifest { config: descriptor(what, &config)?, layers })
}

/// Whether a media type is that of a tar layer. How it is compressed is told by its first bytes.
fn is_layer(media_type: &str) -> bool {
    let kinds = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let endings = ["", "+gzip", "+zstd", ".gzip", ".zstd"];
    kinds.iter().any(|kind| media_type.strip_prefix(kind).is_some_and(|ending| endings.contains(&ending)))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawDockerImage {
    config: Text,
    repo_tags: Option<List<Text, NAMES>>,
    layers: Option<List<Text, LAYERS>>,
}

/// Reads docker's `manifest.json`.
pub fn parse_docker_manifest(bytes: &[u8]) -> Result<Vec<DockerImage>, ImageError> {
    let List(images): List<RawDockerImage, DOCKER_IMAGES> = parse("manifest.json", bytes)?;
    let texts = |list: Vec<Text>| list.into_iter().map(|Text(text)| text).collect();
    let image = |raw: RawDockerImage| DockerImage {
        config: raw.config.0,
        names: texts(raw.repo_tags.unwrap_or_default().0),
        layers: texts(raw.layers.unwrap_or_default().0),
    };
    Ok(images.into_iter().map(image).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLayout {
    image_layout_version: Text,
}

/// Checks an `oci-layout` file (OCI image-spec, image-layout.md).
pub fn check_layout(bytes: &[u8]) -> Result<(), ImageError> {
    let raw: RawLayout = parse("oci-layout", bytes)?;
    match &*raw.image_layout_version.0 {
        "1.0.0" => Ok(()),
        other => Err(ImageError::invalid(format!(
            "oci-layout is of version \"{}\", must be \"1.0.0\"",
            other.escape_debug()
        ))),
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
