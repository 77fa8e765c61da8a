//! The name that a process shows to whoever looks at `/proc`: its words and its short name.
//!
//! An init is a clone of the supervisor and would show the container the supervisor's words, with paths of the host.

use std::ffi::{CStr, c_char};

unsafe extern "C" {
    /// program_invocation_name(3): the first word, where the kernel has put it.
    static program_invocation_name: *const c_char;
    /// environ(7): the kernel's own array, since coracle never changes its environment.
    static environ: *const *const c_char;
}

/// Where the kernel has put this program's words: the first byte, and behind the last one. `None`: there are none.
///
/// execve(2) leaves the pointers to the words, a null pointer, and the pointers to the environment one behind the other,
/// and the words themselves without a gap.
fn words() -> Option<(usize, usize)> {
    // SAFETY: the C library sets both before main. Two places before the environment's pointers is the last word's, a
    // NUL-terminated string, or, without any word, their number: 0.
    let (first, last) = unsafe { (program_invocation_name, environ.sub(2).read()) };
    if first.is_null() || last < first {
        return None;
    }
    // SAFETY: as above; `last` is no null pointer.
    let length = unsafe { libc::strlen(last) };
    Some((first.expose_provenance(), last.addr() + length + 1))
}

/// `prctl(2)` PR_SET_NAME: the short name alone, which the kernel makes of the last part of the path that was executed.
pub fn rename(name: &CStr) {
    // SAFETY: the kernel reads at most 16 bytes of a NUL-terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Shows `name` in place of the words, and as `prctl(2)` PR_SET_NAME. Allocates nothing. For a clone alone: this
/// process's own `std::env::args` are gone afterwards.
pub fn set(name: &CStr) {
    // SAFETY: the kernel reads at most 16 bytes of a NUL-terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
    let Some((start, end)) = words() else { return };
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
        // proc_pid_stat(5): the fields 48 and 49. The second field, a name in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let place: Vec<usize> =
            fields.split_whitespace().skip(45).take(2).map(|field| field.parse().unwrap()).collect();
        let (start, end) = words().unwrap();
        assert_eq!(place, [start, end]);
    }
}
