//! One service's sandbox: what a start will do as data ([`spec`]), the two sides that do it ([`spawn`], [`child`]), and
//! how a failure of it is told ([`stage`]).

pub mod capabilities;
pub mod cgroup;
pub mod child;
pub mod command;
pub mod devices;
pub mod enter;
pub mod env_file;
pub mod foreground;
pub mod ids;
pub mod parked;
pub mod prepare;
pub mod root;
pub mod rootfs;
pub mod sealed;
pub mod secrets;
pub mod sockets;
pub mod spawn;
pub mod spec;
pub mod stage;
mod steps;
pub mod usb;
