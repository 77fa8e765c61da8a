//! Unpacks one layer's tar into a directory that nothing else uses yet.
//!
//! An archive is hostile until proved otherwise: every name is resolved by file descriptor inside the directory, every
//! file is made anew (`O_EXCL`), nothing is ever written, chowned or chmodded through a link, and what could raise
//! privileges or steer overlayfs is dropped and counted or refused.

mod entry;
mod error;
mod marks;
mod path;
mod times;

pub use error::{LayerError, Problem};
pub use marks::{Ledger, Marked};

use super::tar::Reader;
use crate::plan::device::ImageCaps;
use marks::Marks;
use path::Root;
use std::io::BufRead;
use std::os::fd::BorrowedFd;
use times::Times;

/// How to unpack.
#[derive(Debug, Clone, Copy)]
pub struct LayerOptions {
    /// Caps of the whole image.
    pub caps: ImageCaps,
    /// What the image's other layers took of the caps already.
    pub used: Used,
    /// What the directory is for.
    pub mode: Mode,
    /// What to do with device nodes.
    pub devices: NodePolicy,
    /// What to do with named pipes.
    pub fifos: NodePolicy,
    /// Whether files get the owners that the archive names; needs CAP_CHOWN. Without it all belong to the caller.
    pub owners: bool,
    /// Whether to use openat2(2), Linux 5.6; where the kernel lacks it, the walk that replaces it is used anyway.
    pub openat2: bool,
}

/// What the directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A lower directory of overlayfs: whiteouts become character devices 0:0 and `trusted.overlay.opaque`.
    Overlay,
    /// A root file system of its own: there is nothing below that a whiteout could hide, so they are only counted.
    Rootfs,
}

/// What to do with entries of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePolicy {
    /// Make them.
    Keep,
    /// Leave them out and count them.
    Skip,
    /// Refuse the layer.
    Refuse,
}

/// What was taken of an image's caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Bytes of files, holes included.
    pub bytes: u64,
    /// Entries.
    pub entries: u32,
}

impl Default for LayerOptions {
    fn default() -> Self {
        LayerOptions {
            caps: ImageCaps::default(),
            used: Used::default(),
            mode: Mode::Overlay,
            devices: NodePolicy::Skip,
            fifos: NodePolicy::Keep,
            owners: true,
            openat2: true,
        }
    }
}

/// What was unpacked, and what was left out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerReport {
    /// Entries of the archive.
    pub entries: u32,
    /// Bytes of its files, holes included.
    pub bytes: u64,
    /// Whiteouts and opaque directories.
    pub whiteouts: u32,
    /// Whether the layer hides all layers below it: overlayfs does not look for that mark on a layer's root.
    pub opaque_root: bool,
    /// Programs that lost their setuid bit.
    pub setuid_dropped: u32,
    /// Programs that lost their setgid bit. Directories keep theirs: it only passes on the group.
    pub setgid_dropped: u32,
    /// Programs that lost their file capabilities.
    pub filecaps_dropped: u32,
    /// Other extended attributes left out: of overlayfs, of the host's security modules, or not supported here.
    pub xattrs_dropped: u32,
    /// Device nodes left out.
    pub devices_skipped: u32,
    /// Named pipes left out.
    pub fifos_skipped: u32,
    /// Entries without a file: aufs bookkeeping, volume labels, global headers.
    pub ignored: u32,
    /// Directories whose time was not set, because their names exceed the memory set aside for them.
    pub times_dropped: u32,
}

/// Unpacks the archive in `source` up to its end marker into the empty directory `dir`.
///
/// On an error the directory holds a part of the layer; the caller removes it. Nothing outside it was touched.
pub fn unpack(source: impl BufRead, dir: BorrowedFd<'_>, options: &LayerOptions) -> Result<LayerReport, LayerError> {
    let marks = Marks::OnFiles { owners: options.owners };
    work(source, dir, options, marks).map(|(report, _)| report)
}

/// The same for a user without privileges: the files belong to the caller, and what they should have had is in the
/// ledger, whiteouts among it.
pub fn unpack_unmarked(
    source: impl BufRead,
    dir: BorrowedFd<'_>,
    options: &LayerOptions,
) -> Result<(LayerReport, Ledger), LayerError> {
    let (report, marks) = work(source, dir, options, Marks::InMemory(Ledger::default()))?;
    Ok((report, marks.into_ledger().unwrap_or_default()))
}

fn work(
    source: impl BufRead,
    dir: BorrowedFd<'_>,
    options: &LayerOptions,
    marks: Marks,
) -> Result<(LayerReport, Marks), LayerError> {
    let mut reader = Reader::new(source, options.caps.pax.0);
    let mut root = Root::new(dir, options, marks);
    // Most archives do not list their root.
    root.marks.made(dir).map_err(|problem| LayerError::new(b"", problem))?;
    let mut unpacker = Unpacker { root, options, report: LayerReport::default(), times: Times::default() };
    loop {
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => return Err(LayerError::tar(error)),
        };
        unpacker.entry(&entry, &mut reader).map_err(|problem| LayerError::new(&entry.path, problem))?;
    }
    unpacker.report.ignored += reader.ignored();
    unpacker.directory_times()?;
    Ok((unpacker.report, unpacker.root.marks))
}

/// The state of one unpacking.
struct Unpacker<'a> {
    root: Root<'a>,
    options: &'a LayerOptions,
    report: LayerReport,
    times: Times,
}
