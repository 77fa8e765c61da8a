//! Devices by the usb device that makes them, as the kernel shows it in /sys/bus/usb/devices
//! (Documentation/ABI/testing/sysfs-bus-usb): no udev and no links of its making.
#![forbid(unsafe_code)]

use crate::plan::DeviceNode;
use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

/// All usb devices, each under the path of its port.
const DEVICES: &str = "/sys/bus/usb/devices";
/// Where the kernel puts the nodes of the usb devices themselves.
const ITSELF: &str = "/dev/bus/usb/";
/// Folders between a usb device and the node of what its driver makes of it: for a disk there are eight.
const DEPTH: usize = 12;

/// The path on the board of `device`. One that is not there has the name of what is missing, at which nothing is found.
pub fn place(device: &DeviceNode) -> Cow<'_, str> {
    if device.source.starts_with('/') {
        return Cow::Borrowed(&device.source);
    }
    let found = find(Path::new(DEVICES), &device.source, device.path.starts_with(ITSELF));
    Cow::Owned(match found {
        Some(name) => format!("/dev/{}", name.trim()),
        None => format!("usb {}", device.source),
    })
}

/// The name in /dev of the first node of the usb device `wanted` (`VID:PID`, `PORT` or `VID:PID@PORT`); `itself`: of the
/// device, not of what a driver makes of it.
fn find(devices: &Path, wanted: &str, itself: bool) -> Option<String> {
    let (id, port) = match wanted.split_once('@') {
        Some((id, port)) => (Some(id), Some(port)),
        None if wanted.contains('-') => (None, Some(wanted)),
        None => (Some(wanted), None),
    };
    let of_port = port.map(|port| port.split(':').next().unwrap_or(port));
    sorted(devices).into_iter().find_map(|folder| {
        let name = folder.file_name()?.to_str()?;
        let fits = of_port.is_none_or(|port| port == name)
            && id.is_none_or(|id| {
                let number = |file| fs::read_to_string(folder.join(file)).unwrap_or_default();
                id.split(':').eq([number("idVendor").trim(), number("idProduct").trim()])
            });
        match port.filter(|port| port.contains(':')) {
            _ if !fits => None,
            _ if itself => node(&folder),
            Some(interface) => below(&folder.join(interface), DEPTH),
            None => sorted(&folder).iter().find_map(|inner| below(inner, DEPTH)),
        }
    })
}

/// The first node in a folder or beneath it, of no other usb device behind this one.
fn below(folder: &Path, depth: usize) -> Option<String> {
    let own = fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir()) && !folder.join("idVendor").exists();
    if !own || depth == 0 {
        return None;
    }
    node(folder).or_else(|| sorted(folder).iter().find_map(|inner| below(inner, depth - 1)))
}

/// What the node of a device is called, if it has one.
fn node(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join("uevent")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(str::to_owned)
}

/// What is in a folder, in an order that does not change.
fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    crate::base::sort::sort(&mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Two serial adapters of the same kind behind a hub, the second with two ports, and a camera.
    fn board() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("devices/usb1");
        let device = |path: &str, id: &str, node: &str| {
            let folder = real.join(path);
            fs::create_dir_all(&folder).unwrap();
            let (vendor, product) = id.split_once(':').unwrap();
            fs::write(folder.join("idVendor"), format!("{vendor}\n")).unwrap();
            fs::write(folder.join("idProduct"), format!("{product}\n")).unwrap();
            fs::write(folder.join("uevent"), format!("MAJOR=189\nDEVNAME={node}\nDEVTYPE=usb_device\n")).unwrap();
            fs::create_dir_all(dir.path().join("bus")).unwrap();
            symlink(&folder, dir.path().join("bus").join(folder.file_name().unwrap())).unwrap();
        };
        let node = |path: &str, name: &str| {
            fs::create_dir_all(real.join(path)).unwrap();
            fs::write(real.join(path).join("uevent"), format!("MAJOR=188\nMINOR=0\nDEVNAME={name}\n")).unwrap();
        };
        device("1-1", "0424:2514", "bus/usb/001/002");
        device("1-1/1-1.2", "0403:6001", "bus/usb/001/003");
        node("1-1/1-1.2/1-1.2:1.0/ttyUSB1/tty/ttyUSB1", "ttyUSB1");
        device("1-1/1-1.3", "0403:6001", "bus/usb/001/004");
        node("1-1/1-1.3/1-1.3:1.0/ttyUSB0/tty/ttyUSB0", "ttyUSB0");
        node("1-1/1-1.3/1-1.3:1.1/ttyUSB2/tty/ttyUSB2", "ttyUSB2");
        // A way around that leads back.
        symlink(&real, real.join("1-1/1-1.3/1-1.3:1.0/subsystem")).unwrap();
        device("1-2", "046d:0825", "bus/usb/001/005");
        dir
    }

    #[test]
    fn a_usb_device_is_found_by_id_by_port_and_by_interface() {
        let board = board();
        let found = |wanted: &str| find(&board.path().join("bus"), wanted, false);
        for (wanted, expected) in [
            ("0403:6001", Some("ttyUSB1")),
            ("1-1.3", Some("ttyUSB0")),
            ("1-1.3:1.1", Some("ttyUSB2")),
            ("0403:6001@1-1.3", Some("ttyUSB0")),
            ("0403:6001@1-1.3:1.1", Some("ttyUSB2")),
            // Another device in that port, no such port, no such device.
            ("0403:6015@1-1.3", None),
            ("1-1.4", None),
            ("1-1.3:1.2", None),
            ("ffff:0001", None),
            // Whose driver has made nothing yet, and a hub, which what is behind it is not.
            ("046d:0825", None),
            ("0424:2514", None),
        ] {
            assert_eq!(found(wanted).as_deref(), expected, "{wanted}");
        }
        assert_eq!(find(&board.path().join("bus"), "046d:0825", true).as_deref(), Some("bus/usb/001/005"));
        assert_eq!(find(&board.path().join("none"), "046d:0825", true), None);
    }

    #[test]
    fn what_is_not_there_is_called_by_what_it_is() {
        let missing = DeviceNode {
            path: "/dev/gps".into(),
            source: "ffff:ffff@9-9.9".into(),
            rules: crate::plan::DeviceRules { read: true, write: true },
            optional: false,
        };
        assert_eq!(place(&missing), "usb ffff:ffff@9-9.9");
        assert_eq!(place(&DeviceNode { source: "/dev/ttyS1".into(), ..missing }), "/dev/ttyS1");
    }
}
