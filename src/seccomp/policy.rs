//! What a policy is made of: groups of calls, rules on arguments, and the verdict for each call under given capabilities.

use super::groups::{GROUPS, INIT, WORKER};
use super::rules::{RULES, WORKER_RULES};
use super::syscalls::{COUNT, Sys};
use crate::plan::CapSet;

/// What the kernel does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Runs it.
    Allow,
    /// Answers this error number without running it.
    Errno(u16),
    /// Runs it and writes an audit record (to the kernel log where no audit daemon listens).
    Log,
    /// Kills the process with SIGSYS.
    Kill,
}

/// The answer to what is known and refused.
pub const REFUSED: Verdict = Verdict::Errno(libc::EPERM as u16);
/// The answer to what is unknown: what an older kernel answers, so programs take their fallback.
pub const UNKNOWN: Verdict = Verdict::Errno(libc::ENOSYS as u16);

/// Which policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// What common programs need.
    Default,
    /// The default without what a static network server does not need.
    Strict,
    /// The default, but what it would refuse is allowed and logged.
    Log,
    /// What a service's init needs once its main runs. It starts no process.
    Init,
    /// What the unpacking of an image needs.
    Worker,
}

/// Who may make the calls of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    Always,
    /// Everyone, except under [`Profile::Strict`].
    NotStrict,
    /// Whoever has one of these capabilities.
    With(CapSet),
    /// Nobody; this is the answer.
    Never(Verdict),
}

/// Calls that are treated alike.
#[derive(Debug)]
pub struct Group {
    /// What they are.
    pub name: &'static str,
    /// Who may make them.
    pub access: Access,
    /// The calls.
    pub calls: &'static [Sys],
}

/// How much of a 64-bit argument the kernel reads. Comparing other bits than the kernel reads is how filters are evaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// The lower half: `int`, `unsigned int`.
    Low32,
    /// All of it: `long`, `size_t`, pointers.
    Full64,
}

/// A condition on one argument: `argument & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cond {
    /// Which argument, from 0.
    pub arg: u8,
    /// How much of it the kernel reads.
    pub width: Width,
    /// The bits looked at.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
}

/// One line of a rule: if all conditions hold, this is the verdict.
#[derive(Debug)]
pub struct Case {
    /// The conditions.
    pub when: &'static [Cond],
    /// The line counts only with one of these capabilities; `None`: always.
    pub with: Option<CapSet>,
    /// The verdict.
    pub then: Verdict,
}

/// What decides a call by its arguments: the first case that holds, else `otherwise`.
#[derive(Debug)]
pub struct Rule {
    /// The call.
    pub call: Sys,
    /// The cases, tried in this order.
    pub cases: &'static [Case],
    /// The verdict when none holds.
    pub otherwise: Verdict,
    /// A capability that lifts the rule: the call is allowed whatever its arguments.
    pub lifted_by: CapSet,
}

/// What is done with one call.
#[derive(Debug, Clone, Copy)]
pub enum Decision {
    /// The same whatever the arguments.
    Fixed(Verdict),
    /// By the arguments.
    ByArguments(&'static Rule),
}

/// A policy for given capabilities: a decision for each known call, and the answers to all else.
#[derive(Debug)]
pub struct Policy {
    decisions: [Decision; COUNT],
    /// The capabilities it was made for.
    pub caps: CapSet,
    /// The answer to numbers that stand in no table.
    pub unknown: Verdict,
    /// The answer to calls of an architecture that the filter was not made for.
    pub foreign: Verdict,
    log: bool,
}

impl Policy {
    /// The policy of `profile` for a process with the capabilities `caps`.
    pub const fn new(profile: Profile, caps: CapSet) -> Policy {
        let log = matches!(profile, Profile::Log);
        let mut policy = Policy {
            decisions: [Decision::Fixed(REFUSED); COUNT],
            caps,
            unknown: UNKNOWN,
            foreign: Verdict::Kill,
            log,
        };
        match profile {
            Profile::Init => policy.decide(INIT, Verdict::Allow),
            Profile::Worker => {
                policy.decide(WORKER, Verdict::Allow);
                policy.rule(WORKER_RULES);
            }
            Profile::Default | Profile::Strict | Profile::Log => {
                let mut at = 0;
                while at < GROUPS.len() {
                    let verdict = match GROUPS[at].access {
                        Access::Always => Verdict::Allow,
                        Access::NotStrict if !matches!(profile, Profile::Strict) => Verdict::Allow,
                        Access::With(any) if any.0 & caps.0 != 0 => Verdict::Allow,
                        Access::NotStrict | Access::With(_) => REFUSED,
                        Access::Never(verdict) => verdict,
                    };
                    policy.decide(GROUPS[at].calls, verdict);
                    at += 1;
                }
                policy.rule(RULES);
            }
        }
        if log {
            policy.unknown = Verdict::Log;
            policy.foreign = Verdict::Log;
        }
        policy
    }

    /// A policy that refuses all but what `rules` say.
    #[cfg(test)]
    pub fn of_rules(rules: &'static [Rule]) -> Policy {
        let mut policy = Policy::new(Profile::Init, CapSet::EMPTY);
        policy.decisions = [Decision::Fixed(REFUSED); COUNT];
        policy.rule(rules);
        policy
    }

    /// What is done with `call`.
    pub const fn decision(&self, call: Sys) -> Decision {
        match self.decisions[call as usize] {
            Decision::Fixed(verdict) => Decision::Fixed(self.shown(verdict)),
            by_arguments => by_arguments,
        }
    }

    /// `verdict` as this policy speaks it: under [`Profile::Log`] a refusal becomes a record.
    pub const fn shown(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Errno(_) | Verdict::Kill if self.log => Verdict::Log,
            verdict => verdict,
        }
    }

    const fn decide(&mut self, calls: &[Sys], verdict: Verdict) {
        let mut at = 0;
        while at < calls.len() {
            self.decisions[calls[at] as usize] = Decision::Fixed(verdict);
            at += 1;
        }
    }

    const fn rule(&mut self, rules: &'static [Rule]) {
        let mut at = 0;
        while at < rules.len() {
            let rule = &rules[at];
            self.decisions[rule.call as usize] = match rule.lifted_by.0 & self.caps.0 {
                0 => Decision::ByArguments(rule),
                _ => Decision::Fixed(Verdict::Allow),
            };
            at += 1;
        }
    }
}
