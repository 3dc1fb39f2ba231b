//! The NIC, driven by rings written word by word: every form of descriptor, and the receive side.

mod bytes;
mod protected;
mod pushes;
mod raw;
mod receive;
mod segments;
mod transmit;
