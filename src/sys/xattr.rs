//! Extended attributes by open file, xattr(7).

use super::{Errno, Result, check};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Longest value that the kernel keeps (XATTR_SIZE_MAX) and longest list of names (XATTR_LIST_MAX), in bytes.
const MOST: usize = 65536;

/// `flistxattr(fd, list, size)`, listxattr(2), Linux 2.4: the names of a file's or folder's attributes, sorted.
///
/// A file system without attributes has none.
pub fn list(fd: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut buffer = vec![0u8; 1024];
    loop {
        // SAFETY: the buffer is writable for the length given; the kernel writes no more than that.
        let answer = unsafe { libc::flistxattr(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match check(answer as libc::c_long) {
            Ok(length) => {
                let names = buffer.get(..length as usize).unwrap_or_default().split_inclusive(|byte| *byte == 0);
                let mut found = Vec::new();
                for name in names.filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
                    found.push(name.to_owned());
                }
                crate::base::sort::sort(&mut found);
                return Ok(found);
            }
            Err(Errno(libc::ERANGE)) if buffer.len() < MOST => buffer.resize(MOST, 0),
            Err(Errno(libc::ENOTSUP)) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    }
}

/// `fgetxattr(fd, name, value, size)`, getxattr(2), Linux 2.4: the value of one attribute, `ENODATA` if there is none.
pub fn get(fd: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>> {
    let mut buffer = vec![0u8; 256];
    loop {
        // SAFETY: the name ends with a NUL; the buffer is writable for the length given.
        let answer =
            unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match check(answer as libc::c_long) {
            Ok(length) => {
                buffer.truncate(length as usize);
                return Ok(buffer);
            }
            Err(Errno(libc::ERANGE)) if buffer.len() < MOST => buffer.resize(MOST, 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// `fsetxattr(fd, name, value, size, 0)`, setxattr(2), Linux 2.4.
pub fn set(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: the name ends with a NUL; the value is readable for the length given.
    let answer = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(answer.into()).map(drop)
}
