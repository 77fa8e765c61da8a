//! Values about the board: file systems, modules, kernel parameters, watchdog.

use super::{Read, any, device_path, parts, path, wrong, wrong_hint};
use crate::base::limits::NAME_BYTES;

/// Longest kernel module name, in bytes (`MODULE_NAME_LEN` on 64 bits, without the end mark).
const MODULE_BYTES: usize = 55;
/// Longest name of a kernel parameter, in bytes.
const SYSCTL_BYTES: usize = 255;
/// Longest name of a network interface, in bytes (`IFNAMSIZ` without the end mark).
const LINK_BYTES: usize = 15;
/// Longest mount option string, in bytes: a page less its end mark, as mount(2) takes it.
const OPTION_BYTES: usize = 4095;

/// What a partition, volume or label may be called without quoting.
fn is_label(text: &str) -> bool {
    // Of other alphabets everything is a letter: no table of them is worth its size.
    let good = |c: char| match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | ' '),
        false => !c.is_control(),
    };
    !text.is_empty() && text.len() <= NAME_BYTES && text.chars().all(good)
}

fn is_word(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !text.is_empty() && text.len() <= NAME_BYTES && text.bytes().all(good)
}

/// What a board mounts: a path, `KEY=value`, a UBI volume, an MTD partition, or a word for a file system without a device.
pub fn source(text: &str) -> Read<()> {
    const FORMS: &str = "a path such as \"/dev/mmcblk0p3\", \"PARTNAME=data\", \"PARTUUID=...\", \"LABEL=data\", \
                         \"ubi0:data\", or a word such as \"tmpfs\"";
    if text.starts_with('/') {
        path(text)?;
        return match parts(text).next() {
            Some(_) => Ok(()),
            None => wrong_hint(format_args!("is \"/\", which is no device"), FORMS),
        };
    }
    let bad = || wrong_hint(format_args!("is {text:?}, which is no source"), FORMS);
    if let Some((key, value)) = text.split_once('=') {
        return match key {
            "PARTNAME" | "PARTUUID" | "LABEL" if is_label(value) => Ok(()),
            "PARTNAME" | "PARTUUID" | "LABEL" => wrong(format_args!("is {text:?}, whose value cannot be one")),
            "UUID" => wrong_hint(
                format_args!("is {text:?}; the UUID of a file system is not looked for"),
                "use PARTUUID= (of the partition) or LABEL=",
            ),
            "PARTLABEL" => wrong_hint(format_args!("is {text:?}, which is no source"), "write PARTNAME="),
            _ => bad(),
        };
    }
    if let Some((device, volume)) = text.split_once(':') {
        let number = device.strip_prefix("ubi").or_else(|| device.strip_prefix("mtd"));
        let known = number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        return if known && is_label(volume) { Ok(()) } else { bad() };
    }
    if is_word(text) { Ok(()) } else { bad() }
}

/// Whether a source that [`source`] takes stands for a device.
pub fn is_device_source(text: &str) -> bool {
    let flash = ["ubi", "mtd"].iter().filter_map(|kind| text.strip_prefix(kind));
    let numbered = |rest: &str| rest.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    text.contains(['/', '=', ':']) || flash.into_iter().any(numbered)
}

/// A place where the board mounts a file system.
pub fn target(text: &str) -> Read<()> {
    path(text)?;
    let all: Vec<&str> = parts(text).take(3).collect();
    let own =
        |what: &str| wrong_hint(format_args!("is {text:?}; coracle mounts {what} itself"), "choose another place");
    match all.as_slice() {
        [] => wrong_hint(
            format_args!("is \"/\", which is mounted before coracle runs"),
            "name it on the kernel's command line: root=",
        ),
        ["proc", ..] => own("/proc"),
        ["sys"] | ["sys", "fs"] | ["sys", "fs", "cgroup"] => own("/sys and the cgroups"),
        ["dev"] | ["dev", "pts" | "shm", ..] => own("/dev"),
        ["run"] | ["run", "coracle", ..] => own("/run"),
        _ => Ok(()),
    }
}

/// A file system's type.
pub fn fs_type(text: &str) -> Read<()> {
    match text {
        "auto" => wrong_hint(format_args!("is \"auto\"; nothing is guessed at boot"), "name it, such as \"ext4\""),
        _ if is_word(text) => Ok(()),
        _ => wrong(format_args!("is {text:?}, which is no file system's name")),
    }
}

/// Mount options, separated by commas.
pub fn mount_options(text: &str) -> Read<()> {
    if text.len() > OPTION_BYTES {
        return wrong(format_args!("is {} bytes long, more than {OPTION_BYTES}", text.len()));
    }
    if let Some(c) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return wrong_hint(format_args!("is {text:?}, which holds {c:?}"), "separate the options by commas alone");
    }
    for option in text.split(',') {
        match option {
            "" => return wrong(format_args!("is {text:?}, with an option that is empty")),
            "remount" => return wrong(format_args!("is {text:?}; \"remount\" cannot be the first mount")),
            "bind" | "rbind" | "move" => {
                return wrong_hint(
                    format_args!("is {text:?}; {option:?} mounts no file system"),
                    "give a service a bind mount under its own \"mounts\"",
                );
            }
            "noauto" | "user" | "users" | "nofail" | "_netdev" => {
                return wrong_hint(
                    format_args!("is {text:?}; {option:?} is a word of fstab(5) alone"),
                    "\"wait\" and \"fallback\" say what happens without the device",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// A kernel module's name.
pub fn module(text: &str) -> Read<()> {
    let name = text.rsplit('/').next().unwrap_or(text);
    let bare = name.split_once(".ko").map_or(name, |(bare, _)| bare);
    let good = |text: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        !text.is_empty() && text.len() <= MODULE_BYTES && text.bytes().all(known)
    };
    match good(text) {
        true => Ok(()),
        false if bare != text && good(bare) => {
            wrong_hint(format_args!("holds {text:?}, which is a file"), &format!("write the module's name, \"{bare}\""))
        }
        false => wrong(format_args!("holds {text:?}, which is no module's name")),
    }
}

/// The name of a kernel parameter, with dots.
pub fn sysctl(text: &str) -> Read<()> {
    let bad = |why: &str| {
        wrong_hint(
            format_args!("is {text:?}, {why}"),
            "write \"net.ipv4.ip_forward\"; a dot within a part is a slash: \"net.ipv4.conf.eth0/100.forwarding\"",
        )
    };
    if text.len() > SYSCTL_BYTES {
        return wrong(format_args!("is {} bytes long, more than {SYSCTL_BYTES}", text.len()));
    }
    if text.starts_with("/proc/sys/") || text.find('/') < text.find('.') && text.contains('/') {
        return bad("which is a path");
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b'@' | b':');
    let part = |part: &str| {
        let up = part.starts_with('/') || part.ends_with('/') || part.contains("//");
        !part.is_empty() && !up && part.bytes().all(good)
    };
    if !text.contains('.') || !text.split('.').all(part) {
        return bad("which is no kernel parameter's name");
    }
    Ok(())
}

/// One line of text: what a kernel parameter or a variable may hold.
pub fn line(text: &str) -> Read<()> {
    any(text)?;
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        Some(c) => wrong(format_args!("holds the control character {c:?}")),
        None => Ok(()),
    }
}

/// The name of a network interface, as the kernel takes it (`dev_valid_name`).
pub fn link(text: &str) -> Read<()> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    if text.is_empty() || text.len() > LINK_BYTES || matches!(text, "." | "..") || text.contains(bad) {
        return wrong_hint(
            format_args!("is {text:?}, which is no network interface's name"),
            "write it as in \"link:eth0\"",
        );
    }
    Ok(())
}

/// `auto` or the watchdog's device.
pub fn watchdog_device(text: &str) -> Read<()> {
    if text == "auto" { Ok(()) } else { device_path(text) }
}

/// An address of the board with a port: numbers, since nothing is looked up.
pub fn address(text: &str) -> Read<()> {
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(()),
        _ => wrong_hint(
            format_args!("is {text:?}, which is no address with a port"),
            "write \"0.0.0.0:8080\" for all of IPv4, \"[::]:8080\" for all, \"127.0.0.1:8080\" for the board itself",
        ),
    }
}

/// `VID:PID`, `PORT` or `VID:PID@PORT`, each as the kernel writes it.
pub fn usb(text: &str) -> Read<()> {
    let numbers = |text: &str, between: char| text.split(between).all(|part| part.parse::<u8>().is_ok());
    let id = |id: &str| {
        let hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        id.len() == 9 && id.bytes().enumerate().all(|(at, byte)| if at == 4 { byte == b':' } else { hex(byte) })
    };
    let port = |port: &str| {
        let (port, interface) = port.split_once(':').unwrap_or((port, "1.0"));
        let port = port.split_once('-');
        numbers(interface, '.') && port.is_some_and(|(bus, way)| numbers(bus, '-') && numbers(way, '.'))
    };
    if id(text) || port(text) || text.split_once('@').is_some_and(|(first, second)| id(first) && port(second)) {
        return Ok(());
    }
    let hint = "write \"0403:6001\", \"1-1.2\" or \"0403:6001@1-1.2\", in small letters";
    wrong_hint(format_args!("is {text:?}, which is no usb device"), hint)
}

/// The permissions of a file.
pub fn mode(text: &str) -> Read<u16> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    match u16::from_str_radix(text, 8) {
        Ok(mode) if digits && mode <= 0o777 => Ok(mode),
        _ => wrong_hint(format_args!("is {text:?}, which is no file mode"), "write it in octal: \"0660\""),
    }
}

/// Where a secret is, inside.
pub fn secret_target(text: &str) -> Read<()> {
    path(text)?;
    let mut parts = parts(text);
    match (parts.next(), parts.next()) {
        (Some("run"), Some(_)) if !text.ends_with('/') => Ok(()),
        _ => wrong_hint(
            format_args!("is {text:?}; the copy of a secret is a file beneath /run, which is memory"),
            &format!("write \"/run/secrets/{}\"", super::parts(text).last().unwrap_or("key")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        for good in ["/dev/mmcblk0p3", "PARTNAME=user data", "LABEL=data", "ubi0:data", "ubi:data", "mtd:logs", "tmpfs"]
        {
            assert_eq!(source(good), Ok(()), "{good}");
        }
        for bad in ["/", "", "UUID=1", "PARTNAME=", "nas:/export", "a b", "/dev/../x", "ubix:data"] {
            assert!(source(bad).is_err(), "{bad}");
        }
        assert!(is_device_source("ubi0_1") && is_device_source("mtd3") && !is_device_source("ubifs"));
    }

    #[test]
    fn a_kernel_parameter_is_written_with_dots() {
        for good in ["vm.swappiness", "net.ipv4.conf.eth0/100.forwarding", "kernel.core_pattern"] {
            assert_eq!(sysctl(good), Ok(()), "{good}");
        }
        for bad in ["", "swappiness", "net/ipv4/ip_forward", "/proc/sys/vm/swappiness", "a..b", "a./b.c", ".a", "a.b "]
        {
            assert!(sysctl(bad).is_err(), "{bad}");
        }
    }
}
