//! The maps: which requests are awaited, and what has become of them.

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf};
use cpra_common::{Answer, Count, Return, SHARDS_MAX, Settings, TAG_SHARD_BITS, Ticket};

/// Set by the loader, before the kernel sees it.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings { tag: 0, tickets: 0, port: 0, ports: 0 };

/// By number; the loader makes as many as there are slots.
#[map]
pub static TICKETS: Array<Ticket> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// By [`Count`].
#[map]
static COUNTS: Array<u64> = Array::with_max_entries(Count::ALL.len() as u32, BPF_F_MMAPABLE);

/// By shard: not 0 where a return is to wake its thread. Waking costs as much as all else that is done here, and one that
/// looks every millisecond need not be woken.
#[map]
static HEEDED: Array<u64> = Array::with_max_entries(SHARDS_MAX as u32, BPF_F_MMAPABLE);

/// A ring per shard. The loader makes those small that have no shard.
macro_rules! rings {
    ($($shard:literal $name:ident),*) => {
        $(
            #[map]
            static $name: RingBuf = RingBuf::with_byte_size(4096, 0);
        )*

        #[inline(always)]
        fn put(shard: u32, back: &Return) -> bool {
            // SAFETY: a number in a map, which the daemon writes whole.
            let heeded = HEEDED.get_ptr(shard).is_some_and(|heeded| unsafe { read(heeded) } != 0);
            let flags = if heeded { 0 } else { u64::from(BPF_RB_NO_WAKEUP) };
            match shard {
                $($shard => $name.output::<Return>(back, flags).is_ok(),)*
                _ => false,
            }
        }
    };
}

rings! {
    0 RETURNS_0, 1 RETURNS_1, 2 RETURNS_2, 3 RETURNS_3, 4 RETURNS_4, 5 RETURNS_5, 6 RETURNS_6, 7 RETURNS_7,
    8 RETURNS_8, 9 RETURNS_9, 10 RETURNS_10, 11 RETURNS_11, 12 RETURNS_12, 13 RETURNS_13, 14 RETURNS_14, 15 RETURNS_15
}

#[inline(always)]
pub fn settings() -> Settings {
    // SAFETY: a static, valid for reads. Volatile, because its value is not the one that the compiler sees.
    unsafe { ptr::read_volatile(&raw const SETTINGS) }
}

/// A request, as its own bytes or an answer to it name it.
pub struct Claim {
    pub index: u32,
    pub cookie: u64,
    pub peer: u32,
}

impl Claim {
    /// By the part of an echo message that names its ticket.
    #[inline(always)]
    pub fn of_echo(tag: u32, slot: u32, cookie: u64, peer: u32) -> Option<Self> {
        let settings = settings();
        let shard = tag & ((1 << TAG_SHARD_BITS) - 1);
        if tag ^ shard != settings.tag || slot >= settings.tickets {
            return None;
        }
        Some(Self { index: shard * settings.tickets + slot, cookie, peer })
    }

    #[inline(always)]
    fn ticket(&self) -> Option<*mut Ticket> {
        let ticket = TICKETS.get_ptr_mut(self.index)?;
        // SAFETY: the map's entries live as long as the program, and the daemon writes whole words.
        let (cookie, peer) = unsafe { (read(&raw const (*ticket).cookie), read(&raw const (*ticket).peer)) };
        (cookie == self.cookie && peer == self.peer && cookie != 0).then_some(ticket)
    }

    /// The request passes on its way out. The last hook's time stays: it is the nearest to the wire.
    #[inline(always)]
    pub fn leaves(&self) -> Option<()> {
        let ticket = self.ticket()?;
        // SAFETY: as above; `sent` is the kernel's to write.
        unsafe {
            if read(&raw const (*ticket).sent) == 0 {
                count(Count::Sent);
            }
            ptr::write_volatile(&raw mut (*ticket).sent, bpf_ktime_get_ns());
        }
        Some(())
    }

    /// Something came back for it. Answers whether the daemon will hear of it from the ring.
    #[inline(always)]
    pub fn returns(&self, answer: Answer, kind: u8, code: u8, from: [u32; 4]) -> bool {
        self.answered(u32::from_ne_bytes([answer as u8, kind, code, 0]), &from)
    }

    /// One function in the object for all programs that need it.
    #[inline(never)]
    fn answered(&self, answer: u32, from: &[u32; 4]) -> bool {
        let now = unsafe { bpf_ktime_get_ns() };
        let Some(ticket) = self.ticket() else {
            count(Count::Strange);
            return false;
        };
        // SAFETY: as above; the field is aligned, and only the kernel sets it to anything but 0.
        let first = unsafe {
            let returned = AtomicU64::from_ptr(&raw mut (*ticket).returned);
            returned.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        if !first {
            count(Count::Strange);
            return false;
        }
        // SAFETY: as above; who was first is alone here.
        let sent = unsafe {
            ptr::write_volatile((&raw mut (*ticket).answer).cast(), answer);
            read(&raw const (*ticket).sent)
        };
        count(Count::Returned);
        let rtt = if sent == 0 { u64::MAX } else { now.wrapping_sub(sent) };
        let (answer, from) = (answer.to_ne_bytes(), words(*from));
        let back = Return { index: self.index, answer, cookie: self.cookie, rtt, from };
        let shard = self.index / settings().tickets.max(1);
        let told = put(shard, &back);
        if !told {
            count(Count::Overflowed);
        }
        told
    }
}

#[inline(always)]
unsafe fn read<T>(field: *const T) -> T {
    // SAFETY: the caller's.
    unsafe { ptr::read_volatile(field) }
}

#[inline(always)]
fn words(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: numbers of the same size, in the order of the wire already.
    unsafe { core::mem::transmute(words) }
}

#[inline(always)]
pub fn count(what: Count) {
    if let Some(counter) = COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: an aligned number in a map; everyone adds to it atomically.
        unsafe { AtomicU64::from_ptr(counter) }.fetch_add(1, Ordering::Relaxed);
    }
}
