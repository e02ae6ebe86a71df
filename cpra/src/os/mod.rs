//! Drivers and doors: what touches the operating system.

pub mod wake;
