//! The scanner: walks the text along the table of keys and reports everything that is wrong with its shape.
//!
//! What is refused (and what is free, `x-` keys) is then blanked out of the text, so that what remains always fills the
//! raw types, and the checks that need the whole can run over it in the same pass of a person's corrections.

use super::blank::{blank, erase};
use super::keys::{DEVICE, FILE, FREE_PREFIX, INCLUDED, Key, Kind, Object, SERVICE, VAR};
use super::problem::{Sink, Span};
use super::source::{self, Source};
use super::values::{self, Text};
use super::vars;
use crate::base::json::{self, Added, Cursor, Keys, Token, What};
use crate::base::limits::{JSON_DEPTH, JSON_KEYS};
use crate::base::suggest::did_you_mean;

/// What the scanner leaves: clean text and where its parts are.
#[derive(Default)]
pub struct Scanned {
    /// The text of all files, as long as they are, with everything blanked that is not for the raw types.
    pub text: Vec<u8>,
    /// Where its parts are.
    pub parts: Parts,
    /// Whether everything was read: false after an error of syntax.
    pub whole: bool,
}

/// Where the parts of a config are in the text.
#[derive(Default)]
pub struct Parts {
    /// `device`, if there is one.
    pub device: Option<Span>,
    /// The texts in `include`.
    pub include: Vec<Span>,
    /// The entries of `vars` that are objects.
    pub vars: Vec<Span>,
    /// The entries of `overrides` that are objects.
    pub overrides: Vec<Span>,
    /// The entries of `services` that are objects.
    pub services: Vec<Span>,
}

/// An object or list that is open.
struct Frame {
    of: Of,
    /// Where it begins.
    start: usize,
    /// The key or element that is being read: where it begins, and the comma before it.
    member: (usize, Option<usize>),
    /// Whether an earlier member was kept, so that the next one needs its comma.
    kept: bool,
    /// Elements of a list so far.
    count: usize,
    /// Bit n: key n of the table was there.
    seen: u64,
    /// Whether only the name is required: an override.
    partial: bool,
}

#[derive(Clone, Copy)]
enum Of {
    /// An object, and the key whose value comes next.
    Object(&'static Object, Option<&'static Key>),
    /// The list that is this key's value.
    List(&'static Key),
}

/// What becomes of a value that was read.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Keep,
    Drop,
}

struct Scanner<'a, 's, 'f> {
    cursor: Cursor<'a>,
    sink: &'s mut Sink<'f>,
    keys: Keys<'a>,
    frames: Vec<Frame>,
    /// What is to be blanked once nothing borrows the text.
    dropped: Vec<Span>,
    /// Where the keys begin that may hold an object or a list and hold a list.
    lists: Vec<usize>,
    /// The table of the whole file.
    root: &'static Object,
    /// Where the file begins in the text of all.
    base: usize,
    parts: &'s mut Parts,
}

/// Reads the main file and those that it includes along the table.
pub fn scan(sources: &[Source<'_>], sink: &mut Sink<'_>) -> Scanned {
    let mut scanned = Scanned { whole: true, ..Scanned::default() };
    for (number, file) in sources.iter().enumerate() {
        sink.enter(Some(number));
        let root = if number == 0 { &FILE } else { &INCLUDED };
        let base = source::start(sources, number);
        let (text, whole) = scan_file(file.bytes, root, base, sink, &mut scanned.parts);
        scanned.whole &= whole;
        scanned.text.extend_from_slice(&text);
        scanned.text.push(b'\n');
    }
    sink.enter(None);
    scanned
}

/// The blanked text of one file, and whether all of it was read.
fn scan_file(
    bytes: &[u8],
    root: &'static Object,
    base: usize,
    sink: &mut Sink<'_>,
    parts: &mut Parts,
) -> (Vec<u8>, bool) {
    let mut text = bytes.to_vec();
    let comments_end = blank(&mut text, sink);
    let (mut dropped, mut lists) = (Vec::new(), Vec::new());
    let mut whole = false;
    match Cursor::new(&text, JSON_DEPTH) {
        Err(error) => syntax(sink, &text, error, None),
        Ok(cursor) => {
            let (keys, frames) = (Keys::default(), Vec::with_capacity(JSON_DEPTH));
            let mut scanner = Scanner { cursor, sink, keys, frames, dropped, lists, root, base, parts };
            match scanner.walk() {
                Ok(()) => whole = true,
                // Where a comment swallows the rest, that the text ends too early has been explained.
                Err(json::JsonError { what: What::End, .. }) if !comments_end => {}
                Err(error) => {
                    let open = scanner.frames.last().map(|frame| frame.start);
                    syntax(scanner.sink, &text, error, open);
                }
            }
            (dropped, lists) = (scanner.dropped, scanner.lists);
        }
    }
    // A raw type has a field for each of both: a list's key is marked with a bracket, which no key that is known has.
    for start in lists {
        if let Some(first) = text.get_mut(start + 1) {
            *first = b'[';
        }
    }
    dropped.iter().for_each(|span| erase(&mut text, span.start, span.end));
    (text, whole)
}

impl Scanner<'_, '_, '_> {
    fn walk(&mut self) -> Result<(), json::JsonError> {
        while let Some(token) = self.cursor.next()? {
            match token.kind {
                json::Kind::Key => self.key(&token)?,
                json::Kind::ObjectEnd | json::Kind::ArrayEnd => self.close(&token),
                _ => self.value(&token)?,
            }
        }
        Ok(())
    }

    fn key(&mut self, token: &Token) -> Result<(), json::JsonError> {
        let raw = self.cursor.text(token);
        let added = self.keys.add(raw, token.start);
        let span = Span { start: token.start, end: token.end };
        let Some(Frame { of: Of::Object(object, next), member, seen, partial, .. }) = self.frames.last_mut() else {
            return Ok(());
        };
        let whose = whose(object, *partial);
        *member = (token.start, token.comma);
        let name = values::decoded(raw);
        let known = object.find(&name);
        match (added, known) {
            (Added::Duplicate(_) | Added::TooMany, _) | (Added::New, None)
                if self.sink.is_full() && !name.starts_with(FREE_PREFIX) =>
            {
                self.sink.problem(span, format_args!(""), None);
            }
            (Added::New, Some((place, key))) => {
                *seen |= 1 << place;
                *next = Some(key);
                return Ok(());
            }
            (Added::Duplicate(first), _) => {
                let place = self.sink.place(first, token.start);
                let message = format_args!("the key {name:?} is there twice in {whose}");
                self.sink.problem(span, message, Some(&format!("the first is in {place}: keep one of them")));
            }
            (Added::TooMany, _) => {
                self.sink.problem(span, format_args!("{whose} has more than {JSON_KEYS} keys"), None);
            }
            (Added::New, None) if name.starts_with(FREE_PREFIX) => {}
            (Added::New, None) => {
                let names = || object.keys.iter().map(|key| key.name);
                let hint = match did_you_mean(&name, &mut names()) {
                    Some(meant) => {
                        // It is there, misspelt: that it is missing need not be said as well.
                        *seen |= object.find(meant).map_or(0, |(place, _)| 1 << place);
                        format!("did you mean {meant:?}?")
                    }
                    None if core::ptr::eq(*object, &INCLUDED) && FILE.find(&name).is_some() => {
                        "only the main file may hold it".into()
                    }
                    None => format!("known keys: {}", names().collect::<Vec<_>>().join(", ")),
                };
                self.sink.problem(span, format_args!("unknown key {:?} in {whose}", shortened(&name)), Some(&hint));
            }
        }
        let end = self.cursor.skip_value()?;
        self.finish(end, Fate::Drop);
        Ok(())
    }

    fn value(&mut self, token: &Token) -> Result<(), json::JsonError> {
        let Some(frame) = self.frames.last_mut() else { return self.top(token) };
        let (key, in_list) = match frame.of {
            Of::Object(_, Some(key)) => (key, false),
            Of::Object(_, None) => return Ok(()),
            Of::List(key) => {
                frame.member = (token.start, token.comma);
                frame.count += 1;
                (key, true)
            }
        };
        if in_list && self.surplus(key, token) {
            let end = self.cursor.skip(token)?;
            self.finish(end, Fate::Drop);
            return Ok(());
        }
        match (&key.kind, token.kind, in_list) {
            (Kind::Object(object) | Kind::OneOrMore(object, _), json::Kind::ObjectStart, false) => {
                // What an override holds in an object replaces what is there one by one.
                let partial = self.frames.last().is_some_and(|frame| frame.partial);
                self.open(Of::Object(object, None), token, partial);
            }
            (Kind::Objects(object, _) | Kind::OneOrMore(object, _), json::Kind::ObjectStart, true) => {
                self.open(Of::Object(object, None), token, false);
            }
            (Kind::Partial(object, _), json::Kind::ObjectStart, true) => {
                self.open(Of::Object(object, None), token, true);
            }
            (
                Kind::Objects(..) | Kind::Partial(..) | Kind::Texts(..) | Kind::OneOrMore(..),
                json::Kind::ArrayStart,
                false,
            ) => {
                if let Kind::OneOrMore(..) = key.kind {
                    self.lists.extend(self.frames.last().map(|frame| frame.member.0));
                }
                self.open(Of::List(key), token, false);
            }
            _ => {
                let end = self.cursor.skip(token)?;
                let fate = self.scalar(key, token, in_list);
                self.finish(end, fate);
            }
        }
        Ok(())
    }

    /// The value of the whole file.
    fn top(&mut self, token: &Token) -> Result<(), json::JsonError> {
        if token.kind == json::Kind::ObjectStart {
            self.open(Of::Object(self.root, None), token, false);
            return Ok(());
        }
        let span = Span { start: token.start, end: token.end };
        let message = format_args!("{} must be an object, not {}", self.root.name, noun(token.kind));
        self.sink.problem(span, message, Some("it begins with { and ends with }"));
        self.cursor.skip(token)?;
        Ok(())
    }

    /// Whether the list has more elements than it may, which is said once.
    fn surplus(&mut self, key: &Key, token: &Token) -> bool {
        let (Kind::Objects(_, max) | Kind::Partial(_, max) | Kind::Texts(_, max) | Kind::OneOrMore(_, max)) = key.kind
        else {
            return false;
        };
        let count = self.frames.last().map_or(0, |frame| frame.count);
        if count == max + 1 {
            let span = Span { start: token.start, end: token.end };
            self.sink.problem(span, format_args!("too many entries in {:?} (max {max})", key.name), None);
        }
        count > max
    }

    fn open(&mut self, of: Of, token: &Token, partial: bool) {
        self.keys.enter();
        self.frames.push(Frame { of, start: token.start, member: (0, None), kept: false, count: 0, seen: 0, partial });
    }

    fn close(&mut self, token: &Token) {
        self.keys.leave();
        let Some(frame) = self.frames.pop() else { return };
        let span = Span { start: frame.start, end: token.end };
        if let Of::Object(object, _) = frame.of {
            self.missing(object, &frame);
            let placed = Span { start: span.start + self.base, end: span.end + self.base };
            match object {
                object if core::ptr::eq(object, &SERVICE) && frame.partial => self.parts.overrides.push(placed),
                object if core::ptr::eq(object, &SERVICE) => self.parts.services.push(placed),
                object if core::ptr::eq(object, &VAR) => self.parts.vars.push(placed),
                object if core::ptr::eq(object, &DEVICE) => self.parts.device = Some(placed),
                _ => {}
            }
        }
        self.finish(token.end, Fate::Keep);
    }

    /// Reports the keys that a closed object should have.
    fn missing(&mut self, object: &Object, frame: &Frame) {
        let span = Span { start: frame.start, end: frame.start + 1 };
        let there = |name: &&str| object.find(name).is_some_and(|(n, _)| frame.seen >> n & 1 == 1);
        let missing = |key: &&Key| key.required && !there(&key.name) && (!frame.partial || key.name == "name");
        let name = whose(object, frame.partial);
        for key in object.keys.iter().filter(missing) {
            let hint = format!("add \"{}\": {}", key.name, key.example);
            self.sink.problem(span, format_args!("{name} lacks the key {:?}", key.name), Some(&hint));
        }
        if !frame.partial && !object.either.is_empty() && !object.either.iter().any(there) {
            let example = |name: &&str| object.find(name).map(|(_, key)| format!("\"{name}\": {}", key.example));
            let hint = object.either.iter().filter_map(example).collect::<Vec<_>>().join(" or ");
            let names = object.either.join("\" or \"");
            self.sink.problem(span, format_args!("{name} lacks the key \"{names}\""), Some(&format!("add {hint}")));
        }
    }

    /// The member of the innermost open object or list ends at `end`.
    fn finish(&mut self, end: usize, fate: Fate) {
        let Some(frame) = self.frames.last_mut() else { return };
        let (start, comma) = frame.member;
        if let Of::Object(object, _) = frame.of {
            frame.of = Of::Object(object, None);
        }
        if fate == Fate::Drop {
            self.dropped.push(Span { start, end });
        }
        if (fate == Fate::Drop || !frame.kept)
            && let Some(comma) = comma
        {
            self.dropped.push(Span { start: comma, end: comma + 1 });
        }
        frame.kept |= fate == Fate::Keep;
    }

    /// Checks a value that is neither the object nor the list that the key may take.
    fn scalar(&mut self, key: &Key, token: &Token, in_list: bool) -> Fate {
        let text = self.cursor.text(token);
        let span = Span { start: token.start, end: token.end };
        let complaint = match (&key.kind, token.kind, in_list) {
            (Kind::Text(kind), json::Kind::Text, false) | (Kind::Texts(kind, _), json::Kind::Text, true) => {
                single(key, *kind, &values::decoded(text), in_list)
            }
            (Kind::Word(words), json::Kind::Text, false) => word(&values::decoded(text), words),
            (Kind::Integer(min, max), json::Kind::Number, false) => integer(text, *min, *max),
            (Kind::Bool, json::Kind::True | json::Kind::False, false) => None,
            (kind, found, _) => Some(mismatch(kind, found, in_list, text, key)),
        };
        match complaint {
            None => {
                if key.name == "include" {
                    self.parts.include.push(Span { start: span.start + self.base, end: span.end + self.base });
                }
                Fate::Keep
            }
            Some((message, hint)) => {
                self.sink.problem(span, format_args!("{:?} {message}", key.name), hint.as_deref());
                Fate::Drop
            }
        }
    }
}

/// What messages call an object.
fn whose(object: &Object, partial: bool) -> &'static str {
    if partial && core::ptr::eq(object, &SERVICE) { "an override" } else { object.name }
}

type Complaint = (String, Option<String>);

/// What is wrong with a text. Where it holds variables, it is judged once they are known.
fn single(key: &Key, kind: Text, text: &str, in_list: bool) -> Option<Complaint> {
    if text.contains("${") {
        let literal = || Some(vars::LITERAL.into());
        return match key.vars {
            true => vars::check(kind, text).err().map(|message| (message, literal())),
            false => {
                let hint = "only hostname, env, command and the names of volumes can have variables";
                Some((format!("{} {text:?}, with a variable", if in_list { "holds" } else { "is" }), Some(hint.into())))
            }
        };
    }
    values::check(kind, text).err().map(|complaint| {
        let message = match complaint.message.strip_prefix("is ") {
            Some(rest) if in_list => format!("holds {rest}"),
            _ => complaint.message,
        };
        (message, Some(complaint.hint.unwrap_or_else(|| format!("such as {}", key.example))))
    })
}

fn word(text: &str, words: &[&str]) -> Option<Complaint> {
    if words.contains(&text) {
        return None;
    }
    let all = || format!("one of: {}", words.join(", "));
    let hint =
        did_you_mean(text, &mut words.iter().copied()).map_or_else(all, |word| format!("did you mean {word:?}?"));
    Some((format!("cannot be {:?}", shortened(text)), Some(hint)))
}

fn integer(text: &str, min: i64, max: i64) -> Option<Complaint> {
    let whole = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit()) && text != "-0";
    match text.parse::<i64>() {
        _ if !whole => Some((format!("is {text}, which is not a whole number"), Some(format!("{min} to {max}")))),
        Ok(number) if (min..=max).contains(&number) => None,
        _ if min == max => Some((format!("must be {min}, not {}", shortened(text)), None)),
        _ => Some((format!("is {}, outside of {min} to {max}", shortened(text)), None)),
    }
}

/// A value of the wrong type.
fn mismatch(kind: &Kind, found: json::Kind, in_list: bool, text: &str, key: &Key) -> Complaint {
    let wanted = match (kind, in_list) {
        (Kind::Objects(..) | Kind::Partial(..) | Kind::OneOrMore(..), true) => "may only hold objects",
        (Kind::Texts(..), true) => "may only hold texts",
        _ => "must be",
    };
    let wanted = if in_list { wanted.into() } else { format!("{wanted} {}", kind.noun()) };
    let hint = match (kind, found) {
        (_, json::Kind::Null) => "leave the key out for the default".into(),
        (Kind::Text(_) | Kind::Word(_) | Kind::Texts(..), json::Kind::Number)
            if !matches!(kind, Kind::Texts(..)) || in_list =>
        {
            format!("write it in double quotes: \"{}\"", shortened(text))
        }
        (Kind::Texts(..) | Kind::Objects(..) | Kind::Partial(..), json::Kind::Text | json::Kind::ObjectStart)
            if !in_list =>
        {
            "a list is written in square brackets, even with one entry".into()
        }
        (Kind::Integer(..), json::Kind::Text) => format!("write it without quotes: {}", shortened(text)),
        (Kind::Bool, json::Kind::Text | json::Kind::Number) => match text {
            "true" | "yes" | "on" | "1" => "write true, without quotes".into(),
            "false" | "no" | "off" | "0" => "write false, without quotes".into(),
            _ => "write true or false, without quotes".into(),
        },
        _ => format!("such as {}", key.example),
    };
    (format!("{wanted}, not {}", noun(found)), Some(hint))
}

fn noun(kind: json::Kind) -> &'static str {
    match kind {
        json::Kind::ObjectStart | json::Kind::ObjectEnd => "an object",
        json::Kind::ArrayStart | json::Kind::ArrayEnd => "a list",
        json::Kind::Key | json::Kind::Text => "a text",
        json::Kind::Number => "a number",
        json::Kind::True | json::Kind::False => "true or false",
        json::Kind::Null => "null",
    }
}

/// The start of a text that a message quotes.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

/// Reports an error of syntax in the words of someone who edits a config; `open` is where the innermost object or list
/// begins.
fn syntax(sink: &mut Sink<'_>, text: &[u8], error: json::JsonError, open: Option<usize>) {
    let rest = text.get(error.offset..).unwrap_or(&[]);
    let word = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_%.+-".contains(byte)).count();
    let typed = String::from_utf8_lossy(rest.get(..word.min(40)).unwrap_or(&[])).into_owned();
    let hint = match (error.what, rest.first()) {
        (What::Value | What::Key | What::Word | What::CommaOrBrace, Some(b'\'')) => Some("use double quotes".into()),
        (What::Key, _) if !typed.is_empty() => Some(format!("write \"{typed}\"")),
        (What::Colon, Some(b'=')) => Some("write ':' instead of '='".into()),
        (What::Number | What::Word, _) if matches!(&*typed, "True" | "yes" | "on" | "TRUE" | "Yes") => {
            Some("write true".into())
        }
        (What::Number | What::Word, _) if matches!(&*typed, "False" | "no" | "off" | "FALSE" | "No") => {
            Some("write false".into())
        }
        (What::Number, Some(b'0')) if typed.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some("a number does not begin with 0".into())
        }
        (What::Number | What::Word, _) => Some(format!("write it in double quotes: \"{typed}\"")),
        (What::CommaOrBrace | What::CommaOrBracket, Some(b'"' | b'{' | b'[')) => {
            Some("is a comma missing before this?".into())
        }
        (What::Control, _) => Some("write \\t for a tab, \\u001b for an escape".into()),
        (What::Escape, _) => Some("write \\\\ for a backslash".into()),
        (What::Utf8, _) => Some("save the file as UTF-8".into()),
        (What::ByteOrderMark, _) => Some("save the file as UTF-8 without one".into()),
        (What::Depth, _) => Some(format!("at most {JSON_DEPTH} levels; this format needs 6")),
        (What::Trailing, Some(b'}' | b']')) => Some("is there one closing bracket or brace too many?".into()),
        (What::End, _) => Some(match open.and_then(|open| Some((text.get(open)?, sink.place(open, open)))) {
            Some((bracket, place)) => format!("the {} in {place} is not closed", char::from(*bracket)),
            None => "the least is { \"version\": 1, \"services\": [] }".into(),
        }),
        _ => None,
    };
    let width = match error.what {
        What::Number | What::Word | What::Key => word.max(1),
        What::Escape | What::Surrogate => 2,
        What::ByteOrderMark => 3,
        _ => 1,
    };
    sink.problem(
        Span { start: error.offset, end: error.offset + width },
        format_args!("{}", error.what),
        hint.as_deref(),
    );
}
