//! Texts that a message quotes.
#![forbid(unsafe_code)]

use core::fmt;

/// A text with its quotes, backslashes and control characters escaped, as Rust writes them. (`str::escape_debug` is two
/// kilobytes of program, because it passes combining characters behind others through.)
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| write!(f, "{}", character.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_as_std_escapes() {
        for text in
            ["", "a b", "it's \"x\" \\ y", "\n\t\r\0\u{1b}[2J\u{9b}", "\u{e9}\u{4e2d}", "\u{202e}\u{feff}\u{ad}"]
        {
            assert_eq!(Escaped(text).to_string(), text.escape_debug().to_string());
        }
    }
}
