//! The leanest loop: pooled direct sockets in io_uring, and nothing else. No monitors, no timeouts, no judging, no state
//! beyond the slot: what a check costs when only the kernel is paid. The daemon's figures are read as multiples of it.
//!
//! A check is `CONNECT` → completion → `CONNECT(AF_UNSPEC)`, with `SEND` and a multishot `RECV` between them for HTTP. No
//! links: each round submits, stage by stage, the disconnects and then the connects of *other*, quiet slots, and waits
//! once. A slot is used again only after the terminal completion of everything on it.
//!
//! Full: with no free slot a due check waits, and its lag says so.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, bail};
use cpra::ring::Wait;
use cpra::units::{Instant, Span};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrLike, socket};

use super::pace::{Meter, Pace, Stopwatch};
use super::{Kind, Load, REQUEST_CLOSE, REQUEST_KEEP, child};
use cpra::os::wait::WaitPolicy;

const SUBMISSIONS: u32 = 4096;
const COMPLETIONS: u32 = 32_768;
/// Completions that a saturated loop waits for: beyond it larger batches gain nothing.
const BATCH_SATURATED: u32 = 256;
/// What is in flight at the end gets this long.
const DRAIN: Span = Span::from_secs(2);

pub(crate) fn run(load: &Load) -> anyhow::Result<()> {
    child::die_with_parent()?;
    child::raise_open_files()?;
    let mut prober = Prober::new(load)?;
    if load.kind == Kind::KeepAlive {
        prober.connect_all()?;
    }
    prober.probe(load)
}

/// Operations of a slot, as bits of `pending` and as the low byte of the user data.
const CONNECT: u8 = 1;
const SEND: u8 = 2;
const RECV: u8 = 4;
const DISCONNECT: u8 = 8;

#[derive(Clone, Copy, Default)]
struct Slot {
    pending: u8,
    is_answered: bool,
    is_failed: bool,
}

struct Prober {
    kind: Kind,
    ring: IoUring,
    buffers: Buffers,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose connection has done its work.
    finished: Vec<u32>,
    addresses: Vec<SockaddrIn>,
    next_address: usize,
    /// Operations that have not completed.
    pending: usize,
    /// Checks that have not ended.
    in_flight: usize,
}

/// Connecting to it disconnects.
static NOWHERE: libc::sockaddr = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };

impl Prober {
    fn new(load: &Load) -> anyhow::Result<Self> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            // So that an enter that waits for nothing still runs what is there.
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .context("io_uring with deferred task work (Linux 6.1)")?;
        let sockets = (0..load.concurrency)
            .map(|_| socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None))
            .collect::<Result<Vec<_>, _>>()?;
        let descriptors: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        // The ring keeps the sockets; their descriptors close at the end of this function.
        ring.submitter().register_files(&descriptors)?;
        let buffers = Buffers::register(&ring)?;
        Ok(Self {
            kind: load.kind,
            ring,
            buffers,
            slots: vec![Slot::default(); load.concurrency as usize],
            free: (0..load.concurrency).rev().collect(),
            finished: Vec::new(),
            addresses: load.destinations.all().map(SockaddrIn::from).collect(),
            next_address: 0,
            pending: 0,
            in_flight: 0,
        })
    }

    /// Makes the standing connections, each with its receive pending.
    fn connect_all(&mut self) -> anyhow::Result<()> {
        while let Some(slot) = self.free.pop() {
            self.connect(slot)?;
            while self.slots[slot as usize].pending & CONNECT != 0 {
                self.enter(Wait { batch: 1, bound: Span::from_secs(1) })?;
                self.reap(None)?;
            }
            if self.slots[slot as usize].is_failed {
                bail!("a standing connection was refused");
            }
        }
        self.free.extend((0..self.slots.len() as u32).rev());
        Ok(())
    }

    fn probe(mut self, load: &Load) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        let mut now = watch.now();
        let mut meter = Meter::new(load, now);
        let mut pace = Pace::new(now, load.rate);
        let mut policy = WaitPolicy::new(now);
        loop {
            let is_running = meter.turn(now);
            if !is_running && (self.in_flight == 0 || now > meter.closes() + DRAIN) {
                break;
            }
            // Disconnects first, then connects: of other slots, which are quiet.
            while let Some(slot) = self.finished.pop() {
                self.disconnect(slot)?;
            }
            while is_running && let Some(&slot) = self.free.last() {
                let Some(due) = pace.take(now) else { break };
                self.free.pop();
                meter.started(now, due);
                self.start(slot)?;
            }
            let wait = self.wait(&policy, now, pace.next(), &meter, is_running);
            self.enter(wait)?;
            meter.enters += 1;
            let count = self.reap(Some(&mut meter))?;
            now = watch.now();
            policy.observe(now, count);
        }
        meter.failed += self.in_flight as u64;
        meter.print(now.since(Instant::ZERO));
        Ok(())
    }

    fn wait(&self, policy: &WaitPolicy, now: Instant, next: Option<Instant>, meter: &Meter, is_running: bool) -> Wait {
        if !self.finished.is_empty() {
            return Wait::NONE;
        }
        match next {
            _ if !is_running => Wait { batch: 1, bound: Span::from_millis(10) },
            None => Wait { batch: BATCH_SATURATED.min(self.pending as u32), bound: Span::from_millis(10) },
            // With no free slot the next check waits for one, and not for its time.
            Some(next) if !self.free.is_empty() => policy.wait(now, self.pending, Some(next.min(meter.closes()))),
            Some(_) => policy.wait(now, self.pending, Some(meter.closes())),
        }
    }

    fn start(&mut self, slot: u32) -> anyhow::Result<()> {
        self.in_flight += 1;
        match self.kind {
            Kind::Tcp | Kind::Http => self.connect(slot),
            Kind::KeepAlive => self.send(slot, REQUEST_KEEP),
        }
    }

    fn connect(&mut self, slot: u32) -> anyhow::Result<()> {
        let address = &self.addresses[self.next_address];
        self.next_address = (self.next_address + 1) % self.addresses.len();
        let entry = opcode::Connect::new(types::Fixed(slot), address.as_ptr(), address.len()).build();
        self.push(entry, slot, CONNECT)
    }

    fn send(&mut self, slot: u32, request: &'static [u8]) -> anyhow::Result<()> {
        let entry = opcode::Send::new(types::Fixed(slot), request.as_ptr(), request.len() as u32).build();
        self.push(entry, slot, SEND)
    }

    fn receive(&mut self, slot: u32) -> anyhow::Result<()> {
        self.push(opcode::RecvMulti::new(types::Fixed(slot), Buffers::GROUP).build(), slot, RECV)
    }

    fn disconnect(&mut self, slot: u32) -> anyhow::Result<()> {
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        let entry = opcode::Connect::new(types::Fixed(slot), &raw const NOWHERE, length).build();
        self.push(entry, slot, DISCONNECT)
    }

    fn push(&mut self, entry: squeue::Entry, slot: u32, operation: u8) -> anyhow::Result<()> {
        let entry = entry.user_data(u64::from(slot) << 8 | u64::from(operation));
        self.slots[slot as usize].pending |= operation;
        self.pending += 1;
        loop {
            // SAFETY: what the kernel reads (addresses, requests, NOWHERE) is never changed or moved while the ring
            // lives: the vector of addresses is complete and freed after the ring, the others are static. Received bytes
            // go to `buffers`, which are never freed.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    fn enter(&mut self, wait: Wait) -> anyhow::Result<()> {
        let bound = types::Timespec::from(std::time::Duration::from(wait.bound));
        let arguments = types::SubmitArgs::new().timespec(&bound);
        match self.ring.submitter().submit_with_args(wait.batch as usize, &arguments) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => Ok(()),
            Err(error) => Err(error).context("io_uring_enter"),
        }
    }

    /// Takes every completion and returns how many there were. Without a meter connections are only made.
    fn reap(&mut self, mut meter: Option<&mut Meter>) -> anyhow::Result<usize> {
        let mut count = 0;
        loop {
            let Some(completion) = self.ring.completion().next() else { return Ok(count) };
            count += 1;
            let slot = (completion.user_data() >> 8) as u32;
            let operation = completion.user_data() as u8;
            let result = completion.result();
            let state = &mut self.slots[slot as usize];
            if !cqueue::more(completion.flags()) {
                state.pending &= !operation;
                self.pending -= 1;
            }
            match operation {
                CONNECT => {
                    state.is_failed = result < 0;
                    state.is_answered = false;
                    match self.kind {
                        _ if result < 0 => self.finished.push(slot),
                        Kind::Tcp => self.finished.push(slot),
                        Kind::Http => {
                            self.send(slot, REQUEST_CLOSE)?;
                            self.receive(slot)?;
                        }
                        Kind::KeepAlive => self.receive(slot)?,
                    }
                    continue;
                }
                SEND => state.is_failed |= result < 0,
                RECV => {
                    if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                        let bytes = self.buffers.bytes(buffer, result.max(0) as usize);
                        state.is_answered |= bytes.starts_with(b"HTTP/1.1 200") && bytes.ends_with(b"\r\n\r\nok");
                        self.buffers.give_back(buffer);
                    }
                    state.is_failed |= result < 0;
                }
                DISCONNECT => {}
                other => bail!("a completion of nothing: {other}"),
            }
            self.progress(slot, operation, meter.as_deref_mut())?;
        }
    }

    /// After a completion other than a connect's: what is next for the slot?
    fn progress(&mut self, slot: u32, operation: u8, meter: Option<&mut Meter>) -> anyhow::Result<()> {
        let state = &mut self.slots[slot as usize];
        match (self.kind, operation) {
            (Kind::Tcp | Kind::Http, DISCONNECT) => {
                let is_ok = !state.is_failed && (self.kind == Kind::Tcp || state.is_answered);
                self.end(slot, is_ok, meter);
            }
            (Kind::Http, _) if state.pending == 0 => self.finished.push(slot),
            (Kind::KeepAlive, SEND | RECV) => {
                let is_over = state.is_answered && state.pending & SEND == 0;
                state.is_answered &= !is_over;
                let is_ok = !state.is_failed;
                if state.pending & RECV == 0 {
                    if state.is_failed {
                        bail!("a standing connection broke");
                    }
                    self.receive(slot)?;
                }
                if is_over {
                    self.end(slot, is_ok, meter);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, slot: u32, is_ok: bool, meter: Option<&mut Meter>) {
        self.free.push(slot);
        self.in_flight -= 1;
        if let Some(meter) = meter {
            meter.completed += 1;
            meter.failed += u64::from(!is_ok);
        }
    }
}

/// A ring of receive buffers that the kernel picks from. Its memory is never freed: the kernel may end receives after the
/// ring has been closed, and the process ends then as well.
struct Buffers {
    entries: NonNull<types::BufRingEntry>,
    memory: &'static mut [u8],
    tail: u16,
}

impl Buffers {
    const GROUP: u16 = 0;
    const COUNT: u16 = 2048;
    const SIZE: usize = 512;
    const LAYOUT: Layout = match Layout::from_size_align(Self::COUNT as usize * size_of::<types::BufRingEntry>(), 4096)
    {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    };

    fn register(ring: &IoUring) -> anyhow::Result<Self> {
        // SAFETY: the layout is not empty.
        let Some(entries) = NonNull::new(unsafe { alloc_zeroed(Self::LAYOUT) }.cast()) else {
            handle_alloc_error(Self::LAYOUT)
        };
        let mut buffers = Self { entries, memory: vec![0; usize::from(Self::COUNT) * Self::SIZE].leak(), tail: 0 };
        // SAFETY: the memory is page-aligned, as large as COUNT entries, and never freed.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, Self::COUNT, Self::GROUP, 0)? };
        for buffer in 0..Self::COUNT {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        let start = usize::from(buffer) * Self::SIZE;
        &self.memory[start..start + length]
    }

    fn give_back(&mut self, buffer: u16) {
        let index = usize::from(self.tail % Self::COUNT);
        // SAFETY: the index is below COUNT, so the entry is ours; the kernel does not read it before the tail passes it.
        let entry = unsafe { &mut *self.entries.as_ptr().add(index) };
        entry.set_addr(self.memory.as_mut_ptr().wrapping_add(usize::from(buffer) * Self::SIZE) as u64);
        entry.set_len(Self::SIZE as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, is aligned, and is written by this thread alone; the kernel reads it
        // with acquire, which the release pairs with.
        unsafe {
            let tail = types::BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
