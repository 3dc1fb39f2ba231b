//! What `pcap` does with one packet: which SA takes it, and its way through driver and NIC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cryptonic_driver::{
    FlowLabel, Nic, OuterHeader, Protection, PspDeviceKeys, PspTransmit, QueueError, QueuePair,
    QueuePairOptions, ReceivedProtocol, SaConfiguration, SaHandle, Salt, SecretKey, SourcePort, Status,
    TransmitPacket,
};
use cryptonic_hwmodel::Parameters;
use cryptonic_regs::admin::{DfPolicy, Direction};
use cryptonic_regs::descriptor::SourcePortPolicy;
use cryptonic_wire::ethernet;
use cryptonic_wire::packet::{self, Plain};

use crate::device::{self, DeviceName, Wire};
use crate::error::{Error, Result};
use crate::sa_file::{DefaultAction, Dscp, Esp, Protocol, PspSa, Sa, SaFile};

/// The UDP port of PSP.
const PSP_UDP_PORT: u16 = 1000;
/// PSP versions 0 and 1.
const PSP_VERSIONS: u8 = 0b11;
/// The largest frame that a NIC can be asked for.
const FRAME_BYTES: u64 = 16_383;
const BUFFER_BYTES: u32 = 16_384;
const SLOTS: u32 = 16;

/// Bytes of an Ethernet header before its tags and its EtherType.
const ETHERNET_ADDRESSES: usize = 12;

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It left or entered with this frame.
    Out(&'static str, Vec<u8>),
    /// It passes as it was.
    Unchanged(&'static str),
    /// It does not come out.
    Dropped(&'static str),
    /// It vanished: a fault of ours.
    Lost,
}

/// The packet was protected.
pub(crate) const PROTECTED: &str = "protected";
/// The packet was opened.
pub(crate) const OPENED: &str = "opened";
/// No SA took the packet, and `default` is `pass`.
pub(crate) const PASSED: &str = "passed";
/// No SA took the packet, and `default` is `drop`.
pub(crate) const DROPPED_BY_DEFAULT: &str = "dropped_by_default";
/// The packet is clear where the selector of an `in` SA demands protection.
pub(crate) const CLEAR_REFUSED: &str = "clear_refused";
/// The opened packet is not what the selector of its SA lets out.
pub(crate) const SELECTOR_MISMATCH: &str = "selector_mismatch";

/// A NIC with its queue pair and its wire side.
struct Station {
    nic: Nic,
    queue: QueuePair,
    wire: Wire,
}

/// An SA of the file as it is installed.
enum Installed {
    Esp { handle: SaHandle },
    Psp { station: usize, transmit: PspTransmit, next_iv: Option<u64> },
}

/// The SAs of a file, installed and ready.
pub(crate) struct Gate<'a> {
    file: &'a SaFile,
    stations: Vec<Station>,
    installed: Vec<Installed>,
    receives_psp: bool,
    receives: bool,
}

/// Where an SA got to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Advanced {
    /// ESP: last sequence number used or highest accepted.
    Sequence(u64),
    /// PSP: the next IV, if the file gave one.
    Iv(Option<u64>),
}

impl<'a> Gate<'a> {
    /// Opens the device and installs every SA.
    pub(crate) fn new(name: &DeviceName, file: &'a SaFile, seed: u64) -> Result<Gate<'a>> {
        let mut parameters = Parameters::default();
        parameters.capacity.frame_bytes = FRAME_BYTES;
        parameters.capacity.sa_slots = parameters.capacity.sa_slots.max(file.sas.len() as u64);
        let station = |number: u64| Station::open(name, &parameters, seed.wrapping_add(number));
        let mut stations = vec![station(0)?];
        let receives_psp = file.psp.as_ref().is_some_and(|psp| psp.receive);
        if let Some(psp) = &file.psp {
            let nic = &mut stations[0].nic;
            match &psp.device_keys {
                Some([first, second]) => {
                    nic.psp_test_keys_load(PspDeviceKeys::new(&first.0, &second.0))
                        .map_err(refused("psp"))?;
                }
                None => drop(nic.psp_rotate().map_err(refused("psp"))?),
            }
            let versions = if psp.receive { PSP_VERSIONS } else { 0 };
            nic.psp_receive(versions, PSP_UDP_PORT).map_err(refused("psp"))?;
        }
        let mut installed = Vec::with_capacity(file.sas.len());
        for (index, sa) in file.sas.iter().enumerate() {
            let place = format!("{}: sa \"{}\"", sa.place, sa.name);
            installed.push(match &sa.protocol {
                Protocol::Esp(esp) => {
                    let configuration = esp_configuration(sa, esp, index as u32 + 1)?;
                    let handle = stations[0].nic.install_sa(configuration).map_err(refused(&place))?;
                    Installed::Esp { handle }
                }
                Protocol::Psp(psp) => {
                    // IVs are of a device, not of an SA: an SA whose IVs are given has a device of its own.
                    let station_of_sa = if let Some(iv) = psp.iv {
                        let mut own = station(index as u64 + 1)?;
                        own.nic.psp_test_iv_load(iv).map_err(refused(&place))?;
                        stations.push(own);
                        stations.len() - 1
                    } else {
                        0
                    };
                    let transmit = psp_transmit(sa.spi, psp, &mut stations[station_of_sa].queue, &place)?;
                    Installed::Psp { station: station_of_sa, transmit, next_iv: psp.iv }
                }
            });
        }
        for station in &stations {
            station.wire.settle();
        }
        let receives = receives_psp || file.sas.iter().any(|sa| sa.direction == Direction::In);
        Ok(Gate { file, stations, installed, receives_psp, receives })
    }

    /// Takes one Ethernet frame through. More VLAN tags than the NIC knows go around it: they are put back.
    pub(crate) fn push(&mut self, frame: &[u8]) -> Result<Outcome> {
        let tags = tag_bytes(frame);
        if tags <= ethernet::MAX_TAGS * ethernet::TAG_LENGTH {
            return self.push_known(frame);
        }
        let (addresses, rest) = frame.split_at(ETHERNET_ADDRESSES);
        let (tags, rest) = rest.split_at(tags);
        let untagged = [addresses, rest].concat();
        Ok(match self.push_known(&untagged)? {
            Outcome::Out(verdict, frame) if frame.len() >= ETHERNET_ADDRESSES => {
                let (addresses, rest) = frame.split_at(ETHERNET_ADDRESSES);
                Outcome::Out(verdict, [addresses, tags, rest].concat())
            }
            outcome => outcome,
        })
    }

    fn push_known(&mut self, frame: &[u8]) -> Result<Outcome> {
        let received = packet::parse_receive(frame, packet::UdpPorts { psp: PSP_UDP_PORT, esp: 0 });
        let protected = match received {
            Ok(parsed) => parsed.protocol != packet::Protocol::Other,
            Err(_) => false,
        };
        if let Ok(parsed) = &received
            && self.opens(parsed)
        {
            return self.open(frame);
        }
        let Ok(plain) = packet::parse_transmit(frame) else {
            // Whether an SA is due cannot be told from a broken frame, so it does not pass. The NIC says why.
            return self.open(frame);
        };
        if plain.ip_version != 0 {
            let (source, destination) = addresses(&plain);
            let taken_by = |direction: Direction| {
                self.file
                    .sas
                    .iter()
                    .position(|sa| sa.direction == direction && sa.selector.matches(source, destination))
            };
            if let Some(index) = taken_by(Direction::Out) {
                return self.protect(index, frame);
            }
            if received.is_err() && self.receives {
                return self.open(frame);
            }
            let due = self.file.sas.iter().any(|sa| {
                sa.direction == Direction::In
                    && !sa.selector.is_all()
                    && sa.selector.matches(source, destination)
            });
            if due {
                return if protected { self.open(frame) } else { Ok(Outcome::Dropped(CLEAR_REFUSED)) };
            }
        }
        Ok(match self.file.default {
            DefaultAction::Pass => Outcome::Unchanged(PASSED),
            DefaultAction::Drop => Outcome::Dropped(DROPPED_BY_DEFAULT),
        })
    }

    /// Whether an `in` SA, or PSP, takes a packet.
    fn opens(&self, parsed: &packet::Parsed) -> bool {
        match parsed.protocol {
            packet::Protocol::Other | packet::Protocol::NatKeepalive => false,
            packet::Protocol::Psp => self.receives_psp,
            packet::Protocol::Esp => {
                let (_, destination) = addresses(&parsed.plain);
                self.file.sas.iter().any(|sa| {
                    sa.direction == Direction::In
                        && sa.spi == parsed.spi
                        && sa.destination().is_none_or(|wanted| wanted == destination)
                })
            }
        }
    }

    fn protect(&mut self, index: usize, frame: &[u8]) -> Result<Outcome> {
        let (station, protection) = match &self.installed[index] {
            Installed::Esp { handle } => (0, Protection::Sa(*handle)),
            Installed::Psp { station, transmit, .. } => (*station, Protection::PspKey(*transmit)),
        };
        let Station { queue, wire, .. } = &mut self.stations[station];
        let mut buffer = queue.take_buffer().ok_or_else(|| device_error("no transmit buffer is free"))?;
        match queue.fill(&mut buffer, frame) {
            Ok(()) => {}
            Err(QueueError::TooLong { .. }) => {
                queue.give_back(buffer).map_err(device_error)?;
                return Ok(Outcome::Dropped(Status::TooLong.name()));
            }
            Err(error) => return Err(device_error(error)),
        }
        let mut batch = vec![TransmitPacket { report: true, ..TransmitPacket::new(buffer, protection, 0) }];
        queue.transmit(&mut batch).map_err(device_error)?;
        wire.settle();
        let mut completed = Vec::new();
        queue.completed(&mut completed).map_err(device_error)?;
        let mut sent = wire.take_sent();
        let [ended] = completed.as_slice() else { return Ok(Outcome::Lost) };
        if ended.status != Status::Ok {
            // Whatever came out with it is not ours to write.
            return Ok(if sent.is_empty() { Outcome::Dropped(ended.status.name()) } else { Outcome::Lost });
        }
        if let Installed::Psp { next_iv: Some(next), .. } = &mut self.installed[index] {
            *next = ended.sequence.wrapping_add(1);
        }
        match (sent.pop(), sent.is_empty()) {
            (Some(frame), true) => Ok(Outcome::Out(PROTECTED, frame)),
            _ => Ok(Outcome::Lost),
        }
    }

    fn open(&mut self, frame: &[u8]) -> Result<Outcome> {
        let Station { queue, wire, .. } = &mut self.stations[0];
        wire.inject(frame);
        wire.settle();
        let mut received = Vec::new();
        queue.receive(&mut received, 2).map_err(device_error)?;
        let drops = wire.take_drops();
        let Some(packet) = received.pop() else {
            return Ok(drops.first().map_or(Outcome::Lost, |status| Outcome::Dropped(status.name())));
        };
        let (status, protocol, cookie) = (packet.status(), packet.protocol(), packet.cookie());
        let mut opened = vec![0; packet.length()];
        queue.copy_out(packet, &mut opened).map_err(device_error)?;
        if status != Status::Ok {
            return Ok(Outcome::Dropped(status.name()));
        }
        match protocol {
            // What the NIC takes for clear is judged by `push`, not here.
            ReceivedProtocol::Clear => Ok(Outcome::Dropped(CLEAR_REFUSED)),
            ReceivedProtocol::Psp => Ok(Outcome::Out(OPENED, opened)),
            ReceivedProtocol::Esp => {
                let sa = (cookie as usize).checked_sub(1).and_then(|index| self.file.sas.get(index));
                let lets_out = sa.is_some_and(|sa| {
                    sa.selector.is_all()
                        || packet::parse_transmit(&opened).is_ok_and(|plain| {
                            let (source, destination) = addresses(&plain);
                            plain.ip_version != 0 && sa.selector.matches(source, destination)
                        })
                });
                Ok(if lets_out { Outcome::Out(OPENED, opened) } else { Outcome::Dropped(SELECTOR_MISMATCH) })
            }
        }
    }

    /// Where each SA of the file got to.
    pub(crate) fn advanced(&mut self) -> Result<Vec<Advanced>> {
        let nic = &mut self.stations[0].nic;
        self.installed
            .iter()
            .map(|installed| match installed {
                Installed::Esp { handle } => {
                    Ok(Advanced::Sequence(nic.query_sa(*handle).map_err(device_error)?.sequence))
                }
                Installed::Psp { next_iv, .. } => Ok(Advanced::Iv(*next_iv)),
            })
            .collect()
    }
}

impl Station {
    fn open(name: &DeviceName, parameters: &Parameters, seed: u64) -> Result<Station> {
        let opened = device::open(name, parameters, seed)?;
        let mut nic = opened.nic;
        let wire = opened.wire.ok_or_else(|| device_error("has no wire side that a capture could use"))?;
        let options = QueuePairOptions {
            stride: 64,
            transmit_slots: SLOTS,
            receive_slots: SLOTS,
            buffer_bytes: BUFFER_BYTES,
            ..QueuePairOptions::default()
        };
        let queue = nic.create_queue_pair(options).map_err(device_error)?;
        Ok(Station { nic, queue, wire })
    }
}

/// Bytes of the VLAN tags of a frame.
fn tag_bytes(frame: &[u8]) -> usize {
    let mut bytes = 0;
    while let Some([high, low]) = frame.get(ETHERNET_ADDRESSES + bytes..ETHERNET_ADDRESSES + bytes + 2)
        && ethernet::is_tag(u16::from_be_bytes([*high, *low]))
        && frame.len() >= ETHERNET_ADDRESSES + bytes + ethernet::TAG_LENGTH
    {
        bytes += ethernet::TAG_LENGTH;
    }
    bytes
}

fn device_error(error: impl std::fmt::Display) -> Error {
    Error::at("device", error)
}

/// An error of the driver or the device about something in the file.
fn refused<E: std::fmt::Display>(place: &str) -> impl Fn(E) -> Error {
    let place = place.to_owned();
    move |error| Error::at(&place, error)
}

fn secret_key(bytes: &[u8], place: &str) -> Result<SecretKey> {
    SecretKey::new(bytes).ok_or_else(|| Error::at(place, "a key of this length"))
}

fn esp_configuration(sa: &Sa, esp: &Esp, cookie: u32) -> Result<SaConfiguration> {
    let mut salt = Salt([0; 4]);
    salt.0.iter_mut().zip(esp.salt.expose()).for_each(|(to, from)| *to = *from);
    let outbound = sa.direction == Direction::Out;
    let outer = esp.tunnel.as_ref().filter(|_| outbound).map(|tunnel| OuterHeader {
        ttl: Some(tunnel.ttl),
        // An IPv6 header has no such bit.
        df: if tunnel.source.is_ipv4() { tunnel.df } else { DfPolicy::Copy },
        dscp: match tunnel.dscp {
            Dscp::Copy => None,
            Dscp::Set(dscp) => Some(dscp),
        },
        flow_label: FlowLabel::Fixed(tunnel.flow_label),
        ..OuterHeader::new(tunnel.source, tunnel.destination)
    });
    let key = secret_key(esp.key.expose(), &sa.place)?;
    Ok(SaConfiguration {
        esn: esp.esn,
        sequence: esp.sequence,
        replay_window: if outbound { 0 } else { esp.replay_window },
        destination: sa.destination().filter(|_| !outbound),
        outer,
        cookie,
        ..SaConfiguration::new(sa.direction, esp.mode, esp.cipher, key, salt, sa.spi)
    })
}

fn psp_transmit(spi: u32, psp: &PspSa, queue: &mut QueuePair, place: &str) -> Result<PspTransmit> {
    let key = secret_key(psp.key.expose(), place)?;
    let id = queue.add_psp_key(psp.version, spi, &key).map_err(refused(place))?;
    let source_port = match psp.source_port_policy {
        SourcePortPolicy::Entropy => SourcePort::Entropy,
        SourcePortPolicy::PortsXor => SourcePort::PortsXor,
        SourcePortPolicy::Fixed => SourcePort::Fixed(psp.source_port),
        SourcePortPolicy::Table => SourcePort::Table,
    };
    Ok(PspTransmit { crypt_offset: psp.crypt_offset, source_port, ..PspTransmit::new(id) })
}

/// Source and destination of an IP packet.
pub(crate) fn addresses(plain: &Plain) -> (IpAddr, IpAddr) {
    let address = |bytes: [u8; 16]| -> IpAddr {
        if plain.ip_version == 4 {
            Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]).into()
        } else {
            Ipv6Addr::from(bytes).into()
        }
    };
    (address(plain.source), address(plain.destination))
}
