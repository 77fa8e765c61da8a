//! What a config file names that has to be read before the whole can be judged: included files, and those of variables.

use super::problem::{Sink, Span};
use super::raw;
use super::scan::scan;
use super::source::Source;
use super::validate::{Context, boxed};

/// What a file of a config names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The patterns of `include`, in their order.
    pub include: Vec<Box<str>>,
    /// The files of its variables.
    pub vars: Vec<Box<str>>,
}

/// What the main file names, or an included one; nothing where it is wrong, which [`load_all`](super::load_all) reports.
pub fn named(source: Source<'_>, included: bool) -> Named {
    let nothing = Source { name: "", bytes: b"" };
    // The first of several is the main file.
    let both = [nothing, source];
    let sources = if included { &both[..] } else { &both[1..] };
    let mut sink = Sink::new(sources);
    let scanned = scan(sources, &mut sink);
    let text = |span: &Span| scanned.text.get(span.start + 1..span.end - 1).and_then(|text| str::from_utf8(text).ok());
    let include = scanned.parts.include.iter().filter_map(text).map(boxed).collect();
    let mut context = Context::new(&scanned.text, &mut sink);
    let file = |span: &Span| context.fill::<raw::Var<'_>>(*span)?.file.map(boxed);
    Named { include, vars: scanned.parts.vars.iter().filter_map(file).collect() }
}

/// The folder of a pattern, and the pattern of the names in it.
pub fn split(pattern: &str) -> (&str, &str) {
    match pattern.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(split) => split,
        None => ("/", pattern),
    }
}

/// Whether a file's name fits the last part of a pattern: `*` stands for any characters, but not for a leading dot.
pub fn fits(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut at, mut here) = (0, 0);
    // Where the last star is, and how much of the name it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while here < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(byte) if name.get(here) == Some(byte) => {
                at += 1;
                here += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                at = place + 1;
                here = taken + 1;
            }
        }
    }
    pattern.iter().skip(at).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_but_a_leading_dot() {
        let fits = |pattern: &str, name: &str| fits(pattern.as_bytes(), name.as_bytes());
        for (pattern, name) in
            [("*.json", "ssh.json"), ("*", "a"), ("a*b*c", "aXbbYc"), ("*.json", "a.json.json"), ("ab", "ab")]
        {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.json", "ssh.json~"), ("*.json", ".hidden.json"), ("a*b", "ac"), ("ab", "abc"), ("", "a")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        assert!(!fits(&"*a".repeat(40), &"a".repeat(30)), "no backtracking without bound");
    }

    #[test]
    fn what_a_file_names_is_found_before_it_is_judged() {
        let text = r#"{ "version": 1, "include": ["/etc/a/*.json", "rel", "/etc/\u0062.json"], "services": 7,
            "vars": [ { "name": "a", "file": "/sys/a" }, { "name": "b", "value": "x" } ] }"#;
        let main = named(Source { name: "c.json", bytes: text.as_bytes() }, false);
        assert_eq!(main.include.iter().map(|text| &**text).collect::<Vec<_>>(), ["/etc/a/*.json", "/etc/b.json"]);
        assert_eq!(main.vars, ["/sys/a".into()]);
        let included = named(Source { name: "c.json", bytes: text.as_bytes() }, true);
        assert_eq!((included.include.len(), included.vars.len()), (0, 1), "an included file includes nothing");
        assert_eq!(named(Source { name: "c.json", bytes: b"[\"\\u00" }, false), Named::default());
    }
}
