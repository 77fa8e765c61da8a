//! The files of the board that a service takes in at its start: environment files, secrets, its terminal, and for a
//! service on the host's root its program.

use super::Files;
use crate::base::limits::ENV_FILE_BYTES;
use crate::base::read::read_up_to;
use crate::plan::{Condition, Device, Root, Service};
use crate::sandbox::command::{PATH, programs};
use crate::sandbox::{env_file, secrets, usb};
use nix::libc;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Why there is nothing to do for `service` here: the first of its conditions that does not hold.
pub fn skipped(service: &Service, files: &Files) -> Option<String> {
    service.when.iter().find_map(|condition| match condition {
        Condition::Exists(path) if !files.exists(Path::new(&**path)) => Some(format!("{path} is missing")),
        Condition::Missing(path) if files.exists(Path::new(&**path)) => Some(format!("{path} exists")),
        _ => None,
    })
}

/// The entries of a service's environment files, in the order in which later ones win.
///
/// # Errors
/// What is wrong with the first file that cannot be used, and the way out.
pub fn env_entries(service: &Service) -> Result<Vec<String>, String> {
    let mut entries = Vec::new();
    for file in &service.env_files {
        entries.append(&mut env_of(file, Path::new(&**file)).map_err(|(message, hint)| format!("{message}; {hint}"))?);
    }
    Ok(entries)
}

/// The paths whose appearance or change may end that a service is held.
pub fn awaited(service: &Service) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut add = |path: &str| paths.push(PathBuf::from(path));
    service.env_files.iter().for_each(|file| add(file));
    service.secrets.iter().for_each(|secret| add(&secret.file));
    service.tty.iter().for_each(|tty| add(tty));
    host_programs(service).iter().for_each(|program| add(program));
    service.devices.iter().filter(|device| !device.optional).for_each(|device| add(&usb::place(device)));
    paths
}

/// Whether a file that is not there on a build host will not be there on the board either: nobody knows what its own
/// partitions, its state folder and its memory will hold.
fn will_be_missing(path: &str, device: &Device, files: &Files) -> bool {
    let path = Path::new(path);
    let own = device.boot.mounts.iter().map(|mount| &*mount.target).chain([&*device.state]);
    files.known(path) && !own.into_iter().any(|folder| path.starts_with(folder))
}

/// Reports what of it is missing or cannot be used. `here`: the board is this machine.
pub(super) fn check(
    device: &Device,
    service: &Service,
    files: &Files,
    here: bool,
    add: &mut impl FnMut(String, String),
) {
    for file in &service.env_files {
        let place = files.place(Path::new(&**file));
        if here || place.is_ok() || will_be_missing(file, device, files) {
            let place = place.unwrap_or_else(|_| PathBuf::from(files.shown(Path::new(&**file))));
            if let Err((message, hint)) = env_of(file, &place) {
                add(message, hint);
            }
        }
    }
    if service.root == Root::Host && !service.secrets.is_empty() {
        let hint = "let the program read the files themselves, or give it an image";
        add(
            "secrets are for services with an image: on the host's root there is nobody to hide them from".into(),
            hint.into(),
        );
    } else {
        for secret in &service.secrets {
            let path = Path::new(&*secret.file);
            let why = match here {
                true => secrets::open(&secret.file).err(),
                false if !files.exists(path) => {
                    will_be_missing(&secret.file, device, files).then(|| "is missing".to_owned())
                }
                // The last part is not followed: a link there is refused.
                false => path.parent().zip(path.file_name()).and_then(|(folder, name)| {
                    let place = files.place(folder).ok()?.join(name);
                    secrets::open(&place.to_string_lossy()).err()
                }),
            };
            if let Some(why) = why {
                let hint = "put the file there, and the service starts";
                add(format!("the secret {} {why}", secret.file), hint.into());
            }
        }
    }
    if let Some(tty) = service.tty.as_deref().filter(|_| here)
        && let Some(fault) = files.device_fault(Path::new(tty), false)
    {
        add(format!("the terminal {tty} {fault}"), "load its driver, or name another tty".into());
    }
    let programs = host_programs(service);
    if !programs.is_empty() && !programs.iter().map(Path::new).any(|path| !files.known(path) || files.exists(path)) {
        let program = service.command.first().map_or("", |word| &**word);
        let place = if program.contains('/') { files.shown(Path::new(program)) } else { format!("{program} in PATH") };
        add(format!("the program {place} is missing"), "install it, or name another command".into());
    }
}

/// Where the program of a service on the host's root may be.
fn host_programs(service: &Service) -> Vec<String> {
    let Some(program) = service.command.first().filter(|_| service.root == Root::Host) else { return Vec::new() };
    let path = service.env.iter().rev().find(|entry| entry.starts_with("PATH="));
    programs(program, &[path.map_or_else(|| format!("PATH={PATH}"), ToString::to_string)])
}

/// The entries of one environment file that lies at `place`; else what is wrong, and the way out.
fn env_of(file: &str, place: &Path) -> Result<Vec<String>, (String, String)> {
    let wrong = |why: &str, hint: &str| Err((format!("the env file {file} {why}"), hint.to_owned()));
    let mut opened = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(place) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return wrong("is missing", "put it there, and the service starts");
        }
        Err(error) => return wrong(&format!("cannot be opened: {error}"), "change its owner or mode"),
    };
    let large = format!("is no regular file of at most {}K", ENV_FILE_BYTES >> 10);
    match opened.metadata() {
        Ok(found) if found.is_file() => {}
        _ => return wrong(&large, "name a file with KEY=value lines"),
    }
    let bytes = match read_up_to(&mut opened, ENV_FILE_BYTES as u64 + 1) {
        Ok(bytes) if bytes.len() <= ENV_FILE_BYTES => bytes,
        Ok(_) => return wrong(&large, "name a file with KEY=value lines"),
        Err(error) => return wrong(&format!("cannot be read: {error}"), "look at the file system that it is on"),
    };
    let named =
        |why: String| (format!("the env file {file}:{why}"), "correct the file, and the service starts".to_owned());
    env_file::parse(&bytes).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::name::Name;
    use crate::plan::{Limits, Memory, Secret};
    use std::fs;

    fn service(root: Root) -> Service {
        Service::new(Name::new("x").unwrap(), root, Limits::with_memory(Memory::Unlimited))
    }

    fn told(service: &Service, here: bool) -> Vec<String> {
        let mut told = Vec::new();
        check(&Device::default(), service, &Files::here(), here, &mut |message, _| told.push(message));
        told
    }

    #[test]
    fn conditions_say_which_of_them_does_not_hold() {
        let mut one = service(Root::Host);
        assert_eq!(skipped(&one, &Files::here()), None);
        one.when = vec![Condition::Exists("/proc".into()), Condition::Missing("/proc/none".into())];
        assert_eq!(skipped(&one, &Files::here()), None);
        one.when.push(Condition::Missing("/proc/self".into()));
        assert_eq!(skipped(&one, &Files::here()).unwrap(), "/proc/self exists");
        one.when.insert(0, Condition::Exists("/proc/none".into()));
        assert_eq!(skipped(&one, &Files::here()).unwrap(), "/proc/none is missing");
    }

    #[test]
    fn env_files_add_up_in_their_order_and_errors_name_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| -> Box<str> { dir.path().join(name).to_str().unwrap().into() };
        fs::write(&*at("a"), "A=1\nB=1\n").unwrap();
        fs::write(&*at("b"), "B=2\n").unwrap();
        let mut one = service(Root::Image("x.tar".into()));
        one.env_files = vec![at("a"), at("b")];
        assert_eq!(env_entries(&one).unwrap(), ["A=1", "B=1", "B=2"]);
        assert_eq!(told(&one, true), Vec::<String>::new());
        fs::write(&*at("b"), "B=2\nC\n").unwrap();
        assert!(env_entries(&one).unwrap_err().starts_with(&format!("the env file {}:2: ", at("b"))));
        one.env_files.push(at("none"));
        assert_eq!(told(&one, true)[1], format!("the env file {} is missing", at("none")));
        one.env_files = vec![dir.path().to_str().unwrap().into()];
        assert!(told(&one, true)[0].ends_with("is no regular file of at most 64K"));
    }

    #[test]
    fn secrets_and_env_files_are_checked_on_the_build_host_too() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("etc/keys")).unwrap();
        fs::create_dir_all(at("factory")).unwrap();
        fs::write(at("factory/empty"), "").unwrap();
        std::os::unix::fs::symlink("/factory", at("etc/factory")).unwrap();
        std::os::unix::fs::symlink("/etc/keys", at("etc/link")).unwrap();
        let told = |env: &str, secret: &str| {
            let mut one = service(Root::Image("x".into()));
            one.env_files = vec![env.into()];
            one.secrets = vec![Secret { file: secret.into(), target: "/run/secrets/x".into() }];
            let device = Device { state: "/data/coracle".into(), ..Device::default() };
            let mut told = Vec::new();
            check(&device, &one, &Files::beneath(root.path()), false, &mut |message, _| told.push(message));
            told
        };
        assert_eq!(
            told("/etc/none.env", "/etc/factory/none"),
            ["the env file /etc/none.env is missing", "the secret /etc/factory/none is missing"]
        );
        assert_eq!(
            told("/data/coracle/none.env", "/data/coracle/key"),
            [""; 0],
            "the board's own folder is not known here"
        );
        assert_eq!(told("/run/none.env", "/tmp/key"), [""; 0], "nor is its memory");
        assert_eq!(told("/run/none.env", "/etc/factory/empty"), ["the secret /etc/factory/empty is empty"]);
        let linked = told("/run/none.env", "/etc/link");
        assert!(linked[0].ends_with("is a symbolic link; name the file itself"), "{linked:?}");
    }

    #[test]
    fn a_host_service_needs_its_program_and_takes_no_secrets() {
        let mut one = service(Root::Host);
        one.command = vec!["sh".into()];
        assert_eq!(told(&one, true), Vec::<String>::new());
        one.env = vec!["PATH=/proc/none".into()];
        assert_eq!(told(&one, true), ["the program sh in PATH is missing"]);
        one.command = vec!["/usr/sbin/coracle-none".into()];
        assert_eq!(told(&one, false), ["the program /usr/sbin/coracle-none is missing"]);
        one.command = vec!["/bin/sh".into()];
        one.secrets = vec![Secret { file: "/proc/none".into(), target: "/run/x".into() }];
        assert!(told(&one, true)[0].starts_with("secrets are for services with an image"));
    }
}
