//! What the next supervisor has to know of a service: `RUN/services/NAME/state`, written whenever it changes. Pure.
//!
//! A head, a text and numbers of 64 bits. A later version adds numbers behind the last one. So an older one reads what it
//! knows, and writes no further: what it does not know stays as it was. The checksum covers what the head counts.
#![forbid(unsafe_code)]

use super::backoff::Backoff;
use super::event::Status;
use super::health::Checks;
use super::service::{After, Ending, Phase, Reason, Service};
use super::timer::Due;
use crate::base::units::Millis;
use crate::log::entry::crc32;

/// The file's name in the directory of its service.
pub const NAME: &str = "state";

/// Numbers that this version knows.
const WORDS: usize = 25;
/// Numbers that a record may have: room for later versions.
const MOST_WORDS: usize = 64;
const HEAD_BYTES: usize = 16;
const TEXT_BYTES: usize = 240;
const WORDS_AT: usize = HEAD_BYTES + TEXT_BYTES;

/// Bytes of a record of this version.
pub const RECORD_BYTES: usize = WORDS_AT + 8 * WORDS;
/// Bytes of the longest record that is read.
pub const MOST_BYTES: usize = WORDS_AT + 8 * MOST_WORDS;

const MAGIC: [u8; 4] = *b"csta";
const VERSION: u8 = 1;

/// The phases by their number in a record. Only ever grows.
pub(super) const PHASES: [Phase; 15] = [
    Phase::Stopped,
    Phase::Waiting,
    Phase::Preparing,
    Phase::Starting,
    Phase::Started,
    Phase::Running,
    Phase::Stopping(Ending::Asked),
    Phase::Stopping(Ending::Sweeping),
    Phase::Stopping(Ending::Killed),
    Phase::Stopping(Ending::Felled),
    Phase::Stopping(Ending::Stuck),
    Phase::Backoff,
    Phase::Held,
    Phase::Failed,
    Phase::Done,
];

/// The reasons by their number in a record. Only ever grows. One that is not here is not kept.
const REASONS: [Reason; 23] = [
    Reason::None,
    Reason::Disabled,
    Reason::Asked,
    Reason::Shutdown,
    Reason::OutOfMemory,
    Reason::StartTimeout,
    Reason::Reloading,
    Reason::Stopping,
    Reason::Watchdog,
    Reason::SpawnFailed,
    Reason::Image,
    Reason::Board,
    Reason::Skipped,
    Reason::InitLost,
    Reason::Freezer,
    Reason::Stuck,
    Reason::Changed,
    Reason::ReloadTimeout,
    Reason::Timer,
    Reason::Unplugged,
    Reason::Unhealthy,
    Reason::NotReady,
    Reason::Awaits,
];
/// From here on a reason is the exit code, and from there the signal, that main ended with.
const EXIT: u64 = 0x100;
const SIGNAL: u64 = 0x200;

const PAUSED: u64 = 1;
const OOM: u64 = 2;
const WANTED: u64 = 4;
const BOOKED: u64 = 8;

/// Makes a time before 1970 a number above zero, which means none.
const SIGN: u64 = 1 << 63;

/// A service as a supervisor left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its state.
    pub service: Service,
    /// Processes of its group that the kernel had killed for want of memory, as far as that has been told.
    pub oom_kills: u64,
    /// Checksums of the config that it was made from: of the whole, and of what an instance is made of.
    pub config: [u64; 2],
    /// What the device had spent as this was written ([`super::budget`]): when its row of restarts ended, and the crash
    /// records of the day. The highest of each holds.
    pub spent: [u64; 2],
}

/// The record of a service. Allocates nothing.
pub fn encode(service: &Service, oom_kills: u64, config: [u64; 2], spent: [u64; 2]) -> [u8; RECORD_BYTES] {
    let place = |found: Option<usize>| found.unwrap_or(0) as u64;
    let reason = match service.reason {
        Reason::Exit(Status::Code(code)) => EXIT | u64::from(code),
        Reason::Exit(Status::Signal(signal)) => SIGNAL | u64::from(signal),
        reason => place(REASONS.iter().position(|known| *known == reason)),
    };
    let flag = |set: bool, flag: u64| if set { flag } else { 0 };
    let after = match service.after {
        After::Policy => 0,
        After::Stay => 1,
        After::Again => 2,
        After::Along => 3,
    };
    let time = |time: Option<Millis>| time.map_or(0, |time| time.0.saturating_add(1));
    let [failures, counted, window, standing, ill] = service.backoff.numbers();
    let words: [u64; WORDS] = [
        place(PHASES.iter().position(|known| *known == service.phase)),
        reason,
        flag(service.paused, PAUSED)
            | flag(service.oom, OOM)
            | flag(service.wanted, WANTED)
            | flag(service.booked, BOOKED),
        after,
        service.number.into(),
        service.since.0,
        time(service.deadline),
        time(service.furthest),
        time(service.period),
        service.ran.0,
        failures,
        counted,
        window,
        service.oom_kills.into(),
        oom_kills,
        config[0],
        config[1],
        standing,
        ill,
        time(service.hold),
        time(service.due.at),
        service.due.last().map_or(0, |last| SIGN ^ last.cast_unsigned()),
        service.health.number(),
        spent[0],
        spent[1],
    ];
    let mut out = [0; RECORD_BYTES];
    for (place, word) in out[WORDS_AT..].chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let text = service.detail.as_deref().unwrap_or_default();
    let length = text.floor_char_boundary(TEXT_BYTES);
    out[HEAD_BYTES..HEAD_BYTES + length].copy_from_slice(&text.as_bytes()[..length]);
    out[..4].copy_from_slice(&MAGIC);
    (out[4], out[5], out[6]) = (VERSION, WORDS as u8, length as u8);
    let sum = crc32(&out[HEAD_BYTES..]);
    out[8..12].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The checksum of a record that [`encode`] has made.
pub fn checksum(record: &[u8; RECORD_BYTES]) -> u32 {
    u32::from_le_bytes([record[8], record[9], record[10], record[11]])
}

/// Reads a record; `None` if it is empty, damaged, or of a version that does not merely know more.
pub fn decode(bytes: &[u8]) -> Option<Saved> {
    let head = bytes.get(..HEAD_BYTES)?;
    let (count, length) = (usize::from(head[5]), usize::from(head[6]));
    let body = bytes.get(HEAD_BYTES..WORDS_AT + 8 * count)?;
    if head[..4] != MAGIC || head[4] != VERSION || head[8..12] != crc32(body).to_le_bytes() {
        return None;
    }
    let mut words = [0; WORDS];
    for (word, place) in words.iter_mut().zip(body.get(TEXT_BYTES..)?.chunks_exact(8)) {
        *word = u64::from_le_bytes(place.try_into().ok()?);
    }
    let [
        phase,
        reason,
        flags,
        after,
        number,
        since,
        deadline,
        furthest,
        period,
        ran,
        failures,
        counted,
        window,
        oom_kills,
        group_kills,
        whole,
        own,
        standing,
        ill,
        hold,
        due,
        last,
        health,
        booked,
        recorded,
    ] = words;
    let detail = core::str::from_utf8(body.get(..length.min(TEXT_BYTES))?).ok()?;
    let time = |word: u64| word.checked_sub(1).map(Millis);
    let count = |word: u64| u32::try_from(word).unwrap_or(u32::MAX);
    let place = |word: u64| usize::try_from(word).unwrap_or(usize::MAX);
    let service = Service {
        phase: PHASES.get(place(phase)).copied()?,
        reason: match (reason & !0xff, reason as u8) {
            (EXIT, code) => Reason::Exit(Status::Code(code)),
            (SIGNAL, signal) => Reason::Exit(Status::Signal(signal)),
            _ => REASONS.get(place(reason)).copied().unwrap_or(Reason::None),
        },
        since: Millis(since),
        deadline: time(deadline),
        furthest: time(furthest),
        period: time(period),
        number: count(number),
        after: match after {
            1 => After::Stay,
            2 => After::Again,
            3 => After::Along,
            _ => After::Policy,
        },
        ran: Millis(ran),
        paused: flags & PAUSED != 0,
        oom: flags & OOM != 0,
        wanted: flags & WANTED != 0,
        booked: flags & BOOKED != 0,
        backoff: Backoff::of_numbers([failures, counted, window, standing, ill]),
        hold: time(hold),
        due: Due::of(time(due), (last != 0).then_some((SIGN ^ last).cast_signed())),
        oom_kills: count(oom_kills),
        health: Checks::of_number(health),
        detail: (!detail.is_empty()).then(|| detail.into()),
        ..Service::new()
    };
    Some(Saved { service, oom_kills: group_kills, config: [whole, own], spent: [booked, recorded] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Service {
        let mut backoff = Backoff::default();
        backoff.next(&crate::plan::Restart::default(), Millis(1), Millis(77), 0);
        Service {
            phase: Phase::Stopping(Ending::Asked),
            reason: Reason::Exit(Status::Signal(11)),
            since: Millis(5),
            deadline: Some(Millis(0)),
            furthest: Some(Millis(9)),
            period: Some(Millis(10_000)),
            number: 7,
            after: After::Again,
            ran: Millis(11),
            paused: true,
            oom: true,
            wanted: true,
            hold: Some(Millis(99)),
            due: Due::of(Some(Millis(123)), Some(-86_400_000)),
            backoff,
            oom_kills: 2,
            health: Checks::of_number(0x0103_0000_00ff),
            detail: Some("the mount of /data failed".into()),
            ..Service::new()
        }
    }

    #[test]
    fn a_record_comes_back_and_a_damaged_one_does_not() {
        let saved = Saved { service: sample(), oom_kills: 3, config: [4, u64::MAX], spent: [8, 9] };
        let bytes = encode(&saved.service, saved.oom_kills, saved.config, saved.spent);
        assert_eq!(decode(&bytes), Some(saved));
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0; RECORD_BYTES]), None);
        for at in (0..RECORD_BYTES).filter(|at| !(6..8).contains(at) && !(12..16).contains(at)) {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn every_phase_and_reason_comes_back() {
        for phase in PHASES {
            let service = Service { phase, ..Service::new() };
            assert_eq!(decode(&encode(&service, 0, [0; 2], [0; 2])).unwrap().service, service);
        }
        let exits = [0, 78, 255].map(|code| Reason::Exit(Status::Code(code)));
        for reason in REASONS.into_iter().chain(exits) {
            let service = Service { reason, ..Service::new() };
            assert_eq!(decode(&encode(&service, 0, [0; 2], [0; 2])).unwrap().service.reason, reason);
        }
    }

    /// The record as a version with `count` numbers would have written it.
    fn of_version(bytes: &[u8], count: usize) -> Vec<u8> {
        let mut other = bytes.to_vec();
        other.resize(WORDS_AT + 8 * count, 0xab);
        other[5] = count as u8;
        let sum = crc32(&other[HEAD_BYTES..]);
        other[8..12].copy_from_slice(&sum.to_le_bytes());
        other
    }

    #[test]
    fn versions_read_what_they_know_of_each_other_and_take_nothing_away() {
        let bytes = encode(&sample(), 3, [4, 5], [8, 9]);
        // N reads what N-1 wrote: what that did not know is zero.
        let old = decode(&of_version(&bytes, WORDS - 6)).unwrap();
        assert_eq!((old.service.hold, old.oom_kills, old.config), (None, 3, [4, 5]));
        assert_eq!(old.service.health, Checks::default());
        assert_eq!(old.spent, [0; 2]);
        let older = decode(&of_version(&bytes, WORDS - 10)).unwrap();
        assert_eq!((older.service.phase, older.oom_kills, older.config), (sample().phase, 3, [0, 0]));
        // N reads what N+1 wrote.
        let later = of_version(&bytes, WORDS + 5);
        assert_eq!(decode(&later).unwrap().service, sample());
        // N writes over it, and what N+1 has beyond stays.
        let mut file = later.clone();
        file[..RECORD_BYTES].copy_from_slice(&encode(&Service::new(), 0, [0; 2], [0; 2]));
        assert_eq!(decode(&file).unwrap().service, Service::new());
        assert_eq!(file[RECORD_BYTES..], later[RECORD_BYTES..]);
    }

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        let service = Service { detail: Some("ä".repeat(200).into()), ..Service::new() };
        let detail = decode(&encode(&service, 0, [0; 2], [0; 2])).unwrap().service.detail.unwrap();
        assert_eq!(&*detail, "ä".repeat(TEXT_BYTES / 2));
    }
}
