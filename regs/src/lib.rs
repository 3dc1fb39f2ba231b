//! The programmer's contract of the Cryptonic NIC: register blocks, descriptors, admin commands and status
//! codes, each written once.
//!
//! One declaration gives the typed value that driver, model and firmware use, and a row of plain data
//! ([`rows`]). From the rows come the register manual, `regs.json` and the SystemVerilog package
//! ([`export`]). Everything in memory and in registers is little-endian; bit 0 is the least significant.

#![no_std]
#![forbid(unsafe_code)]
// The checked setters that bitfield-struct makes return `Result<_, ()>`.
#![allow(clippy::result_unit_err)]

mod declare;

pub mod admin;
pub mod bar0;
pub mod completion;
pub mod descriptor;
pub mod doorbell;
pub mod events;
pub mod export;
pub mod firmware;
pub mod psp_policy;
pub mod rows;
pub mod shadow_doorbells;
pub mod status;

pub use rows::{Access, Block, Field, Record, Register, RegisterRow, Value, Word};
pub use status::Status;

/// The version of this contract: a driver refuses a device of another major version.
pub const CONTRACT_MAJOR: u16 = 4;
/// Rises when registers are added and nothing that was there changes.
pub const CONTRACT_MINOR: u16 = 1;

/// PCI vendor identifier of the model: the one of QEMU's and other virtual devices, free for experiments.
pub const PCI_VENDOR_ID: u16 = 0x1234;
/// PCI device identifier of a Cryptonic NIC under [`PCI_VENDOR_ID`].
pub const PCI_DEVICE_ID: u16 = 0xc417;
/// PCI class code: network controller, Ethernet.
pub const PCI_CLASS: u32 = 0x02_0000;
