//! The buffers that receives are served from: the kernel picks one when bytes have arrived, so that a hundred
//! thousand pending receives hold no memory.
//!
//! A picked buffer is lent to the shard for one step and given back before the next enter. When all are out, the
//! kernel ends a receive with ENOBUFS; the driver then submits it again, after giving buffers back.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Buffers of one unit. A power of two.
pub(super) const BUFFERS: u16 = 2048;
const BUFFER_SIZE: usize = 4096;
/// The only buffer group of a unit.
pub(super) const GROUP: u16 = 0;

const _: () = assert!(BUFFERS.is_power_of_two());

pub(super) struct BufferRing {
    /// The ring that is shared with the kernel: page-aligned, `BUFFERS` entries.
    entries: NonNull<BufRingEntry>,
    /// `BUFFERS` × `BUFFER_SIZE` bytes.
    data: NonNull<u8>,
    tail: u16,
    /// Given to the shard, not yet given back.
    lent: Vec<u16>,
}

impl BufferRing {
    const fn entries_layout() -> Layout {
        match Layout::from_size_align(size_of::<BufRingEntry>() * BUFFERS as usize, 4096) {
            Ok(layout) => layout,
            Err(_) => unreachable!(),
        }
    }

    const fn data_layout() -> Layout {
        match Layout::from_size_align(BUFFER_SIZE * BUFFERS as usize, 4096) {
            Ok(layout) => layout,
            Err(_) => unreachable!(),
        }
    }

    fn allocate(layout: Layout) -> NonNull<u8> {
        // SAFETY: both layouts have a size above zero.
        NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// Makes the ring and registers it.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let mut ring = Self {
            entries: Self::allocate(Self::entries_layout()).cast(),
            data: Self::allocate(Self::data_layout()),
            tail: 0,
            lent: (0..BUFFERS).collect(),
        };
        // SAFETY: `entries` is page-aligned, has BUFFERS entries, and lives until `Drop`; the owner drops the
        // io_uring first (declaration order in `Unit`).
        unsafe { submitter.register_buf_ring_with_flags(ring.entries.as_ptr() as u64, BUFFERS, GROUP, 0)? };
        ring.recycle();
        Ok(ring)
    }

    /// What the kernel wrote into a buffer; the buffer stays out until [`Self::recycle`].
    ///
    /// # Safety
    /// The caller got `id` and `len` from a completion and has not lent that buffer since, and lets the slice go
    /// before the next `recycle`.
    pub(super) unsafe fn lend<'a>(&mut self, id: u16, len: usize) -> &'a [u8] {
        assert!(id < BUFFERS && len <= BUFFER_SIZE, "the kernel named a buffer that is not there");
        self.lent.push(id);
        // SAFETY: in bounds by the assert; initialised (zeroed, then written by the kernel); nobody writes to it
        // before it is recycled, which the caller promises to wait with.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().add(usize::from(id) * BUFFER_SIZE), len) }
    }

    /// Gives all lent buffers back to the kernel.
    pub(super) fn recycle(&mut self) {
        if self.lent.is_empty() {
            return;
        }
        for id in self.lent.drain(..) {
            let index = usize::from(self.tail & (BUFFERS - 1));
            // SAFETY: `index` is in bounds; entries beyond the published tail belong to us, because at most BUFFERS
            // ids exist and each is either lent or in the ring.
            let entry = unsafe { &mut *self.entries.as_ptr().add(index) };
            // SAFETY: `id` < BUFFERS, so that the address is inside `data`.
            entry.set_addr(unsafe { self.data.as_ptr().add(usize::from(id) * BUFFER_SIZE) } as u64);
            #[expect(clippy::cast_possible_truncation, reason = "4096")]
            entry.set_len(BUFFER_SIZE as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the tail is an aligned u16 inside the first entry; the kernel only reads it, and the release
        // store makes the entries above visible first.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts. The kernel no longer uses them: the io_uring has been
        // closed, and it writes to user memory only from the submitting thread, inside an enter.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout());
            dealloc(self.data.as_ptr(), Self::data_layout());
        }
    }
}
