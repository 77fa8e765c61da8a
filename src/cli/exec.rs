//! `coracle exec`: a process inside a running service, held to what the service is held to.
//!
//! It needs no supervisor: the instance record says whose namespaces to enter and what the service may do.
#![forbid(unsafe_code)]

use super::{RUN_DIR, output, services, tty};
use crate::base::exit;
use crate::sandbox::cgroup::Group;
use crate::sandbox::enter::{self, Doors, Guest, Refused};
use crate::sandbox::foreground::signals;
use crate::supervisor::guest::{self, Inside};
use crate::supervisor::instance::Instance;
use crate::sys::wait::{send_signal, wait_any};
use crate::sys::{meaning, terminal};
use argh::FromArgs;
use nix::sys::signal::Signal;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

/// Run a command inside a running service: in its namespaces and cgroup, as its user, with its capabilities, system
/// call filter and limits.
///
/// The exit code is the command's (125: it could not be started, 126: not executable, 127: not found, 128+N: killed by
/// signal N).
///
/// Example: coracle exec -t broker sh
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct ExecArgs {
    /// give the command a terminal of its own
    #[argh(switch, short = 't')]
    tty: bool,
    /// connect standard input; -t does so too
    #[argh(switch, short = 'i')]
    interactive: bool,
    /// user, or user:group, by name or number (default: the service's)
    #[argh(option, short = 'u')]
    user: Option<String>,
    /// environment entry, KEY=VALUE, over the service's; repeatable
    #[argh(option, short = 'e')]
    env: Vec<String>,
    /// working directory (default: the service's)
    #[argh(option, short = 'w')]
    workdir: Option<String>,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// name of a service
    #[argh(positional)]
    service: String,
    /// the command and its arguments
    #[argh(positional, greedy)]
    command: Vec<String>,
}

type Refusal = (u8, String);

fn failed(error: impl core::fmt::Display) -> Refusal {
    (exit::RUN_FAILED, error.to_string())
}

/// Runs the command.
pub fn run(args: &ExecArgs) -> u8 {
    if !services::check(&args.run_dir, &args.service) {
        return exit::RUN_FAILED;
    }
    match attempt(args) {
        Ok(code) => code,
        Err((code, sentence)) => {
            output::complain(&sentence);
            code
        }
    }
}

fn attempt(args: &ExecArgs) -> Result<u8, Refusal> {
    if args.command.is_empty() {
        return Err((exit::USAGE, "name the command to run: coracle exec SERVICE COMMAND".into()));
    }
    if let Some(bad) = args.env.iter().find(|entry| !entry.contains('=')) {
        return Err((exit::USAGE, format!("--env {bad}: an entry is KEY=VALUE")));
    }
    let size = if args.tty { Some(tty::size().map_err(|sentence| (exit::USAGE, sentence))?) } else { None };
    let service = &args.service;
    let running = Instance::read(&args.run_dir, service).map_err(failed)?;
    let running = running.filter(|instance| instance.main.is_alive() && instance.init.is_alive());
    let not_running = || failed(format!("{service} does not run: start it with `coracle start {service}`"));
    let instance = running.ok_or_else(not_running)?;
    let group = Group::open(&instance.cgroup).map_err(failed)?;
    if group.frozen() {
        return Err(failed(format!("{service} is paused, and so would be the command: `coracle unpause {service}`")));
    }
    let join = group.join().map_err(failed)?;
    let doors = Doors::open(instance.init.pid, instance.host_root).map_err(failed)?;
    let inside = Inside::of(&instance, join);
    // What was opened belongs to this instance only if it still lives after the last of it.
    if !instance.init.is_alive() || !instance.main.is_alive() {
        return Err(not_running());
    }
    // From here on signals wait: none may end this process between the start of the command and its end.
    signals().thread_block().map_err(|errno| failed(format!("signals cannot be blocked: {}", meaning(errno))))?;
    doors.enter().map_err(failed)?;
    let host_root = instance.host_root;
    let guest = guest(args, instance, inside).map_err(failed)?;
    let terminal = match size {
        Some((rows, columns)) => {
            // The host's is for everybody; that of a container's own devpts is there whatever its image has in /dev.
            let ptmx = if host_root { c"/dev/ptmx" } else { c"/dev/pts/ptmx" };
            let opened = terminal::open(ptmx, rows, columns);
            Some(opened.map_err(|errno| failed(format!("{} gives no terminal: {errno}", ptmx.to_string_lossy())))?)
        }
        None => None,
    };
    start(args, guest, terminal)
}

/// What is started, resolved inside the container.
fn guest(args: &ExecArgs, instance: Instance, inside: Inside) -> Result<Guest, String> {
    let mut guest = guest::guest(instance, args.command.clone(), inside)?;
    if let Some(user) = &args.user {
        guest.ids = enter::find_user(user)?;
        guest.env.push(format!("HOME={}", guest.ids.home));
    }
    if args.tty {
        guest.env.push(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".into())));
    }
    guest.env.extend(args.env.iter().cloned());
    if let Some(working_dir) = &args.workdir {
        guest.working_dir = format!("/{}", working_dir.trim_start_matches('/'));
    }
    Ok(Guest { terminal: args.tty, ..guest })
}

/// Starts it and waits for its end, passing signals on.
fn start(args: &ExecArgs, guest: Guest, terminal: Option<(OwnedFd, OwnedFd)>) -> Result<u8, Refusal> {
    let (master, slave) = terminal.unzip();
    let stdio = match &slave {
        Some(slave) => [slave.as_raw_fd(); 3],
        None => [if args.interactive { 0 } else { -1 }, 1, 2],
    };
    let pid = guest.start(stdio).map_err(|refused| match refused {
        Refused::Words => (exit::USAGE, "the command has an empty word in front, or a NUL byte".to_owned()),
        Refused::Start(failure) => (failure.exit_code(), failure.to_string()),
    })?;
    drop(slave);
    let on_signal = |signal: Signal| -> Option<u8> {
        if signal != Signal::SIGCHLD {
            // One that has just ended needs no signal any more.
            let _ = send_signal(pid, signal as i32);
            return None;
        }
        wait_any().ok().flatten().filter(|(ended, _)| *ended == pid).map(|(_, status)| exit::of_wait_status(status))
    };
    match master {
        Some(master) => {
            tty::proxy(&master, on_signal).map_err(|errno| failed(format!("the terminal failed: {}", meaning(errno))))
        }
        None => loop {
            if let Ok(signal) = signals().wait()
                && let Some(code) = on_signal(signal)
            {
                return Ok(code);
            }
        },
    }
}
