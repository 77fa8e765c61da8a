//! Folders, made and listed: code that is there once, where each use of std's would bring its own, and its own way to
//! make those above.

use nix::sys::stat::Mode;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Makes a folder: mkdir(2).
///
/// # Errors
/// What the file system says, `AlreadyExists` among it.
pub fn make(folder: &Path, mode: u32) -> io::Result<()> {
    Ok(nix::unistd::mkdir(folder, Mode::from_bits_truncate(mode))?)
}

/// Makes a folder, and those above it that are missing; one that is there is as good.
///
/// # Errors
/// What the file system says.
pub fn make_all(folder: &Path, mode: u32) -> io::Result<()> {
    let mut made = make(folder, mode);
    if let (Err(error), Some(above)) = (&made, folder.parent())
        && error.kind() == io::ErrorKind::NotFound
    {
        make_all(above, mode)?;
        made = make(folder, mode);
    }
    match made {
        Err(_) if folder.is_dir() => Ok(()),
        made => made,
    }
}

/// The path of what has the same name with `ending` behind it.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(ending);
    beside.into()
}

/// The paths of all that is in `folder`, in no order (readdir(3)).
///
/// # Errors
/// It cannot be opened or read.
pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_with_those_above_and_may_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        for _ in 0..2 {
            make_all(&deep, 0o700).unwrap();
        }
        assert_eq!(list(dir.path()).unwrap(), [dir.path().join("a")]);
        assert_eq!(make(&deep, 0o700).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(make_all(&file, 0o700).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(make_all(&file.join("x"), 0o700).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert!(make_all(Path::new(""), 0o700).is_err());
    }
}
