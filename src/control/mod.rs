//! The wire between the command line and a running supervisor.

pub mod client;
pub mod server;
pub mod wire;
