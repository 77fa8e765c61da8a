//! The hands of a test on an emulated board: runs what it is told over a serial port.
//!
//! | argument | does |
//! |---|---|
//! | `serve` | on the first virtual serial port: says `hello`, then answers requests: a line with a length, that many bytes of words, each with a NUL at its end. The answer is a line `EXIT LENGTH` and that many bytes of output. After the word `&` nothing is waited for |
//! | `stop PID` | stops a process as a debugger does, for good; the first process of a board too, which no signal stops |
//! | `stray FILE` | writes its cgroup to a file again and again, outside of every service's group and session, and ignores what asks it to end |
//! | `clock SECONDS` | sets the clock to so many seconds since 1970 |
//! | `fail TIMES PAUSE` | once its parent has ended, makes the first process fail so often, with pauses of milliseconds; outside of every service's group and session, and ignores what asks it to end |
//! | `filter PID` | prints the system call filters of a process, newest first: one line each, 16 hex digits an instruction |
//!
//! Uses std and the C library that it is linked with, no crate.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

unsafe extern "C" {
    fn ptrace(request: c_long, ...) -> c_long;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn clock_settime(clock: c_int, time: *const c_long) -> c_int;
    fn setsid() -> c_int;
    fn getppid() -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    fn signal(signal: c_int, action: usize) -> usize;
}

/// ptrace(2).
const SEIZE: c_long = 0x4206;
const INTERRUPT: c_long = 0x4207;
const GET_FILTER: c_long = 0x420c;
/// waitpid(2): children of any kind, which a process that is traced is.
const ALL: c_int = 0x4000_0000;
/// signal(7): what a wild pointer leads to.
const SEGMENT_FAULT: c_int = 11;
/// signal(2): SIGHUP and SIGTERM, and what ignores a signal.
const POLITE: [c_int; 2] = [1, 15];
const IGNORED: usize = 1;
/// The most instructions of a filter.
const INSTRUCTIONS: usize = 4096;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["serve"] => serve(),
        ["stop", pid] => stop(number(pid)).map(|()| {
            loop {
                // A tracer that ends lets go.
                std::thread::sleep(Duration::from_secs(3600));
            }
        }),
        ["stray", file] => stray(file),
        ["clock", seconds] => set_clock(seconds.parse().unwrap_or(0)),
        ["fail", times, pause] => fail(number(times), number(pause) as u64),
        ["filter", pid] => filters(number(pid)),
        _ => Err(io::Error::other(
            "usage: agent serve | stop PID | stray FILE | clock SECONDS | fail TIMES PAUSE | filter PID",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> c_int {
    word.parse().unwrap_or(0)
}

fn serve() -> io::Result<()> {
    let mut port = open()?;
    port.write_all(b"hello\n")?;
    loop {
        let length = line(&mut port)?.parse().map_err(io::Error::other)?;
        let mut request = vec![0; length];
        port.read_exact(&mut request)?;
        let text = String::from_utf8_lossy(&request);
        let words: Vec<&str> = text.split_terminator('\0').collect();
        let (code, output) = run(&words);
        port.write_all(format!("{code} {}\n", output.len()).as_bytes())?;
        port.write_all(&output)?;
    }
}

/// Opens the port: its driver comes as a module, and the device some time after that. Where the kernel makes no node for
/// it, this does.
fn open() -> io::Result<File> {
    for _ in 0..200 {
        if fs::read_to_string("/proc/mounts")?.contains(" /dev tmpfs ") {
            let _ = make_node();
        }
        let port =
            fs::read_dir("/dev")?.flatten().find(|entry| entry.file_name().as_encoded_bytes().starts_with(b"vport"));
        if let Some(port) = port {
            return OpenOptions::new().read(true).write(true).open(port.path());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::other("there is no virtual serial port"))
}

fn make_node() -> io::Result<()> {
    for port in fs::read_dir("/sys/class/virtio-ports")?.flatten() {
        let device = fs::read_to_string(port.path().join("dev"))?;
        let (major, minor) = device.trim().split_once(':').unwrap_or_default();
        let path = CString::new(format!("/dev/{}", port.file_name().display()))?;
        // SAFETY: a string that ends with a NUL, and numbers; majors and minors are small here.
        unsafe { mknod(path.as_ptr(), 0o020_600, (number(major) << 8 | number(minor)) as _) };
    }
    Ok(())
}

fn line(port: &mut File) -> io::Result<String> {
    let mut text = String::new();
    let mut byte = [0];
    loop {
        match port.read(&mut byte)? {
            // Nobody is connected at the other end.
            0 => std::thread::sleep(Duration::from_millis(50)),
            _ if byte[0] == b'\n' => return Ok(text),
            _ => text.push(char::from(byte[0])),
        }
    }
}

fn run(words: &[&str]) -> (i32, Vec<u8>) {
    let (wait, words) = match words {
        ["&", rest @ ..] => (false, rest),
        words => (true, words),
    };
    let [program, arguments @ ..] = words else { return (127, Vec::new()) };
    match spawn(program, arguments, wait) {
        Ok(answer) => answer,
        Err(error) => (127, format!("agent: {program}: {error}\n").into_bytes()),
    }
}

fn spawn(program: &str, arguments: &[&str], wait: bool) -> io::Result<(i32, Vec<u8>)> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if !wait {
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        return Ok((0, Vec::new()));
    }
    let (mut reader, writer) = io::pipe()?;
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    drop(command);
    let mut output = Vec::new();
    reader.read_to_end(&mut output)?;
    let status = child.wait()?;
    Ok((status.code().unwrap_or(128), output))
}

fn stop(pid: c_int) -> io::Result<()> {
    let none = std::ptr::null_mut::<c_void>();
    let mut status = 0;
    // SAFETY: numbers and null pointers; the status lives through the call.
    unsafe {
        checked(ptrace(SEIZE, pid, none, none))?;
        checked(ptrace(INTERRUPT, pid, none, none))?;
        checked(c_long::from(waitpid(pid, &raw mut status, ALL)))?;
    }
    Ok(())
}

/// Out of every group and session, and deaf to what asks for an end.
fn go_astray() -> io::Result<()> {
    fs::write("/sys/fs/cgroup/cgroup.procs", "0")?;
    // SAFETY: numbers alone.
    unsafe {
        setsid();
        for polite in POLITE {
            signal(polite, IGNORED);
        }
    }
    Ok(())
}

fn set_clock(seconds: c_long) -> io::Result<()> {
    let time = [seconds, 0];
    // SAFETY: the time of day, and a `struct timespec` that lives through the call.
    checked(c_long::from(unsafe { clock_settime(0, time.as_ptr()) })).map(drop)
}

fn fail(times: c_int, pause: u64) -> io::Result<()> {
    // SAFETY: no arguments.
    let parent = || unsafe { getppid() };
    let first = parent();
    go_astray()?;
    while parent() == first {
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..times {
        // SAFETY: numbers alone.
        checked(c_long::from(unsafe { kill(1, SEGMENT_FAULT) }))?;
        std::thread::sleep(Duration::from_millis(pause));
    }
    Ok(())
}

fn stray(file: &str) -> io::Result<()> {
    go_astray()?;
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    loop {
        file.write_all(&fs::read("/proc/self/cgroup")?)?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn filters(pid: c_int) -> io::Result<()> {
    stop(pid)?;
    for index in 0_usize.. {
        let mut program = vec![0_u64; INSTRUCTIONS];
        // SAFETY: the kernel writes at most as many instructions of eight bytes as a filter can have.
        let length = match checked(unsafe { ptrace(GET_FILTER, pid, index, program.as_mut_ptr()) }) {
            Ok(length) => length as usize,
            // There is none of this index.
            Err(error) if error.raw_os_error() == Some(2) => break,
            Err(error) => return Err(error),
        };
        let line: String = program.iter().take(length).map(|word| format!("{word:016x}")).collect();
        println!("{line}");
    }
    Ok(())
}

fn checked(answer: c_long) -> io::Result<c_long> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
