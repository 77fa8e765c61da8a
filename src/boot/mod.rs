//! What coracle does as a board's first process. Here: the hardware watchdog, and why the board was last reset.

pub mod cause;
pub mod mark;
pub mod pace;
pub mod watchdog;
