//! `coracle ps`: the services and what they are doing.
#![forbid(unsafe_code)]

use super::table::{Table, age};
use super::{RUN_DIR, output, services};
use crate::base::exit;
use crate::base::units::Bytes;
use crate::control::client::{Answer, Client, ClientError};
use crate::control::wire::{ServiceLine, StateWord, Verb};
use crate::log::format::JsonText;
use crate::sandbox::cgroup::{Group, Stats};
use crate::supervisor::instance::Instance;
use argh::FromArgs;
use std::path::{Path, PathBuf};

/// List the services: state, main process, time in that state, restarts, memory, reason.
///
/// Example: coracle ps --json
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct PsArgs {
    /// one JSON array instead of a table
    #[argh(switch)]
    json: bool,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
}

/// Runs the command. Without a supervisor it lists what still runs by the instance records and ends with code 3.
pub fn run(args: &PsArgs) -> u8 {
    let mut lines = Vec::new();
    let answer = Client::connect(&args.run_dir).and_then(|mut client| {
        client.ask(Verb::List, "", 0, &mut |answer| {
            if let Answer::Service(line) = answer {
                lines.push(line.clone());
            }
        })
    });
    match answer {
        Ok(done) if done.ok => {
            show(args, &lines);
            if !done.message.is_empty() && !args.json {
                output::complain(&format_args!("DEGRADED: {}", done.message));
            }
            exit::OK
        }
        Ok(done) => {
            output::complain(&done.message);
            done.code.max(exit::FAILED)
        }
        Err(error) => {
            if matches!(error, ClientError::NoSupervisor(_)) {
                let left: Vec<ServiceLine> = services::known(&args.run_dir)
                    .iter()
                    .filter_map(|name| unsupervised(&args.run_dir, name))
                    .collect();
                if !left.is_empty() {
                    show(args, &left);
                }
            }
            output::complain(&error);
            error.code()
        }
    }
}

/// A service that runs without a supervisor, from its instance record.
pub(super) fn unsupervised(run_dir: &Path, service: &str) -> Option<ServiceLine> {
    let instance = Instance::read(run_dir, service).ok()??;
    let reason = crate::control::wire::cut(&"nobody supervises it");
    instance.init.is_alive().then(|| ServiceLine {
        id: 0,
        kind: crate::control::wire::Kind::Service,
        name: crate::control::wire::cut(&service),
        state: StateWord::Running,
        health: heapless::String::new(),
        reason,
        image: heapless::String::new(),
        pid: instance.main.pid,
        init: instance.init.pid,
        age_ms: instance.init.age().unwrap_or(0),
        next_ms: 0,
        restarts: instance.number.saturating_sub(1),
        oom_kills: 0,
    })
}

/// What the kernel counts for a service that runs.
fn stats(run_dir: &Path, line: &ServiceLine) -> Option<Stats> {
    let running = line.pid > 0 || line.init > 0;
    let instance = running.then(|| Instance::read(run_dir, &line.name).ok().flatten()).flatten()?;
    Some(Group::open(&instance.cgroup).ok()?.stats())
}

fn show(args: &PsArgs, lines: &[ServiceLine]) {
    if args.json {
        let objects: Vec<String> = lines.iter().map(|line| json(line, stats(&args.run_dir, line))).collect();
        output::line(&format_args!("[{}]", objects.join(",\n ")));
        return;
    }
    let mut table = Table::new(&["NAME", "STATE", ">PID", ">AGE", ">RESTARTS", ">MEMORY", ">LIMIT", "REASON"]);
    for line in lines {
        let stats = stats(&args.run_dir, line).unwrap_or_default();
        let bytes = |value: Option<u64>| value.map_or(String::new(), |value| Bytes(value).to_string());
        let running = line.pid > 0;
        table.row(vec![
            line.name.to_string(),
            state(line),
            if running { line.pid.to_string() } else { String::new() },
            age(line.age_ms),
            line.restarts.to_string(),
            bytes(stats.memory),
            bytes(stats.memory_limit),
            reason(line),
        ]);
    }
    output::line(&table);
}

/// What a service is doing, as a sentence.
pub(super) fn sentence(line: Option<&ServiceLine>) -> String {
    let Some(line) = line else { return String::new() };
    let why = reason(line);
    let because = if why.is_empty() { "" } else { ": " };
    format!("{}: {} for {}{because}{why}", line.name, line.state.as_str(), age(line.age_ms))
}

/// As Docker shows it: `running (healthy)`.
fn state(line: &ServiceLine) -> String {
    match (line.state, line.health.as_str()) {
        (state, "") => state.as_str().to_owned(),
        (state, health) if health == state.as_str() => health.to_owned(),
        (state, health) => format!("{} ({health})", state.as_str()),
    }
}

fn reason(line: &ServiceLine) -> String {
    let mut text = line.reason.to_string();
    let starts = matches!(
        line.state,
        StateWord::Backoff | StateWord::CrashLoop | StateWord::Done | StateWord::Failed | StateWord::Waiting
    );
    if starts && line.next_ms > 0 {
        let again = if line.state == StateWord::Waiting { "" } else { " again" };
        text += &format!(", starts{again} in {}", age(line.next_ms));
    }
    if line.oom_kills > 0 {
        let times = if line.oom_kills == 1 { "once".to_owned() } else { format!("{} times", line.oom_kills) };
        let comma = if text.is_empty() { "" } else { "; " };
        text += &format!("{comma}out of memory {times}");
    }
    text
}

/// A service as one JSON object. Numbers that are not known are null.
fn json(line: &ServiceLine, stats: Option<Stats>) -> String {
    let text = |text: &str| JsonText(text.as_bytes()).to_string();
    let number = |value: Option<u64>| value.map_or("null".to_owned(), |value| value.to_string());
    let pid = |pid: i32| number(u64::try_from(pid).ok().filter(|pid| *pid > 0));
    let stats = stats.unwrap_or_default();
    format!(
        "{{\"name\":{},\"state\":{},\"health\":{},\"reason\":{},\"image\":{},\"pid\":{},\"init\":{},\"age_ms\":{},\"next_ms\":{},\
         \"restarts\":{},\"oom_kills\":{},\"memory\":{},\"memory_limit\":{},\"pids\":{}}}",
        text(&line.name),
        text(line.state.as_str()),
        if line.health.is_empty() { "null".to_owned() } else { text(&line.health) },
        text(&line.reason),
        text(&line.image),
        pid(line.pid),
        pid(line.init),
        line.age_ms,
        line.next_ms,
        line.restarts,
        line.oom_kills,
        number(stats.memory),
        number(stats.memory_limit),
        number(stats.pids),
    )
}
