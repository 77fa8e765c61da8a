//! What a first process says while no loop runs: to the console, the kernel's log, and the supervisor's ring.
#![forbid(unsafe_code)]

use crate::supervisor::report::{Places, Report};
use crate::supervisor::rundir;
use crate::sys::folder;
use std::path::Path;

/// The lines of a first process. The ring has one writer at a time, so it is given up while a supervisor runs.
pub struct Voice {
    places: Places,
    report: Option<Report>,
}

impl Voice {
    /// One that writes to these places, and to the ring, for which the run directory is made.
    pub fn new(places: Places) -> Voice {
        // Where it cannot be made there is no ring, and no supervisor, which says so.
        let _ = folder::make_all(rundir::DEFAULT.as_ref(), 0o700);
        Voice { places, report: None }
    }

    /// Says one sentence.
    pub fn say(&mut self, sentence: impl core::fmt::Display) {
        let dir = Some(Path::new(rundir::DEFAULT)).filter(|dir| dir.is_dir());
        let places = self.places;
        self.report.get_or_insert_with(|| Report::open(dir, places)).line(sentence);
    }

    /// Leaves the ring to another writer, which can go on with what is open.
    pub fn rest(&mut self) -> Option<Report> {
        self.report.take()
    }
}
