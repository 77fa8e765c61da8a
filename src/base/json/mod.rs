//! Strict JSON (RFC 8259): a checker, and a cursor that gives tokens with their offsets.
//!
//! `serde-json-core` fills types, but it lets through what is no JSON and says nothing about where. So every text goes
//! through here first. Nothing recurses, nothing panics, and memory is bounded by the depth and by
//! [`JSON_KEYS`](crate::base::limits::JSON_KEYS), whatever the bytes.

use crate::base::limits::JSON_KEYS;
use core::fmt;

mod cursor;
pub mod fill;

pub use cursor::{Cursor, DEEPEST, Kind, Token};

/// What is wrong with a text, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    /// Byte offset of the first byte that cannot stand there; the length of the text if it ends too early.
    pub offset: usize,
    /// What is wrong.
    pub what: What,
}

/// What can be wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The text ends within a value.
    End,
    /// A string begins in this place and never ends.
    OpenString,
    /// Bytes that are no UTF-8.
    Utf8,
    /// A byte order mark before the text.
    ByteOrderMark,
    /// A value was expected.
    Value,
    /// A key in double quotes was expected.
    Key,
    /// A colon was expected after a key.
    Colon,
    /// A comma or the closing bracket was expected.
    CommaOrBracket,
    /// A comma or the closing brace was expected.
    CommaOrBrace,
    /// A comma stands before a closing bracket or brace.
    TrailingComma,
    /// Something stands behind the value.
    Trailing,
    /// A number that JSON does not know: a leading zero, a plus sign, a bare point, `NaN`.
    Number,
    /// A word other than `true`, `false` and `null`.
    Word,
    /// A control character in a string, unescaped.
    Control,
    /// A backslash followed by what is no escape.
    Escape,
    /// A `\u` escape of half a surrogate pair.
    Surrogate,
    /// Nested deeper than allowed.
    Depth,
    /// A key for the second time in one object; the number is the offset of the first.
    DuplicateKey(usize),
    /// More keys in one object than [`JSON_KEYS`].
    TooManyKeys,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::End => "the text ends too early: a closing bracket, brace or value is missing",
            What::OpenString => "this string has no closing double quote",
            What::Utf8 => "these bytes are not UTF-8",
            What::ByteOrderMark => "the text begins with a byte order mark",
            What::Value => "a value is expected here",
            What::Key => "a key in double quotes is expected here",
            What::Colon => "a ':' is expected after the key",
            What::CommaOrBracket => "a ',' or ']' is expected here",
            What::CommaOrBrace => "a ',' or '}' is expected here",
            What::TrailingComma => "a comma before a closing bracket or brace",
            What::Trailing => "something follows after the end of the value",
            What::Number => "this is not a number as JSON writes it",
            What::Word => "this is not a value; only true, false and null are words",
            What::Control => "a control character in a string",
            What::Escape => "a backslash that begins no escape",
            What::Surrogate => "an escape of half a surrogate pair",
            What::Depth => "nested too deeply",
            What::DuplicateKey(_) => "this key appears twice in one object",
            What::TooManyKeys => "too many keys in one object",
        })
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.what)
    }
}

/// Checks that `bytes` are one JSON value, nested at most `max_depth` deep, without duplicate keys.
///
/// A text that passes can be given to `serde-json-core`: it holds nothing that the crate would accept wrongly.
pub fn check(bytes: &[u8], max_depth: usize) -> Result<(), JsonError> {
    let mut cursor = Cursor::new(bytes, max_depth)?;
    let mut keys = Keys::default();
    while let Some(token) = cursor.next()? {
        match token.kind {
            Kind::ObjectStart => keys.enter(),
            Kind::ObjectEnd => keys.leave(),
            Kind::Key => {
                let error = |what| JsonError { offset: token.start, what };
                match keys.add(cursor.text(&token), token.start) {
                    Added::New => {}
                    Added::Duplicate(first) => return Err(error(What::DuplicateKey(first))),
                    Added::TooMany => return Err(error(What::TooManyKeys)),
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The characters of a string as typed (without its quotes), escapes decoded.
///
/// Total: what a [`Cursor`] would have refused comes out as U+FFFD.
pub fn decode(raw: &str) -> impl Iterator<Item = char> + '_ {
    let mut rest = raw.chars();
    core::iter::from_fn(move || {
        let c = rest.next()?;
        if c != '\\' {
            return Some(c);
        }
        Some(match rest.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => unicode(&mut rest).unwrap_or(char::REPLACEMENT_CHARACTER),
            Some(other) => other,
            None => char::REPLACEMENT_CHARACTER,
        })
    })
}

fn unicode(rest: &mut core::str::Chars<'_>) -> Option<char> {
    let mut unit = || (0..4).try_fold(0, |sum, _| Some(sum << 4 | rest.next()?.to_digit(16)?));
    let first: u32 = unit()?;
    if !(0xd800..=0xdbff).contains(&first) {
        return char::from_u32(first);
    }
    if rest.next() != Some('\\') || rest.next() != Some('u') {
        return None;
    }
    let low: u32 = (0..4).try_fold(0, |sum, _| Some(sum << 4 | rest.next()?.to_digit(16)?))?;
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + low.checked_sub(0xdc00)?)
}

/// A text as JSON writes it, in its quotes, control characters escaped.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_control() => write!(f, "\\u{:04x}", c as u32)?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// What became of a key given to [`Keys::add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is the first of that name in the object.
    New,
    /// It was there already, at this offset.
    Duplicate(usize),
    /// The object has more than [`JSON_KEYS`] keys.
    TooMany,
}

/// The keys of all open objects, to find one that comes twice. Keys are compared decoded: `"a"` is `"\u0061"`.
#[derive(Default)]
pub struct Keys<'a> {
    keys: Vec<(&'a str, usize)>,
    objects: Vec<usize>,
}

impl<'a> Keys<'a> {
    /// An object begins.
    pub fn enter(&mut self) {
        self.objects.push(self.keys.len());
    }

    /// The innermost object ends.
    pub fn leave(&mut self) {
        self.keys.truncate(self.objects.pop().unwrap_or(0));
    }

    /// A key of the innermost object, as typed, without its quotes.
    pub fn add(&mut self, raw: &'a str, offset: usize) -> Added {
        let own = self.keys.get(self.objects.last().copied().unwrap_or(0)..).unwrap_or(&[]);
        let escaped = raw.contains('\\');
        let same = |other: &str| match escaped || other.contains('\\') {
            false => other == raw,
            true => decode(other).eq(decode(raw)),
        };
        if let Some((_, first)) = own.iter().find(|(other, _)| same(other)) {
            return Added::Duplicate(*first);
        }
        if own.len() == JSON_KEYS {
            return Added::TooMany;
        }
        self.keys.push((raw, offset));
        Added::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(text: &[u8]) -> (usize, What) {
        let error = check(text, 16).unwrap_err();
        (error.offset, error.what)
    }

    #[test]
    fn what_serde_json_core_lets_through_is_refused() {
        assert_eq!(what(b"[,1]"), (1, What::Value));
        assert_eq!(what(b"\"a\tb\""), (2, What::Control));
        assert_eq!(what(b"{\"a\":\"x\ny\"}"), (5, What::OpenString));
        assert_eq!(what(b"{\"z\":!!x!!}"), (5, What::Value));
        assert_eq!(what(b"{\"z\":nulla}"), (5, What::Word));
        assert_eq!(what(b"{\"a\":1, \"\\u0061\":2}"), (8, What::DuplicateKey(1)));
        assert_eq!(what(b"{\"a\":1} x"), (8, What::Trailing));
        assert_eq!(what(b"\xef\xbb\xbf{}"), (0, What::ByteOrderMark));
        assert_eq!(what(b"[\"\xff\"]"), (2, What::Utf8));
        assert_eq!(what(b"[\"\xc0\xaf\"]"), (2, What::Utf8));
    }

    #[test]
    fn what_is_no_json_is_refused_where_it_stands() {
        assert_eq!(what(b""), (0, What::End));
        assert_eq!(what(b"{\"a\""), (4, What::End));
        assert_eq!(what(b"{\"a\" 1}"), (5, What::Colon));
        assert_eq!(what(b"{a:1}"), (1, What::Key));
        assert_eq!(what(b"[1 2]"), (3, What::CommaOrBracket));
        assert_eq!(what(b"{\"a\":1]"), (6, What::CommaOrBrace));
        assert_eq!(what(b"[1,]"), (3, What::TrailingComma));
        assert_eq!(what(b"{\"a\":1,}"), (7, What::TrailingComma));
        assert_eq!(what(b"\"abc"), (0, What::OpenString));
        for number in ["01", "-", "+1", "1.", ".5", "1e", "1e+", "0x10", "-01", "1.5.2", "24M", "NaN"] {
            let text = format!("[{number}]");
            let (offset, what) = what(text.as_bytes());
            assert_eq!(offset, 1, "{number}");
            assert!(matches!(what, What::Number | What::Word), "{number}: {what:?}");
        }
        assert_eq!(what(b"[\"\\x41\"]"), (2, What::Escape));
        assert_eq!(what(b"[\"\\u12g4\"]"), (2, What::Escape));
        assert_eq!(what(b"[\"\\ud83d\"]"), (2, What::Surrogate));
        assert_eq!(what(b"[\"\\ude00\"]"), (2, What::Surrogate));
        assert_eq!(what(b"[\"\\ud83d\\u0041\"]"), (2, What::Surrogate));
    }

    #[test]
    fn nesting_is_bounded_however_deep_the_text() {
        assert_eq!(check("[".repeat(16).as_bytes(), 16).unwrap_err().what, What::End);
        assert_eq!(what("[".repeat(100_000).as_bytes()), (16, What::Depth));
        assert_eq!(check("[".repeat(100_000).as_bytes(), usize::MAX).unwrap_err().offset, DEEPEST);
        let balanced = format!("{}{}", "[".repeat(DEEPEST), "]".repeat(DEEPEST));
        assert_eq!(check(balanced.as_bytes(), DEEPEST), Ok(()));
    }

    #[test]
    fn an_object_with_too_many_keys_is_refused() {
        let keys = |count: usize| (0..count).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(",");
        assert_eq!(check(format!("{{{}}}", keys(JSON_KEYS)).as_bytes(), 16), Ok(()));
        let error = check(format!("{{{}}}", keys(JSON_KEYS + 1)).as_bytes(), 16).unwrap_err();
        assert_eq!(error.what, What::TooManyKeys);
    }

    #[test]
    fn the_cursor_gives_tokens_and_skips_values() {
        let text = br#" {"a": [1, {"b": "\ud83d\ude00"}], "c": -1.5e+3 , "d":null}"#;
        let mut cursor = Cursor::new(text, 4).unwrap();
        assert_eq!(cursor.next().unwrap().unwrap().kind, Kind::ObjectStart);
        let key = cursor.next().unwrap().unwrap();
        assert_eq!((key.kind, key.start, key.end, cursor.text(&key)), (Kind::Key, 2, 5, "a"));
        let end = cursor.skip_value().unwrap();
        assert_eq!(text[end - 1], b']');
        let key = cursor.next().unwrap().unwrap();
        assert_eq!((cursor.text(&key), key.comma), ("c", Some(end)));
        let number = cursor.next().unwrap().unwrap();
        assert_eq!((number.kind, cursor.text(&number)), (Kind::Number, "-1.5e+3"));
        cursor.skip_value().unwrap();
        assert_eq!(cursor.depth(), 1);
        let rest = [cursor.next(), cursor.next(), cursor.next()].map(|token| token.unwrap().map(|token| token.kind));
        assert_eq!(rest, [Some(Kind::Null), Some(Kind::ObjectEnd), None]);
        assert_eq!(decode(r"\ud83d\ude00\n\u0041\/").collect::<String>(), "\u{1f600}\nA/");
    }

    #[test]
    fn what_is_quoted_reads_back() {
        for text in ["", "plain", "a\"b\\c", "\u{1b}[31m\n\t\u{7f}\u{9b}", "\u{1f600}"] {
            let quoted = Quoted(text).to_string();
            assert_eq!(check(quoted.as_bytes(), 1), Ok(()));
            assert_eq!(decode(&quoted[1..quoted.len() - 1]).collect::<String>(), text);
        }
    }

    #[test]
    fn decoding_is_total() {
        for raw in ["\\", "\\u", "\\ud83d", "\\ud83d\\u0041", "\\ude00", "\\ud83dxx", "\\uzzzz"] {
            assert!(decode(raw).any(|c| c == char::REPLACEMENT_CHARACTER), "{raw}");
        }
    }

    #[test]
    fn every_truncation_is_refused_at_or_before_its_end() {
        let text = br#"{"a": [1, true, {"b": "x\u00e4\n"}], "c": -1.5e3, "d": null}"#;
        assert_eq!(check(text, 16), Ok(()));
        for length in 0..text.len() {
            assert!(check(&text[..length], 16).unwrap_err().offset <= length);
        }
    }
}
