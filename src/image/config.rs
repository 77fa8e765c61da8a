//! An image's config: what its author says about the process. Nothing of it steers the host: labels, volumes and ports
//! are not even read (OCI image-spec, config.md), and its health check counts only where the config asks for it.
#![forbid(unsafe_code)]

use super::ImageError;
use super::digest::Digest;
use super::platform::Platform;
use super::text::{List, need, parse, text, texts};
use crate::base::escaped::Escaped;
use crate::base::limits::{ARGV, ENV, LAYERS};
use crate::base::signal;
use crate::base::units::Millis;
use crate::objects;
use crate::plan::Times;

/// What an image says about the process that runs in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// The words before the command.
    pub entrypoint: Vec<Box<str>>,
    /// The command, or the default arguments of the entrypoint.
    pub cmd: Vec<Box<str>>,
    /// `KEY=value`.
    pub env: Vec<Box<str>>,
    /// `user`, `uid`, `user:group`, `uid:gid`; empty: root.
    pub user: Box<str>,
    /// Absolute; empty: `/`.
    pub working_dir: Box<str>,
    /// The signal that asks it to end; `None`: TERM.
    pub stop_signal: Option<u8>,
    /// How it is asked whether it works (HEALTHCHECK); `None`: it does not say.
    pub health: Option<Box<HealthCheck>>,
    /// What it was built for; `None`: it does not say (a rootfs tarball, a rootfs folder).
    pub platform: Option<Platform>,
}

impl ImageConfig {
    /// The config of a plain rootfs, which says nothing.
    pub fn empty() -> ImageConfig {
        ImageConfig {
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            user: "".into(),
            working_dir: "".into(),
            stop_signal: None,
            health: None,
            platform: None,
        }
    }
}

/// An image's HEALTHCHECK, as Docker means it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Program and arguments.
    pub command: Vec<Box<str>>,
    /// All of it is said.
    pub times: Times,
}

/// An image's config with the diff IDs of its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedConfig {
    /// About the process.
    pub config: ImageConfig,
    /// SHA-256 of each layer's uncompressed tar stream.
    pub diff_ids: Vec<Digest>,
}

objects! {
    struct RawConfig<'a> {
        architecture: Option<&'a str>,
        os: Option<&'a str>,
        variant: Option<&'a str>,
        config: RawProcess<'a>,
        rootfs: Option<RawRootFs<'a>>,
        media_type = "mediaType": Option<&'a str>,
        // Fields of a manifest and of an index: a text with one of them is no config (CVE-2021-41190).
        layers: bool,
        manifests: bool,
    }

    struct RawProcess<'a> {
        entrypoint = "Entrypoint": List<&'a str, ARGV>,
        cmd = "Cmd": List<&'a str, ARGV>,
        env = "Env": List<&'a str, ENV>,
        user = "User": Option<&'a str>,
        working_dir = "WorkingDir": Option<&'a str>,
        stop_signal = "StopSignal": Option<&'a str>,
        health = "Healthcheck": Option<RawHealth<'a>>,
    }

    /// Times are nanoseconds; what is 0 or less is not said (Docker's image spec 1.2).
    struct RawHealth<'a> {
        test = "Test": List<&'a str, ARGV>,
        interval = "Interval": Option<i64>,
        timeout = "Timeout": Option<i64>,
        start_period = "StartPeriod": Option<i64>,
        retries = "Retries": Option<i64>,
    }

    struct RawRootFs<'a> {
        kind = "type": Option<&'a str>,
        diff_ids: List<&'a str, LAYERS>,
    }
}

/// Reads an image config, OCI or docker.
pub fn parse_config(bytes: &[u8]) -> Result<ParsedConfig, ImageError> {
    let what = "the image config";
    let raw: RawConfig<'_> = parse(what, bytes)?;
    if raw.layers || raw.manifests {
        return Err(ImageError::invalid(
            &"the image config is a manifest or an index as well; such a double meaning is refused",
        ));
    }
    let media_type = text(raw.media_type);
    if !matches!(&*media_type, "" | super::manifest::OCI_CONFIG | super::manifest::DOCKER_CONFIG) {
        return Err(ImageError::invalid(&format_args!("the image config calls itself \"{}\"", Escaped(&media_type))));
    }
    let rootfs = need(what, "rootfs", raw.rootfs)?;
    let kind = text(rootfs.kind);
    if !matches!(&*kind, "" | "layers") {
        let found = Escaped(&kind);
        return Err(ImageError::invalid(&format_args!(
            "the image config's rootfs.type is \"{found}\", must be \"layers\""
        )));
    }
    let mut diff_ids = Vec::new();
    for text in texts(&rootfs.diff_ids) {
        let id = Digest::parse(&text).ok_or_else(|| {
            ImageError::invalid(&format_args!("the image config's diff ID \"{}\" is no sha256 digest", Escaped(&text)))
        })?;
        diff_ids.push(id);
    }
    let process = raw.config;
    let config = ImageConfig {
        entrypoint: words("Entrypoint", texts(&process.entrypoint))?,
        cmd: words("Cmd", texts(&process.cmd))?,
        env: env(texts(&process.env))?,
        user: no_nul("User", text(process.user))?,
        working_dir: working_dir(text(process.working_dir))?,
        stop_signal: stop_signal(&text(process.stop_signal))?,
        health: process.health.map(health).transpose()?.flatten(),
        platform: platform(text(raw.os), text(raw.architecture), text(raw.variant)),
    };
    Ok(ParsedConfig { config, diff_ids })
}

fn platform(os: Box<str>, architecture: Box<str>, variant: Box<str>) -> Option<Platform> {
    if architecture.is_empty() {
        return None;
    }
    let os = if os.is_empty() { "linux".into() } else { os };
    Some(Platform { os, architecture, variant })
}

fn no_nul(field: &str, text: Box<str>) -> Result<Box<str>, ImageError> {
    match text.contains('\0') {
        true => Err(ImageError::invalid(&format_args!("the image config's {field} holds a NUL character"))),
        false => Ok(text),
    }
}

fn words(field: &str, list: Vec<Box<str>>) -> Result<Vec<Box<str>>, ImageError> {
    list.into_iter().map(|text| no_nul(field, text)).collect()
}

fn env(list: Vec<Box<str>>) -> Result<Vec<Box<str>>, ImageError> {
    let entries = words("Env", list)?;
    match entries.iter().find(|entry| entry.split_once('=').is_none_or(|(key, _)| key.is_empty())) {
        Some(bad) => {
            Err(ImageError::invalid(&format_args!("the image config's Env entry \"{}\" is no KEY=value", Escaped(bad))))
        }
        None => Ok(entries),
    }
}

/// What it says, and for the rest what Docker takes. `NONE`, no words at all, and a kind that is not known say nothing.
fn health(raw: RawHealth<'_>) -> Result<Option<Box<HealthCheck>>, ImageError> {
    let mut command = words("Healthcheck", texts(&raw.test))?;
    match command.first().map(|first| &**first) {
        Some("CMD") if command.len() > 1 => drop(command.remove(0)),
        Some("CMD-SHELL") if command.len() > 1 => {
            command.insert(0, "/bin/sh".into());
            command.iter_mut().skip(1).take(1).for_each(|kind| *kind = "-c".into());
        }
        _ => return Ok(None),
    }
    let time = |nanos: Option<i64>, usual| {
        let millis = u64::try_from(nanos.unwrap_or(0)).unwrap_or(0) / 1_000_000;
        Some(if millis > 0 { Millis(millis) } else { Millis::from_secs(usual) })
    };
    let retries = u8::try_from(raw.retries.unwrap_or(0).clamp(0, 255)).unwrap_or(0);
    let times = Times {
        interval: time(raw.interval, 30),
        timeout: time(raw.timeout, 30),
        start_period: time(raw.start_period, 0),
        retries: Some(if retries > 0 { retries } else { 3 }),
    };
    Ok(Some(Box::new(HealthCheck { command, times })))
}

fn working_dir(text: Box<str>) -> Result<Box<str>, ImageError> {
    let text = no_nul("WorkingDir", text)?;
    match text.is_empty() || text.starts_with('/') {
        true => Ok(text),
        // Windows paths and relative ones: the field joins them to the root.
        false => Ok(format!("/{text}").into()),
    }
}

/// Reads `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`; empty is none. Real-time signals count from 34, as C libraries count.
pub fn stop_signal(text: &str) -> Result<Option<u8>, ImageError> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || ImageError::invalid(&format_args!("the image config's StopSignal \"{}\" is no signal", Escaped(text)));
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if let Ok(number) = name.parse::<u8>() {
        return if (1..=64).contains(&number) { Ok(Some(number)) } else { Err(bad()) };
    }
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset: u8 =
            if rest.is_empty() { 0 } else { rest.strip_prefix('+').and_then(|n| n.parse().ok()).ok_or_else(bad)? };
        return if offset <= 30 { Ok(Some(34 + offset)) } else { Err(bad()) };
    }
    let known = signal::NAMES.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| Some(*number)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(config: &str, more: &str) -> Result<ParsedConfig, ImageError> {
        let text = format!(
            r#"{{"architecture":"arm","os":"linux","variant":"v7","config":{config},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}{more}}}"#,
            "1b".repeat(32)
        );
        parse_config(text.as_bytes())
    }

    #[test]
    fn the_process_is_read_and_the_rest_is_not() {
        let parsed = with(
            r#"{"Entrypoint":["/bin/sh","-c"],"Cmd":["a\u0026\u0026b"],"Env":["PATH=/bin","A="],"User":"1:2","WorkingDir":"srv","StopSignal":"SIGRTMIN+3","Labels":{"coracle.network":"host"},"Volumes":{"/../../etc":{}},"Healthcheck":{"Test":["CMD","x"]}}"#,
            r#","history":[{"created_by":"x"}]"#,
        )
        .unwrap();
        assert_eq!(&*parsed.config.cmd[0], "a&&b");
        assert_eq!(&*parsed.config.working_dir, "/srv");
        assert_eq!(parsed.config.stop_signal, Some(37));
        assert_eq!(parsed.config.platform.unwrap().to_string(), "linux/arm/v7");
        assert_eq!(parsed.diff_ids.len(), 1);
    }

    #[test]
    fn a_health_check_is_read_as_docker_means_it() {
        let check = |text: &str| with(&format!(r#"{{"Healthcheck":{text}}}"#), "").unwrap().config.health;
        let shell = check(r#"{"Test":["CMD-SHELL","a || b"],"Interval":1500000000,"Retries":300}"#).unwrap();
        assert_eq!(shell.command, ["/bin/sh", "-c", "a || b"].map(Box::from));
        let seconds = |seconds| Some(Millis::from_secs(seconds));
        let times =
            Times { interval: Some(Millis(1500)), timeout: seconds(30), start_period: seconds(0), retries: Some(255) };
        assert_eq!(shell.times, times);
        let plain = check(r#"{"Test":["CMD","x","y"],"Interval":-5,"Retries":0}"#).unwrap();
        assert_eq!((plain.command.len(), plain.times.interval, plain.times.retries), (2, seconds(30), Some(3)));
        for nothing in
            [r#"{"Test":["NONE"]}"#, "{}", r#"{"Test":[]}"#, r#"{"Test":["CMD"]}"#, r#"{"Test":["PING","x"]}"#]
        {
            assert_eq!(check(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn go_writes_null_for_empty_lists() {
        let parsed = with(r#"{"Entrypoint":null,"Cmd":null,"Env":null,"User":"","WorkingDir":""}"#, "").unwrap();
        assert!(parsed.config.cmd.is_empty() && parsed.config.working_dir.is_empty());
        assert!(with("null", "").is_ok());
    }

    #[test]
    fn bad_configs_are_refused() {
        for (config, word) in [
            (r#"{"Env":["NOVALUE"]}"#, "Env"),
            (r#"{"Env":["=x"]}"#, "Env"),
            (r#"{"User":"a\u0000b"}"#, "NUL"),
            (r#"{"StopSignal":"SIGNONE"}"#, "StopSignal"),
            (r#"{"StopSignal":"SIGRTMIN+99"}"#, "StopSignal"),
            (r#"{"Cmd":"sh"}"#, "fields"),
        ] {
            let error = with(config, "").unwrap_err();
            assert!(error.text().contains(word), "{config}: {error}");
        }
        assert!(with("{}", r#","layers":[]"#).unwrap_err().text().contains("double meaning"));
        assert!(with("{}", r#","mediaType":"application/vnd.oci.image.index.v1+json""#).is_err());
        assert!(parse_config(br#"{"rootfs":{"diff_ids":["sha256:../../x"]}}"#).is_err());
        assert!(parse_config(b"").is_err());
    }

    #[test]
    fn stop_signals_are_read_as_docker_writes_them() {
        assert_eq!(stop_signal("SIGTERM").unwrap(), Some(15));
        assert_eq!(stop_signal("QUIT").unwrap(), Some(3));
        assert_eq!(stop_signal("9").unwrap(), Some(9));
        assert_eq!(stop_signal("").unwrap(), None);
        assert!(stop_signal("0").is_err());
    }
}
