//! The firmware on a hardware that holds it to the contract at every access.

mod batches;
mod commands;
mod engines;
mod hardware;
mod lifetimes;
mod moderation;
mod outcomes;
mod random;
mod restart;
mod rotation;
mod sa_parameters;
mod samples;
