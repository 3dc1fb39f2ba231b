//! What a real device is reached through. Each is a [`cryptonic_pci::Host`], chosen at run time.

#[cfg(target_os = "linux")]
pub mod vfio;
#[cfg(target_os = "linux")]
pub mod vfio_user;
