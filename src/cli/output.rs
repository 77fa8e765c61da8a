//! What goes to a person's terminal: lines on standard output, sentences on standard error.
#![forbid(unsafe_code)]

use crate::log::format::Safe;
use core::fmt;
use std::io::Write;

/// Writes `text` and a newline to standard output.
///
/// A reader that has seen enough (`coracle logs web | head`) ends the process quietly, as SIGPIPE ends other programs;
/// any other failure is said and ends it with code 1: output that nobody gets is not success.
pub fn line(text: &dyn fmt::Display) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}") {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            complain(&format_args!("the output cannot be written: {error}"));
        }
        std::process::exit(i32::from(crate::base::exit::FAILED));
    }
}

/// Writes a sentence to standard error, as `coracle: SENTENCE`, safe on a terminal line by line.
pub fn complain(sentence: &dyn fmt::Display) {
    let mut err = std::io::stderr().lock();
    for (number, text) in sentence.to_string().trim_end().lines().enumerate() {
        let prefix = if number == 0 { "coracle: " } else { "" };
        // There is nobody left to tell that standard error is gone.
        let _ = writeln!(err, "{prefix}{}", Safe(text.as_bytes()));
    }
}

/// Writes an explanation of several lines and a newline to standard error, safe on a terminal line by line.
pub fn explain(text: &dyn fmt::Display) {
    let mut err = std::io::stderr().lock();
    for line in text.to_string().split('\n') {
        // There is nobody left to tell that standard error is gone.
        let _ = writeln!(err, "{}", Safe(line.as_bytes()));
    }
}

/// Whether what takes the name `path` replaces nothing but a file; if it would, that has been said.
pub fn may_replace(path: &std::path::Path) -> bool {
    let fits = std::fs::metadata(path).map_or(true, |found| found.is_file());
    if !fits {
        complain(&format_args!("cannot write {}: it is no file, and would be replaced; name a file", path.display()));
    }
    fits
}
