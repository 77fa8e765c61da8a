//! What is wrong with a config file, where it stands, and what to write instead.

use super::source::{Source, locate, start};
use crate::base::limits::PROBLEMS;
use core::fmt;

/// Columns of a source line that are shown; of a longer one the part around the problem.
const SHOWN_COLUMNS: usize = 100;
/// Characters of a message or hint that are shown: a list of all keys of a service is the longest meant one.
const MESSAGE_CHARACTERS: usize = 400;

/// Bytes of the text of all files that something is said about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Offset of the first.
    pub start: usize,
    /// Offset behind the last.
    pub end: usize,
}

/// A problem or a warning, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The line (or the part of it) as shown, and the place of the carets in it: column from 0, and count.
    excerpt: (String, usize, usize),
}

/// A thing that is allowed and probably not meant.
pub type Warning = Problem;

impl fmt::Display for Problem {
    /// Up to four lines: `file:line:column: message`, the source line, the carets, the hint. No end of line at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, line, column, message, .. } = self;
        let (text, place, count) = &self.excerpt;
        let margin = line.to_string().len().max(4);
        write!(f, "{file}:{line}:{column}: {message}\n{line:margin$} | {text}\n{:margin$} | ", "")?;
        write!(f, "{:place$}{}", "", "^".repeat(*count))?;
        match &self.hint {
            Some(hint) => write!(f, "\n{:margin$} = {hint}", ""),
            None => Ok(()),
        }
    }
}

/// All problems of a file, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The problems, at most [`PROBLEMS`].
    pub list: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

impl fmt::Display for Problems {
    /// The problems with an empty line between them, then their number. No end of line at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            write!(f, "{problem}\n\n")?;
        }
        let mut files: Vec<&str> = self.list.iter().map(|problem| problem.file.as_str()).collect();
        files.dedup();
        match files.as_slice() {
            [file] => write!(f, "{file}: ")?,
            files => write!(f, "{} files: ", files.len())?,
        }
        match (self.list.len(), self.more) {
            (1, 0) => write!(f, "1 problem"),
            (count, 0) => write!(f, "{count} problems"),
            (count, more) => write!(f, "{} problems, the first {count} are shown", count + more),
        }
    }
}

impl std::error::Error for Problems {}

/// Collects what is found, in any order.
pub struct Sink<'a> {
    sources: &'a [Source<'a>],
    /// The file that offsets are in: where it begins, and its length. All of them: 0 and no bound.
    within: (usize, usize),
    problems: Vec<Found>,
    more: usize,
    warnings: Vec<Found>,
    /// Warnings beyond the cap, and where the first of them is.
    more_warnings: (usize, Option<Span>),
}

struct Found {
    span: Span,
    message: String,
    hint: Option<String>,
}

impl<'a> Sink<'a> {
    /// A sink for problems of these files.
    pub fn new(sources: &'a [Source<'a>]) -> Sink<'a> {
        let (problems, warnings) = (Vec::new(), Vec::new());
        Sink { sources, within: (0, usize::MAX), problems, more: 0, warnings, more_warnings: (0, None) }
    }

    /// From here on offsets are in the file with this number; `None`: in the text of all.
    pub fn enter(&mut self, number: Option<usize>) {
        let file = number.and_then(|number| Some((start(self.sources, number), self.sources.get(number)?.bytes.len())));
        self.within = file.unwrap_or((0, usize::MAX));
    }

    fn placed(&self, span: Span) -> Span {
        let (base, length) = self.within;
        let at = |offset: usize| offset.min(length).saturating_add(base);
        Span { start: at(span.start), end: at(span.end) }
    }

    /// The file refuses to be used because of this.
    pub fn problem(&mut self, span: Span, message: fmt::Arguments<'_>, hint: Option<&str>) {
        let span = self.placed(span);
        if !self.is_full() {
            self.problems.push(Found {
                span,
                message: clipped(message.to_string()),
                hint: hint.map(|hint| clipped(hint.into())),
            });
        } else {
            self.more += 1;
        }
    }

    /// The file can be used, but someone should look at this.
    pub fn warning(&mut self, span: Span, message: fmt::Arguments<'_>, hint: Option<&str>) {
        let span = self.placed(span);
        if self.warnings.len() < PROBLEMS {
            self.warnings.push(Found { span, message: message.to_string(), hint: hint.map(Into::into) });
        } else {
            self.more_warnings = (self.more_warnings.0 + 1, self.more_warnings.1.or(Some(span)));
        }
    }

    /// Whether further problems are only counted, so that finding words for them is in vain.
    pub fn is_full(&self) -> bool {
        self.problems.len() >= PROBLEMS
    }

    /// Where each problem found so far begins.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.problems.iter().map(|found| found.span.start)
    }

    /// Where an offset is, for someone who looks at another one: `line 4`, or `other.json:4` in another file.
    pub fn place(&self, offset: usize, seen_from: usize) -> String {
        let at = |offset| locate(self.sources, self.placed(Span { start: offset, end: offset }).start);
        let ((file, local), (other, _)) = (at(offset), at(seen_from));
        match self.sources.get(file) {
            Some(source) if file != other => format!("{}:{}", source.name, line(source.bytes, local)),
            source => format!("line {}", line(source.map_or(&[], |source| source.bytes), local)),
        }
    }

    /// Whether two offsets are in the same file.
    pub fn same_file(&self, one: usize, other: usize) -> bool {
        locate(self.sources, one).0 == locate(self.sources, other).0
    }

    /// The warnings if there is no problem, else the problems.
    pub fn finish(mut self) -> Result<Vec<Warning>, Problems> {
        let show = |sink: &Sink<'_>, mut found: Vec<Found>| -> Vec<Problem> {
            crate::base::sort::sort_by(&mut found, |a, b| a.span.cmp(&b.span));
            found.into_iter().map(|found| sink.show(found)).collect()
        };
        if let (count, Some(span)) = self.more_warnings {
            self.warnings.push(Found { span, message: format!("{count} more warnings begin here"), hint: None });
        }
        let (problems, warnings) = (std::mem::take(&mut self.problems), std::mem::take(&mut self.warnings));
        match problems.is_empty() {
            true => Ok(show(&self, warnings)),
            false => Err(Problems { list: show(&self, problems), more: self.more }),
        }
    }

    fn show(&self, found: Found) -> Problem {
        let Found { span, message, hint } = found;
        let (number, start) = locate(self.sources, span.start);
        let (file, bytes) = self.sources.get(number).map_or(("", &[][..]), |source| (source.name, source.bytes));
        let (before, after) = bytes.split_at(start.min(bytes.len()));
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let line_length = after.iter().position(|byte| *byte == b'\n').unwrap_or(after.len());
        let marked = (span.end.saturating_sub(span.start)).clamp(1, line_length.max(1)).min(line_length);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let head = text(&before[line_start..]);
        let middle = text(&after[..marked]);
        let tail = text(&after[marked..line_length]);
        let column = head.chars().count() + 1;
        let excerpt = excerpt(&head, &middle, &tail);
        Problem { file: file.into(), line: line(bytes, start), column, message, hint, excerpt }
    }
}

/// The line of an offset, from 1.
fn line(bytes: &[u8], offset: usize) -> usize {
    let before = bytes.get(..offset).unwrap_or(bytes);
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Characters without a width or that change the direction of what follows.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A message that quotes something endless, cut.
fn clipped(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARACTERS) {
        message.truncate(end);
        message.push_str("...");
    }
    message
}

/// A line as shown, every character one column wide, cut to [`SHOWN_COLUMNS`] around `middle`.
fn excerpt(head: &str, middle: &str, tail: &str) -> (String, usize, usize) {
    let shown = |c: char| if c.is_control() || is_invisible(c) { ' ' } else { c };
    let plain = |text: &str| text.chars().map(shown).collect::<Vec<char>>();
    let (head, middle, tail) = (plain(head), plain(middle), plain(tail.trim_end()));
    let middle = &middle[..middle.len().min(SHOWN_COLUMNS / 2)];
    let room = SHOWN_COLUMNS - middle.len();
    let cut_head = if head.len() + tail.len() > room { head.len().saturating_sub(room / 2) } else { 0 };
    let kept_head = &head[cut_head..];
    let kept_tail = &tail[..tail.len().min(room.saturating_sub(kept_head.len()))];
    let mut line = String::new();
    let mut place = kept_head.len();
    if cut_head > 0 {
        line.push_str("...");
        place += 3;
    }
    line.extend(kept_head.iter().chain(middle).chain(kept_tail));
    if kept_tail.len() < tail.len() {
        line.push_str("...");
    }
    (line.trim_end().into(), place, middle.len().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(source: &str, start: usize, end: usize) -> Problem {
        let sources = [Source { name: "c.json", bytes: source.as_bytes() }];
        let mut sink = Sink::new(&sources);
        sink.problem(Span { start, end }, format_args!("wrong"), Some("do it right"));
        sink.finish().unwrap_err().list.remove(0)
    }

    #[test]
    fn a_problem_shows_line_caret_and_hint() {
        let shown = only("{\n\t\"ä\": 24,\n}\n", 9, 11).to_string();
        assert_eq!(shown, "c.json:2:7: wrong\n   2 |  \"ä\": 24,\n     |       ^^\n     = do it right");
    }

    #[test]
    fn a_problem_at_or_behind_the_end_is_shown() {
        for start in [2, 3, 900] {
            assert!(only("{\n", start, start + 5).to_string().starts_with("c.json:2:1: wrong\n   2 | \n     | ^\n"));
        }
    }

    #[test]
    fn long_lines_and_control_characters_cannot_flood_or_steer_the_terminal() {
        let source = format!("{}\x1b[2J{}", "x".repeat(100_000), "y".repeat(100_000));
        let shown = only(&source, 100_000, 200_000).to_string();
        assert!(shown.len() < 400 && !shown.contains('\x1b'), "{shown}");
        assert!(shown.starts_with("c.json:1:100001: wrong\n   1 | ...xxx"), "{shown}");
    }

    #[test]
    fn problems_beyond_the_cap_are_counted() {
        let sources = [Source { name: "c.json", bytes: b"{}" }];
        let mut sink = Sink::new(&sources);
        (0..PROBLEMS + 7).for_each(|_| sink.problem(Span { start: 0, end: 1 }, format_args!("wrong"), None));
        let problems = sink.finish().unwrap_err();
        assert_eq!((problems.list.len(), problems.more), (PROBLEMS, 7));
        assert!(problems.to_string().ends_with("c.json: 71 problems, the first 64 are shown"));
    }
}
