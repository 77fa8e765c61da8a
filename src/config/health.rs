//! A service's `health`: from raw to plan, with the checks that look at several of its values.

use super::raw;
use super::validate::{Context, boxed, list};
use super::values;
use crate::base::units::{Bytes, Millis};
use crate::plan::{Health, Kind, Probe, Ready, Times};

/// What the command of a probe may take unless the config says otherwise.
const MEMORY: Bytes = Bytes(16 << 20);
/// How long a file may stay unchanged unless the config says otherwise.
const MAX_AGE: Millis = Millis::from_secs(30);

/// The health check; `None` if there is none, or one that is wrong, which is reported.
pub fn health(
    context: &mut Context<'_, '_, '_>,
    service: &raw::Service<'_>,
    (kind, ready): (Kind, Ready),
) -> Option<Box<Health>> {
    let (raw, name) = (&service.health, service.name.unwrap_or_default());
    let tcp = context.read(raw.tcp, values::address).map(Probe::Tcp);
    let http = context.read(raw.http, values::url).map(|url| Probe::Http(url, raw.status));
    let max_age = context.duration(raw.max_age);
    let words = raw.exec.as_ref().map(|_| list(&raw.exec).iter().map(|word| boxed(word)).collect());
    let found = [
        tcp,
        http,
        raw.unix.map(|path| Probe::Unix(boxed(path))),
        raw.file.map(|path| Probe::File(boxed(path), max_age.unwrap_or(MAX_AGE))),
        words.map(Probe::Exec),
        (raw.notify == Some(true)).then_some(Probe::Notify),
        (raw.image == Some(true)).then_some(Probe::Image),
    ];
    let mut found = found.into_iter().flatten();
    let times = Times {
        interval: context.duration(raw.interval),
        timeout: context.duration(raw.timeout),
        start_period: context.read(raw.start_period, |text| values::duration_or_none(text, 0, u64::MAX)),
        retries: raw.retries,
    };
    let memory = context.size(raw.memory).unwrap_or(MEMORY);
    let probe = found.next();
    let Some(probe) = probe else {
        // A way that is written and wrong is reported already.
        let clean = context.sink.places().next().is_none();
        if clean && (ready == Ready::Health || asks(raw) || has_more(raw)) {
            let hint = "add one of tcp, http, unix, file, exec, notify and image to its \"health\"";
            wrong(context, service.ready.unwrap_or(name), "nothing says how this service is asked", hint);
        }
        return None;
    };
    let hint = "keep one of tcp, http, unix, file, exec, notify and image";
    if found.next().is_some() {
        wrong(context, name, "\"health\" of this service asks in more than one way", hint);
    }
    if matches!(&probe, Probe::Exec(words) if words.first().is_none_or(|word| word.is_empty())) {
        wrong(context, name, "\"exec\" of its \"health\" names no program", "write [\"program\", \"argument\"]");
    }
    if probe == Probe::Image && service.image.is_none() {
        let hint = "write the command itself: \"exec\": [\"program\", \"argument\"]";
        wrong(context, name, "a program on the host's root has no image whose HEALTHCHECK could be asked", hint);
    }
    if kind == Kind::Oneshot {
        let hint = "leave \"health\" out, or make the service a daemon";
        wrong(context, name, "a oneshot is done rather than healthy", hint);
    }
    for (written, effective, message, hint) in [
        (
            raw.status.is_some(),
            matches!(probe, Probe::Http(..)),
            "\"status\" of its \"health\" has no effect",
            "\"http\"",
        ),
        (
            raw.max_age.is_some(),
            matches!(probe, Probe::File(..)),
            "\"max_age\" of its \"health\" has no effect",
            "\"file\"",
        ),
        (
            raw.memory.is_some(),
            probe.is_command(),
            "\"memory\" of its \"health\" has no effect",
            "\"exec\" or \"image\"",
        ),
    ] {
        if written && !effective {
            context.warning(name, format_args!("{message}"), &format!("it belongs to {hint}: leave it out"));
        }
    }
    Some(Box::new(Health { probe, times, role: raw.role.unwrap_or_default(), memory }))
}

/// Whether it says how the service is asked.
pub fn asks(raw: &raw::Health<'_>) -> bool {
    let texts = [raw.tcp, raw.http, raw.unix, raw.file];
    texts.iter().any(Option::is_some) || raw.exec.is_some() || raw.notify.or(raw.image).is_some()
}

/// Whether it says anything else.
fn has_more(raw: &raw::Health<'_>) -> bool {
    let texts = [raw.max_age, raw.memory, raw.interval, raw.timeout, raw.start_period];
    texts.iter().any(Option::is_some) || raw.status.is_some() || raw.retries.is_some() || raw.role.is_some()
}

fn wrong(context: &mut Context<'_, '_, '_>, typed: &str, message: &str, hint: &str) {
    context.problem(typed, format_args!("{message}"), hint);
}
