//! Crash records: what is known of a service when an incident begins, kept in the state folder over a loss of power.
//!
//! One for each incident, which begins with the first failure and ends with a run that lasts; so many a day for the whole
//! device, because flash wears out; each bounded, the oldest removed first. A child writes it, since flash may take its time
//! and the loop must not: beside, synced, and renamed.
#![forbid(unsafe_code)]

use super::answer::{self, Why};
use super::event::Index;
use super::instance::service_dir;
use super::report;
use super::run::Supervisor;
use crate::log::entry::Entry;
use crate::log::format::{Line, Time};
use crate::log::reader::Reader;
use crate::sandbox::cgroup::Group;
use crate::sys::process::{self, Forked};
use crate::sys::{folder, meaning};
use nix::errno::Errno;
use nix::libc;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The folder in the state folder.
pub const FOLDER: &str = "crashes";
/// Records that are kept.
const KEPT: usize = 16;
/// Takes text that outlives a reset, where the kernel has it (kernel: `Documentation/admin-guide/ramoops.rst`).
const PMSG: &str = "/dev/pmsg0";
/// Processes that write one, of which it is known.
pub(super) const RECORDERS: usize = 16;
/// Bytes of the log in one record.
const LOG_BYTES: usize = 6 << 10;

impl Supervisor<'_> {
    /// An incident of service `index` begins.
    pub(super) fn crashed(&mut self, index: Index) {
        let at = usize::from(index);
        let (Some(service), Some(configured)) = (self.state.services().get(at), self.plan.services.get(at)) else {
            return;
        };
        let (name, device) = (configured.name.as_str(), &self.plan.device);
        let most = device.crash_records;
        let on_flash = most > 0 && self.records.spend(most, self.now);
        if most > 0 && !on_flash {
            let sentence = format_args!("no crash record of {name}: the {most} of this day are used up");
            self.notes.note(format_args!("crash-record/budget"), name, sentence);
        }
        // Memory, which does not wear out.
        let pmsg = OpenOptions::new().write(true).open(PMSG).ok();
        if !on_flash && pmsg.is_none() {
            return;
        }
        let folder = Path::new(&*device.state).join(FOLDER);
        match process::clone(0, None) {
            Ok(Forked::Child) => {
                let stats = self.slots.get(at).and_then(|slot| slot.group.as_ref()).map(Group::stats);
                // What stays open here would keep the loop awake when it is closed there.
                let _ = process::close_all_but(&[pmsg.as_ref().map_or(-1, AsRawFd::as_raw_fd)]);
                let mut text = format!(
                    "service {name}\ntime {}\nreason {}\n",
                    Time(super::init::stamp().wall_ns),
                    Why(&self.plan, index, service)
                );
                let stats = stats.unwrap_or_default();
                let mut add = |key: &str, value: Option<u64>| {
                    let _ = value.map(|value| writeln!(text, "{key} {value}"));
                };
                add("monotonic_ms", Some(self.now.0));
                add("instance", Some(service.number.into()));
                add("ran_ms", Some(service.ran.0));
                add("oom_kills", Some(service.oom_kills.into()));
                add("memory_peak", stats.memory_peak);
                add("memory_limit", stats.memory_limit);
                add("pids_limit", stats.pids_limit);
                add("cpu_usage_us", stats.cpu_usage);
                add("throttled", stats.throttled);
                last_lines(&service_dir(self.run.path(), name).join(report::RING), &mut text);
                // One write is one message. What the kernel does not take is on flash alone.
                let _ = pmsg.map(|mut pmsg| pmsg.write(text.as_bytes()));
                let kept = if on_flash { keep(&folder, name, &text) } else { Ok(()) };
                // All error numbers are such that an exit code holds them.
                process::exit_now(kept.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0))
            }
            Ok(Forked::Parent(_)) if !on_flash => {}
            Ok(Forked::Parent(pid)) => {
                // Of those beyond it is not told that they were in vain.
                let _ = self.recorders.push((pid, index));
                let sentence = format_args!("a crash record of {name} goes to {}", folder.display());
                self.notes.note(format_args!("crash-record"), name, sentence);
            }
            Err(errno) => self.report.line(format_args!("no crash record of {name}: {errno}")),
        }
    }

    /// A process that may have written a crash record has ended.
    pub(super) fn record_ended(&mut self, pid: i32, status: i32) {
        let Some(at) = self.recorders.iter().position(|(recorder, _)| *recorder == pid) else { return };
        let (_, index) = self.recorders.swap_remove(at);
        if status != 0 {
            let (name, why) = (answer::name(&self.plan, index), meaning(Errno::from_raw(status >> 8 & 0xff)));
            let folder = Path::new(&*self.plan.device.state).join(FOLDER);
            let sentence =
                format_args!("the crash record of {name} could not be written to {}: {why}", folder.display());
            self.notes.note(format_args!("crash-record/lost"), name, sentence);
            self.report.line(sentence);
        }
    }
}

/// Appends the last lines of the ring at `path`; a damaged one has none.
fn last_lines(path: &Path, text: &mut String) {
    let Some(mut reader) = File::open(path).ok().and_then(|file| Reader::open(file).ok().flatten()) else { return };
    let (mut lines, mut bytes) = (VecDeque::new(), 0);
    let _ = reader.read_new(&mut |entry: &Entry| {
        let line = Line(entry).to_string();
        bytes += line.len();
        lines.push_back(line);
        while bytes > LOG_BYTES {
            bytes -= lines.pop_front().map_or(bytes, |line: String| line.len());
        }
    });
    text.push_str("log\n");
    for line in &lines {
        text.push_str(line);
        text.push('\n');
    }
}

/// Writes a record behind those in `folder` and removes the oldest ones beyond [`KEPT`].
fn keep(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    folder::make_all(folder, 0o700)?;
    let mut kept: Vec<(u32, String)> = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let Ok(found) = entry.file_name().into_string() else { continue };
        if let Some(number) = found.split_once('-').and_then(|(number, _)| number.parse().ok()) {
            kept.push((number, found));
        }
    }
    crate::base::sort::sort(&mut kept);
    let next = kept.last().map_or(1, |(number, _)| number.saturating_add(1));
    // One at a time, or two of different services: the name keeps them apart.
    let beside = folder.join(format!(".{name}"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&beside, folder.join(format!("{next:06}-{name}")))) {
        // A full disk is not to hold half a record.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    let surplus = (kept.len() + 1).saturating_sub(KEPT);
    for (_, old) in kept.iter().take(surplus) {
        let _ = fs::remove_file(folder.join(old));
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_record_goes_first_and_what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state/crashes");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("notes.txt"), "").unwrap();
        for n in 0..20 {
            keep(&folder, if n % 2 == 0 { "web" } else { "web-2" }, &format!("record {n}")).unwrap();
        }
        let names = names(&folder);
        assert_eq!(names.len(), KEPT + 1);
        assert_eq!((names[0].as_str(), names[KEPT - 1].as_str()), ("000005-web", "000020-web-2"));
        assert_eq!(fs::read_to_string(folder.join("000020-web-2")).unwrap(), "record 19");
    }

    #[test]
    fn a_state_folder_that_cannot_be_written_is_an_error_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(keep(&dir.path().join("file/crashes"), "web", "").is_err());
    }

    #[test]
    fn the_last_lines_are_bounded() {
        use crate::log::entry::{Stamp, Stream};
        use crate::log::ring::{Writer, prepare};
        let dir = tempfile::tempdir().unwrap();
        let ring = prepare(File::open(dir.path()).unwrap(), "log", 64 << 10).unwrap();
        let mut writer = Writer::open(ring).unwrap();
        (0..2000).for_each(|n| writer.append(Stamp::default(), Stream::Out, false, format!("line {n}").as_bytes()));
        writer.flush();
        let mut text = String::new();
        last_lines(&dir.path().join("log"), &mut text);
        assert!(text.ends_with("line 1999\n") && text.len() < 2 * LOG_BYTES && text.lines().count() > 100, "{text}");
        last_lines(&dir.path().join("none"), &mut text);
    }
}
