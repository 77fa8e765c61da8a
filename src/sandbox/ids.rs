//! Who a service runs as, looked up in the image's own passwd and group files.
//!
//! Both files come from an image: they are read size-capped, as regular files only, and parsed without trust.
#![forbid(unsafe_code)]

use crate::base::limits::GROUPS;
use crate::plan::UserSpec;
use core::fmt;

/// User, group, supplementary groups and home directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, without the primary one.
    pub groups: heapless::Vec<u32, GROUPS>,
    /// Home directory, `/` when the image names none.
    pub home: Box<str>,
}

/// Why a user or group cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdError {
    /// No user of that name in the image's passwd.
    NoUser(Box<str>),
    /// No group of that name in the image's group file.
    NoGroup(Box<str>),
    /// A number that is no id: ids go from 0 to 4294967294.
    BadNumber(Box<str>),
    /// The user is in more groups than a service can have.
    TooManyGroups(Box<str>),
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdError::NoUser(user) => {
                write!(f, "no user {user:?} in its root's /etc/passwd; name one that is there, or a number")
            }
            IdError::NoGroup(group) => {
                write!(f, "no group {group:?} in its root's /etc/group; name one that is there, or a number")
            }
            IdError::BadNumber(text) => write!(f, "{text:?} is no user or group id: those go from 0 to 4294967294"),
            IdError::TooManyGroups(user) => {
                write!(f, "user {user:?} is in more than {GROUPS} groups of its root's /etc/group")
            }
        }
    }
}

impl std::error::Error for IdError {}

impl Ids {
    /// root, without supplementary groups.
    pub fn root() -> Ids {
        Ids { uid: 0, gid: 0, groups: heapless::Vec::new(), home: "/root".into() }
    }

    /// The ids that `user` stands for in the image whose passwd and group files are given (empty where it has none).
    ///
    /// As Docker does: a name must be in passwd; a number need not be, and takes group and home from its line if there
    /// is one (otherwise group 0, home `/`); an explicit group replaces the primary and drops the supplementary ones.
    pub fn lookup(user: &UserSpec, passwd: &[u8], group: &[u8]) -> Result<Ids, IdError> {
        let number = parse_id(&user.user)?;
        let line = fields(passwd).find(|line| match number {
            Some(uid) => line.number(2) == Some(uid),
            None => line.text(0) == Some(user.user.as_bytes()),
        });
        let uid = match (number, &line) {
            (Some(uid), _) => uid,
            (None, Some(line)) => line.number(2).ok_or_else(|| IdError::NoUser(user.user.clone()))?,
            (None, None) => return Err(IdError::NoUser(user.user.clone())),
        };
        let home = line.as_ref().and_then(|line| core::str::from_utf8(line.text(5)?).ok());
        let home = home.filter(|home| home.starts_with('/') && !home.contains('\0')).unwrap_or("/").into();
        let mut groups = heapless::Vec::new();
        let gid = match &user.group {
            Some(name) => match parse_id(name)? {
                Some(gid) => gid,
                None => fields(group)
                    .find(|line| line.text(0) == Some(name.as_bytes()))
                    .and_then(|line| line.number(2))
                    .ok_or_else(|| IdError::NoGroup(name.clone()))?,
            },
            None => {
                let gid = line.as_ref().and_then(|line| line.number(3)).unwrap_or(0);
                let name = line.as_ref().and_then(|line| line.text(0));
                for extra in name.iter().flat_map(|name| groups_of(group, name)).filter(|extra| *extra != gid) {
                    if !groups.contains(&extra) {
                        groups.push(extra).map_err(|_| IdError::TooManyGroups(user.user.clone()))?;
                    }
                }
                gid
            }
        };
        Ok(Ids { uid, gid, groups, home })
    }
}

/// A decimal id; `None` for a name. A text of digits that is no valid id is an error, never a name: 4294967296 must
/// not wrap to root.
fn parse_id(text: &str) -> Result<Option<u32>, IdError> {
    if text.is_empty() {
        return Err(IdError::BadNumber(text.into()));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let numeric = text.starts_with(['-', '+']) || text.starts_with("0x");
        return if numeric { Err(IdError::BadNumber(text.into())) } else { Ok(None) };
    }
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(IdError::BadNumber(text.into())),
    }
}

/// One line of passwd or group.
struct Line<'a>(&'a [u8]);

impl<'a> Line<'a> {
    fn text(&self, field: usize) -> Option<&'a [u8]> {
        self.0.split(|byte| *byte == b':').nth(field)
    }

    fn number(&self, field: usize) -> Option<u32> {
        parse_id(core::str::from_utf8(self.text(field)?).ok()?).ok()?
    }
}

fn fields(file: &[u8]) -> impl Iterator<Item = Line<'_>> {
    file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#")).map(Line)
}

/// The groups that list `name` as a member.
fn groups_of<'a>(group: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
    fields(group)
        .filter(move |line| line.text(3).is_some_and(|members| members.split(|byte| *byte == b',').any(|m| m == name)))
        .filter_map(|line| line.number(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\nbad:x:99999999999:1::/:\n";
    const GROUP: &[u8] = b"root:x:0:\nwww:x:34:\naudio:x:63:web,root\nvideo:x:44:web\n";

    fn look(user: &str, group: Option<&str>) -> Result<Ids, IdError> {
        Ids::lookup(&UserSpec { user: user.into(), group: group.map(Into::into) }, PASSWD, GROUP)
    }

    #[test]
    fn names_and_numbers_are_looked_up_as_docker_does() {
        let web = look("web", None).unwrap();
        assert_eq!((web.uid, web.gid, web.groups.as_slice(), &*web.home), (33, 34, &[63, 44][..], "/var/www"));
        assert_eq!(look("33", None).unwrap(), web);
        let explicit = look("web", Some("video")).unwrap();
        assert_eq!((explicit.gid, explicit.groups.len()), (44, 0));
        let unknown = look("1883", None).unwrap();
        assert_eq!((unknown.uid, unknown.gid, &*unknown.home), (1883, 0, "/"));
        assert_eq!(look("nobody", None), Err(IdError::NoUser("nobody".into())));
        assert_eq!(look("web", Some("nogroup")), Err(IdError::NoGroup("nogroup".into())));
    }

    #[test]
    fn an_id_beyond_32_bits_never_wraps_to_root() {
        for bad in ["4294967296", "4294967295", "-1", "0x0", "+0", ""] {
            assert_eq!(look(bad, None), Err(IdError::BadNumber(bad.into())));
            assert!(look("0", Some(bad)).is_err());
        }
        assert!(look("bad", None).is_err(), "a passwd line with such an id is no user either");
    }
}
