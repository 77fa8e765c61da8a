//! Indexes and manifests: from a digest or a name to a config and a list of layers. Paths in them name members of the
//! archive, never files of the host (OCI image-spec manifest.md and image-index.md; moby's `manifest.json`).
#![forbid(unsafe_code)]

use super::ImageError;
use super::digest::Digest;
use super::platform::Platform;
use super::text::{List, need, parse, text, texts};
use crate::base::escaped::Escaped;
use crate::base::limits::LAYERS;
use crate::objects;

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

objects! {
    struct RawDescriptor<'a> {
        media_type = "mediaType": Option<&'a str>,
        digest: Option<&'a str>,
        size: Option<u64>,
        platform: RawPlatform<'a>,
        annotations: RawAnnotations<'a>,
        artifact_type = "artifactType": Option<&'a str>,
    }

    struct RawPlatform<'a> {
        architecture: Option<&'a str>,
        os: Option<&'a str>,
        variant: Option<&'a str>,
    }

    struct RawAnnotations<'a> {
        ref_name = "org.opencontainers.image.ref.name": Option<&'a str>,
        containerd = "io.containerd.image.name": Option<&'a str>,
        docker_reference = "vnd.docker.reference.type": Option<&'a str>,
    }

    struct RawDocument<'a> {
        schema_version = "schemaVersion": Option<u8>,
        media_type = "mediaType": Option<&'a str>,
        config: Option<RawDescriptor<'a>>,
        layers: Option<List<RawDescriptor<'a>, LAYERS>>,
        manifests: Option<List<RawDescriptor<'a>, INDEX_ENTRIES>>,
        // What images of docker's schema 1 had.
        fs_layers = "fsLayers": bool,
    }

    struct RawDockerImage<'a> {
        config = "Config": Option<&'a str>,
        repo_tags = "RepoTags": List<&'a str, NAMES>,
        layers = "Layers": List<&'a str, LAYERS>,
    }

    struct RawLayout<'a> {
        version = "imageLayoutVersion": Option<&'a str>,
    }
}

fn document<'a>(what: &str, bytes: &'a [u8]) -> Result<RawDocument<'a>, ImageError> {
    let raw: RawDocument<'_> = parse(what, bytes)?;
    let version = need(what, "schemaVersion", raw.schema_version)?;
    if version != 2 || raw.fs_layers {
        return Err(ImageError::invalid(&format_args!("{what} is of schema version {version}, must be 2")));
    }
    if raw.manifests.is_some() && (raw.config.is_some() || raw.layers.is_some()) {
        return Err(ImageError::invalid(&format_args!(
            "{what} is a manifest and an index at once; such a double meaning is refused"
        )));
    }
    Ok(raw)
}

fn check_type(what: &str, found: Option<&str>, allowed: [&str; 2]) -> Result<(), ImageError> {
    let found = text(found);
    if found.is_empty() || allowed.contains(&&*found) {
        return Ok(());
    }
    let found = Escaped(&found);
    Err(ImageError::invalid(&format_args!("{what} calls itself \"{found}\", expected \"{}\"", allowed[0])))
}

fn descriptor(what: &str, raw: &RawDescriptor<'_>) -> Result<Descriptor, ImageError> {
    let name = text(Some(need(what, "digest", raw.digest)?));
    let digest = Digest::parse(&name).ok_or_else(|| {
        ImageError::invalid(&format_args!("{what} names the digest \"{}\", which is no sha256", Escaped(&name)))
    })?;
    Ok(Descriptor { digest, size: need(what, "size", raw.size)? })
}

/// Reads an OCI index or docker manifest list. Entries of unknown kinds are left out.
pub fn parse_index(bytes: &[u8]) -> Result<Vec<IndexEntry>, ImageError> {
    let what = "the index";
    let raw = document(what, bytes)?;
    check_type(what, raw.media_type, [OCI_INDEX, DOCKER_INDEX])?;
    let List(entries) = need(what, "manifests", raw.manifests)?;
    let mut index = Vec::new();
    for entry in entries {
        let points = match &*text(entry.media_type) {
            OCI_INDEX | DOCKER_INDEX => Points::Index,
            // Without a media type it is a manifest, as skopeo of 2018 wrote it.
            OCI_MANIFEST | DOCKER_MANIFEST | "" => Points::Manifest,
            _ => continue,
        };
        let blob = descriptor(what, &entry)?;
        let notes = &entry.annotations;
        let names = [notes.containerd, notes.ref_name].map(text).into_iter().filter(|name| !name.is_empty()).collect();
        let RawPlatform { architecture, os, variant } = entry.platform;
        let architecture = text(architecture);
        let unknown = &*architecture == "unknown";
        let platform =
            (!architecture.is_empty()).then(|| Platform { os: text(os), architecture, variant: text(variant) });
        let artifact = notes.docker_reference.is_some() || unknown || !text(entry.artifact_type).is_empty();
        index.push(IndexEntry { blob, points, platform, names, artifact });
    }
    Ok(index)
}

/// Reads an OCI or docker (schema 2) manifest.
pub fn parse_manifest(bytes: &[u8]) -> Result<Manifest, ImageError> {
    let what = "the manifest";
    let raw = document(what, bytes)?;
    check_type(what, raw.media_type, [OCI_MANIFEST, DOCKER_MANIFEST])?;
    let config = need(what, "config", raw.config)?;
    let kind = text(config.media_type);
    if !matches!(&*kind, OCI_CONFIG | DOCKER_CONFIG) {
        let found = Escaped(&kind);
        return Err(ImageError::invalid(&format_args!(
            "the manifest's config is a \"{found}\": an artifact, no image that runs"
        )));
    }
    let mut layers = Vec::new();
    for layer in &raw.layers.unwrap_or_default().0 {
        let kind = text(layer.media_type);
        if !is_layer(&kind) {
            let found = Escaped(&kind);
            return Err(ImageError::invalid(&format_args!(
                "layer {} is a \"{found}\", must be a tar",
                layers.len() + 1
            )));
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

/// Reads docker's `manifest.json`.
pub fn parse_docker_manifest(bytes: &[u8]) -> Result<Vec<DockerImage>, ImageError> {
    let what = "manifest.json";
    let List(images): List<RawDockerImage<'_>, DOCKER_IMAGES> = parse(what, bytes)?;
    let image = |raw: RawDockerImage<'_>| {
        let config = text(Some(need(what, "Config", raw.config)?));
        Ok(DockerImage { config, names: texts(&raw.repo_tags), layers: texts(&raw.layers) })
    };
    images.into_iter().map(image).collect()
}

/// Checks an `oci-layout` file (OCI image-spec, image-layout.md).
pub fn check_layout(bytes: &[u8]) -> Result<(), ImageError> {
    let raw: RawLayout<'_> = parse("oci-layout", bytes)?;
    match &*text(raw.version) {
        "1.0.0" => Ok(()),
        other => Err(ImageError::invalid(&format_args!(
            "oci-layout is of version \"{}\", must be \"1.0.0\"",
            Escaped(other)
        ))),
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
