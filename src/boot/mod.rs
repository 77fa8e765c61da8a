//! coracle as the board's first process, and what it tells another init that started it.
//!
//! | file | what |
//! |---|---|
//! | `init` | from the kernel's first call to the end of the board |
//! | `early`, `root`, `console` | the file systems, the root and the descriptors that every program expects |
//! | `modules`, `mounts`, `clock`, `seed` | what the config lists, and what one boot leaves for the next |
//! | `choose`, `lifeline` | which config is used; what runs when none can be |
//! | `first` | what the supervisor's loop is told and asked |
//! | `watchdog`, `pace`, `cause`, `mark` | the hardware watchdog; why the board was last reset |
//! | `shutdown` | every process, every file system, reboot(2) |
//! | `cmdline`, `depends`, `options`, `source` | pure: texts taken apart |
//! | `under` | a supervisor under another init |
#![forbid(unsafe_code)]

pub mod cause;
pub mod choose;
pub mod clock;
pub mod cmdline;
pub mod console;
pub mod depends;
pub mod early;
pub mod first;
pub mod init;
pub mod lifeline;
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
pub mod voice;
pub mod watchdog;

/// The number that the kernel gives to its first pid namespace (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Whether process 1 is the board's, not a container's, where `coracle up` may well be process 1. Before /proc is mounted
/// nobody but the kernel can have started it.
pub fn is_board() -> bool {
    std::fs::read_link("/proc/self/ns/pid").map_or(true, |name| name.as_os_str() == FIRST_NAMESPACE)
}
