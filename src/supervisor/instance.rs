//! The record of a running instance, `RUN/services/NAME/instance`: what `exec`, `top`, `stats` and the next supervisor
//! need to know, also when the supervisor that wrote it is dead.
//!
//! Lines of `key value`, the first one `coracle-instance 1`. Backslash and newline are written as `\\` and `\n`. A
//! reader skips keys that it does not know; a record of a later version is refused. It is written beside and renamed, so
//! it is never seen half.
#![forbid(unsafe_code)]

use crate::sys::folder;
use std::fmt::{self, Display, Write as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The version of the record.
const MAGIC: &str = "coracle-instance 1";
/// What the name of a record begins with whose instance is waited for no longer.
const ASIDE: &str = "left-";
/// Longest record read: 128 environment entries and commands are bounded by the config's 256 KiB.
const RECORD_BYTES: u64 = 512 * 1024;

/// A process, told apart from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Process {
    /// Its number as the supervisor's pid namespace sees it; 0: none.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks after boot.
    pub start: u64,
}

/// One running instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instance {
    /// The service.
    pub service: String,
    /// Which instance it is, counted from 1 since the supervisor began.
    pub number: u32,
    /// Its place in the start order: who takes down what a dead supervisor left goes from the highest to the lowest.
    pub order: u16,
    /// The number of its stop signal.
    pub stop_signal: u8,
    /// From the stop signal to the kill, milliseconds.
    pub stop_ms: u64,
    /// Its init: namespaces to enter are this process's.
    pub init: Process,
    /// Its main process; pid 0 until it runs.
    pub main: Process,
    /// Its group, as [`crate::sandbox::cgroup::Group::record`] gives it and `Group::open` takes it.
    pub cgroup: String,
    /// The user it runs as.
    pub uid: u32,
    /// The group it runs as.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities it keeps ([`crate::plan::CapSet`]).
    pub caps: u64,
    /// The word of its system call filter: `default`, `strict`, `log` or `off`.
    pub seccomp: String,
    /// Working directory inside.
    pub cwd: String,
    /// Environment as `KEY=value`.
    pub env: Vec<String>,
    /// Whether its network is the host's.
    pub host_network: bool,
    /// Whether its root is the host's: it has no namespaces to enter, but perhaps a network.
    pub host_root: bool,
}

/// The directory of a service in the run directory.
pub fn service_dir(run_dir: &Path, service: &str) -> PathBuf {
    run_dir.join("services").join(service)
}

/// The path of a service's record.
pub fn path(run_dir: &Path, service: &str) -> PathBuf {
    service_dir(run_dir, service).join("instance")
}

impl Instance {
    /// The record as text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{MAGIC}\n");
        let mut line = |key: &str, value: &dyn Display| {
            text.push_str(key);
            text.push(' ');
            // A string takes everything.
            let _ = write!(Line(&mut text), "{value}");
            text.push('\n');
        };
        line("service", &self.service);
        line("number", &self.number);
        line("init", &format_args!("{} {}", self.init.pid, self.init.start));
        line("main", &format_args!("{} {}", self.main.pid, self.main.start));
        line("order", &self.order);
        line("stop", &format_args!("{} {}", self.stop_signal, self.stop_ms));
        line("cgroup", &self.cgroup);
        line("uid", &self.uid);
        line("gid", &self.gid);
        let mut groups = String::new();
        for group in &self.groups {
            let _ = write!(groups, "{group} ");
        }
        line("groups", &groups.trim_end());
        line("caps", &format_args!("{:x}", self.caps));
        line("seccomp", &self.seccomp);
        line("cwd", &self.cwd);
        for entry in &self.env {
            line("env", entry);
        }
        line("network", &if self.host_network { "host" } else { "none" });
        line("root", &if self.host_root { "host" } else { "image" });
        text
    }

    /// Reads the text of a record.
    ///
    /// # Errors
    /// A half sentence naming what is wrong.
    pub fn parse(text: &str) -> Result<Instance, String> {
        let mut lines = text.lines();
        match lines.next() {
            Some(MAGIC) => {}
            other => return Err(format!("it begins with {:?}, not {MAGIC:?}", other.unwrap_or(""))),
        }
        let mut instance = Instance::default();
        for line in lines {
            instance.take(line).ok_or_else(|| format!("its line {line:?} cannot be read"))?;
        }
        Ok(instance)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = unescape(value)?;
        match key {
            "service" => self.service = value,
            "number" => self.number = number(&value)?,
            "init" => self.init = process(&value)?,
            "main" => self.main = process(&value)?,
            "order" => self.order = number(&value)?.try_into().ok()?,
            "stop" => {
                let (signal, ms) = value.split_once(' ')?;
                self.stop_signal = number(signal)?.try_into().ok()?;
                self.stop_ms = ms.parse().ok()?;
            }
            "cgroup" => self.cgroup = value,
            "uid" => self.uid = number(&value)?,
            "gid" => self.gid = number(&value)?,
            "groups" => {
                for group in value.split_whitespace() {
                    self.groups.push(number(group)?);
                }
            }
            "caps" => self.caps = u64::from_str_radix(&value, 16).ok()?,
            "seccomp" => self.seccomp = value,
            "cwd" => self.cwd = value,
            "env" => self.env.push(value),
            "network" => self.host_network = value == "host",
            "root" => self.host_root = value == "host",
            _ => {}
        }
        Some(())
    }

    /// Writes the record into the service's directory, which exists.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, run_dir: &Path) -> io::Result<()> {
        let last = path(run_dir, &self.service);
        let beside = folder::beside(&last, ".new");
        fs::write(&beside, self.to_text())?;
        fs::rename(&beside, &last)
    }

    /// Reads the record of `service`; `None`: there is no instance.
    ///
    /// # Errors
    /// A sentence naming the file and the reason.
    pub fn read(run_dir: &Path, service: &str) -> Result<Option<Instance>, String> {
        let path = path(run_dir, service);
        let bad = |why: String| format!("the instance record {} is of no use: {why}", path.display());
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(bad(error.to_string())),
            Ok(meta) if meta.len() > RECORD_BYTES => return Err(bad(format!("it has {} bytes", meta.len()))),
            Ok(_) => {}
        }
        let text = fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
        Instance::parse(&text).map(Some).map_err(bad)
    }
}

/// The record of instance `number` once it is waited for no longer.
fn aside(run_dir: &Path, service: &str, number: u32) -> PathBuf {
    service_dir(run_dir, service).join(format!("{ASIDE}{number}"))
}

/// Sets the record of instance `number` aside, which does not die.
pub fn put_aside(run_dir: &Path, service: &str, number: u32) {
    let _ = fs::rename(path(run_dir, service), aside(run_dir, service, number));
}

/// Instance `number`, whose record was set aside, is no more.
pub fn forget_aside(run_dir: &Path, service: &str, number: u32) {
    let _ = fs::remove_file(aside(run_dir, service, number));
}

/// The records of a service that were set aside. What cannot be read is of no instance that could be ended.
pub fn set_aside(run_dir: &Path, service: &str) -> Vec<Instance> {
    let entries = fs::read_dir(service_dir(run_dir, service)).into_iter().flatten().flatten();
    let aside = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(ASIDE.as_bytes()));
    aside.filter_map(|entry| Instance::parse(&fs::read_to_string(entry.path()).ok()?).ok()).collect()
}

impl Process {
    /// The process with number `pid` as it runs now, zombies included; `None`: there is none.
    pub fn find(pid: i32) -> Option<Process> {
        stat(pid).map(|(process, _)| process)
    }

    /// Whether this very process is still there and not a zombie.
    pub fn is_alive(self) -> bool {
        self.pid > 0 && stat(self.pid).is_some_and(|(now, state)| now == self && !matches!(state, 'Z' | 'X'))
    }
}

impl Process {
    /// How long ago it began, in milliseconds; `None` where `/proc/uptime` cannot be read.
    pub fn age(self) -> Option<u64> {
        let text = fs::read_to_string("/proc/uptime").ok()?;
        let (seconds, hundredths) = text.split(' ').next()?.split_once('.')?;
        let (seconds, hundredths) = (seconds.parse::<u64>().ok()?, hundredths.parse::<u64>().ok()?);
        // The kernel counts 100 ticks a second towards user space on every architecture that coracle runs on.
        let ticks = seconds.saturating_mul(100).saturating_add(hundredths);
        Some(ticks.saturating_sub(self.start).saturating_mul(10))
    }
}

/// The process with number `pid` and its state letter, from proc_pid_stat(5).
fn stat(pid: i32) -> Option<(Process, char)> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    // The second field is the command in parentheses and may itself hold spaces and parentheses.
    let rest = text.rsplit_once(')')?.1.strip_prefix(' ')?;
    let start = rest.split(' ').nth(19)?.parse().ok()?;
    Some((Process { pid, start }, rest.chars().next()?))
}

/// The rest of a line: what would end it is escaped.
struct Line<'a>(&'a mut String);

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (number, part) in text.split('\\').enumerate() {
            self.0.push_str(if number == 0 { "" } else { "\\\\" });
            for (number, part) in part.split('\n').enumerate() {
                self.0.push_str(if number == 0 { "" } else { "\\n" });
                self.0.push_str(part);
            }
        }
        Ok(())
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

fn process(value: &str) -> Option<Process> {
    let (pid, start) = value.split_once(' ')?;
    Some(Process { pid: pid.parse().ok()?, start: start.parse().ok()? })
}

fn unescape(value: &str) -> Option<String> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next()? {
                'n' => '\n',
                '\\' => '\\',
                _ => return None,
            },
            c => c,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Instance {
        Instance {
            service: "web".into(),
            number: 3,
            init: Process { pid: 10, start: 77 },
            main: Process { pid: 11, start: 78 },
            order: 4,
            stop_signal: 15,
            stop_ms: 10_000,
            cgroup: "1:memory:/sys/fs/cgroup/memory/coracle/web\t2::/a b".into(),
            uid: 1000,
            gid: 100,
            groups: vec![4, 20],
            caps: 1 << 38,
            seccomp: "default".into(),
            cwd: "/srv".into(),
            env: vec!["A=1".into(), "MULTI=a\nb\\n".into(), "EMPTY=".into()],
            host_network: true,
            host_root: true,
        }
    }

    #[test]
    fn records_read_as_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(service_dir(dir.path(), "web")).unwrap();
        assert_eq!(Instance::read(dir.path(), "web"), Ok(None));
        sample().write(dir.path()).unwrap();
        assert_eq!(Instance::read(dir.path(), "web"), Ok(Some(sample())));
    }

    #[test]
    fn unknown_keys_are_skipped_and_other_versions_refused() {
        let text = sample().to_text() + "later thing\n";
        assert_eq!(Instance::parse(&text), Ok(sample()));
        assert!(Instance::parse("coracle-instance 2\n").is_err());
        assert!(Instance::parse("").is_err());
        assert!(Instance::parse(&format!("{MAGIC}\ninit x\n")).is_err());
        assert!(Instance::parse(&format!("{MAGIC}\nenv \\x\n")).is_err());
    }

    #[test]
    fn a_process_is_told_by_its_start_time() {
        let own = Process::find(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        assert!(!Process { start: own.start + 1, ..own }.is_alive());
        assert!(!Process::default().is_alive());
    }
}
