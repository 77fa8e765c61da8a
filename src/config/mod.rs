//! The config file: bytes in, a [`Plan`] or a list of [`Problems`] out. Opens no file.
//!
//! 1. `blank` turns comments and trailing commas into spaces.
//! 2. `scan` walks the text along the one table of keys ([`keys`]), reports what is wrong, and blanks it.
//! 3. `serde-json-core` fills the `raw` types from what is left.
//! 4. `validate`, `device`, `service`, `root` and `mounts` make the plan of them, whose types cannot express a mistake.
#![forbid(unsafe_code)]

mod blank;
mod device;
pub mod keys;
mod mounts;
mod order;
pub mod problem;
mod raw;
mod root;
mod scan;
mod service;
mod validate;
pub mod values;

use crate::base::limits::CONFIG_BYTES;
use crate::plan::Plan;
pub use problem::{Problem, Problems, Warning};
use problem::{Sink, Span};

/// Reads a config file's bytes; `file_name` is what messages call it.
///
/// All problems of the file are reported together. Without any, the plan comes with its warnings: what is allowed and
/// probably not meant.
pub fn load(file_name: &str, bytes: &[u8]) -> Result<(Plan, Vec<Warning>), Problems> {
    let mut sink = Sink::new(file_name, bytes);
    if bytes.len() > CONFIG_BYTES {
        let message =
            format!("the file has {} bytes, more than the {CONFIG_BYTES} that a config may have", bytes.len());
        sink.problem(Span { start: 0, end: 1 }, message, None);
        return sink.finish().map(|warnings| (Plan::default(), warnings));
    }
    let scanned = scan::scan(bytes, &mut sink);
    let plan = if scanned.whole { validate::plan(&scanned, &mut sink) } else { Plan::default() };
    sink.finish().map(|warnings| (plan, warnings))
}

#[cfg(test)]
mod tests;
