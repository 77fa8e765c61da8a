//! coracle: a container runtime and service supervisor for embedded and edge Linux devices, in one static binary.
//!
//! Read this file, then `ARCHITECTURE.md`. The modules are listed from the lowest layer to the highest; a file uses
//! lower layers and its own folder, never a higher one (`tests/tidy.rs` checks it).
//!
//! | module | what it is |
//! |---|---|
//! | [`base`] | names, sizes, times, capacities, exit codes: no system call |
//! | [`sys`] | the only `unsafe`: thin wrappers over system calls, each naming its man page |
//! | [`plan`] | the validated description of a device and its services, shared by everything above |
//! | [`seccomp`] | system call filters: one policy as data, compiled to BPF for five architectures |
//! | [`config`] | bytes of a config file in, a [`plan::Plan`] or a list of problems out; opens no file |
//! | [`log`] | the ring a service's output is kept in, its text form, the optional rotating file |
//! | [`image`] | image archives to verified layers in a store |
//! | [`sandbox`] | one service's namespaces, root file system, cgroup, capabilities, seccomp filter |
//! | [`control`] | the wire between the command line and a running supervisor |
//! | [`supervisor`] | the pure core that decides, the loop that acts, the init that each service lives under |
//! | [`boot`] | coracle as the board's first process, or under another init |
//! | [`cli`] | what a person types |

pub mod base;
pub mod boot;
pub mod cli;
pub mod config;
pub mod control;
pub mod image;
pub mod log;
pub mod plan;
pub mod sandbox;
pub mod seccomp;
pub mod supervisor;
pub mod sys;
