//! The device program of cgroup v2 in the running kernel. The hierarchy needs no controller for it, so a hybrid tree will do.

use coracle::sandbox::cgroup::devices::{Access, Insn, Kind, Rule, program};
use coracle::sys::bpf;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

/// A cgroup of the v2 hierarchy that goes with the test.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn group() -> Option<Group> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let top = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
    let group = PathBuf::from(top).join(format!("coracle-test-devices-{}", std::process::id()));
    std::fs::create_dir(&group).ok()?;
    Some(Group(group))
}

#[test]
fn the_kernel_takes_the_program_and_enforces_it() {
    let Some(group) = group() else {
        println!("skip: the_kernel_takes_the_program_and_enforces_it: no writable cgroup v2 hierarchy");
        return;
    };
    let null = Rule { kind: Kind::Char, major: 1, minor: Some(3), access: Access::READ.and(Access::WRITE) };
    let random = Rule { kind: Kind::Char, major: 1, minor: Some(9), access: Access::READ };
    let words: Vec<u64> = program(&[null, random]).into_iter().map(Insn::word).collect();
    let loaded = bpf::load_device_program(&words).expect("the verifier takes the program");
    let folder = std::fs::File::open(&group.0).unwrap();
    bpf::attach_device_program(folder.as_fd(), loaded.as_fd()).expect("the cgroup takes the program");
    let script = r#"echo $$ > "$0/cgroup.procs" || exit 9
        tell() { echo "$1 $?"; }
        (: < /dev/null) 2>&-; tell null-read
        (: > /dev/null) 2>&-; tell null-write
        (: < /dev/urandom) 2>&-; tell urandom-read
        (: > /dev/urandom) 2>&-; tell urandom-write
        (: < /dev/zero) 2>&-; tell zero-read
        (: < /dev/kmsg) 2>&-; tell kmsg-read"#;
    let output = Command::new("/bin/sh").args(["-c", script]).arg(&group.0).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let refused: Vec<&str> = text.lines().filter(|line| !line.ends_with(" 0")).collect();
    let names: Vec<&str> = refused.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["urandom-write", "zero-read", "kmsg-read"], "{text}");
}

#[test]
fn a_program_for_many_devices_is_within_what_old_kernels_take() {
    let many: Vec<Rule> =
        (0..40).map(|minor| Rule { kind: Kind::Block, major: 8, minor: Some(minor), access: Access(7) }).collect();
    assert!(program(&many).len() < 4096);
}
