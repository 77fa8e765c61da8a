//! Image archive or rootfs tarball: told by the first member that is no directory, without reading further.
#![forbid(unsafe_code)]

use super::{rewound, unreadable};
use crate::image::ImageError;
use crate::image::decompress::{Compression, Decoder, Wanted};
use crate::image::digest::Digest;
use crate::image::tar::{Kind, Reader};
use crate::plan::device::ImageCaps;
use std::fs::File;

/// What the first members look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Members as image archives have them. There may still be no manifest.
    Image,
    /// Files of a root file system.
    Rootfs,
}

/// Looks at the beginning of an archive, which may be compressed as a whole.
pub fn probe(file: &File, caps: &ImageCaps) -> Result<(Shape, Compression), ImageError> {
    let nothing = Wanted { stored: false, content: false };
    let mut decoder = Decoder::new(rewound(file)?, caps, 0, nothing).map_err(|error| unreadable(error.into()))?;
    let compression = decoder.compression();
    let mut reader = Reader::new(&mut decoder, caps.pax.0);
    let mut seen = 0u32;
    while let Some(entry) = reader.next_entry().map_err(|error| not_an_archive(&error, seen))? {
        seen += 1;
        if entry.kind != Kind::Directory {
            return Ok((of(&normal(&entry.path).unwrap_or_default()), compression));
        }
        if seen > caps.entries {
            break;
        }
    }
    Ok((Shape::Rootfs, compression))
}

fn not_an_archive(error: &crate::image::tar::TarError, seen: u32) -> ImageError {
    match seen {
        0 => ImageError::invalid(&format_args!(
            "is no image: neither a tar archive (plain, gzip or zstd) nor a folder ({error})"
        )),
        _ => ImageError::invalid(&error),
    }
}

/// A member's name without `./` and slashes at either end; `None` if it is not UTF-8.
pub fn normal(path: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(path).ok()?;
    let parts = text.split('/').filter(|part| !matches!(*part, "" | "."));
    Some(parts.collect::<Vec<_>>().join("/"))
}

fn of(name: &str) -> Shape {
    let endings = [".json", ".tar", ".tar.gz", ".tgz", ".tar.zst"];
    let image = match name.split_once('/') {
        None => {
            matches!(name, "repositories" | "oci-layout")
                || endings.iter().any(|ending| name.ends_with(ending))
                || Digest::parse_hex(name).is_some()
                || Digest::parse(name).is_some()
        }
        Some(("blobs", _)) => true,
        Some((_, last)) => matches!(last, "layer.tar" | "json" | "VERSION"),
    };
    if image { Shape::Image } else { Shape::Rootfs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_tell_images_from_root_file_systems() {
        let hex = "ab".repeat(32);
        for name in
            ["manifest.json", "blobs/sha256/x", "oci-layout", &format!("{hex}/layer.tar"), &format!("{hex}.tar"), &hex]
        {
            assert_eq!(of(name), Shape::Image, "{name}");
        }
        for name in [".dockerenv", "bin", "bin/sh", "etc/json/x", "usr/lib/layer.tar"] {
            assert_eq!(of(name), Shape::Rootfs, "{name}");
        }
    }

    #[test]
    fn names_are_compared_without_dots_and_slashes() {
        assert_eq!(normal(b"./a//b/").as_deref(), Some("a/b"));
        assert_eq!(normal(b"/a").as_deref(), Some("a"));
        assert_eq!(normal(b"\xff"), None);
    }
}
