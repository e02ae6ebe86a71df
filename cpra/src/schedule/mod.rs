//! When things are due: pure, and blind to what the things are.

pub mod allowance;
pub mod ready;
pub mod wheel;

pub use allowance::Allowance;
pub use ready::ReadyList;
pub use wheel::{Tick, Wheel};
