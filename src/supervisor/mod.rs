//! The pure core that decides, the loop that acts, the init that each service lives under.

pub mod action;
pub mod answer;
pub mod awaited;
pub mod backoff;
pub mod board;
pub mod config_file;
pub mod core;
pub mod event;
pub mod graph;
pub mod images;
pub mod init;
pub mod inspect;
pub mod instance;
pub mod keeper;
pub mod leftover;
mod perform;
pub mod record;
pub mod report;
mod request;
pub mod run;
pub mod rundir;
pub mod service;
pub mod slot;
pub mod steps;
pub mod waits;
pub mod wire;
