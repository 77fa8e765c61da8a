//! What a group uses, read from its files by any process that may.

use super::{Controller, Group, file};

/// A group's use of resources; `None` where this kernel or group does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes of memory in use, page cache included.
    pub memory: Option<u64>,
    /// Of these, page cache of files that can be dropped under pressure.
    pub memory_files: Option<u64>,
    /// The most ever in use, bytes (v2: Linux 5.19).
    pub memory_peak: Option<u64>,
    /// The limit, bytes.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The most allowed.
    pub pids_limit: Option<u64>,
    /// Cpu time used, microseconds.
    pub cpu_usage: Option<u64>,
    /// Periods in which the cpu quota was used up.
    pub throttled: Option<u64>,
    /// Time spent waiting for the next period, microseconds.
    pub throttled_time: Option<u64>,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
    /// Bytes read from and written to block devices.
    pub io: Option<(u64, u64)>,
    /// Whether the group is frozen.
    pub frozen: bool,
}

/// v1 shows this or more where there is no limit: the largest multiple of a page in 63 bits, less a large page.
const V1_NO_LIMIT: u64 = (i64::MAX as u64) >> 20 << 20;

impl Group {
    /// Reads what the group uses.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { oom_kills: self.oom_kills(), frozen: self.frozen(), ..Stats::default() };
        for dir in &*self.dirs {
            let has = |controller| dir.controllers.has(controller);
            match dir.version {
                2 => {
                    if has(Controller::Memory) {
                        memory_v2(&dir.path, &mut stats);
                    }
                    cpu_v2(&dir.path, &mut stats);
                    stats.io = stats.io.or_else(|| file::read(&dir.path, "io.stat").ok().map(|text| io_v2(&text)));
                }
                _ => {
                    if has(Controller::Memory) {
                        memory_v1(&dir.path, &mut stats);
                    }
                    cpu_v1(&dir.path, &mut stats);
                    if has(Controller::Io) {
                        let text = file::read(&dir.path, "blkio.throttle.io_service_bytes_recursive");
                        stats.io = text.ok().map(|text| io_v1(&text));
                    }
                }
            }
            if has(Controller::Pids) {
                stats.pids = file::number(&dir.path, "pids.current");
                stats.pids_limit = file::number(&dir.path, "pids.max");
            }
        }
        stats
    }
}

fn memory_v2(path: &str, stats: &mut Stats) {
    stats.memory = file::number(path, "memory.current");
    stats.memory_peak = file::number(path, "memory.peak");
    stats.memory_limit = file::number(path, "memory.max");
    let detail = file::read(path, "memory.stat").unwrap_or_default();
    stats.memory_files = sum(&detail, "active_file", "inactive_file");
}

fn memory_v1(path: &str, stats: &mut Stats) {
    stats.memory = file::number(path, "memory.usage_in_bytes");
    stats.memory_peak = file::number(path, "memory.max_usage_in_bytes");
    stats.memory_limit = file::number(path, "memory.limit_in_bytes").filter(|limit| *limit < V1_NO_LIMIT);
    let detail = file::read(path, "memory.stat").unwrap_or_default();
    stats.memory_files = sum(&detail, "total_active_file", "total_inactive_file");
}

fn sum(text: &str, one: &str, other: &str) -> Option<u64> {
    Some(file::keyed(text, one)?.saturating_add(file::keyed(text, other)?))
}

fn cpu_v2(path: &str, stats: &mut Stats) {
    let Ok(text) = file::read(path, "cpu.stat") else { return };
    stats.cpu_usage = stats.cpu_usage.or_else(|| file::keyed(&text, "usage_usec"));
    stats.throttled = stats.throttled.or_else(|| file::keyed(&text, "nr_throttled"));
    stats.throttled_time = stats.throttled_time.or_else(|| file::keyed(&text, "throttled_usec"));
}

/// The files of both controllers are looked for by name: where they are mounted together, one folder has all.
fn cpu_v1(path: &str, stats: &mut Stats) {
    if let Some(nanoseconds) = file::number(path, "cpuacct.usage") {
        stats.cpu_usage = Some(nanoseconds / 1000);
    }
    if let Ok(text) = file::read(path, "cpu.stat") {
        stats.throttled = file::keyed(&text, "nr_throttled");
        stats.throttled_time = file::keyed(&text, "throttled_time").map(|nanoseconds| nanoseconds / 1000);
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 …` per device.
fn io_v2(text: &str) -> (u64, u64) {
    let total = |key: &str| {
        let values = text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
        values.fold(0, u64::saturating_add)
    };
    (total("rbytes="), total("wbytes="))
}

/// `8:0 Read 1` and `8:0 Write 2` per device, then `Total 3`.
fn io_v1(text: &str) -> (u64, u64) {
    let total = |kind: &str| {
        let values = text.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            if words.next()? == kind { words.next()?.parse::<u64>().ok() } else { None }
        });
        values.fold(0, u64::saturating_add)
    };
    (total("Read"), total("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::cgroup::Controllers;
    use crate::sandbox::cgroup::group::Dir;

    fn group(version: u8, files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let path = folder.path().to_str().unwrap().to_string();
        let controllers = Controllers::which(|_| true);
        (folder, Group { dirs: vec![Dir { version, controllers, path }].into(), ..Group::default() })
    }

    #[test]
    fn a_v2_group() {
        let (_folder, group) = group(
            2,
            &[
                ("memory.current", "5000\n"),
                ("memory.peak", "6000\n"),
                ("memory.max", "max\n"),
                ("memory.stat", "anon 1\nactive_file 7\ninactive_file 8\n"),
                ("memory.events", "low 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 1\n"),
                ("pids.current", "3\n"),
                ("pids.max", "64\n"),
                ("cpu.stat", "usage_usec 12\nnr_throttled 2\nthrottled_usec 9\n"),
                ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=1\n8:16 rbytes=5 wbytes=1 rios=9 wios=9\n"),
                ("cgroup.events", "populated 1\nfrozen 1\n"),
            ],
        );
        assert_eq!(
            group.stats(),
            Stats {
                memory: Some(5000),
                memory_files: Some(15),
                memory_peak: Some(6000),
                memory_limit: None,
                pids: Some(3),
                pids_limit: Some(64),
                cpu_usage: Some(12),
                throttled: Some(2),
                throttled_time: Some(9),
                oom_kills: 1,
                io: Some((15, 21)),
                frozen: true,
            }
        );
        assert!(!group.is_empty());
    }

    #[test]
    fn a_v1_group() {
        let (_folder, group) = group(
            1,
            &[
                ("memory.usage_in_bytes", "5000\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.stat", "cache 1\ntotal_inactive_file 8\ntotal_active_file 7\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"),
                ("cpuacct.usage", "12000\n"),
                ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n"),
                ("freezer.state", "THAWED\n"),
            ],
        );
        let stats = group.stats();
        assert_eq!((stats.memory, stats.memory_limit, stats.memory_files), (Some(5000), None, Some(15)));
        assert_eq!((stats.oom_kills, stats.cpu_usage, stats.io), (4, Some(12), Some((10, 20))));
        assert_eq!((stats.frozen, stats.pids), (false, None));
    }

    #[test]
    fn a_damaged_or_vanished_group_tells_nothing() {
        let (folder, group) = group(2, &[("memory.current", "many\n"), ("cpu.stat", "usage_usec x\n")]);
        assert_eq!(group.stats(), Stats::default());
        drop(folder);
        assert_eq!(group.stats(), Stats::default());
    }
}
