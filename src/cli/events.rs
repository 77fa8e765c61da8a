//! `coracle events` and `coracle why`: what the supervisor has done and why, from its event ring, so it works with the
//! supervisor dead.
#![forbid(unsafe_code)]

use super::tail::{Tail, Watch, print_lost};
use super::{RUN_DIR, output, ps, services};
use crate::base::exit;
use crate::control::client::{Answer, Client, ClientError};
use crate::control::wire::{ServiceLine, Verb};
use crate::log::entry::Entry;
use crate::log::format::{JsonText, Line, Safe, Time};
use crate::supervisor::events::{RING, Step};
use crate::supervisor::instance::service_dir;
use crate::supervisor::report;
use argh::FromArgs;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Steps of a service that `why` shows.
const STEPS: usize = 10;
/// Lines of its log that `why` shows.
const LINES: usize = 5;

/// Show what the supervisor did with services, each step with its time and a code for its reason. Works without a supervisor.
///
/// Example: coracle events -f broker
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct EventsArgs {
    /// go on with what comes
    #[argh(switch, short = 'f')]
    follow: bool,
    /// only the last so many
    #[argh(option, short = 'n')]
    lines: Option<usize>,
    /// one JSON object per line
    #[argh(switch)]
    json: bool,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// names of services; none: all, and the board
    #[argh(positional, arg_name = "service")]
    services: Vec<String>,
}

/// Say why a service is in its state: what it is doing, the last steps that led there, its last lines. Works without a
/// supervisor.
///
/// Example: coracle why broker
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct WhyArgs {
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// name of a service
    #[argh(positional)]
    service: String,
}

/// `coracle events`.
pub fn events(args: &EventsArgs) -> u8 {
    done(show(args))
}

/// `coracle why`.
pub fn why(args: &WhyArgs) -> u8 {
    let mut found: Option<ServiceLine> = None;
    let answer = Client::connect(&args.run_dir).and_then(|mut client| {
        client.ask(Verb::List, &args.service, 0, &mut |answer| {
            if let Answer::Service(line) = answer {
                found = Some(line.clone());
            }
        })
    });
    let headline = match answer {
        Ok(done) if done.ok => ps::sentence(found.as_ref()),
        Ok(done) => {
            output::complain(&done.message);
            return done.code.max(exit::FAILED);
        }
        Err(error @ ClientError::NoSupervisor(_)) => {
            if !services::check(&args.run_dir, &args.service) {
                return exit::NO_SUCH_SERVICE;
            }
            match ps::unsupervised(&args.run_dir, &args.service) {
                Some(line) => ps::sentence(Some(&line)),
                None => format!("{} does not run: {error}", args.service),
            }
        }
        Err(error) => {
            output::complain(&error);
            return error.code();
        }
    };
    output::line(&Safe(headline.as_bytes()));
    done(history(&args.run_dir, &args.service))
}

fn done(result: Result<(), String>) -> u8 {
    match result {
        Ok(()) => exit::OK,
        Err(sentence) => {
            output::complain(&sentence);
            exit::FAILED
        }
    }
}

/// The last steps of a service and the last lines of its log.
fn history(run_dir: &Path, service: &str) -> Result<(), String> {
    let mut steps = Last::new(STEPS);
    let mut events = Tail::new(run_dir.join(RING));
    events.read(&mut |entry| {
        Step::of(entry.text).filter(|step| step.service == service).inspect(|step| steps.push(text(entry, step)));
    })?;
    steps.show("what happened:");
    let mut lines = Last::new(LINES);
    let mut log = Tail::new(service_dir(run_dir, service).join(report::RING));
    log.read(&mut |entry| lines.push(Line(entry).to_string()))?;
    lines.show("its last lines:");
    Ok(())
}

/// The last few of many lines.
struct Last {
    most: usize,
    lines: VecDeque<String>,
}

impl Last {
    fn new(most: usize) -> Last {
        Last { most, lines: VecDeque::new() }
    }

    fn push(&mut self, line: String) {
        if self.lines.len() >= self.most {
            self.lines.pop_front();
        }
        if self.most > 0 {
            self.lines.push_back(line);
        }
    }

    fn show(&self, heading: &str) {
        if !self.lines.is_empty() {
            output::line(&heading);
            self.lines.iter().for_each(|line| output::line(&format_args!("  {line}")));
        }
    }
}

fn show(args: &EventsArgs) -> Result<(), String> {
    let run_dir = &args.run_dir;
    if !run_dir.join(RING).exists() {
        return Err(format!("no supervisor has run in {}: start one with `coracle up`", run_dir.display()));
    }
    // Watched before it is read, so that nothing falls between.
    let watch = if args.follow { Some(Watch::new(&mut [run_dir.clone()].into_iter())?) } else { None };
    let mut ring = Tail::new(run_dir.join(RING));
    let wanted = |step: &Step| args.services.is_empty() || args.services.iter().any(|name| name == step.service);
    let line = |entry: &Entry| {
        let step = Step::of(entry.text).filter(wanted)?;
        Some(if args.json { json(entry, &step) } else { text(entry, &step) })
    };
    let mut last = Last::new(args.lines.unwrap_or(usize::MAX));
    let lost = ring.read(&mut |entry| {
        line(entry).into_iter().for_each(|line| last.push(line));
    })?;
    if lost > 0 && args.lines.is_none() {
        print_lost(args.json, None, lost, "earlier events overwritten");
    }
    last.lines.iter().for_each(|line| output::line(line));
    let Some(watch) = watch else { return Ok(()) };
    loop {
        watch.wait()?;
        let lost = ring.read(&mut |entry| {
            line(entry).into_iter().for_each(|line| output::line(&line));
        })?;
        if lost > 0 {
            print_lost(args.json, None, lost, "events lost while reading");
        }
    }
}

fn text(entry: &Entry, step: &Step) -> String {
    format!("{} {:<18} {}", Time(entry.stamp.wall_ns), step.code, Safe(step.sentence))
}

fn json(entry: &Entry, step: &Step) -> String {
    let mut out = format!("{{\"seq\":{},\"time\":\"{}\"", entry.seq, Time(entry.stamp.wall_ns));
    let (event, reason) = step.code.split_once('/').unwrap_or((step.code, ""));
    let _ = write!(out, ",\"monotonic_ns\":{}", entry.stamp.mono_ns);
    for (key, value) in [
        ("event", event.as_bytes()),
        ("reason", reason.as_bytes()),
        ("service", step.service.as_bytes()),
        ("text", step.sentence),
    ] {
        let _ = write!(out, ",\"{key}\":{}", JsonText(value));
    }
    out.push('}');
    out
}
