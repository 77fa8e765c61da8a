//! Runs a command as on Linux 4.19: the kernel answers ENOSYS to every younger system call, in all its children too, and
//! does not know the younger way to set up a loop device.
//!
//! ```sh
//! enosys COMMAND [ARGUMENT...]
//! ```

use seccompiler::{apply_filter, sock_filter};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// The first system call number that Linux 4.19 does not have. The tables only grew at the end: rseq(2), of 4.18, is the
/// one before. From 424 on all architectures count alike.
const FIRST_YOUNGER: u32 = match () {
    _ if cfg!(target_arch = "x86_64") => 335,
    _ if cfg!(target_arch = "x86") => 387,
    _ if cfg!(target_arch = "arm") => 399,
    _ => 294,
};
/// Above the tables: ARM's private calls and the x32 calls, which stay as they are.
const BEYOND: u32 = 0x1_0000;

/// `LOOP_CONFIGURE` of linux/loop.h, Linux 5.8. An older loop device answers EINVAL.
const LOOP_CONFIGURE: u32 = 0x4c0a;
/// Where the low word of a call's second argument is (`struct seccomp_data`), on little-endian machines.
const SECOND_ARGUMENT: u32 = 24;

// Instructions and answers of linux/filter.h and linux/seccomp.h.
const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const REFUSE: u32 = 0x0005_0000 | libc::ENOSYS as u32;
const INVALID: u32 = 0x0005_0000 | libc::EINVAL as u32;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(command) = arguments.next() else {
        eprintln!("usage: enosys COMMAND [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let filter = [
        instruction(LOAD_WORD, 0, 0, 0),
        instruction(JUMP_EQUAL, 0, 3, libc::SYS_ioctl as u32),
        instruction(LOAD_WORD, 0, 0, SECOND_ARGUMENT),
        instruction(JUMP_EQUAL, 0, 4, LOOP_CONFIGURE),
        instruction(RETURN, 0, 0, INVALID),
        instruction(JUMP_AT_LEAST, 0, 2, FIRST_YOUNGER),
        instruction(JUMP_AT_LEAST, 1, 0, BEYOND),
        instruction(RETURN, 0, 0, REFUSE),
        instruction(RETURN, 0, 0, ALLOW),
    ];
    if let Err(error) = apply_filter(&filter) {
        eprintln!("enosys: cannot install the filter: {error}");
        return ExitCode::FAILURE;
    }
    let error = Command::new(&command).args(arguments).exec();
    eprintln!("enosys: cannot run {}: {error}", command.display());
    ExitCode::from(127)
}
