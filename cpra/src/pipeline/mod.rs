//! How threads hand work to each other: bounded queues, a bell for a receiver that sleeps, and how many jobs a lane has
//! under way.
//!
//! Nothing here opens a descriptor or knows how a thread sleeps: that is the driver's, which gives the bell its
//! [`bell::Wake`].

pub mod bell;
pub mod queue;
pub mod workers;

pub use bell::{Bell, Wake};
pub use queue::{Gauge, Receiver, Sender, bounded};
pub use workers::{Ticket, Workers};
