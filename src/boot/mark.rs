//! The mark of a boot in the state folder: written once when it begins and once when it ends in order, so that the next
//! boot can tell a reboot from a power cut. Beside and renamed, so that a power cut leaves the old one or the new one.
#![forbid(unsafe_code)]

use super::cause::{Cause, Ending, Mark, NO_BOOT, count_resets, decide};
use crate::base::read::read_text;
use crate::supervisor::rundir;
use crate::sys::folder;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file system in memory that an initramfs can be (its magic number in the kernel's `linux/magic.h`).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// The mark's name in the state folder.
pub const NAME: &str = "boot";
/// No mark is longer, in bytes: four words, one of them a UUID, and room for words to come.
const LONGEST: u64 = 256;

/// Whether what is written to the state folder is there at the next boot: not where it lies, or would be made, in memory.
/// What cannot be told is taken for lasting.
pub fn outlives_boot(state: &Path) -> bool {
    let found = state.ancestors().find_map(|folder| statfs(folder).ok());
    found.is_none_or(|found| ![TMPFS_MAGIC, RAMFS_MAGIC].contains(&found.filesystem_type()))
}

/// What a boot knows of those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Why the board was last reset.
    pub cause: Cause,
    /// Resets in a row that we announced or the watchdog caused.
    pub resets: u8,
    /// The service for which the last one was announced.
    pub announced: Option<Box<str>>,
}

/// Says why the board was last reset, and marks that this boot runs. The sentence says why it could not be marked: then
/// the next boot takes this one for what the old mark says.
pub fn begin(state: &Path, status: u32) -> (Past, Option<String>) {
    let (last, bad) = match read(state) {
        Ok(last) => (last, None),
        Err(error) => (None, Some(sentence("read", state, &error))),
    };
    let boot_id = boot_id();
    let cause = decide(status, last.as_ref(), &boot_id);
    let (resets, announced) = count_resets(last.as_ref(), cause, &boot_id);
    let mark = Mark { ended: None, boot_id, cause, resets, announced: None };
    let unwritten = write(state, &mark).err().map(|error| sentence("write", state, &error));
    (Past { cause, resets, announced }, bad.or(unwritten))
}

/// Marks how this boot stands: that it has ended in order, after which nothing that is written is promised to stay, or
/// for which service a reset is announced.
///
/// # Errors
/// A sentence naming the file and the reason.
pub fn write_mark(state: &Path, past: &Past, ended: Option<Ending>, announced: Option<Box<str>>) -> Result<(), String> {
    let mark = Mark { ended, boot_id: boot_id(), cause: past.cause, resets: past.resets, announced };
    write(state, &mark).map_err(|error| sentence("write", state, &error))
}

fn sentence(action: &str, state: &Path, error: &io::Error) -> String {
    format!(
        "cannot {action} the mark of a clean shutdown {}: {error}; the cause of the next reset may be shown wrongly",
        path(state).display()
    )
}

fn path(state: &Path) -> PathBuf {
    state.join(NAME)
}

fn read(state: &Path) -> io::Result<Option<Mark>> {
    let mut file = match File::open(path(state)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    Ok(Mark::of_text(&read_text(&mut file, LONGEST)?))
}

fn write(state: &Path, mark: &Mark) -> io::Result<()> {
    folder::make_all(state, 0o700)?;
    let last = path(state);
    let beside = folder::beside(&last, ".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(mark.to_text().as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, &last)?;
    File::open(state)?.sync_all()
}

/// Which boot this is.
fn boot_id() -> Box<str> {
    match rundir::boot_id() {
        id if id.is_empty() => NO_BOOT.into(),
        id => id.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(cause: Cause) -> Past {
        Past { cause, resets: 0, announced: None }
    }

    fn cause_of((past, said): (Past, Option<String>)) -> (Cause, Option<String>) {
        (past.cause, said)
    }

    #[test]
    fn a_reset_that_was_announced_is_known_and_counted_at_the_next_boot() {
        let dir = tempfile::tempdir().unwrap();
        let (mut past, _) = begin(dir.path(), 0);
        for resets in 1..4 {
            // Announced, and then the watchdog whose driver keeps no record; the next time an orderly reboot.
            let ended = (resets == 2).then_some(Ending::Reboot);
            write_mark(dir.path(), &past, ended, Some("web".into())).unwrap();
            pretend_reboot(dir.path());
            past = begin(dir.path(), 0).0;
            assert_eq!((past.resets, past.announced.as_deref()), (resets, Some("web")));
        }
        pretend_reboot(dir.path());
        let (past, _) = begin(dir.path(), 0);
        assert_eq!((past.resets, past.announced), (3, None), "a power cut counts for nothing");
    }

    /// As after a boot of another time.
    fn pretend_reboot(state: &Path) {
        let mark = read(state).unwrap().unwrap();
        write(state, &Mark { boot_id: "before".into(), ..mark }).unwrap();
    }

    #[test]
    fn a_boot_knows_how_the_one_before_ended() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("not/there/yet");
        assert_eq!(cause_of(begin(&state, 0)), (Cause::Unknown, None));
        pretend_reboot(&state);
        assert_eq!(cause_of(begin(&state, 0)), (Cause::Unclean, None));
        assert_eq!(cause_of(begin(&state, 0)), (Cause::Unclean, None), "a new supervisor of the same boot");
        write_mark(&state, &past(Cause::Unclean), Some(Ending::Reboot), None).unwrap();
        pretend_reboot(&state);
        assert_eq!(cause_of(begin(&state, 0x20)), (Cause::Orderly(Ending::Reboot), None));
        pretend_reboot(&state);
        assert_eq!(cause_of(begin(&state, 0x20)), (Cause::Watchdog, None));
        let left: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [NAME], "nothing else stays in the state folder");
    }

    #[test]
    fn a_state_folder_that_cannot_be_written_is_said_and_costs_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let (past, said) = begin(&file.join("state"), 0x20);
        assert_eq!((past.cause, past.resets), (Cause::Watchdog, 1));
        assert!(said.unwrap().contains("file/state/boot"));
        assert!(
            write_mark(&file.join("state"), &past, Some(Ending::Halt), None).unwrap_err().contains("clean shutdown")
        );
    }

    #[test]
    fn a_mark_of_junk_or_without_end_is_no_mark() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path()), "1 running before unknown ".repeat(100_000)).unwrap();
        assert_eq!(begin(dir.path(), 0).0.cause, Cause::Unknown);
        fs::write(path(dir.path()), [0xff; 40]).unwrap();
        let (past, said) = begin(dir.path(), 0);
        assert_eq!(past.cause, Cause::Unknown);
        assert!(said.is_some(), "what could not be read is said");
        assert_eq!(cause_of(begin(dir.path(), 0)), (Cause::Unknown, None), "and replaced");
    }
}
