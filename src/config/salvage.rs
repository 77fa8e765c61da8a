//! What can still be used of a config that is refused: for a board that nobody reaches otherwise.
#![forbid(unsafe_code)]

use super::problem::{Sink, Span};
use super::source::Source;
use super::{Input, scan, validate};
use crate::plan::Plan;

/// A part of a config that can be left out.
#[derive(Clone, Copy)]
struct Part {
    /// The key under which it stands.
    key: &'static str,
    /// Where it is in the text that it is taken from.
    span: Span,
}

/// The plan of those parts of the files that nothing is wrong with: `device`, single services, overrides and variables.
/// What needs a part that is left out is left out too. Behind an error of syntax nothing of that file is found.
pub fn salvage(input: &Input<'_>) -> Plan {
    let scanned = scan::scan(input.sources, &mut Sink::new(input.sources));
    let mut text = Vec::new();
    for source in input.sources {
        text.extend_from_slice(source.bytes);
        text.push(b'\n');
    }
    let mut parts = Vec::new();
    let found = scanned.parts;
    for (key, spans) in [("vars", found.vars), ("overrides", found.overrides), ("services", found.services)] {
        parts.extend(spans.into_iter().map(|span| Part { key, span }));
    }
    parts.extend(found.device.map(|span| Part { key: "device", span }));
    loop {
        let (file, places) = assemble(&text, &parts);
        let sources = [Source { name: "", bytes: &file }];
        let mut sink = Sink::new(&sources);
        let scanned = scan::scan(&sources, &mut sink);
        let whole = scanned.whole;
        let plan = if whole { validate::plan(&scanned, input, &mut sink) } else { Plan::default() };
        let wrong: Vec<usize> = sink.places().collect();
        if wrong.is_empty() && whole {
            return plan;
        }
        // Each round leaves out at least one part, or gives up.
        let before = parts.len();
        let is_wrong = |span: &Span| wrong.iter().any(|place| (span.start..span.end).contains(place));
        let mut kept = places.iter().map(|span| !is_wrong(span));
        parts.retain(|_| kept.next().unwrap_or(false));
        if parts.len() == before {
            return Plan::default();
        }
    }
}

/// A file of these parts of `text`, and where each is in it.
fn assemble(text: &[u8], parts: &[Part]) -> (Vec<u8>, Vec<Span>) {
    let mut file = Vec::from(b"{\"version\":1".as_slice());
    let mut places = vec![Span { start: 0, end: 0 }; parts.len()];
    for (key, open, close) in [("vars", "[", "]"), ("overrides", "[", "]"), ("services", "[", "]"), ("device", "", "")]
    {
        let own = parts.iter().zip(&mut places).filter(|(part, _)| part.key == key);
        let mut own = own.peekable();
        if key != "services" && own.peek().is_none() {
            continue;
        }
        file.extend_from_slice(format!(",\"{key}\":{open}").as_bytes());
        for (part, place) in own {
            let start = file.len();
            file.extend_from_slice(text.get(part.span.start..part.span.end).unwrap_or_default());
            *place = Span { start, end: file.len() };
            if !close.is_empty() {
                file.push(b',');
            }
        }
        file.extend_from_slice(close.as_bytes());
    }
    file.push(b'}');
    (file, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Plan {
        let sources: Vec<Source<'_>> =
            texts.iter().map(|text| Source { name: "c.json", bytes: text.as_bytes() }).collect();
        salvage(&Input { sources: &sources, values: &[], absent: &[] })
    }

    fn names(texts: &[&str]) -> Vec<String> {
        of(texts).services.iter().map(|service| service.name.to_string()).collect()
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
        assert_eq!(names(&[&text]), ["ssh"]);
        assert_eq!(of(&[&text]).device.hostname.as_deref(), Some("a"));
    }

    #[test]
    fn what_needs_a_part_that_is_left_out_is_left_out_too() {
        let services = [
            service("a", ", \"x\": 1"),
            service("b", ", \"needs\": [\"a\"]"),
            service("c", ", \"env\": [\"A=${good}\"]"),
            service("d", ", \"env\": [\"A=${bad}\"]"),
        ];
        let text = format!(
            "{{ \"version\": 1, \"vars\": [ {{ \"name\": \"good\", \"value\": \"1\" }}, {{ \"name\": \"bad\" }} ],
                \"overrides\": [ {{ \"name\": \"c\", \"lifeline\": true }}, {{ \"name\": \"b\", \"enabled\": false }} ],
                \"services\": [ {} ] }}",
            services.join(", ")
        );
        assert_eq!(names(&[&text]), ["c"]);
        let plan = of(&[&text]);
        assert!(plan.services[0].lifeline && &*plan.services[0].env[0] == "A=1");
    }

    #[test]
    fn what_stands_before_an_error_of_syntax_is_kept_and_other_files_are() {
        let text = format!(
            "{{ \"version\": 1, \"device\": {{ \"hostname\": 7 }}, \"services\": [ {}, {{ \"name\" ",
            service("a", "")
        );
        let more = format!("{{ \"services\": [ {} ] }}", service("b", ""));
        assert_eq!(names(&[&text, "[", &more]), ["a", "b"]);
        assert_eq!(of(&[&text]).device.hostname, None, "a part with a mistake is left out");
    }

    #[test]
    fn nothing_comes_of_nothing() {
        for text in ["", "{", "[]", "null", "{ \"services\": 3 }", "\u{0}"] {
            assert_eq!(of(&[text]), Plan::default(), "{text:?}");
        }
    }
}
