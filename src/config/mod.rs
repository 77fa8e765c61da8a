//! The config: the bytes of its files in, a [`Plan`] or a list of [`Problems`] out. Opens no file.
//!
//! 1. `blank` turns comments and trailing commas into spaces.
//! 2. `scan` walks each text along the one table of keys ([`keys`]), reports what is wrong, and blanks it.
//! 3. `serde-json-core` fills the `raw` types from what is left; `merge` applies the overrides.
//! 4. `validate`, `device`, `service`, `health`, `root` and `mounts` make the plan of them, whose types cannot express a mistake;
//!    `vars` replaces the variables in it.
#![forbid(unsafe_code)]

mod blank;
mod device;
mod health;
pub mod include;
pub mod keys;
mod merge;
mod mounts;
mod order;
pub mod problem;
mod raw;
mod root;
mod salvage;
mod scan;
mod service;
mod source;
mod validate;
pub mod values;
mod vars;

use crate::base::limits::{CONFIG_BYTES, CONFIG_FILES};
use crate::plan::Plan;
pub use problem::{Problem, Problems, Warning};
use problem::{Sink, Span};
pub use salvage::salvage;
pub use source::Source;
pub use vars::Value;

/// A config: its files, and what the files hold that its variables name.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The main file, then the included ones in the order in which they count.
    pub sources: &'a [Source<'a>],
    /// The contents of the files of variables that are there.
    pub values: &'a [Value],
    /// Entries of `include` without a `*` for which there is no file: a warning.
    pub absent: &'a [Box<str>],
}

/// Reads a config that is one file; `file_name` is what messages call it. Nothing that it includes is looked for, and each
/// variable has what is written for it.
pub fn load(file_name: &str, bytes: &[u8]) -> Result<(Plan, Vec<Warning>), Problems> {
    load_all(&Input { sources: &[Source { name: file_name, bytes }], values: &[], absent: &[] })
}

/// Reads a config.
///
/// All problems of its files are reported together. Without any, the plan comes with its warnings: what is allowed and
/// probably not meant.
pub fn load_all(input: &Input<'_>) -> Result<(Plan, Vec<Warning>), Problems> {
    let mut sink = Sink::new(input.sources);
    if !bearable(input.sources, &mut sink) {
        return sink.finish().map(|warnings| (Plan::default(), warnings));
    }
    let scanned = scan::scan(input.sources, &mut sink);
    let plan = if scanned.whole { validate::plan(&scanned, input, &mut sink) } else { Plan::default() };
    sink.finish().map(|warnings| (plan, warnings))
}

/// Whether the files are few and small enough to be looked at.
fn bearable(sources: &[Source<'_>], sink: &mut Sink<'_>) -> bool {
    let mut sum = 0;
    for (number, file) in sources.iter().enumerate() {
        let before = sum;
        sum += file.bytes.len();
        let message = match () {
            () if number >= CONFIG_FILES => format!("this is one file more than the {CONFIG_FILES} of a config"),
            () if sum > CONFIG_BYTES && number == 0 => {
                format!("the file has {sum} bytes, more than the {CONFIG_BYTES} that a config may have")
            }
            () if sum > CONFIG_BYTES => format!(
                "the file has {} bytes, which with the {before} of those before it are more than the {CONFIG_BYTES} of a config",
                file.bytes.len()
            ),
            () => continue,
        };
        sink.enter(Some(number));
        sink.problem(Span { start: 0, end: 1 }, format_args!("{message}"), None);
        sink.enter(None);
        return false;
    }
    true
}

#[cfg(test)]
mod tests;
