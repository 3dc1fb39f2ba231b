//! The management firmware.

#![no_std]
#![forbid(unsafe_code)]
