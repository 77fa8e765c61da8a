//! Log entries as text for a person's terminal and as JSON for programs. Pure, without allocation.
#![forbid(unsafe_code)]

use super::entry::Entry;
use core::fmt;

/// Bytes that someone else wrote, made safe to print.
///
/// Control characters but tab, the C1 controls, characters that change the direction of text, and bytes that are no
/// UTF-8 are shown as escapes (`\x1b`, `\u{9b}`): nothing in a log can move the cursor, set a title or hide a line. A
/// carriage return at the end is left out.
pub struct Safe<'a>(pub &'a [u8]);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.strip_suffix(b"\r").unwrap_or(self.0).utf8_chunks() {
            let text = chunk.valid();
            let mut plain = 0;
            for (at, character) in text.char_indices().filter(|(_, character)| is_unsafe(*character)) {
                f.write_str(&text[plain..at])?;
                match u32::from(character) {
                    code @ 0..=0x7f => write!(f, "\\x{code:02x}")?,
                    code => write!(f, "\\u{{{code:x}}}")?,
                }
                plain = at + character.len_utf8();
            }
            f.write_str(&text[plain..])?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

fn is_unsafe(character: char) -> bool {
    match character {
        '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => true,
        other => other.is_control(),
    }
}

/// Nanoseconds since 1970 as `2026-11-21T07:31:53.123Z`.
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1_000_000_000, self.0 / 1_000_000 % 1000);
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Year, month and day of a number of days since 1970 in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Eras of 400 years that begin on 1 March, so the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// An entry as one line for people: time, stream, text; `[...]` marks a part of a line that goes on.
pub struct Line<'a>(pub &'a Entry<'a>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { stamp, stream, partial, text, .. } = self.0;
        write!(f, "{} {:<4} {}", Time(stamp.wall_ns), stream.as_str(), Safe(text))?;
        if *partial { f.write_str(" [...]") } else { Ok(()) }
    }
}

/// An entry as one JSON object. Bytes that are no UTF-8 become U+FFFD.
pub struct Json<'a> {
    /// The service's name.
    pub service: &'a str,
    /// The entry.
    pub entry: &'a Entry<'a>,
}

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { seq, stamp, stream, partial, text } = self.entry;
        write!(f, "{{\"service\":{},\"seq\":{seq},", JsonText(self.service.as_bytes()))?;
        write!(f, "\"time\":\"{}\",\"monotonic_ns\":{},", Time(stamp.wall_ns), stamp.mono_ns)?;
        write!(f, "\"stream\":\"{}\",\"partial\":{partial},\"text\":{}}}", stream.as_str(), JsonText(text))
    }
}

/// Bytes as a JSON string, quotes included; what is no UTF-8 becomes U+FFFD, unsafe characters become escapes.
pub struct JsonText<'a>(pub &'a [u8]);

impl fmt::Display for JsonText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' => f.write_str("\\\"")?,
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    // All of them lie in the basic plane: one unit of UTF-16.
                    other if is_unsafe(other) => write!(f, "\\u{:04x}", u32::from(other))?,
                    other => fmt::Write::write_char(f, other)?,
                }
            }
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::entry::{Stamp, Stream};

    #[test]
    fn nothing_in_a_log_can_steer_a_terminal() {
        let hostile = b"\x1b]0;pwned\x07\x1b[2Jok\xc2\x9b31m\0\xff\xc3\ttab \xe2\x80\xaertl \x7f\rover\r";
        let shown = Safe(hostile).to_string();
        assert_eq!(shown, "\\x1b]0;pwned\\x07\\x1b[2Jok\\u{9b}31m\\x00\\xff\\xc3\ttab \\u{202e}rtl \\x7f\\x0dover");
        for byte in 0..=255u8 {
            let shown = Safe(&[b'a', byte, b'b']).to_string();
            assert!(shown.chars().all(|c| c == '\t' || !c.is_control()), "{byte:#x}");
        }
        assert_eq!(Safe("größe €😀".as_bytes()).to_string(), "größe €😀");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(Time(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Time(951_782_400_000_000_000).to_string(), "2000-02-29T00:00:00.000Z");
        assert_eq!(Time(1_795_246_313_123_456_789).to_string(), "2026-11-21T07:31:53.123Z");
        assert!(Time(u64::MAX).to_string().starts_with("2554-07-21T"));
    }

    #[test]
    fn a_line_is_one_line_and_json_is_one_object() {
        let entry = Entry {
            seq: 3,
            stamp: Stamp { wall_ns: 1, mono_ns: 2 },
            stream: Stream::Err,
            partial: true,
            text: b"a\nb\"\\\x1b\xff",
        };
        assert_eq!(Line(&entry).to_string(), "1970-01-01T00:00:00.000Z err  a\\x0ab\"\\\\x1b\\xff [...]");
        assert_eq!(
            Json { service: "web", entry: &entry }.to_string(),
            "{\"service\":\"web\",\"seq\":3,\"time\":\"1970-01-01T00:00:00.000Z\",\"monotonic_ns\":2,\
             \"stream\":\"err\",\"partial\":true,\"text\":\"a\\nb\\\"\\\\\\u001b\u{fffd}\"}"
        );
    }
}
