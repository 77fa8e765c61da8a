//! Tables for people. Pure.
#![forbid(unsafe_code)]

use crate::log::format::Safe;
use core::fmt;

/// Columns with a heading, as wide as their longest cell, two spaces between them. The last column is not padded.
pub struct Table {
    headings: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table. A heading that begins with `>` makes its column flush right.
    pub fn new(headings: &[&'static str]) -> Table {
        Table {
            headings: headings.iter().map(|heading| heading.trim_start_matches('>')).collect(),
            right: headings.iter().map(|heading| heading.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Cells are made safe for a terminal; an empty one is shown as `-`.
    pub fn row(&mut self, cells: Vec<String>) {
        let safe = |cell: String| if cell.is_empty() { "-".to_owned() } else { Safe(cell.as_bytes()).to_string() };
        self.rows.push(cells.into_iter().map(safe).collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(self.headings.get(column).map(|heading| heading.len())).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    /// All lines, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.headings.len()).map(|column| self.width(column)).collect();
        let headings: Vec<String> = self.headings.iter().map(|heading| (*heading).to_owned()).collect();
        for (number, row) in core::iter::once(&headings).chain(&self.rows).enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                let last = column + 1 == widths.len();
                match self.right.get(column) {
                    Some(true) => write!(f, "{gap}{cell:>width$}")?,
                    _ if last => write!(f, "{gap}{cell}")?,
                    _ => write!(f, "{gap}{cell:<width$}")?,
                }
            }
        }
        Ok(())
    }
}

/// A length of time for people, in its two largest units: `3d 4h`, `2m 5s`, `850ms`.
pub fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_hostile_cells_stay_cells() {
        let mut table = Table::new(&["NAME", ">PID", "REASON"]);
        table.row(vec!["web".into(), "7".into(), "exit code 1\x1b[2J\n".into()]);
        table.row(vec!["größer".into(), String::new(), "x".into()]);
        assert_eq!(table.to_string(), "NAME    PID  REASON\nweb       7  exit code 1\\x1b[2J\\x0a\ngrößer    -  x");
    }

    #[test]
    fn ages_are_short() {
        let shown = [(0, "0ms"), (59_999, "59s"), (125_000, "2m 5s"), (3_600_000, "1h 0m"), (273_600_000, "3d 4h")];
        for (millis, text) in shown {
            assert_eq!(age(millis), text);
        }
    }
}
