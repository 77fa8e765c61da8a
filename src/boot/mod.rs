//! coracle as a board's first process, or under another init.

pub mod cause;
pub mod mark;
pub mod pace;
pub mod under;
pub mod watchdog;
