//! Why a layer cannot be unpacked, in sentences.

use crate::base::units::Bytes;
use crate::image::tar::{TarError, printable};
use crate::sys::Errno;
use core::fmt;

/// Why a layer cannot be unpacked. The `Display` form names the entry; the caller adds file and layer.
#[derive(Debug)]
pub struct LayerError {
    /// The entry's name, control characters escaped; empty if it is in `problem` already.
    pub entry: Box<str>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a layer.
#[derive(Debug)]
pub enum Problem {
    /// The archive cannot be read.
    Tar(Box<TarError>),
    /// More entries than the cap.
    Entries(u32),
    /// More bytes of files than the cap.
    TooLarge(Bytes),
    /// More path components than the cap.
    Depth(u16),
    /// The name has a component `..`.
    DotDot,
    /// The root of the layer is something else than a directory.
    Root,
    /// Something that the path leads through is no directory.
    NotDirectory(Box<str>),
    /// The path leads through too many symbolic links, or too deep.
    Loop,
    /// A whiteout of nothing, of `.` or of `..`, or one that is no plain file, or one with entries beneath.
    Whiteout,
    /// A character device 0:0, which overlayfs takes for a whiteout.
    OverlaySmuggling,
    /// A device node or named pipe, where the policy refuses them.
    Node,
    /// A hard link whose target is not in this layer (yet).
    LinkTarget(Box<str>),
    /// The disk is full (ENOSPC) or the quota used up (EDQUOT).
    NoSpace,
    /// A system call failed.
    Os(&'static str, Errno),
}

impl LayerError {
    pub(super) fn new(entry: &[u8], problem: Problem) -> LayerError {
        match problem {
            Problem::Tar(_) => LayerError { entry: Box::default(), problem },
            problem => LayerError { entry: printable(entry), problem },
        }
    }

    pub(super) fn tar(error: TarError) -> LayerError {
        LayerError { entry: Box::default(), problem: error.into() }
    }
}

impl From<TarError> for Problem {
    fn from(error: TarError) -> Problem {
        Problem::Tar(Box::new(error))
    }
}

/// The problem of a failed `call`.
pub(super) fn os(call: &'static str) -> impl FnOnce(nix::errno::Errno) -> Problem {
    move |errno| Problem::from_errno(call, errno.into())
}

impl Problem {
    pub(super) fn from_errno(call: &'static str, errno: Errno) -> Problem {
        match errno.0 {
            libc::ENOSPC | libc::EDQUOT => Problem::NoSpace,
            _ => Problem::Os(call, errno),
        }
    }
}

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.entry {
            "" => write!(f, "{}", self.problem),
            entry => write!(f, "entry {entry:?}: {}", self.problem),
        }
    }
}

impl std::error::Error for LayerError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Tar(error) => write!(f, "{error}"),
            Problem::Entries(cap) => {
                write!(f, "the image has more than {cap} entries (entries); raise the cap if the image is yours")
            }
            Problem::TooLarge(cap) => {
                write!(f, "the image's files exceed the cap of {cap} (bytes); raise the cap if the image is yours")
            }
            Problem::Depth(cap) => write!(f, "its path has more than {cap} components (path_depth)"),
            Problem::DotDot => f.write_str("its path has a component '..'; an image has no use for that"),
            Problem::Root => f.write_str("it would replace the root directory by something else"),
            Problem::NotDirectory(what) => write!(f, "{what:?} on the way to it is no directory"),
            Problem::Loop => f.write_str("its path leads through too many symbolic links or directories"),
            Problem::Whiteout => f.write_str("it is no valid whiteout ('.wh.' and a name, an empty file)"),
            Problem::OverlaySmuggling => f.write_str(
                "a character device 0:0 is overlayfs's own mark for deleted files; an image must not hold one",
            ),
            Problem::Node => f.write_str("device nodes and named pipes are refused here"),
            Problem::LinkTarget(target) => {
                write!(f, "it is a hard link to {target:?}, which is no file of this layer before it")
            }
            Problem::NoSpace => f.write_str("no space is left on the device; free some, or use a smaller image"),
            Problem::Os(call, errno) => write!(f, "{call}: {errno}"),
        }
    }
}
