//! What every layer may use: capacities, names, sizes and times, exit codes. No system call, no clock.
#![forbid(unsafe_code)]

pub mod built;
pub mod escaped;
pub mod exit;
pub mod hide;
pub mod json;
pub mod limits;
pub mod mountinfo;
pub mod name;
pub mod read;
pub mod signal;
pub mod sort;
pub mod suggest;
pub mod units;
