//! A service's `health`: from raw to plan, with the checks that look at several of its values.

use super::raw;
use super::validate::{Context, boxed, list};
use super::values;
use crate::base::units::{Bytes, Millis};
use crate::plan::{Health, Kind, Probe, Ready, Role, Times};

/// What the command of a probe may take unless the config says otherwise.
const MEMORY: Bytes = Bytes(16 << 20);
/// How long a file may stay unchanged unless the config says otherwise.
const MAX_AGE: Millis = Millis::from_secs(30);

/// The health checks, without those that are wrong, which are reported.
pub fn health(context: &mut Context<'_, '_, '_>, service: &raw::Service<'_>, how: (Kind, Ready)) -> Vec<Health> {
    let name = service.name.unwrap_or_default();
    let many = service.checks.as_deref().filter(|many| !many.is_empty());
    let mut checks: Vec<Health> = Vec::new();
    for raw in many.unwrap_or(core::slice::from_ref(&service.health)) {
        let Some(check) = check(context, service, raw, how) else { continue };
        if checks.iter().any(|other| other.role == check.role) {
            let hint = "give each a \"role\" of its own: startup, live (the default) or ready";
            wrong(context, name, "\"health\" of this service has two checks with one role", hint);
        }
        if check.role == Role::Startup && how.1 != Ready::Health {
            let hint = "write \"ready\": \"health\"";
            wrong(context, service.ready.unwrap_or(name), "a startup check says when its service has started", hint);
        }
        checks.push(check);
    }
    checks
}

fn check(
    context: &mut Context<'_, '_, '_>,
    service: &raw::Service<'_>,
    raw: &raw::Health<'_>,
    (kind, ready): (Kind, Ready),
) -> Option<Health> {
    let name = service.name.unwrap_or_default();
    let tcp = context.read(raw.tcp, values::address).map(Probe::Tcp);
    let http = context.read(raw.http, values::url).map(|url| Probe::Http(url, raw.status));
    let max_age = context.duration(raw.max_age);
    let words = raw.exec.as_ref().map(|_| list(&raw.exec).iter().map(|word| boxed(word)).collect());
    let (mut probe, mut ways) = (None, 0);
    let mut add = |way: Option<Probe>| {
        ways += u8::from(way.is_some());
        probe = probe.take().or(way);
    };
    add(tcp);
    add(http);
    add(raw.unix.map(|path| Probe::Unix(boxed(path))));
    add(raw.file.map(|path| Probe::File(boxed(path), max_age.unwrap_or(MAX_AGE))));
    add(words.map(Probe::Exec));
    add((raw.notify == Some(true)).then_some(Probe::Notify));
    add((raw.image == Some(true)).then_some(Probe::Image));
    let times = Times {
        interval: context.duration(raw.interval),
        timeout: context.duration(raw.timeout),
        start_period: context.read(raw.start_period, |text| values::duration_or_none(text, 0, u64::MAX)),
        retries: raw.retries,
    };
    let memory = context.size(raw.memory).unwrap_or(MEMORY);
    let Some(probe) = probe else {
        // A way that is written and wrong is reported already.
        let clean = context.sink.places().next().is_none();
        if clean && (ready == Ready::Health || asks(raw) || has_more(raw)) {
            let hint = "add one of tcp, http, unix, file, exec, notify and image to its \"health\"";
            let place = raw.interval.or(raw.timeout).or(service.ready).unwrap_or(name);
            wrong(context, place, "nothing says how this service is asked", hint);
        }
        return None;
    };
    let hint = "keep one of tcp, http, unix, file, exec, notify and image";
    if ways > 1 {
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
    Some(Health { probe, times, role: raw.role.unwrap_or_default(), memory })
}

/// Whether it says how the service is asked.
pub fn asks(raw: &raw::Health<'_>) -> bool {
    let texts = [raw.tcp, raw.http, raw.unix, raw.file];
    texts.iter().any(Option::is_some) || raw.exec.is_some() || raw.notify.or(raw.image).is_some()
}

/// Whether it says anything else.
pub fn has_more(raw: &raw::Health<'_>) -> bool {
    let texts = [raw.max_age, raw.memory, raw.interval, raw.timeout, raw.start_period];
    texts.iter().any(Option::is_some) || raw.status.is_some() || raw.retries.is_some() || raw.role.is_some()
}

fn wrong(context: &mut Context<'_, '_, '_>, typed: &str, message: &str, hint: &str) {
    context.problem(typed, format_args!("{message}"), hint);
}
