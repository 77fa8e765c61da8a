//! The JSON Schema and the reference of the config, made from the table of keys.
//!
//! After a change of the table, `CORACLE_BLESS=1 cargo test --lib config::tests::docs` writes both files anew.

use crate::base::json::{self, Quoted};
use crate::config::keys::{FILE, FREE_PREFIX, INCLUDED, Key, Kind, Object};
use crate::config::values::{self, Text};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// Compares a made file with the one in the tree.
fn agree(name: &str, made: &str) {
    let path = config(name);
    if std::env::var_os("CORACLE_BLESS").is_some() {
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "config/{name} is out of date: CORACLE_BLESS=1 cargo test --lib config::tests::docs");
}

/// A pattern for editors. The parser is stricter: ranges, paths, names.
fn pattern(text: Text) -> Option<&'static str> {
    Some(match text {
        Text::Size(..) | Text::SizeOrNone(..) => "^[0-9]+[KMG]?$",
        Text::Memory(..) => "^([0-9]+[KMG]?|unlimited)$",
        Text::Amount => "^([0-9]+[KMG]?|unlimited)$",
        Text::Duration(..) => "^[0-9]+(ms|s|m|h)$",
        Text::DurationOrNone(..) => "^(0|[0-9]+(ms|s|m|h))$",
        Text::Percent(..) => "^[0-9]+%$",
        Text::Name => "^[a-z0-9][a-z0-9._-]{0,62}$",
        Text::HostName => "^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$",
        Text::Path | Text::Target | Text::BoardTarget => "^/",
        Text::SecretTarget => "^/run/.",
        Text::Address | Text::Peer => "^.+:[0-9]+$",
        Text::Mode => "^[0-7]{3,4}$",
        Text::TimeOfDay => "^[0-2][0-9]:[0-5][0-9](:[0-5][0-9])?$",
        Text::Url => "^http://.",
        Text::WatchdogDevice => "^(auto|/dev/.+)$",
        Text::Module => "^[A-Za-z0-9_-]+$",
        Text::Sysctl => "^[^.]+[.].",
        Text::MountOptions => "^[^, ]+(,[^, ]+)*$",
        Text::DevicePath => "^/dev/.",
        Text::Usb => "^([0-9a-f]{4}:[0-9a-f]{4}(@[0-9]+-[0-9.]+(:[0-9.]+)?)?|[0-9]+-[0-9.]+(:[0-9.]+)?)$",
        Text::Env => "^[^=]+=",
        Text::Need => "^([a-z0-9][a-z0-9._-]{0,62}(:started|:ready|:done|:soft)?|(mount|path):/.*|link:[^/: ]{1,15})$",
        Text::Cpus => "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$",
        Text::Any | Text::Source | Text::Image | Text::User | Text::Signal | Text::Capability | Text::Feature => {
            return None;
        }
        Text::Line | Text::BoardSource | Text::FsType | Text::VarValue => return None,
        Text::VarName => "^[A-Za-z0-9_]{1,63}$",
        Text::Pattern => "^/([^*]*/)?[^/]+$",
    })
}

fn schema_text(text: Text, vars: bool) -> String {
    let shown = |pattern: &str| match vars {
        true => format!(", \"pattern\": {}", Quoted(&format!("{pattern}|[$][{{]"))),
        false => format!(", \"pattern\": {}", Quoted(pattern)),
    };
    pattern(text).map_or(String::new(), shown)
}

fn schema_kind(key: &Key, indent: usize, partial: bool) -> String {
    match &key.kind {
        Kind::Object(object) => schema_object(object, indent, partial),
        Kind::OneOrMore(object, max) => {
            let one = schema_object(object, indent, partial);
            // The same object as an entry of `services` may hold: in a list of an override it is whole, too.
            let items = format!("#/properties/services/items/properties/{}/anyOf/0", key.name);
            let many = format!("\"type\": \"array\", \"maxItems\": {max}, \"items\": {{ \"$ref\": \"{items}\" }}");
            format!("\"anyOf\": [ {{ {one} }}, {{ {many} }} ]")
        }
        Kind::Objects(object, max) => {
            let items = schema_object(object, indent, false);
            format!("\"type\": \"array\", \"maxItems\": {max}, \"items\": {{ {items} }}")
        }
        Kind::Partial(object, max) => {
            let items = schema_object(object, indent, true);
            format!("\"type\": \"array\", \"maxItems\": {max}, \"items\": {{ {items} }}")
        }
        Kind::Text(text) => format!("\"type\": \"string\"{}", schema_text(*text, key.vars)),
        Kind::Texts(text, max) => {
            let items = schema_text(*text, key.vars);
            format!("\"type\": \"array\", \"maxItems\": {max}, \"items\": {{ \"type\": \"string\"{items} }}")
        }
        Kind::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| Quoted(word).to_string()).collect();
            format!("\"enum\": [{}]", words.join(", "))
        }
        Kind::Integer(min, max) => format!("\"type\": \"integer\", \"minimum\": {min}, \"maximum\": {max}"),
        Kind::Bool => "\"type\": \"boolean\"".into(),
    }
}

/// The schema of an object; of a `partial` one the name alone is required.
fn schema_object(object: &Object, indent: usize, partial: bool) -> String {
    let gap = " ".repeat(indent + 2);
    let mut out = String::from("\"type\": \"object\", \"additionalProperties\": false");
    let required: Vec<String> = object
        .keys
        .iter()
        .filter(|key| key.required && (!partial || key.name == "name"))
        .map(|key| Quoted(key.name).to_string())
        .collect();
    if !required.is_empty() {
        write!(out, ", \"required\": [{}]", required.join(", ")).unwrap();
    }
    let either = |name: &&str| format!("{{ \"required\": [{}] }}", Quoted(name));
    if !partial && !object.either.is_empty() {
        let choices: Vec<String> = object.either.iter().map(either).collect();
        write!(out, ", \"anyOf\": [{}]", choices.join(", ")).unwrap();
    }
    write!(out, ",\n{gap}\"patternProperties\": {{ \"^{FREE_PREFIX}\": {{}} }},\n{gap}\"properties\": {{\n").unwrap();
    for (place, key) in object.keys.iter().enumerate() {
        let comma = if place + 1 == object.keys.len() { "" } else { "," };
        let doc = Quoted(&description(key)).to_string();
        let kind = schema_kind(key, indent + 4, partial);
        writeln!(out, "{gap}  \"{}\": {{ \"description\": {doc}, {kind} }}{comma}", key.name).unwrap();
    }
    write!(out, "{gap}}}").unwrap();
    out
}

fn description(key: &Key) -> String {
    let default = if key.required { String::new() } else { format!(" Default: {}.", key.docs.default) };
    format!("{}{default} Example: {}", key.docs.text, key.example)
}

fn schema(title: &str, file: &Object) -> String {
    let head = format!("\"$schema\": \"https://json-schema.org/draft-07/schema\",\n  \"title\": {}", Quoted(title));
    let schema = format!("{{\n  {head},\n  {}\n}}\n", schema_object(file, 0, false));
    json::check(schema.as_bytes(), 64).unwrap();
    schema
}

#[test]
fn the_schemas_are_what_the_table_says() {
    agree("coracle.schema.json", &schema("coracle's config", &FILE));
    agree("coracle-included.schema.json", &schema("a file that coracle's config includes", &INCLUDED));
}

fn takes(kind: &Kind) -> String {
    use crate::base::units::{Bytes, Millis};
    match kind {
        Kind::Object(_) => "object".into(),
        Kind::OneOrMore(_, max) => format!("object, or list of at most {max}"),
        Kind::Objects(_, max) => format!("list of objects, at most {max}"),
        Kind::Partial(_, max) => format!("list of objects as in `services`, at most {max}"),
        Kind::Text(text) => match text {
            Text::Size(min, max) => format!("size, {} to {}", Bytes(*min), Bytes(*max)),
            Text::SizeOrNone(min, max) => format!("`\"0\"` or size, {} to {}", Bytes(*min), Bytes(*max)),
            Text::Memory(min, max) => format!("size, {} to {}, or `\"unlimited\"`", Bytes(*min), Bytes(*max)),
            Text::Duration(min, max) => format!("duration, {} to {}", Millis(*min), Millis(*max)),
            Text::DurationOrNone(min, max) => format!("`\"0\"` or duration, {} to {}", Millis(*min), Millis(*max)),
            Text::Percent(min, max) => format!("share, {min}% to {max}%"),
            Text::Amount => "number, size or `\"unlimited\"`, in quotes".into(),
            Text::Name | Text::VarName => "name".into(),
            Text::Pattern => "absolute path".into(),
            Text::HostName => "host name".into(),
            Text::Path | Text::Target | Text::BoardTarget => "absolute path".into(),
            Text::SecretTarget => "path below /run".into(),
            Text::Address | Text::Peer => "address:port".into(),
            Text::Mode => "file mode".into(),
            Text::TimeOfDay => "time of day".into(),
            Text::WatchdogDevice => "`\"auto\"` or path below /dev".into(),
            Text::DevicePath => "path below /dev".into(),
            _ => "text".into(),
        },
        Kind::Texts(_, max) => format!("list of texts, at most {max}"),
        Kind::Word(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
        Kind::Integer(min, max) if min == max => min.to_string(),
        Kind::Integer(min, max) => format!("number, {min} to {max}"),
        Kind::Bool => "`true` or `false`".into(),
    }
}

fn reference_object(out: &mut String, path: &str, object: &Object) {
    let title = if path.is_empty() { "The file" } else { path };
    write!(out, "\n## {title}\n\n| key | takes | default | |\n|---|---|---|---|\n").unwrap();
    for key in object.keys {
        let default = if key.required { "**required**" } else { key.docs.default };
        let vars = if key.vars && path != "services[].mounts[]" { " Can hold variables." } else { "" };
        let doc = format!("{}{vars} `{}`", key.docs.text, key.example).replace('|', "\\|");
        writeln!(out, "| `{}` | {} | {default} | {doc} |", key.name, takes(&key.kind)).unwrap();
    }
    for key in object.keys {
        let inner = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        match key.kind {
            Kind::Object(object) | Kind::OneOrMore(object, _) => reference_object(out, &inner, object),
            Kind::Objects(object, _) => reference_object(out, &format!("{inner}[]"), object),
            _ => {}
        }
    }
}

#[test]
fn the_reference_is_what_the_table_says() {
    let mut out = String::from(
        "# Config reference\n\nMade from the table in `src/config/keys/`: edit that, then run\n\
         `CORACLE_BLESS=1 cargo test --lib config::tests::docs`.\n\n\
         One JSON file, `/etc/coracle/config.json` unless another is named. `//` and `/* */` comments and trailing\n\
         commas are fine. Unknown keys are errors, except those that begin with `x-`, which are yours. A *size* is a\n\
         whole number and `K`, `M` or `G` (powers of 1024); a *duration* a whole number and `ms`, `s`, `m` or `h`; a\n\
         *share* a whole number and `%` of one core. All three are texts, in double quotes.\n\n\
         An included file holds `services`, `overrides` and `vars`, nothing else.\n\n\
         `coracle check FILE` shows every problem at once. Complete examples: `minimal.json`, `sensor-gateway.json`,\n\
         `kiosk.json`, `router.json`, and for an included file `services.d/ssh.json`.\n",
    );
    reference_object(&mut out, "", &FILE);
    agree("REFERENCE.md", &out);
}

#[test]
fn the_patterns_for_editors_let_the_examples_through() {
    // Without a regular expression engine: each pattern begins as its examples do, and the parser takes them.
    fn visit(object: &Object) {
        for key in object.keys {
            match key.kind {
                Kind::Text(text) => {
                    let example = key.example.trim_matches('"');
                    assert_eq!(values::check(text, example), Ok(()), "{}: {example}", key.name);
                    let absolute = pattern(text).is_some_and(|pattern| pattern.starts_with("^/"));
                    assert!(!absolute || example.starts_with('/'), "{}", key.name);
                }
                Kind::Object(object) | Kind::Objects(object, _) | Kind::OneOrMore(object, _) => visit(object),
                _ => {}
            }
        }
    }
    visit(&FILE);
}
