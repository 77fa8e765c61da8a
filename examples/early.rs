//! The first stage of an emulated board whose kernel has the drivers of its disk as modules, as Debian's kernels do: what
//! a board's own kernel does by itself. Loads the modules that `/modules` lists, in that order, mounts the root that the
//! kernel's command line names by `early.root=DEVICE:TYPE` read-only, moves there, and becomes `/sbin/coracle`.
//!
//! Two words make a kernel one that lacks something, and this program coracle at once:
//!
//! | word | lacks |
//! |---|---|
//! | `early.v1` | controllers of cgroups in v2: v1 has them, mounted beneath what coracle makes its root |
//! | `early.nodevtmpfs` | devtmpfs: a filter asks a second process about each mount(2), which answers that there is none |
//!
//! Uses std and the C library that it is linked with, no crate.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_ulong, c_void};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::time::Duration;
use std::{fs, io, process, thread};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mount(from: *const c_char, to: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void)
    -> c_int;
    fn chroot(path: *const c_char) -> c_int;
    fn fork() -> c_int;
    fn ioctl(fd: c_int, request: c_int, ...) -> c_int;
}

const fn by_machine(x86_64: c_long, arm: c_long, aarch64: c_long) -> c_long {
    match () {
        _ if cfg!(target_arch = "x86_64") => x86_64,
        _ if cfg!(target_arch = "arm") => arm,
        _ => aarch64,
    }
}
const FINIT_MODULE: c_long = by_machine(313, 379, 273);
const MOUNT: c_long = by_machine(165, 21, 40);
const SECCOMP: c_long = by_machine(317, 383, 277);
const PROCESS_VM_READV: c_long = by_machine(310, 376, 270);
const PIDFD_OPEN: c_long = 434;
const PIDFD_GETFD: c_long = 438;
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
    if line.split_whitespace().any(|word| word == "early.nodevtmpfs") {
        refuse_devtmpfs()?;
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

/// seccomp_unotify(2): the filter, what is asked, and the answer.
const FILTER: c_long = 1;
const LISTENER: c_long = 8;
const RECEIVE: c_int = 0xc050_2100_u32 as c_int;
const ANSWER: c_int = 0xc018_2101_u32 as c_int;
const GO_ON: u32 = 1;
const ENODEV: i32 = 19;
/// An instruction of a filter as one number: code, where to go on, an operand.
const fn instruction(code: u64, if_not: u64, operand: u64) -> u64 {
    code | if_not << 24 | operand << 32
}
/// Loads the number of the call; if it is mount(2) asks, else lets it happen.
static ASK_ABOUT_MOUNT: [u64; 4] = [
    instruction(0x20, 0, 0),
    instruction(0x15, 1, MOUNT as u64),
    instruction(0x06, 0, 0x7fc0_0000),
    instruction(0x06, 0, 0x7fff_0000),
];

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const u64,
}

#[repr(C)]
#[derive(Default)]
struct Question {
    id: u64,
    pid: u32,
    flags: u32,
    number: u32,
    machine: u32,
    place: u64,
    arguments: [u64; 6],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// From here on the kernel knows no devtmpfs, until the process that says so ends with all others.
fn refuse_devtmpfs() -> io::Result<()> {
    let (mut question, mut ask) = io::pipe()?;
    let (mut done, mut tell) = io::pipe()?;
    // SAFETY: this process has one thread.
    if unsafe { fork() } == 0 {
        let mut number = [0; 4];
        question.read_exact(&mut number)?;
        // SAFETY: numbers alone.
        let listener = unsafe {
            let first = syscall(PIDFD_OPEN, 1, 0);
            syscall(PIDFD_GETFD, first, i32::from_le_bytes(number), 0)
        };
        tell.write_all(&[0])?;
        loop {
            answer(listener as c_int);
        }
    }
    let program = Program { length: ASK_ABOUT_MOUNT.len() as u16, instructions: ASK_ABOUT_MOUNT.as_ptr() };
    // SAFETY: the kernel reads the program and its instructions, which outlive the call.
    let listener = unsafe { syscall(SECCOMP, FILTER, LISTENER, &raw const program) };
    checked(listener)?;
    ask.write_all(&(listener as c_int).to_le_bytes())?;
    // It has it now.
    done.read_exact(&mut [0])
}

fn answer(listener: c_int) {
    let mut question = Question::default();
    // SAFETY: the kernel fills the question, and reads the answer.
    unsafe {
        if ioctl(listener, RECEIVE, &raw mut question) != 0 {
            return;
        }
        let kind = text_at(question.pid, question.arguments[2]);
        let refused = kind.starts_with(b"devtmpfs\0");
        let (error, flags) = if refused { (-ENODEV, 0) } else { (0, GO_ON) };
        let answer = Answer { id: question.id, value: 0, error, flags };
        ioctl(listener, ANSWER, &raw const answer);
    }
}

/// What another process has at an address.
fn text_at(pid: u32, address: u64) -> [u8; 9] {
    let mut text = [0; 9];
    let own = [text.as_mut_ptr() as usize, text.len()];
    let other = [address as usize, text.len()];
    // SAFETY: one area here, which lives through the call, and one there.
    unsafe { syscall(PROCESS_VM_READV, pid, own.as_ptr(), 1usize, other.as_ptr(), 1usize, 0usize) };
    text
}
