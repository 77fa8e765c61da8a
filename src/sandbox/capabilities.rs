//! Who a process is and what it may do: user, groups, capability sets, no_new_privs.
//!
//! Runs in the forked child: allocates nothing, needs CAP_SETPCAP, CAP_SETUID and CAP_SETGID and no other capability.
//! No securebit is set: no_new_privs already keeps set-uid programs and file capabilities from giving anything.
#![forbid(unsafe_code)]

use crate::plan::CapSet;
use crate::sys::caps::{self, Sets};
use crate::sys::{Errno, Result};

/// The largest number a 64-bit set can hold; the kernel's own last capability is found by asking.
const LAST: u8 = 63;

/// Who a process becomes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Box<[u32]>,
    /// Capabilities it keeps; [`CapSet::ALL`]: as the change of user leaves them.
    pub caps: CapSet,
}

/// The step of [`become_user`] that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Dropping from the bounding set.
    Bounding,
    /// Keeping permitted capabilities over the change of user.
    KeepCaps,
    /// Supplementary groups.
    Groups,
    /// Group.
    Group,
    /// User.
    User,
    /// Permitted, effective and inheritable sets.
    Sets,
    /// Ambient set.
    Ambient,
    /// no_new_privs.
    NoNewPrivs,
}

/// Turns the calling process into `who`, for good.
///
/// Afterwards: bounding, permitted and effective set are exactly `who.caps`; for a user other than root so are the
/// inheritable and ambient sets, because that is how capabilities outlive execve(2); for root both are empty
/// (CVE-2022-24769). no_new_privs is set. A capability that is named but not held is an error (EPERM at `Sets`).
///
/// With [`CapSet::ALL`] it changes the user and nothing else, as a login does: root keeps everything, another user has
/// what set-uid programs give.
pub fn become_user(who: &Credentials) -> core::result::Result<(), (Step, Errno)> {
    let at = |step: Step| move |errno: Errno| (step, errno);
    let root = who.uid == 0;
    if who.caps == CapSet::ALL {
        caps::set_groups(&who.groups).map_err(at(Step::Groups))?;
        caps::set_gid(who.gid).map_err(at(Step::Group))?;
        return caps::set_uid(who.uid).map_err(at(Step::User));
    }
    bound(who.caps).map_err(at(Step::Bounding))?;
    caps::keep_caps(!root).map_err(at(Step::KeepCaps))?;
    caps::set_groups(&who.groups).map_err(at(Step::Groups))?;
    caps::set_gid(who.gid).map_err(at(Step::Group))?;
    caps::set_uid(who.uid).map_err(at(Step::User))?;
    let set = who.caps.0;
    caps::set(Sets { effective: set, permitted: set, inheritable: if root { 0 } else { set } })
        .map_err(at(Step::Sets))?;
    caps::clear_ambient().map_err(at(Step::Ambient))?;
    if !root {
        for number in (0..=LAST).filter(|number| who.caps.has(*number)) {
            caps::raise_ambient(number).map_err(at(Step::Ambient))?;
        }
        caps::keep_caps(false).map_err(at(Step::KeepCaps))?;
    }
    caps::no_new_privs().map_err(at(Step::NoNewPrivs))
}

/// Keeps `keep` alone, without a change of user, and nothing that a later execve(2) could give: for processes of our own
/// that exec nothing.
pub fn keep_only(keep: CapSet) -> Result<()> {
    bound(CapSet::EMPTY)?;
    caps::clear_ambient()?;
    caps::set(Sets { effective: keep.0, permitted: keep.0, inheritable: 0 })?;
    caps::no_new_privs()
}

/// Drops all but `keep` from the bounding set, also those that are younger than this program's table of names.
fn bound(keep: CapSet) -> Result<()> {
    for number in 0..=LAST {
        match if keep.has(number) { caps::in_bounding(number).map(drop) } else { caps::drop_bounding(number) } {
            Ok(()) => {}
            // The kernel knows no such number, nor any above it. One that is to be kept fails at capset.
            Err(Errno(libc::EINVAL)) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
