//! The parent's side of a start: pipes, channel, clone.
#![forbid(unsafe_code)]

use super::capabilities::Credentials;
use super::child::{self, Init, Outlets};
use super::spec::{Net, Place, Spec, Stdio};
use super::stage::{Failure, Stage};
use crate::sys::Result;
use crate::sys::{process, stack};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::OwnedFd;

/// A started init.
#[derive(Debug)]
pub struct Spawned {
    /// Its pid, as the caller sees it.
    pub pid: i32,
    /// A descriptor for it, where the kernel has them (5.2).
    pub pidfd: Option<OwnedFd>,
    /// The channel to it: SOCK_SEQPACKET, close-on-exec, non-blocking on this side.
    pub channel: OwnedFd,
}

/// Starts an init in its namespaces and returns at once: whether its steps and the first process succeed comes over the
/// channel, from `init`, which gets the outcome of the steps in [`child::InitContext::setup`].
///
/// The `outlets` end up in the child alone.
pub fn spawn(spec: &Spec, outlets: Outlets, init: Init) -> core::result::Result<Spawned, Failure> {
    start(spec, outlets, init).map_err(|errno| Failure::new(Stage::Clone, errno, b"init"))
}

fn start(spec: &Spec, outlets: Outlets, init: Init) -> Result<Spawned> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    // The flag is the open end's own: the other one still waits. Now, because afterwards the child is to run.
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let pipes = match spec.stdio {
        Stdio::Pipes => Some([Pipe::new(&spec.main.credentials)?, Pipe::new(&spec.main.credentials)?]),
        Stdio::Inherit | Stdio::Device(_) | Stdio::Terminal { .. } => None,
    };
    let mut flags = match spec.place {
        Place::Container => process::NEW_NS | process::NEW_PID | process::NEW_IPC | process::NEW_UTS,
        Place::Host => 0,
    };
    if spec.net == Net::New {
        flags |= process::NEW_NET;
    }
    let ready = spec.main.ready_fd.map(|_| Pipe::new(&spec.main.credentials)).transpose()?;
    let pipes = (pipes, ready);
    let (pid, pidfd) = stack::clone_onto(flags, |pids| child::run(spec, theirs, pipes, outlets, (init, pids)))?;
    Ok(Spawned { pid, pidfd, channel: ours })
}

/// A pipe from the first process to the init.
pub(super) struct Pipe {
    /// The init's end, non-blocking.
    pub(super) read: OwnedFd,
    /// The first process's end; it belongs to the service's user, so that opening `/dev/stdout` works.
    pub(super) write: OwnedFd,
}

impl Pipe {
    fn new(owner: &Credentials) -> Result<Pipe> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        if (owner.uid, owner.gid) != (0, 0) {
            nix::unistd::fchown(&write, Some(owner.uid.into()), Some(owner.gid.into()))?;
        }
        Ok(Pipe { read, write })
    }
}
