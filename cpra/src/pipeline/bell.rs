//! The protocol for waking a receiver that sleeps, without a system call while it is awake.
//!
//! One bell belongs to one receiving *thread* and is shared by all of its queues. A sender rings only when the
//! receiver has declared that it sleeps; an eventfd write per message would cost more than the message.
//!
//! # Why no wake-up is missed
//! ```text
//!  sender                          receiver
//!  S1  publish the item            R1  sleeping = true
//!  S2  fence(SeqCst)               R2  fence(SeqCst)
//!  S3  read sleeping               R3  look into the queues
//!      true → swap to false, wake      all empty → sleep
//! ```
//! The two fences are ordered one before the other. If S2 comes first, then R3 sees what S1 wrote and the receiver
//! does not go to sleep. If R2 comes first, then S3 sees `true` and the sender wakes. Both may happen: that costs one
//! wake-up too many, never one too few. With acquire and release alone S3 could overtake S1 (a store and a later load of
//! something else may be reordered, even on x86), and both sides could look past each other.
//!
//! The door must remember a wake-up that comes between R3 and the sleep itself; an eventfd does.
//!
//! The receiver takes its declaration back when it wakes, *before* it looks into its queues. A sender that still
//! saw the old one has rung for nothing: the next sleep returns at once, finds nothing, and sleeps again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The door that a sleeping thread waits at. Must not block, and must remember a knock that comes before the wait.
pub trait Wake: Send + Sync {
    fn wake(&self);
}

impl<F: Fn() + Send + Sync> Wake for F {
    fn wake(&self) {
        self();
    }
}

/// See the module's text. Clones are the same bell.
#[derive(Clone)]
pub struct Bell {
    shared: Arc<Shared>,
}

struct Shared {
    sleeping: AtomicBool,
    door: Box<dyn Wake>,
}

impl Bell {
    pub fn new(door: impl Wake + 'static) -> Self {
        Self { shared: Arc::new(Shared { sleeping: AtomicBool::new(false), door: Box::new(door) }) }
    }

    /// A bell that nobody hears, for a receiver that never sleeps without a bound of time.
    pub fn mute() -> Self {
        Self::new(|| {})
    }

    /// Wakes the receiver if it sleeps. To be called *after* what it should see is published.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        // The load comes first because the swap would take the cache line away from every other sender, each time.
        if self.shared.sleeping.load(Ordering::Relaxed) && self.shared.sleeping.swap(false, Ordering::AcqRel) {
            self.shared.door.wake();
        }
    }

    /// Sleeps by `wait` unless `idle` finds work after all. `idle` must look into every queue of this bell.
    pub fn sleep(&self, idle: impl FnOnce() -> bool, wait: impl FnOnce()) {
        self.declare_sleep();
        if idle() {
            wait();
        }
        self.declare_awake();
    }

    /// For receivers that cannot sleep inside a call (futures, a ring): declare, look into every queue, sleep, and
    /// [`Self::declare_awake`] afterwards. Prefer [`Self::sleep`].
    pub fn declare_sleep(&self) {
        self.shared.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub fn declare_awake(&self) {
        self.shared.sleeping.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("sleeping", &self.shared.sleeping.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn rings_once_for_each_declared_sleep_and_never_else() {
        let knocks = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&knocks);
        let bell = Bell::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        bell.ring();
        assert_eq!(knocks.load(Ordering::Relaxed), 0, "nobody sleeps");
        bell.declare_sleep();
        bell.ring();
        bell.ring();
        assert_eq!(knocks.load(Ordering::Relaxed), 1, "one knock is enough");
        bell.declare_sleep();
        bell.declare_awake();
        bell.ring();
        assert_eq!(knocks.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn does_not_wait_when_there_is_work() {
        let bell = Bell::mute();
        bell.sleep(|| false, || panic!("slept although there was work"));
    }
}
