//! The control socket under clients that do not behave. No root needed.

use coracle::base::units::Millis;
use coracle::control::server::{CLIENTS, PATIENCE, Received, Server};
use coracle::control::wire::{DoneLine, Head, Kind, Request, VERSION, Verb, parse_answer};
use std::io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

struct Bench {
    dir: tempfile::TempDir,
    server: Server,
    now: Millis,
    gone: Vec<u32>,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::bind(&dir.path().join("control.sock")).unwrap();
        Bench { dir, server, now: Millis(0), gone: Vec::new() }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("control.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    /// Serves once and gives the requests that came in, answered with `ok`.
    fn serve(&mut self) -> Vec<Received> {
        self.server.serve(self.now);
        let mut requests = Vec::new();
        while let Some(request) = self.server.next_request() {
            self.server.done(request.client, &DoneLine::ok(request.id, &"fine"), self.now);
            requests.push(request);
        }
        while let Some(client) = self.server.next_gone() {
            self.gone.push(client);
        }
        requests
    }
}

fn line(id: u32, service: &str) -> Vec<u8> {
    let request = Request { v: VERSION, id, verb: Verb::Start, service, signal: 0, seconds: 0 };
    request.to_string().into_bytes()
}

fn answers(stream: &UnixStream) -> impl Iterator<Item = DoneLine> {
    BufReader::new(stream).lines().map(|line| parse_answer(line.unwrap().as_bytes()).unwrap())
}

#[test]
fn many_requests_in_pieces_are_answered_one_by_one() {
    let mut bench = Bench::new();
    let mut stream = bench.connect();
    let bytes: Vec<u8> = (0..100).flat_map(|id| line(id, "web")).collect();
    let mut seen = Vec::new();
    for piece in bytes.chunks(37) {
        stream.write_all(piece).unwrap();
        seen.extend(bench.serve());
    }
    for _ in 0..100 {
        seen.extend(bench.serve());
    }
    assert_eq!(seen.iter().map(|request| request.id).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    assert!(seen.iter().all(|request| request.service == "web"));
    assert_eq!(answers(&stream).take(100).map(|answer| answer.id).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_client_that_closes_its_half_still_gets_its_answer() {
    let mut bench = Bench::new();
    let mut stream = bench.connect();
    stream.write_all(&line(1, "web")).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(bench.serve().len(), 1);
    bench.serve();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(parse_answer::<DoneLine>(text.as_bytes()).unwrap(), DoneLine::ok(1, &"fine"));
    assert_eq!(bench.gone, [1]);
}

#[test]
fn nonsense_is_answered_and_the_connection_closed() {
    for nonsense in [&b"GET / HTTP/1.0\n"[..], b"\n", b"{}\n", b"\xff\xff\n", &[b'x'; 600]] {
        let mut bench = Bench::new();
        let mut stream = bench.connect();
        stream.write_all(nonsense).unwrap();
        for _ in 0..3 {
            assert!(bench.serve().is_empty());
        }
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        let first = text.lines().next().unwrap();
        let answer: DoneLine = parse_answer(first.as_bytes()).unwrap();
        assert!(!answer.ok && answer.code == 2, "{answer:?}");
        assert_eq!(bench.gone, [1]);
    }
}

#[test]
fn a_half_message_is_dropped_after_a_while_and_one_that_waits_is_not() {
    let mut bench = Bench::new();
    let mut half = bench.connect();
    half.write_all(b"{\"v\":1,").unwrap();
    let mut waiting = bench.connect();
    waiting.write_all(&line(1, "web")).unwrap();
    bench.server.serve(bench.now);
    let request = bench.server.next_request().unwrap();
    assert_eq!(bench.server.next_deadline(), Some(PATIENCE));
    bench.now = PATIENCE.plus(Millis(1));
    bench.serve();
    assert_eq!(bench.gone, [1]);
    bench.server.done(request.client, &DoneLine::ok(1, &"late"), bench.now);
    assert_eq!(answers(&waiting).next().unwrap(), DoneLine::ok(1, &"late"));
}

#[test]
fn a_flood_of_connections_is_turned_away_and_the_next_client_served() {
    let mut bench = Bench::new();
    let kept: Vec<UnixStream> = (0..CLIENTS).map(|_| bench.connect()).collect();
    for _ in 0..3 {
        bench.serve();
    }
    for _ in 0..10_000 {
        let stream = bench.connect();
        drop(stream);
        bench.serve();
    }
    assert!(bench.server.refused() >= 10_000, "{}", bench.server.refused());
    let turned_away = bench.connect();
    bench.serve();
    assert!(!answers(&turned_away).next().unwrap().ok);
    drop(kept);
    bench.serve();
    bench.serve();
    let mut next = bench.connect();
    next.write_all(&line(5, "web")).unwrap();
    let requests: Vec<Received> = (0..3).flat_map(|_| bench.serve()).collect();
    assert_eq!(requests.len(), 1);
}

#[test]
fn a_slow_reader_costs_a_bounded_amount_and_is_dropped() {
    let mut bench = Bench::new();
    let mut stream = bench.connect();
    stream.set_nonblocking(true).unwrap();
    let mut handled = 0;
    for id in 0..200_000 {
        if stream.write_all(&line(id, "web")).is_err() {
            break;
        }
        handled += bench.serve().len();
    }
    // What is unread fills the socket's buffer and then our bound; after that nothing more is taken in.
    assert!(handled < 20_000, "{handled} requests of a client that reads no answer");
    let deadline = bench.server.next_deadline().unwrap();
    bench.now = deadline;
    bench.serve();
    assert_eq!(bench.gone, [1]);
}

#[test]
fn passed_file_descriptors_are_dropped() {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let mut bench = Bench::new();
    let stream = bench.connect();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (reader, writer) = std::io::pipe().unwrap();
    let bytes = line(9, "web");
    let fds = [writer.as_raw_fd()];
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::empty(),
        None,
    )
    .unwrap();
    drop(writer);
    assert_eq!(bench.serve().len(), 1);
    // With the last copy of the write end gone, the reader sees the end of the file.
    let mut rest = Vec::new();
    let mut reader = reader;
    reader.read_to_end(&mut rest).unwrap();
    assert!(open() > 0 && rest.is_empty());
}

#[test]
fn long_names_are_no_service() {
    let mut bench = Bench::new();
    let mut stream = bench.connect();
    stream.write_all(&line(3, &"n".repeat(64))).unwrap();
    assert!(bench.serve().is_empty());
    let answer = answers(&stream).next().unwrap();
    assert_eq!((answer.id, answer.code), (3, 4));
    assert_eq!(parse_answer::<Head>(b"{\"id\":3,\"kind\":\"done\"}").unwrap().kind, Kind::Done);
}
