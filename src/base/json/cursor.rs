//! The pull lexer.

use super::{JsonError, What};

/// Deepest nesting that a [`Cursor`] can be made for: one bit of a word for each level.
pub const DEEPEST: usize = 64;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    ObjectStart,
    /// `}`
    ObjectEnd,
    /// `[`
    ArrayStart,
    /// `]`
    ArrayEnd,
    /// A key of an object, with its quotes.
    Key,
    /// A string value, with its quotes.
    Text,
    /// A number.
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

/// A token with its place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Offset of its first byte.
    pub start: usize,
    /// Offset behind its last byte.
    pub end: usize,
    /// Offset of the comma that was passed on the way to it.
    pub comma: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Nothing,
}

/// Walks a text token by token. After an error it gives that error again.
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    max_depth: usize,
    /// Bit n: level n is an object.
    objects: u64,
    expect: Expect,
    failed: Option<JsonError>,
}

impl<'a> Cursor<'a> {
    /// A cursor before the first token of `bytes`; at most [`DEEPEST`] levels, whatever `max_depth` says.
    pub fn new(bytes: &'a [u8], max_depth: usize) -> Result<Cursor<'a>, JsonError> {
        let utf8 = |error: core::str::Utf8Error| JsonError { offset: error.valid_up_to(), what: What::Utf8 };
        let text = core::str::from_utf8(bytes).map_err(utf8)?;
        if text.starts_with('\u{feff}') {
            return Err(JsonError { offset: 0, what: What::ByteOrderMark });
        }
        let max_depth = max_depth.min(DEEPEST);
        Ok(Cursor { text, at: 0, depth: 0, max_depth, objects: 0, expect: Expect::Value, failed: None })
    }

    /// The number of objects and arrays that are open.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The bytes of a token; of a key or string without the quotes, with escapes as typed (see [`decode`]).
    pub fn text(&self, token: &Token) -> &'a str {
        let quotes = usize::from(matches!(token.kind, Kind::Key | Kind::Text));
        self.text.get(token.start + quotes..token.end - quotes).unwrap_or("")
    }

    /// The next token, or `None` behind the value.
    #[allow(clippy::should_implement_trait)] // An iterator would go on after an error.
    pub fn next(&mut self) -> Result<Option<Token>, JsonError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.advance().inspect_err(|error| self.failed = Some(*error))
    }

    /// Skips the value that `token` begins and gives the offset behind it; of a scalar, its own end.
    pub fn skip(&mut self, token: &Token) -> Result<usize, JsonError> {
        if !matches!(token.kind, Kind::ObjectStart | Kind::ArrayStart) {
            return Ok(token.end);
        }
        let outside = self.depth.saturating_sub(1);
        while let Some(token) = self.next()? {
            if self.depth == outside {
                return Ok(token.end);
            }
        }
        Ok(self.at)
    }

    /// Skips the next value whole and gives the offset behind it.
    pub fn skip_value(&mut self) -> Result<usize, JsonError> {
        match self.next()? {
            Some(token) => self.skip(&token),
            None => Ok(self.at),
        }
    }

    fn advance(&mut self) -> Result<Option<Token>, JsonError> {
        let mut comma = None;
        loop {
            let Some(byte) = self.peek_token() else {
                return if self.expect == Expect::Nothing { Ok(None) } else { self.error(What::End) };
            };
            let in_object = self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1;
            match (self.expect, byte) {
                (Expect::Nothing, _) => return self.error(What::Trailing),
                (Expect::Colon, b':') => self.pass(Expect::Value),
                (Expect::Colon, _) => return self.error(What::Colon),
                (Expect::CommaOrEnd, b',') => {
                    comma = Some(self.at);
                    self.pass(if in_object { Expect::Key } else { Expect::Value });
                }
                (Expect::CommaOrEnd | Expect::KeyOrEnd, b'}') if in_object => {
                    return self.close(Kind::ObjectEnd, comma);
                }
                (Expect::CommaOrEnd | Expect::ValueOrEnd, b']') if !in_object => {
                    return self.close(Kind::ArrayEnd, comma);
                }
                (Expect::CommaOrEnd, _) if in_object => return self.error(What::CommaOrBrace),
                (Expect::CommaOrEnd, _) => return self.error(What::CommaOrBracket),
                (Expect::Key | Expect::KeyOrEnd, b'"') => {
                    let token = self.string(Kind::Key, comma)?;
                    self.expect = Expect::Colon;
                    return Ok(Some(token));
                }
                (Expect::Key, b'}') | (Expect::Value, b']') if comma.is_some() => {
                    return self.error(What::TrailingComma);
                }
                (Expect::Key | Expect::KeyOrEnd, _) => return self.error(What::Key),
                (Expect::Value | Expect::ValueOrEnd, byte) => return self.value(byte, comma).map(Some),
            }
        }
    }

    fn pass(&mut self, expect: Expect) {
        self.at += 1;
        self.expect = expect;
    }

    fn error<T>(&self, what: What) -> Result<T, JsonError> {
        Err(JsonError { offset: self.at, what })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn peek_token(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.peek()
    }

    fn value(&mut self, byte: u8, comma: Option<usize>) -> Result<Token, JsonError> {
        match byte {
            b'{' => return self.open(Kind::ObjectStart, comma),
            b'[' => return self.open(Kind::ArrayStart, comma),
            _ => {}
        }
        let token = match byte {
            b'"' => self.string(Kind::Text, comma)?,
            b'-' | b'0'..=b'9' => self.number(comma)?,
            b'+' | b'.' => return self.error(What::Number),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.word(comma)?,
            _ => return self.error(What::Value),
        };
        self.after_value();
        Ok(token)
    }

    fn after_value(&mut self) {
        self.expect = if self.depth == 0 { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    fn open(&mut self, kind: Kind, comma: Option<usize>) -> Result<Token, JsonError> {
        if self.depth == self.max_depth {
            return self.error(What::Depth);
        }
        let bit = 1 << self.depth;
        match kind {
            Kind::ObjectStart => {
                self.objects |= bit;
                self.expect = Expect::KeyOrEnd;
            }
            _ => {
                self.objects &= !bit;
                self.expect = Expect::ValueOrEnd;
            }
        }
        self.depth += 1;
        self.at += 1;
        Ok(Token { kind, start: self.at - 1, end: self.at, comma })
    }

    fn close(&mut self, kind: Kind, comma: Option<usize>) -> Result<Option<Token>, JsonError> {
        self.depth -= 1;
        self.at += 1;
        self.after_value();
        Ok(Some(Token { kind, start: self.at - 1, end: self.at, comma }))
    }

    fn string(&mut self, kind: Kind, comma: Option<usize>) -> Result<Token, JsonError> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                // A line that ends within a string is a forgotten quote, and the place to look at is its beginning.
                None | Some(b'\n' | b'\r') => return Err(JsonError { offset: start, what: What::OpenString }),
                Some(0..=0x1f) => return self.error(What::Control),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        Ok(Token { kind, start, end: self.at, comma })
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let Some(unit) = self.hex(self.at + 2) else { return self.error(What::Escape) };
                match unit {
                    0xd800..=0xdbff => {
                        let second = self.text.as_bytes().get(self.at + 6..self.at + 8) == Some(b"\\u");
                        let low = self.hex(self.at + 8).filter(|low| (0xdc00..=0xdfff).contains(low));
                        if !second || low.is_none() {
                            return self.error(What::Surrogate);
                        }
                        self.at += 12;
                    }
                    0xdc00..=0xdfff => return self.error(What::Surrogate),
                    _ => self.at += 6,
                }
            }
            _ => return self.error(What::Escape),
        }
        Ok(())
    }

    fn hex(&self, at: usize) -> Option<u32> {
        let digits = self.text.as_bytes().get(at..at + 4)?;
        digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | char::from(*digit).to_digit(16)?))
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self, comma: Option<usize>) -> Result<Token, JsonError> {
        let start = self.at;
        let bad = Err(JsonError { offset: start, what: What::Number });
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.peek() == Some(b'0');
        let digits = self.digits();
        if digits == 0 || zero && digits > 1 {
            return bad;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return bad;
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return bad;
            }
        }
        match self.peek() {
            Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'.' | b'+' | b'-' | b'%') => bad,
            _ => Ok(Token { kind: Kind::Number, start, end: self.at, comma }),
        }
    }

    fn word(&mut self, comma: Option<usize>) -> Result<Token, JsonError> {
        let start = self.at;
        let rest = self.text.as_bytes().get(start..).unwrap_or(&[]);
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let kind = match rest.get(..length) {
            Some(b"true") => Kind::True,
            Some(b"false") => Kind::False,
            Some(b"null") => Kind::Null,
            _ => return self.error(What::Word),
        };
        self.at += length;
        Ok(Token { kind, start, end: self.at, comma })
    }
}
