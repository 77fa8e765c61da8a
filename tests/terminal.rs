//! A process that has been given a terminal cannot type into the one that it was started from (CVE-2017-5226), nor take
//! it. Needs root, cgroups and a static busybox.

mod busybox_board;

use busybox_board::probe::value;
use busybox_board::{Board, IDLE, service};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::OpenptyResult;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ATTEMPTS: [&str; 4] =
    ["ioctl /dev/tty 0x5412", "ioctl /dev/tty 0x541c", "ioctl /dev/pts/0 0x5412", "ioctl /dev/tty 0x540e"];

/// Runs a command in front of a pseudo-terminal, which is the controlling one of its session as a login's is; what it
/// shows, and the exit code.
fn on_a_terminal(command: &Command) -> (String, Option<i32>, OpenptyResult) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).args(words);
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
    let (mut shown, mut ended) = (Vec::new(), None);
    loop {
        if Instant::now() > end {
            let _ = child.kill();
            panic!("it does not end: {}", String::from_utf8_lossy(&shown));
        }
        let mut fds = [PollFd::new(pty.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(20u8)).unwrap() > 0 {
            let mut buffer = [0; 4096];
            let got = nix::unistd::read(&pty.master, &mut buffer).unwrap_or(0);
            shown.extend_from_slice(&buffer[..got]);
        } else if ended.is_some() {
            break;
        }
        ended = ended.or(child.try_wait().unwrap());
    }
    (String::from_utf8_lossy(&shown).replace('\r', ""), ended.and_then(|status| status.code()), pty)
}

/// That nothing has been typed into the outer terminal: its slave has nothing to read, also without waiting for a line.
fn nothing_typed(pty: &OpenptyResult) {
    let mut raw = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    nix::sys::termios::cfmakeraw(&mut raw);
    nix::sys::termios::tcsetattr(&pty.slave, nix::sys::termios::SetArg::TCSANOW, &raw).unwrap();
    let mut fds = [PollFd::new(pty.slave.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 0, "something was typed into the terminal outside");
}

fn try_all(mut command: Command) {
    command.args(["probe", "try"]).args(ATTEMPTS).args(["readlink /proc/self/fd/0", "read /proc/self/stat"]);
    let (shown, code, pty) = on_a_terminal(&command);
    assert_eq!(code, Some(0), "{shown}");
    for typing in &ATTEMPTS[..3] {
        assert_eq!(value(&shown, typing), "EPERM", "{shown}");
    }
    assert_eq!(value(&shown, "readlink /proc/self/fd/0"), "ok /dev/pts/0", "{shown}");
    // Its own terminal is its controlling one already, and the only one that it can reach.
    assert!(["ok 0", "EPERM"].contains(&value(&shown, ATTEMPTS[3])), "{shown}");
    let stat = value(&shown, "read /proc/self/stat");
    let session: u32 = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().parse().unwrap();
    assert!(session > 0, "the session is one of the container's own: {stat}");
    nothing_typed(&pty);
}

#[test]
fn root_exec_and_run_with_a_terminal_cannot_type_into_the_callers() {
    let name = "root_exec_and_run_with_a_terminal_cannot_type_into_the_callers";
    let Some(mut board) = Board::new(name, &[service("web", IDLE, "")]) else { return };
    board.up();
    board.until_logged("web", "up");
    try_all(board.command(&["exec", "-t", "web"]));
    let mut run = Command::new(env!("CARGO_BIN_EXE_coracle"));
    run.args(["run", "-t", "-e", "PATH=/bin", "--rootfs"]).arg(board.root());
    try_all(run);
}

#[test]
fn root_without_a_terminal_of_its_own_a_command_has_none() {
    let name = "root_without_a_terminal_of_its_own_a_command_has_none";
    let Some(board) = Board::new(name, &[]) else { return };
    // Without -t the terminal of the caller is standard input and output, but nobody's controlling one.
    let mut run = Command::new(env!("CARGO_BIN_EXE_coracle"));
    run.args(["run", "-e", "PATH=/bin", "--rootfs"]).arg(board.root());
    let attempts = ["ioctl /proc/self/fd/0 0x5412", "ioctl /proc/self/fd/0 0x541c", "read /dev/tty"];
    run.args(["probe", "try"]).args(attempts);
    let (shown, code, pty) = on_a_terminal(&run);
    assert_eq!(code, Some(0), "{shown}");
    for attempt in &attempts[..2] {
        assert!(["EPERM", "ENOENT", "ENXIO", "EACCES"].contains(&value(&shown, attempt)), "{shown}");
    }
    assert_eq!(value(&shown, "read /dev/tty"), "ENXIO", "{shown}");
    nothing_typed(&pty);
}
