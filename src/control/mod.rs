//! The wire between the command line and a running supervisor.

pub mod server;
pub mod wire;
