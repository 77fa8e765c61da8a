//! A service's output: the ring that keeps it, its text form, the optional rotating file.

pub mod entry;
pub mod format;
pub mod lines;
pub mod rate;
pub mod reader;
pub mod ring;
pub mod sink;
