//! What went wrong with an image.
#![forbid(unsafe_code)]

use core::fmt;

/// Whose fault it is; the command line makes an exit code of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The image (or the name it was asked for by) is at fault.
    Invalid,
    /// The machine is: no space, no permission, a worker that was killed.
    Failed,
}

/// An error: one sentence that names the file and, where known, the layer and the entry. A pointer, because every `?` on
/// its way up copies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageError(Box<(Kind, Box<str>)>);

impl ImageError {
    /// The error of `kind` that `text` says.
    #[inline(never)]
    pub fn new(kind: Kind, text: &dyn fmt::Display) -> ImageError {
        ImageError(Box::new((kind, text.to_string().into())))
    }

    /// The image is at fault.
    pub fn invalid(text: &dyn fmt::Display) -> ImageError {
        ImageError::new(Kind::Invalid, text)
    }

    /// The machine is at fault.
    pub fn failed(text: &dyn fmt::Display) -> ImageError {
        ImageError::new(Kind::Failed, text)
    }

    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        self.0.0
    }

    /// The sentence.
    pub fn text(&self) -> &str {
        &self.0.1
    }

    /// The same error with `place` and a colon before its sentence.
    pub fn at(self, place: &dyn fmt::Display) -> ImageError {
        ImageError::new(self.kind(), &format_args!("{place}: {}", self.text()))
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for ImageError {}
