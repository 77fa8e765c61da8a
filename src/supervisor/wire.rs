//! The wire between the supervisor and a service's init: versioned messages of one size over a SOCK_SEQPACKET pair.
//! Pure. It outlives upgrades of the supervisor, so it only ever grows.
#![forbid(unsafe_code)]

use super::notify::{Counts, LINE_BYTES, Line, Notice, Standing};
use crate::base::units::Millis;
use crate::sandbox::stage::Failure;

/// Bytes of every message.
pub const MESSAGE_BYTES: usize = HEAD_BYTES + Failure::BYTES;

/// Version, kind, two zeros, a number.
const HEAD_BYTES: usize = 8;

const VERSION: u8 = 1;

// A line fits behind the head.
const _: () = assert!(HEAD_BYTES + LINE_BYTES == MESSAGE_BYTES);

/// What an init says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromInit {
    /// Main runs the service's program; said again when another process of the service has become main.
    Started {
        /// Main's process id as the init sees it, inside the service's pid namespace.
        main: i32,
    },
    /// The container could not be made or main could not be started. The init ends.
    Failed(Failure),
    /// Main ended, its exit record is written, and the init ends too, once what comes after main has ended.
    Exited {
        /// As wait(2) gives it.
        status: i32,
    },
    /// What the service said over its notify socket, and what of it was not listened to so far.
    Notice(Notice, Counts),
    /// What the service is doing, in its own words.
    Status(Line),
    /// What went wrong, in the service's own words.
    Trouble(Line),
    /// The service's listening socket of this number comes with the message, as a descriptor (unix(7), SCM_RIGHTS).
    Socket(u8),
    /// What comes after main, which has ended, has failed: how.
    PostStop(Line),
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

/// A message whose fields are 8 bytes each behind the head; one that is not said is all ones.
fn notice_message(notice: &Notice, counts: &Counts) -> [u8; MESSAGE_BYTES] {
    let standing = match notice.standing {
        None => 0,
        Some(Standing::Ready) => 1,
        Some(Standing::Reloading) => 2,
        Some(Standing::Stopping) => 3,
        Some(Standing::ReadyThenReloading) => 4,
    };
    let flags = [notice.ping, notice.trigger, notice.forgive];
    let flags = flags.iter().rev().fold(0, |flags, flag| flags << 1 | i32::from(*flag));
    let mut out = message(4, standing | flags << 8);
    let time = |time: Option<Millis>| time.map_or(u64::MAX, |time| time.0);
    let fields = [time(notice.watchdog), time(notice.extend), counts.refused.into(), counts.malformed.into()];
    for (place, field) in out[HEAD_BYTES..].chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    out
}

fn read_notice(flags: i32, bytes: &[u8]) -> Option<FromInit> {
    let field = |at: usize| Some(u64::from_le_bytes(bytes.get(HEAD_BYTES + 8 * at..)?.first_chunk().copied()?));
    let time = |at: usize| Some(Some(field(at)?).filter(|time| *time != u64::MAX).map(Millis));
    let count = |at: usize| Some(u32::try_from(field(at)?).unwrap_or(u32::MAX));
    let notice = Notice {
        standing: match flags & 0xff {
            1 => Some(Standing::Ready),
            2 => Some(Standing::Reloading),
            3 => Some(Standing::Stopping),
            4 => Some(Standing::ReadyThenReloading),
            _ => None,
        },
        ping: flags & 1 << 8 != 0,
        trigger: flags & 1 << 9 != 0,
        watchdog: time(0)?,
        extend: time(1)?,
        forgive: flags & 1 << 10 != 0,
    };
    Some(FromInit::Notice(notice, Counts { refused: count(2)?, malformed: count(3)? }))
}

fn line_message(kind: u8, line: &Line) -> [u8; MESSAGE_BYTES] {
    let mut out = message(kind, line.len() as i32);
    for (place, byte) in out[HEAD_BYTES..].iter_mut().zip(line.as_bytes()) {
        *place = *byte;
    }
    out
}

fn read_line(length: i32, bytes: &[u8]) -> Option<Line> {
    let text =
        bytes.get(HEAD_BYTES..HEAD_BYTES + usize::try_from(length).ok().filter(|length| *length <= LINE_BYTES)?)?;
    Line::try_from(core::str::from_utf8(text).ok()?).ok()
}

impl FromInit {
    /// The message's bytes.
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        match self {
            FromInit::Started { main } => message(1, *main),
            FromInit::Exited { status } => message(2, *status),
            FromInit::Notice(notice, counts) => notice_message(notice, counts),
            FromInit::Status(line) => line_message(5, line),
            FromInit::Trouble(line) => line_message(6, line),
            FromInit::Socket(number) => message(7, i32::from(*number)),
            FromInit::PostStop(line) => line_message(8, line),
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
            (4, flags) => read_notice(flags, bytes),
            (5, length) => read_line(length, bytes).map(FromInit::Status),
            (6, length) => read_line(length, bytes).map(FromInit::Trouble),
            (7, number) => u8::try_from(number).ok().map(FromInit::Socket),
            (8, length) => read_line(length, bytes).map(FromInit::PostStop),
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
        let line = Line::try_from("x".repeat(LINE_BYTES).as_str()).unwrap();
        let notice = Notice {
            standing: Some(Standing::Stopping),
            ping: true,
            trigger: true,
            watchdog: Some(Millis(1)),
            extend: Some(Millis(u64::MAX / 1000)),
            forgive: true,
        };
        for said in [
            FromInit::Started { main: 2 },
            FromInit::Exited { status: 9 },
            failed,
            FromInit::Notice(Notice::default(), Counts::default()),
            FromInit::Notice(notice, Counts { refused: u32::MAX, malformed: 3 }),
            FromInit::Status(Line::new()),
            FromInit::Status(line.clone()),
            FromInit::Trouble(line.clone()),
            FromInit::PostStop(line),
            FromInit::Socket(7),
        ] {
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
        let status = FromInit::Status(Line::try_from("up").unwrap()).encode();
        assert_eq!(FromInit::decode(&status[..9]), None);
        let mut long = status;
        long[4] = LINE_BYTES as u8 + 1;
        assert_eq!(FromInit::decode(&long), None);
    }
}
