//! The listening sockets of a service: made in the network of the supervisor, before the service starts, and handed to it
//! under whatever network it has.
#![forbid(unsafe_code)]

use super::prepare::host_ids;
use crate::base::limits::SOCKETS;
use crate::plan::{Listen, Socket};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, lchown};
use std::os::unix::net::{UnixListener, UnixStream};

/// The sockets of one service, in the order of its config.
pub type Sockets = heapless::Vec<OwnedFd, SOCKETS>;

/// Makes all of them, or none.
///
/// # Errors
/// A sentence naming the first one that cannot be had, the reason and the way out.
pub fn listen(sockets: &[Socket]) -> core::result::Result<Sockets, String> {
    let mut made = Sockets::new();
    for socket in sockets {
        let fd = one(socket).map_err(|error| {
            let place = match &socket.listen {
                Listen::Tcp(address) => format!("tcp {address}"),
                Listen::Udp(address) => format!("udp {address}"),
                Listen::Unix(path, ..) => path.to_string(),
            };
            let hint = match error.kind() {
                ErrorKind::AddrInUse => "; end what listens there, or choose another",
                ErrorKind::AddrNotAvailable => "; the board has no such address yet",
                ErrorKind::NotFound => "; make its folder",
                _ => "",
            };
            format!("its socket {place} cannot be made: {error}{hint}")
        })?;
        // The config has no more of them than there is room for.
        let _ = made.push(fd);
    }
    Ok(made)
}

fn one(socket: &Socket) -> Result<OwnedFd> {
    match &socket.listen {
        Listen::Tcp(address) => bind_to(read(address)?, SockType::Stream),
        Listen::Udp(address) => bind_to(read(address)?, SockType::Datagram),
        Listen::Unix(path, mode, owner) => {
            remove_dead(path)?;
            // Nobody may connect before it has its owner.
            let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o777));
            let listener = UnixListener::bind(&**path);
            nix::sys::stat::umask(before);
            let listener = listener?;
            if let Some(owner) = owner {
                let ids = host_ids(owner).map_err(Error::other)?;
                lchown(&**path, Some(ids.uid), Some(ids.gid))?;
            }
            fs::set_permissions(&**path, fs::Permissions::from_mode(u32::from(*mode)))?;
            Ok(listener.into())
        }
    }
}

/// What std's listeners are: a port can be had again at once after its last listener has ended (SO_REUSEADDR, tcp(7)).
fn bind_to(address: SocketAddr, kind: SockType) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let made = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if kind == SockType::Stream {
        setsockopt(&made, sockopt::ReuseAddr, &true)?;
    }
    bind(made.as_raw_fd(), &SockaddrStorage::from(address))?;
    if kind == SockType::Stream {
        nix::sys::socket::listen(&made, Backlog::new(128)?)?;
    }
    Ok(made)
}

fn read(address: &str) -> Result<SocketAddr> {
    // The config has been read, so that it is one.
    address.parse().map_err(|_| ErrorKind::InvalidInput.into())
}

/// Removes the socket of somebody who listens no more; one that somebody listens at stays, and so does any other file.
fn remove_dead(path: &str) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
            _ => Err(ErrorKind::AddrInUse.into()),
        },
        Ok(_) => Err(Error::other("there is a file of that name")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what is left of them on the board once nobody is to listen any more.
pub fn forget(sockets: &[Socket]) {
    for socket in sockets {
        if let Listen::Unix(path, ..) = &socket.listen {
            let _ = remove_dead(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &std::path::Path) -> Vec<Socket> {
        let listen = Listen::Unix(path.to_str().unwrap().into(), 0o640, None);
        vec![Socket { name: "web".into(), listen }]
    }

    #[test]
    fn a_dead_socket_gives_way_and_a_living_one_or_a_file_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let sockets = unix(&path);
        let first = listen(&sockets).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(listen(&sockets).unwrap_err().contains("end what listens there"));
        forget(&sockets);
        assert!(path.exists());
        drop(first);
        drop(listen(&sockets).unwrap());
        forget(&sockets);
        assert!(!path.exists());
        fs::write(&path, "x").unwrap();
        assert!(listen(&sockets).unwrap_err().contains("there is a file of that name"));
        forget(&sockets);
        assert!(path.exists());
    }

    #[test]
    fn what_cannot_be_listened_at_is_named() {
        let listen_at = |listen| listen_one(listen).unwrap_err();
        let missing = listen_at(Listen::Unix("/nonexistent/s".into(), 0o600, None));
        assert!(
            missing.starts_with("its socket /nonexistent/s cannot be made") && missing.ends_with("make its folder")
        );
        let elsewhere = listen_at(Listen::Udp("192.0.2.1:9".into()));
        assert!(elsewhere.contains("udp 192.0.2.1:9") && elsewhere.contains("no such address yet"), "{elsewhere}");
    }

    fn listen_one(listen: Listen) -> core::result::Result<Sockets, String> {
        super::listen(&[Socket { name: "web".into(), listen }])
    }
}
