//! The name that a process shows to whoever looks at `/proc`: its words and its short name.
//!
//! An init is a clone of the supervisor and would show the container the supervisor's words, with paths of the host.

use std::ffi::CStr;
use std::sync::OnceLock;

/// Where the kernel has put this program's words: first byte, and behind the last one. The clone has them at the same
/// place.
static WORDS: OnceLock<Option<(usize, usize)>> = OnceLock::new();

/// Finds this program's words, once: `arg_start` and `arg_end` of `proc_pid_stat(5)` (3.5). To be called before the
/// clone, while `/proc` is the host's.
pub fn find() {
    WORDS.get_or_init(|| parse(&std::fs::read_to_string("/proc/self/stat").ok()?));
}

/// The fields 48 and 49. The second field, a name in parentheses, may hold anything.
fn parse(stat: &str) -> Option<(usize, usize)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(48 - 3);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (0 < start && start < end).then_some((start, end))
}

/// Shows `name` in place of the words, if [`find`] has found them, and as `prctl(2)` PR_SET_NAME. Allocates nothing. For
/// a clone alone: this process's own `std::env::args` are gone afterwards.
pub fn set(name: &CStr) {
    // SAFETY: the kernel reads at most 16 bytes of a NUL-terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
    let Some((start, end)) = WORDS.get().copied().flatten() else { return };
    let shown = name.to_bytes();
    for (at, address) in (start..end).enumerate() {
        let byte = match shown.get(at) {
            Some(byte) if address + 1 < end => *byte,
            // A last byte that is not zero tells the kernel that the text ends at the first zero.
            _ if address + 1 == end && at > shown.len() => b'.',
            _ => 0,
        };
        // SAFETY: the kernel has put the words there, on this process's stack, writable; std copies them when it is asked
        // for them, so no reference leads there.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(byte) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_lie_where_the_kernel_says() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (start, end) = parse(&stat).unwrap();
        let words: usize = std::env::args_os().map(|word| word.len() + 1).sum();
        assert_eq!(end - start, words);
        assert_eq!(parse("1 (a) b) S 1"), None);
        assert_eq!(parse(""), None);
    }
}
