//! What a PCI function looks like from both sides: [`host`] is what a driver holds, [`device`] is what a
//! device is. Between them stand config space ([`config`]), interrupts ([`msix`]), memory that both can
//! reach ([`memory`]), and [`time`]. [`trace`] and [`fault`] wrap any host side. [`vfio_user`] is the language in which
//! both sides talk when they are two processes; [`sysfs`] is what Linux says of functions.

pub mod config;
pub mod device;
pub mod fault;
pub mod host;
pub mod memory;
pub mod msix;
pub mod sysfs;
pub mod time;
pub mod trace;
#[cfg(target_os = "linux")]
pub mod vfio_user;

pub use device::Device;
pub use host::{Bar, DmaAccess, Host, HostError, Work};
pub use memory::SharedMemory;
pub use time::Time;
