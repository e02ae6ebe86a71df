//! What makes a commit durable. The desk lets nothing leave before its commit is.

pub mod memory;
