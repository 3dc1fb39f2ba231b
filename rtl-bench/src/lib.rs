//! The RTL, run by Verilator from Rust, and held against the model.
//!
//! build.rs makes two builds of each unit where Verilator is installed: a fast one, and one with assertions,
//! waveforms and mutants. Where it is not, all of this compiles all the same, and the constructors say why they
//! fail.

mod availability;
pub mod campaign;
pub mod coverage;
pub mod lockstep;
mod mutants;
pub mod mutation;
pub mod packets;
pub mod psp_kdf;
pub mod random;
pub mod report;
pub mod reproduction;
pub mod rx_geometry;
pub mod rx_geometry_requests;
pub mod rx_parse;
pub mod shrink;
pub mod sizes;
pub mod stimulus;
pub mod units;
mod verilated;
pub mod wave;

pub use availability::{Unavailable, availability};
pub use mutants::{MUTANTS, Mutant};
pub use units::Build;
pub use verilated::{Model, TraceError};
