//! Overrides: what one names replaces what the service has.

use super::health::{asks, has_more};
use super::problem::Span;
use super::validate::{Context, nearest};
use super::{raw, values};
use std::borrow::Cow;

/// An override: whose, where it stands, and what it says of the service's health: one way to ask, anything of one check, a
/// list of checks.
pub struct Override<'a> {
    name: &'a str,
    span: Span,
    asks: bool,
    one: bool,
    many: bool,
}

/// The overrides, with a word about those that one file has twice for a service. Not inlined:
/// a service's raw form is 14 KiB of stack.
#[inline(never)]
pub fn overrides<'a>(context: &mut Context<'a, '_, '_>, spans: &[Span]) -> Vec<Override<'a>> {
    let mut list: Vec<Override<'a>> = Vec::with_capacity(spans.len());
    for span in spans {
        let Some(raw) = context.fill::<raw::Service<'_>>(*span) else { continue };
        let Some(name) = raw.name else { continue };
        let own = context.span(name);
        let twice =
            |other: &&Override<'_>| same(other.name, name) && context.sink.same_file(other.span.start, own.start);
        if let Some(first) = list.iter().find(twice) {
            let place = context.sink.place(first.span.start, own.start);
            let message = format_args!("an override of {:?} is there twice", values::decoded(name));
            context.problem(name, message, &format!("the first is in {place}: make them one"));
        }
        let asks = asks(&raw.health);
        let (one, many) = (asks || has_more(&raw.health), raw.checks.is_some());
        list.push(Override { name, span: *span, asks, one, many });
    }
    list
}

/// Applies the overrides of a service, in their order: lists and single values are replaced as a whole, of objects each key.
pub fn apply<'a>(context: &mut Context<'a, '_, '_>, overrides: &[Override<'a>], service: &mut raw::Service<'a>) {
    let Some(name) = service.name else { return };
    for own in overrides.iter().filter(|own| same(name, own.name)) {
        // One check and a list take each other's place.
        if own.many {
            service.health = raw::Health::default();
        }
        if own.one {
            service.checks = None;
        }
        if own.asks {
            // Another way to ask: what belongs to the one before goes with it.
            let raw::Health { interval, timeout, retries, start_period, role, .. } =
                core::mem::take(&mut service.health);
            service.health = raw::Health { interval, timeout, retries, start_period, role, ..raw::Health::default() };
        }
        context.fill_into(own.span, service);
        // Problems with the name are where the service stands.
        service.name = Some(name);
    }
}

/// Reports overrides of services that are nowhere; `named` are the names that there are.
pub fn strays(context: &mut Context<'_, '_, '_>, overrides: &[Override<'_>], named: &[&str]) {
    let names: Vec<Cow<'_, str>> = named.iter().map(|name| values::decoded(name)).collect();
    for stray in overrides.iter().filter(|own| !named.iter().any(|name| same(name, own.name))) {
        let name = values::decoded(stray.name);
        let hint = nearest(&name, &names.iter().map(|name| &**name).collect::<Vec<_>>());
        context.problem(stray.name, format_args!("overrides {name:?}, which is no service"), &hint);
    }
}

fn same(a: &str, b: &str) -> bool {
    values::decoded(a) == values::decoded(b)
}
