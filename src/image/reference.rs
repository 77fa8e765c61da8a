//! Which image is meant: a file, and which of the images in it.
#![forbid(unsafe_code)]

use super::digest::Digest;
use core::fmt;
use std::path::{Path, PathBuf};

/// Longest reference in bytes: a path (PATH_MAX 4096) and a name.
const REFERENCE_BYTES: usize = 4096 + 512;

/// `FILE`, `FILE#name:tag` or `FILE#sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The file or folder: absolute, or relative to the image folders.
    pub file: Box<str>,
    /// Which image in it.
    pub select: Select,
}

/// Which of the images in an archive is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// The only one.
    Only,
    /// The one of this name, `app:1.2`; without a tag `latest` is meant.
    Name(Box<str>),
    /// The one whose config or manifest has this digest.
    Digest(Digest),
}

/// Why a text is no [`Reference`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadReference {
    /// No file before the `#`, or no text at all.
    NoFile,
    /// Longer than a path and a name can be.
    TooLong,
    /// A relative path with a `..` in it.
    Upwards,
    /// Nothing behind the `#`.
    NoName,
    /// `#sha256:` is not followed by 64 lower-case hex digits.
    BadDigest,
    /// A NUL or another control character.
    Control,
}

impl fmt::Display for BadReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadReference::NoFile => "an image is named by its file, for example \"app.tar\" or \"app.tar#app:1.2\"",
            BadReference::TooLong => "an image's file and name have at most 4608 bytes together",
            BadReference::Upwards => "a file in the image folders cannot be named with '..'; write its absolute path",
            BadReference::NoName => {
                "after '#' comes the image's name:tag or sha256:…; leave the '#' out if there is one image"
            }
            BadReference::BadDigest => "after '#sha256:' come 64 digits of 0-9 and a-f",
            BadReference::Control => "an image's file and name hold no control characters",
        })
    }
}

/// Where an image's file was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The first hit.
    pub path: PathBuf,
    /// Files of the same name in later folders, which the first one hides.
    pub shadowed: Vec<PathBuf>,
}

impl Reference {
    /// Reads a reference as the config and the command line write it.
    pub fn parse(text: &str) -> Result<Reference, BadReference> {
        if text.len() > REFERENCE_BYTES {
            return Err(BadReference::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(BadReference::Control);
        }
        let (file, name) = match text.rsplit_once('#') {
            Some((file, name)) => (file, Some(name)),
            None => (text, None),
        };
        if file.is_empty() {
            return Err(BadReference::NoFile);
        }
        if !file.starts_with('/') && file.split('/').any(|part| part == "..") {
            return Err(BadReference::Upwards);
        }
        let select = match name {
            None => Select::Only,
            Some("") => return Err(BadReference::NoName),
            Some(name) if name.starts_with("sha256:") => {
                Select::Digest(Digest::parse(name).ok_or(BadReference::BadDigest)?)
            }
            Some(name) => Select::Name(name.into()),
        };
        Ok(Reference { file: file.into(), select })
    }

    /// The paths the file may have, best first.
    pub fn candidates(&self, folders: &[Box<str>]) -> Vec<PathBuf> {
        match self.file.starts_with('/') {
            true => vec![PathBuf::from(&*self.file)],
            false => folders.iter().map(|folder| Path::new(&**folder).join(&*self.file)).collect(),
        }
    }

    /// Looks in the folders in order, with `exists` to ask the file system.
    pub fn find(&self, folders: &[Box<str>], exists: impl Fn(&Path) -> bool) -> Option<Found> {
        let mut hits = self.candidates(folders).into_iter().filter(|path| exists(path));
        let path = hits.next()?;
        Some(Found { path, shadowed: hits.collect() })
    }

    /// The same image by the absolute path of its file.
    pub fn located_at(&self, path: &Path) -> Reference {
        Reference { file: path.to_string_lossy().into(), select: self.select.clone() }
    }
}

impl Select {
    /// Whether one of an image's `names` (`docker.io/library/app:1.2`) or `digests` is meant.
    pub fn accepts<'a>(&self, mut names: impl Iterator<Item = &'a str>, digests: &[Digest]) -> bool {
        match self {
            Select::Only => true,
            Select::Digest(digest) => digests.contains(digest),
            Select::Name(wanted) => names.any(|name| same_name(wanted, name)),
        }
    }
}

/// Whether two image names mean the same: `app` is `app:latest` is `docker.io/library/app:latest` is `localhost/app:latest`.
fn same_name(a: &str, b: &str) -> bool {
    fn parts(name: &str) -> (&str, &str) {
        let after_host = name.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match name.get(after_host..).and_then(|last| last.find(':')) {
            Some(colon) => (&name[..after_host + colon], &name[after_host + colon + 1..]),
            None => (name, "latest"),
        };
        let path = path.strip_prefix("docker.io/").unwrap_or(path);
        let path = path.strip_prefix("library/").or(path.strip_prefix("localhost/")).unwrap_or(path);
        (path, tag)
    }
    parts(a) == parts(b)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.select {
            Select::Only => f.write_str(&self.file),
            Select::Name(name) => write!(f, "{}#{name}", self.file),
            Select::Digest(digest) => write!(f, "{}#{digest}", self.file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_print_as_they_are_read() {
        let digest = format!("/a/b.tar#sha256:{}", "ab".repeat(32));
        for text in ["app.tar", "sub/app.tar", "/data/app.tar#app:1.2", "x.tar#registry:5000/a/b:c", digest.as_str()] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_references_are_named() {
        assert_eq!(Reference::parse(""), Err(BadReference::NoFile));
        assert_eq!(Reference::parse("#app"), Err(BadReference::NoFile));
        assert_eq!(Reference::parse("a.tar#"), Err(BadReference::NoName));
        assert_eq!(Reference::parse("../a.tar"), Err(BadReference::Upwards));
        assert_eq!(Reference::parse("a.tar#sha256:12"), Err(BadReference::BadDigest));
        assert_eq!(Reference::parse("a\0.tar"), Err(BadReference::Control));
        assert_eq!(Reference::parse(&"a".repeat(5000)), Err(BadReference::TooLong));
    }

    #[test]
    fn the_first_folder_wins_and_the_shadowed_file_is_told() {
        let folders = ["/data".into(), "/usr".into()];
        let found = Reference::parse("a.tar").unwrap().find(&folders, |_| true).unwrap();
        assert_eq!(found.path, Path::new("/data/a.tar"));
        assert_eq!(found.shadowed, [Path::new("/usr/a.tar")]);
        assert_eq!(Reference::parse("a.tar").unwrap().find(&folders, |_| false), None);
        let absolute = Reference::parse("/x/a.tar").unwrap().find(&folders, |_| true).unwrap();
        assert_eq!((absolute.path.as_path(), absolute.shadowed.len()), (Path::new("/x/a.tar"), 0));
    }

    #[test]
    fn names_match_with_and_without_host_and_tag() {
        for (a, b) in [
            ("app", "app:latest"),
            ("app:1", "docker.io/library/app:1"),
            ("localhost/app", "app:latest"),
            ("registry:5000/app", "registry:5000/app:latest"),
        ] {
            assert!(same_name(a, b), "{a} {b}");
        }
        assert!(!same_name("app:1", "app:2"));
        assert!(!same_name("app", "quay.io/app"));
    }
}
