//! Pure rules: what an outcome means, when a monitor is healthy, what an episode sends to whom.
//!
//! Nothing here does I/O, reads a clock or serialises itself.

pub mod destination;
pub mod episode;
pub mod health;
pub mod monitor;
pub mod notice;
pub mod outcome;

pub use destination::{Destination, Provider};
pub use health::{Cadence, Health, TransitionKind};
pub use monitor::{Check, Codes, Host, HostRef, HttpCheck, Monitor, Policy, StatusSet, Target, TargetRef, TcpCheck};
pub use notice::{Color, DeliveryKey, Incident, Notice, Raise};
pub use outcome::{Code, Latency, Outcome, Verdict, VoidReason};
