//! The model in one process, its driver in another: what leaves is the same as in one process, and what ends leaves the
//! other sane.

#![cfg(target_os = "linux")]

#[path = "served/command.rs"]
mod command;
#[path = "served/crate_client.rs"]
mod crate_client;
#[path = "served/deaths.rs"]
mod deaths;
#[path = "served/doorbell_rate.rs"]
mod doorbell_rate;
#[path = "served/register_cost.rs"]
mod register_cost;
#[path = "served/rig.rs"]
mod rig;
#[path = "served/run.rs"]
mod run;
#[path = "served/same_bytes.rs"]
mod same_bytes;
