//! `coracle stats`: what services use, from the kernel's own counters, so it works with the supervisor dead.
#![forbid(unsafe_code)]

use super::table::Table;
use super::{RUN_DIR, output, services};
use crate::base::exit;
use crate::base::units::Bytes;
use crate::log::format::JsonText;
use crate::sandbox::cgroup::{Group, Stats};
use crate::supervisor::instance::Instance;
use argh::FromArgs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The time over which cpu use is measured.
const SAMPLE: Duration = Duration::from_millis(500);
/// The same with `--follow`: the time between two tables.
const FOLLOW: Duration = Duration::from_secs(1);
/// To the upper left corner, and clear from there on (ECMA-48 CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show what services use: memory against its limit, processes, cpu, disk, kills for lack of memory.
///
/// Example: coracle stats -f broker
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct StatsArgs {
    /// go on, with a table each second, until Ctrl-C
    #[argh(switch, short = 'f')]
    follow: bool,
    /// one JSON array instead of a table
    #[argh(switch)]
    json: bool,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// names of services; none: all that run
    #[argh(positional, arg_name = "service")]
    services: Vec<String>,
}

/// Runs the command.
pub fn run(args: &StatsArgs) -> u8 {
    if !args.services.iter().all(|name| services::check(&args.run_dir, name)) {
        return exit::NO_SUCH_SERVICE;
    }
    if !args.follow {
        return show(args, SAMPLE, "");
    }
    let clear = if std::io::stdout().is_terminal() && !args.json { CLEAR } else { "" };
    loop {
        show(args, FOLLOW, clear);
    }
}

/// Measures for the time `sample` and prints a table, behind `before`.
fn show(args: &StatsArgs, sample: Duration, before: &str) -> u8 {
    let all = args.services.is_empty();
    let names = if all { services::known(&args.run_dir) } else { args.services.clone() };
    let mut groups = Vec::new();
    let mut code = exit::OK;
    for name in names {
        match open(args, &name) {
            Ok(Some(group)) => groups.push((name, group)),
            Ok(None) if all || args.follow => {}
            Ok(None) => {
                output::complain(&format_args!("{name} does not run: start it with `coracle start {name}`"));
                code = exit::FAILED;
            }
            Err(sentence) => {
                output::complain(&sentence);
                code = exit::FAILED;
            }
        }
    }
    let begun = Instant::now();
    let used: Vec<Option<u64>> = groups.iter().map(|(_, group)| group.stats().cpu_usage).collect();
    if !groups.is_empty() || args.follow {
        std::thread::sleep(sample);
    }
    let rows = groups.iter().zip(used).map(|((name, group), before)| {
        let stats = group.stats();
        let used = stats.cpu_usage.zip(before).map(|(after, before)| after.saturating_sub(before));
        let passed = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        Row { name, stats, percent: used.map(|used| used.saturating_mul(100) / passed) }
    });
    let rows: Vec<Row<'_>> = rows.collect();
    if args.json {
        // With --follow each measurement is one line.
        let between = if args.follow { "," } else { ",\n " };
        let objects: Vec<String> = rows.iter().map(Row::json).collect();
        output::line(&format_args!("[{}]", objects.join(between)));
    } else {
        let headings =
            ["NAME", ">MEMORY", ">LIMIT", ">PEAK", ">PIDS", ">MAX", ">CPU", ">CPU TIME", ">READ", ">WRITTEN", ">OOM"];
        let mut table = Table::new(&headings);
        rows.iter().for_each(|row| table.row(row.cells()));
        output::line(&format_args!("{before}{table}"));
    }
    code
}

fn open(args: &StatsArgs, name: &str) -> Result<Option<Group>, String> {
    let Some(instance) = Instance::read(&args.run_dir, name)?.filter(|instance| instance.init.is_alive()) else {
        return Ok(None);
    };
    Group::open(&instance.cgroup).map(Some).map_err(|error| format!("{name}: {error}"))
}

struct Row<'a> {
    name: &'a str,
    stats: Stats,
    /// Cpu use since the measurement began, in percent of one core.
    percent: Option<u64>,
}

impl Row<'_> {
    fn cells(&self) -> Vec<String> {
        let bytes = |value: Option<u64>| value.map_or(String::new(), |value| Bytes(value).to_string());
        let number = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
        let time = |micros: u64| format!("{}.{:02}s", micros / 1_000_000, micros / 10_000 % 100);
        let Stats { memory, memory_limit, memory_peak, pids, pids_limit, cpu_usage, io, oom_kills, frozen, .. } =
            self.stats;
        let name = if frozen { format!("{} (paused)", self.name) } else { self.name.to_owned() };
        vec![
            name,
            bytes(memory),
            bytes(memory_limit),
            bytes(memory_peak),
            number(pids),
            number(pids_limit),
            self.percent.map_or(String::new(), |percent| format!("{percent}%")),
            cpu_usage.map_or(String::new(), time),
            bytes(io.map(|(read, _)| read)),
            bytes(io.map(|(_, written)| written)),
            oom_kills.to_string(),
        ]
    }

    /// One JSON object; bytes and microseconds. What the kernel does not tell is null.
    fn json(&self) -> String {
        let number = |value: Option<u64>| value.map_or("null".to_owned(), |value| value.to_string());
        let stats = &self.stats;
        format!(
            "{{\"name\":{},\"memory\":{},\"memory_files\":{},\"memory_limit\":{},\"memory_peak\":{},\"pids\":{},\
             \"pids_limit\":{},\"cpu_percent\":{},\"cpu_usage_us\":{},\"throttled\":{},\"throttled_us\":{},\
             \"read\":{},\"written\":{},\"oom_kills\":{},\"paused\":{}}}",
            JsonText(self.name.as_bytes()),
            number(stats.memory),
            number(stats.memory_files),
            number(stats.memory_limit),
            number(stats.memory_peak),
            number(stats.pids),
            number(stats.pids_limit),
            number(self.percent),
            number(stats.cpu_usage),
            number(stats.throttled),
            number(stats.throttled_time),
            number(stats.io.map(|(read, _)| read)),
            number(stats.io.map(|(_, written)| written)),
            stats.oom_kills,
            stats.frozen,
        )
    }
}
