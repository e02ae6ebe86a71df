//! Programs of ours in the kernel: how they are wanted.

mod settings;

pub use settings::{Hook, Interfaces, Mode, Settings};
