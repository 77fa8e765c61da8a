//! The lines of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)). Pure.
#![forbid(unsafe_code)]

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted<'a> {
    /// Its number.
    pub id: u32,
    /// The number of the mount that it lies on; its own at the very root.
    pub parent: u32,
    /// Which directory of the file system it shows.
    pub root: String,
    /// Where it is.
    pub target: String,
    /// The options of the mount, separated by commas.
    pub options: &'a str,
    /// The type of the file system.
    pub kind: &'a str,
    /// The options of the file system, separated by commas.
    pub super_options: &'a str,
}

impl<'a> Mounted<'a> {
    /// Reads one line: `36 35 98:0 ROOT TARGET OPTIONS… - TYPE SOURCE SUPER-OPTIONS`.
    pub fn parse(line: &'a str) -> Option<Mounted<'a>> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ');
        let (id, parent, _device) = (before.next()?.parse().ok()?, before.next()?.parse().ok()?, before.next()?);
        let (root, target, options) = (before.next()?, before.next()?, before.next()?);
        let mut after = after.split(' ');
        let kind = after.next()?;
        let super_options = after.nth(1).unwrap_or_default();
        Some(Mounted { id, parent, root: unescape(root), target: unescape(target), options, kind, super_options })
    }

    /// Whether nothing can be written through it.
    pub fn is_read_only(&self) -> bool {
        has_option(self.options, "ro") || has_option(self.super_options, "ro")
    }
}

/// Whether `wanted` is among options separated by commas.
pub fn has_option(options: &str, wanted: &str) -> bool {
    options.split(',').any(|option| option == wanted)
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext4 /dev/root ro,errors=continue";
        let mount = Mounted::parse(line).unwrap();
        assert_eq!((mount.id, mount.parent, &*mount.root, &*mount.target), (36, 35, "/mnt1", "/mnt 2"));
        assert_eq!((mount.kind, mount.is_read_only()), ("ext4", true));
        for damaged in ["", "a b c", "1 2 3 / - tmpfs", "36 35 98:0 / / rw"] {
            assert_eq!(Mounted::parse(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn escapes_are_undone_and_damaged_ones_stay() {
        assert_eq!(unescape("a\\040b\\134"), "a b\\");
        assert_eq!(unescape("a\\04"), "a\\04");
        assert_eq!(unescape("\\134\\"), "\\\\");
    }
}
