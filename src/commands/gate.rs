//! What the NIC does with one packet of `pcap` or `gateway`: which SA takes it, and its way through driver and NIC.

mod install;
mod replace;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cryptonic_driver::{
    Protection, QueueError, QueuePair, ReceivedProtocol, SaState, Status, TransmitPacket,
};
use cryptonic_hwmodel::Parameters;
use cryptonic_pci::Time;
use cryptonic_regs::admin::{Direction, Mode};
use cryptonic_regs::events::SlotState;
use cryptonic_wire::ip::protocol;
use cryptonic_wire::packet::{self, Plain, UdpPorts};
use cryptonic_wire::{ethernet, psp};

use crate::device::{DeviceName, Wire};
use crate::error::Result;
use crate::sa_file::{DefaultAction, PSP_UDP_PORT, Protocol, Sa, SaFile};
use install::{Installed, Station, Stations, device_error};

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

/// The SAs of a file, installed and ready.
pub(crate) struct Gate {
    file: SaFile,
    stations: Stations,
    /// The queue pair of the first NIC whose packets leave in clear, if any may.
    clear: Option<QueuePair>,
    /// One for each SA of the file, in its order.
    installed: Vec<Installed>,
    rules: Rules,
}

/// What the file says of packets in general.
struct Rules {
    ports: UdpPorts,
    receives_psp: bool,
    /// Whether anything is opened.
    receives: bool,
    /// Whether an inbound SA says what must not come in clear.
    refuses: bool,
}

impl Rules {
    fn of(file: &SaFile, receives_psp: bool) -> Rules {
        let mut inbound = file.sas.iter().filter(|sa| sa.direction == Direction::In);
        Rules {
            ports: UdpPorts { psp: PSP_UDP_PORT, esp: file.esp_udp_port.unwrap_or(0) },
            receives_psp,
            receives: receives_psp || inbound.clone().next().is_some(),
            refuses: inbound.any(|sa| !sa.selector.is_all()),
        }
    }
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

impl Gate {
    /// Opens the device and installs every SA.
    pub(crate) fn new(name: &DeviceName, file: SaFile, seed: u64) -> Result<Gate> {
        let mut parameters = Parameters::default();
        parameters.capacity.frame_bytes = FRAME_BYTES;
        // Half of the slots are of either kind, and each SA may be of the same; those of a file that takes the place of this
        // one come beside them.
        parameters.capacity.sa_packet_slots_percent = 50;
        parameters.capacity.sa_slots = parameters.capacity.sa_slots.max(4 * file.sas.len() as u64);
        let mut stations = Stations::open(name, parameters, seed)?;
        let receives_psp = stations.first().receive_psp(&file)?;
        let mut clear = None;
        stations.follow(&file, &mut clear)?;
        let installed = file.sas.iter().map(|sa| stations.install(sa)).collect::<Result<_>>()?;
        stations.settle();
        Ok(Gate { rules: Rules::of(&file, receives_psp), file, stations, clear, installed })
    }

    /// The SAs.
    pub(crate) fn file(&self) -> &SaFile {
        &self.file
    }

    /// Lets the clock of a device that has been idle come up to `time`.
    pub(crate) fn pass_time(&self, time: Time) {
        self.stations.pass_time(time);
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

    /// A frame whose direction its SAs tell: it is opened if an inbound one takes it, else protected if an outbound one does.
    fn push_known(&mut self, frame: &[u8]) -> Result<Outcome> {
        let received = packet::parse_receive(frame, self.rules.ports);
        if let Ok(parsed) = &received
            && self.opens(parsed)
        {
            return self.enter(frame, true);
        }
        let Ok(plain) = packet::parse_transmit(frame) else {
            // Whether an SA is due cannot be told from a broken frame, so it does not pass. The NIC says why.
            return self.enter(frame, true);
        };
        if let Some(index) = self.outbound(&plain) {
            return self.protect(index, frame);
        }
        if received.is_err() && self.rules.receives {
            return self.enter(frame, true);
        }
        // A packet that is protected for somebody else is not taken for clear, unless it is one that an SA is due for.
        let inbound =
            |sa: &Sa| sa.direction == Direction::In && !sa.selector.is_all() && sa.selector.matches(&plain);
        let protected = received.as_ref().is_ok_and(is_protected);
        let enters = self.rules.receives && (!protected || self.file.sas.iter().any(inbound));
        let too_long = frame.len() as u64 > FRAME_BYTES && !self.rules.refuses;
        let outcome = match self.file.default {
            _ if enters && !too_long => self.enter(frame, false)?,
            DefaultAction::Pass if too_long => Outcome::Unchanged(PASSED),
            DefaultAction::Pass => self.leave_in_clear(frame)?,
            DefaultAction::Drop => Outcome::Dropped(DROPPED_BY_DEFAULT),
        };
        Ok(self.by_default(outcome))
    }

    /// A frame that leaves by the SA with this place in the file, or by `default` if none takes it.
    pub(crate) fn push_out(&mut self, taker: Option<usize>, frame: &[u8]) -> Result<Outcome> {
        match (taker, self.file.default) {
            (Some(index), _) => self.protect(index, frame),
            (None, DefaultAction::Pass) => self.leave_in_clear(frame),
            (None, DefaultAction::Drop) => Ok(Outcome::Dropped(DROPPED_BY_DEFAULT)),
        }
    }

    /// A frame that comes in: it is opened if it is protected, else `default` says, and the selectors of inbound SAs.
    pub(crate) fn push_in(&mut self, frame: &[u8]) -> Result<Outcome> {
        // What is broken, or protected by an SA that is not here, does not come in; the NIC says why.
        let protected =
            packet::parse_receive(frame, self.rules.ports).map_or(true, |parsed| is_protected(&parsed));
        let outcome = self.enter(frame, protected)?;
        Ok(self.by_default(outcome))
    }

    /// Whether a frame that comes in carries a whole packet of others: it comes out of a tunnel, or of BEET mode.
    pub(crate) fn is_tunneled(&self, frame: &[u8]) -> bool {
        let Ok(parsed) = packet::parse_receive(frame, self.rules.ports) else { return false };
        match parsed.protocol {
            packet::Protocol::Psp => frame
                .get(parsed.security_offset + psp::field::NEXT_HEADER.start)
                .is_some_and(|next| matches!(*next, protocol::IPV4 | protocol::IPV6)),
            _ => self.opening(&parsed).is_some_and(|sa| sa.mode() != Mode::Transport),
        }
    }

    /// The place of the first outbound SA that takes a packet.
    pub(crate) fn outbound(&self, plain: &Plain) -> Option<usize> {
        let takes = |sa: &Sa| sa.direction == Direction::Out && sa.selector.matches(plain);
        self.file.sas.iter().position(takes)
    }

    /// What the file lets become of a packet that no SA took.
    fn by_default(&self, outcome: Outcome) -> Outcome {
        match (self.file.default, outcome) {
            (DefaultAction::Drop, Outcome::Unchanged(_)) => Outcome::Dropped(DROPPED_BY_DEFAULT),
            (_, outcome) => outcome,
        }
    }

    /// Whether an `in` SA, or PSP, takes a packet.
    fn opens(&self, parsed: &packet::Parsed) -> bool {
        match parsed.protocol {
            packet::Protocol::Other
            | packet::Protocol::NatKeepalive
            | packet::Protocol::Wespv2
            | packet::Protocol::Eesp => false,
            packet::Protocol::Psp => self.rules.receives_psp,
            packet::Protocol::Esp => self.opening(parsed).is_some(),
        }
    }

    /// The `in` SA that takes a packet of ESP.
    fn opening(&self, parsed: &packet::Parsed) -> Option<&Sa> {
        let (_, destination) = addresses(&parsed.plain);
        self.file.sas.iter().find(|sa| {
            let Protocol::Esp(esp) = &sa.protocol else { return false };
            sa.direction == Direction::In
                && sa.spi == parsed.spi
                && sa.destination().is_none_or(|wanted| wanted == destination)
                && esp.encapsulation.is_some() == parsed.udp_offset.is_some()
        })
    }

    /// A frame leaves by an outbound SA.
    fn protect(&mut self, index: usize, frame: &[u8]) -> Result<Outcome> {
        let Installed { station, protection, progress } = &mut self.installed[index];
        let Some(protection) = *protection else { return Ok(Outcome::Lost) };
        let Station { queue, wire, .. } = &mut self.stations.list[*station];
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
        let Sent { status, frames, .. } = send(queue, &self.stations.list[0].wire, Protection::Clear, frame)?;
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
        let Station { queue, wire, .. } = &mut self.stations.list[0];
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
        let states = self.states()?;
        let all = self.installed.iter().zip(&self.file.sas).zip(states);
        Ok(all
            .map(|((installed, sa), state)| {
                let esp = matches!(sa.protocol, Protocol::Esp(_));
                Advanced {
                    sequence: state.as_ref().filter(|_| esp).map(|state| state.sequence),
                    iv: installed.progress.iv,
                    life: sa.lifetime.zip(state.as_ref()).map(|(lifetime, state)| {
                        (lifetime.count_of(state.packets, state.bytes), state.state)
                    }),
                }
            })
            .collect())
    }

    /// The state of each SA of the file; none where its key travels in descriptors.
    pub(crate) fn states(&mut self) -> Result<Vec<Option<SaState>>> {
        self.installed.iter().map(|installed| self.stations.state(installed)).collect()
    }
}

/// Whether a packet is of a protocol that the NIC opens.
fn is_protected(parsed: &packet::Parsed) -> bool {
    matches!(parsed.protocol, packet::Protocol::Esp | packet::Protocol::Psp)
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
