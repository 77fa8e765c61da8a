//! From raw values to the plan: what a single value cannot show, one service and all of them together.

use super::order::{Edge, order};
use super::problem::{Sink, Span};
use super::scan::Scanned;
use super::values::{self, Complaint, Needed, Read, Until};
use super::vars::{self, Var};
use super::{Input, device, merge, raw, service};
use crate::base::json::fill::{Place, Slot, Unknown, fill};
use crate::base::limits::{SERVICES, VARS};
use crate::base::suggest::did_you_mean;
use crate::base::units::{Bytes, Millis};
use crate::plan::{Device, Kind, Need, Plan, Service};
use core::fmt;
use std::borrow::Cow;

/// The text that raw values borrow from, and the sink for what is wrong with them.
pub struct Context<'a, 's, 'f> {
    text: &'a [u8],
    /// Where problems go.
    pub sink: &'s mut Sink<'f>,
    /// The variables, once they are known.
    pub vars: Vec<Var>,
}

impl<'a, 's, 'f> Context<'a, 's, 'f> {
    /// A context before the variables are known.
    pub fn new(text: &'a [u8], sink: &'s mut Sink<'f>) -> Self {
        Context { text, sink, vars: Vec::new() }
    }

    /// Where `raw`, which borrows from the text, stands, with its quotes.
    pub fn span(&self, raw: &str) -> Span {
        let start = (raw.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize).wrapping_sub(1);
        let start = if start < self.text.len() { start } else { 0 };
        Span { start, end: start.saturating_add(raw.len()).saturating_add(2).min(self.text.len()) }
    }

    /// `raw` read by `read`. The scanner has passed it, so a refusal here is a rule that the table lacks.
    pub fn read<T>(&mut self, raw: Option<&str>, read: impl FnOnce(&str) -> Read<T>) -> Option<T> {
        let raw = raw?;
        match read(&values::decoded(raw)) {
            Ok(value) => Some(value),
            Err(complaint) => {
                self.refused(raw, &complaint);
                None
            }
        }
    }

    fn refused(&mut self, raw: &str, complaint: &Complaint) {
        let span = self.span(raw);
        let hint = complaint.hint.as_deref();
        self.sink.problem(span, format_args!("this value {}", complaint.message), hint);
    }

    /// A problem of `raw`, which borrows from the text.
    pub fn problem(&mut self, raw: &str, message: fmt::Arguments<'_>, hint: &str) {
        let span = self.span(raw);
        self.sink.problem(span, message, Some(hint));
    }

    /// A warning about `raw`, which borrows from the text.
    pub fn warning(&mut self, raw: &str, message: fmt::Arguments<'_>, hint: &str) {
        let span = self.span(raw);
        self.sink.warning(span, message, Some(hint));
    }

    /// A size whose range the scanner has checked.
    pub fn size(&mut self, raw: Option<&str>) -> Option<Bytes> {
        self.read(raw, |text| values::size(text, 0, u64::MAX))
    }

    /// A duration whose range the scanner has checked.
    pub fn duration(&mut self, raw: Option<&str>) -> Option<Millis> {
        self.read(raw, |text| values::duration(text, 0, u64::MAX))
    }

    /// Reports every one of `list` whose text has the same key as one further up.
    pub fn repeated<T>(
        &mut self,
        list: &[T],
        text: impl Fn(&T) -> Option<&str>,
        what: &str,
        key: impl Fn(&str) -> String,
    ) {
        let text = |place| list.get(place).and_then(&text);
        self.repeated_texts(&text, list.len(), what, &key);
    }

    fn repeated_texts<'t>(
        &mut self,
        text: &dyn Fn(usize) -> Option<&'t str>,
        count: usize,
        what: &str,
        key: &dyn Fn(&str) -> String,
    ) {
        let mut known: Vec<(String, &str)> = Vec::with_capacity(count);
        for raw in (0..count).filter_map(text) {
            let (shown, start) = (values::decoded(raw), self.span(raw).start);
            let own = key(&shown);
            if let Some((_, first)) = known.iter().find(|(known, _)| *known == own) {
                let place = self.sink.place(self.span(first).start, start);
                self.problem(raw, format_args!("{what} {shown:?} is there twice"), &format!("the first is in {place}"));
            }
            known.push((own, raw));
        }
    }

    /// Fills a raw type from one part of the text.
    pub fn fill<T: Slot<'a> + Default>(&mut self, span: Span) -> Option<T> {
        let mut raw = T::default();
        self.fill_into(span, &mut raw).then_some(raw)
    }

    /// Fills what one part of the text says into a raw type; whether it can be read.
    pub fn fill_into<T: Slot<'a>>(&mut self, span: Span, raw: &mut T) -> bool {
        self.fill_place(span, raw.slot())
    }

    fn fill_place(&mut self, span: Span, place: Place<'_, 'a>) -> bool {
        let filled = fill(self.text.get(span.start..span.end).unwrap_or_default(), Unknown::Refused, place);
        if let Err(error) = &filled {
            // The scanner lets nothing through that does not fit; if it did, the file is refused nevertheless.
            let span = Span { start: span.start, end: span.start + 1 };
            self.sink.problem(span, format_args!("this object cannot be read: {error}"), None);
        }
        filled.is_ok()
    }
}

/// An owned copy of a text, escapes decoded.
pub fn boxed(raw: &str) -> Box<str> {
    match values::decoded(raw) {
        Cow::Borrowed(text) => text.into(),
        Cow::Owned(text) => text.into(),
    }
}

/// A list as written, empty if it is not.
pub fn list<T, const N: usize>(raw: &Option<heapless::Vec<T, N>>) -> &[T] {
    raw.as_deref().unwrap_or(&[])
}

/// A path as a key for comparing: `/a//b/.` is `/a/b`.
pub fn plain_path(path: &str) -> String {
    values::parts(path).fold(String::new(), |path, part| path + "/" + part)
}

/// Whether a mount on `outer` hides what is on `inner`: both paths, `outer` a folder above.
pub fn hides(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (values::parts(outer), values::parts(inner));
    loop {
        match (outer.next(), inner.next()) {
            (None, Some(_)) => return true,
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// A service and where its name and its needs stand.
struct Placed<'a> {
    name: &'a str,
    needs: Vec<&'a str>,
}

/// Makes the plan of what the scanner left. It is of use only if the sink holds no problem afterwards.
pub fn plan(scanned: &Scanned, input: &Input<'_>, sink: &mut Sink<'_>) -> Plan {
    let mut context = Context::new(&scanned.text, sink);
    let parts = &scanned.parts;
    absent(&mut context, &parts.include, input.absent);
    let raws: Vec<raw::Var<'_>> = parts.vars.iter().filter_map(|span| context.fill(*span)).collect();
    enough(&mut context, &parts.vars, VARS, "variables");
    context.vars = vars::vars(&mut context, &raws, input.values);
    let device = parts.device.map(|span| device_at(&mut context, span)).unwrap_or_default();
    enough(&mut context, &parts.services, SERVICES, "services");
    enough(&mut context, &parts.overrides, SERVICES, "overrides");
    let overrides = match parts.overrides.is_empty() {
        true => Vec::new(),
        false => merge::overrides(&mut context, &parts.overrides),
    };
    let mut services = Vec::with_capacity(parts.services.len());
    let mut placed = Vec::with_capacity(parts.services.len());
    for span in &parts.services {
        let (own, service) = service_at(&mut context, *span, &overrides);
        placed.push(own);
        services.push(service);
    }
    let named: Vec<&str> = placed.iter().map(|placed| placed.name).filter(|name| !name.is_empty()).collect();
    context.repeated(&named, |name| Some(name), "a service called", str::to_owned);
    merge::strays(&mut context, &overrides, &named);
    let edges = needs(&mut context, &placed, &mut services);
    let (start_order, cycles) = order(services.len(), &edges);
    for cycle in cycles {
        report_cycle(&mut context, &placed, &cycle);
    }
    Plan { device, services: services.into_iter().flatten().collect(), start_order, digest: 0 }
}

/// Not inlined: its raw form is kilobytes of stack.
#[inline(never)]
fn device_at(context: &mut Context<'_, '_, '_>, span: Span) -> Device {
    let mut raw = raw::Device::default();
    match context.fill_into(span, &mut raw) {
        true => device::device(context, &raw),
        false => Device::default(),
    }
}

/// Not inlined, and its raw form filled where it lies: that is 14 KiB.
#[inline(never)]
fn service_at<'a>(
    context: &mut Context<'a, '_, '_>,
    span: Span,
    overrides: &[merge::Override<'a>],
) -> (Placed<'a>, Option<Service>) {
    let mut raw = raw::Service::default();
    context.fill_into(span, &mut raw);
    merge::apply(context, overrides, &mut raw);
    let placed = Placed { name: raw.name.unwrap_or(""), needs: list(&raw.needs).to_vec() };
    (placed, service::service(context, &raw))
}

/// Reports what is more than `max` in all files together; in each of them the scanner has counted.
fn enough(context: &mut Context<'_, '_, '_>, spans: &[Span], max: usize, what: &str) {
    if let Some(span) = spans.get(max) {
        let span = Span { start: span.start, end: span.start + 1 };
        context.sink.problem(span, format_args!("too many {what} in all files together (max {max})"), None);
    }
}

/// Warns of entries of `include` that name a single file which is not there.
fn absent(context: &mut Context<'_, '_, '_>, include: &[Span], absent: &[Box<str>]) {
    for span in include {
        let typed = context.text.get(span.start + 1..span.end - 1).and_then(|text| str::from_utf8(text).ok());
        if typed.is_some_and(|typed| absent.contains(&boxed(typed))) {
            let hint = "with a '*' in its name it may be missing without a word";
            context.sink.warning(*span, format_args!("there is no such file"), Some(hint));
        }
    }
}

/// The hint at a name that nothing has.
pub fn nearest(name: &str, known: &[&str]) -> String {
    let all = || format!("services: {}", known.get(..12).unwrap_or(known).join(", "));
    did_you_mean(name, &mut known.iter().copied()).map_or_else(all, |meant| format!("did you mean {meant:?}?"))
}

/// Turns names into indices; gives the edges of the graph.
fn needs(context: &mut Context<'_, '_, '_>, placed: &[Placed<'_>], services: &mut [Option<Service>]) -> Vec<Edge> {
    let names: Vec<Cow<'_, str>> = placed.iter().map(|placed| values::decoded(placed.name)).collect();
    let mut edges = Vec::new();
    for (index, own) in placed.iter().enumerate() {
        context.repeated(&own.needs, |need| Some(need), "the need", bare);
        for raw in &own.needs {
            let (name, until) = match context.read(Some(raw), values::need) {
                Some(Needed::Service(name, until)) => (name, until),
                Some(Needed::Board(what)) => {
                    board_need(context, raw, &names);
                    if let Some(Some(service)) = services.get_mut(index) {
                        service.awaits.push(what);
                    }
                    continue;
                }
                None => continue,
            };
            let Some(target) = names.iter().position(|known| *known == name.as_str()) else {
                let known: Vec<&str> = names.iter().map(|name| &**name).filter(|name| !name.is_empty()).collect();
                let hint = nearest(name.as_str(), &known);
                context.problem(raw, format_args!("needs {:?}, which is no service", name.as_str()), &hint);
                continue;
            };
            edges.push((index, target));
            let needed = services.get(target).and_then(Option::as_ref);
            let oneshot = needed.is_some_and(|needed| needed.kind == Kind::Oneshot);
            let asleep = needed.is_some_and(|needed| !needed.enabled);
            if until == Some(Until::Done) && !oneshot && needed.is_some() {
                let hint = format!("write {:?}, or give it \"type\": \"oneshot\"", name.as_str());
                let message =
                    format_args!("waits for {:?} to be done, but it is a daemon, which never is", name.as_str());
                context.problem(raw, message, &hint);
            }
            if until == Some(Until::Ready) && oneshot {
                let hint = format!("write \"{0}\" or \"{0}:done\"", name.as_str());
                let message =
                    format_args!("waits for {:?} to be ready, but it is a oneshot, which is done", name.as_str());
                context.problem(raw, message, &hint);
            }
            let Some(Some(service)) = services.get_mut(index) else { continue };
            service.needs.push(match until {
                Some(Until::Ready) => Need::Ready(target as u16),
                Some(Until::Started) => Need::Started(target as u16),
                Some(Until::Soft) => Need::Soft(target as u16),
                None if !oneshot => Need::Started(target as u16),
                Some(Until::Done) | None => Need::Done(target as u16),
            });
            let own = service.name.as_str();
            if asleep && service.enabled && until != Some(Until::Soft) {
                let message = format_args!("needs {:?}, which is not enabled", name.as_str());
                context.warning(raw, message, &format!("{own:?} waits until someone starts it"));
            }
        }
    }
    edges
}

/// What makes two entries of `needs` the same: the service, or all of it for something of the board.
fn bare(need: &str) -> String {
    match values::need(need) {
        Ok(Needed::Service(name, _)) => name.as_str().to_owned(),
        _ => need.to_owned(),
    }
}

/// Reports a need of the board that could be meant for a service.
fn board_need(context: &mut Context<'_, '_, '_>, raw: &str, names: &[Cow<'_, str>]) {
    let typed = values::decoded(raw);
    let word = typed.split(':').next().unwrap_or_default();
    if names.iter().any(|name| name == word) {
        let message = format_args!("{typed:?} is the board's, but there is a service called {word:?} too");
        context.problem(raw, message, "give the service another name");
    }
}

fn report_cycle(context: &mut Context<'_, '_, '_>, placed: &[Placed<'_>], cycle: &[usize]) {
    let name = |index: &usize| placed.get(*index).map_or(Cow::Borrowed(""), |placed| values::decoded(placed.name));
    let path: Vec<Cow<'_, str>> = cycle.iter().chain(cycle.first()).map(name).collect();
    let Some(first) = cycle.first().and_then(|index| placed.get(*index)) else { return };
    let next = path.get(1).map_or("", |next| next);
    let edge = first.needs.iter().find(|need| values::decoded(need).split(':').next() == Some(next));
    let hint = match cycle.len() {
        1 => "a service cannot wait for itself",
        _ => "none of them could ever start: remove one of these needs",
    };
    context.problem(edge.unwrap_or(&first.name), format_args!("the needs go in a circle: {}", path.join(" -> ")), hint);
}
