//! Files into values: the monitors file into [`Monitor`](crate::domain::Monitor)s, the daemon file into
//! [`Settings`], and everything that is wrong with either into [`Diagnostic`]s.
//!
//! ```text
//! bytes ─▶ source ─▶ yaml (events) ─▶ node (one item's tree, with positions) ─▶ monitor, http, codes ─▶ Monitor
//!          TOML ───▶ daemon ────────▶ node ───────────────────────────────────▶ Settings
//! ```
//!
//! A text is read once and in one way: the tree that is judged is the tree that carries the positions, and only one
//! item of it is in memory. `serde_yaml` gives values without positions and the whole file at once, so it does not read
//! the file; it is the oracle of the tests (`tests/oracle.rs`): what it refuses or reads differently is refused here.
//! (Rejected: the library first, and a second, position-keeping reader for what it refuses. Two parsers differ in
//! corners, and the streaming parser is as fast as the library over the whole file.)
//!
//! Invariants: one item of the list is in memory at a time, beside the names seen so far; a fault never ends the
//! reading as long as the list's shape can be found again; nothing here panics, whatever the bytes.
//! When full: an item of more than `node::NODES_MAX` values, a text deeper than `node::DEPTH_MAX`, a single value
//! of more than `source::VALUE_MAX` characters is an error; of errors and of warnings the first
//! [`diagnostic::KEPT_MAX`] are kept and all are counted.

mod address;
mod batches;
mod codes;
pub mod daemon;
pub mod diagnostic;
mod duration;
pub mod folders;
mod http;
mod json;
mod library;
mod monitor;
pub mod monitors;
mod names;
mod node;
mod section;
mod source;
mod sources;
mod suggestion;
pub mod trust;
mod value;
mod variables;
mod yaml;

#[cfg(test)]
mod tests;

pub use daemon::Settings;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use folders::{Folders, LogPathError, log_path_allowed};
pub use monitors::{Report, read, read_all, read_str};
pub use variables::Variables;
