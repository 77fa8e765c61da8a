//! What the kernel's command line says to coracle. Pure.
//!
//! `coracle.config=FILE` names the config, `coracle.rescue` asks for rescue, `coracle.log=console|kmsg|both` says where
//! messages go. Words are taken apart as the kernel does it (its `lib/cmdline.c`, `next_arg`): blanks separate them
//! except between double quotes, which may stand around a whole word or around a value, and are left out there.
#![forbid(unsafe_code)]

use super::depends::same_module;
use crate::supervisor::report::Places;

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmdline {
    /// The config file; `None`: the usual one.
    pub config: Option<String>,
    /// Whether rescue is asked for.
    pub rescue: bool,
    /// Where messages go.
    pub places: Places,
    /// What is meant for coracle and not understood, each a sentence.
    pub problems: Vec<String>,
}

impl Default for Cmdline {
    fn default() -> Self {
        Cmdline { config: None, rescue: false, places: Places::Both, problems: Vec::new() }
    }
}

impl Cmdline {
    /// Reads `/proc/cmdline`. Of a word that comes twice the last one counts.
    pub fn parse(text: &str) -> Cmdline {
        let mut found = Cmdline::default();
        for word in words(text) {
            let (name, value) = split(word);
            let Some(name) = name.strip_prefix("coracle.") else { continue };
            match (name, value) {
                ("config", Some(path)) if path.starts_with('/') => found.config = Some(path.to_owned()),
                ("config", _) => found.problem(word, "a config is named by its absolute path"),
                ("rescue", None | Some("1")) => found.rescue = true,
                ("rescue", Some("0")) => found.rescue = false,
                ("rescue", _) => found.problem(word, "it stands alone"),
                ("log", Some("console")) => found.places = Places::Console,
                ("log", Some("kmsg")) => found.places = Places::Kernel,
                ("log", Some("both")) => found.places = Places::Both,
                ("log", _) => found.problem(word, "it is console, kmsg or both"),
                _ => found.problem(word, "known are coracle.config, coracle.rescue and coracle.log"),
            }
        }
        found
    }

    fn problem(&mut self, word: &str, hint: &str) {
        self.problems.push(format!("the kernel's command line says {word}, which means nothing: {hint}"));
    }
}

/// What the line has for a kernel module, `MODULE.NAME=VALUE`, as the module takes it: the kernel keeps that for its own
/// parts, and leaves it to whoever loads a module to hand it on, as modprobe(8) does.
pub fn parameters(text: &str, module: &str) -> String {
    let mut own = Vec::new();
    for (name, rest) in words(text).filter_map(|word| word.split_once('.')) {
        if same_module(name, module) {
            own.push(rest);
        }
    }
    own.join(" ")
}

/// The words of the line, quotes still in them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let apart = move |letter: char| {
        quoted ^= letter == '"';
        !quoted && letter.is_ascii_whitespace()
    };
    text.split(apart).filter(|word| !word.is_empty())
}

/// Name and value of a word, without the quotes around either of them.
fn split(word: &str) -> (&str, Option<&str>) {
    let whole = word.strip_prefix('"').map(|rest| rest.strip_suffix('"').unwrap_or(rest));
    match whole.unwrap_or(word).split_once('=') {
        None => (whole.unwrap_or(word), None),
        Some((name, value)) => {
            let inner = value.strip_prefix('"').map(|rest| rest.strip_suffix('"').unwrap_or(rest));
            (name, Some(inner.unwrap_or(value)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_for_coracle_is_left_alone() {
        let line = "console=ttyS0 root=/dev/vda quiet ro init=/sbin/coracle dyndbg=\"file x.c +p\" -- single 3\n";
        assert_eq!(Cmdline::parse(line), Cmdline::default());
        assert_eq!(Cmdline::parse(""), Cmdline::default());
    }

    #[test]
    fn coracles_own_words_are_read() {
        let found = Cmdline::parse("quiet coracle.config=/etc/a.json coracle.rescue coracle.log=kmsg\n");
        assert_eq!(found.config.as_deref(), Some("/etc/a.json"));
        assert!(found.rescue);
        assert_eq!((found.places, found.problems.len()), (Places::Kernel, 0));
    }

    #[test]
    fn quoted_values_are_read_as_the_kernel_reads_them() {
        for line in
            ["coracle.config=\"/etc/a b.json\"", "\"coracle.config=/etc/a b.json\" x", "coracle.config=\"/etc/a b.json"]
        {
            assert_eq!(Cmdline::parse(line).config.as_deref(), Some("/etc/a b.json"), "{line}");
        }
        let hidden = Cmdline::parse("dyndbg=\"x coracle.rescue\"");
        assert!(!hidden.rescue, "a word inside someone else's value is not ours");
    }

    #[test]
    fn a_modules_parameters_are_handed_on() {
        let line = "quiet soft-dog.margin=60 soft_dog.action=\"a b\" softdog.x=1 dog.y=2\n";
        assert_eq!(parameters(line, "soft_dog"), "margin=60 action=\"a b\"");
        assert_eq!(parameters(line, "ext4"), "");
    }

    #[test]
    fn the_last_of_two_counts() {
        let found = Cmdline::parse("coracle.config=/a coracle.rescue coracle.config=/b coracle.rescue=0");
        assert_eq!((found.config.as_deref(), found.rescue), (Some("/b"), false));
    }

    #[test]
    fn what_means_nothing_is_said() {
        let found =
            Cmdline::parse("coracle.config=a.json coracle.config coracle.rescue=yes coracle.log=tape coracle.x=1");
        assert_eq!(found.problems.len(), 5);
        assert!(found.problems[3].contains("coracle.log=tape"), "{:?}", found.problems);
        assert_eq!(found.config, None);
    }
}
