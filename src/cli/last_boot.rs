//! What the kernel has kept of the boot before in memory that a reset leaves alone: pstore (kernel:
//! `Documentation/admin-guide/ramoops.rst`).
#![forbid(unsafe_code)]

use super::output;
use crate::base::exit;
use crate::base::read::read_up_to;
use crate::log::format::Safe;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where it is mounted.
const PSTORE: &str = "/sys/fs/pstore";
/// Read of one file; a board sets far less aside.
const FILE_BYTES: u64 = 1 << 20;

/// Shows all of it: what services said (pmsg), the console, the last words of a kernel that crashed.
pub fn show() -> u8 {
    match read(Path::new(PSTORE)) {
        Ok(files) => {
            for (name, bytes) in &files {
                output::line(&format_args!("{}:", Safe(name.as_bytes())));
                let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                text.split(|byte| *byte == b'\n').for_each(|line| output::line(&Safe(line)));
            }
            exit::OK
        }
        Err(sentence) => {
            output::complain(&sentence);
            exit::FAILED
        }
    }
}

/// The files that are there, by name, or why there is none.
fn read(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
    let place = folder.display();
    let found = std::fs::read_dir(folder).map_err(|_| {
        format!("this board keeps nothing over a reset: its kernel has no {place} (CONFIG_PSTORE, CONFIG_PSTORE_RAM)")
    })?;
    let mut paths: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
    crate::base::sort::sort(&mut paths);
    let file = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let read = File::open(path).and_then(|mut file| read_up_to(&mut file, FILE_BYTES));
        Some((name, read.unwrap_or_else(|error| format!("it cannot be read: {error}").into_bytes())))
    };
    let files: Vec<_> = paths.iter().filter_map(file).collect();
    match files.is_empty() {
        true => Err(format!(
            "{place} holds nothing of the last boot: it lost power, the board sets no memory aside (ramoops), or pstore is not \
             mounted there"
        )),
        false => Ok(files),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outlived_a_reset_is_read_by_name_and_nothing_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = read(folder.path()).unwrap_err();
        assert!(nothing.contains("holds nothing of the last boot"), "{nothing}");
        std::fs::write(folder.path().join("pmsg-ramoops-0"), "service web\n\x1b[2J\n").unwrap();
        std::fs::write(folder.path().join("console-ramoops-0"), b"[ 1.0] x\xff").unwrap();
        let files = read(folder.path()).unwrap();
        assert_eq!(files[0], ("console-ramoops-0".to_owned(), b"[ 1.0] x\xff".to_vec()));
        assert_eq!(files[1], ("pmsg-ramoops-0".to_owned(), b"service web\n\x1b[2J\n".to_vec()));
        let none = read(&folder.path().join("none")).unwrap_err();
        assert!(none.contains("this board keeps nothing over a reset"), "{none}");
    }
}
