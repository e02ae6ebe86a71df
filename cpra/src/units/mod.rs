//! Ground floor: quantities, identifiers and bounds. Nothing here knows what a monitor is.

pub mod id;
pub mod limits;
pub mod planted;
pub mod time;

pub use id::{Generation, MonitorId, PolicyId, Slot};
pub use time::{Instant, Span, Timestamp};
