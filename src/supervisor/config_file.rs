//! Reading a config safely, with the files that it names, and making the plan of it, for every command that takes one.

use super::board::Files;
use crate::base::limits::{CONFIG_BYTES, CONFIG_FILES};
use crate::base::read::{read_sized, read_up_to};
use crate::config::{self, Input, Problems, Source, Value, Warning, include};
use crate::plan::Plan;
use core::fmt;
use std::fs::{Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use twox_hash::XxHash64;

/// The config file unless another one is named.
pub const DEFAULT: &str = "/etc/coracle/config.json";

/// Why a config file gave no plan.
#[derive(Debug)]
pub enum Fault {
    /// It could not be read; a sentence.
    Unreadable(String),
    /// It was read, and is wrong.
    Problems(Problems),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unreadable(sentence) => f.write_str(sentence),
            Fault::Problems(problems) => write!(f, "{problems}"),
        }
    }
}

/// The first line of a config that is kept as one text.
const KEPT: &[u8] = b"coracle-config 1\n";
/// Largest text kept: a config with the names of its files.
pub const KEPT_BYTES: u64 = (CONFIG_BYTES + CONFIG_FILES * 4096) as u64;

/// Bytes read of a file that a variable names: more than a variable may have, so that what is too long is seen.
const VAR_FILE_BYTES: u64 = 4096;

/// Reads and judges the config at `path`.
///
/// Read are that file; the regular files that its `include` names, which each exist at the moment; and the start of every
/// file that a variable of these names. Nothing is written, and nothing but regular files is opened. A file that is named
/// and cannot be read makes the config unreadable; one that is not there does not.
pub fn load(path: &Path) -> Result<(Plan, Vec<Warning>), Fault> {
    let texts = Texts::read(path, &Files::here()).map_err(Fault::Unreadable)?;
    texts.load().map_err(Fault::Problems)
}

/// A file as it was read, and what messages call it.
#[derive(Debug)]
struct Text {
    name: String,
    bytes: Vec<u8>,
}

impl Text {
    fn source(&self) -> Source<'_> {
        Source { name: &self.name, bytes: &self.bytes }
    }
}

/// A config as it was read.
#[derive(Debug, Default)]
pub struct Texts {
    /// Its files, the main one first.
    files: Vec<Text>,
    /// What the files of its variables hold.
    values: Vec<Value>,
    /// Entries of `include` that name a single file which is not there.
    absent: Vec<Box<str>>,
}

impl Texts {
    /// Reads the config at `path` of this machine; what it names is looked for among the board's `files`.
    pub fn read(path: &Path, files: &Files) -> Result<Texts, String> {
        let mut texts = Texts::alone(path)?;
        let include::Named { include: included, vars } = texts.named(0);
        // Only to tell files apart.
        let mut places = Vec::new();
        if !included.is_empty()
            && let Ok(place) = std::fs::canonicalize(path)
        {
            places.push(place);
        }
        let mut sum: usize = texts.files.iter().map(|file| file.bytes.len()).sum();
        for pattern in included {
            let found = matches(&pattern, files)?;
            if found.is_empty() && !pattern.contains('*') {
                texts.absent.push(pattern);
            }
            for (name, place) in found {
                // Of what is too much, the first file is enough to be refused.
                if sum > CONFIG_BYTES || texts.files.len() > CONFIG_FILES {
                    return Ok(texts);
                }
                if !places.contains(&place) {
                    let bytes = read(&place)?;
                    sum += bytes.len();
                    texts.files.push(Text { name, bytes });
                    places.push(place);
                }
            }
        }
        texts.read_values(vars, files);
        Ok(texts)
    }

    /// Names and bytes of its files, the main one first.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|file| (file.name.as_str(), file.bytes.as_slice()))
    }

    /// Reads what the variables of all files name; `named`: those of the main one.
    fn read_values(&mut self, mut named: Vec<Box<str>>, files: &Files) {
        for number in 0..self.files.len() {
            if number > 0 {
                named = self.named(number).vars;
            }
            for file in named.drain(..) {
                self.values.extend(value(file, files));
            }
        }
    }

    /// All files of the config as one text, for [`Texts::of_kept`]: a first line, then for each file a line with the lengths
    /// of its name and of itself, the name, the file.
    pub fn to_kept(&self) -> Vec<u8> {
        let mut kept = KEPT.to_vec();
        for Text { name, bytes } in &self.files {
            kept.extend_from_slice(format!("{} {}\n{name}", name.len(), bytes.len()).as_bytes());
            kept.extend_from_slice(bytes);
        }
        kept
    }

    /// The config that [`Texts::to_kept`] wrote down. Nothing but what its variables name is looked for on the board.
    ///
    /// # Errors
    /// Half a sentence: what is wrong with it.
    pub fn of_kept(kept: &[u8], files: &Files) -> Result<Texts, &'static str> {
        let mut texts = Texts::default();
        let mut rest = kept.strip_prefix(KEPT).ok_or("is not of this version")?;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, more) = rest.split_at(end);
            let lengths = str::from_utf8(line).ok().and_then(|line| line.split_once(' '));
            let lengths = lengths.and_then(|(name, file)| Some((name.parse().ok()?, file.parse().ok()?)));
            let (name, file): (usize, usize) = lengths.ok_or("is damaged")?;
            let (name, more) = more.get(1..).and_then(|more| more.split_at_checked(name)).ok_or("is cut short")?;
            let (bytes, more) = more.split_at_checked(file).ok_or("is cut short")?;
            let name = String::from_utf8_lossy(name).into_owned();
            texts.files.push(Text { name, bytes: bytes.to_vec() });
            rest = more;
        }
        if !rest.is_empty() || texts.files.is_empty() {
            return Err("is cut short");
        }
        texts.read_values(texts.named(0).vars, files);
        Ok(texts)
    }

    /// Reads the file at `path` and nothing that it names.
    pub fn alone(path: &Path) -> Result<Texts, String> {
        let main = Text { name: path.display().to_string(), bytes: read(path)? };
        Ok(Texts { files: vec![main], ..Texts::default() })
    }

    /// The number of files.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Judges what was read.
    pub fn load(&self) -> Result<(Plan, Vec<Warning>), Problems> {
        let input = Input { sources: &self.sources(), values: &self.values, absent: &self.absent };
        let (plan, warnings) = config::load_all(&input)?;
        Ok((Plan { digest: self.digest(), ..plan }, warnings))
    }

    /// The plan of what nothing is wrong with.
    pub fn salvage(&self) -> Plan {
        config::salvage(&Input { sources: &self.sources(), values: &self.values, absent: &self.absent })
    }

    /// A checksum of all that a plan is made from.
    fn digest(&self) -> u64 {
        let files = self.files.iter().map(|file| &*file.bytes);
        let values = self.values.iter().filter_map(|value| value.contents.as_deref().ok());
        files.chain(values).fold(1, XxHash64::oneshot)
    }

    fn sources(&self) -> Vec<Source<'_>> {
        self.files.iter().map(Text::source).collect()
    }

    fn named(&self, number: usize) -> include::Named {
        self.files.get(number).map(|file| include::named(file.source(), number > 0)).unwrap_or_default()
    }
}

/// The files that a pattern stands for, sorted by name: as they are shown, and where they are on this machine.
fn matches(pattern: &str, files: &Files) -> Result<Vec<(String, PathBuf)>, String> {
    let (folder, last) = include::split(pattern);
    let mut names = Vec::new();
    if last.contains('*') {
        let place = match files.place(Path::new(folder)) {
            Ok(place) => place,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(format!("cannot look into {}: {error}", files.shown(Path::new(folder)))),
        };
        let failed = |error: std::io::Error| format!("cannot look into {}: {error}", place.display());
        for entry in std::fs::read_dir(&place).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if include::fits(last.as_bytes(), name.as_bytes()) {
                names.push(name);
            }
            if names.len() > CONFIG_FILES {
                return Err(format!("{pattern:?} stands for more than the {CONFIG_FILES} files of a config"));
            }
        }
        crate::base::sort::sort(&mut names);
    } else {
        names.push(last.into());
    }
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let path = Path::new(folder).join(name);
        match files.place(&path) {
            Ok(place) => found.push((files.shown(&path), place)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot find the config file {}: {error}", files.shown(&path))),
        }
    }
    Ok(found)
}

/// What a variable's file holds; `None` where there is none.
fn value(file: Box<str>, files: &Files) -> Option<Value> {
    let start = |place: PathBuf| -> std::io::Result<Vec<u8>> {
        let regular = |found: Metadata| match found.is_file() {
            true => Ok(()),
            false => Err(std::io::Error::other("it is no regular file")),
        };
        regular(std::fs::metadata(&place)?)?;
        let mut opened = open(&place)?;
        regular(opened.metadata()?)?;
        read_up_to(&mut opened, VAR_FILE_BYTES)
    };
    match files.place(Path::new(&*file)).and_then(start) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        result => Some(Value { file, contents: result.map_err(|error| format!("cannot be read: {error}")) }),
    }
}

/// Opens a file for reading, so that neither a FIFO nor a terminal can hold it up.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// The bytes of the file at `path`: a regular file of at most [`CONFIG_BYTES`] that does not change meanwhile.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let fail = |action: &str, error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no config file {shown}; name the one that is meant"),
        _ => format!("cannot {action} the config file {shown}: {error}"),
    };
    // A device can react to being opened, so the kind is looked at before and after.
    regular(path, &std::fs::metadata(path).map_err(|error| fail("open", error))?)?;
    let mut file = open(path).map_err(|error| fail("open", error))?;
    let before = file.metadata().map_err(|error| fail("look at", error))?;
    regular(path, &before)?;
    let read = read_sized(&mut file, before.size(), CONFIG_BYTES as u64 + 1);
    let bytes = read.map_err(|error| fail("read", error))?;
    if bytes.len() > CONFIG_BYTES {
        return Err(format!("the config file {shown} has more than the {CONFIG_BYTES} bytes that a config may have"));
    }
    let after = file.metadata().map_err(|error| fail("look at", error))?;
    let state = |file: &Metadata| (file.size(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
    if state(&before) != state(&after) || before.size() != bytes.len() as u64 {
        return Err(format!("the config file {shown} changed while it was read; try again once it is written"));
    }
    Ok(bytes)
}

fn regular(path: &Path, found: &Metadata) -> Result<(), String> {
    let kind = found.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(format!("the config must be a regular file, and {} is {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    #[test]
    fn only_a_regular_file_of_bearable_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        std::fs::write(at("large"), vec![b' '; CONFIG_BYTES + 1]).unwrap();
        std::fs::write(at("good"), "{}").unwrap();
        std::os::unix::fs::symlink("good", at("link")).unwrap();
        assert_eq!(read(&at("good")).unwrap(), b"{}");
        assert_eq!(read(&at("link")).unwrap(), b"{}");
        assert!(read(&at("fifo")).unwrap_err().ends_with("fifo is a FIFO"));
        assert!(read(folder.path()).unwrap_err().ends_with("is a folder"));
        assert!(read(Path::new("/dev/zero")).unwrap_err().ends_with("/dev/zero is a device"));
        assert!(read(&at("large")).unwrap_err().contains("has more than the 262144 bytes"));
        assert!(read(&at("none")).unwrap_err().starts_with("there is no config file"));
    }

    /// A board's root with these files.
    fn root(contents: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in contents {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn service(name: &str) -> String {
        format!(
            r#"{{ "services": [ {{ "name": "{name}", "image": "/a", "limits": {{ "memory": "1M" }}, "env": ["S=${{s}}"] }} ] }}"#
        )
    }

    const MAIN: &str = r#"{ "version": 1, "include": ["/etc/d/*.json", "/etc/*.json", "/data/extra.json"], "services": [],
        "vars": [ { "name": "s", "file": "/sys/serial", "default": "none" } ] }"#;

    #[test]
    fn included_files_are_read_once_sorted_by_name_below_the_root() {
        let root = root(&[
            ("etc/main.json", MAIN),
            ("etc/d/b.json", &service("b")),
            ("etc/d/a.json", &service("a")),
            ("etc/d/c.json~", "no json"),
            ("etc/d/.d.json", "no json"),
            ("factory/data/extra.json", &service("extra")),
            ("sys/serial", "17\n"),
        ]);
        std::os::unix::fs::symlink("/factory/data", root.path().join("data")).unwrap();
        std::os::unix::fs::symlink("/etc/d/a.json", root.path().join("etc/d/again.json")).unwrap();
        let texts = Texts::read(&root.path().join("etc/main.json"), &Files::beneath(root.path())).unwrap();
        let (plan, warnings) = texts.load().unwrap();
        assert_eq!(warnings, []);
        assert_eq!(plan.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["a", "b", "extra"]);
        assert_eq!((&*plan.services[0].env[0], texts.count()), ("S=17", 4));
    }

    #[test]
    fn a_kept_config_is_read_as_it_was_and_a_damaged_one_not_at_all() {
        let root = root(&[("etc/main.json", MAIN), ("etc/d/a.json", &service("a")), ("sys/serial", "17\n")]);
        let files = Files::beneath(root.path());
        let kept = Texts::read(&root.path().join("etc/main.json"), &files).unwrap().to_kept();
        std::fs::remove_dir_all(root.path().join("etc")).unwrap();
        let (plan, _) = Texts::of_kept(&kept, &files).unwrap().load().unwrap();
        assert_eq!((plan.services[0].name.as_str(), &*plan.services[0].env[0]), ("a", "S=17"));
        for length in 0..kept.len() {
            let whole = Texts::of_kept(&kept[..length], &files);
            // Only between two files it cannot be seen, and then the first is whole.
            assert!(whole.is_err() || whole.unwrap().count() == 1, "{length}");
        }
        assert!(Texts::of_kept(b"coracle-config 1\n99999999999999999999 1\n", &files).is_err());
        assert!(Texts::of_kept(b"{}", &files).is_err());
    }

    #[test]
    fn a_named_file_that_is_missing_is_told_and_one_that_is_no_file_is_refused() {
        let root = root(&[("etc/main.json", MAIN), ("sys/serial/folder", "")]);
        let read = || Texts::read(&root.path().join("etc/main.json"), &Files::beneath(root.path()));
        let (_, warnings) = read().unwrap().load().unwrap();
        let told: Vec<&str> = warnings.iter().map(|warning| warning.message.as_str()).collect();
        assert_eq!(told, ["there is no such file", "what /sys/serial holds cannot be read: it is no regular file"]);
        std::fs::create_dir(root.path().join("data")).unwrap();
        nix::unistd::mkfifo(&root.path().join("data/extra.json"), Mode::S_IRWXU).unwrap();
        assert!(read().unwrap_err().ends_with("data/extra.json is a FIFO"));
    }

    #[test]
    fn too_many_included_files_are_refused_before_they_are_read() {
        let many: Vec<String> = (0..=CONFIG_FILES).map(|number| format!("etc/d/{number}.json")).collect();
        let mut contents: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "{}")).collect();
        contents.push(("etc/main.json", MAIN));
        let root = root(&contents);
        let read = Texts::read(&root.path().join("etc/main.json"), &Files::beneath(root.path()));
        assert_eq!(read.unwrap_err(), "\"/etc/d/*.json\" stands for more than the 64 files of a config");
    }
}
