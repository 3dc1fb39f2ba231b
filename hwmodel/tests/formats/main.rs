//! The NIC, driven by rings written word by word: every form of descriptor, the receive side, the life of SAs, and what PSP does
//! beside opening and protecting.

mod admin;
mod bytes;
mod captures;
mod event_ring;
mod firmware;
mod lifetimes;
mod protected;
mod psp;
mod psp_keys;
mod pushes;
mod raw;
mod receive;
mod samples;
mod segments;
mod shadow_doorbells;
mod transmit;
