//! What can still be used of a config that is refused: for a board that nobody reaches otherwise.
#![forbid(unsafe_code)]

use super::problem::{Sink, Span};
use super::{Input, Source, scan, validate};
use crate::base::limits::CONFIG_BYTES;
use crate::plan::Plan;

/// The keys of a file whose values are parts, each left out or kept as a whole; all but the first hold lists.
const KEYS: [&str; 4] = ["device", "vars", "overrides", "services"];

/// A part: the place of its key in [`KEYS`], and where it is in the text of all files.
type Part = (usize, Span);

/// The plan of those parts of the config, `device` and single services, that nothing is wrong with; what needs a part that
/// is left out is left out too. Of a file nothing is found behind an error of syntax.
pub fn salvage(input: &Input<'_>) -> Plan {
    let mut text = Vec::new();
    for source in input.sources {
        text.extend_from_slice(source.bytes);
        text.push(b'\n');
    }
    if text.len() > 2 * CONFIG_BYTES {
        return Plan::default();
    }
    let found = scan::scan(input.sources, &mut Sink::new(input.sources)).parts;
    let lists = [found.vars, found.overrides, found.services];
    let mut parts: Vec<Part> = found.device.into_iter().map(|span| (0, span)).collect();
    for (key, list) in lists.into_iter().enumerate() {
        parts.extend(list.into_iter().map(|span| (key + 1, span)));
    }
    loop {
        let (file, places) = assemble(&text, &parts);
        let sources = [Source { name: "", bytes: &file }];
        let mut sink = Sink::new(&sources);
        let scanned = scan::scan(&sources, &mut sink);
        let whole = Input { sources: &sources, values: input.values, absent: &[] };
        let plan = if scanned.whole { validate::plan(&scanned, &whole, &mut sink) } else { Plan::default() };
        let wrong: Vec<usize> = sink.places().collect();
        if wrong.is_empty() && scanned.whole {
            return plan;
        }
        // Each round leaves out at least one part, or gives up.
        let before = parts.len();
        let mut places = places.iter().map(|span| wrong.iter().any(|place| (span.start..span.end).contains(place)));
        parts.retain(|_| !places.next().unwrap_or(true));
        if parts.len() == before {
            return Plan::default();
        }
    }
}

/// A file of these parts of `text`, and where each is in it.
fn assemble(text: &[u8], parts: &[Part]) -> (Vec<u8>, Vec<Span>) {
    let mut file = Vec::from(b"{\"version\":1".as_slice());
    let mut places = Vec::with_capacity(parts.len());
    for (key, name) in KEYS.iter().enumerate() {
        let mut own = parts.iter().filter(|(of, _)| *of == key).peekable();
        // A file without services is none.
        if own.peek().is_none() && *name != "services" {
            continue;
        }
        file.extend_from_slice(format!(",\"{name}\":{}", if key == 0 { "" } else { "[" }).as_bytes());
        for (number, (_, span)) in own.enumerate() {
            if number > 0 {
                file.push(b',');
            }
            let start = file.len();
            file.extend_from_slice(text.get(span.start..span.end).unwrap_or_default());
            places.push(Span { start, end: file.len() });
        }
        if key > 0 {
            file.push(b']');
        }
    }
    file.push(b'}');
    (file, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Plan {
        salvage(&Input { sources: &[Source { name: "", bytes: text.as_bytes() }], values: &[], absent: &[] })
    }

    fn names(text: &str) -> Vec<String> {
        one(text).services.iter().map(|service| service.name.to_string()).collect()
    }

    fn service(name: &str, more: &str) -> String {
        format!("{{ \"name\": {name:?}, \"image\": \"a.tar\", \"limits\": {{ \"memory\": \"1M\" }}{more} }}")
    }

    #[test]
    fn services_that_nothing_is_wrong_with_are_kept() {
        let (good, bad) = (service("ssh", ""), service("web", ", \"cpuu\": 3"));
        let text = format!(
            "{{ \"version\": 1, /* c */ \"device\": {{ \"hostname\": \"a\" }}, \"services\": [ {bad}, {good}, ] }}"
        );
        assert_eq!(names(&text), ["ssh"]);
        assert_eq!(one(&text).device.hostname.as_deref(), Some("a"));
    }

    #[test]
    fn what_needs_a_part_that_is_left_out_is_left_out_too() {
        let text = format!(
            "{{ \"version\": 1, \"services\": [ {}, {}, {} ] }}",
            service("a", ", \"x\": 1"),
            service("b", ", \"needs\": [\"a\"]"),
            service("c", "")
        );
        assert_eq!(names(&text), ["c"]);
    }

    #[test]
    fn what_stands_before_an_error_of_syntax_is_kept() {
        let text = format!(
            "{{ \"version\": 1, \"device\": {{ \"hostname\": 7 }}, \"services\": [ {}, {{ \"name\" ",
            service("a", "")
        );
        assert_eq!(names(&text), ["a"]);
        assert_eq!(one(&text).device.hostname, None, "a part with a mistake is left out");
    }

    #[test]
    fn nothing_comes_of_nothing() {
        for text in ["", "{", "[]", "null", "{ \"services\": 3 }", "\u{0}"] {
            assert_eq!(one(text), Plan::default(), "{text:?}");
        }
    }
}
