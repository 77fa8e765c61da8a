//! Requests that are answered later: when what they ask for has come about, or cannot.
#![forbid(unsafe_code)]

use super::action::{Refusal, Verdict};
use super::event::{Index, Token};
use super::graph;
use super::service::{Ending, Phase, Reason, Service};
use crate::plan::{Kind, Plan};

/// Requests that can wait for something at the same time.
pub const WAITS: usize = 64;

/// A request that is answered later.
#[derive(Debug)]
pub struct Wait {
    /// Who asked.
    pub token: Token,
    /// For what.
    pub goal: Goal,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The service runs and is ready; a oneshot is done.
    Up(Index),
    /// Nothing of the service runs.
    Down(Index),
    /// The service is frozen (`true`) or not.
    Frozen(Index, bool),
    /// Nothing that boot starts is on its way any more.
    Settled,
    /// Everything has ended.
    Ended,
}

/// What can be said by now about a request with this goal.
pub fn verdict(plan: &Plan, services: &[Service], blocked: &graph::Marks, goal: Goal) -> Option<Verdict> {
    let service = |index: Index| services.get(usize::from(index));
    let is_oneshot = |index: usize| plan.services.get(index).is_some_and(|service| service.kind == Kind::Oneshot);
    match goal {
        Goal::Up(index) => match service(index)? {
            Service { phase: Phase::Running, wanted: true, .. } if is_oneshot(usize::from(index)) => None,
            Service { phase: Phase::Running | Phase::Done, .. } => Some(Verdict::Done(index)),
            Service { wanted: false, .. } => Some(Verdict::Overtaken(index)),
            Service { phase: Phase::Waiting, .. } => graph::marked(blocked, index).then_some(Verdict::Failed(index)),
            Service { phase: Phase::Preparing | Phase::Starting | Phase::Started, .. } => None,
            Service { phase: Phase::Stopping(ending), .. } if *ending != Ending::Stuck => None,
            _ => Some(Verdict::Failed(index)),
        },
        Goal::Down(index) => match service(index)? {
            Service { wanted: true, .. } => Some(Verdict::Overtaken(index)),
            service if service.is_stuck() || service.reason == Reason::Stuck => Some(Verdict::Failed(index)),
            service => (!service.has_instance()).then_some(Verdict::Done(index)),
        },
        Goal::Frozen(index, frozen) => match service(index)? {
            service if service.phase != Phase::Running => Some(Verdict::Refused(index, Refusal::NotRunning)),
            service => (service.paused == frozen).then_some(Verdict::Done(index)),
        },
        Goal::Settled => {
            let waiting = |(index, service): (usize, &Service)| match service.phase {
                Phase::Waiting => blocked.get(index) != Some(&true),
                Phase::Preparing | Phase::Starting | Phase::Started => true,
                Phase::Running => is_oneshot(index),
                Phase::Stopping(ending) => ending != Ending::Stuck,
                _ => false,
            };
            if services.iter().enumerate().any(waiting) {
                return None;
            }
            Some(if !services.iter().any(Service::is_missing) { Verdict::Settled } else { Verdict::SettledWithout })
        }
        Goal::Ended => None,
    }
}
