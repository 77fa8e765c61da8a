//! System call filters: one policy as data, compiled for the architecture that the binary is built for.
//!
//! [`policy`] is what may be done, [`groups`] and [`rules`] are the lists, [`assemble`] makes classic BPF of it
//! (seccomp(2), Linux 4.14 for all verdicts used). `config/seccomp.md` explains the groups.
//!
//! The filter sees arguments, not what they point to. On 32-bit x86 sockets can be made through `socketcall`, whose
//! arguments lie in memory: address families cannot be refused there; what holds then is the network namespace.
#![forbid(unsafe_code)]

pub mod arch;
pub mod assemble;
pub mod groups;
#[cfg(test)]
mod interpret;
#[cfg(test)]
mod oracle;
pub mod policy;
pub mod rules;
pub mod syscalls;
#[cfg(test)]
mod tests;

pub use arch::Arch;
pub use policy::{Policy, Profile, Verdict};

use crate::plan::{CapSet, Seccomp};
use seccompiler::sock_filter;
use std::borrow::Cow;

/// A compiled filter: the instructions that the kernel takes.
pub type Filter = Cow<'static, [sock_filter]>;

/// The filter of a profile for this binary's architecture and a process without capabilities, compiled with coracle.
macro_rules! ready {
    ($profile:ident) => {{
        const PROGRAM: assemble::Program =
            assemble::assemble(&Policy::new(Profile::$profile, CapSet::EMPTY), &[Arch::NATIVE]);
        static FILTER: [sock_filter; PROGRAM.instructions().len()] = exact(PROGRAM.instructions());
        Cow::Borrowed(&FILTER[..])
    }};
}

/// `program` as an array of its own length.
const fn exact<const N: usize>(program: &[sock_filter]) -> [sock_filter; N] {
    let mut exact = [const { sock_filter { code: 0, jt: 0, jf: 0, k: 0 } }; N];
    let mut at = 0;
    while at < N {
        let sock_filter { code, jt, jf, k } = program[at];
        exact[at] = sock_filter { code, jt, jf, k };
        at += 1;
    }
    exact
}

/// The filter of `profile` for this binary's architecture and a process with the capabilities `caps`.
///
/// With `compat` the calls of the partner architecture (see [`Arch::partner`]) are held to the same policy; without, they
/// kill the process. Load it with [`load`] as the last step before execve.
pub fn compile(profile: Profile, caps: CapSet, compat: bool) -> Filter {
    if caps == CapSet::EMPTY && !compat {
        return match profile {
            Profile::Default => ready!(Default),
            Profile::Strict => ready!(Strict),
            Profile::Log => ready!(Log),
            Profile::Init => ready!(Init),
            Profile::Worker => ready!(Worker),
        };
    }
    assembled(&Policy::new(profile, caps), compat)
}

/// Not inlined: its working space is large, and a start that takes a ready filter has no use for it.
#[inline(never)]
fn assembled(policy: &Policy, compat: bool) -> Filter {
    let both = [Arch::NATIVE, Arch::NATIVE.partner().unwrap_or(Arch::NATIVE)];
    let arches = if compat && Arch::NATIVE.partner().is_some() { &both[..] } else { &both[..1] };
    Cow::Owned(assemble::assemble(policy, arches).instructions().to_vec())
}

/// The filter of a service, `None` if it is to have none.
pub fn for_service(mode: Seccomp, caps: CapSet, compat: bool) -> Option<Filter> {
    let profile = match mode {
        Seccomp::Default => Profile::Default,
        Seccomp::Strict => Profile::Strict,
        Seccomp::Log => Profile::Log,
        Seccomp::Off => return None,
    };
    Some(compile(profile, caps, compat))
}

/// Sets no_new_privs and puts the calling thread under `filter` for good; allocates nothing.
///
/// seccomp(2) `SECCOMP_SET_MODE_FILTER`. ENOSYS or EINVAL: the kernel has no seccomp filters.
pub fn load(filter: &Filter) -> crate::sys::Result<()> {
    seccompiler::apply_filter(filter).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error.into(),
        _ => crate::sys::Errno(libc::EINVAL),
    })
}
