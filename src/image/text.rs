//! JSON as image files write it: checked first, then read into bounded types.
#![forbid(unsafe_code)]

use super::ImageError;
use crate::base::json;
use crate::base::json::fill::{self, Place, Slot, Unknown};

/// Deepest nesting of an image's JSON: image configs need 6; history and annotations of foreign tools get room.
const DEPTH: usize = 32;

/// Reads `bytes` as a `T`, keys that it does not have skipped. The error names `what` was read.
pub fn parse<'a, T: Slot<'a> + Default>(what: &str, bytes: &'a [u8]) -> Result<T, ImageError> {
    let mut raw = T::default();
    read(what, bytes, raw.slot())?;
    Ok(raw)
}

fn read<'a>(what: &str, bytes: &'a [u8], place: Place<'_, 'a>) -> Result<(), ImageError> {
    json::check(bytes, DEPTH)
        .map_err(|error| ImageError::invalid(&format_args!("{what} is no valid JSON: {error}")))?;
    fill::fill(bytes, Unknown::Skipped, place).map_err(|error| {
        ImageError::invalid(&format_args!(
            "{what} has not the fields that the image format asks for ({})",
            error.to_string().trim_end_matches('.')
        ))
    })
}

/// `value`, which `what` has to have as its `key`.
pub fn need<T>(what: &str, key: &str, value: Option<T>) -> Result<T, ImageError> {
    value.ok_or_else(|| lacks(what, key))
}

fn lacks(what: &str, key: &str) -> ImageError {
    ImageError::invalid(&format_args!("{what} has no \"{key}\", or it is null"))
}

/// A text with its escapes decoded; empty if there is none.
pub fn text(raw: Option<&str>) -> Box<str> {
    json::decode(raw.unwrap_or_default()).collect::<String>().into()
}

/// A list of at most `N` values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T, const N: usize>(pub Vec<T>);

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<'a, T: Slot<'a> + Default, const N: usize> fill::List<'a> for List<T, N> {
    fn next(&mut self) -> Option<Place<'_, 'a>> {
        if self.0.len() == N {
            return None;
        }
        self.0.push(T::default());
        self.0.last_mut().map(T::slot)
    }
}

impl<'a, T: Slot<'a> + Default, const N: usize> Slot<'a> for List<T, N> {
    fn slot(&mut self) -> Place<'_, 'a> {
        Place::List(self)
    }
}

impl<'a, T: Slot<'a> + Default, const N: usize> Slot<'a> for Option<List<T, N>> {
    fn slot(&mut self) -> Place<'_, 'a> {
        Place::List(self.insert(List::default()))
    }
}

/// The texts of a list, escapes decoded.
pub fn texts<const N: usize>(list: &List<&str, N>) -> Vec<Box<str>> {
    list.0.iter().map(|raw| text(Some(raw))).collect()
}

/// Appends `text` to `out` as a JSON string.
pub fn quote(out: &mut String, text: &str) {
    use core::fmt::Write;
    out.push('"');
    let plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
    // Most texts go over at one go.
    out.push_str(if plain { text } else { "" });
    for c in if plain { "" } else { text }.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Also DEL and the 8-bit controls, which some terminals obey.
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends a JSON list of strings.
pub fn quote_list<'a>(out: &mut String, items: impl IntoIterator<Item = &'a str>) {
    out.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        quote(out, item);
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::objects! {
        struct Sample<'a> {
            a: Option<List<&'a str, 2>>,
            b: Option<&'a str>,
        }
    }

    #[test]
    fn no_control_character_of_an_image_reaches_the_terminal_through_json() {
        let mut text = String::new();
        quote(&mut text, "a\u{1b}[2J\u{7f}\u{9b}2J\u{e9}");
        assert_eq!(text, "\"a\\u001b[2J\\u007f\\u009b2J\u{e9}\"");
    }

    #[test]
    fn escapes_are_decoded_as_go_and_python_write_them() {
        let json = r#"{"b":"x\u0026y \ud83d\ude00\n","unknown":{"c":[1,{"d":"\u003c\""}]},"a":null}"#;
        let sample: Sample<'_> = parse("it", json.as_bytes()).unwrap();
        assert_eq!(&*text(sample.b), "x&y \u{1F600}\n");
        assert_eq!(sample.a, None);
    }

    #[test]
    fn lists_and_depth_are_bounded() {
        assert!(parse::<Sample<'_>>("it", br#"{"a":["1","2"]}"#).is_ok());
        assert!(parse::<Sample<'_>>("it", br#"{"a":["1","2","3"]}"#).is_err());
        let deep = format!(r#"{{"z":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let error = parse::<Sample<'_>>("it", deep.as_bytes()).err().unwrap();
        assert!(error.text().contains("it is no valid JSON"), "{error}");
    }

    #[test]
    fn what_is_quoted_reads_back() {
        for sample in ["", "a\"b\\c", "tab\t nul\0 \u{1F600}", "é"] {
            let mut json = String::from("{\"b\":");
            quote(&mut json, sample);
            json.push('}');
            assert_eq!(&*text(parse::<Sample<'_>>("it", json.as_bytes()).unwrap().b), sample);
        }
    }
}
