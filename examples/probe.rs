//! What a process inside a container sees and what it can do: the inner half of `tests/escape.rs` and `tests/seccomp.rs`.
//!
//! `probe status` prints facts about itself, one `key: value` a line. `probe try 'VERB ARG…'…` makes attempts and prints
//! `VERB ARG…: ok …` or `VERB ARG…: ENAME` for each; the observer outside judges. `probe exit N`, `probe sleep SECONDS`.
//! Uses std and the C library that it is linked with, no crate, so that `rustc` alone builds it.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::fs;
use std::io::{self, Read, Write};
use std::process::ExitCode;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(code: c_int) -> !;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: u64,
        data: *const c_void,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn chroot(path: *const c_char) -> c_int;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    fn sendmsg(socket: c_int, message: *const c_void, flags: c_int) -> isize;
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn accept(socket: c_int, address: *mut c_void, length: *mut c_void) -> c_int;
    fn listen(socket: c_int, backlog: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn setns(fd: c_int, kind: c_int) -> c_int;
    fn ioctl(fd: c_int, request: u64, ...) -> c_int;
    fn setuid(uid: u32) -> c_int;
    fn dup(fd: c_int) -> c_int;
    fn inotify_init1(flags: c_int) -> c_int;
    fn mq_open(name: *const c_char, flags: c_int, ...) -> c_int;
    fn shmget(key: c_int, size: usize, flags: c_int) -> c_int;
}

/// sched_setscheduler(2) by number: musl answers ENOSYS without asking the kernel.
/// The same on every architecture.
const PIDFD_OPEN: c_long = 434;
const SCHED_SETSCHEDULER: c_long = match () {
    _ if cfg!(target_arch = "x86_64") => 144,
    _ if cfg!(any(target_arch = "x86", target_arch = "arm")) => 156,
    _ => 119,
};
/// The one field of `struct sched_param` that Linux reads.
static PRIORITY: [c_int; 12] = [1; 12];

/// What an attempt came to.
type Outcome = io::Result<String>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("status") => status(),
        Some("try") => words[1..].iter().for_each(|attempt| report(attempt)),
        Some("exit") => return ExitCode::from(words.get(1).and_then(|word| word.parse().ok()).unwrap_or(0)),
        Some("sleep") => std::thread::sleep(std::time::Duration::from_secs(num(words.get(1)) as u64)),
        _ => {
            eprintln!("usage: probe status | try 'VERB ARG…'… | exit CODE | sleep SECONDS");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn num(word: Option<&String>) -> i64 {
    let word = word.map_or("0", String::as_str);
    let (digits, radix) = word.strip_prefix("0x").map_or((word, 10), |hex| (hex, 16));
    i64::from_str_radix(digits, radix).or_else(|_| u64::from_str_radix(digits, radix).map(|n| n as i64)).unwrap_or(0)
}

fn status() {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| format!("{error}"));
    for line in text("/proc/self/status").lines() {
        let wanted = ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "Pid", "PPid", "NSpid"];
        if wanted.iter().any(|key| line.starts_with(key)) {
            println!("{}", line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    links("fd", "/proc/self/fd");
    links("ns", "/proc/self/ns");
    println!(
        "cwd: {}",
        fs::read_link("/proc/self/cwd").map_or_else(|error| error.to_string(), |path| path.display().to_string())
    );
    println!("hostname: {}", text("/proc/sys/kernel/hostname").trim());
    println!("session: {}", text("/proc/self/stat").split(' ').nth(5).unwrap_or_default());
    println!("oom_score_adj: {}", text("/proc/self/oom_score_adj").trim());
    for (key, path) in
        [("mount", "/proc/self/mountinfo"), ("cgroup", "/proc/self/cgroup"), ("limit", "/proc/self/limits")]
    {
        text(path).lines().for_each(|line| println!("{key}: {line}"));
    }
    for (key, value) in std::env::vars_os() {
        println!("env: {}={}", key.to_string_lossy(), value.to_string_lossy());
    }
}

fn links(key: &str, folder: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return println!("{key}: cannot list {folder}") };
    for entry in entries.flatten() {
        // The descriptor of the listing itself is gone when its link is read.
        if let Ok(target) = fs::read_link(entry.path()) {
            let name = entry.file_name();
            if !(key == "fd" && target.starts_with("/proc")) {
                println!("{key}: {} -> {}", name.to_string_lossy(), target.display());
            }
        }
    }
}

fn report(attempt: &str) {
    let words: Vec<String> = attempt.split(' ').map(str::to_owned).collect();
    match run(&words) {
        Ok(what) if what.is_empty() => println!("{attempt}: ok"),
        Ok(what) => println!("{attempt}: ok {what}"),
        Err(error) => println!("{attempt}: {}", name(&error)),
    }
    // What was done is told even if the next attempt kills.
    let _ = io::stdout().flush();
}

fn run(words: &[String]) -> Outcome {
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let path = |at: usize| CString::new(word(at)).unwrap_or_default();
    let n = |at: usize| num(words.get(at));
    // SAFETY: every string is NUL-terminated and lives through its call; the rest are plain numbers.
    unsafe {
        match word(0) {
            "read" => read(word(1)),
            "write" => write(word(1), &words[2..].join(" ")),
            "create" => fs::File::create(word(1)).map(drop).map(none),
            "append" => fs::OpenOptions::new().append(true).open(word(1)).map(drop).map(none),
            "unlink" => fs::remove_file(word(1)).map(none),
            "mkdir" => fs::create_dir(word(1)).map(none),
            "symlink" => std::os::unix::fs::symlink(word(1), word(2)).map(none),
            "readlink" => fs::read_link(word(1)).map(|target| target.display().to_string()),
            "ls" => Ok(fs::read_dir(word(1))?
                .flatten()
                .map(|e| e.file_name().display().to_string())
                .collect::<Vec<_>>()
                .join(" ")),
            "reach" => reach(word(1)),
            "stat" => fs::symlink_metadata(word(1)).map(|facts| format!("{facts:?}")),
            "mount" => done(mount(path(1).as_ptr(), path(2).as_ptr(), path(3).as_ptr(), n(4) as u64, std::ptr::null())),
            "umount" => done(umount2(path(1).as_ptr(), n(2) as c_int)),
            "chroot" => done(chroot(path(1).as_ptr())),
            "mknod" => {
                done(mknod(path(1).as_ptr(), if word(2) == "b" { 0o060_666 } else { 0o020_666 }, device(n(3), n(4))))
            }
            "socket" => done(socket(n(1) as c_int, n(2) as c_int, n(3) as c_int)),
            "connect-tcp" => std::net::TcpStream::connect(word(1)).map(drop).map(none),
            "connect-abstract" => connect_abstract(word(1)),
            "kill" => done(kill(n(1) as c_int, n(2) as c_int)),
            "unshare" => done(unshare(n(1) as c_int)),
            "setns" => setns_of(word(1)),
            "setuid" => done(setuid(n(1) as u32)),
            "ioctl" => ioctl_of(word(1), n(2) as u64),
            "syscall" => finished(raw(n(1), [2, 3, 4, 5, 6, 7].map(n))),
            #[cfg(target_arch = "x86_64")]
            "int80" => int80(n(1), [2, 3, 4].map(n)),
            "in-child" => in_child(&words[1..]),
            "syscalls" => syscalls(n(1), n(2)),
            "fork-until-refused" => fork_until_refused(n(1)),
            "orphans" => orphans(n(1)),
            "open-until-refused" => open_until_refused(n(1)),
            "inotify-until-refused" => until_refused(n(1), |_| inotify_init1(0)),
            "mqueue-until-refused" => until_refused(n(1), |number| {
                let name = CString::new(format!("/queue-{number}")).unwrap_or_default();
                mq_open(name.as_ptr(), 0o102, 0o600, std::ptr::null::<c_void>())
            }),
            "shm-until-refused" => until_refused(n(1), |_| shmget(0, 4096, 0o1600)),
            "bomb" => loop {
                // Every process goes on, whether it was made or refused.
                fork();
            },
            "serve" => serve(word(1)),
            "answer" => answer(n(1) as c_int),
            "reply" => reply(word(1), &words[2..].join(" ")),
            "listen" => listen_at(word(1)),
            "deaf" => deaf(word(1)),
            "notify" => notify(&words[1..].join(" "), 1),
            "notify-flood" => notify(&words[2..].join(" "), n(1)),
            "notify-with" => notify_with(n(1), &words[2..].join(" ")),
            "notify-pidfd" => notify_pidfd(n(1), &words[2..].join(" ")),
            "pings" => (0..n(2))
                .try_for_each(|_| {
                    std::thread::sleep(std::time::Duration::from_millis(n(1) as u64));
                    notify("WATCHDOG=1", 1).map(drop)
                })
                .map(none),
            "write-fd" => fs::OpenOptions::new()
                .write(true)
                .open(format!("/proc/self/fd/{}", n(1)))?
                .write_all(word(2).replace('|', "\n").as_bytes())
                .map(none),
            "await" => {
                while !std::path::Path::new(word(1)).exists() {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                Ok(String::new())
            }
            "fifo" => done(syscall(SCHED_SETSCHEDULER, 0, 1, PRIORITY.as_ptr()) as c_int),
            "pause" => {
                std::thread::sleep(std::time::Duration::from_millis(n(1) as u64));
                Ok(String::new())
            }
            "eat" => Ok(eat(n(1))),
            "fill" => fill(word(1), n(2)),
            "flood" => flood(n(1), n(2)),
            "spin" => Ok(spin(n(1))),
            "try-exec" => {
                std::process::Command::new(word(1)).args(&words[2..]).status().map(|status| status.to_string())
            }
            other => Ok(format!("probe knows no verb {other:?}")),
        }
    }
}

fn none(_: ()) -> String {
    String::new()
}

fn done(answer: c_int) -> Outcome {
    finished(c_long::from(answer))
}

fn finished(answer: c_long) -> Outcome {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(answer.to_string()) }
}

fn device(major: i64, minor: i64) -> u64 {
    (major as u64) << 8 | minor as u64
}

fn read(path: &str) -> Outcome {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(4096).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().replace('\n', "|"))
}

/// How many entries of a folder of `/proc` lead anywhere.
fn reach(folder: &str) -> Outcome {
    let (mut all, mut reached) = (0, 0);
    for entry in fs::read_dir(folder)?.flatten() {
        all += 1;
        let path = entry.path();
        reached += usize::from(fs::read_link(&path).is_ok() || fs::File::open(&path).is_ok());
    }
    Ok(format!("{reached} reached{}", if all == 0 { ", the folder is empty" } else { "" }))
}

fn write(path: &str, text: &str) -> Outcome {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes()).map(none)
}

/// Sends `text` (`|` stands for a newline) to NOTIFY_SOCKET `count` times; tells the longest wait in milliseconds.
fn notify(text: &str, count: i64) -> Outcome {
    let path = std::env::var("NOTIFY_SOCKET").map_err(io::Error::other)?;
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.connect(path)?;
    let text = text.replace('|', "\n");
    let mut longest = std::time::Duration::ZERO;
    for _ in 0..count {
        let start = std::time::Instant::now();
        socket.send(text.as_bytes())?;
        longest = longest.max(start.elapsed());
    }
    Ok(format!("longest wait {}", longest.as_millis()))
}

/// Sends `text` to NOTIFY_SOCKET with the write end of a pipe, `count` times over, and waits until whoever got them has
/// closed them all.
fn notify_with(count: i64, text: &str) -> Outcome {
    use std::os::fd::AsRawFd;
    let (mut read, write) = io::pipe()?;
    send_with(&vec![write.as_raw_fd(); count as usize], text)?;
    drop(write);
    read.read_to_end(&mut Vec::new()).map(|_| "closed".into())
}

/// Sends `text` to NOTIFY_SOCKET with a descriptor of pidfd_open(2) for process `pid`.
fn notify_pidfd(pid: i64, text: &str) -> Outcome {
    // SAFETY: integers.
    let pidfd = finished(unsafe { syscall(PIDFD_OPEN, pid, 0) })?;
    send_with(&[pidfd.parse().unwrap_or(-1)], &text.replace('|', "\n"))
}

/// Sends `text` to NOTIFY_SOCKET with these descriptors.
fn send_with(fds: &[c_int], text: &str) -> Outcome {
    use std::os::fd::AsRawFd;
    let path = std::env::var("NOTIFY_SOCKET").map_err(io::Error::other)?;
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.connect(path)?;
    // A control message header (cmsg(3)): its length, SOL_SOCKET, SCM_RIGHTS, then the descriptors.
    let head = size_of::<usize>() + 8;
    let mut control = vec![0u8; (head + 4 * fds.len()).next_multiple_of(size_of::<usize>())];
    let mut place = 0;
    let mut put = |bytes: &[u8]| {
        control[place..place + bytes.len()].copy_from_slice(bytes);
        place += bytes.len();
    };
    put(&(head + 4 * fds.len()).to_ne_bytes());
    put(&1i32.to_ne_bytes());
    put(&1i32.to_ne_bytes());
    fds.iter().for_each(|fd| put(&fd.to_ne_bytes()));
    let part = [text.as_ptr() as usize, text.len()];
    // `struct msghdr` of the kernel: name, its length, parts, their number, control, its length, flags.
    let message = [0, 0, part.as_ptr() as usize, 1, control.as_ptr() as usize, (head + 4 * fds.len()), 0];
    // SAFETY: every pointer leads to memory that lives through the call, with its size.
    done(unsafe { sendmsg(socket.as_raw_fd(), message.as_ptr().cast(), 0) } as c_int)
}

fn connect_abstract(name: &str) -> Outcome {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    std::os::unix::net::UnixStream::connect_addr(&address).map(drop).map(none)
}

fn setns_of(path: &str) -> Outcome {
    use std::os::fd::AsRawFd;
    let file = fs::File::open(path)?;
    // SAFETY: plain numbers.
    done(unsafe { setns(file.as_raw_fd(), 0) })
}

fn ioctl_of(path: &str, request: u64) -> Outcome {
    use std::os::fd::AsRawFd;
    let byte = b'x';
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    // SAFETY: the request reads at most the byte.
    done(unsafe { ioctl(file.as_raw_fd(), request, &raw const byte) })
}

/// Any system call with six plain numbers.
///
/// # Safety
/// As the call itself demands of its arguments.
unsafe fn raw(number: i64, args: [i64; 6]) -> c_long {
    let [a, b, c, d, e, f] = args.map(|arg| arg as c_long);
    // SAFETY: by the caller.
    unsafe { syscall(number as c_long, a, b, c, d, e, f) }
}

/// A call through the 32-bit entry of a 64-bit kernel.
///
/// # Safety
/// As the call itself demands of its arguments.
#[cfg(target_arch = "x86_64")]
unsafe fn int80(number: i64, args: [i64; 3]) -> Outcome {
    let answer: i64;
    // SAFETY: by the caller; rbx is restored, because the compiler keeps it for itself.
    unsafe {
        std::arch::asm!("xchg rbx, {b}", "int 0x80", "xchg rbx, {b}", b = inout(reg) args[0] => _,
            inlateout("rax") number => answer, in("rcx") args[1], in("rdx") args[2],
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    match answer as i32 {
        error @ -4095..0 => Err(io::Error::from_raw_os_error(-error)),
        value => Ok(value.to_string()),
    }
}

/// Runs `task` in a child, for at most a second, and tells how that ended.
fn child(task: impl FnOnce() -> i32) -> Outcome {
    let mut status = 0;
    // SAFETY: the probe has one thread, so the child may do whatever its parent may.
    let pid = unsafe { fork() };
    match pid {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: ends the child at once.
        0 => unsafe { _exit(task()) },
        _ => {}
    }
    let start = std::time::Instant::now();
    // SAFETY: the status lives through the calls; the pid is our child's until it is waited for.
    unsafe {
        while waitpid(pid, &raw mut status, ANY_CHILD | DO_NOT_WAIT) == 0 {
            if start.elapsed().as_secs() >= 1 {
                kill(pid, 9);
            }
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
    }
    Ok(match status & 0x7f {
        0 => format!("exit {}", status >> 8 & 0xff),
        signal => format!("signal {signal}"),
    })
}

/// Options of waitpid(2).
const DO_NOT_WAIT: c_int = 1;
const ANY_CHILD: c_int = 0x4000_0000;

fn in_child(words: &[String]) -> Outcome {
    child(|| match run(words) {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(255),
    })
}

/// Makes each call of a range of numbers with senseless arguments in a child of its own.
fn syscalls(first: i64, last: i64) -> Outcome {
    let mut answers = Vec::new();
    for number in first..=last {
        // SAFETY: all arguments are -1: no valid descriptor, pointer or size.
        let answer = child(|| match unsafe { raw(number, [-1; 6]) } {
            -1 => io::Error::last_os_error().raw_os_error().unwrap_or(255),
            _ => 0,
        })?;
        answers.push(format!("{number}={}", answer.replace(' ', ":")));
    }
    Ok(answers.join(" "))
}

fn fork_until_refused(most: i64) -> Outcome {
    let mut children = Vec::new();
    let refusal = loop {
        if children.len() as i64 >= most {
            break None;
        }
        // SAFETY: the child does nothing but wait to be killed.
        match unsafe { fork() } {
            -1 => break Some(io::Error::last_os_error()),
            0 => loop {
                std::thread::sleep(std::time::Duration::from_secs(60));
            },
            pid => children.push(pid),
        }
    };
    for pid in &children {
        // SAFETY: plain numbers; these are our own children.
        unsafe {
            kill(*pid, 9);
            waitpid(*pid, std::ptr::null_mut(), 0);
        }
    }
    Ok(format!("{} children, then {}", children.len(), refusal.map_or("no refusal".into(), |error| name(&error))))
}

/// Makes processes that end at once and whose parent has ended before: each is left to whoever reaps orphans.
fn orphans(count: i64) -> Outcome {
    let mut made = 0;
    while made < count {
        // SAFETY: the child makes two more calls and is gone.
        match unsafe { fork() } {
            -1 => std::thread::yield_now(),
            // SAFETY: it and its own child end without another call.
            0 => unsafe { _exit(c_int::from(fork() == -1)) },
            pid => {
                let mut status = 0;
                // SAFETY: waits for the child just made.
                unsafe { waitpid(pid, &mut status, 0) };
                made += i64::from(status == 0);
            }
        }
    }
    Ok(format!("{made} made"))
}

fn open_until_refused(most: i64) -> Outcome {
    for opened in 0..most {
        // SAFETY: plain number.
        if unsafe { dup(1) } == -1 {
            return Ok(format!("{opened} descriptors, then {}", name(&io::Error::last_os_error())));
        }
    }
    Ok(format!("{most} descriptors, no refusal"))
}

/// Takes one more of something, which nobody gives back, until the kernel says no.
fn until_refused(most: i64, mut take: impl FnMut(i64) -> c_int) -> Outcome {
    for taken in 0..most {
        if take(taken) == -1 {
            return Ok(format!("{taken} taken, then {}", name(&io::Error::last_os_error())));
        }
    }
    Ok(format!("{most} taken, no refusal"))
}

/// Answers each connection with a line.
fn serve(address: &str) -> Outcome {
    let listener = std::net::TcpListener::bind(address)?;
    println!("serving {}", listener.local_addr()?);
    io::stdout().flush()?;
    for stream in listener.incoming() {
        // A client that is gone is no reason to end.
        let _ = stream.and_then(|mut stream| stream.write_all(b"pong\n"));
    }
    Ok(String::new())
}

/// Accepts at a socket that it was given, and tells each who comes what it knows of its sockets; ends at the word `end`.
fn answer(fd: c_int) -> Outcome {
    use std::os::fd::FromRawFd as _;
    let own = std::env::var("LISTEN_PID").ok() == Some(std::process::id().to_string());
    let told = |key: &str| std::env::var(key).unwrap_or_default();
    loop {
        // SAFETY: null pointers ask for no address; what comes is a new descriptor, or an error.
        let taken = unsafe { accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) };
        let mut stream = match done(taken) {
            // SAFETY: as above; nothing else owns it.
            Ok(_) => unsafe { fs::File::from_raw_fd(taken) },
            Err(error) => return Err(error),
        };
        let sockets =
            format!("{} {} own={own} main={}\n", told("LISTEN_FDS"), told("LISTEN_FDNAMES"), std::process::id());
        let mut word = [0; 3];
        stream.read_exact(&mut word)?;
        stream.write_all(sockets.as_bytes())?;
        if word == *b"end" {
            return Ok(String::new());
        }
    }
}

/// Answers each request with `text`, in which `|` ends a line as HTTP has it.
fn reply(address: &str, text: &str) -> Outcome {
    for stream in std::net::TcpListener::bind(address)?.incoming() {
        let mut request = [0; 1024];
        // As above.
        let _ = stream.and_then(|mut stream| {
            let _ = stream.read(&mut request)?;
            stream.write_all(text.replace('|', "\r\n").as_bytes())
        });
    }
    Ok(String::new())
}

/// Listens at an address or a path from now on and takes nothing of what comes.
fn listen_at(place: &str) -> Outcome {
    if place.starts_with('/') {
        std::mem::forget(std::os::unix::net::UnixListener::bind(place)?);
    } else {
        std::mem::forget(std::net::TcpListener::bind(place)?);
    }
    Ok(String::new())
}

/// The same with a queue that is full already, so that whoever connects waits.
fn deaf(address: &str) -> Outcome {
    use std::os::fd::AsRawFd;
    let listener = std::net::TcpListener::bind(address)?;
    // SAFETY: an open socket and a number.
    done(unsafe { listen(listener.as_raw_fd(), 0) })?;
    std::mem::forget((std::net::TcpStream::connect(address)?, listener));
    Ok(String::new())
}

fn eat(mib: i64) -> String {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for step in 0..mib {
        kept.push(vec![step as u8 | 1; 1 << 20]);
    }
    std::hint::black_box(&kept);
    format!("{mib} MiB held")
}

fn fill(path: &str, mib: i64) -> Outcome {
    let mut file = fs::File::create(path)?;
    let block = vec![1u8; 1 << 20];
    for written in 0..mib {
        if let Err(error) = file.write_all(&block) {
            return Ok(format!("{written} MiB, then {}", name(&error)));
        }
    }
    Ok(format!("{mib} MiB written"))
}

/// Lines of `width` bytes with what a terminal or a text tool could trip over.
fn flood(lines: i64, width: i64) -> Outcome {
    let mut out = io::BufWriter::new(io::stdout());
    for line in 0..lines {
        writeln!(out, "{line} \x1b[2J\0\x07\u{9b}{}", "x".repeat(width as usize))?;
    }
    Ok(String::new())
}

fn spin(seconds: i64) -> String {
    let start = std::time::Instant::now();
    let mut rounds = 0u64;
    while start.elapsed().as_secs() < seconds as u64 {
        rounds = std::hint::black_box(rounds + 1);
    }
    format!("{seconds} s")
}

/// The symbol of an error that attempts meet; others as a number.
fn name(error: &io::Error) -> String {
    let known = [
        (1, "EPERM"),
        (2, "ENOENT"),
        (3, "ESRCH"),
        (6, "ENXIO"),
        (9, "EBADF"),
        (10, "ECHILD"),
        (11, "EAGAIN"),
        (12, "ENOMEM"),
        (13, "EACCES"),
        (14, "EFAULT"),
        (16, "EBUSY"),
        (17, "EEXIST"),
        (19, "ENODEV"),
        (20, "ENOTDIR"),
        (22, "EINVAL"),
        (24, "EMFILE"),
        (25, "ENOTTY"),
        (26, "ETXTBSY"),
        (28, "ENOSPC"),
        (30, "EROFS"),
        (32, "EPIPE"),
        (38, "ENOSYS"),
        (40, "ELOOP"),
        (93, "EPROTONOSUPPORT"),
        (97, "EAFNOSUPPORT"),
        (101, "ENETUNREACH"),
        (111, "ECONNREFUSED"),
    ];
    let number = error.raw_os_error().unwrap_or(0);
    known
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(|| format!("errno {number}"), |(_, name)| (*name).into())
}
