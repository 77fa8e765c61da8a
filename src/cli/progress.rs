//! Progress of long work: a bar on a terminal, now and then a plain line elsewhere. It goes to standard error, so that
//! standard output stays what was asked for.
#![forbid(unsafe_code)]

use super::output;
use crate::base::units::Bytes;
use crate::log::format::Safe;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two pictures of the bar.
const REDRAW: Duration = Duration::from_millis(100);
/// Time between two plain lines.
const SAY: Duration = Duration::from_secs(5);
/// Columns used where the terminal does not tell its width.
const COLUMNS: usize = 80;

/// The progress of one piece of work, counted in bytes.
pub struct Progress {
    label: String,
    total: Option<u64>,
    done: u64,
    terminal: bool,
    columns: usize,
    begun: Instant,
    shown: Option<Instant>,
}

impl Progress {
    /// Work called `label` (`unpacking web.tar`) of `total` bytes, if that is known.
    pub fn new(label: &str, total: Option<u64>) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        Progress {
            label: Safe(label.as_bytes()).to_string(),
            total,
            done: 0,
            terminal,
            columns: columns(),
            begun: Instant::now(),
            shown: None,
        }
    }

    /// The work is now called `label`: its next part began.
    pub fn relabel(&mut self, label: &str) {
        self.label = Safe(label.as_bytes()).to_string();
    }

    /// So many bytes are done. Cheap enough to call for every block.
    pub fn update(&mut self, done: u64) {
        self.done = done;
        let now = Instant::now();
        let pause = if self.terminal { REDRAW } else { SAY };
        if now.duration_since(self.shown.unwrap_or(self.begun)) < pause {
            return;
        }
        self.shown = Some(now);
        if self.terminal {
            let bar = bar(&self.label, self.done, self.total, self.columns);
            let mut err = std::io::stderr().lock();
            // A terminal that is gone needs no picture.
            let _ = write!(err, "\r{bar}\x1b[K").and_then(|()| err.flush());
        } else {
            output::complain(&plain(&self.label, self.done, self.total));
        }
    }

    /// The work is over, well or not: removes the bar. Dropping does the same.
    pub fn finish(self) {}
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.shown.is_some() {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
        }
    }
}

/// The terminal's width.
fn columns() -> usize {
    crate::sys::terminal::window_size(std::io::stderr()).map_or(COLUMNS, |(_, columns)| usize::from(columns.max(20)))
}

fn percent(done: u64, total: u64) -> u64 {
    done.min(total).saturating_mul(100) / total.max(1)
}

fn plain(label: &str, done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{label}: {}% of {}", percent(done, total), Bytes(total)),
        None => format!("{label}: {}", Bytes(done)),
    }
}

fn bar(label: &str, done: u64, total: Option<u64>, columns: usize) -> String {
    let tail = match total {
        Some(total) => format!(" {:3}% of {}", percent(done, total), Bytes(total)),
        None => format!(" {}", Bytes(done)),
    };
    // The last column stays free: some terminals wrap when it is written.
    let room = columns.saturating_sub(tail.len() + 1);
    let label: String = label.chars().take(room.saturating_sub(14)).collect();
    let width = room.saturating_sub(label.chars().count() + 3);
    match total {
        Some(total) if width >= 8 => {
            let full = width * usize::try_from(percent(done, total)).unwrap_or(100) / 100;
            format!("{label} [{}{}]{tail}", "#".repeat(full), ".".repeat(width - full))
        }
        _ => format!("{label}{tail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fits_its_terminal_and_ends_at_a_hundred() {
        for columns in [20, 40, 80, 200] {
            for (done, total) in [(0, 0), (1, 3), (5, 5), (9, 5), (u64::MAX, u64::MAX)] {
                let bar = bar("unpacking a-rather-long-name.tar", done, Some(total), columns);
                assert!(bar.chars().count() < columns || columns == 20, "{bar}");
            }
        }
        assert_eq!(bar("x", 1 << 20, Some(2 << 20), 40), "x [############............]  50% of 2M");
        assert_eq!(plain("x", 3 << 20, None), "x: 3M");
        assert_eq!(plain("x", 9, Some(3)), "x: 100% of 3");
    }
}
