//! The checksum of a layer's tree: names, types, owners, modes, times, attributes and content, in one deterministic order.
//!
//! It finds what flash and power cuts do to files. Whoever can write the store can write the record as well.
#![forbid(unsafe_code)]

use crate::sys::xattr;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use std::ffi::CString;
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use twox_hash::XxHash64;

/// Deepest tree walked: one descriptor for each level; unpacking allows less.
const DEPTH: usize = 512;

/// The checksum of the tree below `root`.
pub fn checksum(root: OwnedFd) -> io::Result<u64> {
    let mut sum = XxHash64::default();
    let mut buffer = vec![0u8; 64 << 10];
    folder(root, DEPTH, &mut sum, &mut buffer)?;
    Ok(sum.finish())
}

/// Adds a field with its length, so that no two trees give the same bytes.
fn field(sum: &mut XxHash64, bytes: &[u8]) {
    sum.write(&(bytes.len() as u64).to_le_bytes());
    sum.write(bytes);
}

fn meta(sum: &mut XxHash64, stat: &FileStat) {
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    #[allow(clippy::useless_conversion)]
    let device = if kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK { u64::from(stat.st_rdev) } else { 0 };
    let size = if kind == SFlag::S_IFREG { stat.st_size as u64 } else { 0 };
    // 64 bits each: time_t and off_t are 32 bits wide on some boards.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let numbers = [
        u64::from(stat.st_mode),
        u64::from(stat.st_uid),
        u64::from(stat.st_gid),
        device,
        size,
        i64::from(stat.st_mtime) as u64,
        stat.st_mtime_nsec as u64,
    ];
    numbers.iter().for_each(|number| sum.write(&number.to_le_bytes()));
}

fn attributes(sum: &mut XxHash64, fd: &OwnedFd) -> io::Result<()> {
    let failed = |errno: crate::sys::Errno| io::Error::from_raw_os_error(errno.0);
    for name in xattr::list(fd.as_fd()).map_err(failed)? {
        // What a security module adds is its own, not the image's.
        if name.as_bytes().starts_with(b"security.") || name.as_bytes().starts_with(b"system.") {
            continue;
        }
        field(sum, name.as_bytes());
        field(sum, &xattr::get(fd.as_fd(), &name).map_err(failed)?);
    }
    Ok(())
}

fn folder(fd: OwnedFd, depth: usize, sum: &mut XxHash64, buffer: &mut [u8]) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other("the tree is too deep"));
    }
    meta(sum, &fstat(&fd)?);
    attributes(sum, &fd)?;
    let mut dir = Dir::from_fd(fd.try_clone()?)?;
    let mut names = Vec::<CString>::new();
    for entry in dir.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    crate::base::sort::sort(&mut names);
    sum.write(&(names.len() as u64).to_le_bytes());
    for name in names {
        field(sum, name.as_bytes());
        entry(&fd, &name, depth, sum, buffer)?;
    }
    Ok(())
}

fn entry(parent: &OwnedFd, name: &CString, depth: usize, sum: &mut XxHash64, buffer: &mut [u8]) -> io::Result<()> {
    let stat = fstatat(parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => {
            let child = openat(parent, name.as_c_str(), flags | OFlag::O_DIRECTORY, Mode::empty())?;
            folder(child, depth - 1, sum, buffer)
        }
        SFlag::S_IFREG => {
            meta(sum, &stat);
            let file = openat(parent, name.as_c_str(), flags, Mode::empty())?;
            attributes(sum, &file)?;
            content(File::from(file), stat.st_size as u64, sum, buffer)
        }
        SFlag::S_IFLNK => {
            meta(sum, &stat);
            field(sum, readlinkat(parent, name.as_c_str())?.as_encoded_bytes());
            Ok(())
        }
        _ => {
            meta(sum, &stat);
            Ok(())
        }
    }
}

/// Adds what is in a file of `left` bytes, as many as there are.
fn content(mut file: File, mut left: u64, sum: &mut XxHash64, buffer: &mut [u8]) -> io::Result<()> {
    while left > 0 {
        match file.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                sum.write(buffer.get(..length).unwrap_or_default());
                left = left.saturating_sub(length as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn sum(path: &Path) -> u64 {
        checksum(File::open(path).unwrap().into()).unwrap()
    }

    #[test]
    fn every_change_of_a_tree_changes_its_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "content").unwrap();
        symlink("f", root.join("d/l")).unwrap();
        let mut seen = vec![sum(root)];
        assert_eq!(sum(root), seen[0]);
        let file = root.join("d/f");
        let times = fs::metadata(&file).unwrap().modified().unwrap();
        let keep_time = || File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
        let changes: [&dyn Fn(); 5] = [
            &|| {
                fs::write(&file, "contenT").unwrap();
                keep_time();
            },
            &|| {
                fs::write(&file, "").unwrap();
                keep_time();
            },
            &|| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap(),
            &|| {
                fs::remove_file(root.join("d/l")).unwrap();
                symlink("g", root.join("d/l")).unwrap();
            },
            &|| fs::remove_file(&file).unwrap(),
        ];
        for change in changes {
            change();
            let now = sum(root);
            assert!(!seen.contains(&now));
            seen.push(now);
        }
    }
}
