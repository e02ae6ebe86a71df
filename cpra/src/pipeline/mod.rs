//! How threads hand work to each other: bounded queues, and a bell for a receiver that sleeps.
//!
//! Nothing here opens a descriptor or knows how a thread sleeps: that is the driver's, which gives the bell its
//! [`bell::Wake`].

pub mod bell;
pub mod queue;

pub use bell::{Bell, Wake};
pub use queue::{Gauge, Receiver, Sender, bounded};
