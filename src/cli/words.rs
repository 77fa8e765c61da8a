//! The words of a command line, brought into the form that the argument parser takes. Pure.
//!
//! The parser knows `--option value` and `-o value`. People also type `--option=value`, `-n5` and `-it`; those are taken
//! apart here, but never behind `--` and never in the command that `exec` and `run` hand on.
#![forbid(unsafe_code)]

/// What must be known of a command beforehand.
struct Shape {
    command: &'static str,
    /// Short options without a value.
    flags: &'static str,
    /// Short options with a value.
    valued: &'static str,
    /// Long options without a value.
    long_flags: &'static [&'static str],
    /// How many words that are no options come before everything belongs to someone else's command line.
    own_words: usize,
}

const SHAPES: &[Shape] = &[
    Shape { command: "exec", flags: "it", valued: "uew", long_flags: &["--tty", "--interactive"], own_words: 1 },
    Shape {
        command: "run",
        flags: "it",
        valued: "uewvm",
        long_flags: &["--tty", "--interactive", "--read-only", "--help"],
        own_words: 0,
    },
    Shape { command: "up", flags: "d", valued: "c", long_flags: &[], own_words: usize::MAX },
    Shape { command: "logs", flags: "f", valued: "n", long_flags: &[], own_words: usize::MAX },
    Shape { command: "events", flags: "f", valued: "n", long_flags: &[], own_words: usize::MAX },
];

/// Takes the words behind `coracle` apart.
pub fn normalise(words: &[String]) -> Vec<String> {
    let Some((command, rest)) = words.split_first() else { return Vec::new() };
    let none = Shape { command: "", flags: "", valued: "", long_flags: &[], own_words: usize::MAX };
    let shape = SHAPES.iter().find(|shape| shape.command == command).unwrap_or(&none);
    let mut out = vec![command.clone()];
    let mut own = 0;
    let mut value_follows = false;
    let mut rest = rest.iter();
    for word in rest.by_ref() {
        let option = word.len() > 1 && word.starts_with('-');
        if value_follows || !option {
            own += usize::from(!value_follows);
            value_follows = false;
            out.push(word.clone());
            if own > shape.own_words {
                break;
            }
        } else if word == "--" {
            out.push(word.clone());
            break;
        } else if let Some((name, value)) = word.split_once('=').filter(|(name, _)| name.starts_with("--")) {
            out.extend([name.to_owned(), value.to_owned()]);
        } else if let Some(parts) = take_apart(word, shape) {
            value_follows = parts.last().is_some_and(|last| is_valued(last, shape));
            out.extend(parts);
        } else {
            value_follows = shape.own_words != usize::MAX && is_valued(word, shape);
            out.push(word.clone());
        }
    }
    out.extend(rest.cloned());
    out
}

/// Whether the option takes the next word as its value.
fn is_valued(option: &str, shape: &Shape) -> bool {
    match option.strip_prefix('-') {
        Some(letter) if !letter.starts_with('-') => shape.valued.contains(letter),
        _ => !shape.long_flags.contains(&option) && option != "--help",
    }
}

/// `-it` to `-i -t`, `-n5` to `-n 5`; `None` for anything else.
fn take_apart(word: &str, shape: &Shape) -> Option<Vec<String>> {
    let letters = word.strip_prefix('-').filter(|letters| letters.len() > 1 && !letters.starts_with('-'))?;
    let mut parts = Vec::new();
    for (at, letter) in letters.char_indices() {
        parts.push(format!("-{letter}"));
        if shape.valued.contains(letter) {
            let value = letters.get(at + letter.len_utf8()..).unwrap_or_default();
            if !value.is_empty() {
                parts.push(value.to_owned());
            }
            return Some(parts);
        }
        if !shape.flags.contains(letter) {
            return None;
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        normalise(&words).join(" ")
    }

    #[test]
    fn usual_spellings_are_taken_apart() {
        for (typed, taken) in [
            ("ps --run-dir=/tmp/x --json", "ps --run-dir /tmp/x --json"),
            ("logs -fn5 web", "logs -f -n 5 web"),
            ("logs -f -n 5 web --since=1h", "logs -f -n 5 web --since 1h"),
            ("exec -it web sh", "exec -i -t web sh"),
            ("exec -turoot web sh", "exec -t -u root web sh"),
            ("ps -xy", "ps -xy"),
            ("check --root= x", "check --root  x"),
        ] {
            assert_eq!(words(typed), taken);
        }
    }

    #[test]
    fn the_command_that_is_handed_on_stays_as_it_is() {
        for line in [
            "exec web ls --color=always -it",
            "exec -u root -e A=1 web ls --color=always",
            "exec --user root web --a=b",
            "run image cmd --a=b -it",
            "ps -- --a=b",
        ] {
            let taken = words(line);
            let expected = line.replace("web --a=b", "web --a b");
            assert_eq!(taken, expected);
        }
        assert_eq!(words("exec -u root --workdir=/x web ls --a=b"), "exec -u root --workdir /x web ls --a=b");
    }
}
