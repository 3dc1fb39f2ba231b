//! The numbers of this crate as rows of data: from them comes the SystemVerilog package that the RTL is written with, so
//! that each offset and number stands once.

use core::fmt::{self, Write};
use core::ops::Range;

use crate::{eesp, esp, ethernet, ip, ipv4, ipv6, option, psp, udp, wespv2};

/// A number, or the place of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    /// A number.
    Number {
        /// The value.
        value: u32,
        /// Bits of its type; those of a length in octets are 16.
        bits: u32,
    },
    /// Where a field begins, and how many octets it has.
    Field {
        /// First octet, from the header's first.
        offset: u32,
        /// Octets.
        octets: u32,
    },
}

impl Constant {
    const fn number(value: u32, type_octets: usize) -> Self {
        Self::Number {
            value,
            bits: if type_octets == size_of::<usize>() { 16 } else { type_octets as u32 * 8 },
        }
    }

    const fn field(range: Range<usize>) -> Self {
        Self::Field { offset: range.start as u32, octets: (range.end - range.start) as u32 }
    }
}

/// A header's constants, by name.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Name of the header, in capitals.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// The constants; their names do not repeat the header's.
    pub rows: &'static [(&'static str, Constant)],
}

/// Rows out of constants; each is named as its constant is, with the header's name in front.
macro_rules! rows {
    ($($path:path),* ; fields $($field:path),* $(; $name:literal = $value:expr)* $(;)?) => {
        &[
            $((last(stringify!($path)), Constant::number($path as u32, size_of_val(&$path))),)*
            $((last(stringify!($field)), Constant::field($field)),)*
            $(($name, Constant::number($value as u32, size_of_val(&$value))),)*
        ]
    };
}

/// The last part of a path's text.
const fn last(path: &'static str) -> &'static str {
    let mut rest = path.as_bytes();
    let mut start = 0;
    let mut at = 0;
    while let [octet, behind @ ..] = rest {
        at += 1;
        if *octet == b':' {
            start = at;
        }
        rest = behind;
    }
    path.split_at(start).1
}

/// All of them.
pub const HEADERS: &[Header] = &[
    Header {
        name: "ETHERNET",
        doc: "Ethernet with VLAN tags",
        rows: rows![
            ethernet::HEADER_LENGTH, ethernet::TAG_LENGTH, ethernet::MAX_TAGS;
            fields ethernet::field::ETHERTYPE;
            "ETHERTYPE_IPV4" = ethernet::ethertype::IPV4;
            "ETHERTYPE_IPV6" = ethernet::ethertype::IPV6;
            "ETHERTYPE_VLAN" = ethernet::ethertype::VLAN;
            "ETHERTYPE_SERVICE_VLAN" = ethernet::ethertype::SERVICE_VLAN;
        ],
    },
    Header {
        name: "IP_PROTOCOL",
        doc: "IP protocol numbers",
        rows: rows![
            ip::protocol::HOP_BY_HOP, ip::protocol::TCP, ip::protocol::UDP, ip::protocol::ROUTING,
            ip::protocol::FRAGMENT, ip::protocol::ESP, ip::protocol::NO_NEXT_HEADER,
            ip::protocol::DESTINATION_OPTIONS; fields
        ],
    },
    Header {
        name: "IPV4",
        doc: "IPv4",
        rows: rows![
            ipv4::HEADER_LENGTH, ipv4::flag::DONT_FRAGMENT, ipv4::flag::MORE_FRAGMENTS,
            ipv4::flag::FRAGMENT_OFFSET;
            fields ipv4::field::VERSION_AND_HEADER_LENGTH, ipv4::field::TRAFFIC_CLASS, ipv4::field::TOTAL_LENGTH,
            ipv4::field::FLAGS_AND_FRAGMENT_OFFSET, ipv4::field::TTL, ipv4::field::PROTOCOL, ipv4::field::CHECKSUM,
            ipv4::field::SOURCE, ipv4::field::DESTINATION
        ],
    },
    Header {
        name: "IPV6",
        doc: "IPv6",
        rows: rows![
            ipv6::HEADER_LENGTH, ipv6::FRAGMENT_HEADER_LENGTH, ipv6::MAX_EXTENSION_HEADERS;
            fields ipv6::field::PAYLOAD_LENGTH, ipv6::field::NEXT_HEADER, ipv6::field::HOP_LIMIT,
            ipv6::field::SOURCE, ipv6::field::DESTINATION
        ],
    },
    Header {
        name: "UDP",
        doc: "UDP",
        rows: rows![
            udp::HEADER_LENGTH;
            fields udp::field::SOURCE_PORT, udp::field::DESTINATION_PORT, udp::field::LENGTH
        ],
    },
    Header {
        name: "ESP",
        doc: "ESP; the mark that is not an SPI, and the octet that keeps a NAT mapping alive",
        rows: rows![
            esp::FIXED_LENGTH, esp::LAST_RESERVED_SPI, esp::NAT_KEEPALIVE, esp::TRAILER_FIXED_LENGTH;
            fields esp::field::SPI, esp::field::SEQUENCE, esp::field::IV;
            "NON_ESP_MARKER" = u32::from_be_bytes(esp::NON_ESP_MARKER);
        ],
    },
    Header {
        name: "PSP",
        doc: "PSP",
        rows: rows![
            psp::HEADER_LENGTH, psp::ICV_LENGTH, psp::MAX_CRYPT_OFFSET, psp::flag::VERSION, psp::flag::VERSION_SHIFT,
            psp::flag::VIRTUALIZATION_COOKIE, psp::flag::ONE;
            fields psp::field::EXTENSION_LENGTH, psp::field::CRYPT_OFFSET, psp::field::FLAGS, psp::field::SPI,
            psp::field::IV
        ],
    },
    Header {
        name: "WESPV2",
        doc: "WESPv2 (draft-klassert-ipsecme-wespv2-01)",
        rows: rows![
            wespv2::HEADER_LENGTH, wespv2::MAX_OPTION_LENGTH, wespv2::MIN_HEADER_LENGTH_FIELD, wespv2::VERSION,
            wespv2::option_type::ACTION, wespv2::option_type::MAY_CHANGE;
            fields wespv2::field::NEXT_HEADER, wespv2::field::CRYPT_OFFSET, wespv2::field::VERSION_AND_OPTION_LENGTH;
            "HEADER_LENGTH_FIELD" = wespv2::field::HEADER_LENGTH.start;
            "UDP_MARKER" = u32::from_be_bytes(wespv2::UDP_MARKER);
        ],
    },
    Header {
        name: "EESP",
        doc: "EESP (draft-ietf-ipsecme-eesp-03)",
        rows: rows![
            eesp::HEADER_LENGTH, eesp::SEQUENCE_LENGTH, eesp::IV_LENGTH, eesp::PAYLOAD_INFO_LENGTH,
            eesp::CRYPT_OFFSET_OPTION_LENGTH, eesp::first::ONE, eesp::first::VERSION, eesp::first::RESERVED;
            fields eesp::field::FIRST, eesp::field::OPTION_LENGTH, eesp::field::SESSION_ID, eesp::field::SPI;
            "OPTION_TYPE_CRYPT_OFFSET" = eesp::option_type::CRYPT_OFFSET;
        ],
    },
    Header {
        name: "OPTION",
        doc: "options of WESPv2 and EESP",
        rows: rows![option::MAX_OPTIONS, option::PAD1, option::PADN; fields],
    },
];

/// Writes the SystemVerilog package.
///
/// # Errors
/// What `out` says.
pub fn system_verilog(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "// Made from wire/ by `cargo run -- regs --format wire-sv`.")?;
    writeln!(out, "package cryptonic_wire_pkg;")?;
    for Header { name, doc, rows } in HEADERS {
        writeln!(out, "\n  // {doc}")?;
        for (row, constant) in *rows {
            match constant {
                Constant::Number { value, bits } => {
                    let (top, digits) = (bits - 1, *bits as usize / 4);
                    writeln!(out, "  localparam logic [{top}:0] {name}_{row} = {bits}'h{value:0digits$x};")?;
                }
                Constant::Field { offset, octets } => {
                    writeln!(out, "  localparam int {name}_{row}_OFFSET = {offset};")?;
                    writeln!(out, "  localparam int {name}_{row}_OCTETS = {octets};")?;
                }
            }
        }
    }
    writeln!(out, "endpackage")
}
