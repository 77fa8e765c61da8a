//! What services wait for besides each other: links, mounts, paths, the clock. Each test has a network and mounts of its
//! own. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::{Board, IDLE, said, service};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::process::Command;

/// Gives the calling thread, and what it starts from now on, a network and mounts of its own.
fn own_world(test: &str) -> bool {
    let private = || mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>);
    let entered = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).and_then(|()| private());
    if let Err(errno) = entered {
        println!("skip: {test}: no namespaces: {errno}");
    }
    entered.is_ok()
}

fn ip(words: &str) -> bool {
    let words = ["ip", "link"].into_iter().chain(words.split(' '));
    Command::new("/bin/busybox").args(words).output().unwrap().status.success()
}

fn standing(board: &Board, service: &str) -> (String, String) {
    (board.field(service, "state"), board.field(service, "reason"))
}

fn until_waiting(board: &Board, service: &str, reason: &str) {
    let wanted = ("waiting".to_owned(), reason.to_owned());
    board.until(&format!("{service} {reason}"), |_| standing(board, service) == wanted);
}

#[test]
fn root_a_service_waits_for_a_link_until_it_is_up_and_again_at_its_next_start() {
    let name = "root_a_service_waits_for_a_link_until_it_is_up_and_again_at_its_next_start";
    let services = [
        service("net", IDLE, r#""needs": ["link:lo"],"#),
        service("after", IDLE, r#""needs": ["net"],"#),
        service("soft", IDLE, r#""needs": ["net:soft", "after:soft"],"#),
        service("never", IDLE, r#""needs": ["link:eth99"],"#),
    ];
    let Some(mut board) = Board::new(name, &services).filter(|_| own_world(name)) else { return };
    board.up();
    until_waiting(&board, "net", "waits for the network interface lo to be up");
    until_waiting(&board, "after", "waits for net");
    board.until_running("soft");
    assert!(board.says(&["inspect", "never"]).contains("link:eth99"));
    let start = board.coracle(&["start", "net"]);
    assert!(!start.status.success() && said(&start).contains("waits for the network interface lo"), "{}", said(&start));
    assert!(ip("set lo up"));
    board.until_running("after");
    assert!(ip("set lo down"));
    assert_eq!(board.field("net", "state"), "running", "needs are about the start");
    assert!(!board.coracle(&["restart", "net"]).status.success());
    until_waiting(&board, "net", "waits for the network interface lo to be up");
    assert!(ip("set lo up"));
    board.until_running("net");
    until_waiting(&board, "never", "waits for the network interface eth99 to be up");
    assert_eq!(board.report().matches("never waits for").count(), 1, "{}", board.report());
    board.down();
}

#[test]
fn root_a_link_without_a_carrier_is_not_up() {
    let name = "root_a_link_without_a_carrier_is_not_up";
    let services = [service("net", IDLE, r#""needs": ["link:near"],"#), service("idle", IDLE, "")];
    let Some(mut board) = Board::new(name, &services).filter(|_| own_world(name)) else { return };
    board.up();
    board.until_running("idle");
    if !ip("add near type veth") {
        println!("skip: {name}: no veth in this kernel");
        return board.down();
    }
    // The kernel names the other end.
    let links = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let far = links.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let far = far.into_iter().find(|name| !["lo", "near"].contains(name)).unwrap().to_owned();
    assert!(ip("set near up"));
    assert!(ip("set lo up"), "a stranger that comes up later");
    until_waiting(&board, "net", "waits for the network interface near to be up");
    assert!(ip(&format!("set {far} up")));
    board.until_running("net");
    board.down();
}

/// A device node that goes with the test.
struct Node(std::path::PathBuf);

impl Node {
    fn plug(&self) {
        fs::create_dir_all(self.0.parent().unwrap()).unwrap();
        assert!(Command::new("mknod").arg(&self.0).args(["c", "1", "3"]).status().unwrap().success());
    }

    fn unplug(&self) {
        fs::remove_file(&self.0).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_dir(self.0.parent().unwrap());
    }
}

#[test]
fn root_an_unplugged_device_ends_its_service_and_a_plugged_one_starts_it_for_free() {
    let name = "root_an_unplugged_device_ends_its_service_and_a_plugged_one_starts_it_for_free";
    let node = Node(format!("/dev/coracle-test-{}/tty", std::process::id()).into());
    let device = format!(r#""path": "{}""#, node.0.display());
    let once = r#""restart": { "tries": 1, "within": "1h", "then": "stop" },"#;
    let services = [
        service("modem", IDLE, &format!(r#"{once} "devices": [{{ {device} }}],"#)),
        service("other", IDLE, &format!(r#""devices": [{{ {device} }}],"#)),
        service("spare", IDLE, &format!(r#"{once} "devices": [{{ {device}, "optional": true }}],"#)),
    ];
    let Some(mut board) = Board::new(name, &services) else { return };
    board.up();
    board.until_running("spare");
    for round in 0..4 {
        board.until("it is held", |board| board.field("modem", "state") == "held");
        assert!(board.field("modem", "reason").contains("is missing"), "{}", board.field("modem", "reason"));
        node.plug();
        board.until_running("modem");
        assert_eq!(board.field("modem", "restarts"), round.to_string());
        node.unplug();
    }
    board.until("it is held", |board| board.field("modem", "state") == "held");
    assert!(board.report().contains("modem is being stopped: a device that it lists is gone"), "{}", board.report());
    assert_eq!((board.field("spare", "state"), board.field("spare", "restarts")), ("running".into(), "0".into()));
    // Hands off means that it is not ended for that either, until they are no longer off.
    node.plug();
    board.until_running("modem");
    board.until_running("other");
    board.says(&["hold", "modem"]);
    node.unplug();
    board.until("it is held", |board| board.field("other", "state") == "held");
    assert_eq!(board.field("modem", "state"), "running");
    board.says(&["hold", "--for", "0s", "modem"]);
    board.until("it is held", |board| board.field("modem", "state") == "held");
    board.down();
}

#[test]
fn root_a_usb_device_is_found_where_it_is_plugged_in_and_has_its_own_name_inside() {
    let name = "root_a_usb_device_is_found_where_it_is_plugged_in_and_has_its_own_name_inside";
    let node = Node(format!("/dev/coracle-usb-{}/ttyUSB0", std::process::id()).into());
    let uevent = "/sys/class/mem/null/uevent";
    let shows = ["sh", "-c", "ls -l /dev/gps /dev/modem; echo x > /dev/gps && echo taken; while :; do sleep 1; done"];
    let devices = r#""devices": [{ "usb": "0403:6001@1-1.2", "as": "/dev/gps" },
                                 { "path": "/dev/zero", "as": "/dev/modem", "access": "r" }],"#;
    let services = [
        service("gps", &shows, devices),
        service("other", IDLE, r#""devices": [{ "usb": "0403:6001@1-1.3", "as": "/dev/gps" }],"#),
    ];
    let Some(mut board) = Board::new(name, &services).filter(|_| own_world(name)) else { return };
    // What the kernel shows of usb, made up.
    assert!(Command::new("mount").args(["-t", "tmpfs", "none", "/sys/bus"]).status().unwrap().success());
    let device = std::path::Path::new("/sys/bus/usb/devices/1-1.2");
    let tells = || fs::write(uevent, "change").is_ok();
    if !tells() {
        println!("skip: {name}: {uevent} cannot be written");
        return;
    }
    board.up();
    for _ in 0..2 {
        board.until("it is held", |board| board.field("gps", "state") == "held");
        assert_eq!(board.field("gps", "reason"), "device usb 0403:6001@1-1.2 is missing; load its driver");
        node.plug();
        fs::create_dir_all(device.join("1-1.2:1.0/ttyUSB0")).unwrap();
        fs::write(device.join("idVendor"), "0403\n").unwrap();
        fs::write(device.join("idProduct"), "6001\n").unwrap();
        let text = format!("MAJOR=1\nMINOR=3\nDEVNAME={}\n", node.0.strip_prefix("/dev").unwrap().display());
        fs::write(device.join("1-1.2:1.0/ttyUSB0/uevent"), text).unwrap();
        assert!(tells());
        board.until_running("gps");
        fs::remove_dir_all(device).unwrap();
        node.unplug();
        assert!(tells());
    }
    board.until_logged("gps", "taken");
    let log = board.logs("gps");
    assert!(log.contains("1,   3") && log.contains("/dev/gps") && log.contains("1,   5"), "{log}");
    assert_eq!(board.field("other", "state"), "held");
    board.down();
}

#[test]
fn root_a_service_waits_for_a_mount_and_for_a_path() {
    let name = "root_a_service_waits_for_a_mount_and_for_a_path";
    let Some(mut board) = Board::new(name, &[]).filter(|_| own_world(name)) else { return };
    let data = board.path("my data");
    fs::create_dir(&data).unwrap();
    let key = data.join("keys/tls.key");
    let needs = format!(r#""needs": ["mount:{}", "path:{}", "clock"],"#, data.display(), key.display());
    board.configure(&[service("web", IDLE, &needs), service("idle", IDLE, "")].join(","));
    board.up();
    board.until_running("idle");
    until_waiting(&board, "web", &format!("waits for something to be mounted on {}", data.display()));
    // What lies beneath the place of the mount is not what is meant.
    fs::create_dir(key.parent().unwrap()).unwrap();
    fs::write(&key, "").unwrap();
    until_waiting(&board, "web", &format!("waits for something to be mounted on {}", data.display()));
    mount(Some("tmpfs"), &data, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    until_waiting(&board, "web", &format!("waits for {}", key.display()));
    fs::create_dir(key.parent().unwrap()).unwrap();
    fs::write(key.with_extension("other"), "").unwrap();
    until_waiting(&board, "web", &format!("waits for {}", key.display()));
    fs::write(&key, "").unwrap();
    board.until_running("web");
    umount(&data).unwrap();
    assert_eq!(board.field("web", "state"), "running", "needs are about the start");
    assert!(!board.coracle(&["restart", "web"]).status.success());
    until_waiting(&board, "web", &format!("waits for something to be mounted on {}", data.display()));
    board.down();
}
