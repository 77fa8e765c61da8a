//! The board's own file systems: each device is waited for, mounted, and never formatted; what cannot be had is replaced
//! by memory where the config says so, and said in any case.
#![forbid(unsafe_code)]

use super::early::{c_string, mountinfo};
use super::first::First;
use super::options::split;
use super::source::{SUPERBLOCK, Source, ext4_label, is_partition, value};
use crate::base::mountinfo::Mounted;
use crate::base::units::{Bytes, Millis};
use crate::plan::BoardMount;
use crate::supervisor::keeper::Say;
use crate::supervisor::run::monotonic;
use crate::sys::folder;
use crate::sys::{Errno, mount};
use nix::libc::{self, EBUSY, EINVAL, ENODEV, ENOENT, ENOMEDIUM, ENXIO};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks for a device.
const LOOK: Duration = Duration::from_millis(20);

/// Mounts each of `mounts`; the watchdog is fed between two looks for a device that is not there. What is not as the
/// config says is said, and counts among what is degraded.
pub fn mount_all(mounts: &[BoardMount], first: &mut First, say: Say<'_>) {
    for mount in mounts {
        let target = &mount.target;
        let done = match mounted_kind(&mountinfo(), target) {
            None => mount_one(mount, first, say),
            // By the first process before its failure, or by the kernel.
            Some(kind) if kind == mount.kind => continue,
            Some(kind) => {
                first.degraded.push(format!("{target} is a {kind}, not a {}, since before this program", mount.kind));
                continue;
            }
        };
        let Err(why) = done else { continue };
        let sentence = match mount.fallback {
            None => format!("{target} is not mounted: {why}"),
            Some(size) => match fall_back(target, size) {
                Ok(()) => format!("{target} is {size} of memory, which does not outlast a reboot: {why}"),
                Err(errno) => format!("{target} is not mounted, nor is memory in its place ({errno}): {why}"),
            },
        };
        say(format!("DEGRADED: {sentence}"));
        first.degraded.push(sentence);
    }
}

/// The type of the file system that is mounted at `target`, the topmost if there are several.
fn mounted_kind(mountinfo: &str, target: &str) -> Option<Box<str>> {
    let mut mounts = mountinfo.lines().rev().filter_map(Mounted::parse);
    mounts.find(|mount| mount.target == target).map(|mount| mount.kind.into())
}

fn mount_one(wanted: &BoardMount, first: &mut First, say: Say<'_>) -> Result<(), String> {
    folder::make_all(Path::new(&*wanted.target), 0o777)
        .map_err(|error| format!("the folder cannot be made: {error}; make it in the root file system"))?;
    let source = Source::parse(&wanted.source);
    let (flags, data) = split(&wanted.options);
    let deadline = monotonic().plus(wanted.wait);
    loop {
        let errno = match locate(source) {
            None => Errno(ENOENT),
            Some(device) => {
                let device = c_string(&device.display().to_string());
                let (kind, target) = (c_string(&wanted.kind), c_string(&wanted.target));
                match mount::mount_device(&device, &kind, &target, flags, &c_string(&data)) {
                    Ok(()) => return Ok(()),
                    Err(errno) => errno,
                }
            }
        };
        // The device is not there, or its driver is not done with it.
        if !matches!(errno.0, ENOENT | ENXIO | ENOMEDIUM) || monotonic() >= deadline {
            return Err(reason(wanted, errno));
        }
        first.feed(say);
        std::thread::sleep(LOOK);
    }
}

/// Why a mount failed, and what can be done about it.
fn reason(wanted: &BoardMount, errno: Errno) -> String {
    let BoardMount { source: name, kind, options, wait, .. } = wanted;
    match errno.0 {
        ENOENT if *wait == Millis(0) => format!("there is no {name}; \"wait\" gives its driver time"),
        ENOENT => {
            format!("{name} has not appeared within {wait}; its driver may be a module to list in device.modules")
        }
        ENODEV => format!("the kernel knows no file system {kind}; list its module in device.modules"),
        EINVAL if options.is_empty() => {
            format!("{name} holds no {kind} file system ({errno}); the kernel's log says more")
        }
        EINVAL => format!(
            "{name} holds no {kind} file system, or it knows no option {options:?} ({errno}); the kernel's log says more"
        ),
        EBUSY => format!("{name} is in use ({errno})"),
        libc::EUCLEAN | libc::EIO => {
            format!("{name} is damaged ({errno}); check it with the fsck of {kind}, coracle never repairs or formats")
        }
        _ => format!("{name} cannot be mounted as {kind}: {errno}; the kernel's log says more"),
    }
}

fn fall_back(target: &str, size: Bytes) -> Result<(), Errno> {
    let options = format!("mode=0755,size={}", size.0);
    mount::mount(c"tmpfs", &c_string(target), libc::MS_NOSUID | libc::MS_NODEV, &c_string(&options))
}

/// What mount(2) takes for the source; `None`: no such device yet.
fn locate(source: Source<'_>) -> Option<PathBuf> {
    match source {
        Source::Path(path) => Some(PathBuf::from(path)).filter(|path| path.exists()),
        Source::PartName(_) | Source::PartUuid(_) | Source::Label(_) => {
            find_in("/sys/class/block", &mut |entry, _| of_block(entry, source))
        }
        Source::Ubi(device, volume) => {
            let beginning = format!("ubi{device}_");
            find_in("/sys/class/ubi", &mut |entry, name| {
                let found = name.starts_with(&beginning)
                    && fs::read_to_string(entry.join("name")).is_ok_and(|name| name.trim() == volume);
                found.then(|| PathBuf::from(format!("ubi{device}:{volume}")))
            })
        }
        Source::None => Some(PathBuf::from("none")),
    }
}

/// What `find` first makes of an entry of `folder`, by its path and its name.
fn find_in(folder: &str, find: &mut dyn FnMut(&Path, &str) -> Option<PathBuf>) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        if let Some(found) = find(&entry.path(), &entry.file_name().to_string_lossy()) {
            return Some(found);
        }
    }
    None
}

/// The device of `entry` in /sys/class/block, if it is the one that is meant.
fn of_block(entry: &Path, source: Source<'_>) -> Option<PathBuf> {
    let (uevent, device) = uevent(entry)?;
    let meant = match source {
        Source::PartName(name) => value(&uevent, "PARTNAME") == Some(name),
        Source::PartUuid(uuid) => has_uuid(entry, uuid)?,
        Source::Label(label) => has_label(&device, label),
        _ => false,
    };
    meant.then_some(device)
}

/// What the kernel says of a block device, and its path.
fn uevent(entry: &Path) -> Option<(String, PathBuf)> {
    let text = fs::read_to_string(entry.join("uevent")).ok()?;
    let device = Path::new("/dev").join(value(&text, "DEVNAME")?);
    Some((text, device))
}

/// A disk has no number, and holds its partitions.
fn has_uuid(entry: &Path, uuid: &str) -> Option<bool> {
    let number = fs::read_to_string(entry.join("partition")).ok()?.trim().parse().ok()?;
    let disk = File::open(uevent(&entry.join(".."))?.1).ok()?;
    Some(is_partition(uuid, number, &|place| {
        let mut bytes = [0; 16];
        disk.read_exact_at(&mut bytes, place).ok().map(|()| bytes)
    }))
}

fn has_label(device: &Path, label: &str) -> bool {
    let mut block = [0; SUPERBLOCK.1];
    let read = File::open(device).and_then(|file| file.read_exact_at(&mut block, SUPERBLOCK.0));
    read.is_ok() && ext4_label(&block) == Some(label.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(source: &str, target: &Path) -> BoardMount {
        BoardMount {
            source: source.into(),
            target: target.display().to_string().into(),
            kind: "ext4".into(),
            options: "".into(),
            wait: Millis(60),
            fallback: None,
        }
    }

    #[test]
    fn a_device_that_does_not_come_is_waited_for_and_then_said() {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, mut said) = (First::default(), Vec::new());
        let wanted = [wanted("PARTNAME=no-such-partition", &folder.path().join("data"))];
        mount_all(&wanted, &mut first, &mut |text| said.push(text));
        let why = &first.degraded[0];
        assert!(why.contains("PARTNAME=no-such-partition has not appeared within 60ms"), "{why}");
        assert_eq!(said, [format!("DEGRADED: {why}")]);
    }

    #[test]
    fn what_is_mounted_already_is_known_by_its_type() {
        let text = "30 1 254:1 / /data rw - ext4 /dev/vda rw\n31 30 0:30 / /data rw - tmpfs none rw\n";
        assert_eq!(mounted_kind(text, "/data").as_deref(), Some("tmpfs"));
        assert_eq!(mounted_kind(text, "/dat"), None);
    }

    #[test]
    fn a_file_that_holds_no_file_system_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        fs::write(&file, vec![7; 4096]).unwrap();
        let wanted = [wanted(&file.display().to_string(), &folder.path().join("data"))];
        let mut first = First::default();
        mount_all(&wanted, &mut first, &mut |_| {});
        assert_eq!(first.degraded.len(), 1);
        assert_eq!(fs::read(&file).unwrap(), vec![7; 4096]);
    }
}
