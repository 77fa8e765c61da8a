//! What openat2(2) does beneath a root, for kernels before 5.6: one component at a time, never following a link itself.

use super::path::{Links, open_at};
use super::{Errno, Result};
use nix::fcntl::OFlag;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest path walked, links written out, in bytes (`PATH_MAX`).
const PATH_BYTES: usize = 4096;
/// Links followed before ELOOP, as the kernel counts them (path_resolution(7)).
const LINKS: u32 = 40;
/// Directories between the root and the file.
const DEPTH: usize = 128;
/// Longest name of a file, with a NUL (`NAME_MAX`).
const NAME_BYTES: usize = 256;

/// Opens `path` beneath `root`. Links are read and walked as if the root were `/`, or refused; `..` never leaves the
/// root. What a link leads to is decided by the text read from it, so a swap during the walk changes where it ends
/// beneath the root, but not that it ends there. Not inlined: only old kernels need its large frame.
#[inline(never)]
pub(super) fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlag, links: Links) -> Result<OwnedFd> {
    if links == Links::Refuse && path.to_bytes().starts_with(b"/") {
        return Err(Errno(libc::EXDEV));
    }
    let mut rest = Rest::new(path.to_bytes())?;
    let mut above: heapless::Vec<OwnedFd, DEPTH> = heapless::Vec::new();
    let mut followed = 0;
    while let Some((name, last)) = rest.next_name()? {
        let name = CStr::from_bytes_with_nul(&name).map_err(|_| Errno(libc::EINVAL))?;
        if name == c".." {
            if above.pop().is_none() && links == Links::Refuse {
                return Err(Errno(libc::EXDEV));
            }
            continue;
        }
        let here = above.last().map_or(root, |fd| fd.as_fd());
        let found = open_at(here, name, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0)?;
        let kind = nix::sys::stat::fstat(&found)?.st_mode & libc::S_IFMT;
        if kind == libc::S_IFLNK {
            followed += 1;
            if links == Links::Refuse || followed > LINKS {
                return Err(Errno(libc::ELOOP));
            }
            let target = nix::fcntl::readlinkat(&found, c"")?;
            let target = std::os::unix::ffi::OsStrExt::as_bytes(target.as_os_str());
            if target.first() == Some(&b'/') {
                above.clear();
            }
            rest.lead_with(target)?;
        } else if !last || flags.contains(OFlag::O_PATH) {
            if kind != libc::S_IFDIR && (!last || flags.contains(OFlag::O_DIRECTORY)) {
                return Err(Errno(libc::ENOTDIR));
            }
            above.push(found).map_err(|_| Errno(libc::ENAMETOOLONG))?;
        } else {
            return open_at(here, name, flags | OFlag::O_NOFOLLOW, 0);
        }
    }
    match above.pop() {
        Some(fd) if flags.contains(OFlag::O_PATH) => Ok(fd),
        Some(fd) => open_at(fd.as_fd(), c".", flags, 0),
        None => open_at(root, c".", flags, 0),
    }
}

/// The part of the path that is still to be walked, at the end of a buffer so that a link's target fits before it.
struct Rest {
    text: heapless::Vec<u8, PATH_BYTES>,
    at: usize,
}

impl Rest {
    fn new(path: &[u8]) -> Result<Rest> {
        let text = heapless::Vec::from_slice(path).map_err(|_| Errno(libc::ENAMETOOLONG))?;
        Ok(Rest { text, at: 0 })
    }

    /// The next component that is not empty or `.`, with a NUL behind it, and whether nothing
    /// follows it, not even the slash that asks for a directory.
    fn next_name(&mut self) -> Result<Option<(heapless::Vec<u8, NAME_BYTES>, bool)>> {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            if rest.iter().all(|byte| *byte == b'/') {
                return Ok(None);
            }
            let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let (name, behind) = rest.split_at_checked(length).unwrap_or((rest, b""));
            self.at += length.max(1);
            if !matches!(name, b"" | b".") {
                let last = behind.is_empty();
                let mut text = heapless::Vec::new();
                let whole = text.extend_from_slice(name).is_ok() && text.push(0).is_ok();
                return if whole { Ok(Some((text, last))) } else { Err(Errno(libc::ENAMETOOLONG)) };
            }
        }
    }

    /// Puts a link's target before what is left.
    fn lead_with(&mut self, target: &[u8]) -> Result<()> {
        let mut text = heapless::Vec::new();
        let full = |_| Errno(libc::ENAMETOOLONG);
        text.extend_from_slice(target).map_err(full)?;
        text.extend_from_slice(self.text.get(self.at..).unwrap_or_default()).map_err(full)?;
        (self.text, self.at) = (text, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::path::CWD;
    use super::*;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    /// A root with links that lead away from it, around it and within it.
    fn root() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join("root").join(name);
        std::fs::create_dir_all(path("run/deep")).unwrap();
        std::fs::create_dir_all(path("var")).unwrap();
        std::fs::write(path("run/file"), "inside").unwrap();
        std::fs::write(folder.path().join("file"), "outside").unwrap();
        symlink("/run", path("var/run")).unwrap();
        symlink("../../../../run/./deep//", path("var/climb")).unwrap();
        symlink("../../file", path("var/out")).unwrap();
        symlink("loop", path("loop")).unwrap();
        let name = CString::new(folder.path().join("root").as_os_str().as_bytes()).unwrap();
        let root = open_at(CWD, &name, OFlag::O_PATH | OFlag::O_DIRECTORY, 0).unwrap();
        (folder, root)
    }

    #[test]
    fn the_walk_and_the_kernel_agree_on_every_path() {
        let (_folder, root) = root();
        let paths = [
            c"run",
            c"/run/",
            c"run/file",
            c"run/file/",
            c"run/file/x",
            c"var/run/file",
            c"var/run/deep",
            c"var/climb",
            c"var/climb/..",
            c"var/out",
            c"loop",
            c"loop/x",
            c"..",
            c"../..",
            c"../run",
            c".",
            c"",
            c"run/absent",
            c"absent/x",
            c"var/run/../run/./file",
        ];
        let everything = [OFlag::O_PATH, OFlag::O_PATH | OFlag::O_DIRECTORY, OFlag::O_RDONLY];
        for path in paths {
            for (flags, links) in everything.iter().flat_map(|f| [(*f, Links::InRoot), (*f, Links::Refuse)]) {
                let walked = open(root.as_fd(), path, flags | OFlag::O_CLOEXEC, links);
                let kernel = super::super::path::open_beneath(root.as_fd(), path, flags, links);
                match (&walked, &kernel) {
                    (Ok(ours), Ok(theirs)) => {
                        let id = |fd: &OwnedFd| nix::sys::stat::fstat(fd).map(|s| (s.st_dev, s.st_ino)).unwrap();
                        assert_eq!(id(ours), id(theirs), "{path:?} {flags:?} {links:?}");
                    }
                    (Err(_), Err(_)) => {}
                    // The kernel refuses no path at all; the walk takes it for the root.
                    (Ok(_), Err(Errno(libc::ENOENT))) if path.is_empty() => {}
                    _ => panic!("{path:?} {flags:?} {links:?}: {walked:?}, the kernel: {kernel:?}"),
                }
            }
        }
    }
}
