//! Secrets: files of the host whose content a service gets a copy of, on a memory file system that is nowhere else.
//!
//! The supervisor opens the file and never reads it; the init copies it, through its stack, before main exists. So the
//! content is in no heap, record, log or answer of ours. The memory is the init's, beside the service's limit, and bounded
//! by [`SECRETS`] times [`SECRET_BYTES`].
#![forbid(unsafe_code)]

use super::rootfs::{Link, Made};
use super::spec::{Act, FileSystem, Reach, Step};
use super::stage::Stage;
use crate::base::limits::{SECRET_BYTES, SECRETS};
use crate::plan;
use crate::sys::path::{self, CWD, Links};
use crate::sys::{Errno, Result, mount, process};
use nix::fcntl::OFlag;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Where the memory file system is mounted while it is filled, in the container's own `/dev`.
const PLACE: &CStr = c"dev/secrets";
/// The name of a copy, until nothing but the mount over its target leads to it.
const COPY: &CStr = c"dev/secrets/copy";
/// Room for all copies, rounded up to pages of 64 KiB, and for their inodes.
const OPTIONS: &CStr = c"size=2m,nr_inodes=64,mode=700";
const _: () = assert!(SECRETS * SECRET_BYTES.next_multiple_of(1 << 16) <= 2 << 20 && SECRETS < 60);

/// A secret to be copied.
#[derive(Debug)]
pub struct Copy {
    /// The file, open for reading.
    pub source: RawFd,
    /// Where the copy appears, beneath the root and beneath `run/` in it.
    pub target: CString,
    /// User and group.
    pub owner: (u32, u32),
}

/// Opens a secret's file for reading. A symbolic link as the last part is refused, since whoever can write to that folder
/// could have any file of the host copied with it; so is what is no regular file.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence that began with its path.
pub fn open(file: &str) -> core::result::Result<File, String> {
    let name = CString::new(file).map_err(|_| "holds a NUL byte".to_owned())?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = path::open(&name, flags).map(File::from).map_err(|errno| match errno.0 {
        libc::ENOENT | libc::ENOTDIR => "is missing".to_owned(),
        libc::ELOOP => "is a symbolic link; name the file itself".to_owned(),
        _ => format!("cannot be opened: {errno}"),
    })?;
    let found = opened.metadata().map_err(|error| format!("cannot be looked at: {error}"))?;
    match found.len() {
        _ if !found.is_file() => Err("is no regular file".to_owned()),
        0 => Err("is empty".to_owned()),
        size if size > SECRET_BYTES as u64 => Err(format!("has {size} bytes, more than {SECRET_BYTES}")),
        _ => Ok(opened),
    }
}

/// What becomes of the service's secrets: their copies, with the files kept open in `held`.
pub(super) fn find(
    secrets: &[plan::Secret],
    owner: (u32, u32),
    held: &mut Vec<OwnedFd>,
) -> core::result::Result<Vec<Copy>, String> {
    let mut copies = Vec::with_capacity(secrets.len());
    for secret in secrets {
        let file = open(&secret.file).map_err(|why| format!("the secret {} {why}", secret.file))?;
        let beneath = secret.target.trim_matches('/');
        let target = Some(beneath).filter(|path| path.starts_with("run/")).and_then(|path| CString::new(path).ok());
        let target =
            target.ok_or_else(|| format!("the secret's target {:?} does not lie beneath /run", secret.target))?;
        copies.push(Copy { source: file.as_raw_fd(), target, owner });
        held.push(file.into());
    }
    Ok(copies)
}

/// The steps that make the copies: a file system for them, the copies, and the file system's own place gone again.
pub(super) fn steps(copies: Vec<Copy>) -> Vec<Step> {
    if copies.is_empty() {
        return Vec::new();
    }
    let place = FileSystem {
        kind: c"tmpfs",
        target: PLACE.to_owned(),
        flags: libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        options: OPTIONS.to_owned(),
        reach: Reach::Ours,
        optional: false,
    };
    let step = |act: Act| Step { stage: Stage::Secret, act };
    let mut steps = vec![step(Act::Dir { path: PLACE.to_owned(), mode: 0o700 }), step(Act::Mount(place))];
    steps.extend(copies.into_iter().map(|copy| step(Act::Secret(copy))));
    steps.push(step(Act::LeaveSecrets(PLACE)));
    steps
}

/// Makes one copy and mounts it, read-only, on its target, which is made in `/run`: that is memory of this container.
pub(super) fn copy(copy: &Copy, made: &Made) -> Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
    let file = path::open_at(CWD, COPY, flags, 0o400)?;
    fill(copy.source, &file)?;
    path::change_owner(&file, copy.owner.0, copy.owner.1)?;
    let links = Links::InRoot;
    path::create_beneath(made.root(), &copy.target, false, links)?;
    let place = path::open_beneath(made.root(), &copy.target, OFlag::O_PATH, links)?;
    if nix::sys::stat::fstat(&place)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno(libc::EISDIR));
    }
    mount::bind(COPY, Link::to(place.as_raw_fd()).path(), 0)?;
    let mounted = path::open_beneath(made.root(), &copy.target, OFlag::O_PATH, links)?;
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
    let flags = flags | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount::change(Link::to(mounted.as_raw_fd()).path(), flags)?;
    path::remove(CWD, COPY)
}

/// Copies the content; EFBIG if there is more of it than when it was opened.
fn fill(source: RawFd, file: &OwnedFd) -> Result<()> {
    let mut chunk = [0u8; 4096];
    let mut total = 0;
    loop {
        // A descriptor of the supervisor's may be shared with the starts of other services: each reads by offset.
        let count = path::read_at(source, &mut chunk, total)?;
        total += count;
        match chunk.get(..count) {
            Some([]) | None => return Ok(()),
            Some(_) if total > SECRET_BYTES => return Err(Errno(libc::EFBIG)),
            Some(bytes) => process::write_all(file.as_fd().as_raw_fd(), bytes)?,
        }
    }
}

/// Takes the file system of the copies out of the container: what is left of it are the mounts on the targets.
pub(super) fn leave(place: &CStr) -> Result<()> {
    mount::detach(place)?;
    path::remove_dir(CWD, place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_secret_is_a_plain_file_of_some_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(at("key"), "k").unwrap();
        fs::write(at("empty"), "").unwrap();
        fs::write(at("large"), vec![0; SECRET_BYTES + 1]).unwrap();
        fs::write(at("full"), vec![0; SECRET_BYTES]).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
        nix::unistd::mkfifo(at("fifo").as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let says = |name: &str| open(&at(name)).map(drop);
        assert_eq!((says("key"), says("full")), (Ok(()), Ok(())));
        assert_eq!(says("none"), Err("is missing".into()));
        assert_eq!(says("key/none"), Err("is missing".into()));
        assert_eq!(says("empty"), Err("is empty".into()));
        assert!(says("large").unwrap_err().starts_with("has 65537 bytes"));
        assert_eq!(says("link"), Err("is a symbolic link; name the file itself".into()));
        assert_eq!((says("fifo"), says(".")), (Err("is no regular file".into()), Err("is no regular file".into())));
    }
}
