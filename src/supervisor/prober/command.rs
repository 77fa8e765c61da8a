//! A command that asks a service how it is, inside it.
//!
//! A short-lived child of the supervisor, the visitor, enters the service's namespaces as `coracle exec` does, starts the
//! command there and waits for it. The command has a cgroup of its own beside the service's: what it takes is not the
//! service's, and whatever it leaves behind is killed as one. The supervisor waits for the visitor, and the init of the
//! pid namespace for everything else.
#![forbid(unsafe_code)]

use crate::base::exit;
use crate::base::units::Bytes;
use crate::plan::{Device, Health, Limits, Memory, Probe, Service};
use crate::sandbox::cgroup::{Group, Killer, Options, Tree};
use crate::sandbox::devices;
use crate::sandbox::enter::{Doors, Refused};
use crate::supervisor::fault::Fault;
use crate::supervisor::guest::{Inside, guest};
use crate::supervisor::instance::Instance;
use crate::supervisor::notify::{LINE_BYTES, Line};
use crate::sys::heap::HEAP;
use crate::sys::process::{Forked, clone, close_all_but, die_with_parent, exit_now};
use crate::sys::title;
use crate::sys::wait::{send_signal, wait_for};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::SIGKILL;
use nix::unistd::{pipe2, read, write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

/// Processes and threads of one command.
const PIDS: u32 = 32;
/// Bytes read of what it says in one turn.
const TURN_BYTES: usize = 4096;

/// The command of one service's checks.
#[derive(Debug)]
pub struct Command {
    /// Program and arguments, where the image says them.
    words: Vec<Box<str>>,
    group: Group,
    killer: Killer,
    /// The visitor, until it has been waited for; 0: none.
    visitor: i32,
    /// Whether nothing comes of it any more.
    given_up: bool,
    /// The beginning of what it said last.
    pub said: Line,
}

impl Command {
    /// For the commands of a service's checks, of which one runs at a time, with a cgroup of their own; `image` is what the
    /// image says.
    ///
    /// # Errors
    /// A sentence.
    pub fn new((device, service): (&Device, &Service), image: &[Box<str>], tree: &mut Tree) -> Result<Command, String> {
        let limits = Limits {
            pids: PIDS,
            cpu: service.limits.cpu,
            cpu_weight: service.limits.cpu_weight,
            cpus: service.limits.cpus.clone(),
            ..Limits::with_memory(Memory::Max(memory(service)))
        };
        let options =
            Options { allow_missing: device.allow_missing, measure: false, all_devices: service.has_all_devices() };
        // No service can have such a name.
        let name = format!("{}+probe", service.name);
        let group = tree.create(&name, &limits, &devices::rules(service), &options)?;
        let killer = group.killer()?;
        let words = HEAP.lasting(|| image.to_vec());
        Ok(Command { words, group, killer, visitor: 0, given_up: false, said: Line::new() })
    }

    /// Starts it in the instance that the record in `run` tells of, while there is no visitor; gives the pipe that it says
    /// something to.
    pub fn start(&mut self, check: &Health, run: &Path, service: &Service, init: i32) -> Result<OwnedFd, Fault> {
        self.killer.kill();
        self.said.clear();
        let failed = |errno: nix::Error| Fault::Errno(errno as i32);
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
        let words = if let Probe::Exec(words) = &check.probe { words } else { &self.words };
        match clone(0, None).map_err(|errno| Fault::Errno(errno.0))? {
            Forked::Parent(visitor) => self.visitor = visitor,
            Forked::Child => {
                let (code, why) = visit(words, &self.group, (run, service.name.as_str()), init, &theirs);
                // What nobody reads any more has no loss.
                let _ = write(&theirs, why.as_bytes());
                exit_now(code.into())
            }
        }
        Ok(ours)
    }

    /// Takes in what it says: the beginning, as a line that can be shown.
    pub fn listen(&mut self, pipe: &OwnedFd) {
        let mut chunk = [0u8; TURN_BYTES];
        let Ok(count) = read(pipe, &mut chunk) else { return };
        for c in String::from_utf8_lossy(chunk.get(..count.min(LINE_BYTES)).unwrap_or_default()).trim_end().chars() {
            if self.said.push(if c.is_control() { ' ' } else { c }).is_err() {
                break;
            }
        }
    }

    /// Gives it up: everything of it is killed, and nothing comes of it.
    pub fn end(&mut self) {
        if self.visitor != 0 && !self.given_up {
            self.given_up = true;
            // Our child and not waited for: the number is still its own.
            let _ = send_signal(self.visitor, SIGKILL);
            self.killer.kill();
        }
    }

    /// The visitor.
    pub fn visitor(&self) -> i32 {
        self.visitor
    }

    /// Whether nothing comes of it any more.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// The visitor has been waited for: what comes of it, unless it was given up.
    pub fn ended(&mut self, status: i32) -> Option<Result<(), Fault>> {
        self.visitor = 0;
        self.killer.kill();
        let code = exit::of_wait_status(status);
        let outcome = if code == 0 { Ok(()) } else { Err(Fault::Code(code)) };
        (!core::mem::take(&mut self.given_up)).then_some(outcome)
    }

    /// Removes its cgroup.
    ///
    /// # Errors
    /// A sentence: what is in it does not die.
    pub fn remove(self) -> Result<(), String> {
        self.killer.kill();
        self.group.remove().map_err(String::from)
    }
}

/// The memory that the commands of a service's checks may take: the most that one of them may.
pub fn memory(service: &Service) -> Bytes {
    let commands = service.health.iter().filter(|check| check.probe.is_command());
    commands.map(|check| check.memory).max().unwrap_or(Bytes(0))
}

/// What the visitor does; gives its exit code, and why if nothing was started.
fn visit(
    words: &[Box<str>],
    group: &Group,
    (run, service): (&Path, &str),
    init: i32,
    output: &OwnedFd,
) -> (u8, String) {
    let attempt = || -> Result<i32, (u8, String)> {
        let failed = |why: String| (exit::RUN_FAILED, why);
        let output = output.as_raw_fd();
        die_with_parent().map_err(|errno| failed(errno.to_string()))?;
        title::set(c"coracle-probe");
        close_all_but(&[0, 1, 2, output]).map_err(|errno| failed(errno.to_string()))?;
        let instance = Instance::read(run, service).map_err(failed)?;
        let instance = instance.ok_or_else(|| failed("there is no record of it".into()))?;
        let join = group.join().map_err(|error| failed(error.to_string()))?;
        let inside = Inside::of(&instance, join);
        // A child of the supervisor's that has not been waited for, or there would be no probe: the number is its own.
        Doors::open(init, instance.host_root).and_then(|doors| doors.enter()).map_err(failed)?;
        let words = words.iter().map(|word| word.to_string()).collect();
        let guest = guest(instance, words, inside).map_err(failed)?;
        guest.start([-1, output, output]).map_err(|refused| match refused {
            Refused::Words => failed("the command has an empty word in front, or a NUL byte".into()),
            Refused::Start(failure) => (failure.exit_code(), failure.to_string()),
        })
    };
    match attempt() {
        Ok(pid) => (wait_for(pid).map_or(exit::RUN_FAILED, exit::of_wait_status), String::new()),
        Err(refusal) => refusal,
    }
}
