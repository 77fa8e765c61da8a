//! What goes over the control socket: requests and answers, one JSON object per line.
//!
//! ```text
//! → {"v":1,"id":7,"verb":"restart","service":"web","signal":0}
//! ← {"id":7,"kind":"done","ok":true,"code":0,"message":"web is running"}
//! ```
//!
//! A client may send many requests on one connection. Each is answered by any number of lines of kind `service` or
//! `inspect` and then one of kind `done`, all with the request's `id`; answers to different requests come in the order
//! in which the work is finished. A client that closes its connection drops its interest, not the work.
#![forbid(unsafe_code)]

use crate::base::exit;
use crate::base::json::fill::{Slot as _, Unknown, fill};
use crate::base::json::{Quoted, decode};
use crate::{objects, words};
use core::fmt::{self, Write as _};
use heapless::string::StringView;

/// The version of this protocol; a request of another version is refused with a `done` line that says so.
pub const VERSION: u8 = 1;
/// Longest request line in bytes, its newline included: a request is at most 63 bytes of name and 60 of the rest.
pub const REQUEST_BYTES: usize = 512;
/// Longest text inside an answer: a sentence with two paths.
pub const TEXT_BYTES: usize = 512;
/// Longest image reference shown in an answer.
pub const IMAGE_BYTES: usize = 256;
/// The socket's file name in the run directory.
pub const SOCKET: &str = "control.sock";

/// Text in an answer.
pub type Text = heapless::String<TEXT_BYTES>;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// One `service` line per service, in the order of the config; with a service named, that one alone.
    List,
    /// One `inspect` line: everything known about one service.
    Inspect,
    /// One `inspect` line whose body is a JSON string: the steps of a start of one service that runs, one a line.
    Steps,
    /// Start a service; answered when it runs, or when that failed and why.
    Start,
    /// Stop a service; answered when nothing of it is left.
    Stop,
    /// Stop, then start; answered as both.
    Restart,
    /// Send `signal` to the service's main process.
    Kill,
    /// Freeze a service.
    Pause,
    /// Let a frozen service go on.
    Unpause,
    /// Do nothing for a service by itself for `seconds`; 0: go on.
    Hold,
    /// Answered once every service that is started at boot runs, is done, or cannot run: one `service` line for each of
    /// the latter, and then `ok` is false.
    Wait,
    /// Let the program behind the link `upgrade` in the run directory take over; answered once it has said whether it would.
    Upgrade,
    /// Stop everything in order and end; answered as the last thing.
    Shutdown,
    /// Stop everything in order and reboot the board; `service` goes to the boot loader. Answered at once.
    Reboot,
    /// The same, and switch the board off.
    Poweroff,
    /// The same, and let the board stand still.
    Halt,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Verb::List => "list",
            Verb::Inspect => "inspect",
            Verb::Steps => "steps",
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Restart => "restart",
            Verb::Kill => "kill",
            Verb::Pause => "pause",
            Verb::Unpause => "unpause",
            Verb::Hold => "hold",
            Verb::Wait => "wait",
            Verb::Upgrade => "upgrade",
            Verb::Shutdown => "shutdown",
            Verb::Reboot => "reboot",
            Verb::Poweroff => "poweroff",
            Verb::Halt => "halt",
        }
    }
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// [`VERSION`].
    pub v: u8,
    /// Chosen by the client; comes back in every line of the answer.
    pub id: u32,
    /// What is asked for.
    pub verb: Verb,
    /// The service's name, or the text of [`Verb::Reboot`]; empty where none is needed.
    pub service: &'a str,
    /// The signal of [`Verb::Kill`], a number of the running architecture.
    pub signal: u8,
    /// The time of [`Verb::Hold`].
    pub seconds: u32,
}

impl fmt::Display for Request<'_> {
    /// As it goes over the socket, its newline included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { v, id, verb, service, signal, seconds } = self;
        let (verb, service) = (verb.as_str(), Quoted(service));
        write!(f, "{{\"v\":{v},\"id\":{id},\"verb\":\"{verb}\",\"service\":{service},")?;
        writeln!(f, "\"signal\":{signal},\"seconds\":{seconds}}}")
    }
}

/// What a service is doing, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateWord {
    /// Not started at boot and not started since, or stopped by someone.
    Stopped,
    /// For a service that it needs.
    Waiting,
    /// Its image is being unpacked.
    Preparing,
    /// Its sandbox is being made.
    Starting,
    /// Its main process runs.
    Running,
    /// Running, but frozen.
    Paused,
    /// It is being ended.
    Stopping,
    /// It ended and is started again after a delay.
    Backoff,
    /// The same, but it has ended again and again.
    CrashLoop,
    /// This board lacks something that it needs.
    Held,
    /// It ended badly and its policy says not to try again.
    Failed,
    /// It ended well and its policy says not to start it again.
    Done,
}

impl StateWord {
    /// The word as shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            StateWord::Stopped => "stopped",
            StateWord::Waiting => "waiting",
            StateWord::Preparing => "preparing",
            StateWord::Starting => "starting",
            StateWord::Running => "running",
            StateWord::Paused => "paused",
            StateWord::Stopping => "stopping",
            StateWord::Backoff => "backoff",
            StateWord::CrashLoop => "crash-loop",
            StateWord::Held => "held",
            StateWord::Failed => "failed",
            StateWord::Done => "done",
        }
    }
}

/// The kind of an answer line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A [`ServiceLine`].
    Service,
    /// A line whose `body` is JSON, see [`inspect_body`].
    Inspect,
    /// A [`DoneLine`], the last of an answer.
    Done,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Kind::Service => "service",
            Kind::Inspect => "inspect",
            Kind::Done => "done",
        }
    }
}

/// What every answer line has; the rest of the line depends on `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The request's.
    pub id: u32,
    /// What to parse the line as.
    pub kind: Kind,
}

words! {
    Verb {
        "list" => List, "inspect" => Inspect, "steps" => Steps, "start" => Start, "stop" => Stop, "restart" => Restart,
        "kill" => Kill, "pause" => Pause, "unpause" => Unpause, "hold" => Hold, "wait" => Wait, "upgrade" => Upgrade,
        "shutdown" => Shutdown,
        "reboot" => Reboot, "poweroff" => Poweroff, "halt" => Halt,
    }
    StateWord {
        "stopped" => Stopped, "waiting" => Waiting, "preparing" => Preparing, "starting" => Starting,
        "running" => Running, "paused" => Paused, "stopping" => Stopping, "backoff" => Backoff,
        "crash-loop" => CrashLoop, "held" => Held, "failed" => Failed, "done" => Done,
    }
    Kind { "service" => Service, "inspect" => Inspect, "done" => Done }
}

objects! {
    struct RawRequest<'a> {
        v: Option<u8>,
        id: Option<u32>,
        verb: Option<Verb>,
        service: Option<&'a str>,
        signal: Option<u8>,
        seconds: Option<u32>,
    }

    /// An answer line of any kind, as typed.
    pub struct RawAnswer<'a> {
        id: Option<u32>,
        kind: Option<Kind>,
        name: Option<&'a str>,
        state: Option<StateWord>,
        health: Option<&'a str>,
        reason: Option<&'a str>,
        image: Option<&'a str>,
        pid: Option<i64>,
        init: Option<i64>,
        age_ms: Option<u64>,
        next_ms: Option<u64>,
        restarts: Option<u32>,
        oom_kills: Option<u32>,
        ok: Option<bool>,
        code: Option<u8>,
        message: Option<&'a str>,
    }
}

/// One service, as `coracle ps` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceLine {
    /// The request's.
    pub id: u32,
    /// [`Kind::Service`].
    pub kind: Kind,
    /// Its name.
    pub name: heapless::String<{ crate::base::limits::NAME_BYTES }>,
    /// What it is doing.
    pub state: StateWord,
    /// How it answers when it is asked whether it works: `starting`, `healthy`, `unhealthy`; empty: it is not asked.
    pub health: heapless::String<9>,
    /// Why, as a half sentence: `exit code 1`, `waits for db`; what it says of itself (`STATUS=`) where there is nothing
    /// to explain; may be empty.
    pub reason: Text,
    /// Its image as the config names it, cut when longer.
    pub image: heapless::String<IMAGE_BYTES>,
    /// The main process as the host numbers it; 0: none.
    pub pid: i32,
    /// The service's init as the host numbers it; 0: none.
    pub init: i32,
    /// How long it has been in this state, milliseconds.
    pub age_ms: u64,
    /// Until something happens by itself (the restart of `backoff`, the kill of `stopping`), milliseconds; 0: nothing will.
    pub next_ms: u64,
    /// Starts after the first one, whoever asked for them.
    pub restarts: u32,
    /// Times that the kernel killed the service for want of memory.
    pub oom_kills: u32,
}

impl fmt::Display for ServiceLine {
    /// As it goes over the socket, its newline included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServiceLine { id, pid, init, age_ms, next_ms, restarts, oom_kills, .. } = self;
        let (kind, state) = (self.kind.as_str(), self.state.as_str());
        let [name, health, reason, image] = [&*self.name, &*self.health, &*self.reason, &*self.image].map(Quoted);
        write!(f, "{{\"id\":{id},\"kind\":\"{kind}\",\"name\":{name},\"state\":\"{state}\",\"health\":{health},")?;
        write!(f, "\"reason\":{reason},\"image\":{image},\"pid\":{pid},\"init\":{init},\"age_ms\":{age_ms},")?;
        writeln!(f, "\"next_ms\":{next_ms},\"restarts\":{restarts},\"oom_kills\":{oom_kills}}}")
    }
}

/// The last line of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct DoneLine {
    /// The request's.
    pub id: u32,
    /// [`Kind::Done`].
    pub kind: Kind,
    /// Whether what was asked for is now so.
    pub ok: bool,
    /// The exit code that the command line should end with ([`crate::base::exit`]).
    pub code: u8,
    /// A sentence for a person.
    pub message: Text,
}

impl fmt::Display for DoneLine {
    /// As it goes over the socket, its newline included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DoneLine { id, ok, code, message, .. } = self;
        let (kind, message) = (self.kind.as_str(), Quoted(message));
        writeln!(f, "{{\"id\":{id},\"kind\":\"{kind}\",\"ok\":{ok},\"code\":{code},\"message\":{message}}}")
    }
}

impl DoneLine {
    /// The answer `ok`.
    pub fn ok(id: u32, message: &dyn fmt::Display) -> DoneLine {
        DoneLine { id, kind: Kind::Done, ok: true, code: exit::OK, message: cut(message) }
    }

    /// The answer that it failed.
    pub fn failed(id: u32, code: u8, message: &dyn fmt::Display) -> DoneLine {
        DoneLine { id, kind: Kind::Done, ok: false, code, message: cut(message) }
    }
}

/// What `text` says, as far as it fits, ending in `…` if it does not.
pub fn cut<const N: usize>(text: &dyn fmt::Display) -> heapless::String<N> {
    let mut short = heapless::String::new();
    write_cut(short.as_mut_view(), text);
    short
}

fn write_cut(short: &mut StringView, text: &dyn fmt::Display) {
    if write!(Cut(short), "{text}").is_err() {
        while short.push('…').is_err() && short.pop().is_some() {}
    }
}

/// Takes what fits, and fails beyond.
struct Cut<'a>(&'a mut StringView);

impl fmt::Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.0.push(c).map_err(|_| fmt::Error))
    }
}

const NO_REQUEST: &str = "this is no request: one JSON object with v, id, verb, service and signal, on one line";

/// Reads one request line, with or without its newline.
///
/// # Errors
/// A sentence saying that the line is no request.
pub fn parse_request(line: &[u8]) -> Result<Request<'_>, &'static str> {
    let mut raw = RawRequest::default();
    let filled = fill(line, Unknown::Skipped, raw.slot());
    let RawRequest { v: Some(v), id: Some(id), verb: Some(verb), service, signal, seconds } = raw else {
        return Err(NO_REQUEST);
    };
    filled.map_err(|_| NO_REQUEST)?;
    let request = Request {
        v,
        id,
        verb,
        service: service.unwrap_or_default(),
        signal: signal.unwrap_or_default(),
        seconds: seconds.unwrap_or_default(),
    };
    if request.v != VERSION {
        return Err(
            "the supervisor speaks version 1 of the control protocol; use the coracle binary that it was started from",
        );
    }
    Ok(request)
}

/// An answer line of one kind.
pub trait Answer: Sized {
    /// The line from what a JSON object held; `None`: something is missing.
    fn of(raw: &RawAnswer<'_>) -> Option<Self>;
}

impl Answer for Head {
    fn of(raw: &RawAnswer<'_>) -> Option<Head> {
        Some(Head { id: raw.id?, kind: raw.kind? })
    }
}

impl Answer for ServiceLine {
    fn of(raw: &RawAnswer<'_>) -> Option<ServiceLine> {
        let Head { id, kind } = Head::of(raw)?;
        Some(ServiceLine {
            id,
            kind,
            name: decoded(raw.name)?,
            state: raw.state?,
            health: decoded(raw.health.or(Some("")))?,
            reason: decoded(raw.reason)?,
            image: decoded(raw.image)?,
            pid: i32::try_from(raw.pid?).ok()?,
            init: i32::try_from(raw.init?).ok()?,
            age_ms: raw.age_ms?,
            next_ms: raw.next_ms?,
            restarts: raw.restarts?,
            oom_kills: raw.oom_kills?,
        })
    }
}

impl Answer for DoneLine {
    fn of(raw: &RawAnswer<'_>) -> Option<DoneLine> {
        let Head { id, kind } = Head::of(raw)?;
        Some(DoneLine { id, kind, ok: raw.ok?, code: raw.code?, message: decoded(raw.message)? })
    }
}

fn decoded<const N: usize>(raw: Option<&str>) -> Option<heapless::String<N>> {
    let mut text = heapless::String::new();
    decode(raw?).try_for_each(|c| text.push(c)).ok()?;
    Some(text)
}

/// Reads an answer line as `T`: first as [`Head`], then as what its kind says.
pub fn parse_answer<T: Answer>(line: &[u8]) -> Option<T> {
    let mut raw = RawAnswer::default();
    fill(line, Unknown::Skipped, raw.slot()).ok()?;
    T::of(&raw)
}

/// Reads what an answer line is. Of one of kind `inspect` the body is not looked at: it may be longer than what the
/// parser has room for.
pub fn parse_head(line: &[u8]) -> Option<Head> {
    let inspect = || {
        let (head, _) = core::str::from_utf8(line).ok()?.split_once(INSPECT_HEAD)?;
        Some(Head { id: head.strip_prefix("{\"id\":")?.parse().ok()?, kind: Kind::Inspect })
    };
    inspect().or_else(|| parse_answer(line))
}

/// What stands before the body in a line of kind `inspect`, up to the number.
const INSPECT_HEAD: &str = ",\"kind\":\"inspect\",\"body\":";

/// Makes a line of kind `inspect` around `body`, which is JSON.
pub fn inspect_line(id: u32, body: &str) -> String {
    format!("{{\"id\":{id}{INSPECT_HEAD}{body}}}\n")
}

/// The JSON inside a line of kind `inspect`.
pub fn inspect_body(line: &str) -> Option<&str> {
    let (_, rest) = line.trim_end().split_once(INSPECT_HEAD)?;
    rest.strip_suffix('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_they_are_written() {
        let request = Request { v: VERSION, id: 7, verb: Verb::Kill, service: "web-1", signal: 9, seconds: 7 };
        assert_eq!(parse_request(request.to_string().as_bytes()), Ok(request));
        assert_eq!(parse_request(b"{\"v\":1,\"id\":1,\"verb\":\"list\"}").map(|r| r.verb), Ok(Verb::List));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bad in [
            &b""[..],
            b"{",
            b"null",
            b"[[[[[[[[[[[[[[[[[[[[",
            b"{\"v\":1,\"id\":1,\"verb\":\"list\"} {}",
            b"{\"v\":2,\"id\":1,\"verb\":\"list\"}",
            b"{\"v\":1,\"id\":1,\"verb\":\"fly\"}",
            b"{\"v\":1,\"id\":99999999999,\"verb\":\"list\"}",
            b"\xff\xfe",
        ] {
            assert!(parse_request(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn any_bytes_are_answered_without_a_panic() {
        let seed = 20_260_101u64;
        println!("seed {seed}");
        let mut state = seed;
        let alphabet = br#"{}[]",:\u0idverb1list servicesignal-.eE"#;
        for _ in 0..20_000 {
            let mut line = Vec::new();
            for _ in 0..state % 60 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                line.push(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            state = state.wrapping_add(1);
            let _ = parse_request(&line);
            let _ = parse_answer::<Head>(&line);
        }
        let deep = [b"{\"x\":".as_slice(), &[b'['; REQUEST_BYTES]].concat();
        assert!(parse_request(&deep).is_err());
    }

    #[test]
    fn answers_survive_quotes_and_newlines() {
        let line = DoneLine::failed(3, 1, &"exec of \"x\\y\" failed:\nno such file — ende");
        let text = line.to_string();
        assert_eq!(text.lines().count(), 1);
        let head: Head = parse_answer(text.as_bytes()).unwrap();
        assert_eq!((head.id, head.kind), (3, Kind::Done));
        assert_eq!(parse_answer::<DoneLine>(text.as_bytes()).unwrap(), line);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text: heapless::String<8> = cut(&"äääääääää");
        assert_eq!(text.as_str(), "ää…");
        let text: heapless::String<8> = cut(&"short");
        assert_eq!(text.as_str(), "short");
    }

    #[test]
    fn inspect_bodies_come_back_whole() {
        let long = format!("\"{}\"", "a\\n".repeat(4 * TEXT_BYTES));
        let line = inspect_line(8, &long);
        assert_eq!(parse_head(line.as_bytes()), Some(Head { id: 8, kind: Kind::Inspect }));
        assert_eq!(inspect_body(&line), Some(long.as_str()));
        let line = inspect_line(5, "{\"name\":\"a\",\"env\":[]}");
        assert_eq!(parse_head(line.as_bytes()).unwrap().kind, Kind::Inspect);
        assert_eq!(inspect_body(&line), Some("{\"name\":\"a\",\"env\":[]}"));
    }
}
