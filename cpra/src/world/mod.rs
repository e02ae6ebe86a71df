//! The only room that names specs.
pub mod catalog;
pub use catalog::Catalog;
