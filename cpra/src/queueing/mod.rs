//! How many workers a pipeline needs: pure mathematics on measured times.
//!
//! ```text
//!  arrivals, waits, services ──▶ Meter ──reading──▶ solver ──answer──▶ Controller ──▶ workers
//!                                (windows that forget)  (Erlang C, Allen-Cunneen)     (up at once, down slowly)
//! ```
//! In the words of the field: a *server* is a worker, which for pulse is a check in flight on its slot. `λ` is the rate
//! of arrivals, `μ` that of one busy worker, `a = λ/μ` the offered load in erlangs, `c` the workers, `ρ = a/c` how much
//! of them is used; `Ca²` and `Cs²` are the squared coefficients of variation of arrivals and services.
//!
//! Nothing here reads a clock, and nothing knows what a job is.

pub mod controller;
pub mod erlang;
pub mod meter;
pub mod presize;
pub mod recording;
mod report;
pub mod solver;
mod words;

pub use controller::{Controller, Decision, Demand, Report, Setup};
pub use meter::{Meter, Reading};
pub use presize::Presize;
pub use solver::{Answer, Bounds, Goal, Load, Service, Slo, solve};
pub use words::Unreachable;
