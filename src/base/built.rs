//! When this release was made: no clock that is set shows an earlier time.
#![forbid(unsafe_code)]

/// When this release was made, seconds since 1970: what SOURCE_DATE_EPOCH said to the compiler, or else the
/// date of the release.
pub const BUILT: i64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => decimal(text.as_bytes()),
    // 2026-11-01.
    None => 1_793_491_200,
};

/// A number in the environment of the compiler; what is none counts as zero.
const fn decimal(text: &[u8]) -> i64 {
    let (mut number, mut at) = (0i64, 0);
    while at < text.len() {
        if !text[at].is_ascii_digit() || number > i64::MAX / 100 {
            return 0;
        }
        number = number * 10 + (text[at] - b'0') as i64;
        at += 1;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_number_is_read() {
        assert_eq!(decimal(b"1793491200"), 1_793_491_200);
        assert_eq!((decimal(b""), decimal(b"x"), decimal(b"99999999999999999999999")), (0, 0, 0));
    }
}
