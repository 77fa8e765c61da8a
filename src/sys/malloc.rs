//! The C library's allocator: pages for the few blocks that it asks for, for a folder that is read or a path that is followed.
//!
//! musl takes these functions in place of its own, which are 8 KiB of code.

use super::pages;
use core::alloc::Layout;
use core::ffi::c_void;
use core::ptr::null_mut;

/// In front of what the C library gets: its size.
const HEAD: usize = 16;

fn layout_of(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.checked_add(HEAD)?, HEAD).ok()
}

/// `calloc(3)`.
// SAFETY: the name is the C library's own, and the function has its signature and gives what it promises.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
extern "C" fn calloc(count: usize, bytes: usize) -> *mut c_void {
    let Some(layout) = count.checked_mul(bytes).and_then(layout_of) else { return null_mut() };
    let block = pages::take(layout);
    if block.is_null() {
        return null_mut();
    }
    // SAFETY: the block has room for the head, and lies at a page's start.
    unsafe { block.cast::<usize>().write(layout.size()) };
    block.wrapping_add(HEAD).cast()
}

/// `malloc(3)`.
// SAFETY: as above.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
extern "C" fn malloc(bytes: usize) -> *mut c_void {
    calloc(1, bytes)
}

/// `free(3)`.
///
/// # Safety
/// The block is null, or one of the above that is not touched again.
// SAFETY: as above.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
unsafe extern "C" fn free(block: *mut c_void) {
    if !block.is_null() {
        let start = block.cast::<u8>().wrapping_sub(HEAD);
        // SAFETY: the head lies in front of each block.
        unsafe { pages::give_up(start, start.cast::<usize>().read()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_gets_zeros_and_no_more_than_there_is() {
        let block = calloc(3, 2000).cast::<u8>();
        // SAFETY: as many bytes as were asked for.
        assert!(unsafe { core::slice::from_raw_parts(block, 6000) }.iter().all(|byte| *byte == 0));
        // SAFETY: as above, and nothing after.
        unsafe {
            block.write_bytes(1, 6000);
            free(block.cast());
            free(malloc(1));
            free(null_mut());
        }
        assert!(calloc(usize::MAX / 2, 3).is_null() && malloc(usize::MAX).is_null());
    }
}
