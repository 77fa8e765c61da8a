//! The keys of a service's `health`.

use super::{HOUR, KIB, Kind, Object, TIB, optional};
use crate::base::limits;
use crate::config::values::Text;

/// A service's `health`, or an entry of it.
pub static HEALTH: Object = Object {
    name: "health",
    either: &["tcp", "http", "unix", "file", "exec", "notify", "image"],
    keys: &[
        optional(
            "tcp",
            Kind::Text(Text::Peer),
            "one of `tcp` to `image`",
            "\"127.0.0.1:1883\"",
            "It works if it takes a connection at this address and port, in the network that it is in itself.",
        ),
        optional(
            "http",
            Kind::Text(Text::Url),
            "one of `tcp` to `image`",
            "\"http://127.0.0.1:8080/health\"",
            "It works if it answers a GET there with a status from 200 to 399. The host is a number.",
        ),
        optional("status", Kind::Integer(100, 599), "200 to 399", "204", "The only status that `http` takes for good."),
        optional(
            "unix",
            Kind::Text(Text::Path),
            "one of `tcp` to `image`",
            "\"/run/app.sock\"",
            "It works if it takes a connection at this unix socket, as it sees it itself.",
        ),
        optional(
            "file",
            Kind::Text(Text::Path),
            "one of `tcp` to `image`",
            "\"/run/heartbeat\"",
            "It works if this file, as it sees it itself, is written or touched at least every `max_age`.",
        ),
        optional(
            "max_age",
            Kind::Text(Text::Duration(100, 24 * HOUR)),
            "\"30s\"",
            "\"30s\"",
            "The longest time between two changes of `file`.",
        ),
        optional(
            "exec",
            Kind::Texts(Text::Any, limits::ARGV),
            "one of `tcp` to `image`",
            "[\"mosquitto_sub\", \"-t\", \"$SYS/broker/uptime\", \"-C\", \"1\"]",
            "It works if this command ends with exit code 0. It runs inside, as the service's user, in a cgroup of its \
             own; what is left of it after its time is killed. The other kinds of check need no process.",
        ),
        optional(
            "memory",
            Kind::Text(Text::Size(64 * KIB, TIB)),
            "\"16M\"",
            "\"8M\"",
            "The memory that the command of `exec` or `image` may take, beside the service's own. The commands of several \
             checks share what the largest may.",
        ),
        optional(
            "notify",
            Kind::Bool,
            "one of `tcp` to `image`",
            "true",
            "true: it works if it says WATCHDOG=1 to NOTIFY_SOCKET (sd_notify) once an `interval`, or at most `timeout` \
             later.",
        ),
        optional(
            "image",
            Kind::Bool,
            "one of `tcp` to `image`",
            "true",
            "true: the HEALTHCHECK of its image says how, and how often where the keys below do not.",
        ),
        optional(
            "interval",
            Kind::Text(Text::Duration(100, 24 * HOUR)),
            "\"10s\"",
            "\"5s\"",
            "From the end of one check to the next.",
        ),
        optional(
            "timeout",
            Kind::Text(Text::Duration(10, HOUR)),
            "\"5s\"",
            "\"1s\"",
            "The longest that a check may take. After one that took longer the next has twice as long, up to four times, \
             so that a loaded board is not taken for a hanging service.",
        ),
        optional("retries", Kind::Integer(1, 100), "3", "3", "Failures in a row that are too many."),
        optional(
            "start_period",
            Kind::Text(Text::DurationOrNone(100, 24 * HOUR)),
            "`start_timeout`",
            "\"1m\"",
            "The time after its start in which failures do not count, until the first success. Of the check that makes it \
             ready none counts before it, and `start_timeout` bounds the start. Behind a `startup` check the time begins \
             with the success of that, and is `\"0\"` unless written.",
        ),
        optional(
            "role",
            Kind::Word(&["startup", "live", "ready"]),
            "\"live\"",
            "\"ready\"",
            "What comes of failing too often. `live`: the service is ended and started again. `ready`: it is shown as not \
             ready, and what waits for it to be ready goes on waiting, until it succeeds again; nothing else. `startup`: \
             until its first success no other check is asked, and `start_timeout` bounds the start; after it, it is not \
             asked any more. It goes with `\"ready\": \"health\"`.",
        ),
    ],
};
