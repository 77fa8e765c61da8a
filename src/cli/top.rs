//! `coracle top`: the processes of a service as the host sees them.
//!
//! Everything is read from the host's `/proc`; nothing of the container runs.
#![forbid(unsafe_code)]

use super::table::Table;
use super::{RUN_DIR, output, services};
use crate::base::exit;
use crate::base::units::Bytes;
use crate::log::format::{JsonText, Safe};
use crate::sandbox::cgroup::Group;
use crate::supervisor::instance::Instance;
use argh::FromArgs;
use std::path::PathBuf;

/// Longest command shown, in bytes.
const COMMAND_BYTES: usize = 4096;

/// List the processes of a service: ids inside and on the host, user, state, cpu time, memory, command.
///
/// Example: coracle top broker
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct TopArgs {
    /// one JSON array instead of a table
    #[argh(switch)]
    json: bool,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// name of a service
    #[argh(positional)]
    service: String,
}

/// Runs the command.
pub fn run(args: &TopArgs) -> u8 {
    if !services::check(&args.run_dir, &args.service) {
        return exit::NO_SUCH_SERVICE;
    }
    let group = Instance::read(&args.run_dir, &args.service).and_then(|instance| {
        let running = instance.filter(|instance| instance.init.is_alive());
        let running = running.ok_or_else(|| format!("{} does not run: start it with `coracle start`", args.service))?;
        Group::open(&running.cgroup).map_err(|error| error.to_string())
    });
    let group = match group {
        Ok(group) => group,
        Err(sentence) => {
            output::complain(&sentence);
            return exit::FAILED;
        }
    };
    let mut rows: Vec<Row> = group.pids().into_iter().filter_map(Row::read).collect();
    crate::base::sort::sort_by(&mut rows, |a, b| a.inside.cmp(&b.inside));
    if args.json {
        let objects: Vec<String> = rows.iter().map(Row::json).collect();
        output::line(&format_args!("[{}]", objects.join(",\n ")));
    } else {
        let mut table = Table::new(&[">PID", ">HOST", ">UID", "STATE", ">CPU", ">MEMORY", "COMMAND"]);
        rows.iter().for_each(|row| table.row(row.cells()));
        output::line(&table);
    }
    exit::OK
}

/// One process.
struct Row {
    inside: i32,
    host: i32,
    uid: u32,
    state: String,
    cpu_ms: u64,
    resident: u64,
    command: Vec<u8>,
}

impl Row {
    /// Reads a process; `None` if it has ended meanwhile.
    fn read(pid: i32) -> Option<Row> {
        let status = std::fs::read(format!("/proc/{pid}/status")).ok()?;
        let status = String::from_utf8_lossy(&status);
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Row::parse(pid, &status, &stat, &command)
    }

    /// From proc_pid_status(5), proc_pid_stat(5) and proc_pid_cmdline(5).
    fn parse(pid: i32, status: &str, stat: &str, command: &[u8]) -> Option<Row> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
        // The last number is that of the innermost namespace.
        let inside = field("NSpid").and_then(|text| text.split_whitespace().next_back()?.parse().ok()).unwrap_or(pid);
        let after = stat.rsplit_once(')')?.1.strip_prefix(' ')?;
        let ticks = |index: usize| after.split(' ').nth(index).and_then(number).unwrap_or(0);
        let command = match command.strip_suffix(b"\0").unwrap_or(command) {
            // A kernel thread or a zombie has no words, only a name.
            b"" => format!("[{}]", field("Name")?.trim()).into_bytes(),
            words => words.iter().take(COMMAND_BYTES).map(|byte| if *byte == 0 { b' ' } else { *byte }).collect(),
        };
        Some(Row {
            inside,
            host: pid,
            uid: field("Uid").and_then(number).and_then(|uid| u32::try_from(uid).ok()).unwrap_or(u32::MAX),
            state: field("State")?.trim().chars().take(1).collect(),
            // 100 ticks a second on every architecture.
            cpu_ms: (ticks(11) + ticks(12)).saturating_mul(10),
            resident: field("VmRSS").and_then(number).unwrap_or(0).saturating_mul(1024),
            command,
        })
    }

    fn cells(&self) -> Vec<String> {
        let cpu = format!("{}.{:02}s", self.cpu_ms / 1000, self.cpu_ms % 1000 / 10);
        vec![
            self.inside.to_string(),
            self.host.to_string(),
            self.uid.to_string(),
            self.state.clone(),
            cpu,
            Bytes(self.resident).to_string(),
            Safe(&self.command).to_string(),
        ]
    }

    fn json(&self) -> String {
        format!(
            "{{\"pid\":{},\"host_pid\":{},\"uid\":{},\"state\":{},\"cpu_ms\":{},\"resident\":{},\"command\":{}}}",
            self.inside,
            self.host,
            self.uid,
            JsonText(self.state.as_bytes()),
            self.cpu_ms,
            self.resident,
            JsonText(&self.command)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_hostile_name_is_one_row() {
        let status =
            "Name:\ta) R 1\nState:\tS (sleeping)\nUid:\t1000\t1000\t1000\t1000\nNSpid:\t812\t7\nVmRSS:\t   64 kB\n";
        let stat = "812 (a) R 1) S 1 812 812 0 -1 4194304 90 0 0 0 150 25 0 0 20 0 1 0 5000 1 1";
        let row = Row::parse(812, status, stat, b"/bin/x\0\x1b[2J\0a b\0").unwrap();
        assert_eq!(row.cells(), ["7", "812", "1000", "S", "1.75s", "64K", "/bin/x \\x1b[2J a b"]);
        assert!(row.json().starts_with("{\"pid\":7,\"host_pid\":812,\"uid\":1000,\"state\":\"S\",\"cpu_ms\":1750,"));
        let zombie = Row::parse(1, status, stat, b"").unwrap();
        assert_eq!(zombie.command, b"[a) R 1]");
        assert!(Row::parse(1, "", "", b"").is_none());
    }
}
