//! One service's sandbox.
pub mod cgroup;
