//! The RTL, run by Verilator from Rust, and held against the model.
//!
//! build.rs makes two builds of each unit where Verilator is installed: a fast one, and one with assertions,
//! waveforms and mutants. Where it is not, all of this compiles all the same, and the constructors say why they
//! fail.

mod availability;
mod mutants;
pub mod rx_parse;
pub mod units;
mod verilated;

pub use availability::{Unavailable, availability};
pub use mutants::{MUTANTS, Mutant};
pub use verilated::{Build, Model, TraceError};
