//! `experiment`: named questions to the model, answered with tables and plots.

mod formulas;
mod inline;
mod lifetimes;
mod plot;

use clap::Subcommand;

use crate::error::Result;

/// The experiments.
#[derive(Debug, Subcommand)]
pub(crate) enum Experiment {
    /// What each descriptor format costs in PCI Express bytes, and what it buys in latency
    Inline(inline::InlineArguments),
    /// What a table of SA slots loses when lifetimes end, by bytes or by count, and under which policies
    Lifetimes(Box<lifetimes::LifetimesArguments>),
}

/// Runs one.
pub(crate) fn run(experiment: &Experiment, as_json: bool) -> Result<()> {
    match experiment {
        Experiment::Inline(arguments) => inline::run(arguments, as_json),
        Experiment::Lifetimes(arguments) => lifetimes::run(arguments, as_json),
    }
}
