//! Control groups.
pub mod devices;
