//! `cargo xtask bench sizing`: the solver's workers beside the least with which a simulated queue keeps the SLO, and how
//! long the solver takes.
//!
//! Hypothesis: over 1 to 2,000 workers, a load of 0.3 to 0.95 and services from constant to a hundred times as variable as
//! exponential ones, the two differ by no more than one worker or 5 %.

mod grid;
mod queue;

use super::pulse;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// A small part of the grid
    #[arg(long)]
    quick: bool,
    /// Already built for release (set by the command itself)
    #[arg(long, hide = true)]
    built: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if !options.built {
        return pulse::run_release();
    }
    println!("machine: {}", pulse::machine());
    grid::time();
    grid::compare(options.quick)
}
