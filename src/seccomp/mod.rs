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
pub use seccompiler::BpfProgram;

use crate::plan::{CapSet, Seccomp};

/// The filter of `profile` for this binary's architecture and a process with the capabilities `caps`.
///
/// With `compat` the calls of the partner architecture (see [`Arch::partner`]) are held to the same policy; without, they
/// kill the process. Load it with [`load`] as the last step before execve.
pub fn compile(profile: Profile, caps: CapSet, compat: bool) -> BpfProgram {
    let arches = [Some(Arch::NATIVE), Arch::NATIVE.partner().filter(|_| compat)];
    assemble::assemble(&Policy::new(profile, caps), arches.into_iter().flatten())
}

/// The filter of a service, `None` if it is to have none.
pub fn for_service(mode: Seccomp, caps: CapSet, compat: bool) -> Option<BpfProgram> {
    let profile = match mode {
        Seccomp::Default => Profile::Default,
        Seccomp::Strict => Profile::Strict,
        Seccomp::Log => Profile::Log,
        Seccomp::Off => return None,
    };
    Some(compile(profile, caps, compat))
}

/// Sets no_new_privs and puts the calling thread under `program` for good; allocates nothing.
///
/// seccomp(2) `SECCOMP_SET_MODE_FILTER`. ENOSYS or EINVAL: the kernel has no seccomp filters.
pub fn load(program: &BpfProgram) -> crate::sys::Result<()> {
    seccompiler::apply_filter(program).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error.into(),
        _ => crate::sys::Errno(libc::EINVAL),
    })
}
