//! coracle as a board's first process, or under another init.

pub mod cause;
pub mod clock;
pub mod cmdline;
pub mod console;
pub mod depends;
pub mod early;
pub mod mark;
pub mod modules;
pub mod mounts;
pub mod options;
pub mod pace;
pub mod root;
pub mod seed;
pub mod shutdown;
pub mod source;
pub mod under;
pub mod watchdog;
