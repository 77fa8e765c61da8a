//! Sizes, durations and cpu shares: as typed, as numbers, as shown.

use core::fmt;

/// A length of time or a point on the monotonic clock, in milliseconds. Arithmetic saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// `seconds` as milliseconds.
    pub const fn from_secs(seconds: u64) -> Millis {
        Millis(seconds.saturating_mul(1000))
    }

    /// The sum, saturating: a deadline can lie at the end of time but never before its start.
    pub const fn plus(self, other: Millis) -> Millis {
        Millis(self.0.saturating_add(other.0))
    }

    /// The time from `earlier` to `self`, zero if it is later.
    pub const fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// The first of `times` that is set.
    pub fn earliest(times: &[Option<Millis>]) -> Option<Millis> {
        times.iter().flatten().min().copied()
    }
}

impl fmt::Display for Millis {
    /// The largest unit that keeps the number whole, as the config takes it: `90s`, `100ms`, `2h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "0s"),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// A number of bytes, shown with K, M, G as powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    /// Whole multiples without a fraction (`24M`, as the config takes it), others with one digit (`1.5M`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, letter) = match self.0 {
            n if n >= 1 << 30 => (1u64 << 30, "G"),
            n if n >= 1 << 20 => (1 << 20, "M"),
            n if n >= 1 << 10 => (1 << 10, "K"),
            n => return write!(f, "{n}"),
        };
        match self.0 % unit {
            0 => write!(f, "{}{letter}", self.0 / unit),
            rest => write!(f, "{}.{}{letter}", self.0 / unit, rest * 10 / unit),
        }
    }
}

/// Why a text is no size, duration or share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadUnit {
    /// It does not begin with a whole number.
    NoNumber,
    /// The letters after the number are no unit of this kind.
    BadSuffix,
    /// It exceeds what 64 bits hold.
    TooLarge,
}

/// Reads a size: a whole number, then nothing, `K`, `M` or `G`.
pub fn parse_bytes(text: &str) -> Result<Bytes, BadUnit> {
    let (number, suffix) = split(text)?;
    let unit: u64 = match suffix {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(BadUnit::BadSuffix),
    };
    number.checked_mul(unit).map(Bytes).ok_or(BadUnit::TooLarge)
}

/// Reads a duration: a whole number, then `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Result<Millis, BadUnit> {
    let (number, suffix) = split(text)?;
    let unit: u64 = match suffix {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(BadUnit::BadSuffix),
    };
    number.checked_mul(unit).map(Millis).ok_or(BadUnit::TooLarge)
}

/// Reads a cpu share in percent of one core: `"25%"` is 25, `"150%"` one and a half cores.
pub fn parse_percent(text: &str) -> Result<u32, BadUnit> {
    let (number, suffix) = split(text)?;
    if suffix != "%" {
        return Err(BadUnit::BadSuffix);
    }
    u32::try_from(number).map_err(|_| BadUnit::TooLarge)
}

fn split(text: &str) -> Result<(u64, &str), BadUnit> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Err(BadUnit::NoNumber);
    }
    let (number, suffix) = text.split_at(digits);
    Ok((number.parse().map_err(|_| BadUnit::TooLarge)?, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_as_they_are_shown() {
        for text in ["0", "24M", "1G", "3K", "17"] {
            assert_eq!(parse_bytes(text).unwrap().to_string(), text);
        }
        for text in ["0s", "100ms", "30s", "10m", "2h"] {
            assert_eq!(parse_duration(text).unwrap().to_string(), text);
        }
        assert_eq!(Bytes(1536).to_string(), "1.5K");
        assert_eq!(parse_percent("150%"), Ok(150));
    }

    #[test]
    fn what_is_no_unit_is_refused() {
        assert_eq!(parse_bytes("24MB"), Err(BadUnit::BadSuffix));
        assert_eq!(parse_bytes("M"), Err(BadUnit::NoNumber));
        assert_eq!(parse_bytes("-1"), Err(BadUnit::NoNumber));
        assert_eq!(parse_bytes("18446744073709551615G"), Err(BadUnit::TooLarge));
        assert_eq!(parse_bytes("99999999999999999999"), Err(BadUnit::TooLarge));
        assert_eq!(parse_duration("10"), Err(BadUnit::BadSuffix));
        assert_eq!(parse_duration("1.5s"), Err(BadUnit::BadSuffix));
        assert_eq!(parse_percent("25"), Err(BadUnit::BadSuffix));
    }
}
