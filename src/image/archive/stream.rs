//! An archive that is compressed as a whole: read once from front to back.
//!
//! A layer may come before the manifest that names it. It is unpacked as it comes, into the staging folder, and what no
//! manifest names is removed with that folder: one copy on disk, a few kilobytes of documents in memory.
#![forbid(unsafe_code)]

use super::members::too_large;
use super::names::{self, Names, Target};
use super::shape::normal;
use super::sink::{Done, Sink};
use super::{Blobs, unreadable};
use crate::base::escaped::Escaped;
use crate::base::read::read_up_to;
use crate::base::units::Bytes;
use crate::image::ImageError;
use crate::image::decompress::{Decoder, Wanted};
use crate::image::tar::{Kind, Reader};
use crate::plan::device::ImageCaps;
use std::fs::File;
use std::io::Read;

/// All documents together, in documents of the largest size.
const DOCUMENTS: u64 = 16;

enum Member {
    Document(Vec<u8>),
    /// Above the cap, and no layer by its first bytes.
    Large(u64),
    Layer(Box<Done>, u64),
    /// It could not be unpacked; that matters if a manifest names it.
    Broken(ImageError, u64),
}

/// What was read.
pub struct Stream {
    names: Names,
    members: Vec<Member>,
    cap: Bytes,
}

impl Stream {
    /// Reads `file` to its end, unpacking what may be a layer; without a sink, keeping its size alone.
    pub fn read(file: &File, caps: &ImageCaps, mut sink: Option<&mut Sink<'_>>) -> Result<Stream, ImageError> {
        let nothing = Wanted { stored: false, content: false };
        let mut decoder = Decoder::new(file, caps, 0, nothing).map_err(|error| unreadable(error.into()))?;
        let mut reader = Reader::new(&mut decoder, caps.pax.0);
        let (mut names, mut members) = (Names::default(), Vec::new());
        let mut documents = 0u64;
        while let Some(entry) = reader.next_entry().map_err(|error| ImageError::invalid(&error))? {
            let Some(name) = normal(&entry.path) else { continue };
            if let Some(target) = names::target(&name, &entry.kind) {
                names.add(name, Target::Link(target))?;
            } else if entry.kind == Kind::File {
                names.add(name, Target::Member(members.len()))?;
                let member = content(&mut reader, entry.size, caps, sink.as_deref_mut())?;
                if let Member::Document(bytes) = &member {
                    documents = documents.saturating_add(bytes.len() as u64);
                }
                members.push(member);
            }
            if documents > caps.manifest.0.saturating_mul(DOCUMENTS) {
                return Err(ImageError::invalid(&"holds too many documents for an image archive"));
            }
        }
        reader.finish();
        decoder.finish().map_err(|error| unreadable(error.into()))?;
        Ok(Stream { names, members, cap: caps.manifest })
    }

    /// Whether it is an image at all.
    pub fn has_manifest(&self) -> bool {
        self.names.has_manifest()
    }

    fn find(&self, name: &str) -> Option<&Member> {
        self.members.get(self.names.find(name)?)
    }
}

/// Takes one member in: a layer if it can be one, else a document.
fn content(
    reader: &mut Reader<'_>,
    size: u64,
    caps: &ImageCaps,
    sink: Option<&mut Sink<'_>>,
) -> Result<Member, ImageError> {
    let mut data = reader.data();
    let mut head = read_up_to(&mut data, 512).map_err(unreadable)?;
    if is_layer(&head) {
        let Some(sink) = sink else { return Ok(Member::Large(size)) };
        return match sink.unpack(&mut head.chain(data)) {
            Ok(done) => Ok(Member::Layer(Box::new(done), size)),
            Err(error) if error.kind() == crate::image::Kind::Failed => Err(error),
            Err(error) => Ok(Member::Broken(error, size)),
        };
    }
    if size > caps.manifest.0 {
        return Ok(Member::Large(size));
    }
    head.extend(read_up_to(&mut data, size).map_err(unreadable)?);
    Ok(Member::Document(head))
}

/// Whether a member begins as a layer does: compressed, or with a whole tar header. A document begins with a bracket.
fn is_layer(head: &[u8]) -> bool {
    let compressed = head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    compressed || (head.len() == 512 && !matches!(head.first(), Some(b'{' | b'[')))
}

impl Blobs for Stream {
    fn document(&mut self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        match self.find(name) {
            Some(Member::Document(bytes)) => Ok(Some(bytes.clone())),
            Some(Member::Large(size)) => Err(too_large(name, *size, self.cap)),
            Some(Member::Broken(..) | Member::Layer(..)) => {
                Err(ImageError::invalid(&format_args!("{} is no JSON", Escaped(name))))
            }
            _ => Ok(None),
        }
    }

    fn size(&mut self, name: &str) -> Result<Option<u64>, ImageError> {
        Ok(match self.find(name) {
            Some(Member::Layer(_, size) | Member::Broken(_, size) | Member::Large(size)) => Some(*size),
            Some(Member::Document(bytes)) => Some(bytes.len() as u64),
            _ => None,
        })
    }

    fn layer(&mut self, name: &str, _: &mut Sink<'_>) -> Result<Done, ImageError> {
        match self.find(name) {
            Some(Member::Layer(done, _)) => Ok((**done).clone()),
            Some(Member::Broken(error, _)) => Err(error.clone()),
            Some(_) => Err(ImageError::invalid(&"is no tar archive")),
            None => Err(ImageError::invalid(&"is missing")),
        }
    }
}
