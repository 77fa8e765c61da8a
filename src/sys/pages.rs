//! Blocks that are pages of their own (mmap(2)): what is too large for the heap, and what the C library asks for.

use core::alloc::Layout;
use core::ptr::null_mut;

pub(super) const PAGE: usize = 4096;

/// New zeroed memory, wherever the kernel puts it; null where it has none.
pub(super) fn map(bytes: usize) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping replaces none.
    let pages = unsafe { libc::mmap(null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if pages == libc::MAP_FAILED { null_mut() } else { pages.cast() }
}

/// A zeroed block of this layout, or null.
pub(super) fn take(layout: Layout) -> *mut u8 {
    // What lies at a multiple of more than a page begins somewhere within that much more.
    let spare = layout.align().saturating_sub(PAGE);
    let Some(bytes) = layout.size().checked_add(spare) else { return null_mut() };
    let pages = map(bytes);
    if pages.is_null() || spare == 0 {
        return pages;
    }
    let before = (pages as usize).next_multiple_of(layout.align()) - pages as usize;
    let block = pages.wrapping_add(before);
    let end = layout.size().next_multiple_of(PAGE);
    // SAFETY: whole pages of the new mapping in front of the block and behind it, in which nothing lies.
    unsafe {
        give_up(pages, before);
        give_up(block.wrapping_add(end), bytes.next_multiple_of(PAGE).saturating_sub(before + end));
    }
    block
}

/// Gives a block back.
///
/// # Safety
/// It is one of [`take`] or [`resize`] with this layout, and is not touched again.
pub(super) unsafe fn give(block: *mut u8, layout: Layout) {
    // SAFETY: as the caller promises.
    unsafe { give_up(block, layout.size()) };
}

/// mremap(2): the block with another size, its bytes kept; null, and nothing changed, where that cannot be had.
///
/// # Safety
/// As for [`give`]; the alignment is at most a page.
pub(super) unsafe fn resize(block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
    // SAFETY: as the caller promises.
    let pages = unsafe { libc::mremap(block.cast(), layout.size(), bytes, libc::MREMAP_MAYMOVE) };
    if pages == libc::MAP_FAILED { null_mut() } else { pages.cast() }
}

/// munmap(2).
///
/// # Safety
/// Whole pages that nobody touches again.
pub(super) unsafe fn give_up(pages: *mut u8, bytes: usize) {
    if bytes > 0 {
        // SAFETY: as the caller promises.
        unsafe { libc::munmap(pages.cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_lies_where_its_alignment_says_and_is_given_back_whole() {
        for (bytes, align) in [(1, 1), (3 << 20, 16), (5000, 4096), (40, 8192), (70_000, 1 << 16)] {
            let layout = Layout::from_size_align(bytes, align).unwrap();
            let block = take(layout);
            assert!(!block.is_null() && (block as usize).is_multiple_of(align));
            // SAFETY: written within its size, and given back with its layout.
            unsafe {
                block.write_bytes(1, bytes);
                give(block, layout);
            }
        }
        assert!(take(Layout::from_size_align(isize::MAX as usize & !0xffff, 1 << 16).unwrap()).is_null());
    }
}
