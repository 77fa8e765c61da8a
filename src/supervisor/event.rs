//! What happens to the supervisor: the input of [`super::core::step`].
#![forbid(unsafe_code)]

use super::fault::Fault;
use super::notify::Notice;
use crate::base::units::Millis;
use crate::plan::Times;

/// The index of a service in the plan.
pub type Index = u16;

/// Which start of a service is meant, counted from 1. What comes late from an earlier one is ignored.
pub type Number = u32;

/// Who asked: a client's connection and the request's number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The connection, never used twice.
    pub client: u32,
    /// The request's `id`.
    pub id: u32,
}

/// How a main process ended, as waitpid(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It called exit.
    Code(u8),
    /// A signal killed it.
    Signal(u8),
}

/// What someone asks of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Run it, and first what it needs.
    Start,
    /// End it and leave it down.
    Stop,
    /// End it if it runs, then run it.
    Restart,
    /// Send its main process a signal.
    Kill(u8),
    /// Freeze it.
    Pause,
    /// Let it go on.
    Unpause,
    /// Do nothing for it by itself for so long; 0: go on.
    Hold(Millis),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The supervisor begins: what is enabled starts.
    Boot,
    /// A deadline may have passed.
    Timer,
    /// The wall clock, milliseconds since 1970, is ahead of the monotonic one by this; `None`: it is not known.
    Clock(Option<i64>),
    /// A request concerning one service.
    Request(Token, Index, Order),
    /// Tell when everything that boot starts has settled.
    WaitSettled(Token),
    /// Stop everything and end; a request or a signal.
    Shutdown(Option<Token>),
    /// A connection is gone; its requests need no answer.
    Forget(u32),
    /// The board has what the service needs and its image is unpacked.
    Ready(Index),
    /// The board lacks what the service needs: why, and the way out.
    Held(Index, Box<str>),
    /// The board has not come as far as the service needs it: what it waits for.
    Awaits(Index, Box<str>),
    /// A condition of the service does not hold, so there is nothing for it to do: which.
    Skipped(Index, Box<str>),
    /// The image cannot be used: why.
    ImageFailed(Index, Box<str>),
    /// Something that held the service, or that it waits for, may be there now.
    Unheld(Index),
    /// A device that the service lists is gone.
    Unplugged(Index),
    /// Something that happened to an instance.
    Instance(Index, Number, InstanceEvent),
}

impl Event {
    /// The service that it is about.
    pub fn service(&self) -> Option<Index> {
        match self {
            Event::Request(_, index, _)
            | Event::Ready(index)
            | Event::Held(index, _)
            | Event::Skipped(index, _)
            | Event::Awaits(index, _)
            | Event::ImageFailed(index, _)
            | Event::Unheld(index)
            | Event::Unplugged(index)
            | Event::Instance(index, ..) => Some(*index),
            Event::Boot
            | Event::Timer
            | Event::Clock(_)
            | Event::WaitSettled(_)
            | Event::Shutdown(_)
            | Event::Forget(_) => None,
        }
    }
}

impl Event {
    /// The sentence that it carries.
    pub fn sentence(&mut self) -> Option<&mut Box<str>> {
        match self {
            Event::Held(_, why)
            | Event::Awaits(_, why)
            | Event::Skipped(_, why)
            | Event::ImageFailed(_, why)
            | Event::Instance(
                ..,
                InstanceEvent::SpawnFailed(why)
                | InstanceEvent::MainFailed(why)
                | InstanceEvent::Troubled(why)
                | InstanceEvent::Frozen(Err(why)),
            ) => Some(why),
            _ => None,
        }
    }
}

/// What happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceEvent {
    /// Its init exists.
    Spawned,
    /// The sandbox could not be made: a sentence.
    SpawnFailed(Box<str>),
    /// Its main process runs.
    MainStarted,
    /// Its main process could not be executed: a sentence. Its init is about to end.
    MainFailed(Box<str>),
    /// Its main process ended; its init is about to.
    MainExited(Status),
    /// Its init ended, and with it every process of the instance. The status is the one of its exit record: `None` if
    /// init itself was killed.
    InitGone(Option<Status>),
    /// The kernel killed a process of it for want of memory.
    OutOfMemory,
    /// It said something about itself.
    Notified(Notice),
    /// It said what is wrong with it: its words. They explain its end.
    Troubled(Box<str>),
    /// How often and how patiently its image says that it is to be asked whether it works.
    Probing(Times),
    /// The probe on its way has ended.
    Probed(Result<(), Fault>),
    /// Freezing or thawing succeeded (`true`: it is frozen now) or why it did not.
    Frozen(Result<bool, Box<str>>),
}
