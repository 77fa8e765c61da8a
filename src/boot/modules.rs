//! Kernel modules and kernel parameters that the config lists.
#![forbid(unsafe_code)]

use super::cmdline::parameters;
use super::depends::{Found, find, is_compressed, module_name, same_module};
use super::early::c_string;
use crate::plan::Sysctl;
use crate::supervisor::keeper::Say;
use crate::sys::{Errno, board};
use nix::libc::{EEXIST, EINVAL, ENOENT, EOPNOTSUPP};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;

/// Loads each of `modules` with what it depends on, and with the parameters that the kernel's command line has for it.
pub fn load(modules: &[Box<str>], cmdline: &str, say: Say<'_>) {
    if modules.is_empty() {
        return;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = format!("/lib/modules/{}", release.trim());
    let built_in = lines_of(&format!("{folder}/modules.builtin"), modules).unwrap_or_default();
    let depends = lines_of(&format!("{folder}/modules.dep"), modules).unwrap_or_else(|error| {
        say(format!("{folder}/modules.dep cannot be read: {error}; run depmod where the firmware is built"));
        String::new()
    });
    for module in modules {
        match find(module, &depends, &built_in) {
            Found::BuiltIn => {}
            Found::Missing => say(format!("there is no kernel module {module} in {folder}")),
            Found::Files(files) => {
                for file in files {
                    let parameters = parameters(cmdline, module_name(file));
                    if let Err(why) = load_file(&format!("{folder}/{file}"), &parameters) {
                        say(format!("the kernel module {module} is not loaded: {why}"));
                        break;
                    }
                }
            }
        }
    }
}

/// The lines of a list of modules that begin with one of `modules`. The list of a kernel with every driver has a
/// megabyte, which is not to be held.
fn lines_of(path: &str, modules: &[Box<str>]) -> std::io::Result<String> {
    let (mut found, mut line) = (String::new(), String::new());
    let mut list = BufReader::new(File::open(path)?);
    while list.read_line(&mut line)? > 0 {
        let name = module_name(line.split(':').next().unwrap_or(&line));
        if modules.iter().any(|module| same_module(name.trim_end(), module)) {
            found.push_str(&line);
        }
        line.clear();
    }
    Ok(found)
}

fn load_file(path: &str, parameters: &str) -> Result<(), String> {
    let file = File::open(path).map_err(|error| format!("{path} cannot be opened: {error}"))?;
    let compressed = is_compressed(path);
    match board::load_module(file.as_fd(), &c_string(parameters), compressed) {
        Ok(()) | Err(Errno(EEXIST)) => Ok(()),
        Err(errno @ Errno(EOPNOTSUPP | EINVAL)) if compressed => Err(format!(
            "this kernel does not take the compressed {path}: {errno}; decompress it where the firmware is built, or boot a \
             kernel with CONFIG_MODULE_DECOMPRESS (5.17)"
        )),
        Err(errno) => {
            // No list has what a module asks modprobe(8) for by itself, which is not there.
            let way_out =
                if errno == Errno(ENOENT) { "; list what it asks for before it, as zstd before ubifs" } else { "" };
            Err(format!("the kernel refuses {path}: {errno}; its own log says more{way_out}"))
        }
    }
}

/// Sets each of `sysctls`.
pub fn set(sysctls: &[Sysctl], say: Say<'_>) {
    for Sysctl { name, value } in sysctls {
        let path = path(name);
        if let Err(error) = fs::write(&path, &**value) {
            say(format!("the kernel parameter {name} is not set to {value:?}: {path}: {error}"));
        }
    }
}

/// The file of a kernel parameter. As sysctl.d(5) has it, the first separator decides: after a dot, dots separate and
/// slashes stand for dots; after a slash, slashes separate.
fn path(name: &str) -> String {
    let dots = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('.'));
    let mut path = "/proc/sys/".to_owned();
    for letter in name.chars() {
        path.push(match letter {
            '.' if dots => '/',
            '/' if dots => '.',
            other => other,
        });
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameters_name_becomes_its_path() {
        assert_eq!(path("net.ipv4.ip_forward"), "/proc/sys/net/ipv4/ip_forward");
        assert_eq!(path("net.ipv4.conf.eth0/100.forwarding"), "/proc/sys/net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(path("net/ipv4/conf/eth0.100/forwarding"), "/proc/sys/net/ipv4/conf/eth0.100/forwarding");
    }

    #[test]
    fn only_the_lines_of_wanted_modules_are_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("modules.dep");
        fs::write(&path, "a/ext4.ko: b/jbd2.ko\nb/jbd2.ko:\nc/soft-dog.ko.xz:\nd/ext4x.ko:\n").unwrap();
        let kept = lines_of(path.to_str().unwrap(), &["ext4".into(), "soft_dog".into()]).unwrap();
        assert_eq!(kept, "a/ext4.ko: b/jbd2.ko\nc/soft-dog.ko.xz:\n");
    }

    #[test]
    fn what_cannot_be_set_is_said_with_its_path() {
        let mut said = Vec::new();
        set(&[Sysctl { name: "no.such.thing".into(), value: "1".into() }], &mut |text| said.push(text));
        assert!(said[0].contains("/proc/sys/no/such/thing"), "{said:?}");
    }
}
