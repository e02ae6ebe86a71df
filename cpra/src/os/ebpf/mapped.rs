//! A table of the kernel's in our own memory: an array map, mapped. Reading an entry takes nanoseconds, a system call
//! would take microseconds.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use cpra_common::Ticket;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Memory that programs in the kernel write to at any time: only what is atomic may be a table's entry.
///
/// # Safety
/// Every bit pattern is a value, and all fields are atomic.
pub(super) unsafe trait Entry {}

/// A [`Ticket`], as long as others write to it.
#[repr(C)]
pub(super) struct SharedTicket {
    pub(super) cookie: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) returned: AtomicU64,
    pub(super) peer: AtomicU32,
    /// The four bytes in the order of memory.
    pub(super) answer: AtomicU32,
}

const _: () = assert!(size_of::<SharedTicket>() == size_of::<Ticket>());
const _: () = assert!(std::mem::offset_of!(SharedTicket, cookie) == std::mem::offset_of!(Ticket, cookie));
const _: () = assert!(std::mem::offset_of!(SharedTicket, sent) == std::mem::offset_of!(Ticket, sent));
const _: () = assert!(std::mem::offset_of!(SharedTicket, returned) == std::mem::offset_of!(Ticket, returned));
const _: () = assert!(std::mem::offset_of!(SharedTicket, peer) == std::mem::offset_of!(Ticket, peer));
const _: () = assert!(std::mem::offset_of!(SharedTicket, answer) == std::mem::offset_of!(Ticket, answer));

// SAFETY: five atomic numbers.
unsafe impl Entry for SharedTicket {}
// SAFETY: an atomic number.
unsafe impl Entry for AtomicU64 {}

/// `count` entries.
pub(super) struct Mapped<T> {
    start: NonNull<T>,
    count: usize,
}

// SAFETY: it is memory of the process, not of a thread, and is used by atomic operations only (`Entry`).
unsafe impl<T: Entry> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Entry> Sync for Mapped<T> {}

impl<T: Entry> Mapped<T> {
    /// `map` is an array map with `count` entries of the size of `T`, made to be mapped.
    pub(super) fn new(map: OwnedFd, count: usize) -> io::Result<Self> {
        // The kernel lays entries out in steps of eight bytes.
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8) };
        let length = NonZeroUsize::new(count * size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: new memory, at a place of the kernel's choice. The kernel refuses a length beyond the map's end.
        let start =
            unsafe { mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0)? };
        Ok(Self { start: start.cast(), count })
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        // SAFETY: in bounds; mapped as long as `self`, page-aligned at its start; every bit pattern is a value (`Entry`).
        (index < self.count).then(|| unsafe { self.start.add(index).as_ref() })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; every borrow of it has ended.
        let _ = unsafe { munmap(self.start.cast(), self.count * size_of::<T>()) };
    }
}
