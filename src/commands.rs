//! The commands.

pub(crate) mod bench;
pub(crate) mod bind;
pub(crate) mod cosim;
pub(crate) mod experiment;
pub(crate) mod gate;
pub(crate) mod gateway;
pub(crate) mod info;
pub(crate) mod pcap;
mod protections;
pub(crate) mod regs;
mod rekeying;
pub(crate) mod run;
pub(crate) mod sa;
#[cfg(target_os = "linux")]
pub(crate) mod serve;
mod traffic;
