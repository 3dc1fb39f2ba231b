//! Packet formats of an inline-crypto NIC: layout, nonce, AAD, key-derivation input, sequence and replay
//! arithmetic, and the byte work of encapsulation and decapsulation.
//!
//! The crate has no cipher, no allocation, no clock and no state of its own. What depends on a key goes
//! through the [`Aead`] trait; what depends on an SA comes in as an argument.
//!
//! ```text
//!  transmit   parse_transmit -> Plain -> encapsulate (Room) -> Geometry -> seal (Aead)
//!  receive    parse_receive  -> Parsed -> receive_geometry  -> Geometry -> open (Aead) -> decapsulate (Room)
//! ```
//!
//! ESP comes in tunnel and transport mode ([`esp_transform`]) and BEET mode ([`esp_beet`]), over IP or UDP; PSP in tunnel and
//! transport mode, and as frames that have their headers already ([`psp_transform`]); EESP and WESPv2 in tunnel and transport mode
//! ([`eesp_transform`], [`wespv2_transform`]). What a NIC does to clear packets stands beside: [`l4_checksum`], [`segmentation`], [`toeplitz`] and [`selector`].
//!
//! # Example
//! A gateway's two directions, for one SA in tunnel mode:
//!
//! ```
//! use cryptonic_wire::outer::PerPacket;
//! use cryptonic_wire::{
//!     Aead, Decapsulated, OuterTemplate, Protocol, Room, UdpPorts, esp, esp_transform, parse_receive,
//!     parse_transmit,
//! };
//! # use core::error::Error;
//!
//! fn protect(
//!     room: &mut Room<'_>,
//!     aead: &dyn Aead,
//!     sa: &esp::Parameters,
//!     outer: &OuterTemplate,
//!     sequence: u64,
//! ) -> Result<(), Box<dyn Error>> {
//!     let plain = parse_transmit(room.frame())?;
//!     let geometry = esp_transform::encapsulate_tunnel(room, &plain, sa, sequence, outer, PerPacket::default())?;
//!     geometry.seal(aead, room.frame_mut())?;
//!     Ok(esp_transform::finish_outer_checksum(room.frame_mut(), sa)?)
//! }
//!
//! fn open(room: &mut Room<'_>, aead: &dyn Aead, sa: &esp::Parameters) -> Result<(), Box<dyn Error>> {
//!     let parsed = parse_receive(room.frame(), UdpPorts::default())?;
//!     if parsed.protocol != Protocol::Esp || parsed.spi != sa.spi {
//!         return Err("no SA for this packet".into());
//!     }
//!     let geometry = esp::receive_geometry(&parsed, room.frame(), sa, u64::from(parsed.sequence))?;
//!     geometry.open(aead, room.frame_mut())?;
//!     match esp_transform::decapsulate_tunnel(room, &parsed, sa)? {
//!         Decapsulated::Packet { .. } => Ok(()),
//!         Decapsulated::Dummy => Err("a dummy packet".into()),
//!     }
//! }
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
pub mod constants;
pub mod ecn;
pub mod eesp;
pub mod eesp_transform;
pub mod esp;
pub mod esp_beet;
pub mod esp_transform;
pub mod ethernet;
pub mod geometry;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod l4_checksum;
mod malformed;
pub mod option;
pub mod outer;
pub mod packet;
pub mod psp;
pub mod psp_transform;
pub mod room;
pub mod segmentation;
pub mod selector;
pub mod sequence;
pub mod tcp;
pub mod toeplitz;
pub mod transform;
pub mod udp;
pub mod wespv2;
pub mod wespv2_transform;

pub use aead::{Aead, AuthenticationFailed, IcvLength};
pub use geometry::{Aad, Geometry, Span};
pub use malformed::Malformed;
pub use outer::OuterTemplate;
pub use packet::{Parsed, Plain, Protocol, UdpPorts, parse_receive, parse_transmit};
pub use room::{NoRoom, Room};
pub use transform::{Decapsulated, Refused, Rejected};
