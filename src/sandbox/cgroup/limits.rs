//! A service's limits as values for files of the cgroup file system. Pure.
//!
//! Sources: `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/*.rst` of the kernel.
#![forbid(unsafe_code)]

use super::Controller;
use crate::plan::{Feature, IoLimit, Limits, Memory};

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

fn setting(controller: Controller, feature: Feature, file: &'static str, value: String, keeps: Keeps) -> Setting {
    Setting { controller, feature, file, value, keeps }
}

/// The files of a v2 group. With `reset` also those that put back what the limits do not name.
pub fn v2(limits: &Limits, io: &[IoDevice], reset: bool) -> Vec<Setting> {
    let mut out = Vec::with_capacity(8);
    let mut add = |controller, feature, file, value: Option<String>, keeps| {
        if let Some(value) = value {
            out.push(setting(controller, feature, file, value, keeps));
        }
    };
    let or_max = |value: Option<u64>| value.map(|value| value.to_string()).or(reset.then(|| "max".to_string()));
    let maximum = match limits.memory {
        Memory::Max(bytes) => Some(bytes.0),
        Memory::Unlimited => None,
    };
    use Controller::{Cpu, Cpuset, Memory as Mem, Pids};
    add(Mem, Feature::Memory, "memory.max", or_max(maximum), Keeps::WholePages);
    add(Mem, Feature::Memory, "memory.high", or_max(limits.memory_high.map(|high| high.0)), Keeps::WholePages);
    add(Mem, Feature::Swap, "memory.swap.max", Some(limits.swap.0.to_string()), Keeps::WholePages);
    add(Mem, Feature::Memory, "memory.oom.group", Some("1".to_string()), Keeps::Exactly);
    add(Pids, Feature::Pids, "pids.max", Some(limits.pids.to_string()), Keeps::Exactly);
    let quota = limits.cpu.map(|percent| format!("{} {CPU_PERIOD}", quota(percent)));
    add(Cpu, Feature::Cpu, "cpu.max", quota.or(reset.then(|| format!("max {CPU_PERIOD}"))), Keeps::Exactly);
    let weight = limits.cpu_weight.or(reset.then_some(100)).map(|weight| weight.to_string());
    add(Cpu, Feature::Cpu, "cpu.weight", weight, Keeps::Exactly);
    add(Cpuset, Feature::Cpus, "cpuset.cpus", limits.cpus.as_deref().map(str::to_string), Keeps::CpuList);
    for (major, minor, limit) in io {
        let rate = |name, value: Option<u64>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
        let value = [
            rate("rbps", limit.read_bps),
            rate("wbps", limit.write_bps),
            rate("riops", limit.read_iops),
            rate("wiops", limit.write_iops),
        ];
        let value = format!("{major}:{minor}{}", value.concat());
        add(Controller::Io, Feature::Io, "io.max", Some(value), Keeps::DeviceLine);
    }
    out
}

/// The files of a v1 group, in an order that a new group accepts. With `reset` also those that put back what the limits
/// do not name.
pub fn v1(limits: &Limits, io: &[IoDevice], reset: bool) -> Vec<Setting> {
    let mut out = Vec::with_capacity(8);
    let mut add = |controller, feature, file, value: Option<String>, keeps| {
        if let Some(value) = value {
            out.push(setting(controller, feature, file, value, keeps));
        }
    };
    use Controller::{Cpu, Cpuset, Memory as Mem, Pids};
    match limits.memory {
        Memory::Max(bytes) => {
            let both = bytes.0.saturating_add(limits.swap.0);
            add(Mem, Feature::Memory, "memory.limit_in_bytes", Some(bytes.0.to_string()), Keeps::WholePages);
            add(Mem, Feature::Swap, "memory.memsw.limit_in_bytes", Some(both.to_string()), Keeps::WholePages);
        }
        Memory::Unlimited => {
            // v1 limits memory and swap together: beside unlimited memory only "none" can be said of swap.
            let closed = (limits.swap.0 == 0).then(|| "0".to_string());
            add(Mem, Feature::Swap, "memory.swappiness", closed, Keeps::Exactly);
        }
    }
    let high = limits.memory_high.map(|high| high.0.to_string());
    add(Mem, Feature::Memory, "memory.soft_limit_in_bytes", high, Keeps::WholePages);
    add(Pids, Feature::Pids, "pids.max", Some(limits.pids.to_string()), Keeps::Exactly);
    let period = limits.cpu.map(|_| CPU_PERIOD.to_string());
    add(Cpu, Feature::Cpu, "cpu.cfs_period_us", period, Keeps::Exactly);
    let quota = limits.cpu.map(|percent| quota(percent).to_string());
    add(Cpu, Feature::Cpu, "cpu.cfs_quota_us", quota.or(reset.then(|| V1_UNLIMITED.to_string())), Keeps::Exactly);
    let weight = limits.cpu_weight.or(reset.then_some(100)).map(|weight| shares(weight).to_string());
    add(Cpu, Feature::Cpu, "cpu.shares", weight, Keeps::Exactly);
    add(Cpuset, Feature::Cpus, "cpuset.cpus", limits.cpus.as_deref().map(str::to_string), Keeps::CpuList);
    for (major, minor, limit) in io {
        let files = [
            ("blkio.throttle.read_bps_device", limit.read_bps),
            ("blkio.throttle.write_bps_device", limit.write_bps),
            ("blkio.throttle.read_iops_device", limit.read_iops),
            ("blkio.throttle.write_iops_device", limit.write_iops),
        ];
        for (file, rate) in files {
            let value = rate.map(|rate| format!("{major}:{minor} {rate}"));
            add(Controller::Io, Feature::Io, file, value, Keeps::DeviceLine);
        }
    }
    out
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
