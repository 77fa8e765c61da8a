//! Files of an image read from its read-only layers, as overlayfs would merge them: who `www-data` is, before anything of
//! the image runs or is mounted.
//!
//! Nothing on the way is trusted (CVE-2026-47262, CVE-2024-9676): links are resolved within the image, only a regular
//! file is opened, without waiting, and only so much of it is read.
#![forbid(unsafe_code)]

use super::ImageError;
use crate::base::escaped::Escaped;
use crate::base::read::read_up_to;
use crate::plan::UserSpec;
use crate::sys::{meaning, xattr};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, major, minor};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;

/// Largest passwd or group file read, in bytes: ten thousand users.
pub const USER_FILE_BYTES: u64 = 1 << 20;
/// Links followed on the way to one file (as the kernel, path_resolution(7)).
const LINKS: usize = 40;
/// Folders from the root to the file.
const DEPTH: usize = 64;

/// The contents of an image's `/etc/passwd` and `/etc/group`; empty where it has none. Layers are lowest first.
pub fn passwd_and_group(layers: &[OwnedFd]) -> Result<(Vec<u8>, Vec<u8>), ImageError> {
    let read = |path: &str| Ok(read_file(layers, path, USER_FILE_BYTES)?.unwrap_or_default());
    Ok((read("etc/passwd")?, read("etc/group")?))
}

/// Reads the `User` of an image config: `user`, `uid`, `user:group`, `uid:gid`; empty is root, which is `None`.
pub fn parse_user(text: &str) -> Result<Option<UserSpec>, ImageError> {
    if text.is_empty() {
        return Ok(None);
    }
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() || group.is_some_and(|group| group.is_empty() || group.contains(':')) {
        let text = Escaped(text);
        return Err(ImageError::invalid(&format_args!(
            "the image's user \"{text}\" is not of the form user or user:group"
        )));
    }
    Ok(Some(UserSpec { user: user.into(), group: group.map(Into::into) }))
}

/// The folders that are one folder of the merged tree, highest first.
type Merged = Rc<Vec<OwnedFd>>;

/// What a name stands for in the merged tree.
enum Found {
    Folder(Merged),
    Link(OsString),
    File(OwnedFd),
    Nothing,
    Other,
}

/// Reads the regular file at `path` of the merged layers (lowest first), which may have at most `cap` bytes; `None` if
/// there is none.
pub fn read_file(layers: &[OwnedFd], path: &str, cap: u64) -> Result<Option<Vec<u8>>, ImageError> {
    let failed =
        |errno: Errno| ImageError::failed(&format_args!("cannot look for /{path} in the image: {}", meaning(errno)));
    let mut root = Vec::new();
    for layer in layers.iter().rev() {
        root.push(layer.try_clone().map_err(|_| failed(Errno::EMFILE))?);
    }
    let mut stack: Vec<Merged> = vec![Rc::new(root)];
    let mut names: Vec<OsString> = components(path.as_bytes());
    let mut links = 0;
    while let Some(name) = names.pop() {
        let Some(here) = stack.last() else { return Ok(None) };
        if name == ".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        match find(here, &name).map_err(failed)? {
            Found::Folder(folder) if stack.len() <= DEPTH => stack.push(folder),
            Found::Link(target) if links < LINKS => {
                links += 1;
                if target.as_bytes().starts_with(b"/") {
                    stack.truncate(1);
                }
                names.extend(components(target.as_bytes()));
            }
            Found::File(file) if names.is_empty() => return content(file, path, cap).map(Some),
            Found::Nothing => return Ok(None),
            _ => {
                return Err(ImageError::invalid(&format_args!(
                    "/{path} of the image is no regular file that can be reached"
                )));
            }
        }
    }
    Err(ImageError::invalid(&format_args!("/{path} of the image is a folder")))
}

/// The components of a path, last first.
fn components(path: &[u8]) -> Vec<OsString> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.rev().map(|part| OsString::from_vec(part.to_vec())).collect()
}

fn find(here: &Merged, name: &OsString) -> Result<Found, Errno> {
    let mut folders = Vec::new();
    for folder in here.iter() {
        let stat = match fstatat(folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT | Errno::ENAMETOOLONG) => continue,
            Err(errno) => return Err(errno),
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFDIR {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let fd = openat(folder, name.as_os_str(), flags, Mode::empty())?;
            let opaque = is_opaque(&fd);
            folders.push(fd);
            if opaque {
                break;
            }
            continue;
        }
        // A folder hides what is not a folder beneath it.
        if !folders.is_empty() || is_whiteout(kind, &stat) {
            break;
        }
        return match kind {
            SFlag::S_IFLNK => readlinkat(folder, name.as_os_str()).map(Found::Link),
            SFlag::S_IFREG => {
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                openat(folder, name.as_os_str(), flags, Mode::empty()).map(Found::File)
            }
            _ => Ok(Found::Other),
        };
    }
    Ok(if folders.is_empty() { Found::Nothing } else { Found::Folder(Rc::new(folders)) })
}

fn is_opaque(folder: &OwnedFd) -> bool {
    xattr::get(folder.as_fd(), c"trusted.overlay.opaque").is_ok_and(|value| value == b"y")
}

fn is_whiteout(kind: SFlag, stat: &FileStat) -> bool {
    kind == SFlag::S_IFCHR && major(stat.st_rdev as libc::dev_t) == 0 && minor(stat.st_rdev as libc::dev_t) == 0
}

fn content(file: OwnedFd, path: &str, cap: u64) -> Result<Vec<u8>, ImageError> {
    let read = read_up_to(&mut File::from(file), cap.saturating_add(1));
    let bytes = read.map_err(|error| ImageError::failed(&format_args!("cannot read /{path} of the image: {error}")))?;
    match bytes.len() as u64 > cap {
        true => Err(ImageError::invalid(&format_args!("/{path} of the image has more than {cap} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn layers(folders: &[&Path]) -> Vec<OwnedFd> {
        folders.iter().map(|folder| File::open(folder).unwrap().into()).collect()
    }

    fn two() -> (tempfile::TempDir, [std::path::PathBuf; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["low", "high"].map(|name| folder.path().join(name));
        paths.iter().for_each(|path| fs::create_dir_all(path.join("etc")).unwrap());
        (folder, paths)
    }

    #[test]
    fn the_highest_layer_that_has_the_file_counts() {
        let (_folder, [low, high]) = two();
        fs::write(low.join("etc/passwd"), "low").unwrap();
        fs::write(low.join("etc/group"), "low").unwrap();
        fs::write(high.join("etc/passwd"), "high").unwrap();
        let layers = layers(&[&low, &high]);
        assert_eq!(passwd_and_group(&layers).unwrap(), (b"high".to_vec(), b"low".to_vec()));
        assert_eq!(read_file(&layers, "etc/none", 10).unwrap(), None);
    }

    #[test]
    fn links_stay_in_the_image() {
        let (_folder, [low, high]) = two();
        fs::create_dir(low.join("data")).unwrap();
        fs::write(low.join("data/users"), "users").unwrap();
        symlink("../../../../../data/users", high.join("etc/passwd")).unwrap();
        symlink("/data/../../proc/self/environ", high.join("etc/group")).unwrap();
        let layers = layers(&[&low, &high]);
        assert_eq!(passwd_and_group(&layers).unwrap(), (b"users".to_vec(), Vec::new()));
        symlink("loop", high.join("etc/loop")).unwrap();
        assert!(read_file(&layers, "etc/loop", 10).unwrap_err().text().contains("no regular file"));
    }

    #[test]
    fn a_fifo_a_folder_or_a_huge_file_is_refused_at_once() {
        let (_folder, [low, high]) = two();
        nix::unistd::mkfifo(&low.join("etc/passwd"), Mode::S_IRWXU).unwrap();
        fs::create_dir(low.join("etc/group")).unwrap();
        let huge = File::create(low.join("etc/huge")).unwrap();
        huge.set_len(2 << 30).unwrap();
        let layers = layers(&[&low, &high]);
        assert!(read_file(&layers, "etc/passwd", 10).unwrap_err().text().contains("no regular file"));
        assert!(read_file(&layers, "etc/group", 10).unwrap_err().text().contains("folder"));
        assert!(read_file(&layers, "etc/huge", USER_FILE_BYTES).unwrap_err().text().contains("more than"));
    }

    #[test]
    fn users_are_read_strictly() {
        let spec = parse_user("www-data:33").unwrap().unwrap();
        assert_eq!((&*spec.user, spec.group.as_deref()), ("www-data", Some("33")));
        assert_eq!(parse_user("").unwrap(), None);
        for bad in ["1000:", ":1000", ":", "a:b:c"] {
            assert!(parse_user(bad).unwrap_err().text().contains("not of the form"), "{bad}");
        }
    }
}
