//! What is in a folder: code that is there once, however many folders are listed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
