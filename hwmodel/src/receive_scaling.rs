//! What is found out about a packet as it is delivered: its checksums, its Toeplitz hash, and by that its queue pair.

use cryptonic_regs::bar0::{self, RECEIVE_SCALING_KEY_WORDS, RECEIVE_SCALING_TABLE_WORDS};
use cryptonic_regs::completion::{ChecksumState, HashKind, ReceivedProtocol};
use cryptonic_wire::ip::protocol;
use cryptonic_wire::l4_checksum::{Checked, check_ipv4_checksum, check_l4_checksum};
use cryptonic_wire::toeplitz::{KEY_LENGTH, Toeplitz, With};
use cryptonic_wire::{Parsed, Plain, parse_transmit};

use crate::nic::Nic;
use crate::packet::Packet;

/// The registers of the steering block.
pub(crate) struct ReceiveScaling {
    control: bar0::ReceiveScaling,
    key: [u32; RECEIVE_SCALING_KEY_WORDS as usize],
    table: [u32; RECEIVE_SCALING_TABLE_WORDS as usize],
    /// The key, expanded; made when the first packet needs it.
    toeplitz: Option<Box<Toeplitz>>,
}

impl Default for ReceiveScaling {
    fn default() -> Self {
        ReceiveScaling {
            control: bar0::ReceiveScaling::new(),
            key: [0; RECEIVE_SCALING_KEY_WORDS as usize],
            table: [0; RECEIVE_SCALING_TABLE_WORDS as usize],
            toeplitz: None,
        }
    }
}

impl ReceiveScaling {
    /// A register of the block.
    pub(crate) fn read(&self, offset: u32) -> Option<u32> {
        if offset == bar0::RECEIVE_SCALING.offset {
            return Some(self.control.into_bits());
        }
        word_of(offset, bar0::RECEIVE_SCALING_KEY.offset, &self.key)
            .or_else(|| word_of(offset, bar0::RECEIVE_SCALING_TABLE.offset, &self.table))
            .copied()
    }

    /// Writes a register of the block. Says whether there is one.
    pub(crate) fn write(&mut self, offset: u32, value: u32) -> bool {
        if offset == bar0::RECEIVE_SCALING.offset {
            let written = bar0::ReceiveScaling::from_bits(value);
            self.control = bar0::ReceiveScaling::new()
                .with_enable(written.enable())
                .with_tcp_ports(written.tcp_ports())
                .with_udp_ports(written.udp_ports())
                .with_spi(written.spi())
                .with_table_log2(written.table_log2());
            return true;
        }
        let key =
            index_of(offset, bar0::RECEIVE_SCALING_KEY.offset).and_then(|index| self.key.get_mut(index));
        if let Some(word) = key {
            *word = value;
            self.toeplitz = None;
            return true;
        }
        let entries =
            index_of(offset, bar0::RECEIVE_SCALING_TABLE.offset).and_then(|index| self.table.get_mut(index));
        entries.map(|word| *word = value).is_some()
    }

    /// Hash and kind of a packet; `spi` is that of one that was not opened.
    fn hash(&mut self, plain: &Plain, spi: Option<u32>) -> (u32, HashKind) {
        let (addresses, tcp, udp) = match plain.ip_version {
            4 => (HashKind::Ipv4, HashKind::Ipv4Tcp, HashKind::Ipv4Udp),
            6 => (HashKind::Ipv6, HashKind::Ipv6Tcp, HashKind::Ipv6Udp),
            _ => return (0, HashKind::None),
        };
        let (with, kind) = match (spi, plain.next_header) {
            (Some(spi), _) if self.control.spi() => (With::Spi(spi), HashKind::Spi),
            (None, protocol::TCP) if self.control.tcp_ports() && has_ports(plain) => (With::Ports, tcp),
            (None, protocol::UDP) if self.control.udp_ports() && has_ports(plain) => (With::Ports, udp),
            _ => (With::Addresses, addresses),
        };
        let key = &self.key;
        let toeplitz = self.toeplitz.get_or_insert_with(|| {
            let mut bytes = [0; KEY_LENGTH];
            for (bytes, word) in bytes.chunks_exact_mut(4).zip(key) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            Box::new(Toeplitz::new(&bytes))
        });
        (toeplitz.hash_packet(plain, with), kind)
    }

    /// The queue pair of a hash.
    fn queue(&self, hash: u32) -> u16 {
        let entry = hash & ((1 << self.control.table_log2()) - 1);
        let word = self.table.get(entry as usize / 4).copied().unwrap_or(0);
        u16::from(word.to_le_bytes()[entry as usize % 4])
    }
}

impl Nic {
    /// Judges the checksum of the UDP header that a packet to be opened came in; the lanes change what is behind it.
    #[inline]
    pub(crate) fn judge_outer(&self, packet: &mut Packet, parsed: &Parsed) {
        let Some(udp) = parsed.udp_offset else { return };
        // No checksum is allowed for tunnels over IPv6 as well (RFC 6935 5).
        let none = packet.frame().get(udp + 6..udp + 8).is_none_or(|checksum| *checksum == [0, 0]);
        if !none {
            packet.received.checksums.outer = state(check_l4_checksum(packet.frame(), &parsed.plain));
        }
    }

    /// Judges the checksums of a packet that is to be delivered and chooses its queue pair, if no SA did.
    #[inline]
    pub(crate) fn judge_delivered(&mut self, packet: &mut Packet) {
        let Some(parsed) = &packet.parsed else { return };
        let opened = packet.protocol != ReceivedProtocol::Clear;
        let inner = opened.then(|| parse_transmit(packet.frame()));
        let plain = match &inner {
            None => &parsed.plain,
            Some(Ok(plain)) => plain,
            // What is no IP packet has no checksums and no hash; it goes where its SA says, or to the first.
            Some(Err(_)) => return,
        };
        let (behind_a_nat, reserved_esp_spi) = (behind_a_nat(packet, parsed), parsed.reserved_esp_spi);
        packet.received.checksums.ip = state(check_ipv4_checksum(packet.frame(), plain));
        if !behind_a_nat {
            packet.received.checksums.l4 = state(check_l4_checksum(packet.frame(), plain));
        }
        if self.receive.scaling.control.enable() {
            let spi = if reserved_esp_spi { esp_spi(packet.frame(), plain) } else { None };
            let (hash, kind) = self.receive.scaling.hash(plain, spi);
            packet.received.hash = hash;
            packet.received.hash_kind = kind.number() as u8;
            if packet.received.scaling && kind != HashKind::None {
                packet.received.queue = self.receive.scaling.queue(hash);
            }
        }
    }
}

/// Whether the packet's addresses may have changed under its checksum: ESP in UDP, and not a tunnel (RFC 3948 3.1.2).
fn behind_a_nat(packet: &Packet, parsed: &Parsed) -> bool {
    packet.protocol == ReceivedProtocol::Esp
        && parsed.udp_offset.is_some()
        && !matches!(packet.received.next_header, protocol::IPV4 | protocol::IPV6)
}

/// The SPI of an ESP packet that was not opened.
fn esp_spi(frame: &[u8], plain: &Plain) -> Option<u32> {
    let bytes = frame.get(plain.l4_offset()..)?.first_chunk::<4>()?;
    (plain.next_header == protocol::ESP).then(|| u32::from_be_bytes(*bytes))
}

fn has_ports(plain: &Plain) -> bool {
    plain.ports.is_some() && !plain.fragment
}

fn state(checked: Checked) -> u8 {
    let state = match checked {
        Checked::NotChecked => ChecksumState::NotChecked,
        Checked::Good => ChecksumState::Good,
        Checked::Bad => ChecksumState::Bad,
    };
    state.number() as u8
}

fn index_of(offset: u32, first: u32) -> Option<usize> {
    offset.checked_sub(first).filter(|past| past.is_multiple_of(4)).map(|past| past as usize / 4)
}

fn word_of(offset: u32, first: u32, words: &[u32]) -> Option<&u32> {
    index_of(offset, first).and_then(|index| words.get(index))
}

/// The table of UDP source ports of PSP.
pub(crate) struct SourcePorts([u32; PSP_SOURCE_PORT_WORDS]);

const PSP_SOURCE_PORT_WORDS: usize = 8;

impl Default for SourcePorts {
    fn default() -> Self {
        let entry = |number: u32| 49_152 + 1_024 * number;
        SourcePorts(std::array::from_fn(|word| entry(2 * word as u32) | entry(2 * word as u32 + 1) << 16))
    }
}

impl SourcePorts {
    /// The port of a flow's hash.
    pub(crate) fn port(&self, hash: u64) -> u16 {
        let entry = hash as usize % (2 * PSP_SOURCE_PORT_WORDS);
        let word = self.0.get(entry / 2).copied().unwrap_or(0);
        (word >> (16 * (entry % 2))) as u16
    }

    /// The word at an offset of BAR0.
    pub(crate) fn read(&self, offset: u32) -> Option<u32> {
        word_of(offset, bar0::PSP_SOURCE_PORTS.offset, &self.0).copied()
    }

    /// Writes the word at an offset of BAR0. Says whether there is one.
    pub(crate) fn write(&mut self, offset: u32, value: u32) -> bool {
        index_of(offset, bar0::PSP_SOURCE_PORTS.offset)
            .and_then(|index| self.0.get_mut(index))
            .map(|word| *word = value)
            .is_some()
    }
}
