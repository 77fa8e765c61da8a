//! Names of services and volumes.

use crate::base::limits::NAME_BYTES;
use core::fmt;

/// A service or volume name: 1 to 63 bytes of `a-z 0-9 . _ -`, beginning with a letter or digit.
///
/// Such a name is safe as a directory, a cgroup, a host name and an argument.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(heapless::String<NAME_BYTES>);

/// Why a text is no [`Name`]; the `Display` form is the half sentence that a message ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadName {
    /// Nothing there.
    Empty,
    /// Longer than [`NAME_BYTES`].
    TooLong,
    /// The first character may only be a letter or a digit.
    BadStart(char),
    /// A character outside the set.
    BadChar(char),
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadName::Empty => write!(f, "a name cannot be empty"),
            BadName::TooLong => write!(f, "a name has at most {NAME_BYTES} characters"),
            BadName::BadStart(c) => write!(f, "a name begins with a-z or 0-9, not {c:?}"),
            BadName::BadChar(c) => write!(f, "a name consists of a-z, 0-9, '.', '_' and '-', not {c:?}"),
        }
    }
}

impl Name {
    /// Checks `text` and keeps a copy.
    pub fn new(text: &str) -> Result<Name, BadName> {
        let first = text.chars().next().ok_or(BadName::Empty)?;
        if !first.is_ascii_lowercase() && !first.is_ascii_digit() {
            return Err(BadName::BadStart(first));
        }
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        if let Some(bad) = text.chars().find(|c| !good(*c)) {
            return Err(BadName::BadChar(bad));
        }
        heapless::String::try_from(text).map(Name).map_err(|_| BadName::TooLong)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_paths() {
        for good in ["a", "web-1", "0.x_y", &"n".repeat(NAME_BYTES)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        assert_eq!(Name::new(""), Err(BadName::Empty));
        assert_eq!(Name::new(".."), Err(BadName::BadStart('.')));
        assert_eq!(Name::new("a/b"), Err(BadName::BadChar('/')));
        assert_eq!(Name::new("A"), Err(BadName::BadStart('A')));
        assert_eq!(Name::new(&"n".repeat(NAME_BYTES + 1)), Err(BadName::TooLong));
    }
}
