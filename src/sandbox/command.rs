//! What is executed: words, environment, programs to try, working directory. Pure.
#![forbid(unsafe_code)]

use super::spec::Stdio;
use crate::image::config::ImageConfig;
use crate::plan::{Root, Service};

/// Where programs are looked for when neither image nor service says.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command, resolved as far as it can be outside the root.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<String>,
    /// The paths to try, in this order.
    pub(super) programs: Vec<String>,
    /// Absolute.
    pub(super) working_dir: String,
}

/// The command `own` of `service` in its image, or the sentence that says why there is none; the image's own if it is empty.
/// `files` are the entries of its environment files.
pub(super) fn resolve(
    service: &Service,
    own: &[Box<str>],
    image: &ImageConfig,
    files: &[String],
    home: &str,
    stdio: Stdio,
) -> Result<Command, String> {
    let (first, more) = if own.is_empty() { (&*image.entrypoint, &*image.cmd) } else { (own, &[][..]) };
    let argv: Vec<String> = [first, more].concat().into_iter().map(String::from).collect();
    let Some(program) = argv.first().filter(|word| !word.is_empty()) else {
        return Err("there is no command: neither the service nor its image names one; add \"command\"".into());
    };
    let mut env: Vec<String> = vec![format!("PATH={PATH}"), format!("HOME={home}")];
    if service.root != Root::Host {
        env.push(format!("HOSTNAME={}", service.hostname.as_deref().unwrap_or(service.name.as_str())));
    }
    env.extend(term(service, stdio).map(|term| format!("TERM={term}")));
    image.env.iter().for_each(|entry| set(&mut env, entry));
    files.iter().for_each(|entry| set(&mut env, entry));
    service.env.iter().for_each(|entry| set(&mut env, entry));
    // What is said over a notify socket goes to this supervisor or nowhere.
    let ours = ["NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID="];
    env.retain(|entry| !ours.iter().any(|key| entry.starts_with(key)));
    let programs = programs(program, &env);
    let working_dir = service.working_dir.as_deref().unwrap_or(&image.working_dir);
    let working_dir = format!("/{}", working_dir.trim_start_matches('/'));
    if working_dir.split('/').any(|name| name == "..") || working_dir.starts_with("/proc/") {
        return Err(format!("the working directory {working_dir} leads through `..` or /proc; name a plain one"));
    }
    Ok(Command { argv, env, programs, working_dir })
}

/// The kind of terminal that main gets: what tells a board's console from a serial line is its name (console(4)).
fn term(service: &Service, stdio: Stdio) -> Option<&'static str> {
    let screen = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let device = service.tty.as_deref().unwrap_or_default();
    match stdio {
        Stdio::Terminal { .. } => Some("xterm"),
        Stdio::Device(_) if device.strip_prefix("/dev/tty").is_some_and(screen) => Some("linux"),
        Stdio::Device(_) => Some("vt220"),
        Stdio::Pipes | Stdio::Inherit => None,
    }
}

/// The paths to try for `program`: itself if it is a path, else in every folder of `PATH`.
pub fn programs(program: &str, env: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH);
    // An empty entry would mean the working directory, which a service can write to.
    let mut programs = Vec::new();
    for dir in path.split(':').filter(|dir| !dir.is_empty()) {
        programs.push(format!("{dir}/{program}"));
    }
    programs
}

/// Sets `KEY=value` in place of an earlier one.
pub(super) fn set(env: &mut Vec<String>, entry: &str) {
    let key = entry.split_once('=').map_or(entry, |(key, _)| key);
    match env.iter_mut().find(|known| known.split_once('=').is_some_and(|(other, _)| other == key)) {
        Some(known) => *known = entry.to_owned(),
        None => env.push(entry.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_environment_replaces_earlier() {
        let mut env = vec!["PATH=/bin".to_owned(), "A=1".to_owned()];
        for entry in ["A=2", "B=x=y", "PATH=/opt"] {
            set(&mut env, entry);
        }
        assert_eq!(env, ["PATH=/opt", "A=2", "B=x=y"]);
    }
}
