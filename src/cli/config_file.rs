//! Reading a config file safely and making the plan of it, for every command that takes one.

use crate::base::limits::CONFIG_BYTES;
use crate::config::{self, Problems, Warning};
use crate::plan::Plan;
use core::fmt;
use std::fs::{Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The config file unless another one is named.
pub const DEFAULT: &str = "/etc/coracle/config.json";

/// Why a config file gave no plan.
#[derive(Debug)]
pub enum Fault {
    /// It could not be read; a sentence.
    Unreadable(String),
    /// It was read, and is wrong.
    Problems(Problems),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unreadable(sentence) => f.write_str(sentence),
            Fault::Problems(problems) => write!(f, "{problems}"),
        }
    }
}

/// Reads and judges the config file at `path`.
pub fn load(path: &Path) -> Result<(Plan, Vec<Warning>), Fault> {
    let bytes = read(path).map_err(Fault::Unreadable)?;
    config::load(&path.display().to_string(), &bytes).map_err(Fault::Problems)
}

/// The bytes of the file at `path`: a regular file of at most [`CONFIG_BYTES`] that does not change meanwhile.
///
/// Opened with `O_NONBLOCK`, so that neither a FIFO nor a device can hold it up; `O_NOCTTY` for terminals.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let fail = |action: &str, error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no config file {shown}; name the one that is meant"),
        _ => format!("cannot {action} the config file {shown}: {error}"),
    };
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    // A device can react to being opened, so the kind is looked at before and after.
    regular(path, &std::fs::metadata(path).map_err(|error| fail("open", error))?)?;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| fail("open", error))?;
    let before = file.metadata().map_err(|error| fail("look at", error))?;
    regular(path, &before)?;
    let mut bytes = Vec::new();
    let most = CONFIG_BYTES as u64 + 1;
    file.by_ref().take(most).read_to_end(&mut bytes).map_err(|error| fail("read", error))?;
    if bytes.len() > CONFIG_BYTES {
        return Err(format!("the config file {shown} has more than the {CONFIG_BYTES} bytes that a config may have"));
    }
    let after = file.metadata().map_err(|error| fail("look at", error))?;
    let state = |file: &Metadata| (file.size(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
    if state(&before) != state(&after) || before.size() != bytes.len() as u64 {
        return Err(format!("the config file {shown} changed while it was read; try again once it is written"));
    }
    Ok(bytes)
}

fn regular(path: &Path, found: &Metadata) -> Result<(), String> {
    let kind = found.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(format!("the config must be a regular file, and {} is {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    #[test]
    fn only_a_regular_file_of_bearable_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        std::fs::write(at("large"), vec![b' '; CONFIG_BYTES + 1]).unwrap();
        std::fs::write(at("good"), "{}").unwrap();
        std::os::unix::fs::symlink("good", at("link")).unwrap();
        assert_eq!(read(&at("good")).unwrap(), b"{}");
        assert_eq!(read(&at("link")).unwrap(), b"{}");
        assert!(read(&at("fifo")).unwrap_err().ends_with("fifo is a FIFO"));
        assert!(read(folder.path()).unwrap_err().ends_with("is a folder"));
        assert!(read(Path::new("/dev/zero")).unwrap_err().ends_with("/dev/zero is a device"));
        assert!(read(&at("large")).unwrap_err().contains("has more than the 262144 bytes"));
        assert!(read(&at("none")).unwrap_err().starts_with("there is no config file"));
    }
}
