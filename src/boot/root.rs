//! The root file system of a board that runs from its initramfs.
//!
//! The kernel's first file system has no mount beneath it, and pivot_root(2) refuses to leave it: no container could
//! start. So it is mounted once more, on itself, and that becomes the root. What lies beneath is where this program runs
//! from, and nobody else's: read-only from then on, it keeps containers from writing to the program's file
//! (`sandbox::sealed`), which spares executing it again.
#![forbid(unsafe_code)]

use crate::base::mountinfo::Mounted;
use crate::sys::{Result, mount, path};
use core::ffi::CStr;
use nix::libc::{MS_BIND, MS_RDONLY, MS_REMOUNT};

/// A directory that is there at this point, with nothing mounted on it.
const PLACE: &CStr = c"/sys";
/// What the kernel shows of processes, mounted already.
const PROC: &CStr = c"/proc";

/// Whether the root is the kernel's first file system: the one mount that lies on itself.
pub fn is_first(mountinfo: &str) -> bool {
    mountinfo.lines().filter_map(Mounted::parse).any(|mount| mount.target == "/" && mount.id == mount.parent)
}

/// Binds `/`, takes /proc along, moves it all over `/`, and makes it the root. What else is mounted stays beneath.
///
/// # Errors
/// The step that the kernel refused. The root is then as before.
pub fn move_over_itself() -> Result<()> {
    mount::bind(c"/", PLACE, 0)?;
    path::chdir(PLACE)?;
    let moved = mount::relocate(PROC, c"proc").and_then(|()| mount::relocate(c".", c"/"));
    if let Err(errno) = moved {
        // It is there, or it was never moved.
        let _ = mount::relocate(c"proc", PROC);
        path::chdir(c"/")?;
        mount::detach(PLACE)?;
        return Err(errno);
    }
    // `/` is still what lies beneath. Where this cannot be had the program is sealed like everywhere else.
    let _ = mount::change(c"/", MS_REMOUNT | MS_BIND | MS_RDONLY);
    mount::chroot(c".")?;
    path::chdir(c"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_first_file_system_is_told_from_all_others() {
        assert!(is_first("1 1 0:2 / / rw - rootfs none rw\n20 1 0:21 / /proc rw - proc proc rw\n"));
        assert!(!is_first("24 1 0:2 / / rw - rootfs none rw\n"), "already mounted over itself");
        assert!(!is_first("24 1 254:0 / / ro - squashfs /dev/root ro\n"));
        assert!(!is_first(""));
    }
}
