//! The firmware on a hardware that holds it to the contract at every access.

mod commands;
mod hardware;
mod outcomes;
mod random;
mod restart;
mod sa_parameters;
