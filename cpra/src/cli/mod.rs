//! cli

pub mod story;
