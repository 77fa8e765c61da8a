//! The state of one service inside the core.
#![forbid(unsafe_code)]

use super::backoff::Backoff;
use super::event::{Index, Number, Status};
use super::health::Checks;
use super::timer::Due;
use crate::base::exit;
use crate::base::units::Millis;
use crate::plan::Need;
use core::fmt;

/// What a service is doing.
///
/// ```text
///            needs there        image there        main runs         is ready
/// Waiting ──────────> Preparing ─────────> Starting ───────> Started ────────> Running
///    ^                    │                    │                │                 │
///    │ deadline           │ image bad          │ fails          │ exits, hangs    │ exits, hangs, is stopped
///    │                    v                    v                v                 v
/// Backoff <───────────  Held             (Stopping) <────── Stopping <──────── Stopping ───> Stopped, Done, Failed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not started yet, or stopped by someone.
    Stopped,
    /// For a service that it needs, or for something of the board.
    Waiting,
    /// For its image, and for a look at what the board has.
    Preparing,
    /// Its init exists or is about to; main does not run yet.
    Starting,
    /// Main runs and has not said yet that it is ready.
    Started,
    /// Main runs and is ready.
    Running,
    /// Its instance is being ended.
    Stopping(Ending),
    /// It is started again at the deadline.
    Backoff,
    /// The board lacks something; started again when that changes or when someone asks.
    Held,
    /// It ended badly and is not started again.
    Failed,
    /// It ended well and is not started again, or there was nothing for it to do.
    Done,
}

/// How far the end of an instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Main was sent its stop signal, or SIGABRT, or says that it is ending, and has until the deadline.
    Asked,
    /// Main has ended by itself; init sweeps up and ends.
    Sweeping,
    /// Everything but its init was sent SIGKILL; init still has to keep the last lines of the log and to write the exit
    /// record.
    Killed,
    /// Its init did not end by the deadline and was sent SIGKILL too.
    Felled,
    /// SIGKILL did not help by its deadline: something sits in the kernel, and there are too many like it already to leave
    /// it behind.
    Stuck,
}

/// Why a service is in its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing to say.
    None,
    /// The config says `"enabled": false`.
    Disabled,
    /// Someone asked for it.
    Asked,
    /// The supervisor is ending.
    Shutdown,
    /// Its configuration has changed.
    Changed,
    /// It waits for this.
    Needs(Need),
    /// It is started again with this service, which does not recover.
    Escalated(Index),
    /// The board has not come so far yet; [`Service::detail`] says what it waits for.
    Awaits,
    /// Its time has not come yet, or is not known.
    Timer,
    /// A device that it lists is gone.
    Unplugged,
    /// Main ended.
    Exit(Status),
    /// The kernel killed it at its memory limit.
    OutOfMemory,
    /// It was not ready within `start_timeout`.
    StartTimeout,
    /// It reads its configuration anew, as it says.
    Reloading,
    /// It said that it reads its configuration anew, and did not say within `start_timeout` that it is ready again.
    ReloadTimeout,
    /// It is ending by itself, as it says.
    Stopping,
    /// It did not ping within its `watchdog`, or said itself that something is wrong.
    Watchdog,
    /// It failed too many probes of its live check; [`Service::health`] says which way.
    Unhealthy,
    /// It runs and fails the probes of its ready check, which is shown and nothing else.
    NotReady,
    /// The sandbox could not be made; [`Service::detail`] says why.
    SpawnFailed,
    /// The image cannot be used; [`Service::detail`] says why.
    Image,
    /// The board lacks something; [`Service::detail`] says what.
    Board,
    /// What the config wants to hold for it to start did not; [`Service::detail`] says what.
    Skipped,
    /// Its init was killed from outside.
    InitLost,
    /// It could not be frozen or thawed; [`Service::detail`] says why.
    Freezer,
    /// It does not die.
    Stuck,
}

impl Reason {
    /// Whether `on-failure` starts a service again that ended for this reason.
    pub const fn is_failure(self) -> bool {
        !matches!(
            self,
            Reason::Exit(Status::Code(0)) | Reason::Asked | Reason::Shutdown | Reason::Changed | Reason::None
        )
    }

    /// One word for programs, in the event ring.
    pub const fn code(self) -> &'static str {
        match self {
            Reason::None => "none",
            Reason::Disabled => "disabled",
            Reason::Asked => "asked",
            Reason::Shutdown => "shutdown",
            Reason::Changed => "changed",
            Reason::Needs(_) | Reason::Awaits => "needs",
            Reason::Timer => "timer",
            Reason::Unplugged => "unplugged",
            Reason::Escalated(_) => "escalated",
            Reason::Exit(Status::Code(exit::INVALID)) => "config",
            Reason::Exit(Status::Code(_)) => "exit",
            Reason::Exit(Status::Signal(_)) => "signal",
            Reason::OutOfMemory => "memory",
            Reason::StartTimeout => "start-timeout",
            Reason::Reloading => "reloading",
            Reason::ReloadTimeout => "reload-timeout",
            Reason::Stopping => "by-itself",
            Reason::Watchdog => "watchdog",
            Reason::Unhealthy => "unhealthy",
            Reason::NotReady => "not-ready",
            Reason::SpawnFailed => "spawn",
            Reason::Image => "image",
            Reason::Board => "board",
            Reason::Skipped => "skipped",
            Reason::InitLost => "init-lost",
            Reason::Freezer => "freezer",
            Reason::Stuck => "stuck",
        }
    }

    /// The reason once main has ended with `status`: what says that it is ending has ended by itself.
    pub const fn or_exit(self, status: Status) -> Reason {
        match self {
            Reason::Stopping => Reason::Exit(status),
            reason => reason,
        }
    }
}

impl fmt::Display for Reason {
    /// A half sentence; empty if there is nothing to say. Names and details are the caller's to add.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::None => Ok(()),
            Reason::Disabled => f.write_str("not enabled in the config"),
            Reason::Asked => f.write_str("on request"),
            Reason::Shutdown => f.write_str("the supervisor is ending"),
            Reason::Changed => f.write_str("its configuration has changed"),
            Reason::Needs(_) | Reason::Awaits => f.write_str("waits for"),
            Reason::Escalated(_) => f.write_str("started again with"),
            Reason::Timer => f.write_str("waits for its time"),
            Reason::Unplugged => f.write_str("a device that it lists is gone"),
            Reason::Exit(Status::Code(exit::INVALID)) => f.write_str("exit code 78: its configuration is wrong"),
            Reason::Exit(Status::Code(code)) => write!(f, "exit code {code}"),
            Reason::Exit(Status::Signal(signal)) => write!(f, "killed by signal {signal}"),
            Reason::OutOfMemory => f.write_str("out of memory: killed at its limit"),
            Reason::StartTimeout => f.write_str("was not ready within its start_timeout"),
            Reason::Reloading => f.write_str("reads its configuration anew"),
            Reason::ReloadTimeout => f.write_str("was not ready again within its start_timeout after a reload"),
            Reason::Stopping => f.write_str("is ending by itself"),
            Reason::Watchdog => f.write_str("its watchdog expired"),
            Reason::Unhealthy => f.write_str("unhealthy"),
            Reason::NotReady => f.write_str("not ready"),
            Reason::SpawnFailed => f.write_str("could not be started"),
            Reason::Image => f.write_str("its image cannot be used"),
            Reason::Board => f.write_str("this board lacks something"),
            Reason::Skipped => f.write_str("skipped"),
            Reason::InitLost => f.write_str("its init was killed from outside"),
            Reason::Freezer => f.write_str("could not be frozen or thawed"),
            Reason::Stuck => f.write_str("does not die after SIGKILL: it is stuck in the kernel"),
        }
    }
}

/// What happens once the instance is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// What the restart policy says.
    Policy,
    /// It stays down.
    Stay,
    /// It is started again at once, as someone asks.
    Again,
    /// It is started again at once, for what is not its own fault; its past counts on, and this end does not count.
    Along,
}

/// One service's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is doing.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Millis,
    /// When something happens by itself; `None`: nothing will.
    pub deadline: Option<Millis>,
    /// How far `deadline` can be put off by who asks for more time. While it runs: it reloads.
    pub furthest: Option<Millis>,
    /// The time between two pings; `None`: it is not watched.
    pub period: Option<Millis>,
    /// When it has to have pinged.
    pub ping_by: Option<Millis>,
    /// Whether it has had a period more because the supervisor looked too late, and has not pinged since.
    pub late: bool,
    /// How it answers when it is asked whether it works.
    pub health: Checks,
    /// The current or last instance; 0 before the first.
    pub number: Number,
    /// What happens once the instance is gone.
    pub after: After,
    /// How long main ran before it was last being ended.
    pub ran: Millis,
    /// Whether it is frozen.
    pub paused: bool,
    /// Whether the kernel has killed a process of this instance for want of memory.
    pub oom: bool,
    /// Whether it should run: enabled at boot or started since, and not stopped since.
    pub wanted: bool,
    /// How often and how long its restarts are put off.
    pub backoff: Backoff,
    /// Until when nothing is done for it but what someone asks for.
    pub hold: Option<Millis>,
    /// Whether its next restart has its place in the device's budget.
    pub booked: bool,
    /// When it starts by its timer.
    pub due: Due,
    /// Times that the kernel killed it for want of memory.
    pub oom_kills: u32,
    /// The sentence behind `reason`, where it has one.
    pub detail: Option<Box<str>>,
    /// What the instance has said to be wrong with it (`ERRNO=` and the like).
    pub said: Option<Box<str>>,
}

impl Service {
    /// A service that nobody has started.
    pub fn new() -> Service {
        Service {
            phase: Phase::Stopped,
            reason: Reason::Disabled,
            since: Millis(0),
            deadline: None,
            furthest: None,
            period: None,
            ping_by: None,
            late: false,
            health: Checks::default(),
            number: 0,
            after: After::Policy,
            ran: Millis(0),
            paused: false,
            oom: false,
            wanted: false,
            backoff: Backoff::default(),
            hold: None,
            booked: false,
            due: Due::default(),
            oom_kills: 0,
            detail: None,
            said: None,
        }
    }

    /// Whether there may be processes of it.
    pub fn has_instance(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Started | Phase::Running | Phase::Stopping(_))
    }

    /// Whether it can begin only once the board has what it lacks now.
    pub fn waits_for_board(&self) -> bool {
        self.phase == Phase::Held || self.phase == Phase::Waiting && self.reason == Reason::Awaits
    }

    /// Whether nothing keeps it from starting but its timer.
    pub fn waits_for_its_time(&self) -> bool {
        self.phase == Phase::Waiting && self.reason == Reason::Timer
    }

    /// Whether it should run, or have run by now, and does not.
    pub fn is_missing(&self) -> bool {
        self.wanted && !self.is_up() && !self.waits_for_its_time()
    }

    /// When it starts by itself, as far as that is known while nothing of it runs.
    pub fn next_start(&self) -> Option<Millis> {
        self.deadline.or(self.due.at.filter(|_| !self.has_instance()))
    }

    /// Whether its instance does not end although everything was done.
    pub fn is_stuck(&self) -> bool {
        self.phase == Phase::Stopping(Ending::Stuck)
    }

    /// Whether it is there for others: it runs and is ready, or it ran to a good end.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Done)
    }
}

impl Default for Service {
    fn default() -> Self {
        Service::new()
    }
}
