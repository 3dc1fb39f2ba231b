//! The vfio-user server against clients of every kind, over raw sockets: the bytes here are those that the protocol's
//! specification draws, written by hand.

#![cfg(target_os = "linux")]

#[path = "vfio_user_server/files.rs"]
mod files;
#[path = "vfio_user_server/hostile.rs"]
mod hostile;
#[path = "vfio_user_server/memory.rs"]
mod memory;
#[path = "vfio_user_server/qemu.rs"]
mod qemu;
#[path = "vfio_user_server/raw.rs"]
mod raw;
#[path = "vfio_user_server/sockets.rs"]
mod sockets;
