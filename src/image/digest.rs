//! A SHA-256, as image files write it: `sha256:` and 64 lower-case hex digits, nothing else.
#![forbid(unsafe_code)]

use core::fmt;

/// A SHA-256. Its text form is safe as a file name because only [`Digest::parse`] and hashing make one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads `sha256:` and 64 lower-case hex digits (OCI image-spec, descriptor.md); anything else is `None`.
    pub fn parse(text: &str) -> Option<Digest> {
        Digest::parse_hex(text.strip_prefix("sha256:")?)
    }

    /// Reads 64 lower-case hex digits.
    pub fn parse_hex(text: &str) -> Option<Digest> {
        let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = nibble(high)? << 4 | nibble(low)?;
        }
        Some(Digest(bytes))
    }

    /// The 64 hex digits alone: the name of a blob and of a layer's directory.
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The first twelve hex digits, for tables and messages.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_strict_form_is_a_digest() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Digest::parse(&good).unwrap().to_string(), good);
        for bad in [
            "".to_owned(),
            "sha256:".to_owned(),
            "0a".repeat(32),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha512:{}", "0a".repeat(32)),
            format!("sha256:{}", "0a".repeat(33)),
            format!("sha256:../{}", "0a".repeat(30)),
            format!("sha256:{} ", "0a".repeat(32)),
            format!("sha256:{}é", "0a".repeat(31)),
        ] {
            assert_eq!(Digest::parse(&bad), None, "{bad}");
        }
    }
}
