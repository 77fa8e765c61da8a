//! The child's side of a start. From the clone on there is no allocation, no lock and no path that was not made before.
#![forbid(unsafe_code)]

use super::capabilities::{Step, become_user, keep_only};
use super::cgroup::{Join, Killer};
use super::parked::Word;
use super::rootfs;
use super::spawn::Pipe;
use super::spec::{Main, Net, Place, Spec, Stdio};
use super::stage::{Failure, Note, Stage};
use crate::base::limits::SOCKETS;
use crate::base::units::Millis;
use crate::log::sink::Sink;
use crate::plan::capability::KILL;
use crate::plan::{CapSet, NotifyAccess, RlimitKind};
use crate::seccomp::Filter;
use crate::sys::heap::HEAP;
use crate::sys::process::{self, Forked};
use crate::sys::stack::OwnPids;
use crate::sys::wait::send_signal;
use crate::sys::{Errno, path, stack, title};
use core::fmt::Write as _;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::Backlog;
use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

/// What an init does once its steps are walked. It never returns; it calls [`spawn_main`] if
/// [`InitContext::setup`] is `Ok`, [`settle`]s while main is on its way, and reports the outcome over the channel.
pub type Init = fn(InitContext<'_>) -> !;

/// What the init holds of the world outside its container. Opened by the parent; all optional.
#[derive(Debug, Default)]
pub struct Outlets {
    /// The exit record.
    pub exit: Option<OwnedFd>,
    /// The log ring.
    pub ring: Option<OwnedFd>,
    /// The log file beside the ring.
    pub sink: Option<Sink>,
    /// The lock that keeps its image in the store ([`crate::image::store::Store::pin`]); the init holds it, so that it
    /// lasts as long as the container, whatever becomes of the supervisor.
    pub pin: Option<OwnedFd>,
    /// Log lines per second kept; 0: no bound ([`crate::plan::LogPolicy::rate`]).
    pub rate: u32,
    /// What it notes in the ring before main says anything.
    pub note: Option<Box<str>>,
    /// The bound notify socket, non-blocking, of a service on the host's root; a container's is made inside.
    pub notify: Option<OwnedFd>,
    /// Whose messages the notify socket takes.
    pub notify_access: NotifyAccess,
    /// The service's own listening sockets: main gets them, and the init keeps them for the next supervisor.
    pub sockets: heapless::Vec<OwnedFd, SOCKETS>,
    /// The listening socket at which the next supervisor finds this init.
    pub contact: Option<OwnedFd>,
    /// The service's group, for an init without a pid namespace of its own.
    pub killer: Killer,
}

/// All that an init can end besides main, by what makes it the service's own: there is no third way.
#[derive(Debug)]
pub enum Reach {
    /// Its pid namespace, which ends with it.
    Namespace(OwnPids),
    /// Its service's cgroup. It lives among the processes of the host, or beside a command that waits for main's end.
    Group(Killer),
}

impl Reach {
    /// Kills every process of the service; of a namespace, all but the calling init.
    pub fn kill_all(&self) {
        match self {
            // Without another process there is nothing to end.
            Reach::Namespace(pids) => drop(pids.signal_all(libc::SIGKILL)),
            Reach::Group(killer) => killer.kill(),
        }
    }

    /// Whether process `pid`, as the calling init numbers it, is one of the service's.
    pub fn holds(&self, pid: i32) -> bool {
        match self {
            // What the namespace does not show is number 0.
            Reach::Namespace(_) => pid > 0,
            Reach::Group(killer) => killer.holds(pid),
        }
    }

    /// The descriptors that it needs.
    pub fn descriptors(&self) -> [Option<&OwnedFd>; 3] {
        match self {
            Reach::Namespace(_) => [None; 3],
            Reach::Group(killer) => killer.descriptors(),
        }
    }
}

/// What an init starts with. It lives in the child alone; the references lead into memory that [`settle`] gives back.
pub struct InitContext<'a> {
    /// How the steps went; on `Err` the container cannot run, and the init reports it and ends.
    pub setup: Result<(), Failure>,
    /// The channel to whoever spawned it.
    pub channel: OwnedFd,
    /// The read end of main's standard output, non-blocking, where it is piped.
    pub stdout: Option<OwnedFd>,
    /// The read end of main's standard error.
    pub stderr: Option<OwnedFd>,
    /// The bound datagram socket `/dev/log`, non-blocking.
    pub dev_log: Option<OwnedFd>,
    /// The bound notify socket, non-blocking.
    pub notify: Option<OwnedFd>,
    /// The read end of main's readiness descriptor, non-blocking.
    pub ready: Option<OwnedFd>,
    /// The master of the terminal, where one was asked for: to be sent over the channel and closed.
    pub terminal: Option<OwnedFd>,
    /// What the parent opened for it.
    pub outlets: Outlets,
    /// What it can end.
    pub reach: Reach,
    /// What has to end well before.
    pub pre_start: Option<&'a Main>,
    /// What comes after it, and how long that may take.
    pub post_stop: Option<&'a (Main, Millis)>,
    /// What to run.
    pub main: &'a Main,
    /// The filter that it settles under.
    pub filter: &'a Filter,
    /// What main gets.
    pub handed: Handed,
}

/// The descriptors that main gets, as numbers of the process that forks it.
#[derive(Debug, Clone, Copy)]
pub struct Handed {
    /// Its 0, 1 and 2 (-1: `/dev/null`).
    pub stdio: [RawFd; 3],
    /// Its [`Main::ready_fd`]; -1: none.
    pub ready: RawFd,
    /// Its [`Main::sockets`], -1 behind the last one.
    pub sockets: [RawFd; SOCKETS],
}

impl Handed {
    /// Nothing but 0, 1 and 2.
    pub const fn only(stdio: [RawFd; 3]) -> Handed {
        Handed { stdio, ready: -1, sockets: [-1; SOCKETS] }
    }
}

/// The cloned child: walks the steps and hands over to `init`, which gets to know its pid namespace if it has one.
pub(super) fn run(
    spec: &Spec,
    channel: OwnedFd,
    (pipes, ready): (Option<[Pipe; 2]>, Option<Pipe>),
    mut outlets: Outlets,
    (init, pids): (Init, Option<OwnPids>),
) -> ! {
    let reach = match pids {
        Some(pids) if outlets.killer.is_empty() => Reach::Namespace(pids),
        _ => Reach::Group(core::mem::take(&mut outlets.killer)),
    };
    if let Some(contact) = &outlets.contact {
        // Once more, so that whoever connects learns that this is the process behind it (unix(7), SO_PEERCRED).
        let _ = nix::sys::socket::listen(contact, Backlog::MAXCONN);
    }
    for fd in &spec.closed {
        // Nothing in the child uses it or its number.
        let _ = nix::unistd::close(*fd);
    }
    let mut made = rootfs::Made::default();
    let setup = set_up(spec, &mut made);
    let mut stdio = match spec.stdio {
        Stdio::Inherit => [0, 1, 2],
        Stdio::Device(terminal) => [terminal; 3],
        Stdio::Pipes | Stdio::Terminal { .. } => [-1; 3],
    };
    let (mut stdout, mut stderr) = (None, None);
    if let Some([out, err]) = pipes {
        // The write ends stay open, as plain numbers, until `settle` closes all that the init does not keep.
        stdio = [-1, out.write.into_raw_fd(), err.write.into_raw_fd()];
        (stdout, stderr) = (Some(out.read), Some(err.read));
    }
    let (ready, ready_write) = match ready {
        Some(pipe) => (Some(pipe.read), pipe.write.into_raw_fd()),
        None => (None, -1),
    };
    if let Some(slave) = made.terminal_slave.take() {
        stdio = [slave.into_raw_fd(); 3];
    }
    let mut sockets = [-1; SOCKETS];
    sockets.iter_mut().zip(&outlets.sockets).for_each(|(place, socket)| *place = socket.as_raw_fd());
    init(InitContext {
        setup,
        channel,
        stdout,
        stderr,
        dev_log: made.dev_log.take(),
        notify: made.notify.take(),
        ready,
        terminal: made.terminal.take(),
        outlets,
        reach,
        pre_start: spec.pre_start.as_ref(),
        post_stop: spec.post_stop.as_ref(),
        main: &spec.main,
        filter: &spec.init_filter,
        handed: Handed { stdio, ready: ready_write, sockets },
    })
}

/// Not inlined: the init would hold the pages of its frame for good.
#[inline(never)]
fn set_up(spec: &Spec, made: &mut rootfs::Made) -> Result<(), Failure> {
    begin(spec)?;
    rootfs::open_sources(&spec.steps, made)?;
    spec.steps.iter().try_for_each(|step| rootfs::perform(step, made))
}

fn begin(spec: &Spec) -> Result<(), Failure> {
    let fail = |what: &'static str| move |errno| Failure::new(Stage::Clone, errno, what.as_bytes());
    if spec.die_with_parent {
        process::die_with_parent().map_err(fail("PR_SET_PDEATHSIG"))?;
    }
    process::set_dumpable(false).map_err(fail("PR_SET_DUMPABLE"))?;
    title::set(c"coracle-init");
    process::umask(0);
    if spec.place == Place::Host {
        // Whoever loses its parent in the service comes to this process, as it would in a pid namespace.
        nix::sys::prctl::set_child_subreaper(true).map_err(|errno| fail("PR_SET_CHILD_SUBREAPER")(errno.into()))?;
    }
    match spec.net {
        Net::Existing(fd) => process::enter(fd, process::NEW_NET).map_err(fail("setns")),
        Net::Host | Net::New => Ok(()),
    }
}

/// A first process on its way to its program. It reports a failure through a close-on-exec pipe: end of file means that
/// the program runs.
#[derive(Debug)]
pub struct Starting {
    pid: i32,
    report: OwnedFd,
}

impl Starting {
    /// The process `pid`, whose failure comes through `report`.
    pub(super) fn new(pid: i32, report: OwnedFd) -> Starting {
        Starting { pid, report }
    }

    /// Its number.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// What becomes readable once [`Starting::finish`] does not wait any more.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// The descriptor that [`Starting::finish`] reads from.
    pub fn descriptor(&self) -> RawFd {
        self.report.as_raw_fd()
    }

    /// Kills it: it may not be in its cgroup yet.
    pub fn kill(&self) {
        // One that has ended already is a zombie of this process's, so the number is still its own.
        let _ = send_signal(self.pid, libc::SIGKILL);
    }

    /// Waits until the program runs and returns its pid; on failure the process is reaped already.
    pub fn finish(self) -> Result<i32, Failure> {
        let mut bytes = [0; Failure::BYTES];
        let got = loop {
            match nix::unistd::read(&self.report, &mut bytes) {
                Err(nix::Error::EINTR) => {}
                got => break got.unwrap_or(0),
            }
        };
        match Failure::decode(&bytes) {
            Some(failure) if got == Failure::BYTES => {
                process::reap(self.pid);
                Err(failure)
            }
            _ => Ok(self.pid),
        }
    }
}

/// Forks the first process. Its parent goes on once the program runs or has failed: what it has to do itself would keep main
/// waiting where there is one processor, and each page that it writes meanwhile would be copied first.
pub fn spawn_main(main: &Main, join: Option<&Join>, handed: Handed) -> Result<Starting, Failure> {
    let fork_failed = |errno: nix::Error| Failure::new(Stage::Fork, errno.into(), b"clone");
    let (report, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(fork_failed)?;
    let write = out_of_the_way(write, main).map_err(fork_failed)?;
    let into = join.and_then(|join| join.into.as_ref());
    let forked = match process::clone(process::VFORK, into.map(AsRawFd::as_raw_fd)) {
        // Without clone3 main writes itself into the group, at the price of a grace period of the kernel.
        Err(Errno(libc::ENOSYS | libc::EINVAL)) if into.is_some() => {
            process::clone(process::VFORK, None).map(|side| (side, true))
        }
        side => side.map(|side| (side, false)),
    };
    match forked {
        Err(errno) => Err(Failure::new(Stage::Fork, errno, b"clone")),
        Ok((Forked::Child, late)) => born(main, join, handed, &write, (late, &own_words(main))),
        Ok((Forked::Parent(pid), _)) => Ok(Starting { pid, report }),
    }
}

/// The child's side: becomes main with `words` in its environment, or tells why not. `late`: it is not in its v2 group yet.
pub(super) fn born(
    main: &Main,
    join: Option<&Join>,
    handed: Handed,
    report: &OwnedFd,
    (late, words): (bool, &[Word]),
) -> ! {
    let group = join.and_then(|join| join.into.as_ref()).filter(|_| late);
    let joined = group.map_or(Ok(()), |group| {
        let procs = path::open_at(group.as_fd(), c"cgroup.procs", OFlag::O_WRONLY, 0)?;
        process::write_all(procs.as_raw_fd(), b"0")
    });
    let failure = match joined {
        Ok(()) => become_main(main, join, handed, report.as_raw_fd(), words),
        Err(errno) => Failure::new(Stage::Join, errno, b"cgroup.procs"),
    };
    // A failure that cannot be told still ends the process with its exit code.
    let _ = nix::unistd::write(report, &failure.encode());
    process::exit_now(failure.exit_code().into())
}

/// What main is told of its own process id.
fn own_words(main: &Main) -> heapless::Vec<Word, 3> {
    let mut words = heapless::Vec::new();
    for (name, wanted) in [("WATCHDOG_PID", main.watchdog_pid), ("LISTEN_PID", main.sockets > 0)] {
        if wanted {
            let mut word = Word::new();
            // 14 bytes and at most 10 digits always fit.
            let _ = write!(word, "{name}={}\0", std::process::id());
            let _ = words.push(word);
        }
    }
    words
}

/// The report pipe under a number that main does not need.
pub(super) fn out_of_the_way(report: OwnedFd, main: &Main) -> nix::Result<OwnedFd> {
    let fd = report.as_raw_fd();
    match main.ready_fd == Some(fd) || fd < first_free(main) {
        true => fcntl(&report, FcntlArg::F_DUPFD_CLOEXEC(above(main))).map(process::own),
        false => Ok(report),
    }
}

/// The first of the descriptors that main gets as sockets (SD_LISTEN_FDS_START).
const SOCKETS_AT: RawFd = 3;

/// The first descriptor behind its sockets.
fn first_free(main: &Main) -> RawFd {
    SOCKETS_AT.saturating_add(main.sockets as RawFd)
}

/// A number above all that main is to have.
fn above(main: &Main) -> RawFd {
    first_free(main).max(main.ready_fd.map_or(0, |fd| fd.saturating_add(1)))
}

/// The sockets under numbers above all that main is to have: one may lie where another belongs.
fn lift_sockets(main: &Main, sockets: [RawFd; SOCKETS]) -> Result<[RawFd; SOCKETS], Errno> {
    let mut lifted = [-1; SOCKETS];
    for (place, socket) in lifted.iter_mut().zip(sockets).take(main.sockets) {
        *place = process::lift(socket, above(main))?;
    }
    Ok(lifted)
}

/// Turns the calling process, a fresh fork inside the container, into the first process: cgroup, session, limits,
/// user, capabilities, filter, program. Returns only with the failure, which is told through `report`.
fn become_main(main: &Main, join: Option<&Join>, handed: Handed, report: RawFd, words: &[Word]) -> Failure {
    match prepare_main(main, join, handed, report) {
        Err(failure) => failure,
        Ok(()) => execute(main, words),
    }
}

fn prepare_main(main: &Main, join: Option<&Join>, handed: Handed, report: RawFd) -> Result<(), Failure> {
    let fail = |stage: Stage, what: &'static str| move |errno| Failure::new(stage, errno, what.as_bytes());
    for tasks in join.iter().flat_map(|join| &join.tasks) {
        process::write_all(tasks.as_raw_fd(), b"0").map_err(fail(Stage::Join, "tasks"))?;
    }
    if main.cgroup_namespace {
        process::unshare(process::NEW_CGROUP).map_err(fail(Stage::CgroupNamespace, "unshare"))?;
    }
    process::new_session().map_err(fail(Stage::Session, "setsid"))?;
    connect(handed.stdio).map_err(fail(Stage::Stdio, "0, 1, 2"))?;
    let sockets = lift_sockets(main, handed.sockets).map_err(fail(Stage::Stdio, "sockets"))?;
    let ready_fd = main.ready_fd.filter(|_| handed.ready >= 0).unwrap_or(-1);
    if ready_fd >= 0 {
        process::duplicate(handed.ready, ready_fd).map_err(fail(Stage::Stdio, "ready_fd"))?;
    }
    for (target, socket) in (SOCKETS_AT..first_free(main)).zip(sockets) {
        process::duplicate(socket, target).map_err(fail(Stage::Stdio, "sockets"))?;
    }
    if main.terminal {
        process::take_terminal(0).map_err(fail(Stage::Session, "TIOCSCTTY"))?;
    }
    // Closed, not just marked close-on-exec: working directory and program may be named `/proc/self/fd/N/…`, and until
    // the program is found that would lead through a folder of the host (CVE-2024-21626). Before the limits, because
    // one on open files would hide the descriptors beyond it.
    let mut kept = heapless::Vec::<RawFd, { 5 + SOCKETS }>::new();
    kept.extend([0, 1, 2, ready_fd, report].into_iter().chain(SOCKETS_AT..first_free(main)));
    process::close_all_but(&kept).map_err(fail(Stage::Stdio, "close_range"))?;
    for (resource, soft, hard) in &main.rlimits {
        process::set_rlimit(*resource, *soft, *hard).map_err(|errno| {
            let failure = Failure::new(Stage::Rlimit, errno, rlimit_name(*resource).as_bytes());
            if errno == Errno(libc::EPERM) { failure.with_note(Note::NeedsSysResource) } else { failure }
        })?;
    }
    if let Some(value) = &main.oom_score_adj {
        process::write_file(c"/proc/self/oom_score_adj", value.to_bytes()).map_err(|errno| {
            let failure = Failure::new(Stage::OomScore, errno, value.to_bytes());
            if errno == Errno(libc::EACCES) { failure.with_note(Note::NeedsSysResource) } else { failure }
        })?;
    }
    process::reset_signals();
    process::umask(0o022);
    become_user(&main.credentials).map_err(|(step, errno)| match step {
        Step::Groups | Step::Group | Step::User => Failure::new(Stage::Ids, errno, b"setresuid"),
        step => Failure::new(Stage::Capabilities, errno, capability_step(step).as_bytes()),
    })?;
    enter_working_dir(main)?;
    match &main.filter {
        Some(filter) => crate::seccomp::load(filter).map_err(fail(Stage::Seccomp, "seccomp")),
        None => Ok(()),
    }
}

fn capability_step(step: Step) -> &'static str {
    match step {
        Step::Bounding => "bounding set",
        Step::KeepCaps | Step::Groups | Step::Group | Step::User => "PR_SET_KEEPCAPS",
        Step::Sets => "capset",
        Step::Ambient => "ambient set",
        Step::NoNewPrivs => "no_new_privs",
    }
}

/// Makes `stdio` the descriptors 0, 1 and 2; -1 stands for `/dev/null`, opened inside.
fn connect(stdio: [RawFd; 3]) -> Result<(), Errno> {
    for (target, source) in stdio.into_iter().enumerate() {
        let target = target as RawFd;
        if source < 0 {
            let null = path::open(c"/dev/null", OFlag::O_RDWR)?;
            process::duplicate(null.as_raw_fd(), target)?;
        } else {
            process::duplicate(source, target)?;
        }
    }
    Ok(())
}

/// Changes into the working directory as the service's user, and proves that it lies inside the root: a path that the
/// kernel shows as `(unreachable)` was entered through a descriptor of the old root.
fn enter_working_dir(main: &Main) -> Result<(), Failure> {
    let fail = |errno| Failure::new(Stage::WorkingDir, errno, main.working_dir.to_bytes());
    path::chdir(&main.working_dir).map_err(fail)?;
    if !path::working_dir_is_inside().map_err(fail)? {
        return Err(fail(Errno(libc::EXDEV)).with_note(Note::Outside));
    }
    Ok(())
}

/// Tries the programs in order. As a shell does: "not found" only if none is there; otherwise the first other reason.
fn execute(main: &Main, words: &[Word]) -> Failure {
    let mut reason: Option<Failure> = None;
    let mut more = heapless::Vec::<&CStr, 3>::new();
    more.extend(words.iter().take(3).filter_map(|word| CStr::from_bytes_until_nul(word.as_bytes()).ok()));
    for program in main.programs.strings() {
        let errno = process::execve(program, &main.argv, &main.env, &more);
        let failure = Failure::new(Stage::Exec, errno, program.to_bytes());
        match errno.0 {
            libc::ENOENT | libc::ENOTDIR if !path::exists(program) => {}
            libc::ENOENT => return failure.with_note(Note::Interpreter),
            libc::ENOEXEC if path::starts_with(program, b"\x7fELF") => return failure.with_note(Note::ForeignMachine),
            libc::ENOEXEC => return failure.with_note(Note::NoFormat),
            libc::EACCES => drop(reason.get_or_insert(failure)),
            _ => return failure,
        }
    }
    let name = main.argv.strings().first().map_or(&b""[..], |word| word.to_bytes());
    reason.unwrap_or(Failure::new(Stage::Exec, Errno(libc::ENOENT), name))
}

pub(super) fn rlimit_name(resource: i32) -> &'static str {
    let known = RlimitKind::ALL.iter().find(|(kind, _)| super::prepare::resource(*kind) == resource);
    known.map_or("rlimit", |(_, name)| name)
}

/// Confines the init once main is forked: everything but `keep` is closed, CAP_KILL is all that is left, `filter` lets it
/// start nothing and open nothing new of the network, and the heap and the parent's stack, with what was inherited of
/// other services, are given back. After it the caller must not allocate, nor touch what an [`InitContext`] refers to.
pub fn settle(keep: &[RawFd], filter: &Filter) -> Result<(), Failure> {
    let fail = |what: &'static str| move |errno| Failure::new(Stage::Confine, errno, what.as_bytes());
    process::close_all_but(keep).map_err(fail("close_range"))?;
    keep_only(CapSet::EMPTY.with(KILL)).map_err(fail("capabilities"))?;
    match crate::seccomp::load(filter) {
        // A kernel without filters: main would not have started if the service were to have one.
        Ok(()) | Err(Errno(libc::ENOSYS | libc::EINVAL)) => {}
        Err(errno) => return Err(fail("seccomp")(errno)),
    }
    HEAP.wipe();
    stack::wipe();
    Ok(())
}
