//! The running binary, out of reach of containers (CVE-2019-5736).
//!
//! A container can make a process of ours execute a script whose interpreter is `/proc/self/exe`, which is this binary,
//! and then write to it through `/proc/PID/exe`. So whatever starts processes in containers first executes itself again
//! from a place where the file cannot be opened for writing: a read-only mount of it that nothing else has, or a sealed
//! copy in memory.
#![forbid(unsafe_code)]

use crate::base::read;
use crate::sys::process::{self, CStrings};
use crate::sys::{Errno, mount, path, title};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Seals that keep a memory file as it is.
const SEALS: SealFlag = SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW);

/// Returns at once if this binary cannot be written through `/proc/self/exe`; otherwise executes it again, with these
/// words (the first is the program's name) and the same environment, from where it cannot.
///
/// To be called before anything else is done: what was touched before is paid for twice.
///
/// # Errors
/// A sentence; nothing has changed then.
pub fn ensure(words: &[OsString]) -> Result<(), String> {
    let binary = path::open(c"/proc/self/exe", OFlag::O_RDONLY)
        .map_err(|errno| format!("the own binary cannot be opened through /proc/self/exe: {errno}"))?;
    if is_sealed(&binary) {
        // The kernel called it by the number of the descriptor that it was executed from.
        title::rename(c"coracle");
        return Ok(());
    }
    let safe = match read_only_mount() {
        Ok(mounted) => mounted,
        Err(_) => sealed_copy(binary).map_err(|error| format!("the own binary cannot be sealed: {error}"))?,
    };
    // The words came from execve(2), so none holds a NUL byte.
    let words = CStrings::new(words.iter().map(|word| CString::new(word.as_bytes()).unwrap_or_default()).collect());
    let program = CString::new(format!("/proc/self/fd/{}", safe.as_raw_fd())).unwrap_or_default();
    let errno = process::execve_same_env(&program, &words);
    Err(format!("the own binary cannot be executed again from where it is sealed: {errno}"))
}

fn is_sealed(binary: &OwnedFd) -> bool {
    let read_only = fstatvfs(binary).is_ok_and(|about| about.flags().contains(FsFlags::ST_RDONLY));
    let seals = fcntl(binary, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    read_only || seals.is_ok_and(|seals| seals.contains(SealFlag::F_SEAL_WRITE))
}

/// The binary on a read-only mount of its own (open_tree(2) 5.2, mount_setattr(2) 5.12).
fn read_only_mount() -> Result<OwnedFd, Errno> {
    let source = path::open(c"/proc/self/exe", OFlag::O_PATH)?;
    let mounted = mount::clone_tree(source.as_raw_fd(), mount::RDONLY)?;
    // Older kernels take the flags and ignore them; then the copy is the way.
    if is_sealed(&mounted) { Ok(mounted) } else { Err(Errno(nix::errno::Errno::ENOSYS as i32)) }
}

/// The binary as a file in memory that can never change.
fn sealed_copy(binary: OwnedFd) -> std::io::Result<OwnedFd> {
    let mut copy = File::from(memfd_create(c"coracle", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    read::copy(&mut File::from(binary), u64::MAX, &mut copy)?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS))?;
    // Opened again for reading: a file that is open for writing cannot be executed.
    let again = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    Ok(OwnedFd::from(again))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_copy_is_the_binary_and_cannot_be_written() {
        let binary = path::open(c"/proc/self/exe", OFlag::O_RDONLY).unwrap();
        let copy = sealed_copy(binary).unwrap();
        assert!(is_sealed(&copy));
        let through = format!("/proc/self/fd/{}", copy.as_raw_fd());
        assert_eq!(std::fs::read(&through).unwrap(), std::fs::read("/proc/self/exe").unwrap());
        let opened = File::options().write(true).open(&through);
        assert!(opened.and_then(|file| std::io::Write::write(&mut &file, b"x")).is_err());
    }
}
