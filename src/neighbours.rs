//! Who is where on an Ethernet segment: ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861), as much as a gateway needs.
//! It answers for the addresses it was given, asks for those it has frames for, and learns from what it hears.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use etherparse::icmpv6::{Icmpv6PayloadSlice, NdpOptionSlice, NeighborAdvertisementHeader};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
};

/// Neighbours that are remembered; what comes beyond is asked for when it is needed.
const NEIGHBOURS_MAX: usize = 4096;
/// Frames that wait for one neighbour's answer, and neighbours that are asked for at a time.
const WAITING_FRAMES: usize = 256;
const WAITING_NEIGHBOURS: usize = 256;
/// How often a neighbour is asked for, and the time between (RFC 4861 10: three, one second).
const ASKED_MAX: u32 = 3;
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a neighbour is not asked for again (RFC 4861 10: 30 s).
const FRESH: Duration = Duration::from_secs(30);
/// Neighbour discovery is taken from the segment itself alone (RFC 4861 7.1).
const HOP_LIMIT: u8 = 255;
const LINK_LAYER_SOURCE: u8 = 1;
const LINK_LAYER_TARGET: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    pub(crate) const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether it names more than one station.
    pub(crate) fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Where packets for a group or to all go (RFC 1112 6.4, RFC 2464 7); none for one host.
    fn of_group(address: IpAddr) -> Option<Mac> {
        match address {
            IpAddr::V4(Ipv4Addr::BROADCAST) => Some(Mac::BROADCAST),
            IpAddr::V4(group) if group.is_multicast() => {
                let [_, second, third, fourth] = group.octets();
                Some(Mac([0x01, 0x00, 0x5e, second & 0x7f, third, fourth]))
            }
            IpAddr::V6(group) if group.is_multicast() => {
                let [.., first, second, third, fourth] = group.octets();
                Some(Mac([0x33, 0x33, first, second, third, fourth]))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Mac, String> {
        let parts: Vec<Option<u8>> = text
            .split(':')
            .map(|part| {
                u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2 && !part.starts_with('+'))
            })
            .collect();
        match parts[..] {
            [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)] => Ok(Mac([a, b, c, d, e, f])),
            _ => Err(format!("`{text}` is not an Ethernet address, as in 02:00:00:00:00:01")),
        }
    }
}

/// One's own place on a segment, and the neighbours there.
pub(crate) struct Segment {
    mac: Mac,
    /// What it answers for.
    own: Vec<IpAddr>,
    neighbours: HashMap<IpAddr, Neighbour>,
    waiting: HashMap<IpAddr, Waiting>,
    /// Frames that are ready to be sent.
    ready: VecDeque<Vec<u8>>,
    /// Frames that waited in vain.
    given_up: u64,
}

struct Neighbour {
    mac: Mac,
    /// When it is asked for again; none for one that was given.
    asked_again: Option<Instant>,
}

/// Frames for a neighbour that has not answered.
struct Waiting {
    frames: Vec<Vec<u8>>,
    asked: u32,
    ask_again: Instant,
}

impl Segment {
    pub(crate) fn new(mac: Mac) -> Segment {
        Segment {
            mac,
            own: Vec::new(),
            neighbours: HashMap::new(),
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            given_up: 0,
        }
    }

    /// Says what it answers for.
    pub(crate) fn set_own(&mut self, own: Vec<IpAddr>) {
        self.own = own;
    }

    /// A neighbour that need not be asked for.
    pub(crate) fn fix(&mut self, address: IpAddr, mac: Mac) {
        self.neighbours.insert(address, Neighbour { mac, asked_again: None });
    }

    /// Frames that are ready to be sent, in order.
    pub(crate) fn next_ready(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }

    /// Frames that waited for a neighbour in vain, since the last call.
    pub(crate) fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    /// Whether a frame is for this station, or for all.
    pub(crate) fn is_addressed(&self, frame: &[u8]) -> bool {
        destination(frame).is_some_and(|mac| mac == self.mac || mac.is_group())
    }

    /// Whether a frame was ARP or neighbour discovery: it is answered if it asks for an own address, and learnt from.
    pub(crate) fn hear(&mut self, frame: &[u8], now: Instant) -> bool {
        match frame.get(12..14) {
            Some([0x08, 0x06]) => {
                self.hear_arp(frame, now);
                true
            }
            // A hop-by-hop header is the only one that could stand before, and neighbour discovery has none.
            Some([0x86, 0xdd]) if frame.get(20) == Some(&58) => {
                self.hear_discovery(frame, now).unwrap_or(false)
            }
            _ => false,
        }
    }

    /// Where a packet's source is, as its frame says. That counts less than what the neighbour says itself.
    pub(crate) fn learn(&mut self, address: IpAddr, frame: &[u8], now: Instant) {
        let Some(mac) = source(frame) else { return };
        if self.neighbours.get(&address).is_none_or(|known| known.mac == mac) {
            self.learn_mac(address, mac, now);
        }
    }

    /// Sends a frame to a neighbour: with its Ethernet address now, if that is known, else when it has answered.
    pub(crate) fn send(&mut self, mut frame: Vec<u8>, to: IpAddr, now: Instant) {
        if let Some(addresses) = frame.get_mut(6..12) {
            addresses.copy_from_slice(&self.mac.0);
        }
        if let Some(mac) = Mac::of_group(to) {
            return self.send_to(frame, mac);
        }
        if let Some(Neighbour { mac, asked_again }) = self.neighbours.get_mut(&to) {
            let mac = *mac;
            let stale = asked_again.as_mut().filter(|again| **again <= now);
            let ask = stale.map(|again| *again = now + ASK_AGAIN).is_some();
            if ask {
                self.ask(to, mac);
            }
            return self.send_to(frame, mac);
        }
        if let Some(waiting) = self.waiting.get_mut(&to) {
            if waiting.frames.len() < WAITING_FRAMES {
                waiting.frames.push(frame);
            } else {
                self.given_up += 1;
            }
        } else if self.waiting.len() < WAITING_NEIGHBOURS {
            let waiting = Waiting { frames: vec![frame], asked: 1, ask_again: now + ASK_AGAIN };
            self.waiting.insert(to, waiting);
            self.ask(to, Mac::BROADCAST);
        } else {
            self.given_up += 1;
        }
    }

    /// When [`Segment::pass`] has something to do.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.ask_again).min()
    }

    /// Asks again for those that have not answered, and gives up on those that never do.
    pub(crate) fn pass(&mut self, now: Instant) {
        let mut again = Vec::new();
        self.waiting.retain(|address, waiting| {
            if waiting.ask_again > now {
                return true;
            }
            if waiting.asked == ASKED_MAX {
                self.given_up += waiting.frames.len() as u64;
                return false;
            }
            waiting.asked += 1;
            waiting.ask_again = now + ASK_AGAIN;
            again.push(*address);
            true
        });
        for address in again {
            self.ask(address, Mac::BROADCAST);
        }
    }

    fn send_to(&mut self, mut frame: Vec<u8>, mac: Mac) {
        if let Some(to) = frame.get_mut(..6) {
            to.copy_from_slice(&mac.0);
        }
        self.ready.push_back(frame);
    }

    /// Whether it answers for an address.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address) || address == IpAddr::V6(self.link_local())
    }

    /// The address made of the Ethernet address (RFC 4291 appendix A), which needs no configuration.
    fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac.0.map(u16::from);
        Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
    }

    fn learn_mac(&mut self, address: IpAddr, mac: Mac, now: Instant) {
        if address.is_unspecified() || address.is_multicast() || mac.is_group() || self.is_own(address) {
            return;
        }
        match self.neighbours.get(&address) {
            Some(Neighbour { asked_again: None, .. }) => return,
            Some(_) => {}
            None => self.make_room(now),
        }
        if self.neighbours.len() < NEIGHBOURS_MAX || self.neighbours.contains_key(&address) {
            self.neighbours.insert(address, Neighbour { mac, asked_again: Some(now + FRESH) });
        }
        for frame in self.waiting.remove(&address).into_iter().flat_map(|waiting| waiting.frames) {
            self.send_to(frame, mac);
        }
    }

    /// Forgets those that have not been heard of for long, if there are many.
    fn make_room(&mut self, now: Instant) {
        if self.neighbours.len() >= NEIGHBOURS_MAX {
            self.neighbours.retain(|_, known| known.asked_again.is_none_or(|again| again > now));
        }
    }

    fn hear_arp(&mut self, frame: &[u8], now: Instant) {
        let Ok(SlicedPacket { net: Some(NetSlice::Arp(arp)), .. }) = SlicedPacket::from_ethernet(frame)
        else {
            return;
        };
        let Ok(arp) = ArpEthIpv4Packet::try_from(arp.to_packet()) else { return };
        let (sender, target) = (arp.sender_ipv4_addr().into(), arp.target_ipv4_addr().into());
        let mac = Mac(arp.sender_mac);
        self.learn_mac(sender, mac, now);
        // An announcement of what is ours is a conflict that is for people to solve: it is not answered (RFC 5227 2.4).
        if arp.operation == ArpOperation::REQUEST && self.is_own(target) && sender != target {
            let answer = ArpEthIpv4Packet {
                operation: ArpOperation::REPLY,
                sender_mac: self.mac.0,
                sender_ipv4: arp.target_ipv4,
                target_mac: arp.sender_mac,
                target_ipv4: arp.sender_ipv4,
            };
            self.send_arp(&answer, mac);
        }
    }

    fn send_arp(&mut self, arp: &ArpEthIpv4Packet, to: Mac) {
        let mut frame = ethernet_header(to, self.mac, EtherType::ARP);
        frame.extend_from_slice(&arp.to_bytes());
        self.ready.push_back(frame);
    }

    /// None for what is no neighbour solicitation or advertisement that may be heeded.
    fn hear_discovery(&mut self, frame: &[u8], now: Instant) -> Option<bool> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) = (packet.net, packet.transport)
        else {
            return None;
        };
        let header = ip.header();
        let (from, to) = (header.source_addr(), header.destination_addr());
        let heeded = header.hop_limit() == HOP_LIMIT
            && icmp.code_u8() == 0
            && icmp.is_checksum_valid(header.source(), header.destination());
        match icmp.payload_slice().ok()? {
            Icmpv6PayloadSlice::NeighborSolicitation(asked) => {
                let target = asked.target_address();
                let option = link_layer(asked.options_iterator(), LINK_LAYER_SOURCE);
                if heeded && !target.is_multicast() {
                    let mac = option.or_else(|| source(frame))?;
                    self.learn_mac(from.into(), mac, now);
                    if self.is_own(target.into()) {
                        self.advertise(target, from, mac);
                    }
                }
            }
            Icmpv6PayloadSlice::NeighborAdvertisement(told) => {
                let target = told.target_address();
                let option = link_layer(told.options_iterator(), LINK_LAYER_TARGET);
                // One that was asked of a unicast address may leave it out (RFC 4861 4.4).
                if heeded && !target.is_multicast() && (option.is_some() || !to.is_multicast()) {
                    self.learn_mac(target.into(), option.or_else(|| source(frame))?, now);
                }
            }
            _ => return None,
        }
        Some(true)
    }

    /// Answers a neighbour solicitation; one without a source asks whether the address is free (RFC 4862 5.4).
    fn advertise(&mut self, target: Ipv6Addr, to: Ipv6Addr, mac: Mac) {
        let solicited = !to.is_unspecified();
        let (to, mac) = if solicited { (to, mac) } else { (ALL_NODES, Mac([0x33, 0x33, 0, 0, 0, 1])) };
        let flags = NeighborAdvertisementHeader { router: true, solicited, r#override: true };
        self.send_discovery(
            Icmpv6Type::NeighborAdvertisement(flags),
            target,
            LINK_LAYER_TARGET,
            (target, to),
            mac,
        );
    }

    /// Asks for a neighbour: all of them, or the one that had the address. The question comes from the own address that has
    /// the most leading bits in common with it: some hosts answer none from beyond their own network.
    fn ask(&mut self, address: IpAddr, mac: Mac) {
        match address {
            IpAddr::V4(target) => {
                let own = self.own.iter().filter_map(|own| match own {
                    IpAddr::V4(own) => Some(*own),
                    IpAddr::V6(_) => None,
                });
                let own = own.max_by_key(|own| (own.to_bits() ^ target.to_bits()).leading_zeros());
                let request = ArpEthIpv4Packet {
                    operation: ArpOperation::REQUEST,
                    sender_mac: self.mac.0,
                    // Without an address of one's own a request is a probe, which is answered too (RFC 5227 2.1.1).
                    sender_ipv4: own.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
                    target_mac: [0; 6],
                    target_ipv4: target.octets(),
                };
                self.send_arp(&request, mac);
            }
            IpAddr::V6(target) => {
                let [.., first, second, third] = target.octets();
                let group = Ipv6Addr::new(
                    0xff02,
                    0,
                    0,
                    0,
                    0,
                    1,
                    0xff00 | u16::from(first),
                    u16::from_be_bytes([second, third]),
                );
                let (to, mac) = match Mac::of_group(group.into()) {
                    Some(group_mac) if mac == Mac::BROADCAST => (group, group_mac),
                    _ => (target, mac),
                };
                // An address of one's own, so that it is known where the answer's packets go (RFC 4861 7.2.2).
                let own = self.own.iter().filter_map(|own| match own {
                    IpAddr::V4(_) => None,
                    IpAddr::V6(own) => Some(*own),
                });
                let own = own.max_by_key(|own| (own.to_bits() ^ target.to_bits()).leading_zeros());
                let from = own.unwrap_or(self.link_local());
                self.send_discovery(
                    Icmpv6Type::NeighborSolicitation,
                    target,
                    LINK_LAYER_SOURCE,
                    (from, to),
                    mac,
                );
            }
        }
    }

    fn send_discovery(
        &mut self,
        message: Icmpv6Type,
        target: Ipv6Addr,
        option: u8,
        (from, to): (Ipv6Addr, Ipv6Addr),
        mac: Mac,
    ) {
        let payload = [&target.octets()[..], &[option, 1], &self.mac.0].concat();
        let packet = PacketBuilder::ethernet2(self.mac.0, mac.0)
            .ipv6(from.octets(), to.octets(), HOP_LIMIT)
            .icmpv6(message);
        let mut frame = Vec::with_capacity(packet.size(payload.len()));
        // A few octets into a vector: there is nothing that could fail, and an unanswered question is asked again.
        if packet.write(&mut frame, &payload).is_ok() {
            self.ready.push_back(frame);
        }
    }
}

/// The Ethernet address in the first option of a kind.
fn link_layer(options: etherparse::icmpv6::NdpOptionsIterator<'_>, kind: u8) -> Option<Mac> {
    options.map_while(Result::ok).find_map(|option| {
        let address = match &option {
            NdpOptionSlice::SourceLinkLayerAddress(option) if kind == LINK_LAYER_SOURCE => {
                option.link_layer_address()
            }
            NdpOptionSlice::TargetLinkLayerAddress(option) if kind == LINK_LAYER_TARGET => {
                option.link_layer_address()
            }
            _ => return None,
        };
        address.first_chunk().map(|mac| Mac(*mac))
    })
}

fn ethernet_header(to: Mac, from: Mac, ether_type: EtherType) -> Vec<u8> {
    [&to.0[..], &from.0, &ether_type.0.to_be_bytes()].concat()
}

fn destination(frame: &[u8]) -> Option<Mac> {
    frame.first_chunk().map(|mac| Mac(*mac))
}

fn source(frame: &[u8]) -> Option<Mac> {
    frame.get(6..12)?.first_chunk().map(|mac| Mac(*mac))
}
