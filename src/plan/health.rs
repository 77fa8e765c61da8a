//! How a service is asked whether it works.

use crate::base::units::{Bytes, Millis};
use core::fmt;
use core::net::SocketAddr;

/// One health check of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// How it is asked.
    pub probe: Probe,
    /// How often and how patiently, as far as it is written.
    pub times: Times,
    /// What comes of failing.
    pub role: Role,
    /// The memory that an `exec` probe may take, beside the service's own.
    pub memory: Bytes,
}

/// How a service is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A connection is taken at this address, seen from the service's network.
    Tcp(SocketAddr),
    /// A GET there is answered with this status; `None`: with any from 200 to 399.
    Http(Url, Option<u16>),
    /// A connection is taken at this unix socket, as the service sees it.
    Unix(Box<str>),
    /// This file, as the service sees it, changes at least this often.
    File(Box<str>, Millis),
    /// This command, inside the service, ends with exit code 0.
    Exec(Vec<Box<str>>),
    /// It says `WATCHDOG=1` (sd_notify(3)) once an interval.
    Notify,
    /// As the image's own HEALTHCHECK says.
    Image,
}

impl Probe {
    /// Whether it runs a command inside the service.
    pub fn is_command(&self) -> bool {
        matches!(self, Probe::Exec(_) | Probe::Image)
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Tcp(address) => write!(f, "tcp {address}"),
            Probe::Http(url, _) => f.write_str(&url.text),
            Probe::Unix(path) => write!(f, "unix {path}"),
            Probe::File(path, _) => write!(f, "file {path}"),
            Probe::Exec(words) => write!(f, "exec {}", words.first().map_or("", |word| word)),
            Probe::Notify => f.write_str("WATCHDOG=1"),
            Probe::Image => f.write_str("the image's HEALTHCHECK"),
        }
    }
}

/// `http://ADDRESS[:PORT][/PATH]`, with a number for an address: nothing is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// As written.
    pub text: Box<str>,
    /// Where to connect to.
    pub address: SocketAddr,
}

impl Url {
    /// Reads it; `None`: it is none, or one of another kind.
    pub fn parse(text: &str) -> Option<Url> {
        let (host, path) = split(text)?;
        let clean = |byte: u8| byte.is_ascii_graphic();
        let address = host.parse().ok().or_else(|| host.parse().ok().map(|ip| SocketAddr::new(ip, 80)));
        let address = address.filter(|_| path.bytes().all(clean))?;
        Some(Url { text: text.into(), address })
    }

    /// What goes into the request: host with port, and path.
    pub fn parts(&self) -> (&str, &str) {
        split(&self.text).unwrap_or_default()
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("http://")?;
    let path = rest.find('/').unwrap_or(rest.len());
    Some(rest.split_at(path))
}

/// What a check is for, and so what comes of failing it. A service has at most one check of each role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Role {
    /// Until its first success no other check is asked; after it, it is not asked any more.
    Startup,
    /// The service is ended and started again as its restart policy says.
    #[default]
    Live,
    /// The service is shown as not ready, and what needs it ready waits; nothing else.
    Ready,
}

impl Role {
    /// All roles, in their order.
    pub const ALL: [Role; 3] = [Role::Startup, Role::Live, Role::Ready];

    /// Its word in the config.
    pub fn word(self) -> &'static str {
        match self {
            Role::Startup => "startup",
            Role::Live => "live",
            Role::Ready => "ready",
        }
    }
}

/// How often and how patiently a service is asked. What is `None` was not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// From the end of one probe to the next.
    pub interval: Option<Millis>,
    /// The longest that one may take.
    pub timeout: Option<Millis>,
    /// From main's start until failures count; a first success ends it.
    pub start_period: Option<Millis>,
    /// Failures in a row that are too many.
    pub retries: Option<u8>,
}

impl Times {
    /// What is said here, and for the rest what `other` says.
    pub fn or(self, other: Times) -> Times {
        Times {
            interval: self.interval.or(other.interval),
            timeout: self.timeout.or(other.timeout),
            start_period: self.start_period.or(other.start_period),
            retries: self.retries.or(other.retries),
        }
    }

    /// The interval.
    pub fn interval(&self) -> Millis {
        self.interval.unwrap_or(Millis::from_secs(10))
    }

    /// The timeout.
    pub fn timeout(&self) -> Millis {
        self.timeout.unwrap_or(Millis::from_secs(5))
    }

    /// The retries.
    pub fn retries(&self) -> u8 {
        self.retries.unwrap_or(3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_what_would_have_to_be_looked_up_is_refused() {
        for (text, address, parts) in [
            ("http://127.0.0.1:8080/health?a=b", "127.0.0.1:8080", ("127.0.0.1:8080", "/health?a=b")),
            ("http://127.0.0.1", "127.0.0.1:80", ("127.0.0.1", "")),
            ("http://[::1]:81/", "[::1]:81", ("[::1]:81", "/")),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.address.to_string().as_str(), url.parts()), (address, parts));
        }
        for bad in ["", "http://", "http://localhost/", "https://127.0.0.1/", "127.0.0.1:80", "http://127.0.0.1/a b"] {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
        assert_eq!(Url::parse("http://127.0.0.1/\r\nX: y"), None, "a line of its own in the request");
    }
}
