//! The first stage of an emulated board whose kernel has the drivers of its disk as modules, as Debian's kernels do: what
//! a board's own kernel does by itself. Loads the modules that `/modules` lists, in that order, mounts the root that the
//! kernel's command line names by `early.root=DEVICE:TYPE` read-only, moves there, and becomes `/sbin/coracle`.
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
    for path in fs::read_to_string("/modules")?.lines() {
        load(path).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
    }
    let line = fs::read_to_string("/proc/cmdline")?;
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
    Err(process::Command::new("/sbin/coracle").args(std::env::args_os().skip(1)).exec())
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
    // SAFETY: strings that end with a NUL; no data.
    checked(unsafe { mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) }.into())
}

fn checked(answer: c_long) -> io::Result<()> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
