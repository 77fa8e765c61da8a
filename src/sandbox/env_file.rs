//! Environment files: lines of `KEY=value`, read as Docker's `--env-file` does: what is behind the `=` is the value, with
//! its quotes and spaces. Pure.
#![forbid(unsafe_code)]

use crate::base::limits::ENV;

/// The entries of an environment file, in its order.
///
/// # Errors
/// `LINE: what is wrong with it`, to go behind the file's name. It quotes nothing: the file may hold passwords, or be
/// another one than was meant.
pub fn parse(bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut entries: Vec<String> = Vec::new();
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n');
    for (number, line) in lines.enumerate().map(|(at, line)| (at + 1, line)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = core::str::from_utf8(line).map_err(|_| format!("{number}: it is not UTF-8"))?;
        let text = text.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (key, _) = text.split_once('=').ok_or_else(|| {
            format!("{number}: there is no \"=\" in it; a line is KEY=value, or a comment with # in front")
        })?;
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(format!(
                "{number}: what stands before the \"=\" is no name of a variable; a line is KEY=value"
            ));
        }
        if text.contains('\0') {
            return Err(format!("{number}: it holds a NUL byte"));
        }
        if entries.len() == ENV {
            return Err(format!("{number}: it has more than {ENV} entries"));
        }
        entries.push(text.to_owned());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_as_they_stand() {
        let text = "# broker\n\n  A=1\r\nB=\"quoted\" # no comment \n#C=3\nD=\nE=x=y\n\t\nA=2";
        assert_eq!(parse(text.as_bytes()).unwrap(), ["A=1", "B=\"quoted\" # no comment ", "D=", "E=x=y", "A=2"]);
        assert_eq!(parse(b"").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_line_that_is_no_entry_is_named() {
        for (text, at) in [
            (&b"A=1\nwrong\n"[..], "2: there is no \"=\""),
            (b"export A=1", "1: what stands before"),
            (b"=1", "1: what stands before"),
            (b"\n\nA=\xff", "3: it is not UTF-8"),
            (b"A=a\0b", "1: it holds a NUL byte"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(at), "{error}");
        }
        let many: String = (0..=ENV).map(|i| format!("V{i}=\n")).collect();
        assert_eq!(parse(many.as_bytes()).unwrap_err(), "129: it has more than 128 entries");
    }
}
