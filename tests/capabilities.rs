//! A process under its credentials as /proc shows it after execve.

mod probe;

use coracle::plan::CapSet;
use coracle::sandbox::capabilities::{Credentials, Step, become_user, keep_only};
use coracle::sys::caps;
use probe::{confined, value};

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skip: capabilities: needs root");
    }
    root
}

fn status(who: Credentials) -> String {
    confined(move || become_user(&who).unwrap(), &["status"])
}

fn sets(text: &str) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|key| u64::from_str_radix(value(text, key), 16).unwrap())
}

#[test]
fn root_without_names_has_nothing_after_exec() {
    if !root() {
        return;
    }
    let text = status(Credentials::default());
    assert_eq!(sets(&text), [0; 5]);
    assert_eq!(value(&text, "NoNewPrivs"), "1");
    assert_eq!(value(&text, "Uid"), "0 0 0 0");
}

#[test]
fn root_keeps_what_is_named_and_inherits_nothing() {
    if !root() {
        return;
    }
    let named = CapSet::EMPTY.with(10).with(13);
    let text = status(Credentials { caps: named, ..Credentials::default() });
    assert_eq!(sets(&text), [0, named.0, named.0, named.0, 0], "inheritable is empty: CVE-2022-24769");
}

#[test]
fn another_user_keeps_what_is_named_through_the_ambient_set() {
    if !root() {
        return;
    }
    let named = CapSet::EMPTY.with(10);
    let who = Credentials { uid: 1883, gid: 1884, groups: [5, 70000].into(), caps: named };
    let text = status(who);
    assert_eq!(sets(&text), [named.0; 5]);
    assert_eq!(value(&text, "Uid"), "1883 1883 1883 1883");
    assert_eq!(value(&text, "Gid"), "1884 1884 1884 1884");
    assert_eq!(value(&text, "Groups"), "5 70000");
}

#[test]
fn another_user_without_names_has_nothing_and_cannot_come_back() {
    if !root() {
        return;
    }
    let who = Credentials { uid: 1883, gid: 1883, ..Credentials::default() };
    assert_eq!(sets(&status(who.clone())), [0; 5]);
    let text = confined(move || become_user(&who).unwrap(), &["try", "setuid 0", "chroot /"]);
    assert_eq!(value(&text, "setuid 0"), "EPERM");
    assert_eq!(value(&text, "chroot /"), "EPERM");
}

#[test]
fn what_cannot_be_kept_is_an_error_and_not_a_silent_loss() {
    if !root() {
        return;
    }
    let unknown = Credentials { caps: CapSet::EMPTY.with(63), uid: 1000, ..Credentials::default() };
    let end = std::thread::spawn(move || become_user(&unknown)).join().unwrap();
    assert!(matches!(end, Err((Step::Ambient | Step::Sets, _))), "{end:?}");
}

#[test]
fn init_keeps_one_capability_and_bounds_all() {
    if !root() {
        return;
    }
    let keep = CapSet::EMPTY.with(5);
    let held = std::thread::spawn(move || {
        keep_only(keep).unwrap();
        (caps::get().unwrap(), caps::in_bounding(5).unwrap(), caps::in_ambient(5).unwrap())
    });
    let (sets, bounding, ambient) = held.join().unwrap();
    assert_eq!((sets.effective, sets.permitted, sets.inheritable), (keep.0, keep.0, 0));
    assert!(!bounding && !ambient);
    let text = confined(move || keep_only(keep).unwrap(), &["status"]);
    assert_eq!(self::sets(&text), [0; 5], "nothing of it outlives execve");
}
