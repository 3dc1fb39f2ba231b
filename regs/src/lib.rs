//! The programmer's contract: registers, descriptors, commands and status codes, each written once.

#![no_std]
#![forbid(unsafe_code)]
