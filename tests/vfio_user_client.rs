//! The driver's vfio-user backend: against the server of the crate `vfio_user` as a witness, and against servers that answer
//! wrong, late, or not at all.

#![cfg(target_os = "linux")]

#[path = "vfio_user_client/crate_server.rs"]
mod crate_server;
#[path = "vfio_user_client/scripted.rs"]
mod scripted;
