//! Takes what should stay on the board out of a text that leaves it. Pure.
#![forbid(unsafe_code)]

use super::json::decode;

/// What stands in the place of what was taken out.
const MARK: &[u8] = b"(removed)";
/// A name with one of these in it names something secret.
const WORDS: [&str; 5] = ["PASS", "TOKEN", "SECRET", "KEY", "CREDENTIAL"];

/// `text` without whatever is in `known`, and without the values of what is named as if it were secret: `NAME=value`,
/// `"NAME": "value"`, and the `value` and `default` of an object that holds such a name.
pub fn hide(text: &[u8], known: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some((byte, rest)) = text.get(at..).and_then(<[u8]>::split_first) {
        let here = text.get(at..).unwrap_or_default();
        if let Some(secret) = longest(here, known) {
            out.extend(MARK);
            at += secret.len().max(1);
            continue;
        }
        out.push(*byte);
        at += 1;
        let (lead, value) = match byte {
            b'=' => (0, of_entry(&text[..at - 1], rest)),
            b':' => of_member(&text[..at - 1], rest),
            _ => continue,
        };
        if value > 0 {
            out.extend(&rest[..lead]);
            out.extend(MARK);
            at += lead + value;
        }
    }
    out
}

fn longest<'a>(here: &[u8], known: &'a [Vec<u8>]) -> Option<&'a Vec<u8>> {
    known.iter().filter(|secret| here.starts_with(secret)).max_by_key(|secret| secret.len())
}

/// The length of the value of `NAME=value`, if it is one to hide.
fn of_entry(before: &[u8], rest: &[u8]) -> usize {
    let name = name(before);
    if !is_secret(name) {
        return 0;
    }
    match before.get(..before.len() - name.len()).and_then(<[u8]>::last) {
        Some(b'"') => string(rest),
        _ => {
            rest.iter().position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'"' | b',')).unwrap_or(rest.len())
        }
    }
}

/// The lengths of what stands before the value of `"NAME": "value"`, and of the value, if it is one to hide.
fn of_member(before: &[u8], rest: &[u8]) -> (usize, usize) {
    let Some(name) = before.trim_ascii_end().strip_suffix(b"\"").map(name) else { return (0, 0) };
    let lead = rest.len() - rest.trim_ascii_start().len() + 1;
    if rest.get(lead - 1) != Some(&b'"') {
        return (0, 0);
    }
    let begin = before.iter().rposition(|byte| *byte == b'{').unwrap_or(0);
    let end = rest.iter().position(|byte| *byte == b'}').unwrap_or(rest.len());
    let hidden = match name {
        b"value" | b"default" => is_secret(&before[begin..]) || is_secret(&rest[..end]),
        name => is_secret(name),
    };
    (lead, if hidden { string(&rest[lead..]) } else { 0 })
}

/// The bytes up to the quote that ends a string.
fn string(rest: &[u8]) -> usize {
    let mut escaped = false;
    let end = rest.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.unwrap_or(rest.len())
}

/// The name that `before` ends with; escapes of JSON are of it.
fn name(before: &[u8]) -> &[u8] {
    let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'\\');
    let begin = before.iter().rposition(|byte| !of_name(byte)).map_or(0, |last| last + 1);
    before.get(begin..).unwrap_or_default()
}

/// Whether a name is one of something secret.
pub fn is_secret(name: &[u8]) -> bool {
    let plain: String = decode(&String::from_utf8_lossy(name)).collect::<String>().to_ascii_uppercase();
    WORDS.iter().any(|word| plain.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_secret_is_removed_and_nothing_else() {
        for (text, hidden) in [
            (r#""env": ["DB_PASSWORD=a \" b", "LEVEL=info"]"#, r#""env": ["DB_PASSWORD=(removed)", "LEVEL=info"]"#),
            (r#"["API_TOK\u0045N=x"]"#, r#"["API_TOK\u0045N=(removed)"]"#),
            ("a api_key=1234 b=2\nSECRET=x", "a api_key=(removed) b=2\nSECRET=(removed)"),
            (r#"{ "x-token" : "abc", "x": 1 }"#, r#"{ "x-token" : "(removed)", "x": 1 }"#),
            (r#"{"name":"wifi_pass","value":"abc"}"#, r#"{"name":"wifi_pass","value":"(removed)"}"#),
            (
                r#"{"value":"abc","name":"wifi_pass"}, {"value":"1"}"#,
                r#"{"value":"(removed)","name":"wifi_pass"}, {"value":"1"}"#,
            ),
            (
                r#"{"secrets": [{ "file": "/data/k", "target": "/run/k" }]}"#,
                r#"{"secrets": [{ "file": "/data/k", "target": "/run/k" }]}"#,
            ),
            ("it said hunter22 and hunter23", "it said (removed) and (removed)3"),
            ("TOKEN=", "TOKEN="),
            (r#""KEY":"#, r#""KEY":"#),
            ("=:\"", "=:\""),
            (r#""TOKEN=open"#, r#""TOKEN=(removed)"#),
        ] {
            let known = [b"hunter2".to_vec(), b"hunter22".to_vec()];
            assert_eq!(String::from_utf8(hide(text.as_bytes(), &known)).unwrap(), hidden);
        }
    }
}
