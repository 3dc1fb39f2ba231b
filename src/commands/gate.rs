//! What `pcap` does with one packet: which SA takes it, and its way through driver and NIC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cryptonic_driver::{
    Nic, Protection, PspDeviceKeys, PspSaConfiguration, PspTransmit, QueueError, QueuePair, QueuePairOptions,
    ReceivedProtocol, SaConfiguration, SaHandle, Salt, SecretKey, Status, TransmitPacket,
};
use cryptonic_hwmodel::Parameters;
use cryptonic_regs::admin::{Direction, Mode};
use cryptonic_regs::events::SlotState;
use cryptonic_wire::ethernet;
use cryptonic_wire::packet::{self, Plain, UdpPorts};

use crate::device::{self, DeviceName, Wire};
use crate::error::{Error, Result};
use crate::sa_file::{DefaultAction, Esp, PSP_UDP_PORT, Protocol, PspSa, Receive, Sa, SaFile};

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
    /// It vanished, or came out as what it must not be: a fault of ours.
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

/// A NIC with its queue pair and its wire side.
struct Station {
    nic: Nic,
    queue: QueuePair,
    wire: Wire,
}

/// An SA of the file as it is installed.
struct Installed {
    station: usize,
    /// None for an inbound SA.
    protection: Option<Protection>,
    progress: Progress,
}

/// What an installed SA counts.
struct Progress {
    /// Its slot; none for a key that travels in descriptors.
    handle: Option<SaHandle>,
    /// PSP: the next IV, if the file gave one.
    iv: Option<u64>,
}

/// The SAs of a file, installed and ready.
pub(crate) struct Gate<'a> {
    file: &'a SaFile,
    stations: Vec<Station>,
    /// The queue pair of the first NIC whose packets leave in clear, if any may.
    clear: Option<QueuePair>,
    installed: Vec<Installed>,
    ports: UdpPorts,
    receives_psp: bool,
    /// Whether anything is opened.
    receives: bool,
    /// Whether an inbound SA says what must not come in clear.
    refuses: bool,
}

/// Where an SA got to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advanced {
    /// ESP: last sequence number used or highest accepted.
    pub(crate) sequence: Option<u64>,
    /// PSP: the next IV, if the file gave one.
    pub(crate) iv: Option<u64>,
    /// Where it has a lifetime: how much of that is used, and the state of its slot.
    pub(crate) life: Option<(u64, SlotState)>,
}

impl<'a> Gate<'a> {
    /// Opens the device and installs every SA.
    pub(crate) fn new(name: &DeviceName, file: &'a SaFile, seed: u64) -> Result<Gate<'a>> {
        let mut parameters = Parameters::default();
        parameters.capacity.frame_bytes = FRAME_BYTES;
        // Half of the slots are of either kind, and each SA may be of the same.
        parameters.capacity.sa_packet_slots_percent = 50;
        parameters.capacity.sa_slots = parameters.capacity.sa_slots.max(2 * file.sas.len() as u64);
        let station = |number: u64| Station::open(name, &parameters, seed.wrapping_add(number));
        let mut first = station(0)?;
        let receives_psp = first.receive_psp(file)?;
        let ports = UdpPorts { psp: PSP_UDP_PORT, esp: file.esp_udp_port.unwrap_or(0) };
        if first.nic.information().capabilities.protocol.udp_encapsulation() {
            first.nic.set_esp_udp_port(file.esp_udp_port).map_err(device_error)?;
        }
        let clear = match file.default {
            DefaultAction::Pass => Some(first.queue_pair(true)?),
            DefaultAction::Drop => None,
        };
        let mut stations = vec![first];
        let mut installed = Vec::with_capacity(file.sas.len());
        for (index, sa) in file.sas.iter().enumerate() {
            let place = format!("{}: sa \"{}\"", sa.place, sa.name);
            let mut at = 0;
            if let Protocol::Psp(PspSa { iv: Some(iv), .. }) = sa.protocol {
                // IVs are of a device, not of an SA: an SA whose IVs are given has a device of its own.
                let mut own = station(index as u64 + 1)?;
                own.nic.psp_test_iv_load(iv).map_err(refused(&place))?;
                at = stations.len();
                stations.push(own);
            }
            let (protection, progress) = stations[at].install(sa, index as u32 + 1, &place)?;
            installed.push(Installed { station: at, protection, progress });
        }
        for station in &stations {
            station.wire.settle();
        }
        let mut inbound = file.sas.iter().filter(|sa| sa.direction == Direction::In);
        let receives = receives_psp || inbound.clone().next().is_some();
        let refuses = inbound.any(|sa| !sa.selector.is_all());
        Ok(Gate { file, stations, clear, installed, ports, receives_psp, receives, refuses })
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
        let received = packet::parse_receive(frame, self.ports);
        let protected = received
            .as_ref()
            .is_ok_and(|parsed| matches!(parsed.protocol, packet::Protocol::Esp | packet::Protocol::Psp));
        if let Ok(parsed) = &received
            && self.opens(parsed)
        {
            return self.enter(frame, true);
        }
        let Ok(plain) = packet::parse_transmit(frame) else {
            // Whether an SA is due cannot be told from a broken frame, so it does not pass. The NIC says why.
            return self.enter(frame, true);
        };
        let outbound = |sa: &Sa| sa.direction == Direction::Out && sa.selector.matches(&plain);
        if let Some(index) = self.file.sas.iter().position(outbound) {
            return self.protect(index, frame);
        }
        if received.is_err() && self.receives {
            return self.enter(frame, true);
        }
        // A packet that is protected for somebody else is not taken for clear, unless it is one that an SA is due for.
        let inbound =
            |sa: &Sa| sa.direction == Direction::In && !sa.selector.is_all() && sa.selector.matches(&plain);
        let enters = self.receives && (!protected || self.file.sas.iter().any(inbound));
        let too_long = frame.len() as u64 > FRAME_BYTES && !self.refuses;
        let outcome = match self.file.default {
            _ if enters && !too_long => self.enter(frame, false)?,
            DefaultAction::Pass if too_long => Outcome::Unchanged(PASSED),
            DefaultAction::Pass => self.leave_in_clear(frame)?,
            DefaultAction::Drop => Outcome::Dropped(DROPPED_BY_DEFAULT),
        };
        Ok(match (self.file.default, outcome) {
            (DefaultAction::Drop, Outcome::Unchanged(_)) => Outcome::Dropped(DROPPED_BY_DEFAULT),
            (_, outcome) => outcome,
        })
    }

    /// Whether an `in` SA, or PSP, takes a packet.
    fn opens(&self, parsed: &packet::Parsed) -> bool {
        match parsed.protocol {
            packet::Protocol::Other
            | packet::Protocol::NatKeepalive
            | packet::Protocol::Wespv2
            | packet::Protocol::Eesp => false,
            packet::Protocol::Psp => self.receives_psp,
            packet::Protocol::Esp => {
                let (_, destination) = addresses(&parsed.plain);
                self.file.sas.iter().any(|sa| {
                    let Protocol::Esp(esp) = &sa.protocol else { return false };
                    sa.direction == Direction::In
                        && sa.spi == parsed.spi
                        && sa.destination().is_none_or(|wanted| wanted == destination)
                        && esp.encapsulation.is_some() == parsed.udp_offset.is_some()
                })
            }
        }
    }

    /// A frame leaves by an outbound SA.
    fn protect(&mut self, index: usize, frame: &[u8]) -> Result<Outcome> {
        let Installed { station, protection, progress } = &mut self.installed[index];
        let Some(protection) = *protection else { return Ok(Outcome::Lost) };
        let Station { queue, wire, .. } = &mut self.stations[*station];
        let Sent { status, sequence, frames } = send(queue, wire, protection, frame)?;
        if status != Some(Status::Ok) {
            // Whatever came out with it is not ours to write.
            let name = status.filter(|_| frames.is_empty()).map(Status::name);
            return Ok(name.map_or(Outcome::Lost, Outcome::Dropped));
        }
        if let Some(next) = &mut progress.iv {
            *next = sequence.wrapping_add(1);
        }
        let [frame]: [Vec<u8>; 1] = match frames.try_into() {
            Ok(frame) => frame,
            Err(_) => return Ok(Outcome::Lost),
        };
        Ok(Outcome::Out(PROTECTED, frame))
    }

    /// A frame leaves as it is.
    fn leave_in_clear(&mut self, frame: &[u8]) -> Result<Outcome> {
        let Some(queue) = &mut self.clear else { return Ok(Outcome::Lost) };
        let Sent { status, frames, .. } = send(queue, &self.stations[0].wire, Protection::Clear, frame)?;
        match (status, frames.as_slice()) {
            // A line pads what is too short for it; the capture did not.
            (Some(Status::Ok), [sent])
                if sent.strip_prefix(frame).is_some_and(|padding| padding.iter().all(|byte| *byte == 0)) =>
            {
                Ok(Outcome::Unchanged(PASSED))
            }
            (Some(status), []) if status != Status::Ok => Ok(Outcome::Dropped(status.name())),
            _ => Ok(Outcome::Lost),
        }
    }

    /// A frame comes in; `protected` says that it must not come in clear.
    fn enter(&mut self, frame: &[u8], protected: bool) -> Result<Outcome> {
        let Station { queue, wire, .. } = &mut self.stations[0];
        wire.inject(frame);
        wire.settle();
        let mut received = Vec::new();
        queue.receive(&mut received, 2).map_err(device_error)?;
        let drops = wire.take_drops();
        let Some(packet) = received.pop() else {
            return Ok(drops.first().map_or(Outcome::Lost, |status| Outcome::Dropped(status.name())));
        };
        let (status, protocol) = (packet.status(), packet.protocol());
        let mut opened = vec![0; packet.length()];
        queue.copy_out(packet, &mut opened).map_err(device_error)?;
        Ok(match protocol {
            _ if !received.is_empty() => Outcome::Lost,
            _ if status != Status::Ok => Outcome::Dropped(status.name()),
            ReceivedProtocol::Clear if !protected && opened == frame => Outcome::Unchanged(PASSED),
            ReceivedProtocol::Clear => Outcome::Lost,
            ReceivedProtocol::Esp | ReceivedProtocol::Psp => Outcome::Out(OPENED, opened),
        })
    }

    /// Where each SA of the file got to.
    pub(crate) fn advanced(&mut self) -> Result<Vec<Advanced>> {
        self.installed
            .iter()
            .zip(&self.file.sas)
            .map(|(installed, sa)| {
                let Progress { handle, iv } = installed.progress;
                let nic = &mut self.stations[installed.station].nic;
                let state = handle.map(|handle| nic.query_sa(handle)).transpose().map_err(device_error)?;
                let esp = matches!(sa.protocol, Protocol::Esp(_));
                Ok(Advanced {
                    sequence: state.as_ref().filter(|_| esp).map(|state| state.sequence),
                    iv,
                    life: sa.lifetime.zip(state.as_ref()).map(|(lifetime, state)| {
                        (lifetime.count_of(state.packets, state.bytes), state.state)
                    }),
                })
            })
            .collect()
    }
}

/// What came of a frame that the driver was given.
struct Sent {
    /// `None` if the driver never heard of it again.
    status: Option<Status>,
    sequence: u64,
    /// What the wire saw.
    frames: Vec<Vec<u8>>,
}

/// Sends a frame, and waits until all is done.
fn send(queue: &mut QueuePair, wire: &Wire, protection: Protection, frame: &[u8]) -> Result<Sent> {
    let mut buffer = queue.take_buffer().ok_or_else(|| device_error("no transmit buffer is free"))?;
    match queue.fill(&mut buffer, frame) {
        Ok(()) => {}
        Err(QueueError::TooLong { .. }) => {
            queue.give_back(buffer).map_err(device_error)?;
            return Ok(Sent { status: Some(Status::TooLong), sequence: 0, frames: Vec::new() });
        }
        Err(error) => return Err(device_error(error)),
    }
    let mut batch = vec![TransmitPacket { report: true, ..TransmitPacket::new(buffer, protection, 0) }];
    queue.transmit(&mut batch).map_err(device_error)?;
    wire.settle();
    let mut completed = Vec::new();
    queue.completed(&mut completed).map_err(device_error)?;
    let (status, sequence) = match completed.as_slice() {
        [ended] => (Some(ended.status), ended.sequence),
        _ => (None, 0),
    };
    Ok(Sent { status, sequence, frames: wire.take_sent() })
}

impl Station {
    fn open(name: &DeviceName, parameters: &Parameters, seed: u64) -> Result<Station> {
        name.model("pcap")?;
        let opened = device::open(name, parameters, seed)?;
        let mut nic = opened.nic;
        let wire = opened.wire.ok_or_else(|| device_error("has no wire side that a capture could use"))?;
        let queue = nic.create_queue_pair(queue_options(false)).map_err(device_error)?;
        Ok(Station { nic, queue, wire })
    }

    fn queue_pair(&mut self, clear_allowed: bool) -> Result<QueuePair> {
        self.nic.create_queue_pair(queue_options(clear_allowed)).map_err(device_error)
    }

    /// Sets up what `[psp]` says. Gives whether PSP is opened.
    fn receive_psp(&mut self, file: &SaFile) -> Result<bool> {
        let Some(psp) = &file.psp else { return Ok(false) };
        match &psp.device_keys {
            Some([first, second]) => {
                let keys = PspDeviceKeys::new(&first.0, &second.0);
                self.nic.psp_test_keys_load(keys).map_err(refused("psp"))?;
            }
            None => drop(self.nic.psp_rotate().map_err(refused("psp"))?),
        }
        let versions = match psp.receive {
            Receive::All => self.nic.information().capabilities.protocol.psp_versions(),
            Receive::These(versions) => versions,
        };
        self.nic.psp_receive(versions, PSP_UDP_PORT).map_err(refused("psp"))?;
        Ok(versions != 0)
    }

    fn install(&mut self, sa: &Sa, cookie: u32, place: &str) -> Result<(Option<Protection>, Progress)> {
        match &sa.protocol {
            Protocol::Esp(esp) => {
                let handle =
                    self.nic.install_sa(esp_configuration(sa, esp, cookie)?).map_err(refused(place))?;
                let protection = (sa.direction == Direction::Out).then_some(Protection::Sa(handle));
                Ok((protection, Progress { handle: Some(handle), iv: None }))
            }
            // The S and D bits are told a packet, with its key.
            Protocol::Psp(psp) if psp.sample || psp.drop => {
                let transmit = psp_transmit(sa.spi, psp, &mut self.queue, place)?;
                Ok((Some(Protection::PspKey(transmit)), Progress { handle: None, iv: psp.iv }))
            }
            Protocol::Psp(psp) => {
                let configuration = psp_configuration(sa, psp, place)?;
                let handle = self.nic.install_psp_sa(configuration).map_err(refused(place))?;
                Ok((Some(Protection::Sa(handle)), Progress { handle: Some(handle), iv: psp.iv }))
            }
        }
    }
}

/// Slots with room for a PSP key and a cookie.
fn queue_options(clear_allowed: bool) -> QueuePairOptions {
    QueuePairOptions {
        stride: 128,
        transmit_slots: SLOTS,
        receive_slots: SLOTS,
        buffer_bytes: BUFFER_BYTES,
        clear_allowed,
        ..QueuePairOptions::default()
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
    let key = secret_key(esp.key.expose(), &sa.place)?;
    let beet = esp.mode == Mode::Beet;
    let lifetime = sa.lifetime.unwrap_or_default();
    let selector = sa.selector.of_device().filter(|_| beet || !outbound);
    Ok(SaConfiguration {
        icv_bytes: esp.icv_bytes,
        implicit_iv: esp.implicit_iv,
        esn: esp.esn,
        sequence: esp.sequence,
        replay_window: if outbound { 0 } else { esp.replay_window },
        destination: sa.destination().filter(|_| !outbound),
        outer: esp.outer.filter(|_| beet || outbound),
        encapsulation: esp.encapsulation,
        selector,
        check_selector: !outbound && selector.is_some(),
        refuse_clear: !outbound && selector.is_some(),
        protect_destination_options: outbound && esp.protect_destination_options,
        tfc_bytes: if outbound { esp.tfc_bytes } else { 0 },
        cookie,
        lifetime: lifetime.limits,
        packets: lifetime.packets(),
        bytes: lifetime.bytes(),
        ..SaConfiguration::new(sa.direction, esp.mode, esp.cipher, key, salt, sa.spi)
    })
}

fn psp_configuration(sa: &Sa, psp: &PspSa, place: &str) -> Result<PspSaConfiguration> {
    let lifetime = sa.lifetime.unwrap_or_default();
    Ok(PspSaConfiguration {
        mode: psp.mode,
        outer: psp.outer,
        crypt_offset: psp.crypt_offset,
        source_port: psp.source_port,
        virtualization_cookie: psp.virtualization_cookie,
        lifetime: lifetime.limits,
        packets: lifetime.packets(),
        bytes: lifetime.bytes(),
        ..PspSaConfiguration::new(psp.version, secret_key(psp.key.expose(), place)?, sa.spi)
    })
}

fn psp_transmit(spi: u32, psp: &PspSa, queue: &mut QueuePair, place: &str) -> Result<PspTransmit> {
    let key = secret_key(psp.key.expose(), place)?;
    let id = queue.add_psp_key(psp.version, spi, &key).map_err(refused(place))?;
    Ok(PspTransmit {
        crypt_offset: psp.crypt_offset,
        source_port: psp.source_port,
        sample: psp.sample,
        drop: psp.drop,
        cookie: psp.virtualization_cookie,
        ..PspTransmit::new(id)
    })
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
