//! The keys of `timer`, `restart` and `stop`: when a service starts by itself, starts again, and how it ends.

use super::{HOUR, Kind, Object, SECOND, optional};
use crate::config::values::Text;

pub(super) static TIMER: Object = Object {
    name: "timer",
    either: &["every", "at"],
    keys: &[
        optional(
            "every",
            Kind::Text(Text::Duration(SECOND, 240 * HOUR)),
            "this or `at`",
            "\"1h\"",
            "At boot, and from then on each time that this has passed.",
        ),
        optional(
            "at",
            Kind::Text(Text::TimeOfDay),
            "this or `every`",
            "\"03:30\"",
            "Once a day at this time, UTC, and not at boot. Nothing happens before the clock is set, and a time that is \
             missed is not made up.",
        ),
        optional(
            "jitter",
            Kind::Text(Text::DurationOrNone(10, 24 * HOUR)),
            "\"0\"",
            "\"5m\"",
            "Each of these starts is put off by a random part of this.",
        ),
    ],
};

pub(super) static RESTART: Object = Object {
    name: "restart",
    either: &[],
    keys: &[
        optional(
            "policy",
            Kind::Word(&["no", "on-failure", "always"]),
            "\"always\"; \"on-failure\" for a oneshot",
            "\"on-failure\"",
            "`on-failure`: after an exit code other than 0, a signal, out of memory, its watchdog, or a start that did not \
             succeed. After exit code 78 (its configuration is wrong) it starts again only when someone asks.",
        ),
        optional(
            "delay",
            Kind::Text(Text::DurationOrNone(10, 24 * HOUR)),
            "\"100ms\"",
            "\"1s\"",
            "Wait before the first restart; it doubles with each further one. \"0\": at once, and the second one after 10 ms.",
        ),
        optional(
            "max_delay",
            Kind::Text(Text::Duration(10, 24 * HOUR)),
            "\"60s\"",
            "\"60s\"",
            "The longest wait. After a run longer than this the wait begins again at `delay`.",
        ),
        optional(
            "tries",
            Kind::Integer(0, 10_000),
            "0 (no bound); 10 with `then` or `critical`",
            "10",
            "Restarts within `within` before `then` happens.",
        ),
        optional(
            "within",
            Kind::Text(Text::Duration(SECOND, 240 * HOUR)),
            "\"10m\"",
            "\"10m\"",
            "The time in which `tries` are counted.",
        ),
        optional(
            "then",
            Kind::Word(&["keep-trying", "stop", "dependants", "reboot"]),
            "\"keep-trying\"",
            "\"stop\"",
            "After that many: go on at the longest delay; leave it down; start those that need it again with it, and go on \
             at the longest delay after as many tries more; or these, then everything but lifelines, then the board, each \
             after as many tries more. The board is rebooted only where coracle is its first process.",
        ),
    ],
};

pub(super) static STOP: Object = Object {
    name: "stop",
    either: &[],
    keys: &[
        optional(
            "signal",
            Kind::Text(Text::Signal),
            "the image's, else TERM",
            "\"TERM\"",
            "The signal that asks it to end: a name or a number.",
        ),
        optional(
            "timeout",
            Kind::Text(Text::Duration(0, HOUR)),
            "\"10s\"",
            "\"10s\"",
            "From the signal to the kill of everything that is left.",
        ),
    ],
};
