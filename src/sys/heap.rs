//! The heap: small blocks from one region of known place, so that a service's init can give all of it back.
//!
//! An init is a clone of the supervisor and inherits a copy of its heap, with what belongs to other services. The C
//! library's heap has no known bounds; this one is a single mapping that [`wipe`] returns to the kernel. Blocks come in
//! sizes of 16 bytes times a power of two; a freed block goes to a list of its size and is used again from there, so a
//! steady state neither grows nor maps. Where the region is full, more are mapped; blocks above 1 MiB are pages of their
//! own.
//!
//! The front of the region is the [`Workspace`]: while it is open ([`Heap::work`]), blocks come from there instead, and are
//! counted apart. A block of the heap's stays one when it grows, also then. Behind it lies the [`Reserve`], for what is kept
//! ([`Heap::keep`]).

use super::pages::{self, PAGE};
use super::reserve::Reserve;
use super::workspace::{Tally, Workspace};
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::fmt::Write as _;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The heap of this program.
#[global_allocator]
pub static HEAP: Heap = Heap::new();

/// Address space of the region; memory is taken as it is touched.
const REGION_BYTES: usize = 32 << 20;
/// Its front, for passing work: twenty times what the start of a plain container takes.
const WORKSPACE_BYTES: usize = 256 << 10;
/// Address space of what is mapped when the region is full, which is only ever so where a large image is unpacked.
const FURTHER_BYTES: usize = 4 << 20;
/// What lies before the heap's own blocks.
const FRONT_BYTES: usize = WORKSPACE_BYTES + Reserve::BYTES;
/// The smallest block.
const SMALLEST: usize = 16;
/// Sizes: 16 bytes to 1 MiB.
const SIZES: usize = 17;

/// The allocator.
pub struct Heap {
    locked: AtomicBool,
    allocations: AtomicU64,
    sealed: AtomicBool,
    inner: UnsafeCell<Inner>,
}

struct Inner {
    base: usize,
    /// Bytes handed out from behind the front so far.
    used: usize,
    /// What is left of the latest region beyond the first.
    further: Range<usize>,
    /// Freed blocks of each size: the first, whose first word holds the next.
    free: [usize; SIZES],
    wiped: bool,
    workspace: Workspace<WORKSPACE_BYTES>,
    reserve: Reserve,
}

// SAFETY: `inner` is only touched between `lock` and `unlock`.
unsafe impl Sync for Heap {}

impl Heap {
    /// An empty heap, which maps its region at the first allocation.
    pub const fn new() -> Heap {
        let (workspace, reserve) = (Workspace::new(), Reserve::new());
        let inner = Inner { base: 0, used: 0, further: 0..0, free: [0; SIZES], wiped: false, workspace, reserve };
        Heap {
            locked: AtomicBool::new(false),
            allocations: AtomicU64::new(0),
            sealed: AtomicBool::new(false),
            inner: UnsafeCell::new(inner),
        }
    }

    /// Allocations since the start of the process, or since [`Heap::seal`], and what the workspace was used for.
    pub fn allocations(&self) -> (u64, Tally) {
        (self.allocations.load(Ordering::Relaxed), self.with(|inner| inner.workspace.tally()))
    }

    /// Begins or ends a stretch of passing work: until its end, blocks come from the workspace.
    pub fn work(&self, begins: bool) {
        self.with(|inner| if begins { inner.workspace.begin() } else { inner.workspace.open = false });
    }

    /// Makes something that is to last longer than the work that needs it: its blocks come from the heap, and are no surprise.
    pub fn lasting<T>(&self, make: impl FnOnce() -> T) -> T {
        let open = self.with(|inner| core::mem::take(&mut inner.workspace.open));
        let sealed = self.sealed.swap(false, Ordering::Relaxed);
        let made = make();
        self.sealed.store(sealed, Ordering::Relaxed);
        self.with(|inner| inner.workspace.open = open);
        made
    }

    /// Makes a sentence or a name that is to last: its blocks come from what is set aside for them, and from the heap only
    /// where that is full or a block is too long for it.
    pub fn keep<T>(&self, make: impl FnOnce() -> T) -> T {
        self.lasting(|| {
            self.with(|inner| inner.reserve.open = true);
            let made = make();
            self.with(|inner| inner.reserve.open = false);
            made
        })
    }

    /// Start-up is over: what is allocated from now on is counted from zero. Nothing is refused; a debug build says aloud what nobody expects.
    pub fn seal(&self) {
        self.allocations.store(0, Ordering::Relaxed);
        self.sealed.store(true, Ordering::Relaxed);
    }

    /// Counts what is taken from the heap.
    fn count(&self, layout: Layout) {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        if cfg!(debug_assertions) && self.sealed.load(Ordering::Relaxed) {
            let mut text = heapless::String::<80>::new();
            let _ = writeln!(text, "coracle: {} bytes are taken from a heap that is sealed", layout.size());
            // Opened anew, to write behind what others have written there.
            // SAFETY: a literal that ends in NUL, the bytes of a live string, and a descriptor of this function's own.
            unsafe {
                let fd = libc::open(c"/proc/self/fd/2".as_ptr(), libc::O_WRONLY | libc::O_APPEND | libc::O_NONBLOCK);
                libc::write(fd, text.as_ptr().cast(), text.len());
                libc::close(fd);
            }
        }
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
        self.sealed.store(false, Ordering::Relaxed);
        self.with(|inner| {
            (inner.free, inner.workspace, inner.reserve) = ([0; SIZES], Workspace::new(), Reserve::new());
            (core::mem::take(&mut inner.base), core::mem::take(&mut inner.used))
        })
    }

    /// Gives the region of [`Heap::begin_anew`] back (madvise(2) MADV_DONTNEED). Nothing in it may be touched again.
    pub fn give_back(&self, (base, used): (usize, usize)) {
        // SAFETY: the range is a mapping of this heap's own, and the caller gives up all blocks in it.
        unsafe { give_back(base, used) };
    }

    /// Gives every page of the region back (madvise(2) MADV_DONTNEED). From then on the process must neither touch nor
    /// free what it allocated before; a further allocation fails, which ends the process.
    pub fn wipe(&self) {
        self.with(|inner| {
            inner.wiped = true;
            if inner.base != 0 {
                // SAFETY: the range is this heap's own mapping, and the caller gives up all blocks in it.
                unsafe { give_back(inner.base, inner.used) };
            }
        });
    }
}

impl Default for Heap {
    fn default() -> Self {
        Heap::new()
    }
}

/// madvise(2) MADV_DONTNEED for a region of which so much was used.
///
/// # Safety
/// It is one of a heap's, and no block of it is touched again.
unsafe fn give_back(base: usize, used: usize) {
    // SAFETY: as the caller promises.
    unsafe { libc::madvise(base as *mut _, FRONT_BYTES + used.next_multiple_of(PAGE), libc::MADV_DONTNEED) };
}

/// The list that a block of this layout belongs to; `None` for one that is too large.
fn size_index(layout: Layout) -> Option<usize> {
    // The number of bits of how many of the smallest blocks it takes, less one.
    let least = (layout.size().max(layout.align()).saturating_sub(1)) / SMALLEST;
    let index = (usize::BITS - least.leading_zeros()) as usize;
    (index < SIZES && layout.align() <= PAGE).then_some(index)
}

impl Inner {
    /// A block of the workspace or of the reserve, or null where both are closed or have no room.
    fn take_passing(&mut self, layout: Layout) -> *mut u8 {
        if !(self.workspace.open || self.reserve.open) || self.wiped || layout.align() > PAGE || !self.is_mapped() {
            return core::ptr::null_mut();
        }
        let kept = self.reserve.take(layout.size(), layout.align()).map(|at| WORKSPACE_BYTES + at);
        let at = kept.or_else(|| self.workspace.take(layout.size(), layout.align()));
        at.map_or(core::ptr::null_mut(), |at| (self.base + at) as *mut u8)
    }

    /// The place of a block in the workspace.
    fn place(&self, block: *mut u8) -> Option<usize> {
        let at = (block as usize).checked_sub(self.base).filter(|_| self.base != 0)?;
        (at < WORKSPACE_BYTES).then_some(at)
    }

    /// The place of a block in the reserve.
    fn place_kept(&self, block: *mut u8) -> Option<usize> {
        let at = (block as usize).checked_sub(self.base + WORKSPACE_BYTES).filter(|_| self.base != 0)?;
        (at < Reserve::BYTES).then_some(at)
    }

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
        if !self.is_mapped() {
            return core::ptr::null_mut();
        }
        let bytes = SMALLEST << index;
        let start = self.used.next_multiple_of(bytes.min(PAGE));
        if FRONT_BYTES + start + bytes > REGION_BYTES {
            return self.take_further(bytes);
        }
        self.used = start + bytes;
        (self.base + FRONT_BYTES + start) as *mut u8
    }

    /// A new block behind the region.
    fn take_further(&mut self, bytes: usize) -> *mut u8 {
        let mut start = self.further.start.next_multiple_of(bytes.min(PAGE));
        if start + bytes > self.further.end {
            start = pages::map(FURTHER_BYTES) as usize;
            if start == 0 {
                return core::ptr::null_mut();
            }
            self.further.end = start + FURTHER_BYTES;
        }
        self.further.start = start + bytes;
        start as *mut u8
    }

    /// Whether there is a region; it is mapped the first time.
    fn is_mapped(&mut self) -> bool {
        if self.base == 0 {
            let region = pages::map(REGION_BYTES);
            if region.is_null() {
                return false;
            }
            // A kernel set to make huge pages of its own accord would some day make one of the few pages in use, 2 MiB large.
            // One that knows no huge pages refuses, which is as well.
            // SAFETY: the mapping just made.
            unsafe { libc::madvise(region.cast(), REGION_BYTES, libc::MADV_NOHUGEPAGE) };
            self.base = region as usize;
        }
        true
    }
}

impl Heap {
    /// A block of the heap's own.
    fn take(&self, layout: Layout) -> *mut u8 {
        self.count(layout);
        match size_index(layout) {
            Some(index) => self.with(|inner| inner.take(index)),
            None if self.with(|inner| inner.wiped) => core::ptr::null_mut(),
            None => pages::take(layout),
        }
    }
}

// SAFETY: a block of the reserve has a slot of its own, which is no smaller than its layout's class of sizes and aligned as it
// is. A block of the workspace has its layout's size and lies at a multiple of its alignment, and no other that lives
// overlaps it (`Workspace`). Every other block has the size of its list, at least the layout's, and lies at a multiple of the
// smaller of that and a page, which is at least the layout's alignment; no block is handed out twice before it is freed.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.with(|inner| inner.take_passing(layout));
        if block.is_null() { self.take(layout) } else { block }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let index = size_index(layout);
        let large = self.with(|inner| {
            if let Some(at) = inner.place(block) {
                inner.workspace.give(at, layout.size());
                return false;
            }
            if let Some(at) = inner.place_kept(block) {
                inner.reserve.give(at);
                return false;
            }
            if let Some(first) = index.filter(|_| !inner.wiped).and_then(|at| inner.free.get_mut(at)) {
                // SAFETY: the block is free now, at least 16 bytes long and aligned.
                unsafe { block.cast::<usize>().write(*first) };
                *first = block as usize;
            }
            index.is_none()
        });
        if large {
            // SAFETY: it came from there, as all do that no list is for and that are not in the workspace.
            unsafe { pages::give(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that does not overflow with the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        let (index, new) = (size_index(layout), size_index(wanted));
        let (passing, stays) = self.with(|inner| match inner.place(block) {
            Some(at) => (true, inner.workspace.resize(at, layout.size(), bytes)),
            None => (false, index.is_some() && index == new),
        });
        if stays {
            return block;
        }
        if !passing && index.is_none() && new.is_none() && layout.align() <= PAGE {
            self.count(wanted);
            // SAFETY: it came from there and stays there.
            return unsafe { pages::resize(block, layout, bytes) };
        }
        // SAFETY: both blocks are live and do not overlap; as many bytes are copied as both have.
        unsafe {
            let new = if passing { self.alloc(wanted) } else { self.take(wanted) };
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
        let (again, counted) = (unsafe { heap.alloc(layout) }, heap.allocations().0);
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
