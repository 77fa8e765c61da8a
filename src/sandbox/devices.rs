//! The device allow-list of a service: what every container has, and what the config adds.
#![forbid(unsafe_code)]

use super::cgroup::DeviceRule;
use super::cgroup::devices::{Access, Kind};
use super::usb;
use crate::plan::Service;
use nix::libc;
use nix::sys::stat::{major, minor};
use std::os::unix::fs::MetadataExt as _;

/// Character devices of every container by major and minor number (Linux Documentation/admin-guide/devices.txt): null,
/// zero, full, random, urandom, tty, console, ptmx, and all pseudo-terminals.
const COMMON: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// The rules for `service`. A device that is not there adds none; whether that is an error is found out where its node
/// is made.
pub fn rules(service: &Service) -> Vec<DeviceRule> {
    let access = Access::READ.and(Access::WRITE);
    let mut rules: Vec<DeviceRule> = COMMON
        .iter()
        .map(|(major, minor)| DeviceRule { kind: Kind::Char, major: *major, minor: *minor, access })
        .collect();
    for device in &service.devices {
        let Ok(found) = std::fs::metadata(&*usb::place(device)) else { continue };
        let kind = match found.mode() & libc::S_IFMT {
            libc::S_IFCHR => Kind::Char,
            libc::S_IFBLK => Kind::Block,
            _ => continue,
        };
        let bits =
            if device.rules.read { Access::READ.0 } else { 0 } | if device.rules.write { Access::WRITE.0 } else { 0 };
        let (Ok(major), Ok(minor)) = (u32::try_from(major(found.rdev())), u32::try_from(minor(found.rdev()))) else {
            continue;
        };
        rules.push(DeviceRule { kind, major, minor: Some(minor), access: Access(bits) });
    }
    rules
}
