//! The wire between the supervisor and a service's init: versioned messages of one size over a SOCK_SEQPACKET pair.
//! Pure. It outlives upgrades of the supervisor, so it only ever grows.
#![forbid(unsafe_code)]

use crate::sandbox::stage::Failure;

/// Bytes of every message.
pub const MESSAGE_BYTES: usize = HEAD_BYTES + Failure::BYTES;

/// Version, kind, two zeros, a number.
const HEAD_BYTES: usize = 8;

const VERSION: u8 = 1;

/// What an init says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromInit {
    /// Main runs the service's program.
    Started {
        /// Main's process id as the init sees it, inside the service's pid namespace.
        main: i32,
    },
    /// The container could not be made or main could not be started. The init ends.
    Failed(Failure),
    /// Main ended, its exit record is written, and the init ends too.
    Exited {
        /// As wait(2) gives it.
        status: i32,
    },
}

/// What the supervisor asks of an init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToInit {
    /// Send this signal to main.
    Signal(i32),
    /// Kill every process of the service.
    Kill,
}

fn message(kind: u8, value: i32) -> [u8; MESSAGE_BYTES] {
    let mut out = [0u8; MESSAGE_BYTES];
    out[0] = VERSION;
    out[1] = kind;
    out[4..8].copy_from_slice(&value.to_le_bytes());
    out
}

fn parts(bytes: &[u8]) -> Option<(u8, i32)> {
    match bytes {
        // A later version adds fields behind these.
        [version, kind, _, _, a, b, c, d, ..] if *version >= VERSION => {
            Some((*kind, i32::from_le_bytes([*a, *b, *c, *d])))
        }
        _ => None,
    }
}

impl FromInit {
    /// The message's bytes.
    pub fn encode(self) -> [u8; MESSAGE_BYTES] {
        match self {
            FromInit::Started { main } => message(1, main),
            FromInit::Exited { status } => message(2, status),
            FromInit::Failed(failure) => {
                let mut out = message(3, 0);
                out[HEAD_BYTES..].copy_from_slice(&failure.encode());
                out
            }
        }
    }

    /// Reads a message; `None` for one that this version does not know.
    pub fn decode(bytes: &[u8]) -> Option<FromInit> {
        match parts(bytes)? {
            (1, main) if main > 0 => Some(FromInit::Started { main }),
            (2, status) => Some(FromInit::Exited { status }),
            (3, _) => {
                let failure = bytes.get(HEAD_BYTES..MESSAGE_BYTES)?.try_into().ok()?;
                Failure::decode(failure).map(FromInit::Failed)
            }
            _ => None,
        }
    }
}

impl ToInit {
    /// The message's bytes.
    pub fn encode(self) -> [u8; MESSAGE_BYTES] {
        match self {
            ToInit::Signal(signal) => message(1, signal),
            ToInit::Kill => message(2, 0),
        }
    }

    /// Reads a message; `None` for one that this version does not know.
    pub fn decode(bytes: &[u8]) -> Option<ToInit> {
        match parts(bytes)? {
            (1, signal) if (1..=64).contains(&signal) => Some(ToInit::Signal(signal)),
            (2, _) => Some(ToInit::Kill),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::stage::Stage;
    use crate::sys::Errno;

    #[test]
    fn messages_come_back_and_strange_ones_are_refused() {
        let failure = Failure::new(Stage::Mount, Errno(13), b"/data");
        let failed = FromInit::Failed(failure);
        for said in [FromInit::Started { main: 2 }, FromInit::Exited { status: 9 }, failed] {
            assert_eq!(FromInit::decode(&said.encode()), Some(said));
        }
        for asked in [ToInit::Signal(15), ToInit::Kill] {
            assert_eq!(ToInit::decode(&asked.encode()), Some(asked));
        }
        assert_eq!(ToInit::decode(&ToInit::Signal(0).encode()), None);
        assert_eq!(ToInit::decode(&ToInit::Signal(65).encode()), None);
        assert_eq!(ToInit::decode(&[]), None);
        assert_eq!(FromInit::decode(&[0; MESSAGE_BYTES]), None);
        assert_eq!(FromInit::decode(&FromInit::Started { main: 2 }.encode()[..7]), None);
    }
}
