//! Drivers and doors: what touches the operating system.

pub mod clock;
pub mod lane;
pub mod logging;
pub mod resolve;
pub mod stream;
pub mod wake;
