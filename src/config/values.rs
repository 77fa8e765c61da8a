//! Single values: what a text in the config may say, and what it means. Each refusal is a sentence with a way out.

pub mod board;

use crate::base::escaped::Escaped;
use crate::base::limits::{JSON_KEYS, NAME_BYTES, URL_BYTES, VAR_BYTES};
use crate::base::name::{BadName, Name};
use crate::base::signal;
use crate::base::suggest::did_you_mean;
use crate::base::units::{self, BadUnit, Bytes, Millis};
use crate::plan::{Await, CapSet, Feature, Memory, Url, UserSpec, capability};
use core::fmt;
use core::net::SocketAddr;

/// Longest path, in bytes (`PATH_MAX` without the end mark).
const PATH_BYTES: usize = 4095;
/// Longest text that is no path, in bytes: one word of a command or one environment entry.
const TEXT_BYTES: usize = 4095;
/// Highest core that can be pinned to: what `CONFIG_NR_CPUS` reaches on boards.
const CORES: u32 = JSON_KEYS as u32;

/// What is wrong with a value, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong, ending a sentence that began with the key.
    pub message: String,
    /// The way out, if the key's own example does not say it already.
    pub hint: Option<String>,
}

/// A value or what is wrong with it.
pub type Read<T> = Result<T, Box<Complaint>>;

fn complaint(message: fmt::Arguments<'_>, hint: Option<&str>) -> Box<Complaint> {
    Box::new(Complaint { message: message.to_string(), hint: hint.map(Into::into) })
}

fn wrong<T>(message: fmt::Arguments<'_>) -> Read<T> {
    Err(complaint(message, None))
}

fn wrong_hint<T>(message: fmt::Arguments<'_>, hint: &str) -> Read<T> {
    Err(complaint(message, Some(hint)))
}

fn meant(typed: &str, known: &mut dyn Iterator<Item = &str>) -> Option<String> {
    did_you_mean(typed, known).map(|word| format!("did you mean \"{word}\"?"))
}

/// What kind of text a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// Anything without a NUL.
    Any,
    /// A size within these bounds, in bytes.
    Size(u64, u64),
    /// A size, or 0 for none.
    SizeOrNone(u64, u64),
    /// A size or `unlimited`.
    Memory(u64, u64),
    /// A duration within these bounds, in milliseconds.
    Duration(u64, u64),
    /// A duration, or 0 for none.
    DurationOrNone(u64, u64),
    /// A time of day.
    TimeOfDay,
    /// A percentage within these bounds.
    Percent(u32, u32),
    /// A number, a size or `unlimited`.
    Amount,
    /// A [`Name`].
    Name,
    /// A host name.
    HostName,
    /// An absolute path.
    Path,
    /// An absolute path where something can be mounted.
    Target,
    /// A volume's name or an absolute path.
    Source,
    /// A device's path.
    DevicePath,
    /// A usb device.
    Usb,
    /// An image reference.
    Image,
    /// `KEY=value`.
    Env,
    /// `user` or `user:group`.
    User,
    /// A signal.
    Signal,
    /// A capability.
    Capability,
    /// A list of cores.
    Cpus,
    /// `name`, `name:started` and so on, or something of the board.
    Need,
    /// A word of [`Feature`].
    Feature,
    /// One line of text.
    Line,
    /// The name of a variable.
    VarName,
    /// The value of a variable.
    VarValue,
    /// A path whose last part may hold `*`.
    Pattern,
    /// What the board mounts.
    BoardSource,
    /// Where the board mounts it.
    BoardTarget,
    /// A file system's type.
    FsType,
    /// Mount options.
    MountOptions,
    /// A kernel module.
    Module,
    /// A kernel parameter.
    Sysctl,
    /// `auto` or a device's path.
    WatchdogDevice,
    /// A path beneath /run.
    SecretTarget,
    /// An address and a port to listen at.
    Address,
    /// An address and a port to connect to.
    Peer,
    /// The permissions of a file, in octal.
    Mode,
    /// `http://ADDRESS:PORT/PATH`.
    Url,
}

/// Checks `text` as `kind`.
pub fn check(kind: Text, text: &str) -> Read<()> {
    match kind {
        Text::Any => any(text),
        Text::Size(min, max) => size(text, min, max).map(drop),
        Text::SizeOrNone(min, max) => size_or_none(text, min, max).map(drop),
        Text::Memory(min, max) => memory(text, min, max).map(drop),
        Text::Duration(min, max) => duration(text, min, max).map(drop),
        Text::DurationOrNone(min, max) => duration_or_none(text, min, max).map(drop),
        Text::TimeOfDay => time_of_day(text).map(drop),
        Text::Percent(min, max) => percent(text, min, max).map(drop),
        Text::Amount => amount(text).map(drop),
        Text::Name => name(text).map(drop),
        Text::HostName => host_name(text),
        Text::Path => path(text),
        Text::Target => target(text),
        Text::Source => source(text),
        Text::DevicePath => device_path(text),
        Text::Usb => board::usb(text),
        Text::Image => image(text),
        Text::Env => env(text),
        Text::User => user(text).map(drop),
        Text::Signal => stop_signal(text).map(drop),
        Text::Capability => cap(text).map(drop),
        Text::Cpus => cpus(text),
        Text::Need => need(text).map(drop),
        Text::Feature => feature(text).map(drop),
        Text::Line => board::line(text),
        Text::VarName => var_name(text),
        Text::VarValue => var_value(text),
        Text::Pattern => pattern(text),
        Text::BoardSource => board::source(text),
        Text::BoardTarget => board::target(text),
        Text::FsType => board::fs_type(text),
        Text::MountOptions => board::mount_options(text),
        Text::Module => board::module(text),
        Text::Sysctl => board::sysctl(text),
        Text::WatchdogDevice => board::watchdog_device(text),
        Text::SecretTarget => board::secret_target(text),
        Text::Address => board::address(text),
        Text::Peer => address(text).map(drop),
        Text::Mode => board::mode(text).map(drop),
        Text::Url => url(text).map(drop),
    }
}

fn any(text: &str) -> Read<()> {
    if text.contains('\0') {
        return wrong(format_args!("holds a NUL character, which no program can be given"));
    }
    if text.len() > TEXT_BYTES {
        return wrong(format_args!("is {} bytes long, more than {TEXT_BYTES}", text.len()));
    }
    Ok(())
}

fn unit<T>(result: Result<T, BadUnit>, text: &str, form: &str) -> Read<T> {
    result.or_else(|bad| {
        let why = match bad {
            BadUnit::NoNumber => "does not begin with a whole number",
            BadUnit::BadSuffix => "has no unit that is known here",
            BadUnit::TooLarge => "is too large a number",
        };
        wrong_hint(format_args!("is {text:?}, which {why}"), form)
    })
}

fn within<T: PartialOrd + core::fmt::Display>(value: T, min: T, max: T) -> Read<T> {
    if value < min {
        return wrong(format_args!("is {value}, less than the least possible {min}"));
    }
    if value > max {
        return wrong(format_args!("is {value}, more than the largest possible {max}"));
    }
    Ok(value)
}

/// How a size is written.
const SIZE_FORM: &str = "a size is a whole number followed by K, M or G (powers of 1024), such as \"24M\"";
/// How a duration is written.
const DURATION_FORM: &str = "a duration is a whole number followed by ms, s, m or h, such as \"30s\"";
/// How a percentage is written.
const PERCENT_FORM: &str = "a share is a whole number followed by %, such as \"25%\"; \"100%\" is one core";

/// A size between `min` and `max` bytes.
pub fn size(text: &str, min: u64, max: u64) -> Read<Bytes> {
    let form = || format!("{SIZE_FORM}; \"1.5G\" is written \"1536M\"");
    let form = if text.contains('.') { form() } else { SIZE_FORM.into() };
    let bytes = unit(units::parse_bytes(text), text, &form)?;
    let bare = text.bytes().all(|byte| byte.is_ascii_digit());
    if bare && bytes.0 < min {
        return wrong_hint(
            format_args!("is {} bytes, less than the least possible {}", bytes.0, Bytes(min)),
            &format!("was a unit forgotten? \"{text}M\" is {text} megabytes"),
        );
    }
    within(bytes, Bytes(min), Bytes(max))
}

/// 0, or a size between `min` and `max` bytes.
pub fn size_or_none(text: &str, min: u64, max: u64) -> Read<Bytes> {
    if text == "0" { Ok(Bytes(0)) } else { size(text, min, max) }
}

/// `unlimited`, or a size between `min` and `max` bytes.
pub fn memory(text: &str, min: u64, max: u64) -> Read<Memory> {
    if text == "unlimited" {
        return Ok(Memory::Unlimited);
    }
    if let Some(hint) = meant(text, &mut ["unlimited"].into_iter()) {
        return wrong_hint(format_args!("is {text:?}, which is no size"), &hint);
    }
    size(text, min, max).map(Memory::Max)
}

/// A duration between `min` and `max` milliseconds.
pub fn duration(text: &str, min: u64, max: u64) -> Read<Millis> {
    let form = match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        true => format!("a duration needs a unit: \"{text}s\" is {text} seconds (ms, s, m, h)"),
        false => DURATION_FORM.into(),
    };
    within(unit(units::parse_duration(text), text, &form)?, Millis(min), Millis(max))
}

/// 0, or a duration between `min` and `max` milliseconds.
pub fn duration_or_none(text: &str, min: u64, max: u64) -> Read<Millis> {
    if text == "0" { Ok(Millis(0)) } else { duration(text, min, max) }
}

/// A time of day as `HH:MM` or `HH:MM:SS`: the time since midnight.
pub fn time_of_day(text: &str) -> Read<Millis> {
    let number = |part: &str, bound: u64| match part.as_bytes() {
        [a, b] if a.is_ascii_digit() && b.is_ascii_digit() => part.parse().ok().filter(|number| *number < bound),
        _ => None,
    };
    let mut parts = text.split(':');
    let mut next = |bound| parts.next().map(|part| number(part, bound));
    match (next(24), next(60), next(60).unwrap_or(Some(0)), next(1)) {
        (Some(Some(hours)), Some(Some(minutes)), Some(seconds), None) => {
            Ok(Millis::from_secs((hours * 60 + minutes) * 60 + seconds))
        }
        _ => wrong_hint(
            format_args!("is {text:?}, which is no time of day"),
            "write it as \"03:30\" or \"03:30:15\", in UTC",
        ),
    }
}

/// A percentage of one core between `min` and `max`.
pub fn percent(text: &str, min: u32, max: u32) -> Read<u32> {
    let value = unit(units::parse_percent(text), text, PERCENT_FORM)?;
    if !(min..=max).contains(&value) {
        return wrong(format_args!("is {value}%, outside of what is possible ({min}% to {max}%)"));
    }
    Ok(value)
}

/// `unlimited` (`u64::MAX`), a number or a size.
pub fn amount(text: &str) -> Read<u64> {
    if text == "unlimited" {
        return Ok(u64::MAX);
    }
    unit(units::parse_bytes(text), text, "a whole number such as \"1024\", a size such as \"64M\", or \"unlimited\"")
        .map(|bytes| bytes.0)
}

/// A service's or volume's name.
pub fn name(text: &str) -> Read<Name> {
    Name::new(text).map_err(|bad| {
        let lower = text.to_ascii_lowercase().replace([' ', '/', ':'], "-");
        let hint = match (bad, Name::new(&lower)) {
            (BadName::BadStart(_) | BadName::BadChar(_), Ok(good)) => Some(format!("\"{good}\" would do")),
            _ => None,
        };
        complaint(format_args!("is {text:?}: {bad}"), hint.as_deref())
    })
}

/// A host name: letters, digits, `-` and `.`.
fn host_name(text: &str) -> Read<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if text.is_empty() || text.len() > NAME_BYTES || !text.chars().all(good) || text.starts_with(['-', '.']) {
        let rule = "letters, digits, '-' and '.', beginning with a letter or digit";
        return wrong(format_args!("is {text:?}; a host name has 1 to {NAME_BYTES} {rule}"));
    }
    Ok(())
}

/// An absolute path without `..`.
pub fn path(text: &str) -> Read<()> {
    if !text.starts_with('/') {
        return wrong_hint(
            format_args!("is {text:?}, which is not absolute"),
            &format!("write \"/{}\" or the full path", Escaped(text)),
        );
    }
    components(text)
}

fn components(text: &str) -> Read<()> {
    if text.len() > PATH_BYTES {
        return wrong(format_args!("is {} bytes long; a path has at most {PATH_BYTES}", text.len()));
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return wrong(format_args!("is {text:?}, which holds the control character {c:?}"));
    }
    if text.split('/').any(|part| part == "..") {
        return wrong_hint(format_args!("is {text:?}, which goes up through \"..\""), "write where the path leads");
    }
    Ok(())
}

/// The name of a variable.
pub fn var_name(text: &str) -> Read<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if text.is_empty() || text.len() > NAME_BYTES || !text.bytes().all(good) {
        return wrong(format_args!("is {text:?}; a variable's name has 1 to {NAME_BYTES} letters, digits and '_'"));
    }
    Ok(())
}

fn var_value(text: &str) -> Read<()> {
    if text.len() > VAR_BYTES {
        return wrong(format_args!("is {} bytes long, more than {VAR_BYTES}", text.len()));
    }
    board::line(text)
}

/// A path whose last part may hold `*`.
fn pattern(text: &str) -> Read<()> {
    path(text)?;
    let (folder, last) = text.rsplit_once('/').unwrap_or(("", text));
    if last.is_empty() || last == "." {
        return wrong_hint(format_args!("is {text:?}, which is a folder"), &format!("write \"{}/*.json\"", folder));
    }
    if folder.contains('*') {
        return wrong_hint(format_args!("is {text:?}; a '*' can only stand in the last part"), "name each folder");
    }
    if let Some(c) = last.chars().find(|c| matches!(c, '?' | '[' | ']' | '{' | '}')) {
        return wrong(format_args!("is {text:?}; {c:?} has no meaning here, only '*' has"));
    }
    Ok(())
}

/// The parts of a path that name something, so that `/a//b/./` is `/a/b`.
pub fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// A place where something can be mounted.
pub fn target(text: &str) -> Read<()> {
    path(text)?;
    let mut parts = parts(text);
    match (parts.next(), parts.next()) {
        (None, _) => {
            wrong_hint(format_args!("is \"/\", which would hide the whole image"), "mount on a folder beneath it")
        }
        (Some("proc"), _) => {
            wrong_hint(format_args!("is {text:?}; nothing can be mounted in /proc"), "choose another place")
        }
        (Some(own @ ("sys" | "dev")), None) => wrong_hint(
            format_args!("is {text:?}, which coracle mounts itself"),
            &format!("mount beneath /{own}, or list single devices under \"devices\""),
        ),
        _ => Ok(()),
    }
}

/// A volume's name or a path: which of the two the mount's type says.
fn source(text: &str) -> Read<()> {
    if text.starts_with('/') { path(text) } else { name(text).map(drop) }
}

fn device_path(text: &str) -> Read<()> {
    if !text.starts_with('/') {
        return wrong_hint(format_args!("is {text:?}, which is not absolute"), &format!("write \"/dev/{text}\""));
    }
    path(text)?;
    let mut parts = parts(text);
    if parts.next() != Some("dev") || parts.next().is_none() {
        return wrong(format_args!("is {text:?}; a device's path begins with /dev/"));
    }
    Ok(())
}

/// `FILE`, `FILE#name:tag` or `FILE#sha256:<64 digits>`.
fn image(text: &str) -> Read<()> {
    let (file, inside) = match text.rsplit_once('#') {
        Some((file, inside)) => (file, Some(inside)),
        None => (text, None),
    };
    if parts(file).next().is_none() {
        return wrong(format_args!("is {text:?}, which names no file"));
    }
    components(file)?;
    let Some(inside) = inside else { return Ok(()) };
    if let Some(digest) = inside.strip_prefix("sha256:") {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digest.len() != 64 || !digest.bytes().all(hex) {
            return wrong(format_args!("is {text:?}; after \"sha256:\" come 64 digits of 0-9 and a-f"));
        }
        return Ok(());
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@');
    if inside.is_empty() || !inside.chars().all(good) {
        return wrong(format_args!("is {text:?}; after '#' comes \"name:tag\" or \"sha256:...\""));
    }
    Ok(())
}

/// An environment entry's key.
pub fn env_key(text: &str) -> &str {
    text.split_once('=').map_or(text, |(key, _)| key)
}

fn env(text: &str) -> Read<()> {
    any(text)?;
    match text.split_once('=') {
        None => wrong(format_args!("holds {text:?}, which is not KEY=value")),
        Some(("", _)) => wrong(format_args!("holds {text:?}, which has no key before the '='")),
        Some((key, _)) if key.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            wrong(format_args!("holds the key {key:?}, with white space in it"))
        }
        Some(_) => Ok(()),
    }
}

/// `user`, `user:group`, by name or number.
pub fn user(text: &str) -> Read<UserSpec> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let good = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
        // The highest number means "no change" to setresuid(2).
        true => part.parse::<u32>().is_ok_and(|id| id != u32::MAX),
        false => !part.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | ',')),
    };
    if user.is_empty() || group == Some("") || !good(user) || !group.is_none_or(good) {
        return wrong(format_args!("is {text:?}, which is neither \"user\" nor \"user:group\" (names or numbers)"));
    }
    Ok(UserSpec { user: user.into(), group: group.map(Into::into) })
}

/// A signal that can end a program.
pub fn stop_signal(text: &str) -> Read<u8> {
    let Some(number) = signal::number(text) else {
        let bare = text.to_ascii_uppercase();
        let bare = bare.strip_prefix("SIG").unwrap_or(&bare);
        let hint = meant(bare, &mut signal::NAMES.iter().map(|(name, _)| *name));
        return Err(complaint(format_args!("is {text:?}, which is no signal"), hint.as_deref()));
    };
    match signal::name(number) {
        Some(name @ ("STOP" | "TSTP" | "CONT" | "CHLD")) => wrong_hint(
            format_args!("is {name}, which ends no program"),
            "use TERM, INT, QUIT or what the program documents",
        ),
        _ => Ok(number),
    }
}

/// A capability's number.
pub fn cap(text: &str) -> Read<u8> {
    CapSet::number(text).ok_or_else(|| {
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let hint = match bare {
            "ALL" => Some("name each capability that the program needs".into()),
            _ => meant(bare, &mut capability::NAMES.into_iter()),
        };
        complaint(format_args!("holds {text:?}, which is no capability"), hint.as_deref())
    })
}

/// An address with a port.
pub fn address(text: &str) -> Read<SocketAddr> {
    let form = "write a number and a port, such as \"127.0.0.1:1883\" or \"[::1]:1883\": nothing is looked up";
    text.parse().or_else(|_| wrong_hint(format_args!("is {text:?}, which is no address with a port"), form))
}

/// What is asked for over HTTP.
pub fn url(text: &str) -> Read<Url> {
    if text.len() > URL_BYTES {
        return wrong(format_args!("is {} bytes long, more than {URL_BYTES}", text.len()));
    }
    let form = "write \"http://127.0.0.1:8080/path\", the host as a number: nothing is looked up";
    Url::parse(text).map_or_else(|| wrong_hint(format_args!("is {text:?}, which cannot be asked for"), form), Ok)
}

/// A list of cores as the kernel writes it: `0-1,3`.
fn cpus(text: &str) -> Read<()> {
    let core = |text: &str| -> Option<u32> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|core| digits && *core < CORES)
    };
    let good = |range: &str| match range.split_once('-') {
        Some((first, last)) => matches!((core(first), core(last)), (Some(first), Some(last)) if first <= last),
        None => core(range).is_some(),
    };
    if !text.split(',').all(good) {
        return wrong(format_args!("is {text:?}, which is no list of cores"));
    }
    Ok(())
}

/// When a need for a service counts as met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The service runs.
    Started,
    /// The daemon is ready.
    Ready,
    /// The oneshot is done.
    Done,
    /// The service is not on its way any more.
    Soft,
}

/// What an entry of `needs` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needed {
    /// A service, and when it counts as met, if it says so.
    Service(Name, Option<Until>),
    /// Something of the board.
    Board(Await),
}

/// What an entry of `needs` names.
pub fn need(text: &str) -> Read<Needed> {
    let (service, until) = match text.split_once(':') {
        Some(("mount", place)) => return path(place).map(|()| Needed::Board(Await::Mount(place.into()))),
        Some(("path", place)) => return path(place).map(|()| Needed::Board(Await::Path(place.into()))),
        Some(("link", link)) => return board::link(link).map(|()| Needed::Board(Await::Link(link.into()))),
        Some((service, "started")) => (service, Some(Until::Started)),
        Some((service, "ready")) => (service, Some(Until::Ready)),
        Some((service, "done")) => (service, Some(Until::Done)),
        Some((service, "soft")) => (service, Some(Until::Soft)),
        Some((_, condition)) => {
            let form = "write \"name\" with nothing, \":started\", \":ready\", \":soft\" or, of a oneshot, \":done\" \
                        behind it, \"mount:/path\", \"path:/path\", \"link:name\" or \"clock\"";
            return wrong_hint(format_args!("holds {text:?}, whose condition {condition:?} is not known"), form);
        }
        None if text == "clock" => return Ok(Needed::Board(Await::Clock)),
        None => (text, None),
    };
    Ok(Needed::Service(name(service)?, until))
}

/// What a kernel may lack.
pub fn feature(text: &str) -> Read<Feature> {
    Feature::from_word(text).ok_or_else(|| {
        let words = Feature::ALL.map(Feature::word);
        let hint = meant(text, &mut words.into_iter()).unwrap_or_else(|| format!("known: {}", words.join(", ")));
        complaint(format_args!("holds {text:?}, which is not known"), Some(&hint))
    })
}

/// `text` with its escapes decoded, borrowed if it has none.
pub fn decoded(raw: &str) -> std::borrow::Cow<'_, str> {
    match raw.contains('\\') {
        true => crate::base::json::decode(raw).collect::<String>().into(),
        false => raw.into(),
    }
}
