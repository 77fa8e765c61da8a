//! The names of an archive's members, with the links between them.
#![forbid(unsafe_code)]

use super::shape::normal;
use crate::base::escaped::Escaped;
use crate::image::ImageError;
use crate::image::tar::Kind;

/// Members of one image archive: 127 layers of the oldest format have four each, a multi-platform archive some hundreds.
const MEMBERS: usize = 4096;
/// Links between members that are followed: docker wrote one.
const LINKS: usize = 8;

/// What a name stands for.
pub enum Target {
    /// The member at this place of its owner's list.
    Member(usize),
    /// The member of another name.
    Link(String),
}

/// What each name stands for, sorted by name.
#[derive(Default)]
pub struct Names(Vec<(String, Target)>);

impl Names {
    /// Adds a name, which must be new.
    pub fn add(&mut self, name: String, target: Target) -> Result<(), ImageError> {
        if self.0.len() == MEMBERS {
            return Err(ImageError::invalid(&format_args!(
                "holds more than {MEMBERS} members, too many for an image archive"
            )));
        }
        match self.place(&name) {
            Ok(_) => Err(ImageError::invalid(&format_args!(
                "holds two members called {}; which one counts is not clear",
                Escaped(&name)
            ))),
            Err(place) => {
                self.0.insert(place, (name, target));
                Ok(())
            }
        }
    }

    /// The place of the member that `name` stands for, after all links.
    pub fn find(&self, name: &str) -> Option<usize> {
        let name = normal(name.as_bytes())?;
        let mut name = name.as_str();
        for _ in 0..LINKS {
            match &self.0.get(self.place(name).ok()?)?.1 {
                Target::Member(place) => return Some(*place),
                Target::Link(target) => name = target,
            }
        }
        None
    }

    /// Whether it is an image at all.
    pub fn has_manifest(&self) -> bool {
        let has = |name| self.place(name).is_ok();
        has("manifest.json") || (has("oci-layout") && has("index.json"))
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_str().cmp(name))
    }
}

/// The name that a link called `name` stands for, within the archive; `None` for what is no link or leads out of it.
pub fn target(name: &str, kind: &Kind) -> Option<String> {
    match kind {
        Kind::Symlink(target) => symlink(name, target),
        Kind::HardLink(target) => normal(target),
        _ => None,
    }
}

fn symlink(name: &str, target: &[u8]) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_between_members_stay_in_the_archive() {
        assert_eq!(symlink("a/layer.tar", b"../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(symlink("a", b"b").as_deref(), Some("b"));
        assert_eq!(symlink("a/x", b"/b/y").as_deref(), Some("b/y"));
        assert_eq!(symlink("a/x", b"../../../etc/shadow"), None);
    }

    #[test]
    fn a_name_is_found_through_links_and_stands_for_one_member() {
        let mut names = Names::default();
        names.add("b/layer.tar".into(), Target::Member(7)).unwrap();
        names.add("a/layer.tar".into(), Target::Link("b/layer.tar".into())).unwrap();
        names.add("loop".into(), Target::Link("loop".into())).unwrap();
        assert_eq!(names.find("./a//layer.tar"), Some(7));
        assert_eq!((names.find("loop"), names.find("c")), (None, None));
        assert!(names.add("b/layer.tar".into(), Target::Member(8)).is_err());
    }
}
