//! JSON as image files write it: checked first, then read into bounded types.
#![forbid(unsafe_code)]

use super::ImageError;
use crate::base::json;
use core::fmt;
use core::marker::PhantomData;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Deepest nesting of an image's JSON: image configs need 6; history and annotations of foreign tools get room.
const DEPTH: usize = 32;

/// Longest string taken from an image's JSON, in bytes: an environment entry may be 128 KiB (execve(2)); 64 KiB is far
/// beyond what images hold.
const TEXT_BYTES: usize = 64 * 1024;

/// Reads `bytes` as a `T`. The error names `what` was read.
pub fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, ImageError> {
    json::check(bytes, DEPTH).map_err(|error| ImageError::invalid(format!("{what} is no valid JSON: {error}")))?;
    match serde_json_core::from_slice(bytes) {
        Ok((value, _)) => Ok(value),
        Err(error) => Err(ImageError::invalid(format!(
            "{what} has not the fields that the image format asks for ({})",
            error.to_string().trim_end_matches('.')
        ))),
    }
}

/// A string with its escapes decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text(pub Box<str>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, raw: &str) -> Result<Text, E> {
                if raw.len() > TEXT_BYTES {
                    return Err(E::custom("a string is too long"));
                }
                Ok(Text(json::decode(raw).collect::<String>().into()))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A list of at most `N` values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T, const N: usize>(pub Vec<T>);

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for List<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for ListVisitor<T, N> {
            type Value = List<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T, N>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == N {
                        return Err(A::Error::custom("a list is too long"));
                    }
                    list.push(item);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

/// Appends `text` to `out` as a JSON string.
pub fn quote(out: &mut String, text: &str) {
    use fmt::Write;
    out.push('"');
    for c in text.chars() {
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

    #[derive(serde::Deserialize, Debug, PartialEq)]
    struct Sample {
        a: Option<List<Text, 2>>,
        #[serde(default)]
        b: Text,
    }

    #[test]
    fn no_control_character_of_an_image_reaches_the_terminal_through_json() {
        let mut text = String::new();
        quote(&mut text, "a\u{1b}[2J\u{7f}\u{9b}2J\u{e9}");
        assert_eq!(text, "\"a\\u001b[2J\\u007f\\u009b2J\u{e9}\"");
    }

    #[test]
    fn escapes_are_decoded_as_go_and_python_write_them() {
        let text = r#"{"b":"x\u0026y \ud83d\ude00\n","unknown":{"c":[1,{"d":"\u003c\""}]},"a":null}"#;
        let sample: Sample = parse("it", text.as_bytes()).unwrap();
        assert_eq!(&*sample.b.0, "x&y \u{1F600}\n");
        assert_eq!(sample.a, None);
    }

    #[test]
    fn lists_and_depth_are_bounded() {
        assert!(parse::<Sample>("it", br#"{"a":["1","2"]}"#).is_ok());
        assert!(parse::<Sample>("it", br#"{"a":["1","2","3"]}"#).is_err());
        let deep = format!(r#"{{"z":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let error = parse::<Sample>("it", deep.as_bytes()).unwrap_err();
        assert!(error.text.contains("it is no valid JSON"), "{error}");
    }

    #[test]
    fn what_is_quoted_reads_back() {
        for text in ["", "a\"b\\c", "tab\t nul\0 \u{1F600}", "é"] {
            let mut json = String::from("{\"b\":");
            quote(&mut json, text);
            json.push('}');
            assert_eq!(&*parse::<Sample>("it", json.as_bytes()).unwrap().b.0, text);
        }
    }
}
