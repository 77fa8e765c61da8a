//! Members that can be read from their place: of an archive that is not compressed as a whole, and of a layout folder.
#![forbid(unsafe_code)]

use super::shape::normal;
use super::sink::{Done, Sink};
use super::{Blobs, unreadable};
use crate::base::units::Bytes;
use crate::image::ImageError;
use crate::image::tar::{Kind, Reader};
use crate::plan::device::ImageCaps;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Members of one image archive: 127 layers of the oldest format have four each, a multi-platform archive some hundreds.
const MEMBERS: usize = 4096;
/// Links between members that are followed: docker wrote one.
const LINKS: usize = 8;

enum Member {
    Data { offset: u64, size: u64 },
    Link(String),
}

/// The members of a plain archive.
pub struct Members<'a> {
    file: &'a File,
    cap: Bytes,
    members: BTreeMap<String, Member>,
}

impl<'a> Members<'a> {
    /// Reads the headers, seeking over the data.
    pub fn index(file: &'a File, caps: &ImageCaps) -> Result<Members<'a>, ImageError> {
        let end = file.metadata().map_err(unreadable)?.size();
        let mut members = BTreeMap::new();
        let mut offset = 0;
        while offset < end {
            let place = Section { file, offset, end };
            let mut reader = Reader::new(BufReader::with_capacity(2048, place), caps.pax.0);
            let failed =
                |error| ImageError::invalid(format!("{error} (the archive begins {offset} bytes into the file)"));
            let Some(entry) = reader.next_entry().map_err(failed)? else { break };
            let data = offset.saturating_add(entry.data_offset);
            let size = entry.size;
            offset = data.saturating_add(size.div_ceil(512).saturating_mul(512));
            let Some(name) = normal(&entry.path) else { continue };
            let member = match entry.kind {
                Kind::File if data.saturating_add(size) > end => {
                    let missing = data.saturating_add(size) - end;
                    let name = name.escape_debug();
                    return Err(ImageError::invalid(format!(
                        "is cut short within {name}: {missing} bytes are missing; copy it again"
                    )));
                }
                Kind::File => Member::Data { offset: data, size },
                Kind::Symlink(target) => match link(&name, &target) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                Kind::HardLink(target) => match normal(&target) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            if members.len() == MEMBERS {
                return Err(ImageError::invalid(format!(
                    "holds more than {MEMBERS} members, too many for an image archive"
                )));
            }
            if members.insert(name.clone(), member).is_some() {
                let name = name.escape_debug();
                return Err(ImageError::invalid(format!(
                    "holds two members called {name}; which one counts is not clear"
                )));
            }
        }
        Ok(Members { file, cap: caps.manifest, members })
    }

    /// Whether it is an image at all.
    pub fn has_manifest(&self) -> bool {
        let has = |name| self.members.contains_key(name);
        has("manifest.json") || (has("oci-layout") && has("index.json"))
    }

    fn find(&self, name: &str) -> Option<Section<'a>> {
        let mut name = normal(name.as_bytes())?;
        for _ in 0..LINKS {
            match self.members.get(&name)? {
                Member::Data { offset, size } => {
                    return Some(Section { file: self.file, offset: *offset, end: offset.saturating_add(*size) });
                }
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

/// The name that a symbolic link called `name` stands for, within the archive.
pub fn link(name: &str, target: &[u8]) -> Option<String> {
    let target = core::str::from_utf8(target).ok()?;
    let mut parts: Vec<&str> = match target.starts_with('/') {
        true => Vec::new(),
        false => name.rsplit_once('/').map_or("", |(folder, _)| folder).split('/').collect(),
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    normal(parts.join("/").as_bytes())
}

impl Blobs for Members<'_> {
    fn document(&mut self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        self.find(name).map(|section| document(name, section.end - section.offset, section, self.cap)).transpose()
    }

    fn size(&mut self, name: &str) -> Result<Option<u64>, ImageError> {
        Ok(self.find(name).map(|section| section.end - section.offset))
    }

    fn layer(&mut self, name: &str, sink: &mut Sink<'_>) -> Result<Done, ImageError> {
        let mut section = self.find(name).ok_or_else(|| ImageError::invalid("is missing"))?;
        sink.unpack(&mut section)
    }
}

/// Reads a small member whole.
fn document(name: &str, size: u64, source: impl Read, cap: Bytes) -> Result<Vec<u8>, ImageError> {
    if size > cap.0 {
        return Err(too_large(name, size, cap));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    source.take(size).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(ImageError::invalid(format!("is cut short within {}; copy it again", name.escape_debug()))),
    }
}

/// The error for a document above the cap.
pub fn too_large(name: &str, size: u64, cap: Bytes) -> ImageError {
    let (name, size) = (name.escape_debug(), Bytes(size));
    ImageError::invalid(format!(
        "{name} has {size}, more than the cap of {cap} (manifest); raise the cap if the image is yours"
    ))
}

/// A part of a file, read without moving the file's position.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let length = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// An OCI layout folder.
pub struct Layout {
    folder: OwnedFd,
    cap: Bytes,
}

impl Layout {
    /// The layout in `folder`; documents have at most `cap` bytes.
    pub fn new(folder: OwnedFd, cap: Bytes) -> Layout {
        Layout { folder, cap }
    }

    /// Opens a regular file of the folder; a link anywhere on the way is as good as nothing.
    fn open(&self, name: &str) -> Result<Option<(File, u64)>, ImageError> {
        let failed = |errno: nix::errno::Errno| {
            ImageError::failed(format!("cannot open {}: {}", name.escape_debug(), errno.desc()))
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let mut folder = self.folder.try_clone().map_err(unreadable)?;
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, "" | "." | "..") {
                return Ok(None);
            }
            let kind = if parts.peek().is_some() { OFlag::O_DIRECTORY } else { OFlag::empty() };
            folder = match openat(&folder, part, flags | kind, Mode::empty()) {
                Ok(next) => next,
                Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ELOOP | nix::errno::Errno::ENOTDIR) => {
                    return Ok(None);
                }
                Err(errno) => return Err(failed(errno)),
            };
        }
        let file = File::from(folder);
        let meta = file.metadata().map_err(unreadable)?;
        Ok(meta.is_file().then(|| (file, meta.size())))
    }
}

impl Blobs for Layout {
    fn document(&mut self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        self.open(name)?.map(|(file, size)| document(name, size, file, self.cap)).transpose()
    }

    fn size(&mut self, name: &str) -> Result<Option<u64>, ImageError> {
        Ok(self.open(name)?.map(|(_, size)| size))
    }

    fn layer(&mut self, name: &str, sink: &mut Sink<'_>) -> Result<Done, ImageError> {
        let (mut file, _) = self.open(name)?.ok_or_else(|| ImageError::invalid("is missing"))?;
        sink.unpack(&mut file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_between_members_stay_in_the_archive() {
        assert_eq!(link("a/layer.tar", b"../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(link("a", b"b").as_deref(), Some("b"));
        assert_eq!(link("a/x", b"/b/y").as_deref(), Some("b/y"));
        assert_eq!(link("a/x", b"../../../etc/shadow"), None);
    }
}
