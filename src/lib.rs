//! The `cryptonic` command line, as a library: what its binary and the examples share.

#![deny(unsafe_code)]

mod binding;
mod cable;
mod capture;
mod cli;
mod commands;
pub mod device;
pub mod error;
mod flow;
pub mod link;
#[cfg(target_os = "linux")]
pub mod memory_search;
mod neighbours;
mod output;
mod parser;
mod report;
mod sa_file;
mod signals;
mod toml_reader;
mod workload;

pub use cli::main;
