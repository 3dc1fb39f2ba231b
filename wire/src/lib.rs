//! Packet formats of an inline-crypto NIC: layout, nonce, AAD, key-derivation input, sequence and replay
//! arithmetic, and the byte work of encapsulation and decapsulation.
//!
//! The crate has no cipher, no allocation, no clock and no state of its own. What depends on a key goes
//! through the [`Aead`](aead::Aead) trait; what depends on an SA comes in as an argument.
//!
//! ```text
//!  transmit   parse_transmit -> Plain -> encapsulate (Room) -> Geometry -> seal (Aead)
//!  receive    parse_receive  -> Parsed -> receive_geometry  -> Geometry -> open (Aead) -> decapsulate (Room)
//! ```
//!
//! # Conventions
//! * Every length and offset is in octets, every offset counts from the first octet of what it is documented
//!   to belong to (a header, or the Ethernet frame), and every multi-octet field is in network byte order.
//! * `field` modules name the octet ranges of a header once. The RTL package is generated from them.
//! * A frame is an Ethernet frame without its FCS.
//! * No function panics, whatever octets or offsets it is given. Parsers are total: they answer with a value or
//!   with the one [`Malformed`] entry that names what is wrong.

#![no_std]
#![forbid(unsafe_code)]

pub mod aead;
mod bytes;
pub mod checksum;
pub mod ecn;
pub mod esp;
pub mod esp_transform;
pub mod ethernet;
pub mod geometry;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
mod malformed;
pub mod outer;
pub mod packet;
pub mod psp;
pub mod psp_transform;
pub mod room;
pub mod sequence;
pub mod tcp;
pub mod transform;
pub mod udp;

pub use aead::{Aead, AuthenticationFailed, IcvLength};
pub use geometry::{Aad, Geometry, Span};
pub use malformed::Malformed;
pub use outer::OuterTemplate;
pub use packet::{Parsed, Plain, Protocol, parse_receive, parse_transmit};
pub use room::{NoRoom, Room};
pub use transform::{Decapsulated, Refused, Rejected};
