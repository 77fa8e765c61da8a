//! The first stage of an emulated board whose kernel has the drivers of its disk as modules, as Debian's kernels do: what
//! a board's own kernel does by itself. Loads the modules that `/modules` lists, in that order, mounts the root that the
//! kernel's command line names by `early.root=DEVICE:TYPE` read-only, moves there, and becomes `/sbin/coracle`.
//!
//! With `early.v1` instead it leaves a kernel that has the controllers of cgroups in v1 alone: they are mounted there, beneath
//! what coracle makes its root.
//!
//! Uses std and the C library that it is linked with, no crate.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_ulong, c_void};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::time::Duration;
use std::{fs, io, process, thread};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mount(from: *const c_char, to: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void)
    -> c_int;
    fn chroot(path: *const c_char) -> c_int;
}

const FINIT_MODULE: c_long = match () {
    _ if cfg!(target_arch = "x86_64") => 313,
    _ if cfg!(target_arch = "arm") => 379,
    _ => 273,
};
/// As people expect them together.
const V1: [&CStr; 7] = [c"memory", c"pids", c"cpu,cpuacct", c"cpuset", c"devices", c"freezer", c"blkio"];
const READ_ONLY: c_ulong = 1;
const MOVE: c_ulong = 8192;

fn main() {
    if let Err(error) = start() {
        eprintln!("early: {error}");
    }
    // The first process may not end.
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn start() -> io::Result<()> {
    fs::create_dir_all("/dev")?;
    fs::create_dir_all("/proc")?;
    fs::create_dir_all("/root")?;
    // The kernel has mounted it already where it does so by itself.
    let _ = mounted(c"dev", c"/dev", c"devtmpfs", 0);
    mounted(c"proc", c"/proc", c"proc", 0)?;
    let line = fs::read_to_string("/proc/cmdline")?;
    if line.split_whitespace().any(|word| word == "early.v1") {
        take_controllers()?;
        return Err(become_coracle());
    }
    for path in fs::read_to_string("/modules")?.lines() {
        load(path).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
    }
    let root = line.split_whitespace().find_map(|word| word.strip_prefix("early.root="));
    let (device, kind) = root.and_then(|root| root.split_once(':')).ok_or(io::Error::other("no early.root="))?;
    let (device, kind) = (CString::new(device)?, CString::new(kind)?);
    let mut tries = 0;
    while let Err(error) = mounted(&device, c"/root", &kind, READ_ONLY) {
        if tries == 200 {
            return Err(io::Error::other(format!("{device:?}: {error}")));
        }
        tries += 1;
        thread::sleep(Duration::from_millis(20));
    }
    std::env::set_current_dir("/root")?;
    mounted(c"/dev", c"dev", c"", MOVE)?;
    mounted(c".", c"/", c"", MOVE)?;
    // SAFETY: a string that ends with a NUL.
    checked(unsafe { chroot(c".".as_ptr()) }.into())?;
    std::env::set_current_dir("/")?;
    Err(become_coracle())
}

fn load(path: &str) -> io::Result<()> {
    let file = fs::File::open(path)?;
    // SAFETY: a descriptor, an empty string that ends with a NUL, a number.
    let loaded = checked(unsafe { syscall(FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), 0) });
    match loaded {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

fn mounted(from: &CStr, to: &CStr, kind: &CStr, flags: c_ulong) -> io::Result<()> {
    mounted_with(from, to, kind, flags, c"")
}

fn mounted_with(from: &CStr, to: &CStr, kind: &CStr, flags: c_ulong, data: &CStr) -> io::Result<()> {
    // SAFETY: strings that end with a NUL.
    checked(unsafe { mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) }.into())
}

/// A hierarchy of v1 keeps its controllers as long as it is mounted anywhere.
fn take_controllers() -> io::Result<()> {
    for controllers in V1 {
        let folder = format!("/v1/{}", controllers.to_string_lossy());
        fs::create_dir_all(&folder)?;
        mounted_with(c"cgroup", &CString::new(folder)?, c"cgroup", 0, controllers)?;
    }
    Ok(())
}

fn become_coracle() -> io::Error {
    process::Command::new("/sbin/coracle").args(std::env::args_os().skip(1)).exec()
}

fn checked(answer: c_long) -> io::Result<()> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
