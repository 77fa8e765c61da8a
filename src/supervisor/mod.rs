//! The pure core that decides, the loop that acts, the init that each service lives under.

pub mod action;
pub mod answer;
pub mod backoff;
pub mod board;
pub mod core;
pub mod event;
pub mod graph;
pub mod init;
pub mod instance;
pub mod leftover;
pub mod record;
pub mod report;
pub mod rundir;
pub mod service;
pub mod waits;
pub mod wire;
