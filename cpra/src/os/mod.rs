//! Drivers and doors: what touches the operating system.

pub mod lane;
pub mod stream;
pub mod wake;
