//! A process that waits for its turn: made with the sandbox, while there are still the rights to make it, and run once main
//! has ended, when its init could start nothing any more.
#![forbid(unsafe_code)]

use super::cgroup::Join;
use super::child::{self, Handed, Starting};
use super::spec::Main;
use super::stage::{Failure, Stage};
use crate::base::signal;
use crate::base::units::Millis;
use crate::sys::heap::HEAP;
use crate::sys::process::{self, Forked};
use crate::sys::{Errno, stack, title};
use core::fmt::Write as _;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// A word of the environment that is made after the clone. 32 bytes hold each of them.
pub(super) type Word = heapless::String<32>;

/// A command that waits. It is in no group of the service's yet, holds nothing of other services, and ends unrun when
/// whoever made it ends.
#[derive(Debug)]
pub struct Parked {
    starting: Starting,
    turn: OwnedFd,
    gone: bool,
}

/// How main ended, as the command is told.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its wait status (wait(2)).
    pub status: i32,
    /// Whether everything was killed because the supervisor asked for it.
    pub killed: bool,
}

/// Forks `main` up to where it waits.
pub fn park(main: &Main, join: Option<&Join>, handed: Handed) -> Result<Parked, Failure> {
    let failed = |errno: nix::Error| Failure::new(Stage::PostStop, errno.into(), b"clone");
    let (report, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let write = child::out_of_the_way(write, main).map_err(failed)?;
    let (wait, turn) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    // Main may run already and signal all that it sees.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(failed)?;
    let forked = match process::clone(0, None) {
        Ok(Forked::Child) => wait_for_turn(main, join, handed, &write, &wait),
        Ok(Forked::Parent(pid)) => Ok(Parked { starting: Starting::new(pid, report), turn, gone: false }),
        Err(errno) => Err(Failure::new(Stage::PostStop, errno, b"clone")),
    };
    before.thread_set_mask().map_err(failed)?;
    forked
}

impl Parked {
    /// The descriptors that it needs.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.starting.descriptor(), self.turn.as_raw_fd()]
    }

    /// Process `pid` has ended and was waited for: it may have been this one, which the service can kill as any other.
    pub fn reaped(&mut self, pid: i32) {
        self.gone |= self.starting.pid() == pid;
    }

    /// Its turn: runs it and gives its pid. Waits no longer than `most` for its program to run.
    pub fn go(self, ended: Ended, most: Millis) -> Result<i32, Failure> {
        let failed = |errno: i32, what: &[u8]| Err(Failure::new(Stage::PostStop, Errno(errno), what));
        if self.gone {
            return failed(libc::ESRCH, b"it was killed before its turn");
        }
        let mut word = [u8::from(ended.killed), 0, 0, 0, 0];
        word.iter_mut().skip(1).zip(ended.status.to_le_bytes()).for_each(|(to, from)| *to = from);
        // A reader that is gone is noticed below.
        let _ = nix::unistd::write(&self.turn, &word);
        let most = PollTimeout::try_from(most.0).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(self.starting.as_fd(), PollFlags::POLLIN)], most) == Ok(0) {
            self.starting.kill();
            return failed(libc::ETIMEDOUT, b"it did not begin");
        }
        self.starting.finish()
    }
}

/// The child's side. Not inlined: its init would hold the pages of its frame for good.
#[inline(never)]
fn wait_for_turn(main: &Main, join: Option<&Join>, handed: Handed, report: &OwnedFd, wait: &OwnedFd) -> ! {
    title::set(c"coracle-post");
    process::ignore_signals();
    let mut keep = heapless::Vec::<RawFd, 32>::new();
    let [input, output, error] = handed.stdio;
    keep.extend([input, output, error, report.as_raw_fd(), wait.as_raw_fd()]);
    if let Some(join) = join {
        for group in join.into.iter().chain(&join.tasks) {
            // Without one that has no room it would not come into its group, and so not run.
            let _ = keep.push(group.as_raw_fd());
        }
    }
    if process::close_all_but(&keep).is_err() {
        process::exit_now(1);
    }
    // What it needs goes into a heap of its own, and what it has inherited is given back.
    let inherited = HEAP.begin_anew();
    let (main, join) = (copy(main), join.map(copy_join));
    HEAP.give_back(inherited);
    stack::wipe();
    let mut word = [0; 5];
    let ended = match nix::unistd::read(wait, &mut word) {
        Ok(5) => Ended { killed: word[0] != 0, status: i32::from_le_bytes([word[1], word[2], word[3], word[4]]) },
        // Whoever made it is gone.
        _ => process::exit_now(0),
    };
    child::born(&main, join.as_ref(), handed, report, (true, &words(ended)))
}

fn copy(main: &Main) -> Main {
    Main {
        programs: main.programs.clone(),
        argv: main.argv.clone(),
        env: main.env.clone(),
        working_dir: main.working_dir.clone(),
        credentials: main.credentials.clone(),
        filter: main.filter.clone(),
        rlimits: main.rlimits.clone(),
        oom_score_adj: main.oom_score_adj.clone(),
        join: None,
        ..*main
    }
}

/// The same descriptors, in a process that ends without closing the ones before.
fn copy_join(join: &Join) -> Join {
    let own = |fd: &OwnedFd| process::own(fd.as_raw_fd());
    Join { into: join.into.as_ref().map(own), tasks: join.tasks.iter().map(own).collect() }
}

/// How main ended, in the words of systemd.exec(5).
fn words(ended: Ended) -> heapless::Vec<Word, 3> {
    let (signal, code) = (ended.status & 0x7f, ended.status >> 8 & 0xff);
    let asked = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE];
    let dumped = ended.status & 0x80 != 0;
    let (result, exit) = match signal {
        _ if ended.killed => ("killed", if signal == 0 { "exited" } else { "killed" }),
        0 if code == 0 => ("success", "exited"),
        0 => ("exit-code", "exited"),
        _ if dumped => ("core-dump", "dumped"),
        _ if asked.contains(&signal) => ("success", "killed"),
        _ => ("signal", "killed"),
    };
    let mut all: [Word; 3] = Default::default();
    let [first, second, third] = &mut all;
    // The longest, with the end that execve(2) wants, has 25 bytes.
    let _ = write!(first, "SERVICE_RESULT={result}\0");
    let _ = write!(second, "EXIT_CODE={exit}\0");
    let _ = match signal::NAMES.iter().find(|(_, number)| i32::from(*number) == signal) {
        Some((name, _)) => write!(third, "EXIT_STATUS={name}\0"),
        None => write!(third, "EXIT_STATUS={}\0", if signal == 0 { code } else { signal }),
    };
    heapless::Vec::from_array(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_systemd_tells_it() {
        let told = |status, killed| {
            let words = words(Ended { status, killed });
            words.iter().map(|word| word.trim_end_matches('\0').to_owned()).collect::<Vec<_>>().join(" ")
        };
        for (status, killed, expected) in [
            (0, false, "SERVICE_RESULT=success EXIT_CODE=exited EXIT_STATUS=0"),
            (3 << 8, false, "SERVICE_RESULT=exit-code EXIT_CODE=exited EXIT_STATUS=3"),
            (15, false, "SERVICE_RESULT=success EXIT_CODE=killed EXIT_STATUS=TERM"),
            (9, false, "SERVICE_RESULT=signal EXIT_CODE=killed EXIT_STATUS=KILL"),
            (9, true, "SERVICE_RESULT=killed EXIT_CODE=killed EXIT_STATUS=KILL"),
            (1 << 8, true, "SERVICE_RESULT=killed EXIT_CODE=exited EXIT_STATUS=1"),
            (11 | 0x80, false, "SERVICE_RESULT=core-dump EXIT_CODE=dumped EXIT_STATUS=SEGV"),
            (64, false, "SERVICE_RESULT=signal EXIT_CODE=killed EXIT_STATUS=64"),
        ] {
            assert_eq!(told(status, killed), expected);
        }
    }
}
