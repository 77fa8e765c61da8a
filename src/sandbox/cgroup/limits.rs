//! A service's limits as values for files of the cgroup file system. Pure.
//!
//! Sources: `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/*.rst` of the kernel.
#![forbid(unsafe_code)]

use super::Controller;
use crate::plan::{Feature, IoLimit, Limits, Memory};
use core::fmt::Write as _;

/// The period of a cpu quota in microseconds: the kernel's default.
const CPU_PERIOD: u64 = 100_000;

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The controller it belongs to.
    pub controller: Controller,
    /// What holds because of it.
    pub feature: Feature,
    /// The file's name.
    pub file: &'static str,
    /// What is written.
    pub value: String,
    /// What the file shows afterwards if the kernel kept it.
    pub keeps: Keeps,
}

/// How a file shows what was written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// As written.
    Exactly,
    /// As written, or less by less than a page: memory is counted in pages and rounded down.
    WholePages,
    /// The same set of numbers, written as the kernel likes.
    CpuList,
    /// A line `MAJOR:MINOR …` that holds every word written.
    DeviceLine,
}

/// A device with its number and limits.
pub type IoDevice<'a> = (u64, u64, &'a IoLimit);

/// What the kernel takes as "no limit" for memory in v1: it is shown as a huge number, so it is written on reuse only.
const V1_UNLIMITED: &str = "-1";

/// What a file belongs to, what holds because of it, and how it shows what was written.
type Kind = (Controller, Feature, Keeps);

const MEMORY: Kind = (Controller::Memory, Feature::Memory, Keeps::WholePages);
const SWAP: Kind = (Controller::Memory, Feature::Swap, Keeps::WholePages);
const PIDS: Kind = (Controller::Pids, Feature::Pids, Keeps::Exactly);
const CPU: Kind = (Controller::Cpu, Feature::Cpu, Keeps::Exactly);
const CPUS: Kind = (Controller::Cpuset, Feature::Cpus, Keeps::CpuList);
const IO: Kind = (Controller::Io, Feature::Io, Keeps::DeviceLine);

/// Settings being collected.
struct Settings(Vec<Setting>);

impl Settings {
    fn text(&mut self, (controller, feature, keeps): Kind, file: &'static str, value: String) {
        self.0.push(Setting { controller, feature, file, value, keeps });
    }

    /// A number, where there is one, or what stands for none.
    fn number(&mut self, kind: Kind, file: &'static str, value: Option<u64>, none: Option<&str>) {
        match (value, none) {
            (Some(value), _) => self.text(kind, file, value.to_string()),
            (None, Some(none)) => self.text(kind, file, none.to_owned()),
            (None, None) => {}
        }
    }

    fn cpus(&mut self, limits: &Limits) {
        if let Some(cpus) = &limits.cpus {
            self.text(CPUS, "cpuset.cpus", cpus.to_string());
        }
    }
}

/// The files of a v2 group. With `reset` also those that put back what the limits do not name.
pub fn v2(limits: &Limits, io: &[IoDevice], reset: bool) -> Vec<Setting> {
    let mut out = Settings(Vec::with_capacity(8));
    let most = reset.then_some("max");
    let maximum = match limits.memory {
        Memory::Max(bytes) => Some(bytes.0),
        Memory::Unlimited => None,
    };
    out.number(MEMORY, "memory.max", maximum, most);
    out.number(MEMORY, "memory.high", limits.memory_high.map(|high| high.0), most);
    out.number(SWAP, "memory.swap.max", Some(limits.swap.0), None);
    out.number((Controller::Memory, Feature::Memory, Keeps::Exactly), "memory.oom.group", Some(1), None);
    out.number(PIDS, "pids.max", Some(limits.pids.into()), None);
    match limits.cpu {
        Some(percent) => out.text(CPU, "cpu.max", format!("{} {CPU_PERIOD}", quota(percent))),
        None if reset => out.text(CPU, "cpu.max", format!("max {CPU_PERIOD}")),
        None => {}
    }
    let weight = limits.cpu_weight.or(reset.then_some(100));
    out.number(CPU, "cpu.weight", weight.map(u64::from), None);
    out.cpus(limits);
    for (major, minor, limit) in io {
        let mut value = format!("{major}:{minor}");
        let rates = [
            ("rbps", limit.read_bps),
            ("wbps", limit.write_bps),
            ("riops", limit.read_iops),
            ("wiops", limit.write_iops),
        ];
        for (name, rate) in rates {
            if let Some(rate) = rate {
                let _ = write!(value, " {name}={rate}");
            }
        }
        out.text(IO, "io.max", value);
    }
    out.0
}

/// The files of a v1 group, in an order that a new group accepts. With `reset` also those that put back what the limits
/// do not name.
pub fn v1(limits: &Limits, io: &[IoDevice], reset: bool) -> Vec<Setting> {
    let mut out = Settings(Vec::with_capacity(8));
    match limits.memory {
        Memory::Max(bytes) => {
            let both = bytes.0.saturating_add(limits.swap.0);
            out.number(MEMORY, "memory.limit_in_bytes", Some(bytes.0), None);
            out.number(SWAP, "memory.memsw.limit_in_bytes", Some(both), None);
        }
        Memory::Unlimited => {
            // v1 limits memory and swap together: beside unlimited memory only "none" can be said of swap.
            let closed = (limits.swap.0 == 0).then_some(0);
            out.number((Controller::Memory, Feature::Swap, Keeps::Exactly), "memory.swappiness", closed, None);
        }
    }
    out.number(MEMORY, "memory.soft_limit_in_bytes", limits.memory_high.map(|high| high.0), None);
    out.number(PIDS, "pids.max", Some(limits.pids.into()), None);
    out.number(CPU, "cpu.cfs_period_us", limits.cpu.map(|_| CPU_PERIOD), None);
    out.number(CPU, "cpu.cfs_quota_us", limits.cpu.map(quota), reset.then_some(V1_UNLIMITED));
    let weight = limits.cpu_weight.or(reset.then_some(100));
    out.number(CPU, "cpu.shares", weight.map(shares), None);
    out.cpus(limits);
    for (major, minor, limit) in io {
        let files = [
            ("blkio.throttle.read_bps_device", limit.read_bps),
            ("blkio.throttle.write_bps_device", limit.write_bps),
            ("blkio.throttle.read_iops_device", limit.read_iops),
            ("blkio.throttle.write_iops_device", limit.write_iops),
        ];
        for (file, rate) in files {
            if let Some(rate) = rate {
                out.text(IO, file, format!("{major}:{minor} {rate}"));
            }
        }
    }
    out.0
}

/// Microseconds of cpu time per period; the kernel's minimum is 1 ms.
fn quota(percent: u32) -> u64 {
    (u64::from(percent) * CPU_PERIOD / 100).max(1000)
}

/// A v2 weight (100 is the default) as v1 shares (1024 is the default).
fn shares(weight: u16) -> u64 {
    (u64::from(weight) * 1024 / 100).clamp(2, 262_144)
}

impl Keeps {
    /// Whether a file that `shows` this holds what was `written`.
    pub fn holds(self, written: &str, shows: &str, page: u64) -> bool {
        match self {
            Keeps::Exactly => written == shows,
            Keeps::WholePages => {
                written == shows
                    || match (written.parse::<u64>(), shows.parse::<u64>()) {
                        (Ok(written), Ok(shows)) => shows <= written && written - shows < page,
                        _ => false,
                    }
            }
            Keeps::CpuList => match (cpu_list(written), cpu_list(shows)) {
                (Some(written), Some(shows)) => !shows.is_empty() && written == shows,
                _ => false,
            },
            Keeps::DeviceLine => shows.lines().any(|line| {
                let mut shown = line.split(' ');
                let mut wanted = written.split(' ');
                shown.next() == wanted.next() && {
                    let shown: Vec<&str> = shown.collect();
                    wanted.all(|word| shown.contains(&word))
                }
            }),
        }
    }
}

/// The cores in a list such as `0-2,5`, sorted, each once; `None` if it is no such list.
pub fn cpu_list(text: &str) -> Option<Vec<u16>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        if first > last || last > 8191 {
            return None;
        }
        cores.extend(first..=last);
    }
    crate::base::sort::sort(&mut cores);
    cores.dedup();
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Bytes;

    fn text(settings: &[Setting]) -> Vec<String> {
        settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    fn full() -> Limits {
        Limits {
            memory: Memory::Max(Bytes(24 << 20)),
            memory_high: Some(Bytes(20 << 20)),
            swap: Bytes(1 << 20),
            pids: 16,
            cpu: Some(25),
            cpu_weight: Some(50),
            cpus: Some("0-1".into()),
            io: Vec::new(),
        }
    }

    #[test]
    fn all_limits_on_v2() {
        assert_eq!(
            text(&v2(&full(), &[], false)),
            [
                "memory.max=25165824",
                "memory.high=20971520",
                "memory.swap.max=1048576",
                "memory.oom.group=1",
                "pids.max=16",
                "cpu.max=25000 100000",
                "cpu.weight=50",
                "cpuset.cpus=0-1",
            ]
        );
    }

    #[test]
    fn all_limits_on_v1_where_swap_counts_together_with_memory() {
        assert_eq!(
            text(&v1(&full(), &[], false)),
            [
                "memory.limit_in_bytes=25165824",
                "memory.memsw.limit_in_bytes=26214400",
                "memory.soft_limit_in_bytes=20971520",
                "pids.max=16",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=25000",
                "cpu.shares=512",
                "cpuset.cpus=0-1",
            ]
        );
    }

    #[test]
    fn swap_is_closed_also_beside_unlimited_memory() {
        let limits = Limits::with_memory(Memory::Unlimited);
        assert!(text(&v1(&limits, &[], false)).contains(&"memory.swappiness=0".to_string()));
        assert!(text(&v2(&limits, &[], false)).contains(&"memory.swap.max=0".to_string()));
    }

    #[test]
    fn a_reused_group_loses_limits_that_are_no_longer_asked_for() {
        let limits = Limits::with_memory(Memory::Unlimited);
        let reset = text(&v2(&limits, &[], true));
        assert!(reset.contains(&"memory.max=max".to_string()) && reset.contains(&"cpu.max=max 100000".to_string()));
        assert!(text(&v1(&limits, &[], true)).contains(&"cpu.cfs_quota_us=-1".to_string()));
    }

    #[test]
    fn block_device_rates() {
        let limit = IoLimit {
            device: "/dev/sda".into(),
            read_bps: Some(1 << 20),
            write_bps: None,
            read_iops: None,
            write_iops: Some(100),
        };
        let io = [(8, 0, &limit)];
        let limits = Limits::with_memory(Memory::Unlimited);
        assert!(text(&v2(&limits, &io, false)).contains(&"io.max=8:0 rbps=1048576 wiops=100".to_string()));
        assert!(text(&v1(&limits, &io, false)).contains(&"blkio.throttle.write_iops_device=8:0 100".to_string()));
        let shows = "8:16 rbps=1 wbps=max\n8:0 rbps=1048576 wbps=max riops=max wiops=100";
        assert!(Keeps::DeviceLine.holds("8:0 rbps=1048576 wiops=100", shows, 4096));
        assert!(!Keeps::DeviceLine.holds("8:0 rbps=9", shows, 4096));
    }

    #[test]
    fn memory_may_be_rounded_down_by_less_than_a_page_and_never_up() {
        assert!(Keeps::WholePages.holds("8191", "4096", 4096));
        assert!(!Keeps::WholePages.holds("8192", "4096", 4096));
        assert!(!Keeps::WholePages.holds("8191", "8192", 4096));
        assert!(!Keeps::WholePages.holds("8191", "max", 4096));
    }

    #[test]
    fn cpu_lists_compare_as_sets() {
        assert!(Keeps::CpuList.holds("0,1,2,5", "0-2,5", 4096));
        assert!(!Keeps::CpuList.holds("0-3", "0-1", 4096));
        assert!(!Keeps::CpuList.holds("0-x", "0-1", 4096));
        assert_eq!(cpu_list("0-99999"), None);
        assert_eq!(cpu_list("3-1"), None);
    }

    #[test]
    fn the_smallest_quota_is_one_millisecond() {
        assert_eq!(quota(0), 1000);
        assert_eq!(quota(150), 150_000);
        assert_eq!((shares(100), shares(1), shares(10_000)), (1024, 10, 102_400));
    }
}
