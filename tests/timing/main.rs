//! The model's timing, held to its documentation (docs/timing.md), to arithmetic and to itself, through the real
//! driver.

mod bytes_and_latency;
mod determinism;
mod manual;
mod pressure;
mod rate;
mod rig;
