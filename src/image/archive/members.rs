//! Members that can be read from their place: of an archive that is not compressed as a whole, and of a layout folder.
#![forbid(unsafe_code)]

use super::names::{self, Names, Target};
use super::shape::normal;
use super::sink::{Done, Sink};
use super::{Blobs, unreadable};
use crate::base::escaped::Escaped;
use crate::base::read::{ReadBytes, read_up_to};
use crate::base::units::Bytes;
use crate::image::ImageError;
use crate::image::tar::{Kind, Reader};
use crate::plan::device::ImageCaps;
use crate::sys::meaning;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

/// The members of a plain archive.
pub struct Members<'a> {
    cap: Bytes,
    names: Names,
    members: Vec<Section<'a>>,
}

impl<'a> Members<'a> {
    /// Reads the headers, seeking over the data.
    pub fn index(file: &'a File, caps: &ImageCaps) -> Result<Members<'a>, ImageError> {
        let end = file.metadata().map_err(unreadable)?.size();
        let (mut names, mut members) = (Names::default(), Vec::new());
        let mut offset = 0;
        while offset < end {
            let place = Section { file, offset, end };
            let mut reader = Reader::new(BufReader::with_capacity(2048, place), caps.pax.0);
            let failed =
                |error| ImageError::invalid(&format_args!("{error} (the archive begins {offset} bytes into the file)"));
            let Some(entry) = reader.next_entry().map_err(failed)? else { break };
            let data = offset.saturating_add(entry.data_offset);
            let size = entry.size;
            offset = data.saturating_add(size.div_ceil(512).saturating_mul(512));
            let Some(name) = normal(&entry.path) else { continue };
            if let Some(target) = names::target(&name, &entry.kind) {
                names.add(name, Target::Link(target))?;
            } else if entry.kind == Kind::File {
                let section = Section { file, offset: data, end: data.saturating_add(size) };
                if section.end > end {
                    let name = Escaped(&name);
                    let missing = section.end - end;
                    return Err(ImageError::invalid(&format_args!(
                        "is cut short within {name}: {missing} bytes are missing; copy it again"
                    )));
                }
                names.add(name, Target::Member(members.len()))?;
                members.push(section);
            }
        }
        Ok(Members { cap: caps.manifest, names, members })
    }

    /// Whether it is an image at all.
    pub fn has_manifest(&self) -> bool {
        self.names.has_manifest()
    }

    fn find(&self, name: &str) -> Option<Section<'a>> {
        self.members.get(self.names.find(name)?).copied()
    }
}

impl Blobs for Members<'_> {
    fn document(&mut self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        self.find(name)
            .map(|mut section| document(name, section.end - section.offset, &mut section, self.cap))
            .transpose()
    }

    fn size(&mut self, name: &str) -> Result<Option<u64>, ImageError> {
        Ok(self.find(name).map(|section| section.end - section.offset))
    }

    fn layer(&mut self, name: &str, sink: &mut Sink<'_>) -> Result<Done, ImageError> {
        let mut section = self.find(name).ok_or_else(|| ImageError::invalid(&"is missing"))?;
        sink.unpack(&mut section)
    }
}

/// Reads a small member whole.
fn document(name: &str, size: u64, source: &mut dyn ReadBytes, cap: Bytes) -> Result<Vec<u8>, ImageError> {
    if size > cap.0 {
        return Err(too_large(name, size, cap));
    }
    let bytes = read_up_to(source, size).map_err(unreadable)?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(ImageError::invalid(&format_args!("is cut short within {}; copy it again", Escaped(name)))),
    }
}

/// The error for a document above the cap.
pub fn too_large(name: &str, size: u64, cap: Bytes) -> ImageError {
    let (name, size) = (Escaped(name), Bytes(size));
    ImageError::invalid(&format_args!(
        "{name} has {size}, more than the cap of {cap} (manifest); raise the cap if the image is yours"
    ))
}

/// A part of a file, read without moving the file's position.
#[derive(Clone, Copy)]
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
            ImageError::failed(&format_args!("cannot open {}: {}", Escaped(name), meaning(errno)))
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
        self.open(name)?.map(|(mut file, size)| document(name, size, &mut file, self.cap)).transpose()
    }

    fn size(&mut self, name: &str) -> Result<Option<u64>, ImageError> {
        Ok(self.open(name)?.map(|(_, size)| size))
    }

    fn layer(&mut self, name: &str, sink: &mut Sink<'_>) -> Result<Done, ImageError> {
        let (mut file, _) = self.open(name)?.ok_or_else(|| ImageError::invalid(&"is missing"))?;
        sink.unpack(&mut file)
    }
}
