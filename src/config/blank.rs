//! Comments and trailing commas, which JSON does not have, turned into spaces, so that every offset stays what it is.

use super::problem::{Sink, Span};

/// Turns `//` and `/* */` comments and commas before a closing bracket or brace into spaces; gives whether every comment
/// has its end.
pub fn blank(text: &mut [u8], sink: &mut Sink<'_>) -> bool {
    let mut ended = true;
    let mut at = 0;
    // The last byte that means something, and the comma that may turn out to be trailing.
    let mut last = 0u8;
    let mut comma = None;
    while let Some(&byte) = text.get(at) {
        let end = match (byte, text.get(at + 1)) {
            (b'"', _) => string_end(text, at),
            (b'/', Some(b'/')) => line_end(text, at),
            (b'/', Some(b'*')) => comment_end(text, at).unwrap_or_else(|| {
                let hint = Some("close it with */");
                sink.problem(Span { start: at, end: at + 2 }, format_args!("this comment has no end"), hint);
                ended = false;
                text.len()
            }),
            _ => at + 1,
        };
        match byte {
            b'/' if end > at + 1 => erase(text, at, end),
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b']' | b'}' => {
                if let Some(comma) = comma.take() {
                    erase(text, comma, comma + 1);
                }
                last = byte;
            }
            // A comma with nothing before it stays, to be refused.
            b',' if !matches!(last, 0 | b'[' | b'{' | b',' | b':') => {
                comma = Some(at);
                last = byte;
            }
            _ => {
                comma = None;
                last = byte;
            }
        }
        at = end;
    }
    ended
}

/// Writes spaces over `text[start..end]`, line ends kept.
pub fn erase(text: &mut [u8], start: usize, end: usize) {
    for byte in text.get_mut(start..end).unwrap_or(&mut []) {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// The offset behind the string that begins at `start`; a string never goes over a line's end.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\n' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn line_end(text: &[u8], start: usize) -> usize {
    let rest = text.get(start..).unwrap_or(&[]);
    start + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
}

fn comment_end(text: &[u8], start: usize) -> Option<usize> {
    let rest = text.get(start + 2..)?;
    rest.windows(2).position(|pair| pair == b"*/").map(|found| start + 2 + found + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json;
    use crate::config::source::Source;

    fn blanked(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let sources = [Source { name: "c.json", bytes: text.as_bytes() }];
        let mut sink = Sink::new(&sources);
        assert!(blank(&mut bytes, &mut sink));
        assert_eq!(bytes.len(), text.len());
        assert!(sink.finish().is_ok());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn comments_and_trailing_commas_become_spaces() {
        let squeezed = |text: &str| blanked(text).replace(' ', "");
        assert_eq!(squeezed("[1, // one\n2 /* , */, ]"), "[1,\n2]");
        assert_eq!(squeezed("{\"a\":[],}"), "{\"a\":[]}");
        assert_eq!(squeezed("/**/[]/*/ */"), "[]");
        assert_eq!(squeezed("[1,/*x*/,]"), "[1,,]");
    }

    #[test]
    fn strings_keep_what_looks_like_a_comment() {
        for text in [r#"["//", "/* */", "a\"//", ",]"]"#, "[\"/*\\\\\"]"] {
            assert_eq!(blanked(text), text);
        }
    }

    #[test]
    fn a_comma_after_nothing_stays_wrong() {
        for text in ["[,]", "{,}", "[1,,]", "{\"a\":,}", ","] {
            assert!(json::check(blanked(text).as_bytes(), 4).is_err(), "{text}");
        }
    }
}
