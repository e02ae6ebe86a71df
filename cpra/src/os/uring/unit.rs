//! One io_uring instance with its own range of slots.
//!
//! The table of direct sockets of one instance is capped by the soft limit of open files, so a large pool needs
//! several instances. All of them belong to one thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};
use nix::libc;

use super::buffers::BufferRing;
use crate::units::Span;

/// Submissions per enter; batches of 64 to 4096 measured flat.
const SUBMISSIONS_MAX: u32 = 32_768;
/// A slot has rarely more than one completion due (a connect or a disconnect) besides a receive. More than fit are
/// kept by the kernel (NODROP) and handed over after a drain.
const COMPLETIONS_PER_SLOT: u32 = 2;
const COMPLETIONS_MIN: u32 = 4096;

pub(super) struct Unit {
    // The declaration order is the order of dropping: first the ring, then the memory that it knows.
    ring: IoUring,
    buffers: Option<BufferRing>,
    /// What found the submission queue full while the kernel could not take any more.
    parked: VecDeque<squeue::Entry>,
    /// Operations that have not completed for the last time.
    pub(super) in_flight: u32,
    wait_flags: EnterFlags,
}

impl Unit {
    pub(super) fn new(slots: u32, batch: u32) -> io::Result<Self> {
        let completions = (slots.saturating_mul(COMPLETIONS_PER_SLOT)).next_power_of_two().max(COMPLETIONS_MIN);
        let ring = IoUring::builder()
            // One thread submits, so the kernel needs no lock and no interrupt to get at it; completions are
            // worked off inside our own enter, in batches.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(completions)
            .setup_clamp()
            .dontfork()
            .build(batch.clamp(1, SUBMISSIONS_MAX))?;
        ring.submitter().register_files_sparse(slots)?;
        let mut wait_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if ring.params().is_feature_no_iowait() {
            // Otherwise a daemon that sleeps in its ring shows as a processor waiting for a disk.
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        Ok(Self { ring, buffers: None, parked: VecDeque::new(), in_flight: 0, wait_flags })
    }

    pub(super) fn ring(&self) -> &IoUring {
        &self.ring
    }

    /// Puts a socket at an index of the table. One that is there already is silently replaced.
    pub(super) fn install(&self, index: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.ring.submitter().register_files_update(index, &[socket.as_raw_fd()]).map(drop)
    }

    pub(super) fn remove(&self, index: u32) -> io::Result<()> {
        self.ring.submitter().register_files_update(index, &[-1]).map(drop)
    }

    /// Makes the receive buffers, on first use: plain connect checks never need them.
    pub(super) fn want_buffers(&mut self) -> io::Result<()> {
        if self.buffers.is_none() {
            self.buffers = Some(BufferRing::register(&self.ring.submitter())?);
        }
        Ok(())
    }

    pub(super) fn recycle(&mut self) {
        if let Some(buffers) = &mut self.buffers {
            buffers.recycle();
        }
    }

    /// Queues an entry; hands the queue to the kernel in the middle when it is full.
    ///
    /// # Safety
    /// What the entry points to stays valid and unchanged until its terminal completion.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        if self.parked.is_empty() {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // An error here (out of memory for requests) is met again, and reported, by the next enter.
            let _ = self.ring.submit();
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.parked.push_back(entry);
    }

    /// Hands over what is queued, without waiting and without running deferred work.
    pub(super) fn submit(&mut self) {
        self.unpark();
        // As above: what is not taken stays queued for the next enter, which reports errors.
        let _ = self.ring.submit();
    }

    fn unpark(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.parked.front() {
            // SAFETY: promised by whoever called `push` with this entry.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.parked.pop_front();
        }
    }

    /// Whether completions are there to be taken without asking the kernel.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Whether there is anything to submit or to wait for.
    pub(super) fn is_busy(&mut self) -> bool {
        self.in_flight > 0 || !self.ring.submission().is_empty() || !self.parked.is_empty()
    }

    /// Submits what is queued, runs the deferred work, and waits for `want` completions for at most `bound`.
    pub(super) fn enter(&mut self, want: u32, bound: Span) -> io::Result<()> {
        self.unpark();
        #[expect(clippy::cast_possible_truncation, reason = "at most SUBMISSIONS_MAX")]
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let result = if want == 0 {
            // SAFETY: no argument is passed, and the flags are those of an enter without one.
            unsafe { submitter.enter::<libc::sigset_t>(queued, 0, EnterFlags::GETEVENTS.bits(), None) }
        } else {
            let nanos = (bound.as_nanos() % 1_000_000_000) as u32;
            let time = Timespec::new().sec(bound.as_secs()).nsec(nanos);
            let arguments = SubmitArgs::new().timespec(&time);
            // SAFETY: EXT_ARG is set, `arguments` is what it wants, and both it and `time` outlive the call.
            unsafe { submitter.enter(queued, want, self.wait_flags.bits(), Some(&arguments)) }
        };
        match result {
            Ok(_) => Ok(()),
            // The bound has passed; a signal came; the completion queue is full and must be drained first; the
            // kernel is out of memory for requests, and keeps what it did not take in the queue.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ENOMEM)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Gives every completion to `sink`, together with the buffers, until none is left in the kernel either.
    pub(super) fn drain(&mut self, mut sink: impl FnMut(cqueue::Entry, Option<&mut BufferRing>, &mut u32)) {
        loop {
            for entry in self.ring.completion() {
                sink(entry, self.buffers.as_mut(), &mut self.in_flight);
            }
            if !self.ring.submission().cq_overflow() {
                return;
            }
            // The kernel kept what did not fit; entering moves it over.
            // SAFETY: no argument is passed.
            let moved =
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, EnterFlags::GETEVENTS.bits(), None) };
            // EBUSY: there is more than fits once more. Anything else is met again by the next enter.
            if moved.is_err_and(|error| error.raw_os_error() != Some(libc::EBUSY)) {
                return;
            }
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // Ends what is pending while the memory that it points to is still there. Best effort: a closed ring is
        // torn down by the kernel, which does not touch user memory from there.
        let patience = Timespec::new().nsec(100_000_000);
        let everything = io_uring::types::CancelBuilder::any();
        let _ = self.ring.submitter().register_sync_cancel(Some(patience), everything);
    }
}
