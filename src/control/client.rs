//! The asking side of the control socket.
#![forbid(unsafe_code)]

use super::wire::{self, DoneLine, Kind, Request, SOCKET, ServiceLine, VERSION, Verb};
use crate::base::exit;
use core::fmt;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest line taken from a supervisor: a service with everything that a config of 256 KiB can say about it.
const LINE_BYTES: u64 = 1 << 20;
/// How long a question that needs no work may take.
const QUICK: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens: a sentence with the way out.
    NoSupervisor(String),
    /// Someone listens, but the conversation failed: a sentence.
    Broken(String),
}

impl ClientError {
    /// The exit code that a command ends with.
    pub fn code(&self) -> u8 {
        match self {
            ClientError::NoSupervisor(_) => exit::NO_SUPERVISOR,
            ClientError::Broken(_) => exit::FAILED,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoSupervisor(text) | ClientError::Broken(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ClientError {}

/// A line of an answer before the last.
pub enum Answer<'a> {
    /// A service.
    Service(&'a ServiceLine),
    /// Everything about a service: a JSON object; or its steps: a JSON string.
    Inspect(&'a str),
}

/// A connection to the supervisor of one run directory.
pub struct Client {
    stream: BufReader<UnixStream>,
    socket: String,
    next_id: u32,
}

impl Client {
    /// Connects to the supervisor of `run_dir`.
    ///
    /// # Errors
    /// [`ClientError::NoSupervisor`] if there is no socket or nobody behind it; [`ClientError::Broken`] for the rest.
    pub fn connect(run_dir: &Path) -> Result<Client, ClientError> {
        let path = run_dir.join(SOCKET);
        let socket = path.display().to_string();
        let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NoSupervisor(format!(
                "no supervisor answers on {socket}: start one with `coracle up`, or name another run directory with \
                 --run-dir"
            )),
            ErrorKind::PermissionDenied => ClientError::Broken(format!(
                "{socket} may not be used by this user: run the command as root or as the supervisor's user"
            )),
            _ => ClientError::Broken(format!("{socket} cannot be used: {error}")),
        })?;
        Ok(Client { stream: BufReader::new(stream), socket, next_id: 1 })
    }

    /// Asks and waits for the end of the answer; every line before it goes to `each`.
    ///
    /// Questions must be answered within five seconds, work takes as long as it takes.
    ///
    /// # Errors
    /// [`ClientError::Broken`]: the supervisor ended, is stuck, or speaks another language.
    pub fn ask(
        &mut self,
        verb: Verb,
        service: &str,
        number: u32,
        each: &mut dyn FnMut(Answer<'_>),
    ) -> Result<DoneLine, ClientError> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let patience =
            matches!(verb, Verb::List | Verb::Inspect | Verb::Steps | Verb::Reboot | Verb::Poweroff | Verb::Halt)
                .then_some(QUICK);
        let (signal, seconds) = if verb == Verb::Hold { (0, number) } else { (number as u8, 0) };
        let request = Request { v: VERSION, id, verb, service, signal, seconds };
        let text = request.to_string();
        if text.len() > wire::REQUEST_BYTES {
            return Err(ClientError::Broken(format!("the name {service:?} is too long for a service")));
        }
        let stream = self.stream.get_mut();
        let sent = stream
            .set_read_timeout(patience)
            .and_then(|()| stream.set_write_timeout(Some(QUICK)))
            .and_then(|()| stream.write_all(text.as_bytes()));
        let closed =
            |error: &std::io::Error| matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        match sent {
            // Whoever closes the connection at once has said why before.
            Err(error) if !closed(&error) => return Err(self.broken(&error)),
            _ => {}
        }
        let mut line = Vec::new();
        loop {
            self.read_line(&mut line)?;
            let foreign = || {
                ClientError::Broken(format!(
                    "what answers on {} does not speak this version of the control protocol; use the coracle binary \
                     that it was started from",
                    self.socket
                ))
            };
            let head = wire::parse_head(&line).ok_or_else(foreign)?;
            // What is said to a client that is turned away answers no request.
            let turned_away = head.id == 0 && head.kind == Kind::Done;
            if head.id != id && !turned_away {
                continue;
            }
            match head.kind {
                Kind::Service => each(Answer::Service(&wire::parse_answer(&line).ok_or_else(foreign)?)),
                Kind::Inspect => {
                    let text = core::str::from_utf8(&line).map_err(|_| foreign())?;
                    each(Answer::Inspect(wire::inspect_body(text).ok_or_else(foreign)?));
                }
                Kind::Done => return wire::parse_answer(&line).ok_or_else(foreign),
            }
        }
    }

    fn read_line(&mut self, line: &mut Vec<u8>) -> Result<(), ClientError> {
        line.clear();
        let read = (&mut self.stream).take(LINE_BYTES).read_until(b'\n', line);
        match read {
            Ok(_) if line.last() == Some(&b'\n') => Ok(()),
            Ok(_) if line.len() as u64 == LINE_BYTES => {
                Err(ClientError::Broken(format!("the answer on {} has no end", self.socket)))
            }
            Ok(_) => Err(ClientError::Broken(format!(
                "the supervisor on {} ended before it answered: look at what it said where it was started",
                self.socket
            ))),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn broken(&self, error: &std::io::Error) -> ClientError {
        let socket = &self.socket;
        ClientError::Broken(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!(
                "the supervisor on {socket} does not answer within {} seconds: it is stopped or stuck",
                QUICK.as_secs()
            ),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                format!("the supervisor on {socket} closed the connection: it is ending, or has too many clients")
            }
            _ => format!("the conversation on {socket} failed: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn serve(answers: &'static [u8]) -> (tempfile::TempDir, Client) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let client = Client::connect(dir.path()).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; wire::REQUEST_BYTES];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answers);
        });
        (dir, client)
    }

    #[test]
    fn a_missing_or_dead_socket_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let error = Client::connect(dir.path()).err().unwrap();
            assert_eq!(error.code(), exit::NO_SUPERVISOR);
            assert!(error.to_string().contains("coracle up"), "{error}");
            // The first round finds nothing, the second a socket that nobody listens on.
            let _ = UnixListener::bind(dir.path().join(SOCKET));
        }
    }

    #[test]
    fn lines_come_before_the_end_and_foreign_ids_are_skipped() {
        let (_dir, mut client) = serve(
            b"{\"id\":9,\"kind\":\"done\",\"ok\":true,\"code\":0,\"message\":\"\"}\n\
              {\"id\":1,\"kind\":\"inspect\",\"body\":{\"name\":\"a\"}}\n\
              {\"id\":1,\"kind\":\"done\",\"ok\":false,\"code\":4,\"message\":\"no \\\"b\\\"\"}\n",
        );
        let mut bodies = Vec::new();
        let done = client
            .ask(Verb::Inspect, "a", 0, &mut |answer| {
                if let Answer::Inspect(body) = answer {
                    bodies.push(body.to_owned());
                }
            })
            .unwrap();
        assert_eq!(bodies, ["{\"name\":\"a\"}"]);
        assert_eq!((done.ok, done.code, done.message.as_str()), (false, 4, "no \"b\""));
    }

    #[test]
    fn a_client_that_is_turned_away_at_once_hears_why() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let mut client = Client::connect(dir.path()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"{\"id\":0,\"kind\":\"done\",\"ok\":false,\"code\":1,\"message\":\"not you\"}\n").unwrap();
        // Closed before the client has written anything.
        drop(stream);
        let done = client.ask(Verb::List, "", 0, &mut |_| {}).unwrap();
        assert_eq!((done.ok, done.message.as_str()), (false, "not you"));
    }

    #[test]
    fn a_supervisor_that_ends_or_babbles_is_an_error_not_a_hang() {
        for answers in [&b""[..], b"{\"id\":1", b"hello\n", b"\xff\n", b"{\"id\":1,\"kind\":\"service\"}\n"] {
            let (_dir, mut client) = serve(answers);
            let error = client.ask(Verb::Stop, "a", 0, &mut |_| {}).err().unwrap();
            assert_eq!(error.code(), exit::FAILED, "{error}");
        }
    }
}
