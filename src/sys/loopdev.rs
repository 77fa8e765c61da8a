//! Loop devices: a file as a block device, loop(4).

use super::{Errno, Result, check, path};
use core::fmt::Write;
use nix::fcntl::OFlag;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const LOOP_SET_FD: u32 = 0x4c00;
const LOOP_CLR_FD: u32 = 0x4c01;
const LOOP_SET_STATUS64: u32 = 0x4c04;
const LOOP_CONFIGURE: u32 = 0x4c0a;
const LOOP_CTL_GET_FREE: u32 = 0x4c82;

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;

/// Tries to take a free device before another process does.
const TRIES: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

fn info() -> Info {
    Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: READ_ONLY | AUTOCLEAR,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    }
}

/// `ioctl(fd, LOOP_CTL_GET_FREE)` and `ioctl(fd, LOOP_CONFIGURE, …)`, loop(4), Linux 3.1 and 5.8, or where that is missing
/// `LOOP_SET_FD` and `LOOP_SET_STATUS64`: a read-only block device of `file`'s bytes. It vanishes when nobody has it open
/// and nothing of it is mounted any more.
///
/// # Errors
/// `ENOENT` or `ENODEV` from a kernel without loop devices.
pub fn attach(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    let control = path::open(c"/dev/loop-control", OFlag::O_RDWR)?;
    for _ in 0..TRIES {
        // SAFETY: the call takes no argument.
        let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) }.into())?;
        let mut name = heapless::String::<32>::new();
        // 9 bytes and at most 20 digits always fit.
        let _ = write!(name, "/dev/loop{number}\0");
        let name = CStr::from_bytes_until_nul(name.as_bytes()).map_err(|_| Errno(libc::EINVAL))?;
        let device = path::open(name, OFlag::O_RDONLY)?;
        match configure(&device, file) {
            // Someone else took it meanwhile.
            Err(Errno(libc::EBUSY)) => {}
            answer => return answer.map(|()| device),
        }
    }
    Err(Errno(libc::EBUSY))
}

fn configure(device: &OwnedFd, file: BorrowedFd<'_>) -> Result<()> {
    let config = Config { fd: file.as_raw_fd() as u32, block_size: 0, info: info(), reserved: [0; 8] };
    // SAFETY: the struct has the kernel's layout and lives until the call returns.
    match check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) }.into()) {
        // Kernels without the call answer what a device without it answers.
        Err(Errno(libc::EINVAL | libc::ENOTTY)) => {}
        answer => return answer.map(drop),
    }
    // SAFETY: the argument is a descriptor.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD as _, file.as_raw_fd()) }.into())?;
    // SAFETY: the struct has the kernel's layout and lives until the call returns.
    let answer =
        check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_STATUS64 as _, &raw const config.info) }.into());
    if answer.is_err() {
        // SAFETY: the call takes no argument.
        let _ = check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _) }.into());
    }
    answer.map(drop)
}
