//! The read-only interface.

pub mod listen;
pub mod process;
