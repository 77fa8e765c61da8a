//! The supervisor's end of the control socket: bounded, never blocking.
//!
//! At most [`CLIENTS`] connections at a time, each with one request line's worth of input; one more is told so and closed.
//! A connection that neither finishes a line nor reads its answers within [`PATIENCE`] is closed; one that waits for an
//! answer may wait. Passed file descriptors are dropped by the kernel, since nothing here asks for them.
#![forbid(unsafe_code)]

use super::wire::{self, DoneLine, REQUEST_BYTES, ServiceLine, Verb};
use crate::base::exit;
use crate::base::limits::NAME_BYTES;
use crate::base::units::Millis;
use crate::sys::heap::HEAP;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, getsockopt, recv, send, sockopt};
use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Connections at a time: some terminals, a script or two, a monitoring agent.
pub const CLIENTS: usize = 16;
/// How long a connection may do nothing while nothing is asked of us.
pub const PATIENCE: Millis = Millis::from_secs(10);
/// Requests of one connection that are being worked on; further ones are read later.
const PENDING: u32 = 32;
/// Answer bytes that a client has not read yet, from which on no more of its requests are read.
const OUTPUT_BYTES: usize = 64 * 1024;
/// Room that an answer's line usually needs.
const LINE_BYTES: usize = 512;
/// Room for an answer that is there from the start. A longer one needs more only while the client does not read.
const ROOM: usize = 4096;
/// Room for answers that is kept for the next one.
const ROOM_KEPT: usize = 16 * 1024;
/// The listener's mark in the epoll set; connections count from 1.
const LISTENER: u64 = 0;

/// One request as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The connection.
    pub client: u32,
    /// The request's number.
    pub id: u32,
    /// What is asked for.
    pub verb: Verb,
    /// The service's name, which may be none that exists, or the text of [`Verb::Reboot`].
    pub service: heapless::String<NAME_BYTES>,
    /// The signal of [`Verb::Kill`].
    pub signal: u8,
    /// The time of [`Verb::Hold`].
    pub seconds: u32,
}

#[derive(Debug)]
struct Client {
    number: u32,
    stream: UnixStream,
    input: heapless::Vec<u8, REQUEST_BYTES>,
    output: Vec<u8>,
    sent: usize,
    pending: u32,
    /// Nothing more comes in: the client has closed its half, or has spoken nonsense.
    deaf: bool,
    interest: EpollFlags,
    active: Millis,
}

/// The listening socket and its connections.
#[derive(Debug)]
pub struct Server {
    epoll: Epoll,
    listener: UnixListener,
    clients: Vec<Client>,
    last: u32,
    gone: Vec<u32>,
    /// Room for answers, while no client has it: one that waits for an answer has none.
    spare: Vec<u8>,
    /// No file descriptor is left for another connection; tried again then.
    full_until: Option<Millis>,
    refused: u64,
}

impl Server {
    /// Listens at `path`, which may exist as the socket of a dead supervisor. Mode 0600.
    ///
    /// # Errors
    /// What the file system or the kernel says.
    pub fn bind(path: &Path) -> io::Result<Server> {
        // From its first moment on, without one in which others could connect.
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => std::fs::remove_file(path).and_then(|()| UnixListener::bind(path)),
            _ => Err(error),
        });
        nix::sys::stat::umask(before);
        Server::of(listener?)
    }

    /// Goes on with a socket that listens already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(listener: UnixListener) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Server {
            epoll,
            listener,
            clients: Vec::with_capacity(CLIENTS),
            last: 0,
            gone: Vec::with_capacity(CLIENTS),
            spare: Vec::with_capacity(ROOM),
            full_until: None,
            refused: 0,
        })
    }

    /// Readable when [`Server::serve`] has something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// The socket that listens.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// The descriptor that listens.
    pub fn listener_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// When [`Server::serve`] has to be called although nothing is readable.
    pub fn next_deadline(&self) -> Option<Millis> {
        let mut next = self.full_until;
        for client in self.clients.iter().filter(|client| client.is_on_the_clock()) {
            next = Millis::earliest(&[next, Some(client.active.plus(PATIENCE))]);
        }
        next
    }

    /// Connections turned away because there were too many, since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Accepts, reads, writes and closes as far as possible now. Requests are then to be fetched with
    /// [`Server::next_request`], closed connections with [`Server::next_gone`].
    pub fn serve(&mut self, now: Millis) {
        if self.full_until.is_some_and(|until| until <= now) {
            self.full_until = None;
            let _ = self.epoll.modify(&self.listener, &mut EpollEvent::new(EpollFlags::EPOLLIN, LISTENER));
        }
        let mut events = [EpollEvent::empty(); CLIENTS + 1];
        // More than one round, because a new connection has often sent its request already; few, because a client that
        // sends and sends must not keep us here.
        for _ in 0..3 {
            let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
            for event in events.iter().take(ready) {
                match event.data() {
                    LISTENER => self.accept(now),
                    number => self.attend(number, event.events(), now),
                }
            }
            if ready == 0 {
                break;
            }
        }
        let overdue = |client: &Client| client.is_on_the_clock() && client.active.plus(PATIENCE) <= now;
        self.drop_where(&|client| overdue(client) || client.is_finished());
    }

    /// The next whole request that came in.
    pub fn next_request(&mut self) -> Option<Received> {
        for client in &mut self.clients {
            while client.pending < PENDING && client.output.len() - client.sent < OUTPUT_BYTES {
                let Some(end) = client.input.iter().position(|byte| *byte == b'\n') else { break };
                let parsed = wire::parse_request(client.input.get(..end).unwrap_or(&[])).map(|request| {
                    let service = heapless::String::try_from(request.service);
                    let number = client.number;
                    let received = |service| Received {
                        client: number,
                        id: request.id,
                        verb: request.verb,
                        service,
                        signal: request.signal,
                        seconds: request.seconds,
                    };
                    (request.id, service.map(received))
                });
                client.input.drain(..=end);
                match parsed {
                    Ok((_, Ok(received))) => {
                        client.pending += 1;
                        client.update_interest(&self.epoll);
                        return Some(received);
                    }
                    Ok((id, Err(_))) => {
                        let why = "no service has a name that long";
                        client.push(&DoneLine::failed(id, exit::NO_SUCH_SERVICE, &why));
                    }
                    Err(why) => {
                        client.push(&DoneLine::failed(0, exit::USAGE, &why));
                        client.deaf = true;
                        client.input.clear();
                    }
                }
                client.flush(&self.epoll);
            }
        }
        None
    }

    /// The next connection that is closed: its waiting requests can be forgotten.
    pub fn next_gone(&mut self) -> Option<u32> {
        self.gone.pop()
    }

    /// The connection, with room for an answer.
    fn client(&mut self, number: u32) -> Option<&mut Client> {
        let client = self.clients.iter_mut().find(|known| known.number == number)?;
        if client.output.capacity() == 0 {
            core::mem::swap(&mut client.output, &mut self.spare);
        }
        Some(client)
    }

    /// Sends one line of an answer; a client that is gone misses it.
    pub fn send(&mut self, client: u32, line: &ServiceLine) {
        if let Some(client) = self.client(client) {
            client.push(line);
        }
    }

    /// Sends `text`, which ends with a newline, as it is.
    pub fn send_text(&mut self, client: u32, text: &str) {
        let Some(client) = self.client(client) else { return };
        for part in text.as_bytes().chunks(ROOM / 2) {
            client.make_room(part.len());
            client.output.extend_from_slice(part);
        }
    }

    /// Sends the last line of an answer.
    pub fn done(&mut self, client: u32, line: &DoneLine, now: Millis) {
        if let Some(client) = self.client(client) {
            client.pending = client.pending.saturating_sub(1);
            client.active = now;
            client.push(line);
        }
        for client in &mut self.clients {
            client.flush(&self.epoll);
            give_back(&mut client.output, &mut self.spare);
        }
        self.drop_where(&Client::is_finished);
    }

    fn accept(&mut self, now: Millis) {
        // The room of those that have gone is there for those that come.
        self.drop_where(&Client::is_finished);
        // A bounded number, so that a flood of connections does not keep the supervisor from its work.
        for _ in 0..CLIENTS {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(_) => {
                    self.full_until = Some(now.plus(Millis::from_secs(1)));
                    let _ = self.epoll.modify(&self.listener, &mut EpollEvent::new(EpollFlags::empty(), LISTENER));
                    return;
                }
            };
            self.last = self.last.checked_add(1).unwrap_or(1);
            let mut client = Client::new(self.last, stream, now);
            match client.refusal(self.clients.len()) {
                Some(why) => {
                    self.refused = self.refused.saturating_add(1);
                    client.push(&DoneLine::failed(0, exit::FAILED, &why));
                    client.write_out();
                }
                None => {
                    let event = EpollEvent::new(client.interest, u64::from(client.number));
                    let ready = client.stream.set_nonblocking(true).is_ok();
                    if ready && self.epoll.add(&client.stream, event).is_ok() {
                        self.clients.push(client);
                    }
                }
            }
        }
    }

    fn attend(&mut self, number: u64, events: EpollFlags, now: Millis) {
        let Some(client) = self.clients.iter_mut().find(|client| u64::from(client.number) == number) else { return };
        if events.contains(EpollFlags::EPOLLIN) {
            client.read_in(now);
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            client.active = now;
            client.flush(&self.epoll);
        }
        if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) && !events.contains(EpollFlags::EPOLLIN) {
            client.give_up();
        }
        client.update_interest(&self.epoll);
    }

    fn drop_where(&mut self, which: &dyn Fn(&Client) -> bool) {
        let (epoll, gone, spare) = (&self.epoll, &mut self.gone, &mut self.spare);
        self.clients.retain_mut(|client| {
            let drop = which(client);
            if drop {
                let _ = epoll.delete(&client.stream);
                gone.push(client.number);
                client.output.clear();
                give_back(&mut client.output, spare);
            }
            !drop
        });
    }
}

/// Gives the room of an answer that is sent back, unless there is as much already.
fn give_back(output: &mut Vec<u8>, spare: &mut Vec<u8>) {
    if output.is_empty() && (spare.capacity() + 1..=ROOM_KEPT).contains(&output.capacity()) {
        core::mem::swap(spare, output);
    }
}

impl Client {
    fn new(number: u32, stream: UnixStream, now: Millis) -> Client {
        Client {
            number,
            stream,
            input: heapless::Vec::new(),
            output: Vec::new(),
            sent: 0,
            pending: 0,
            deaf: false,
            interest: EpollFlags::EPOLLIN,
            active: now,
        }
    }

    /// Why this connection may not stay, if so.
    fn refusal(&self, others: usize) -> Option<&'static str> {
        let peer = getsockopt(&self.stream, sockopt::PeerCredentials).map(|credentials| credentials.uid());
        if peer != Ok(0) && peer != Ok(nix::unistd::geteuid().as_raw()) {
            return Some("only root and the supervisor's own user may control it");
        }
        (others >= CLIENTS).then_some("16 clients are connected to the supervisor already; try again in a moment")
    }

    /// Whether it is up to the client to do something.
    fn is_on_the_clock(&self) -> bool {
        self.pending == 0 || self.sent < self.output.len()
    }

    fn is_finished(&self) -> bool {
        let unread = self.input.contains(&b'\n');
        self.deaf && self.pending == 0 && !unread && self.sent == self.output.len()
    }

    fn give_up(&mut self) {
        self.deaf = true;
        self.pending = 0;
        self.input.clear();
        self.output.clear();
        self.sent = 0;
    }

    fn read_in(&mut self, now: Millis) {
        let mut chunk = [0; REQUEST_BYTES];
        let room = REQUEST_BYTES - self.input.len();
        let Some(space) = chunk.get_mut(..room).filter(|space| !space.is_empty()) else { return };
        match recv(self.stream.as_raw_fd(), space, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => self.deaf = true,
            Ok(count) => {
                self.active = now;
                let _ = self.input.extend_from_slice(space.get(..count).unwrap_or(&[]));
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.give_up(),
        }
        if self.input.is_full() && !self.input.contains(&b'\n') {
            self.input.clear();
            self.deaf = true;
            self.push(&DoneLine::failed(0, exit::USAGE, &"a request line has at most 512 bytes"));
            self.write_out();
        }
    }

    /// Makes room for so many bytes more: what the socket takes by now needs none.
    fn make_room(&mut self, bytes: usize) {
        if self.output.capacity() - self.output.len() < bytes {
            self.write_out();
            // It may outlive the work that the answer is.
            HEAP.lasting(|| self.output.reserve(bytes));
        }
    }

    fn push(&mut self, line: &dyn fmt::Display) {
        self.make_room(LINE_BYTES);
        // A vector takes everything.
        let _ = write!(self.output, "{line}");
    }

    fn flush(&mut self, epoll: &Epoll) {
        self.write_out();
        self.update_interest(epoll);
    }

    fn write_out(&mut self) {
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send(self.stream.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => return self.give_up(),
            }
        }
        // A long answer is rare.
        if self.output.capacity() > ROOM_KEPT {
            self.output = Vec::new();
        }
        self.output.clear();
        self.sent = 0;
    }

    fn update_interest(&mut self, epoll: &Epoll) {
        let mut wanted = EpollFlags::empty();
        let unsent = self.output.len() - self.sent;
        if !self.deaf && !self.input.is_full() && self.pending < PENDING && unsent < OUTPUT_BYTES {
            wanted |= EpollFlags::EPOLLIN;
        }
        if unsent > 0 {
            wanted |= EpollFlags::EPOLLOUT;
        }
        if wanted != self.interest {
            let _ = epoll.modify(&self.stream, &mut EpollEvent::new(wanted, u64::from(self.number)));
            self.interest = wanted;
        }
    }
}
