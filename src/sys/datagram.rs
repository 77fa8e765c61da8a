//! Datagrams with proof of who sent them, without the allocation that nix's wrapper makes for control messages.

use super::{Errno, Result, check};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors taken from one datagram, or sent with one; the kernel closes those beyond.
pub const FDS: usize = 10;

/// A received datagram.
#[derive(Debug)]
pub struct Datagram {
    /// Its bytes in the buffer.
    pub length: usize,
    /// Whether it was longer than the buffer.
    pub cut: bool,
    /// The process that sent it, in the receiver's pid namespace; 0: one that this namespace does not show.
    pub sender: i32,
    /// The descriptors that came with it, close-on-exec.
    pub fds: heapless::Vec<OwnedFd, FDS>,
    /// Whether more descriptors came than were taken.
    pub fds_cut: bool,
}

/// `setsockopt(2)` with SO_PASSCRED (unix(7)): every datagram names its sender.
pub fn name_senders(socket: &OwnedFd) -> Result<()> {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads one int, which lives on this stack.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, (&raw const on).cast(), size)
    };
    check(answer.into()).map(drop)
}

/// `recvmsg(2)` of one datagram, with SCM_CREDENTIALS and SCM_RIGHTS (unix(7)); never waits.
///
/// # Errors
/// `EAGAIN`: there is none.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Datagram> {
    receive_with(socket.as_raw_fd(), buffer, libc::MSG_DONTWAIT)
}

/// The same with these flags, which say whether it waits, and whether the datagram stays where it is.
///
/// # Errors
/// As the flags have it.
pub fn receive_with(socket: RawFd, buffer: &mut [u8], flags: libc::c_int) -> Result<Datagram> {
    // Room for the credentials and all descriptors, aligned as a header has to be.
    let mut control = [0u64; 12];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeros is a valid msghdr; some C libraries have private fields in it.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = flags | libc::MSG_CMSG_CLOEXEC;
    let length = loop {
        // SAFETY: every pointer in `message` leads to memory on this stack or in `buffer`, with its size.
        match check(unsafe { libc::recvmsg(socket, &raw mut message, flags) } as libc::c_long) {
            Err(Errno(libc::EINTR)) => {}
            length => break length? as usize,
        }
    };
    let mut datagram = Datagram {
        length,
        cut: message.msg_flags & libc::MSG_TRUNC != 0,
        sender: 0,
        fds: heapless::Vec::new(),
        fds_cut: message.msg_flags & libc::MSG_CTRUNC != 0,
    };
    // SAFETY: the kernel has written whole headers into `control` and their total length into `message`, which the
    // macros of cmsg(3) walk by; data is read unaligned, and each descriptor in it is new and nobody else's.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(one) = header.as_ref() {
            let data = libc::CMSG_DATA(header);
            match (one.cmsg_level, one.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                    datagram.sender = data.cast::<libc::ucred>().read_unaligned().pid;
                }
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    #[allow(clippy::unnecessary_cast)] // musl has 32 bits here.
                    let bytes = (one.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                    for at in 0..bytes / size_of::<libc::c_int>() {
                        let fd = data.cast::<libc::c_int>().add(at).read_unaligned();
                        let full = datagram.fds.push(OwnedFd::from_raw_fd(fd)).is_err();
                        datagram.fds_cut |= full;
                    }
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(datagram)
}

/// `sendmsg(2)` of `bytes` with descriptors (SCM_RIGHTS, unix(7)); never waits. E2BIG: more than [`FDS`].
pub fn send_with(socket: RawFd, bytes: &[u8], passed: &[RawFd]) -> Result<()> {
    if passed.len() > FDS {
        return Err(Errno(libc::E2BIG));
    }
    let passed_bytes = size_of_val(passed) as libc::c_uint;
    let mut control = [0u64; 12];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid msghdr. Every pointer leads to memory on this stack or in `bytes`, with its size;
    // `control` has room for one header with all descriptors, aligned as a header has to be. The kernel writes to none.
    let sent = unsafe {
        let mut message: libc::msghdr = core::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = libc::CMSG_SPACE(passed_bytes) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(passed_bytes) as _;
        core::ptr::copy_nonoverlapping(passed.as_ptr().cast(), libc::CMSG_DATA(header), passed_bytes as usize);
        libc::sendmsg(socket, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    check(sent as libc::c_long).map(drop)
}

/// `accept4(2)` and `dup3(2)`: the next connection to `listener`, non-blocking and close-on-exec, in place of `connection`,
/// which is closed. `EAGAIN`: nobody wants to connect.
pub fn accept_as(listener: &OwnedFd, connection: &OwnedFd) -> Result<()> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let none = core::ptr::null_mut();
    // SAFETY: null pointers ask for no address; the descriptor that comes is new and nobody else's.
    let next = unsafe {
        let fd = check(libc::accept4(listener.as_raw_fd(), none, none.cast(), flags).into())?;
        OwnedFd::from_raw_fd(fd as libc::c_int)
    };
    // SAFETY: integers. The owner of `connection` owns what is there afterwards.
    check(unsafe { libc::dup3(next.as_raw_fd(), connection.as_raw_fd(), libc::O_CLOEXEC) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
    use std::io::IoSlice;

    fn pair() -> (OwnedFd, OwnedFd) {
        let pair = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
        name_senders(&pair.1).unwrap();
        pair
    }

    #[test]
    fn a_datagram_names_its_sender_and_is_cut_where_the_buffer_ends() {
        let (ours, theirs) = pair();
        let mut buffer = [0; 4];
        assert_eq!(receive(&theirs, &mut buffer).unwrap_err(), Errno(libc::EAGAIN));
        for (text, cut) in [("four", false), ("fives", true), ("", false)] {
            sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(text.as_bytes())], &[], MsgFlags::empty(), None).unwrap();
            let got = receive(&theirs, &mut buffer).unwrap();
            assert_eq!((got.length, got.cut), (text.len().min(4), cut));
            assert_eq!((got.sender, got.fds.len(), got.fds_cut), (std::process::id() as i32, 0, false));
        }
    }

    #[test]
    fn a_descriptor_comes_with_a_message() {
        let (ours, theirs) = pair();
        let (read, write) = nix::unistd::pipe().unwrap();
        send_with(ours.as_raw_fd(), b"x", &[write.as_raw_fd()]).unwrap();
        drop(write);
        let got = receive(&theirs, &mut [0; 8]).unwrap();
        assert_eq!((got.length, got.fds.len(), got.fds_cut), (1, 1, false));
        assert_eq!(nix::unistd::write(&got.fds[0], b"through").unwrap(), 7);
        drop(got);
        let mut buffer = [0; 16];
        assert_eq!(nix::unistd::read(&read, &mut buffer).unwrap(), 7);
        assert_eq!(nix::unistd::read(&read, &mut buffer).unwrap(), 0, "it is open elsewhere");
    }

    #[test]
    fn descriptors_beyond_the_room_for_them_are_never_taken() {
        let (ours, theirs) = pair();
        for count in [1, 4, 200] {
            // Whoever still has the writing end keeps the other from being at its end: other tests' descriptors do not count.
            let (read, write) = nix::unistd::pipe().unwrap();
            let fds = vec![write.as_raw_fd(); count];
            let rights = [ControlMessage::ScmRights(&fds)];
            sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
            let got = receive(&theirs, &mut [0; 8]).unwrap();
            assert!(got.fds.len() <= FDS && got.fds_cut == (got.fds.len() < count), "{count}: {got:?}");
            assert!(count > 1 || got.fds.len() == 1);
            drop((got, write));
            assert_eq!(nix::unistd::read(&read, &mut [0; 1]).unwrap(), 0, "{count}: a descriptor stays open");
        }
    }
}
