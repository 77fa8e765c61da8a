//! The words for states and outcomes. Pure.
#![forbid(unsafe_code)]

use super::action::{Refusal, Verdict};
use super::event::{Index, Status};
use super::service::{Ending, Phase, Reason, Service};
use crate::base::exit;
use crate::base::signal;
use crate::base::units::Millis;
use crate::control::wire::{DoneLine, Kind, ServiceLine, StateWord, cut};
use crate::plan::{self, Need, Plan};
use core::fmt;

/// The word for a service's phase.
pub fn state_word(service: &Service) -> StateWord {
    word(service.phase, service)
}

/// The word for a phase that a service has come into.
pub fn word(phase: Phase, service: &Service) -> StateWord {
    match phase {
        Phase::Stopped => StateWord::Stopped,
        Phase::Waiting => StateWord::Waiting,
        Phase::Preparing => StateWord::Preparing,
        Phase::Starting | Phase::Started => StateWord::Starting,
        Phase::Running if service.paused => StateWord::Paused,
        Phase::Running => StateWord::Running,
        Phase::Stopping(_) => StateWord::Stopping,
        Phase::Backoff if service.backoff.is_looping() => StateWord::CrashLoop,
        Phase::Backoff => StateWord::Backoff,
        Phase::Held => StateWord::Held,
        Phase::Failed => StateWord::Failed,
        Phase::Done => StateWord::Done,
    }
}

/// Why a service is in its phase, as a half sentence with all names in it.
pub struct Why<'a>(pub &'a Plan, pub Index, pub &'a Service);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Why(plan, _, service) = self;
        match service.reason {
            Reason::Timer if service.due.at.is_none() => f.write_str("waits for the clock to be set"),
            Reason::Needs(Need::Started(needed)) => write!(f, "waits for {}", name(plan, needed)),
            Reason::Needs(Need::Ready(needed)) => write!(f, "waits for {} to be ready", name(plan, needed)),
            Reason::Needs(Need::Soft(needed)) => write!(f, "waits while {} is on its way", name(plan, needed)),
            Reason::Needs(Need::Done(needed)) => write!(f, "waits for {} to be done", name(plan, needed)),
            Reason::Escalated(other) => write!(f, "started again with {}, which does not recover", name(plan, other)),
            Reason::Exit(Status::Signal(number)) => match signal::name(number) {
                Some(word) => write!(f, "killed by signal {number} ({word})"),
                None => write!(f, "killed by signal {number}"),
            },
            reason @ (Reason::SpawnFailed
            | Reason::Image
            | Reason::Board
            | Reason::Awaits
            | Reason::Skipped
            | Reason::Freezer) => match (reason, &service.detail) {
                (_, None) => write!(f, "{reason}"),
                (Reason::Board | Reason::Awaits, Some(detail)) => f.write_str(detail),
                (_, Some(detail)) => write!(f, "{reason}: {detail}"),
            },
            reason => write!(f, "{reason}"),
        }?;
        self.health(f)?;
        match (service.reason, &service.said) {
            (Reason::Exit(_) | Reason::Watchdog | Reason::StartTimeout | Reason::ReloadTimeout, Some(said)) => {
                write!(f, "; it said {said}")
            }
            _ => Ok(()),
        }
    }
}

impl Why<'_> {
    /// What its probes have met, where that is the reason.
    fn health(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Why(plan, index, service) = self;
        let checks = plan.services.get(usize::from(*index)).map_or(&[][..], |configured| &configured.health);
        let Some((check, health)) = service.health.worst(checks) else { return Ok(()) };
        let Some(fault) = health.fault else { return Ok(()) };
        if matches!(service.reason, Reason::Unhealthy | Reason::NotReady | Reason::StartTimeout) {
            write!(f, ": {}: {fault}", check.probe)?;
        }
        match (service.reason, health.failures) {
            (Reason::Unhealthy, times @ 2..) => write!(f, ", {times} times"),
            _ => Ok(()),
        }
    }
}

/// The name of service `index`. Compiled once: every sentence begins with it.
#[inline(never)]
pub fn name(plan: &Plan, index: Index) -> &str {
    plan.services.get(usize::from(index)).map_or("?", |service| service.name.as_str())
}

/// All needs of a service as the config writes them.
pub fn needs(plan: &Plan, service: &plan::Service) -> Vec<String> {
    let mut needs: Vec<String> = service.needs.iter().map(|own| need(plan, *own)).collect();
    for awaited in &service.awaits {
        needs.push(awaited.to_string());
    }
    needs
}

fn need(plan: &Plan, need: Need) -> String {
    match need {
        Need::Started(index) => name(plan, index).to_owned(),
        Need::Ready(index) => format!("{}:ready", name(plan, index)),
        Need::Done(index) => format!("{}:done", name(plan, index)),
        Need::Soft(index) => format!("{}:soft", name(plan, index)),
    }
}

/// Whether people are told that a service has come into `phase`: not of what is on the way to something that is told.
pub fn is_told(phase: Phase) -> bool {
    !matches!(phase, Phase::Preparing | Phase::Starting | Phase::Started | Phase::Stopping(Ending::Sweeping))
}

/// What a person who watches is told when service `.1` has come into phase `.3`, at `.4`.
pub struct Change<'a>(pub &'a Plan, pub Index, pub &'a Service, pub Phase, pub Millis);

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change(plan, index, service, phase, now) = self;
        let why = Why(plan, *index, service);
        f.write_str(name(plan, *index))?;
        f.write_str(match phase {
            Phase::Running if service.paused => return f.write_str(" is paused"),
            Phase::Running if service.reason == Reason::NotReady => return write!(f, " is {why}"),
            Phase::Running => return f.write_str(" is running"),
            Phase::Waiting => return write!(f, " {why}"),
            Phase::Preparing | Phase::Starting | Phase::Started => " is starting",
            Phase::Backoff if service.backoff.is_looping() => " ended again, in a crash loop",
            Phase::Backoff => " ended",
            Phase::Stopping(_) => " is being stopped",
            Phase::Stopped => " is stopped",
            Phase::Held => " is held",
            Phase::Failed => " has failed and is not started again",
            Phase::Done => " is done",
        })?;
        if service.reason != Reason::None {
            write!(f, ": {why}")?;
        }
        match (phase, service.deadline) {
            (Phase::Backoff, Some(deadline)) => write!(f, "; starts again in {}", deadline.since(*now)),
            _ => Ok(()),
        }
    }
}

/// One line of `ps`. `pids` are main's and init's.
pub fn service_line(
    id: u32,
    plan: &Plan,
    index: Index,
    service: &Service,
    pids: (i32, i32),
    now: Millis,
) -> ServiceLine {
    let configured = plan.services.get(usize::from(index));
    ServiceLine {
        id,
        kind: Kind::Service,
        name: cut(&name(plan, index)),
        state: state_word(service),
        health: match configured {
            Some(configured) if service.has_instance() => cut(&service.health.word(&configured.health)),
            _ => heapless::String::new(),
        },
        reason: match service.hold {
            Some(until) => cut(&format_args!("HANDS OFF for {}; {}", until.since(now), Why(plan, index, service))),
            None => cut(&Why(plan, index, service)),
        },
        image: cut(&configured.and_then(plan::Service::image).unwrap_or_default()),
        pid: pids.0,
        init: pids.1,
        age_ms: now.since(service.since).0,
        next_ms: service.next_start().map_or(0, |deadline| deadline.since(now).0.max(1)),
        restarts: service.number.saturating_sub(1),
        oom_kills: service.oom_kills,
    }
}

/// How service `.2` stands, and why.
struct Standing<'a>(&'a Plan, &'a [Service], Index);

impl fmt::Display for Standing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing(plan, services, index) = *self;
        let Some(service) = services.get(usize::from(index)) else { return f.write_str("it is not known") };
        write!(f, "{} is {}", name(plan, index), state_word(service).as_str())?;
        match service.reason {
            Reason::None => Ok(()),
            _ => write!(f, ": {}", Why(plan, index, service)),
        }
    }
}

/// The last line of an answer.
pub fn done_line(id: u32, plan: &Plan, services: &[Service], verdict: Verdict) -> DoneLine {
    let ok = |text: fmt::Arguments<'_>| DoneLine::ok(id, &text);
    let failed = |text: fmt::Arguments<'_>| DoneLine::failed(id, exit::FAILED, &text);
    let standing = |index: Index| Standing(plan, services, index);
    match verdict {
        Verdict::Done(index) => ok(format_args!("{}", standing(index))),
        Verdict::Sent(index) => ok(format_args!("the signal was sent to {}", name(plan, index))),
        Verdict::OnHold(index, true) => ok(format_args!("hands off {}", name(plan, index))),
        Verdict::OnHold(index, false) => ok(format_args!("{} is supervised again", name(plan, index))),
        Verdict::Failed(index) => failed(format_args!("{}", standing(index))),
        Verdict::Refused(index, refusal) => match refusal {
            Refusal::NotRunning => failed(format_args!("{}, so there is nothing to act on", standing(index))),
            Refusal::AlreadyPaused => failed(format_args!("{} is paused already", name(plan, index))),
            Refusal::NotPaused => failed(format_args!("{} is not paused", name(plan, index))),
            Refusal::ShuttingDown => failed(format_args!("the supervisor is ending and starts nothing any more")),
        },
        Verdict::Overtaken(index) => {
            failed(format_args!("a later request was the opposite of this one; {}", standing(index)))
        }
        Verdict::Settled => ok(format_args!("everything runs")),
        Verdict::SettledWithout => match services.iter().filter(|service| service.is_missing()).count() {
            1 => failed(format_args!("1 service does not run")),
            count => failed(format_args!("{count} services do not run")),
        },
        Verdict::Ended => ok(format_args!("everything is stopped")),
        Verdict::Busy => failed(format_args!("too many requests wait already (64); try again in a moment")),
    }
}
