//! What the loop is told of.
#![forbid(unsafe_code)]

use super::event::Index;
use nix::sys::epoll::{EpollEvent, EpollFlags};

/// What an entry of the epoll set stands for: the upper half of its mark; the lower half is a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Signals,
    Timer,
    Control,
    Worker,
    Folders,
    Awaited,
    Lookout,
    Left,
    Channel(Index),
    Memory(Index),
    Init(Index),
    Probe(Index),
}

impl Source {
    /// Its mark.
    pub(super) fn mark(self) -> u64 {
        match self {
            Source::Signals => 0,
            Source::Timer => 1 << 32,
            Source::Control => 2 << 32,
            Source::Worker => 3 << 32,
            Source::Folders => 4 << 32,
            Source::Awaited => 7 << 32,
            Source::Lookout => 8 << 32,
            Source::Left => 11 << 32,
            Source::Channel(index) => 5 << 32 | u64::from(index),
            Source::Memory(index) => 6 << 32 | u64::from(index),
            Source::Init(index) => 9 << 32 | u64::from(index),
            Source::Probe(index) => 10 << 32 | u64::from(index),
        }
    }

    /// What `mark` stands for.
    pub(super) fn of(mark: u64) -> Source {
        match (mark >> 32, mark as Index) {
            (0, _) => Source::Signals,
            (1, _) => Source::Timer,
            (2, _) => Source::Control,
            (3, _) => Source::Worker,
            (4, _) => Source::Folders,
            (7, _) => Source::Awaited,
            (8, _) => Source::Lookout,
            (11, _) => Source::Left,
            (5, index) => Source::Channel(index),
            (9, index) => Source::Init(index),
            (10, index) => Source::Probe(index),
            (_, index) => Source::Memory(index),
        }
    }
}

/// What is to be told of the connection of a probe of service `index`.
pub(super) fn probe_event(index: Index, flags: EpollFlags) -> EpollEvent {
    EpollEvent::new(flags, Source::Probe(index).mark())
}
