//! What a board's first process alone asks of the kernel: modules, clocks, randomness, the end.

use super::{Result, check};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What reboot(2) is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reboot<'a> {
    /// Start anew.
    Restart,
    /// Start anew; the boot loader gets the text.
    RestartWith(&'a CStr),
    /// Switch off.
    PowerOff,
    /// Stand still.
    Halt,
    /// Ctrl-Alt-Del becomes SIGINT for process 1.
    KeysAsSignal,
}

/// `reboot(2)`. Returns only with an error, or after [`Reboot::KeysAsSignal`]. Nothing is written back before.
pub fn reboot(what: Reboot<'_>) -> Result<()> {
    let (command, text) = match what {
        Reboot::Restart => (libc::LINUX_REBOOT_CMD_RESTART, core::ptr::null()),
        Reboot::RestartWith(text) => (libc::LINUX_REBOOT_CMD_RESTART2, text.as_ptr()),
        Reboot::PowerOff => (libc::LINUX_REBOOT_CMD_POWER_OFF, core::ptr::null()),
        Reboot::Halt => (libc::LINUX_REBOOT_CMD_HALT, core::ptr::null()),
        Reboot::KeysAsSignal => (libc::LINUX_REBOOT_CMD_CAD_OFF, core::ptr::null()),
    };
    let (one, two) = (libc::LINUX_REBOOT_MAGIC1, libc::LINUX_REBOOT_MAGIC2);
    // SAFETY: integers, and null or a NUL-terminated text.
    check(unsafe { libc::syscall(libc::SYS_reboot, one, two, command, text) }).map(drop)
}

/// `MODULE_INIT_COMPRESSED_FILE` (5.17): the file is compressed.
const COMPRESSED: libc::c_int = 4;

/// `finit_module(2)` (3.8): loads the module in `file`. EEXIST: it is loaded already; EOPNOTSUPP with `compressed`: this
/// kernel cannot decompress (CONFIG_MODULE_DECOMPRESS), EINVAL: it knows no such flag.
pub fn load_module(file: BorrowedFd<'_>, parameters: &CStr, compressed: bool) -> Result<()> {
    let flags = if compressed { COMPRESSED } else { 0 };
    // SAFETY: integers and a NUL-terminated text.
    check(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), flags) }).map(drop)
}

/// `struct rtc_time` of rtc(4).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RtcTime {
    /// 0 to 60.
    pub second: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 1 to 31.
    pub day: i32,
    /// 0 to 11.
    pub month: i32,
    /// Since 1900.
    pub year: i32,
    unused: [i32; 3],
}

impl RtcTime {
    /// A date and time of day.
    pub fn new(year: i32, month: i32, day: i32, [hour, minute, second]: [i32; 3]) -> RtcTime {
        RtcTime { second, minute, hour, day, month, year, unused: [0; 3] }
    }
}

/// The ioctls, whose macros write no documentation.
#[allow(missing_docs)]
mod ioctl {
    nix::ioctl_read!(rtc_rd_time, b'p', 0x09, super::RtcTime);
    nix::ioctl_write_ptr!(rnd_add_entropy, b'R', 0x03, [libc::c_int; 2]);
}

/// `RTC_RD_TIME` of rtc(4): what the clock behind `rtc` shows. EINVAL: it has lost its time.
pub fn read_rtc(rtc: BorrowedFd<'_>) -> Result<RtcTime> {
    let mut time = RtcTime::default();
    // SAFETY: the kernel fills the structure, which lives on this stack.
    unsafe { ioctl::rtc_rd_time(rtc.as_raw_fd(), &raw mut time) }?;
    Ok(time)
}

/// `adjtimex(2)` without a change: whether someone keeps the time of day in step with a better clock. It is in error until
/// then, and again where that someone has been gone for hours.
pub fn clock_is_synchronized() -> bool {
    // More than any libc's timex: the fields behind the first, which says that nothing is changed, do not matter here.
    let mut timex = [0u64; 64];
    // SAFETY: the kernel and the C library write no more than a timex, which is smaller and no more aligned.
    let state = unsafe { libc::adjtimex(timex.as_mut_ptr().cast()) };
    (0..libc::TIME_ERROR).contains(&state)
}

/// Bytes of a random seed: what the pool of today's kernels holds, twice.
pub const SEED_BYTES: usize = 64;

/// `struct rand_pool_info` of random(4), with room for one seed.
#[repr(C)]
struct Pool {
    entropy_bits: libc::c_int,
    bytes: libc::c_int,
    buffer: [u8; SEED_BYTES],
}

/// `RNDADDENTROPY` of random(4): mixes `seed` into the pool and counts it as `bits` of randomness. `random` is
/// /dev/urandom.
pub fn add_entropy(random: BorrowedFd<'_>, seed: &[u8; SEED_BYTES], bits: i32) -> Result<()> {
    let pool = Pool { entropy_bits: bits, bytes: SEED_BYTES as libc::c_int, buffer: *seed };
    // SAFETY: the kernel reads the two numbers and as many bytes behind them as the second says, all in `pool`.
    unsafe { ioctl::rnd_add_entropy(random.as_raw_fd(), (&raw const pool).cast()) }?;
    Ok(())
}

/// `getrandom(2)` (3.17) with GRND_NONBLOCK: fills `bytes`. EAGAIN: the kernel has not gathered enough randomness yet.
pub fn random(bytes: &mut [u8; SEED_BYTES]) -> Result<()> {
    get_random(bytes, libc::GRND_NONBLOCK)
}

/// `getrandom(2)` with GRND_INSECURE (5.6): the same, however little randomness the kernel has gathered; EINVAL before. A read
/// of /dev/urandom has the kernel gather some first, which takes up to a second (5.18).
pub fn any_random(bytes: &mut [u8; SEED_BYTES]) -> Result<()> {
    get_random(bytes, libc::GRND_INSECURE)
}

fn get_random(bytes: &mut [u8; SEED_BYTES], flags: libc::c_uint) -> Result<()> {
    // SAFETY: the kernel writes at most as many bytes as the array has; up to 256 come whole.
    check(unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), flags) }).map(drop)
}
