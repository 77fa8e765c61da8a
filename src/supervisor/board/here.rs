//! The board's files, seen from the board itself or beneath the root of a file system that is being built.

use crate::base::units::Bytes;
use crate::image::reference::{Found, Reference};
use crate::image::store::Baked;
use crate::plan::Device;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

/// Symbolic links followed in one path, as the kernel does (path_resolution(7)).
const LINKS: usize = 40;

/// Folders that are empty until the board has booted.
const RUNTIME: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];

/// The board's files.
#[derive(Debug, Clone)]
pub struct Files {
    root: Option<PathBuf>,
    /// A folder of this machine with archives that the board will not have as files.
    archives: Option<PathBuf>,
    /// The board's device nodes, where they were listed on it: path, and whether it is a block device.
    devices: Option<Vec<(Box<str>, bool)>>,
}

impl Files {
    /// The running system's.
    pub fn here() -> Files {
        Files { root: None, archives: None, devices: None }
    }

    /// Whether the board is the running system.
    pub fn are_here(&self) -> bool {
        self.root.is_none() && self.devices.is_none()
    }

    /// Those beneath `root`, whose links are followed as they will be on the board.
    pub fn beneath(root: &Path) -> Files {
        Files { root: Some(root.to_path_buf()), archives: None, devices: None }
    }

    /// The same, with a folder of this machine in which images are looked for that are not beneath the root.
    pub fn with_archives(self, archives: Option<PathBuf>) -> Files {
        Files { archives, ..self }
    }

    /// The same, with the device nodes that the board has.
    pub fn with_devices(self, devices: Vec<(Box<str>, bool)>) -> Files {
        Files { devices: Some(devices), ..self }
    }

    /// Where `path` of the board is on this machine, all links followed.
    pub fn place(&self, path: &Path) -> io::Result<PathBuf> {
        match &self.root {
            None => fs::canonicalize(path),
            Some(root) => resolve(root, path),
        }
    }

    /// Whether `path` can be told to be there or not: before the board has booted, /dev or /run hold nothing.
    pub fn known(&self, path: &Path) -> bool {
        self.root.is_none() || !RUNTIME.iter().any(|folder| path.starts_with(folder))
    }

    /// What is at `path`, all links followed.
    fn metadata(&self, path: &Path) -> io::Result<fs::Metadata> {
        match &self.root {
            // The kernel follows them itself, at a fifth of the price.
            None => fs::metadata(path),
            Some(_) => self.place(path).and_then(fs::metadata),
        }
    }

    /// Whether there is something at `path`.
    pub fn exists(&self, path: &Path) -> bool {
        self.metadata(path).is_ok()
    }

    /// The read-only store of a device as it is on this machine.
    pub fn baked(&self, device: &Device) -> Option<Baked> {
        let folder = Path::new(&**device.store.as_ref()?);
        // One that is not there holds nothing.
        Some(Baked::at(&self.place(folder).unwrap_or_else(|_| PathBuf::from(self.shown(folder)))))
    }

    /// Where the file of an image is, or would be: one that the read-only store holds needs none.
    pub fn image(&self, device: &Device, image: &Reference) -> Option<Found> {
        let baked = self.baked(device);
        let held = |path: &Path| baked.as_ref().is_some_and(|baked| baked.has_image(&image.located_at(path)));
        let found = image.find(&device.images, |path| self.exists(path) || held(path));
        // One that is baked of an archive elsewhere is called as if it lay in the first folder.
        found.or_else(|| self.elsewhere(image).and_then(|_| image.find(&device.images, |_| true)))
    }

    /// The file or folder on this machine of an image that the board looks for at `path`; `None` if there is none.
    pub fn archive(&self, path: &Path, image: &Reference) -> Option<PathBuf> {
        match &self.root {
            // Where every file is its own place it need not be looked for once more.
            None if self.archives.is_none() => Some(path.to_owned()),
            _ if self.exists(path) => self.place(path).ok(),
            _ => self.elsewhere(image),
        }
    }

    /// The archive that the folder of archives has for an image.
    fn elsewhere(&self, image: &Reference) -> Option<PathBuf> {
        let file = Path::new(&*image.file);
        let name = if file.is_absolute() { Path::new(file.file_name()?) } else { file };
        self.archives.as_ref().map(|folder| folder.join(name)).filter(|path| path.exists())
    }

    /// `path` as a person finds it on this machine.
    pub fn shown(&self, path: &Path) -> String {
        match &self.root {
            None => path.display().to_string(),
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)).display().to_string(),
        }
    }

    /// What keeps `path` from being a device (a block device if `block`), as the end of a sentence.
    pub fn device_fault(&self, path: &Path, block: bool) -> Option<String> {
        let listed = self.devices.as_ref().filter(|_| path.starts_with("/dev"));
        let (is_block, is_char) = match listed.map(|list| list.iter().find(|(known, _)| Path::new(&**known) == path)) {
            Some(Some((_, block))) => (*block, !block),
            Some(None) => return Some("is missing".into()),
            None => match self.metadata(path).map(|found| found.file_type()) {
                Ok(found) => (found.is_block_device(), found.is_char_device()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Some("is missing".into()),
                Err(error) => return Some(format!("cannot be looked at: {error}")),
            },
        };
        match block {
            true if !is_block => Some("is not a block device".into()),
            false if !is_block && !is_char => Some("is not a device".into()),
            _ => None,
        }
    }
}

/// The machine's memory, as proc_meminfo(5) shows it.
pub fn memory() -> Option<Bytes> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

/// Follows `path` beneath `root`: links that are absolute begin at `root`, and `..` ends there.
fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut links = 0;
    let mut place = root.to_path_buf();
    let mut depth = 0usize;
    let mut rest = Vec::new();
    let add = |rest: &mut Vec<OsString>, path: &Path| {
        for part in path.components().rev() {
            rest.push(part.as_os_str().into());
        }
    };
    add(&mut rest, path);
    while let Some(part) = rest.pop() {
        match Path::new(&part).components().next() {
            Some(Component::Normal(name)) => {
                let next = place.join(name);
                if !fs::symlink_metadata(&next)?.file_type().is_symlink() {
                    place = next;
                    depth += 1;
                    continue;
                }
                links += 1;
                if links > LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                add(&mut rest, &fs::read_link(&next)?);
            }
            Some(Component::ParentDir) if depth > 0 => {
                place.pop();
                depth -= 1;
            }
            Some(Component::RootDir) => {
                place = root.to_path_buf();
                depth = 0;
            }
            _ => {}
        }
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_a_root_that_is_being_built_stay_in_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("data/images")).unwrap();
        fs::write(at("data/images/web.tar"), "").unwrap();
        symlink("/data/images", at("images")).unwrap();
        symlink("../../../../data/./images/web.tar", at("data/up")).unwrap();
        symlink("/loop", at("loop")).unwrap();
        let files = Files::beneath(root.path());
        assert!(files.exists(Path::new("/images/web.tar")));
        assert!(files.exists(Path::new("/data/up")));
        assert!(!files.exists(Path::new("/loop")));
        assert!(!files.exists(Path::new("/etc/passwd")), "the build host's own files do not count");
        assert!(!files.exists(Path::new("/../../../../../../../../etc/passwd")));
        assert!(!files.known(Path::new("/dev/ttyS1")));
    }
}
