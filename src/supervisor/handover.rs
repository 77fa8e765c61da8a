//! What a supervisor hands to the program that takes its place in the same process: a text in memory (memfd_create(2)), and
//! the descriptors that it names, which are open across execve(2).
//!
//! Lines of `key value`, the first one `coracle-handover 1`. A reader skips keys that it does not know; a text of a later
//! version is refused, and the program before goes on. All else that the next one has to know lies in the run directory.
#![forbid(unsafe_code)]

use super::saved;
use crate::sys::process::{self, CStrings, own};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::ffi::{CString, OsString};
use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// The word before the number of the text's descriptor, and before that of the program to go back to.
pub const TAKE_OVER: &str = "--takeover";
/// The word with which a program is asked whether it would take over.
pub const CHECK: &str = "--takeover-check";
/// In place of the program to go back to: there is none, and why the other one refused is the next word.
pub const REFUSED: &str = "-";

/// The first line.
const MAGIC: &str = "coracle-handover 1";

/// How a supervisor was started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Its config; `None`: it is the board's first process, which looks for one.
    pub config: Option<PathBuf>,
    /// Whether it runs in the background.
    pub detached: bool,
}

/// What the words of a program say that is executed to take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The number of the text's descriptor.
    pub text: String,
    /// The number of the descriptor of the program to go back to.
    back: Option<String>,
    /// This is the program that gave way, and the other one has refused: why.
    pub refused: Option<String>,
}

impl Call {
    /// Reads the words; `None`: nothing is handed over.
    pub fn of(words: &[OsString]) -> Option<Call> {
        let word = |at: usize| words.get(at).and_then(|word| word.to_str());
        if word(1) != Some(TAKE_OVER) {
            return None;
        }
        let back = word(3).filter(|back| !back.is_empty() && back.bytes().all(|byte| byte.is_ascii_digit()));
        let refused = word(4).filter(|_| word(3) == Some(REFUSED));
        Some(Call { text: word(2)?.to_owned(), back: back.map(str::to_owned), refused: refused.map(str::to_owned) })
    }

    /// Executes the program that gave way, which will say why. Comes back where there is none.
    pub fn go_back(&self, why: &str) {
        let Some(back) = &self.back else { return };
        let why = why.replace('\0', "");
        if let Ok(file) = CString::new(format!("/proc/self/fd/{back}"))
            && let Ok(words) = CStrings::of(&["coracle", TAKE_OVER, &self.text, REFUSED, &why])
        {
            process::execve_same_env(&file, &words);
        }
    }

    /// There is nothing to go back to any more.
    pub fn close(self) {
        for fd in [Some(self.text), self.back].into_iter().flatten().filter_map(|fd| fd.parse::<RawFd>().ok()) {
            if fd > 2 && fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok() {
                drop(own(fd));
            }
        }
    }
}

/// What is handed over, as the text names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text {
    /// How it was started.
    pub origin: Origin,
    /// The run directory.
    pub run: PathBuf,
    /// The descriptor that holds the run directory's lock.
    pub lock: RawFd,
    /// The control socket.
    pub control: RawFd,
    /// Listening sockets, by the name of their service.
    pub sockets: Vec<(String, RawFd)>,
    /// Descriptors that are of no more use.
    pub rest: Vec<RawFd>,
}

/// What a supervisor takes over.
#[derive(Debug)]
pub struct Inherited {
    /// The descriptor that holds the run directory's lock.
    pub lock: OwnedFd,
    /// The control socket.
    pub control: OwnedFd,
    /// Listening sockets, by the name of their service.
    pub sockets: Vec<(String, OwnedFd)>,
}

impl Text {
    /// The text's lines.
    pub fn write(&self) -> String {
        let mut text = format!("{MAGIC}\nrun {}\nlock {}\ncontrol {}\n", self.run.display(), self.lock, self.control);
        if let Some(config) = &self.origin.config {
            let _ = writeln!(text, "config {}", config.display());
        }
        if self.origin.detached {
            text.push_str("detached 1\n");
        }
        for (service, fd) in &self.sockets {
            let _ = writeln!(text, "socket {fd} {service}");
        }
        for fd in &self.rest {
            let _ = writeln!(text, "close {fd}");
        }
        text
    }

    /// Reads the lines.
    ///
    /// # Errors
    /// A sentence naming what is wrong.
    pub fn parse(text: &str) -> Result<Text, String> {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        if first != MAGIC {
            return Err(format!("what is handed over begins with {first:?}, not {MAGIC:?}: it is of another version"));
        }
        let mut found = Text { lock: -1, control: -1, ..Text::default() };
        for line in lines {
            found.take_line(line).ok_or_else(|| format!("what is handed over has no number in {line:?}"))?;
        }
        match found.run.is_absolute() && found.lock > 2 && found.control > 2 {
            true => Ok(found),
            false => Err("what is handed over lacks the run directory, its lock or the control socket".to_owned()),
        }
    }

    fn take_line(&mut self, line: &str) -> Option<()> {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "run" => self.run = value.into(),
            "config" => self.origin.config = Some(value.into()),
            "detached" => self.origin.detached = true,
            "lock" => self.lock = value.parse().ok()?,
            "control" => self.control = value.parse().ok()?,
            "socket" => {
                let (fd, service) = value.split_once(' ').unwrap_or_default();
                self.sockets.push((service.to_owned(), fd.parse().ok()?));
            }
            "close" => self.rest.push(value.parse().ok()?),
            _ => {}
        }
        Some(())
    }

    /// Reads the text behind descriptor `fd`.
    ///
    /// # Errors
    /// A sentence naming what is wrong.
    pub fn of(fd: &str) -> Result<Text, String> {
        let number = fd.parse::<RawFd>().map_err(|_| format!("{fd:?} is the number of no descriptor"))?;
        // Opened anew, so that it is read from its beginning.
        let text = fs::read_to_string(format!("/proc/self/fd/{number}"));
        Text::parse(&text.map_err(|error| format!("what is handed over cannot be read: {error}"))?)
    }

    /// Takes the descriptors. To be called once, in the process that they were handed to.
    ///
    /// # Errors
    /// A sentence naming one that is not open.
    pub fn take(&self) -> Result<Inherited, String> {
        let mut named = vec![self.lock, self.control];
        named.extend_from_slice(&self.rest);
        self.sockets.iter().for_each(|(_, fd)| named.push(*fd));
        for fd in named {
            if fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err() {
                return Err(format!("descriptor {fd}, which is handed over, is not open"));
            }
        }
        self.rest.iter().for_each(|fd| drop(own(*fd)));
        let taken = |fd: RawFd| {
            let fd = own(fd);
            let _ = across_exec(&fd, false);
            fd
        };
        Ok(Inherited {
            lock: taken(self.lock),
            control: taken(self.control),
            sockets: self.sockets.iter().map(|(service, fd)| (service.clone(), taken(*fd))).collect(),
        })
    }
}

/// Whether `fd` stays open across execve(2).
pub fn across_exec(fd: &impl AsFd, stays: bool) -> nix::Result<()> {
    let flags = if stays { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(fd, FcntlArg::F_SETFD(flags)).map(drop)
}

/// Whether this program can read the states that lie in the run directory.
///
/// # Errors
/// A sentence naming the first that it cannot read.
pub fn check_states(run: &Path) -> Result<(), String> {
    let entries = fs::read_dir(run.join("services")).map_err(|error| format!("{}: {error}", run.display()))?;
    for entry in entries.flatten() {
        let path = entry.path().join(saved::NAME);
        let bytes = fs::read(&path).unwrap_or_default();
        if !bytes.is_empty() && saved::decode(&bytes).is_none() {
            return Err(format!("the state {} is of another version", path.display()));
        }
    }
    Ok(())
}

/// The number of a descriptor as a word.
pub fn word(fd: &OwnedFd) -> String {
    fd.as_raw_fd().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Text {
        Text {
            origin: Origin { config: Some("/etc/coracle/config.json".into()), detached: true },
            run: "/run/coracle".into(),
            lock: 4,
            control: 9,
            sockets: vec![("web".into(), 11), ("web".into(), 12)],
            rest: vec![13],
        }
    }

    #[test]
    fn a_text_comes_back_and_later_keys_are_skipped() {
        assert_eq!(Text::parse(&sample().write()), Ok(sample()));
        assert_eq!(Text::parse(&(sample().write() + "later thing\n")), Ok(sample()));
        let first = Text { origin: Origin::default(), sockets: Vec::new(), rest: Vec::new(), ..sample() };
        assert_eq!(Text::parse(&first.write()), Ok(first));
    }

    #[test]
    fn another_version_and_nonsense_are_refused() {
        let text = sample().write();
        for bad in [
            String::new(),
            text.replace("handover 1", "handover 2"),
            text.replace("lock 4", "lock x"),
            text.replace("lock 4\n", ""),
            text.replace("control 9", "control 1"),
            text.replace("run /", "run "),
            text.replace("socket 11", "socket"),
        ] {
            assert!(Text::parse(&bad).is_err(), "{bad}");
        }
        assert!(Text::of("x").is_err() && Text::of("9999").is_err());
    }

    #[test]
    fn words_say_what_is_handed_over_and_others_nothing() {
        let call = |words: &[&str]| Call::of(&words.iter().map(OsString::from).collect::<Vec<_>>());
        let new = call(&["coracle", "--takeover", "9", "10"]).unwrap();
        assert_eq!((new.text.as_str(), new.back.as_deref(), new.refused), ("9", Some("10"), None));
        let old = call(&["coracle", "--takeover", "9", "-", "it does not like it"]).unwrap();
        assert_eq!((old.back, old.refused.as_deref()), (None, Some("it does not like it")));
        assert_eq!(call(&["coracle", "--takeover", "9", "../x"]).unwrap().back, None);
        for words in [&[][..], &["coracle"], &["coracle", "up"], &["coracle", "--takeover"]] {
            assert_eq!(call(words), None, "{words:?}");
        }
    }

    #[test]
    fn what_is_not_open_is_not_taken() {
        let text = Text { lock: 9998, ..sample() };
        assert!(text.take().unwrap_err().contains("is not open"));
    }
}
