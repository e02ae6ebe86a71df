//! When things are due: pure, and blind to what the things are.

pub mod ready;
pub mod wheel;

pub use ready::ReadyList;
pub use wheel::{Tick, Wheel};
