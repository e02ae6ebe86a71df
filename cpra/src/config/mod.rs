//! Files into values: the monitors file into [`Monitor`](crate::domain::Monitor)s, the daemon file into
//! [`Settings`], and everything that is wrong with either into [`Diagnostic`]s.
//!
//! ```text
//! bytes ─▶ source ─▶ yaml or json (events) ─▶ node (an item's tree, with positions) ─▶ monitor, http, codes ─▶ Monitor
//!       └▶ batches ─▶ library ─▶ node (without positions; used only if there is nothing to say about it) ──┘
//!          TOML ───▶ daemon ──────────────────▶ node ───────────────────────────────▶ Settings
//! ```
//!
//! `sources` finds the files. What is said about a text is said in one way: by the streaming reader, whose tree carries
//! the positions, with one item of it in memory. `serde_yaml` gives values without positions and a whole text at once;
//! it reads plain files in batches, as far as nothing is to be said about them, and is the oracle of the tests
//! (`tests/oracle.rs`): what it refuses or reads differently is refused here.
//!
//! Invariants: one item of the list (or one batch of 64 KiB) is in memory at a time, beside the names seen so far; a fault never ends the
//! reading as long as the list's shape can be found again; nothing here panics, whatever the bytes.
//! When full: an item of more than `node::NODES_MAX` values, a text deeper than `node::DEPTH_MAX`, a single value
//! of more than `source::VALUE_MAX` characters is an error; of errors and of warnings the first
//! [`diagnostic::KEPT_MAX`] are kept and all are counted.

mod about;
mod address;
mod assertions;
mod batches;
mod check;
mod codes;
pub mod daemon;
mod dependencies;
mod destinations;
pub mod diagnostic;
mod dns;
mod duration;
pub mod folders;
mod http;
mod intervention;
mod json;
mod library;
mod monitor;
pub mod monitors;
mod names;
mod node;
pub mod providers;
mod push;
mod refusal;
mod scope;
mod script;
mod secret;
mod section;
mod source;
mod sources;
mod suggestion;
mod targets;
mod tls;
pub mod trust;
mod value;
mod variables;
mod yaml;

#[cfg(test)]
mod tests;

pub use daemon::Settings;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use folders::{Folders, LogPathError, log_path_allowed};
pub use monitors::{Receivers, Report, read, read_all, read_str};
pub use providers::{Declared, ProviderKind};
pub use suggestion::nearest;
pub use variables::Variables;
