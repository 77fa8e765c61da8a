//! What the supervisor does next: the output of [`super::core::step`].
#![forbid(unsafe_code)]

use super::escalation::Rung;
use super::event::{Index, Number, Token};
use super::service::Phase;
use crate::plan::Role;

/// One thing to do. The loop carries them out in order; none blocks, and what comes of one is a later event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// See that the board has what the service needs and that its image is in the store; answered by `Ready`, `Held`,
    /// `Awaits`, `Skipped` or `ImageFailed`.
    Prepare(Index),
    /// Make the sandbox and run main in it; answered by `Spawned` or `SpawnFailed`.
    Spawn(Index, Number),
    /// Send the main process a signal; `None`: the service's stop signal.
    Signal(Index, Number, Option<u8>),
    /// Kill every process of the instance but its init, which then ends by itself.
    KillTree(Index, Number),
    /// Kill its init, and with it whatever is left.
    KillInit(Index, Number),
    /// Freeze every process of the service (`true`) or let them go on; answered by `Frozen`.
    Freeze(Index, Number, bool),
    /// Ask it whether it works, by its check of this role; answered by `Probed`.
    Probe(Index, Number, Role),
    /// Ask no more: what is on its way is given up, and nothing comes of it.
    EndProbe(Index, Number),
    /// The instance is dead: remove what it leaves.
    Cleanup(Index, Number),
    /// The service is now in this phase; tell people.
    Changed(Index, Phase),
    /// The kill did not help: name what is left and set it aside, unless the service stays stuck with it.
    GiveUp(Index, Number),
    /// An incident of the service begins: keep what is known of it.
    Crashed(Index),
    /// Restarts are put off, this service's first: the whole board has had too many. Told once a minute.
    PutOff(Index),
    /// The service does not recover by what was done so far: recovery goes on from this rung. On the last one the board
    /// is to be rebooted, if it may.
    Climbed(Index, Rung),
    /// Nothing is done for the service by itself any more (`true`), or it is again.
    OnHold(Index, bool),
    /// Answer a request.
    Answer(Token, Verdict),
    /// Everything has ended: end.
    Complete,
}

impl Action {
    /// The service that it is about.
    pub fn service(&self) -> Option<Index> {
        match self {
            Action::Prepare(index)
            | Action::Spawn(index, _)
            | Action::Signal(index, ..)
            | Action::KillTree(index, _)
            | Action::KillInit(index, _)
            | Action::Freeze(index, ..)
            | Action::Cleanup(index, _)
            | Action::Changed(index, _)
            | Action::GiveUp(index, _)
            | Action::PutOff(index)
            | Action::Probe(index, ..)
            | Action::EndProbe(index, _)
            | Action::Crashed(index)
            | Action::OnHold(index, _)
            | Action::Climbed(index, _) => Some(*index),
            Action::Answer(..) | Action::Complete => None,
        }
    }
}

/// How a request ended; the loop finds the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The service is as asked; its phase says how that reads.
    Done(Index),
    /// The signal is on its way.
    Sent(Index),
    /// Nothing is done for it by itself any more (`true`), or it is again.
    OnHold(Index, bool),
    /// The service could not be brought there; its phase and reason say why.
    Failed(Index),
    /// The request does not fit what the service is doing: it does not run, is paused, and so on.
    Refused(Index, Refusal),
    /// A later request for the same service was the opposite of this one.
    Overtaken(Index),
    /// Everything that boot starts runs or is done.
    Settled,
    /// It has settled, but some services do not run.
    SettledWithout,
    /// Everything has ended.
    Ended,
    /// So many requests wait already that this one cannot.
    Busy,
}

/// Why a request does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing of the service runs.
    NotRunning,
    /// It is frozen already.
    AlreadyPaused,
    /// It is not frozen.
    NotPaused,
    /// The supervisor is ending.
    ShuttingDown,
}

/// The actions of one step, in order. The loop keeps one and drains it, so that its memory is used again.
#[derive(Debug, Default)]
pub struct Actions(Vec<Action>);

impl Actions {
    /// None, with room for so many.
    pub fn with_room(count: usize) -> Actions {
        Actions(Vec::with_capacity(count))
    }

    /// Appends one.
    pub fn push(&mut self, action: Action) {
        self.0.push(action);
    }

    /// Takes all of them, in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Action> {
        self.0.drain(..)
    }

    /// All of them, in order.
    pub fn as_slice(&self) -> &[Action] {
        &self.0
    }
}
