//! Variables: what `${name}` stands for in host names, environment, commands and volume names.
//!
//! The verdict on a config never depends on what a variable's file holds: what is judged is the text with the values that
//! are written, and a value of a file that does not do gives way to them with a warning. So a board whose serial number
//! is odd runs what all the others run.

use super::raw;
use super::validate::{Context, boxed};
use super::values::{self, Text, board};
use crate::base::limits::VAR_BYTES;
use crate::base::suggest::did_you_mean;
use std::borrow::Cow;

/// What a file that a variable names holds, or a sentence saying why it could not be read. A file that is not there has
/// none.
#[derive(Debug, Clone)]
pub struct Value {
    /// Its path, as the config writes it.
    pub file: Box<str>,
    /// What it holds.
    pub contents: Result<Vec<u8>, String>,
}

/// A variable.
pub struct Var {
    name: Box<str>,
    /// What is written: `value` or `default`.
    written: Box<str>,
    /// What its file holds, if that can be used.
    found: Option<Box<str>>,
}

/// What a text with variables comes to.
struct Expanded {
    text: String,
    /// The first variable in it whose value is from a file, with that value.
    from_file: Option<(String, String)>,
}

/// Makes the variables of their raw form and of what their files hold.
pub fn vars(context: &mut Context<'_, '_, '_>, raws: &[raw::Var<'_>], values: &[Value]) -> Vec<Var> {
    context.repeated(raws, |raw| raw.name, "the variable", str::to_owned);
    raws.iter().filter_map(|raw| var(context, raw, values)).collect()
}

fn var(context: &mut Context<'_, '_, '_>, raw: &raw::Var<'_>, values: &[Value]) -> Option<Var> {
    let mut problem = |raw: &str, message: &str, hint: &str| context.problem(raw, format_args!("{message}"), hint);
    match (raw.value, raw.file, raw.default) {
        (Some(value), Some(_), _) => {
            problem(value, "a variable has a value or a file, not both", "\"default\" is what holds without the file");
        }
        (Some(_), None, Some(default)) => {
            problem(default, "a variable with a value has no default", "leave \"default\" out");
        }
        (None, Some(file), None) => {
            problem(file, "a variable of a file needs a default, for boards without the file", "add \"default\": \"\"");
        }
        _ => {}
    }
    let found = raw.file.and_then(|typed| {
        let file = values::decoded(typed);
        let value = values.iter().find(|value| *value.file == *file)?;
        match value.contents.clone().and_then(|bytes| usable(&bytes)) {
            Ok(text) => Some(text.into()),
            Err(why) => {
                context.warning(typed, format_args!("what {file} holds {why}"), "the variable's default is used");
                None
            }
        }
    });
    Some(Var { name: boxed(raw.name?), written: boxed(raw.value.or(raw.default)?), found })
}

/// The text in a variable's file: one line, without white space and NULs around it.
fn usable(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.len() > VAR_BYTES {
        return Err(format!("is longer than the {VAR_BYTES} bytes of a variable"));
    }
    board::line(text).map_err(|complaint| complaint.message)?;
    Ok(text.into())
}

/// Where a `${` begins: a variable's name follows, or it was escaped.
enum Piece<'a> {
    Plain(&'a str),
    Variable(&'a str),
}

/// The pieces of a text; `Err` is a sentence's end that says what cannot be read.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut list = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        list.push(Piece::Plain(before));
        if before.ends_with('$') {
            list.push(Piece::Plain("{"));
            rest = after;
            continue;
        }
        let Some((name, behind)) = after.split_once('}') else {
            return Err(format!("holds {text:?}, where a \"${{\" has no end"));
        };
        values::var_name(name).map_err(|complaint| format!("holds a variable whose name {}", complaint.message))?;
        list.push(Piece::Variable(name));
        rest = behind;
    }
    list.push(Piece::Plain(rest));
    Ok(list)
}

/// The way out where `${` cannot be read.
pub const LITERAL: &str = "\"$${\" stands for a literal \"${\"";

/// Checks how variables are written in `text`.
pub fn check(kind: Text, text: &str) -> Result<(), String> {
    if kind == Text::Env && values::env_key(text).contains("${") {
        return Err(format!("holds {text:?}; a variable can only stand behind the '='"));
    }
    pieces(text).map(drop)
}

impl Context<'_, '_, '_> {
    /// The value of `key`, its variables replaced, checked as `kind`. The scanner has passed how it is written.
    pub fn expanded(&mut self, raw: &str, key: &str, kind: Text) -> Box<str> {
        let text = values::decoded(raw);
        if !text.contains("${") {
            return boxed(raw);
        }
        let written = match expand(&text, &self.vars, false) {
            Ok(expanded) => expanded.text,
            Err(name) => {
                let mut known = self.vars.iter().map(|var| &*var.name);
                let meant = did_you_mean(&name, &mut known).map(|meant| format!("did you mean \"${{{meant}}}\"?"));
                let hint = meant.unwrap_or_else(|| format!("name it under \"vars\"; {LITERAL}"));
                self.problem(raw, format_args!("there is no variable {name:?}"), &hint);
                return text.into();
            }
        };
        if let Err(complaint) = values::check(kind, &written) {
            let message = format_args!("{key:?} {}", complaint.message);
            self.problem(raw, message, "this is what its variables make of it");
            return written.into();
        }
        match expand(&text, &self.vars, true) {
            Ok(Expanded { text, from_file: Some((name, value)) }) => match values::check(kind, &text) {
                Ok(()) => text.into(),
                Err(complaint) => {
                    let message = format_args!(
                        "the file of the variable {name:?} holds {value:?}, so that this {}",
                        complaint.message
                    );
                    self.warning(raw, message, "the defaults are used here");
                    written.into()
                }
            },
            _ => written.into(),
        }
    }
}

/// `text` with its variables replaced; with what their files hold if `found`. `Err` is a name that is not known.
fn expand(text: &str, vars: &[Var], found: bool) -> Result<Expanded, String> {
    let mut expanded = Expanded { text: String::new(), from_file: None };
    for piece in pieces(text).unwrap_or_default() {
        match piece {
            Piece::Plain(plain) => expanded.text.push_str(plain),
            Piece::Variable(name) => {
                let Some(var) = vars.iter().find(|var| *var.name == *name) else { return Err(name.into()) };
                let value = var.found.as_deref().filter(|_| found);
                if let Some(value) = value {
                    expanded.from_file.get_or_insert_with(|| (name.into(), value.into()));
                }
                expanded.text.push_str(value.unwrap_or(&var.written));
            }
        }
    }
    Ok(expanded)
}

/// Whether a text holds something that looks like a variable.
pub fn has(raw: &str) -> bool {
    let text: Cow<'_, str> = values::decoded(raw);
    text.contains("${")
}
