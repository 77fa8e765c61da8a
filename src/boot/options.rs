//! Mount options as people write them, told apart: what mount(2) takes as flags, and what the file system takes. Pure.
#![forbid(unsafe_code)]

use core::ffi::c_ulong;

/// Flags of mount(2), the same numbers on every architecture.
pub mod flag {
    use core::ffi::c_ulong;

    /// MS_RDONLY.
    pub const READ_ONLY: c_ulong = 1;
    /// MS_NOSUID.
    pub const NO_SUID: c_ulong = 1 << 1;
    /// MS_NODEV.
    pub const NO_DEV: c_ulong = 1 << 2;
    /// MS_NOEXEC.
    pub const NO_EXEC: c_ulong = 1 << 3;
    /// MS_REMOUNT.
    pub const REMOUNT: c_ulong = 1 << 5;
    /// MS_RELATIME.
    pub const REL_ATIME: c_ulong = 1 << 21;
}

use flag::{NO_DEV, NO_EXEC, NO_SUID, READ_ONLY, REL_ATIME};

/// A word, what it sets and what it clears (mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS"; mount(2)).
const WORDS: &[(&str, c_ulong, c_ulong)] = &[
    ("defaults", 0, 0),
    ("ro", READ_ONLY, 0),
    ("rw", 0, READ_ONLY),
    ("nosuid", NO_SUID, 0),
    ("suid", 0, NO_SUID),
    ("nodev", NO_DEV, 0),
    ("dev", 0, NO_DEV),
    ("noexec", NO_EXEC, 0),
    ("exec", 0, NO_EXEC),
    ("sync", 1 << 4, 0),
    ("async", 0, 1 << 4),
    ("mand", 1 << 6, 0),
    ("nomand", 0, 1 << 6),
    ("dirsync", 1 << 7, 0),
    ("nosymfollow", 1 << 8, 0),
    ("symfollow", 0, 1 << 8),
    ("noatime", 1 << 10, 0),
    ("atime", 0, 1 << 10),
    ("nodiratime", 1 << 11, 0),
    ("diratime", 0, 1 << 11),
    ("silent", 1 << 15, 0),
    ("loud", 0, 1 << 15),
    ("relatime", REL_ATIME, 0),
    ("norelatime", 0, REL_ATIME),
    ("iversion", 1 << 23, 0),
    ("noiversion", 0, 1 << 23),
    ("strictatime", 1 << 24, 0),
    ("nostrictatime", 0, 1 << 24),
    ("lazytime", 1 << 25, 0),
    ("nolazytime", 0, 1 << 25),
];

/// Words for programs that read a table of mounts; the kernel knows none of them.
const FOR_OTHERS: &[&str] = &["auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev"];

/// Flags and data for mount(2). A later word undoes an earlier one; what is no flag stays, in its order.
pub fn split(options: &str) -> (c_ulong, String) {
    let (mut flags, mut data) = (0, String::new());
    for word in options.split(',').filter(|word| !word.is_empty() && !FOR_OTHERS.contains(word)) {
        match WORDS.iter().find(|(known, ..)| *known == word) {
            Some((_, sets, clears)) => flags = flags & !clears | sets,
            None => {
                if !data.is_empty() {
                    data.push(',');
                }
                data.push_str(word);
            }
        }
    }
    (flags, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_data_are_told_apart() {
        assert_eq!(split("noatime,data=journal,ro,commit=5"), (1 << 10 | 1, "data=journal,commit=5".into()));
        assert_eq!(split(""), (0, String::new()));
        assert_eq!(split("defaults,,nofail,x-y=1"), (0, "x-y=1".into()));
    }

    #[test]
    fn a_later_word_undoes_an_earlier_one() {
        assert_eq!(split("ro,noexec,rw").0, NO_EXEC);
        assert_eq!(split("rw,ro").0, READ_ONLY);
        assert_eq!(split("suid,nosuid,dev,nodev").0, NO_SUID | NO_DEV);
    }

    #[test]
    fn the_numbers_are_the_kernels() {
        let known = [
            ("nosuid", libc::MS_NOSUID),
            ("sync", libc::MS_SYNCHRONOUS),
            ("mand", libc::MS_MANDLOCK),
            ("dirsync", libc::MS_DIRSYNC),
            ("noatime", libc::MS_NOATIME),
            ("nodiratime", libc::MS_NODIRATIME),
            ("silent", libc::MS_SILENT),
            ("relatime", libc::MS_RELATIME),
            ("iversion", libc::MS_I_VERSION),
            ("strictatime", libc::MS_STRICTATIME),
            ("lazytime", libc::MS_LAZYTIME),
        ];
        for (word, number) in known {
            assert_eq!(split(word), (number, String::new()), "{word}");
        }
        assert_eq!(flag::REMOUNT, libc::MS_REMOUNT);
    }
}
