//! Overrides: what one names replaces what the service has.

use super::health::asks;
use super::problem::Span;
use super::validate::{Context, nearest};
use super::{raw, values};
use std::borrow::Cow;

/// An override: whose, and where it stands.
pub struct Override<'a> {
    name: &'a str,
    span: Span,
}

/// The overrides, with a word about those that one file has twice for a service.
pub fn overrides<'a>(context: &mut Context<'a, '_, '_>, spans: &[Span]) -> Vec<Override<'a>> {
    let mut list: Vec<Override<'a>> = Vec::with_capacity(spans.len());
    for span in spans {
        let Some(name) = context.fill::<raw::Service<'_>>(*span).and_then(|raw| raw.name) else { continue };
        let own = context.span(name);
        let twice =
            |other: &&Override<'_>| same(other.name, name) && context.sink.same_file(other.span.start, own.start);
        if let Some(first) = list.iter().find(twice) {
            let place = context.sink.place(first.span.start, own.start);
            let message = format_args!("an override of {:?} is there twice", values::decoded(name));
            context.problem(name, message, &format!("the first is in {place}: make them one"));
        }
        list.push(Override { name, span: *span });
    }
    list
}

/// Applies the overrides of a service, in their order.
pub fn apply<'a>(context: &mut Context<'a, '_, '_>, overrides: &[Override<'a>], service: &mut raw::Service<'a>) {
    let Some(name) = service.name else { return };
    for own in overrides.iter().filter(|own| same(name, own.name)) {
        replace(service, context.fill(own.span).unwrap_or_default());
    }
}

/// Reports overrides of services that are nowhere; `named` are the names that there are.
pub fn strays(context: &mut Context<'_, '_, '_>, overrides: &[Override<'_>], named: &[&str]) {
    let names: Vec<Cow<'_, str>> = named.iter().map(|name| values::decoded(name)).collect();
    for stray in overrides.iter().filter(|own| !named.iter().any(|name| same(name, own.name))) {
        let name = values::decoded(stray.name);
        let hint = nearest(&name, names.iter().map(|name| &**name));
        context.problem(stray.name, format_args!("overrides {name:?}, which is no service"), &hint);
    }
}

fn same(a: &str, b: &str) -> bool {
    values::decoded(a) == values::decoded(b)
}

/// Takes every field that `$over` has written.
macro_rules! replace {
    ($base:expr, $over:expr, $($field:ident)*) => {
        $(if $over.$field.is_some() {
            $base.$field = $over.$field;
        })*
    };
}

/// Replaces the keys of `base` that `over` has written: lists and single values as a whole, of objects each key.
fn replace<'a>(base: &mut raw::Service<'a>, over: raw::Service<'a>) {
    replace!(base, over, image root kind command pre_start post_stop user env env_files secrets sockets tty working_dir hostname);
    replace!(base, over, rlimits oom_score_adj root_fs mounts needs timer start_timeout network capabilities seccomp);
    replace!(base, over, devices ready ready_fd notify_access watchdog enabled lifeline critical);
    replace!(base.when, over.when, exists missing);
    if asks(&over.health) {
        // Another way to ask: what belongs to the one before goes with it.
        let raw::Health { interval, timeout, retries, start_period, role, .. } = core::mem::take(&mut base.health);
        base.health = raw::Health { interval, timeout, retries, start_period, role, ..raw::Health::default() };
    }
    replace!(base.health, over.health, tcp http status unix file max_age exec memory notify image);
    replace!(base.health, over.health, interval timeout retries start_period role);
    replace!(base.limits, over.limits, memory memory_high swap pids cpu cpu_weight cpus io);
    replace!(base.restart, over.restart, policy delay max_delay tries within then);
    replace!(base.stop, over.stop, signal timeout);
    replace!(base.log, over.log, ring rate file keep);
}
