//! The loop: sleeps until something happens, tells the core, does what it says.
//!
//! One thread, one epoll set. Ended children are told by SIGCHLD through a signalfd and found with waitid(2), which all
//! kernels have and which also finds orphans that came to us; every child is ours until it is waited for, so its number
//! cannot change hands. One timerfd carries the earliest deadline of all; without a deadline nothing wakes the loop.
//!
//! Two things may take up to 50 ms, and only where processes of the service resist: freezing a group, which killing needs
//! too on v1 and before Linux 5.14, and removing one whose processes are still ending. Neither depends on anything but
//! the kernel.
#![forbid(unsafe_code)]

use super::action::{Action, Actions};
use super::adopt;
use super::answer;
use super::awaited::{self, Awaited};
use super::board::{Board, lacks_device};
use super::budget::Daily;
use super::core::{KILL_TIME, SWEEP_TIME, State, step};
use super::crash::RECORDERS;
use super::event::{Event, Index, Token};
use super::events::{self, Events};
use super::graph::stop_time;
use super::handover::{Inherited, Origin};
use super::images::Images;
use super::init;
use super::keeper::{End, Keeper, Moment, Standing};
use super::lookout::{self, Lookout};
use super::report::Report;
use super::rundir::{RunDir, Unclaimed};
use super::service::Phase;
use super::slot::{Left, Slot};
use super::source::Source;
use super::upgrade::Upgrade;
use crate::base::units::Millis;
use crate::control::server::Server;
use crate::control::wire::SOCKET;
use crate::plan::Plan;
use crate::sandbox::cgroup::Tree;
use crate::sys::board::{self, SEED_BYTES};
use crate::sys::heap::HEAP;
use crate::sys::wait::{ended_child, wait_for};
use crate::sys::{meaning, stack};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::inotify::Inotify;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;

/// Whom an answer goes to that the keeper asked for; connections count from 1.
pub(super) const KEEPER: Token = Token { client: 0, id: 0 };

/// Events, and actions of one of them, for which there is room from the start. More make room for as many for good.
const EVENTS: usize = 32;

/// The supervisor of one run directory.
pub struct Supervisor<'k> {
    pub(super) plan: Rc<Plan>,
    pub(super) state: State,
    pub(super) events: VecDeque<Event>,
    pub(super) slots: Vec<Slot>,
    pub(super) left: Vec<Left>,
    pub(super) run: RunDir,
    pub(super) tree: Tree,
    pub(super) board: Board,
    pub(super) images: Images,
    pub(super) awaited: Awaited,
    pub(super) lookout: Lookout,
    pub(super) server: Server,
    pub(super) report: Report,
    pub(super) notes: Events,
    pub(super) records: Daily,
    /// Processes that write crash records, and of which service.
    pub(super) recorders: heapless::Vec<(i32, Index), RECORDERS>,
    pub(super) now: Millis,
    pub(super) complete: bool,
    /// The critical service for which the watchdog is not fed.
    lacking: Option<Index>,
    pub(super) actions: Actions,
    /// Checksums of what the instances of each service are made of.
    pub(super) prints: Vec<u64>,
    /// The process that ends what the config no longer has.
    pub(super) ending: Option<i32>,
    /// How it was started, for a program that takes over.
    pub(super) origin: Origin,
    /// A program that was asked to take over.
    pub(super) upgrade: Option<Upgrade>,
    /// Sockets of services, from the program before.
    pub(super) handed: Vec<(String, OwnedFd)>,
    pub(super) epoll: Epoll,
    timer: TimerFd,
    armed: Option<Millis>,
    signals: SignalFd,
    folders: Option<Inotify>,
    pub(super) keeper: &'k mut dyn Keeper,
    /// What happens once everything is stopped, if that was asked for.
    pub(super) end: Option<End>,
    /// When what is left is no longer waited for.
    given_up: Option<Millis>,
}

/// Why there is no supervisor.
#[derive(Debug)]
pub enum Refused {
    /// Another one has the run directory.
    Taken,
    /// A sentence.
    Failed(String),
}

impl<'k> Supervisor<'k> {
    /// Claims the run directory, takes over what a dead supervisor left there, and listens. Nothing is started yet.
    /// `report`: one that is open already, with its ring in that directory. What is inherited is of the program before, in
    /// this process.
    ///
    /// # Errors
    /// The run directory is taken, or something that every service needs cannot be had.
    pub fn new(
        plan: Rc<Plan>,
        run_dir: &Path,
        keeper: &'k mut dyn Keeper,
        report: Option<Report>,
        (origin, inherited): (Origin, Option<Inherited>),
    ) -> Result<Supervisor<'k>, Refused> {
        let (held, control, handed) = match inherited {
            Some(Inherited { lock, control, sockets }) => (Some(lock), Some(control), sockets),
            None => (None, None, Vec::new()),
        };
        let run = RunDir::claim(run_dir, held).map_err(|error| match error {
            Unclaimed::Taken => Refused::Taken,
            Unclaimed::Failed(error) => failed("use the run directory", run_dir.display(), error),
        })?;
        let report = report.filter(Report::is_kept);
        let mut report = report.unwrap_or_else(|| Report::open(Some(run.path()), keeper.places()));
        let notes = Events::open(run.path(), &mut report);
        let tree = match keeper.cgroups() {
            Some(known) => Ok(Tree::known(known, &run.cgroup_folder())),
            None => Tree::discover(&run.cgroup_folder()),
        };
        let tree = tree.map_err(|error| Refused::Failed(error.into()))?;
        let denied = |action, what| move |errno: Errno| failed(action, what, meaning(errno));
        let signals = block_signals(keeper.signals()).map_err(denied("watch", "signals"))?;
        // Orphans of a dead init come to us and are waited for.
        nix::sys::prctl::set_child_subreaper(true).map_err(denied("become", "the subreaper"))?;
        raise_descriptors();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(denied("make", "an epoll set"))?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(denied("make", "a timer"))?;
        let socket = run.path().join(SOCKET);
        let server = control.map_or_else(|| Server::bind(&socket), |control| Server::of(control.into()));
        let server = server.map_err(|error| failed("listen at", socket.display(), error))?;
        let (folders, awaited) = (awaited::folders(&plan), Awaited::new());
        let add = |fd: std::os::fd::BorrowedFd<'_>, source: Source| {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, source.mark())).map_err(denied("watch", "events"))
        };
        add(signals.as_fd(), Source::Signals)?;
        add(timer.as_fd(), Source::Timer)?;
        add(server.fd(), Source::Control)?;
        if let Some(folders) = &folders {
            add(folders.as_fd(), Source::Folders)?;
        }
        if let Some(fd) = awaited.fd() {
            add(fd, Source::Awaited)?;
        }
        let lookout = Lookout::new(&plan, keeper.clock_is_guessed());
        lookout.join(&epoll, Source::Lookout.mark()).map_err(denied("watch", "the board"))?;
        let (board, prints) = (Board::around(&tree, &plan), adopt::prints(&plan));
        let mut supervisor = Supervisor {
            state: State::new(&plan, seed()),
            slots: plan.services.iter().map(|_| Slot::default()).collect(),
            left: Vec::new(),
            plan,
            events: VecDeque::with_capacity(EVENTS),
            run,
            tree,
            board,
            images: Images::new(),
            awaited,
            lookout,
            server,
            report,
            notes,
            records: Daily::default(),
            recorders: heapless::Vec::new(),
            now: monotonic(),
            complete: false,
            lacking: None,
            actions: Actions::with_room(EVENTS),
            prints,
            ending: None,
            origin,
            upgrade: None,
            handed,
            epoll,
            timer,
            armed: None,
            signals,
            folders,
            keeper,
            end: None,
            given_up: None,
        };
        supervisor.adopt();
        Ok(supervisor)
    }

    /// Starts what is enabled and supervises until everything is stopped; gives what is to happen then.
    ///
    /// # Errors
    /// The kernel no longer lets us wait for events.
    pub fn supervise(mut self) -> Result<End, String> {
        // Reading a config takes more stack than all that follows.
        stack::trim();
        self.begin();
        let mut ready = [EpollEvent::empty(); 32];
        // What a turn takes, it gives back, but for what is made to last.
        HEAP.work(true);
        loop {
            self.settle();
            let end = |supervisor: &mut Self| supervisor.end.take().unwrap_or(End::Exit);
            if self.complete {
                let end = end(&mut self);
                self.finish();
                return Ok(end);
            }
            if self.given_up.is_some_and(|at| at <= self.now) {
                self.report.line("not everything has stopped in time; what is left is killed");
                return Ok(end(&mut self));
            }
            self.arm();
            HEAP.work(false);
            let count = match self.epoll.wait(&mut ready, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(format!("cannot wait for events: {}", meaning(errno))),
            };
            self.now = monotonic();
            HEAP.work(true);
            for event in ready.iter().take(count) {
                self.attend(Source::of(event.data()));
            }
        }
    }

    /// Tells the keeper of a moment.
    pub(super) fn moment(&mut self, moment: Moment<'_>) {
        let report = &mut self.report;
        self.keeper.moment(moment, &mut |sentence| report.line(sentence));
    }

    /// Stops everything; `why` is said. Only the first end that is asked for counts.
    pub(super) fn stop_all(&mut self, end: End, why: impl std::fmt::Display) {
        if self.end.is_some() {
            return;
        }
        self.report.line(format_args!("{why}: stopping everything, then {}", end.words()));
        self.moment(Moment::Stopping(&end));
        self.end = Some(end);
        let needed = stop_time(&self.plan, KILL_TIME.plus(SWEEP_TIME));
        let patience = self.keeper.patience().map(|most| needed.map_or(most, |needed| needed.min(most)));
        self.given_up = patience.map(|patience| self.now.plus(patience));
        self.events.push_back(Event::Shutdown(None));
    }

    /// Takes in and does everything that can be done now.
    fn settle(&mut self) {
        loop {
            while let Some(mut event) = self.events.pop_front() {
                if let Some(sentence) = event.sentence() {
                    // It becomes part of the service's state.
                    *sentence = HEAP.keep(|| sentence.clone());
                }
                self.touch(event.service());
                step(&self.plan, &mut self.state, event, self.now, &mut self.actions);
                let mut actions = std::mem::take(&mut self.actions);
                for action in actions.drain() {
                    self.touch(action.service());
                    if matches!(action, Action::Answer(..)) {
                        // Whoever was answered relies on it, also when this process dies at once.
                        self.save_touched();
                    }
                    self.perform(action);
                }
                self.actions = actions;
                self.save_touched();
            }
            self.now = monotonic();
            if self.state.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                // A ping or an answer that is here already counts, however late it is looked at.
                for index in 0..self.plan.services.len() as Index {
                    self.hear_out(index);
                    self.attend_probe(index);
                }
                self.look_for_left();
                self.events.push_back(Event::Timer);
            }
            if self.server.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                self.server.serve(self.now);
            }
            self.keep();
            self.look_for_memory_kills();
            while let Some(client) = self.server.next_gone() {
                self.events.push_back(Event::Forget(client));
            }
            while let Some(request) = self.server.next_request() {
                self.request(&request);
            }
            if self.events.is_empty() {
                return self.give_way();
            }
        }
    }

    /// Gives the keeper its turn, if it is due.
    pub(super) fn keep(&mut self) {
        if self.keeper.next_deadline().is_none_or(|deadline| deadline > self.now) {
            return;
        }
        let lacking = self.state.lacking(&self.plan, self.now).filter(|_| self.keeper.is_watched());
        if std::mem::replace(&mut self.lacking, lacking) != lacking {
            self.tell_lacking();
        }
        let lacking = lacking.map(|index| answer::name(&self.plan, index));
        let standing = Standing { lacking, recovering: self.state.is_recovering(&self.plan, self.now) };
        let report = &mut self.report;
        if let Some(end) = self.keeper.act(self.now, standing, &mut |sentence| report.line(sentence)) {
            self.stop_all(end, "its time is up");
        }
    }

    /// Tells that the watchdog is no longer fed, or is again.
    fn tell_lacking(&mut self) {
        match self.lacking.map(|index| answer::name(&self.plan, index)) {
            Some(name) => {
                let sentence =
                    format_args!("{name} is critical and does not recover: THE HARDWARE WATCHDOG IS NO LONGER FED");
                self.notes.note(format_args!("watchdog/withheld"), name, sentence);
                self.report.line(sentence);
            }
            None => {
                let sentence = format_args!("the hardware watchdog is fed again");
                self.notes.note(format_args!("watchdog/fed"), events::BOARD, sentence);
                self.report.line(sentence);
            }
        }
    }

    fn attend(&mut self, source: Source) {
        match source {
            Source::Timer => drop(self.timer.wait()),
            Source::Signals => self.signalled(),
            Source::Control => self.server.serve(self.now),
            Source::Worker => self.worker(false),
            Source::Folders => self.folders_changed(),
            Source::Awaited if self.awaited.appeared() => self.look_again(),
            Source::Awaited => {}
            Source::Lookout => {
                if self.lookout.attend() {
                    self.events.push_back(Event::Clock(self.lookout.wall(monotonic())));
                }
                self.devices_changed();
            }
            Source::Left => self.look_for_left(),
            Source::Channel(index) => self.hear(index),
            Source::Memory(index) => self.memory_short(index),
            Source::Init(index) => self.init_ended(index),
            Source::Probe(index) => self.attend_probe(index),
        }
    }

    fn signalled(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(signal) => {
                    if let Some(end) = self.keeper.asked(signal) {
                        self.stop_all(end, signal);
                    }
                }
                Err(_) => {}
            }
        }
    }

    pub(super) fn reap(&mut self) {
        while let Ok(Some(pid)) = ended_child() {
            if self.images.pid() == Some(pid) {
                self.worker(true);
                continue;
            }
            if self.upgrade.is_some() && self.has_answered(pid) {
                continue;
            }
            let found = self.slots.iter().position(|slot| slot.live.as_ref().is_some_and(|live| live.init == pid));
            if let Some(index) = found {
                self.init_ended(index as Index);
            }
            self.look_for_left();
            // Waited for last: until here the number is its own.
            let status = wait_for(pid);
            if self.ending.take_if(|ending| *ending == pid).is_some() {
                if status != Ok(0) {
                    self.report.line("not all of what the config no longer has could be stopped");
                }
            } else if let (Ok(status), None) = (status, found) {
                self.probe_ended(pid, status);
                self.record_ended(pid, status);
            }
        }
    }

    fn worker(&mut self, process_ended: bool) {
        let Some((index, outcome)) = self.images.attend(process_ended) else { return };
        match outcome {
            Ok(()) => self.prepare(index),
            Err(why) => self.events.push_back(Event::ImageFailed(index, why.into())),
        }
        for waiting in self.images.take_waiting() {
            let wants = self.state.services().get(usize::from(waiting)).map(|service| service.phase);
            if wants == Some(Phase::Preparing) {
                self.prepare(waiting);
            }
        }
    }

    pub(super) fn watch_worker(&mut self) {
        if let Some(fd) = self.images.fd() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Worker.mark());
            // Without it the worker's end is still told by SIGCHLD.
            let _ = self.epoll.add(fd, event);
        }
    }

    pub(super) fn watch_instance(&mut self, index: Index) {
        let Some(slot) = self.slots.get(usize::from(index)) else { return };
        let Some(live) = &slot.live else { return };
        if let (Some(folders), Some(service)) = (&self.folders, self.plan.services.get(usize::from(index))) {
            awaited::devices(folders, service);
        }
        if let Some(channel) = &live.channel {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Channel(index).mark());
            let _ = self.epoll.add(channel, event);
        }
        if let Some(pidfd) = live.adopted.as_ref().and_then(|handle| handle.pidfd.as_ref()) {
            let _ = self.epoll.add(pidfd, EpollEvent::new(EpollFlags::EPOLLIN, Source::Init(index).mark()));
        }
        if let Some(oom) = &slot.oom {
            // From the second instance on it is there already.
            let _ = self.epoll.add(oom.fd(), EpollEvent::new(oom.events(), Source::Memory(index).mark()));
        }
    }

    /// Something appeared where images or devices are: whoever is held gets another look.
    fn folders_changed(&mut self) {
        let Some(folders) = &self.folders else { return };
        while folders.read_events().is_ok() {}
        self.devices_changed();
    }

    /// A device may have come or gone.
    fn devices_changed(&mut self) {
        self.look_again();
        (0..self.plan.services.len() as Index).for_each(|index| self.look_for_unplugged(index));
    }

    /// Tells the core if something of service `index` runs that lacks a device.
    pub(super) fn look_for_unplugged(&mut self, index: Index) {
        let runs = self.state.services().get(usize::from(index)).is_some_and(|service| service.has_instance());
        let service = self.plan.services.get(usize::from(index)).filter(|_| runs);
        if service.is_some_and(|service| lacks_device(service, &self.board.files)) {
            self.events.push_back(Event::Unplugged(index));
        }
    }

    fn look_again(&mut self) {
        for (index, service) in self.state.services().iter().enumerate() {
            let Some(configured) = self.plan.services.get(index).filter(|_| service.waits_for_board()) else {
                continue;
            };
            // One that is held is looked at as a whole.
            let lack = self.lookout.lack(configured, &mut self.awaited).filter(|_| service.phase == Phase::Waiting);
            let event = match lack.map(lookout::words) {
                None => Event::Unheld(index as Index),
                Some(why) if service.detail.as_ref() == Some(&why) => continue,
                Some(why) => Event::Awaits(index as Index, why),
            };
            self.events.push_back(event);
        }
    }

    /// Sets the timer to the earliest deadline; it is touched only when that has changed.
    fn arm(&mut self) {
        let (core, server, keeper) =
            (self.state.next_deadline(), self.server.next_deadline(), self.keeper.next_deadline());
        let mut next = Millis::earliest(&[core, server, keeper, self.given_up]);
        for live in self.slots.iter().filter_map(|slot| slot.live.as_ref()) {
            next = Millis::earliest(&[next, live.oom_look, live.gone_look]);
        }
        if next == self.armed {
            return;
        }
        self.armed = next;
        let _ = match next {
            None => self.timer.unset(),
            Some(at) => {
                // Zero would mean never.
                let (seconds, rest) = (at.0 / 1000, at.0 % 1000 * 1_000_000 + 1);
                let time = TimeSpec::new(seconds.min(i32::MAX as u64) as _, rest as _);
                self.timer.set(Expiration::OneShot(time), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
        };
    }

    /// Everything is stopped: nothing of it stays.
    fn finish(mut self) {
        if let Some(ending) = self.ending.take() {
            let _ = wait_for(ending);
        }
        let groups =
            self.slots.iter_mut().map(|slot| &mut slot.group).chain(self.left.iter_mut().map(|left| &mut left.group));
        for group in groups {
            if let Some(error) = group.take().and_then(|group| group.remove().err()) {
                self.report.line(error);
            }
        }
        for error in self.slots.iter_mut().filter_map(Slot::remove_probe) {
            self.report.line(error);
        }
        if let Err(error) = self.tree.remove() {
            self.report.line(error);
        }
        self.run.clear();
    }
}

fn failed(action: &str, what: impl std::fmt::Display, why: impl std::fmt::Display) -> Refused {
    Refused::Failed(format!("cannot {action} {what}: {why}"))
}

/// The monotonic clock.
pub fn monotonic() -> Millis {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap_or(TimeSpec::new(0, 0));
    Millis((time.tv_sec() as u64).saturating_mul(1000).saturating_add(time.tv_nsec() as u64 / 1_000_000))
}

/// The signals that end us or tell of children, and `more`, as a descriptor.
fn block_signals(more: &[Signal]) -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    let usual = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
    usual.iter().chain(more).for_each(|signal| set.add(*signal));
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// As many descriptors as we may have: four for each service, and some.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // 1024, the usual soft limit, is enough for 128 services too; more is only a reserve.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(crate::sys::watchdog::DESCRIPTORS as u64), hard);
    }
}

/// A number that differs from start to start.
fn seed() -> u32 {
    let mut bytes = [0; SEED_BYTES];
    // A pool that is not full yet: then the time differs.
    let random = board::random(&mut bytes).ok().and_then(|()| bytes.first_chunk());
    random.map_or_else(|| init::stamp().mono_ns as u32, |bytes| u32::from_le_bytes(*bytes))
}
