//! The socket at which whoever supervises next finds a service's init: `RUN/services/NAME/contact`, SOCK_SEQPACKET.
//!
//! Each instance has one of its own, which its init alone holds: who connects to it talks to that very init, and to nobody
//! once that has ended. It lies in a folder that root alone may enter.
#![forbid(unsafe_code)]

use super::instance::Process;
use super::wire::ToInit;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, send, socket,
    sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// The socket's name in the directory of its service.
const NAME: &str = "contact";

/// Makes the socket in the directory of a service; one of an earlier instance gives way.
///
/// # Errors
/// What the file system says.
pub fn make(dir: &File) -> nix::Result<OwnedFd> {
    remove(dir);
    let made = new()?;
    fchmod(&made, Mode::from_bits_truncate(0o600))?;
    bind(made.as_raw_fd(), &address(dir)?)?;
    listen(&made, Backlog::MAXCONN)?;
    Ok(made)
}

/// Connects to the init whose service has this directory.
///
/// # Errors
/// `ECONNREFUSED`: it has ended. `ENOENT`: there was none.
pub fn find(dir: &File) -> nix::Result<OwnedFd> {
    let made = new()?;
    connect(made.as_raw_fd(), &address(dir)?)?;
    Ok(made)
}

/// The process behind a connection of [`find`], if that is an init already.
pub fn process(connection: &OwnedFd) -> Option<Process> {
    let pid = getsockopt(connection, sockopt::PeerCredentials).ok()?.pid();
    let process = Process::find(pid)?;
    // Until it has listened itself, the connection names the supervisor that made it.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim_end() == "coracle-init").then_some(process)
}

/// Tells the init behind a connection something; `false`: it cannot hear it.
pub fn tell(connection: &OwnedFd, message: ToInit) -> bool {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(connection.as_raw_fd(), &message.encode(), flags).is_ok()
}

/// Removes the socket's name.
pub fn remove(dir: &File) {
    let _ = unlinkat(dir, NAME, UnlinkatFlags::NoRemoveDir);
}

fn new() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// Short, whatever the name of the run directory: an address has 108 bytes.
fn address(dir: &File) -> nix::Result<UnixAddr> {
    UnixAddr::new(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn who_connects_finds_the_last_instance_or_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let dir = File::open(folder.path()).unwrap();
        assert_eq!(find(&dir).unwrap_err(), Errno::ENOENT);
        let first = make(&dir).unwrap();
        drop(find(&dir).unwrap());
        let second = make(&dir).unwrap();
        drop(first);
        drop(find(&dir).unwrap());
        drop(second);
        assert_eq!(find(&dir).unwrap_err(), Errno::ECONNREFUSED);
        remove(&dir);
        assert_eq!(find(&dir).unwrap_err(), Errno::ENOENT);
    }
}
