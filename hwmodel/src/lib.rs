//! The bit-exact, cycle-level model of the NIC: one file a stage, one stage an RTL module, joined in
//! `nic`. A [`World`] owns NICs, cables and the clock; [`World::host`] gives the host side that a driver
//! drives.

mod cable;
mod calendar;
mod completion_hold;
mod counters;
mod derived_key_cache;
mod descriptor_fetch;
mod epochs;
mod event_ring;
mod events;
mod frame_parts;
mod gather;
mod host_memory;
mod in_process;
pub mod key_derivation;
mod key_schedules;
mod lanes;
mod latency;
mod life_registers;
mod mac;
mod management;
mod nic;
mod packet;
pub mod parameters;
pub mod pcie;
pub mod pcie_closed_form;
mod protect_esp;
mod protect_psp;
mod psp_copies;
pub mod psp_kdf;
mod push;
mod queue;
mod receive;
mod receive_commit;
mod receive_scaling;
mod registers;
pub mod rx_geometry;
pub mod rx_parse;
mod rx_parse_in_place;
mod sa_lifetime;
mod sa_parameters;
mod sa_table;
mod secret_places;
mod segment;
mod shadow_doorbells;
mod steering;
mod ticks;
mod transmit_commit;
mod transmit_frames;
#[cfg(target_os = "linux")]
pub mod vfio_user_server;
mod world;

pub use cable::{CableCounters, CableParameters};
pub use latency::{Latencies, Spread};
pub use parameters::{ParameterError, Parameters};
pub use rx_parse_in_place::{Parser, ParserOutcome};
pub use ticks::Ticks;
pub use world::{NicId, World};
