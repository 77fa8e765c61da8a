//! Whiteouts: how a layer says that something of a lower layer is gone.
//!
//! OCI image specification, layer.md, "Whiteouts": `.wh.NAME` hides NAME of the lower layers, `.wh..wh..opq` hides all
//! that lower layers have in its directory; neither hides anything of its own layer, whatever the order.
#![forbid(unsafe_code)]

/// What a file name means in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// An ordinary name.
    Plain,
    /// Hides this name of the lower layers.
    Hides(&'a [u8]),
    /// Hides everything that lower layers have in the same directory.
    Opaque,
    /// Bookkeeping of the aufs file system (`.wh..wh.plnk` and others): no part of the image.
    Metadata,
    /// A whiteout of nothing, of `.` or of `..`.
    Bad,
}

/// Says what the file name `name` (one path component) means.
pub fn classify(name: &[u8]) -> Name<'_> {
    match name.strip_prefix(b".wh.") {
        None => Name::Plain,
        Some(b"" | b"." | b"..") => Name::Bad,
        Some(b".wh..opq") => Name::Opaque,
        Some(hidden) if hidden.starts_with(b".wh.") => Name::Metadata,
        Some(hidden) => Name::Hides(hidden),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_are_told_from_names() {
        for (name, meaning) in [
            (&b"file"[..], Name::Plain),
            (b".wh", Name::Plain),
            (b".why", Name::Plain),
            (b"x.wh.y", Name::Plain),
            (b".wh.file", Name::Hides(b"file")),
            (b".wh..hidden", Name::Hides(b".hidden")),
            (b".wh....", Name::Hides(b"...")),
            (b".wh..wh..opq", Name::Opaque),
            (b".wh..wh.plnk", Name::Metadata),
            (b".wh..wh.", Name::Metadata),
            (b".wh.", Name::Bad),
            (b".wh..", Name::Bad),
            (b".wh...", Name::Bad),
        ] {
            assert_eq!(classify(name), meaning, "{}", name.escape_ascii());
        }
    }
}
