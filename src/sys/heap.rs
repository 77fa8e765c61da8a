//! The heap: small blocks from one region of known place, so that a service's init can give all of it back.
//!
//! An init is a clone of the supervisor and inherits a copy of its heap, with what belongs to other services. The C
//! library's heap has no known bounds; this one is a single mapping that [`wipe`] returns to the kernel. Blocks come in
//! sizes of 16 bytes times a power of two; a freed block goes to a list of its size and is used again from there, so a
//! steady state neither grows nor maps. What does not fit (blocks above 1 MiB, or a full region) comes from the C
//! library.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::alloc::System;

/// The heap of this program.
#[global_allocator]
pub static HEAP: Heap = Heap::new();

/// Address space of the region; memory is taken as it is touched.
const REGION_BYTES: usize = 32 << 20;
/// The smallest block.
const SMALLEST: usize = 16;
/// Sizes: 16 bytes to 1 MiB.
const SIZES: usize = 17;
const PAGE: usize = 4096;

/// The allocator.
pub struct Heap {
    locked: AtomicBool,
    allocations: AtomicU64,
    inner: UnsafeCell<Inner>,
}

struct Inner {
    base: usize,
    /// Bytes handed out from the front of the region so far.
    used: usize,
    /// Freed blocks of each size: the first, whose first word holds the next.
    free: [usize; SIZES],
    wiped: bool,
}

// SAFETY: `inner` is only touched between `lock` and `unlock`.
unsafe impl Sync for Heap {}

impl Heap {
    /// An empty heap, which maps its region at the first allocation.
    pub const fn new() -> Heap {
        let inner = Inner { base: 0, used: 0, free: [0; SIZES], wiped: false };
        Heap { locked: AtomicBool::new(false), allocations: AtomicU64::new(0), inner: UnsafeCell::new(inner) }
    }

    /// Allocations since the start of the process, or since [`Heap::seal`].
    pub fn allocations(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }

    /// Start-up is over: what is allocated from now on is counted from zero. Nothing is refused.
    pub fn seal(&self) {
        self.allocations.store(0, Ordering::Relaxed);
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        self.hold();
        // SAFETY: the lock is held, so this is the only reference.
        let answer = work(unsafe { &mut *self.inner.get() });
        self.release();
        answer
    }

    /// Lets nobody else in until [`Heap::release`]; whoever holds it must not allocate. A process is cloned while the heap is
    /// held, and both processes release it: otherwise a thread that was just in it, and that the clone does not have, would
    /// leave it locked, or half changed, for good.
    pub(super) fn hold(&self) {
        // coracle has one thread; only its tests have more, and they hold the lock for a few instructions.
        while self.locked.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
    }

    /// Ends [`Heap::hold`].
    pub(super) fn release(&self) {
        self.locked.store(false, Ordering::Release);
    }

    /// Leaves the region as it is, and begins another one with the next allocation. What lies in the one before may be read, and
    /// never be freed, until [`Heap::give_back`].
    pub fn begin_anew(&self) -> (usize, usize) {
        self.with(|inner| {
            inner.free = [0; SIZES];
            (core::mem::take(&mut inner.base), core::mem::take(&mut inner.used))
        })
    }

    /// Gives the region of [`Heap::begin_anew`] back (madvise(2) MADV_DONTNEED). Nothing in it may be touched again.
    pub fn give_back(&self, (base, used): (usize, usize)) {
        // SAFETY: the range is a mapping of this heap's own, and the caller gives up all blocks in it.
        unsafe { libc::madvise(base as *mut _, used.next_multiple_of(PAGE), libc::MADV_DONTNEED) };
    }

    /// Gives every page of the region back (madvise(2) MADV_DONTNEED). From then on the process must neither touch nor
    /// free what it allocated before; a further allocation fails, which ends the process.
    pub fn wipe(&self) {
        self.with(|inner| {
            inner.wiped = true;
            if inner.base != 0 {
                // SAFETY: the range is this heap's own mapping, and the caller gives up all blocks in it.
                unsafe { libc::madvise(inner.base as *mut _, inner.used.next_multiple_of(PAGE), libc::MADV_DONTNEED) };
            }
        });
    }
}

impl Default for Heap {
    fn default() -> Self {
        Heap::new()
    }
}

/// The list that a block of this layout belongs to; `None` for one that is too large.
fn size_index(layout: Layout) -> Option<usize> {
    // The number of bits of how many of the smallest blocks it takes, less one.
    let least = (layout.size().max(layout.align()).saturating_sub(1)) / SMALLEST;
    let index = (usize::BITS - least.leading_zeros()) as usize;
    (index < SIZES && layout.align() <= PAGE).then_some(index)
}

impl Inner {
    /// A block of list `index`, or null where the region has no room.
    fn take(&mut self, index: usize) -> *mut u8 {
        if self.wiped {
            return core::ptr::null_mut();
        }
        if let Some(first) = self.free.get_mut(index).filter(|first| **first != 0) {
            let block = *first as *mut usize;
            // SAFETY: a freed block holds the address of the next one in its first word.
            *first = unsafe { block.read() };
            return block.cast();
        }
        if self.base == 0 {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping, wherever the kernel puts it.
            let region = unsafe { libc::mmap(core::ptr::null_mut(), REGION_BYTES, rights, flags, -1, 0) };
            if region == libc::MAP_FAILED {
                return core::ptr::null_mut();
            }
            // A kernel set to make huge pages of its own accord would some day make one of the few pages in use, 2 MiB large.
            // One that knows no huge pages refuses, which is as well.
            // SAFETY: the mapping just made.
            unsafe { libc::madvise(region, REGION_BYTES, libc::MADV_NOHUGEPAGE) };
            self.base = region as usize;
        }
        let bytes = SMALLEST << index;
        let start = self.used.next_multiple_of(bytes.min(PAGE));
        if start + bytes > REGION_BYTES {
            return core::ptr::null_mut();
        }
        self.used = start + bytes;
        (self.base + start) as *mut u8
    }

    fn holds(&self, block: *mut u8) -> bool {
        self.base != 0 && (self.base..self.base + REGION_BYTES).contains(&(block as usize))
    }
}

// SAFETY: every block has the size of its list, at least the layout's, and lies at a multiple of the smaller of that and
// a page, which is at least the layout's alignment; no block is handed out twice before it is freed.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        let index = size_index(layout);
        let (block, wiped) =
            self.with(|inner| (index.map_or(core::ptr::null_mut(), |index| inner.take(index)), inner.wiped));
        if !block.is_null() || wiped {
            return block;
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let ours = self.with(|inner| {
            let ours = inner.holds(block);
            if let Some(first) =
                size_index(layout).filter(|_| ours && !inner.wiped).and_then(|at| inner.free.get_mut(at))
            {
                // SAFETY: the block is free now, at least 16 bytes long and aligned.
                unsafe { block.cast::<usize>().write(*first) };
                *first = block as usize;
            }
            ours
        });
        if !ours {
            // SAFETY: it came from there.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that does not overflow with the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        let ours = self.with(|inner| inner.holds(block));
        if ours && size_index(layout) == size_index(wanted) {
            return block;
        }
        if !ours && size_index(wanted).is_none() {
            self.allocations.fetch_add(1, Ordering::Relaxed);
            // SAFETY: it came from there and stays there.
            return unsafe { System.realloc(block, layout, bytes) };
        }
        // SAFETY: both blocks are live and do not overlap; as many bytes are copied as both have.
        unsafe {
            let new = self.alloc(wanted);
            if !new.is_null() {
                core::ptr::copy_nonoverlapping(block, new, layout.size().min(bytes));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_kept_apart_and_used_again() {
        let heap = Heap::new();
        let mut blocks = Vec::new();
        for (bytes, align) in [(1, 1), (17, 8), (100, 64), (5000, 4096), (1 << 20, 16), (3 << 20, 16), (40, 8192)] {
            let layout = Layout::from_size_align(bytes, align).unwrap();
            // SAFETY: each block is written within its size and freed with its layout.
            let block = unsafe { heap.alloc(layout) };
            assert!(!block.is_null() && (block as usize).is_multiple_of(align));
            // SAFETY: as above.
            unsafe { block.write_bytes(blocks.len() as u8, bytes) };
            blocks.push((block, layout));
        }
        for (number, (block, layout)) in blocks.iter().enumerate() {
            // SAFETY: as above.
            let seen = unsafe { core::slice::from_raw_parts(*block, layout.size()) };
            assert!(seen.iter().all(|byte| *byte == number as u8));
            // SAFETY: as above.
            unsafe { heap.dealloc(*block, *layout) };
        }
        let layout = Layout::from_size_align(17, 8).unwrap();
        // SAFETY: a plain layout.
        let (again, counted) = (unsafe { heap.alloc(layout) }, heap.allocations());
        assert_eq!((again, counted), (blocks[1].0, 8));
    }

    #[test]
    fn a_block_that_grows_keeps_its_bytes() {
        let heap = Heap::new();
        let mut layout = Layout::from_size_align(24, 8).unwrap();
        // SAFETY: written and read within its size.
        let mut block = unsafe { heap.alloc(layout) };
        // SAFETY: as above.
        unsafe { block.write_bytes(7, 24) };
        for bytes in [30, 64, 5000, 2 << 20, 100] {
            // SAFETY: as above.
            block = unsafe { heap.realloc(block, layout, bytes) };
            layout = Layout::from_size_align(bytes, 8).unwrap();
            // SAFETY: as above.
            assert!(unsafe { core::slice::from_raw_parts(block, 24) }.iter().all(|byte| *byte == 7), "{bytes}");
        }
    }

    #[test]
    fn threads_never_share_a_block() {
        let heap: &'static Heap = Box::leak(Box::new(Heap::new()));
        let work = |number: u8| {
            move || {
                for round in 0..2000usize {
                    let layout = Layout::from_size_align(16 + round % 300, 8).unwrap();
                    // SAFETY: written, read and freed within its size.
                    unsafe {
                        let block = heap.alloc(layout);
                        block.write_bytes(number, layout.size());
                        std::thread::yield_now();
                        assert!(core::slice::from_raw_parts(block, layout.size()).iter().all(|byte| *byte == number));
                        heap.dealloc(block, layout);
                    }
                }
            }
        };
        let threads: Vec<_> = (1..5).map(|number| std::thread::spawn(work(number))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_wiped_heap_holds_nothing_and_gives_nothing() {
        let heap = Heap::new();
        let layout = Layout::from_size_align(64, 8).unwrap();
        // SAFETY: the region stays mapped; only its content goes.
        let block = unsafe { heap.alloc(layout) };
        // SAFETY: as above.
        unsafe { block.write_bytes(9, 64) };
        heap.wipe();
        // SAFETY: as above.
        assert!(unsafe { core::slice::from_raw_parts(block, 64) }.iter().all(|byte| *byte == 0));
        // SAFETY: as above.
        assert!(unsafe { heap.alloc(layout) }.is_null());
    }
}
