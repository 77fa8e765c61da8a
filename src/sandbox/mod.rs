//! One service's sandbox.
pub mod capabilities;
pub mod cgroup;
