//! The first process of a container: what a clone of the supervisor does once its sandbox is made.
//!
//! It is process 1 of the container's pid namespace and stays outside the service's limits. It runs main, keeps what the
//! service says in the log ring, reaps every process, passes signals on, and writes main's end into the exit record
//! before it ends itself; its end is the end of every process that is left. It needs no supervisor: when the channel
//! closes it goes on, and the next supervisor connects to it, hears all that still holds, and reads ring and record.
//!
//! On the host's root there is no pid namespace: the init is the subreaper of its service, kills the service's cgroup
//! when main has ended, and ends once it has reaped everything. What it can end is a [`Reach`], never a number.
//!
//! After the start there is no heap: all state lies in [`Init`], on the stack.
#![forbid(unsafe_code)]

use super::inbox::Inbox;
use super::record::{Ended, ExitRecord};
use super::wire::{FromInit, MESSAGE_BYTES, ToInit};
use crate::base::units::Millis;
use crate::log::entry::{Entry, Stamp, Stream};
use crate::log::lines::Lines;
use crate::log::rate::Rate;
use crate::log::ring::Writer;
use crate::log::sink::Sink;
use crate::plan::NotifyAccess;
use crate::sandbox::child::{self, InitContext, Reach};
use crate::sandbox::parked::{self, Parked};
use crate::sandbox::stage::{Failure, Stage};
use crate::sys::datagram::{accept_as, send_with};
use crate::sys::process::exit_now;
use crate::sys::wait::{send_signal, wait_any};
use core::fmt::Write as _;
use nix::errno::Errno;
use nix::libc::SIGKILL;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use nix::sys::uio::pwrite;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

mod after;
mod before;

/// Bytes read at a time: a page.
const CHUNK_BYTES: usize = 4096;
/// Reads from one stream before the others get their turn.
const TURN: usize = 8;
/// Bytes taken from each stream after main's end: what a full pipe holds. More can only come from a process that is
/// still writing, and that one will not be waited for.
const DRAIN_BYTES: usize = 1 << 20;
/// Processes reaped in one turn.
const REAP: usize = 64;
/// A service's init, from the end of its sandbox's setup to its own end.
pub fn run(context: InitContext<'_>) -> ! {
    let InitContext {
        setup,
        channel,
        stdout,
        stderr,
        dev_log,
        notify,
        ready,
        mut outlets,
        reach,
        pre_start,
        post_stop,
        main,
        handed,
        filter,
        ..
    } = context;
    let notify = notify.or(outlets.notify.take());
    let exit = outlets.exit.take();
    let reporter = Reporter { channel: &channel, exit: exit.as_ref() };
    // Before main exists, so that its end is seen however soon it comes.
    let children = setup.and_then(|()| child_signal()).and_then(|children| {
        let Some(pre_start) = pre_start else { return Ok(children) };
        let starting = child::spawn_main(pre_start, main.join.as_ref(), handed)?;
        let pipes = (stdout.as_ref(), stderr.as_ref());
        before::run(starting, &mut outlets, (reporter, &reach, &children), pipes, dev_log.as_ref())?;
        Ok(children)
    });
    let started = children
        .and_then(|children| child::spawn_main(main, main.join.as_ref(), handed).map(|starting| (children, starting)));
    let (children, starting) = match started {
        Ok(started) => started,
        Err(failure) => reporter.never_started(failure),
    };
    let parked = match post_stop.map(|(next, _)| parked::park(next, main.join.as_ref(), handed)).transpose() {
        Ok(parked) => parked,
        Err(failure) => {
            starting.kill();
            reach.kill_all();
            reporter.never_started(failure)
        }
    };
    let post_stop_time = post_stop.map_or(Millis(0), |(_, time)| *time);
    let mut log = Log::new(outlets.ring, outlets.sink, outlets.rate);
    if let Some(note) = &outlets.note {
        log.note(note);
    }
    let kept = [&dev_log, &notify, &ready, &exit, &outlets.pin, &outlets.contact].map(Option::as_ref);
    let pipes = [Some(&channel), stdout.as_ref(), stderr.as_ref()];
    let sink = log.sink.as_ref().map_or([None; 2], Sink::descriptors);
    let ring = log.ring.as_ref().map_or(-1, |ring| ring.as_fd().as_raw_fd());
    let mut keep = heapless::Vec::<i32, 42>::new();
    keep.extend([children.as_fd().as_raw_fd(), starting.descriptor(), ring]);
    keep.extend(parked.as_ref().map_or([-1; 2], Parked::descriptors));
    for some in [&kept[..], &pipes, &sink, &reach.descriptors()] {
        keep.extend(some.iter().flatten().map(|fd| fd.as_raw_fd()));
    }
    keep.extend(outlets.sockets.iter().map(AsRawFd::as_raw_fd));
    if let Err(failure) = child::settle(&keep, filter) {
        // An unconfined init is worse than none.
        starting.kill();
        reach.kill_all();
        reporter.never_started(failure);
    }
    let main = match starting.finish() {
        Ok(main) => main,
        Err(failure) => reporter.never_started(failure),
    };
    reporter.say(FromInit::Started { main });
    let mut init = Init {
        reporter,
        reach: &reach,
        children: &children,
        inbox: Inbox::new(notify.as_ref(), ready, outlets.notify_access, main),
        status: None,
        killed: false,
        supervised: true,
        out: Source { pipe: stdout.as_ref(), stream: Stream::Out, lines: &mut Lines::default() },
        err: Source { pipe: stderr.as_ref(), stream: Stream::Err, lines: &mut Lines::default() },
        dev_log: dev_log.as_ref(),
        contact: outlets.contact.as_ref(),
        sockets: &outlets.sockets,
        parked,
        over: None,
        until_ns: None,
    };
    let status = init.watch(&mut log);
    init.end(status, post_stop_time, &mut log)
}

/// The descriptor that tells of ended children.
fn child_signal() -> Result<SignalFd, Failure> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()
        .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC))
        .map_err(|errno| Failure::new(Stage::Fork, errno.into(), b"signalfd"))
}

/// Where the init tells what happens: the channel while someone listens, and the exit record.
#[derive(Clone, Copy)]
struct Reporter<'a> {
    channel: &'a OwnedFd,
    exit: Option<&'a OwnedFd>,
}

impl Reporter<'_> {
    /// A supervisor that is gone, or too far behind for its channel to take more, reads the exit record instead.
    fn say(&self, message: FromInit) {
        let _ = self.offer(&message);
    }

    /// `EAGAIN`: the channel is full. Other errors: nobody listens any more, and the message has no loss.
    fn offer(&self, message: &FromInit) -> nix::Result<()> {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        send(self.channel.as_raw_fd(), &message.encode(), flags).map(drop)
    }

    fn record(&self, record: &ExitRecord) {
        if let Some(exit) = self.exit {
            // Without a record an adopter says "lost"; there is nothing better to do with a full file system here.
            let _ = pwrite(exit, &record.encode(), 0);
        }
    }

    fn never_started(&self, failure: Failure) -> ! {
        self.record(&ExitRecord { status: 0, ended: Ended::NotStarted(failure), stamp: stamp(), dropped: 0 });
        self.say(FromInit::Failed(failure));
        exit_now(i32::from(failure.exit_code()))
    }
}

/// The log of the service as its init writes it.
struct Log {
    ring: Option<Writer>,
    sink: Option<Sink>,
    rate: Rate,
    dropped: u64,
    /// Lines that the log file did not take, as far as a note has told them.
    unwritten: u64,
    now: Stamp,
}

impl Log {
    /// Not inlined: what it is put together from would lie in the frame of the loop, and each init would hold pages more for
    /// good.
    #[inline(never)]
    fn new(ring: Option<OwnedFd>, sink: Option<Sink>, rate: u32) -> Log {
        let now = stamp();
        Log {
            ring: ring.and_then(|ring| Writer::open(ring).ok()),
            sink,
            rate: Rate::new(rate, now.mono_ns),
            dropped: 0,
            unwritten: 0,
            now,
        }
    }

    /// A line of the service, if the rate limit admits it.
    fn line(&mut self, stream: Stream, text: &[u8], partial: bool) {
        self.report_dropped(false);
        if self.rate.admit(self.now.mono_ns) {
            self.keep(stream, text, partial);
        }
    }

    fn note(&mut self, text: &str) {
        self.keep(Stream::Note, text.as_bytes(), false);
    }

    /// Why a message to the notify socket was refused, for the first one. Not inlined, as [`Source::read`].
    #[inline(never)]
    fn note_stranger(&mut self, pid: i32, access: NotifyAccess) {
        let why = match access {
            NotifyAccess::Main => "it is not main (\"notify_access\": \"all\" takes all of the service)",
            NotifyAccess::All => "it is not of this service, or has ended",
        };
        let mut text = heapless::String::<160>::new();
        // 160 bytes hold the longer sentence with the longest number.
        let _ = write!(text, "refused what process {pid} said to NOTIFY_SOCKET: {why}");
        self.note(&text);
    }

    fn keep(&mut self, stream: Stream, text: &[u8], partial: bool) {
        if let Some(ring) = &mut self.ring {
            ring.append(self.now, stream, partial, text);
        }
        if let Some(sink) = &mut self.sink {
            sink.append(&Entry { seq: 0, stamp: self.now, stream, partial, text });
        }
    }

    /// One note for all lines dropped so far, once it is time for it or at the end.
    fn report_dropped(&mut self, end: bool) {
        let dropped = if end { self.rate.finish() } else { self.rate.report(self.now.mono_ns) };
        if let Some(dropped) = dropped {
            self.dropped = self.dropped.saturating_add(dropped);
            let mut text = heapless::String::<64>::new();
            // 64 bytes hold the sentence with the largest number.
            let _ = write!(text, "{dropped} lines dropped by the rate limit");
            self.note(&text);
            if let Some(ring) = &mut self.ring {
                ring.count_dropped(dropped);
            }
        }
    }

    /// Notes in the ring the lines that the log file did not take: the first at once, then when they are twice as many, and
    /// at the end, so that a full disk does not fill the ring too.
    fn report_unwritten(&mut self, end: bool) {
        let failed = self.sink.as_ref().map_or(0, Sink::failed);
        if failed <= self.unwritten || !end && failed < self.unwritten.saturating_mul(2) {
            return;
        }
        self.unwritten = failed;
        let mut text = heapless::String::<96>::new();
        // 96 bytes hold the sentence with the largest number.
        let _ = write!(text, "lines that the log file did not take so far: {failed}");
        if let Some(ring) = &mut self.ring {
            ring.append(self.now, Stream::Note, false, text.as_bytes());
        }
    }

    fn flush(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.flush();
        }
    }
}

/// One of main's output pipes.
struct Source<'a> {
    pipe: Option<&'a OwnedFd>,
    stream: Stream,
    /// Not by value: it would be moved here, and the place that it was made in would be held for good.
    lines: &'a mut Lines,
}

impl Source<'_> {
    /// Reads at most `most` chunks into the log; `false` once there is nothing to read. Not inlined: the chunk would lie
    /// in the frame of the loop, and each init would hold a page more for good.
    #[inline(never)]
    fn read(&mut self, most: usize, log: &mut Log) -> bool {
        let Some(pipe) = self.pipe else { return false };
        let mut chunk = [0u8; CHUNK_BYTES];
        for _ in 0..most {
            match read(pipe, &mut chunk) {
                Ok(count) if count > 0 => {
                    log.now = stamp();
                    let bytes = chunk.get(..count).unwrap_or_default();
                    self.lines.feed(bytes, &mut |line, partial| log.line(self.stream, line, partial));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return false,
                // The end: nobody can write to it any more.
                _ => {
                    self.pipe = None;
                    return false;
                }
            }
        }
        true
    }

    fn finish(&mut self, log: &mut Log) {
        self.lines.finish(&mut |line, partial| log.line(self.stream, line, partial));
    }
}

struct Init<'a> {
    reporter: Reporter<'a>,
    reach: &'a Reach,
    children: &'a SignalFd,
    /// What the service says to its supervisor; knows who main is.
    inbox: Inbox<'a>,
    status: Option<i32>,
    killed: bool,
    /// Whether someone still holds the other end of the channel.
    supervised: bool,
    out: Source<'a>,
    err: Source<'a>,
    dev_log: Option<&'a OwnedFd>,
    /// Where the next supervisor connects (see [`super::contact`]).
    contact: Option<&'a OwnedFd>,
    /// The service's listening sockets.
    sockets: &'a [OwnedFd],
    /// What waits for main's end.
    parked: Option<Parked>,
    /// How main ended, once that is told.
    over: Option<i32>,
    /// By when what is watched has to have ended, by the monotonic clock.
    until_ns: Option<u64>,
}

impl Init<'_> {
    /// The loop: sleeps until something happens, handles it, and ends after main, with its wait status.
    fn watch(&mut self, log: &mut Log) -> i32 {
        let mut unreaped = true;
        loop {
            if unreaped {
                unreaped = self.reap();
            }
            if let Some(status) = self.status {
                return status;
            }
            log.flush();
            let left_ns = self.until_ns.map(|until_ns| until_ns.saturating_sub(log.now.mono_ns));
            let waits = [log.rate.wait_ns(), self.inbox.wait_ns(log.now.mono_ns), left_ns];
            let ready = self.wait(if unreaped { Some(0) } else { waits.into_iter().flatten().min() });
            if ready[0] && self.supervised {
                self.obey();
            } else if ready[0] {
                self.meet();
            }
            // The signal is only a wake-up: several ends may have become one signal.
            while matches!(self.children.read_signal(), Ok(Some(_))) {
                unreaped = true;
            }
            if ready[1] {
                self.out.read(TURN, log);
            }
            if ready[2] {
                self.err.read(TURN, log);
            }
            if ready[3] {
                self.read_syslog(TURN, log);
            }
            log.now = stamp();
            if self.until_ns.take_if(|until_ns| *until_ns <= log.now.mono_ns).is_some() {
                self.kill();
            }
            let (reach, reporter) = (self.reach, &self.reporter);
            let holds = |pid| reach.holds(pid);
            self.inbox.attend(log.now.mono_ns, ready[4] || ready[5], holds, |said| reporter.offer(said));
            if let Some((pid, access)) = self.inbox.stranger() {
                log.note_stranger(pid, access);
            }
            log.report_dropped(false);
            log.report_unwritten(false);
        }
    }

    /// Sleeps; which of channel (or what the next one comes from), output, error output, log socket, notify socket and readiness pipe have something.
    fn wait(&self, wait_ns: Option<u64>) -> [bool; 6] {
        let [notify, ready] = self.inbox.watched();
        let sources = [
            if self.supervised { Some(self.reporter.channel.as_fd()) } else { self.contact.map(AsFd::as_fd) },
            self.out.pipe.map(AsFd::as_fd),
            self.err.pipe.map(AsFd::as_fd),
            self.dev_log.map(AsFd::as_fd),
            notify,
            ready,
        ];
        let mut set = heapless::Vec::<PollFd<'_>, 7>::new();
        let all = sources.into_iter().flatten().chain([self.children.as_fd()]);
        set.extend(all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // Rounded up: to wake before it is time means to wake twice.
        let timeout = wait_ns
            .map_or(PollTimeout::NONE, |ns| PollTimeout::try_from(ns.div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX));
        let _ = poll(&mut set, timeout);
        let mut answers = set.iter().map(|fd| fd.any().unwrap_or(false));
        sources.map(|source| source.is_some() && answers.next().unwrap_or(false))
    }

    /// Another supervisor is there: it gets the channel of the one that is gone, and hears all that still holds.
    fn meet(&mut self) {
        if let Some(contact) = self.contact
            && accept_as(contact, self.reporter.channel).is_ok()
        {
            self.supervised = true;
            for (number, socket) in self.sockets.iter().enumerate() {
                // Whoever does not get it makes a new one once this instance has ended.
                let message = FromInit::Socket(number as u8).encode();
                let _ = send_with(self.reporter.channel.as_raw_fd(), &message, &[socket.as_raw_fd()]);
            }
            match self.over {
                Some(status) => self.reporter.say(FromInit::Exited { status }),
                None => self.inbox.retell(),
            }
        }
    }

    /// Does what the supervisor asks.
    fn obey(&mut self) {
        let mut message = [0u8; MESSAGE_BYTES];
        match recv(self.reporter.channel.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => {
                self.supervised = false;
                self.inbox.was_read();
            }
            Ok(count) => match ToInit::decode(message.get(..count).unwrap_or_default()) {
                Some(ToInit::Signal(number)) => {
                    // Main may have ended just now.
                    let _ = send_signal(self.inbox.main(), number);
                }
                Some(ToInit::Kill) => self.kill(),
                None => {}
            },
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Also where it died with something unread (ECONNRESET).
            Err(_) => self.supervised = false,
        }
    }

    fn kill(&mut self) {
        self.killed = true;
        // By name too: where nothing groups the service, main at least is known.
        let _ = send_signal(self.inbox.main(), SIGKILL);
        self.reach.kill_all();
    }

    /// Process `pid`, which was not main, is waited for.
    fn reaped(&mut self, pid: i32) {
        if let Some(parked) = &mut self.parked {
            parked.reaped(pid);
        }
    }

    /// Reaps ended processes; `true` if there may be more. Orphans of the service become children of its init.
    fn reap(&mut self) -> bool {
        for _ in 0..REAP {
            match wait_any() {
                Ok(Some((pid, status))) if pid == self.inbox.main() => {
                    let (reach, reporter) = (self.reach, &self.reporter);
                    if !self.inbox.main_ended(|pid| reach.holds(pid), |said| reporter.offer(said)) {
                        self.status = Some(status);
                    }
                }
                Ok(Some((pid, _))) => self.reaped(pid),
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    /// Not inlined, as [`Source::read`].
    #[inline(never)]
    fn read_syslog(&mut self, most: usize, log: &mut Log) {
        let Some(socket) = self.dev_log else { return };
        let mut datagram = [0u8; CHUNK_BYTES];
        for _ in 0..most {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let Ok(length) = recv(socket.as_raw_fd(), &mut datagram, flags) else { return };
            log.now = stamp();
            let bytes = datagram.get(..length.min(CHUNK_BYTES)).unwrap_or_default();
            let text = syslog_text(bytes);
            let mut parts = text.chunks(crate::base::limits::LOG_TEXT_BYTES).peekable();
            while let Some(part) = parts.next() {
                log.line(Stream::Syslog, part, parts.peek().is_some() || length > CHUNK_BYTES);
            }
        }
    }

    /// Takes in what is left to read.
    fn drain(&mut self, log: &mut Log) {
        for _ in 0..DRAIN_BYTES / (TURN * CHUNK_BYTES) {
            let more = [self.out.read(TURN, log), self.err.read(TURN, log)];
            if more == [false; 2] {
                break;
            }
        }
        self.read_syslog(REAP, log);
        self.out.finish(log);
        self.err.finish(log);
    }
}

/// The text of a syslog datagram: without its `<PRI>` and what ends it.
fn syslog_text(datagram: &[u8]) -> &[u8] {
    let text = match datagram.split_first() {
        Some((b'<', rest)) => {
            let digits = rest.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
            match rest.get(digits) {
                Some(b'>') if (1..=3).contains(&digits) => rest.get(digits + 1..).unwrap_or_default(),
                _ => datagram,
            }
        }
        _ => datagram,
    };
    let kept = text.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0)).map_or(0, |last| last + 1);
    text.get(..kept).unwrap_or_default()
}

/// `ended: exit code 3`, from a wait status.
fn end_note(status: i32) -> heapless::String<48> {
    let mut text = heapless::String::new();
    // 48 bytes hold either sentence.
    let _ = match status & 0x7f {
        0 => write!(text, "ended: exit code {}", status >> 8 & 0xff),
        signal => write!(text, "ended: killed by signal {signal}"),
    };
    text
}

/// Now, by both clocks.
pub(super) fn stamp() -> Stamp {
    let read = |clock: ClockId| clock_gettime(clock).unwrap_or(TimeSpec::new(0, 0));
    let nanos = |time: TimeSpec| {
        // Both parts are 32 bits wide on some machines, and a clock before 1970 counts as 1970.
        let seconds = u64::try_from(i128::from(time.tv_sec())).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(i128::from(time.tv_nsec())).unwrap_or(0))
    };
    Stamp { wall_ns: nanos(read(ClockId::CLOCK_REALTIME)), mono_ns: nanos(read(ClockId::CLOCK_MONOTONIC)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_priorities_and_line_ends_are_cut() {
        for (datagram, text) in [
            (&b"<13>Nov 21 07:00:00 app: hi\n\0"[..], &b"Nov 21 07:00:00 app: hi"[..]),
            (b"<191>x", b"x"),
            (b"<>x", b"<>x"),
            (b"<1234>x", b"<1234>x"),
            (b"<12", b"<12"),
            (b"plain", b"plain"),
            (b"", b""),
            (b"<13>", b""),
            (b"\n\n\0", b""),
        ] {
            assert_eq!(syslog_text(datagram), text);
        }
    }

    #[test]
    fn an_end_reads_as_what_it_was() {
        assert_eq!(end_note(3 << 8).as_str(), "ended: exit code 3");
        assert_eq!(end_note(9).as_str(), "ended: killed by signal 9");
        assert_eq!(end_note(11 | 0x80).as_str(), "ended: killed by signal 11");
    }
}
