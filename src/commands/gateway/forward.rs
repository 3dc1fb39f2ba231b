//! A frame's way through the gateway: from one link, through the NIC, to the neighbour on the other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use cryptonic_driver::Status;
use cryptonic_hwmodel::rx_parse;
use cryptonic_regs::admin::{Direction, Mode};
use cryptonic_wire::packet::{self, Plain, Ports};

use super::icmp::{self, Budget, Trouble};
use super::path_mtu::{self, Paths};
use super::router::{self, Fit, Hops};
use crate::commands::gate::{self, Gate, Outcome};
use crate::error::Result;
use crate::link::Link;
use crate::neighbours::{Mac, Segment};
use crate::sa_file::{DefaultAction, Prefix, Protocol, Sa, SaFile};

/// Frames that one link may bring before the other has its turn.
const BURST: usize = 64;

/// Reasons why the gateway itself does not forward a frame.
const NOT_FOR_GATEWAY: &str = "not_for_gateway";
const NEIGHBOUR_DISCOVERY: &str = "neighbour_discovery";
const NOT_IP: &str = "not_ip";
const VLAN_TAG: &str = "vlan_tag";
const LINK_SCOPE: &str = "link_scope";
const TO_GATEWAY: &str = "to_gateway";
const NO_NEIGHBOUR: &str = "no_neighbour";
const HOPS_EXCEEDED: &str = "hops_exceeded";
const PACKET_TOO_BIG: &str = "packet_too_big";
/// What a router outside told, and whether it was believed.
const PATH_MTU: &str = "path_mtu";
const PATH_MTU_IGNORED: &str = "path_mtu_ignored";

/// One of the two sides.
pub(super) struct Side {
    pub(super) link: Link,
    pub(super) segment: Segment,
    /// The longest IP packet on this link.
    pub(super) mtu: usize,
}

impl Side {
    /// Sends what is ready. Frames for neighbours that never answered are counted.
    fn flush(&mut self, verdicts: &mut BTreeMap<&'static str, u64>) -> Result<()> {
        while let Some(frame) = self.segment.next_ready() {
            self.link.send(&frame)?;
        }
        let given_up = self.segment.take_given_up();
        if given_up > 0 {
            *verdicts.entry(NO_NEIGHBOUR).or_insert(0) += given_up;
        }
        Ok(())
    }
}

/// What the gateway does beside forwarding frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RouterCounters {
    /// Packets that were cut, and what came of them.
    pub(super) cut: u64,
    pub(super) fragments: u64,
    /// Errors that were told to a sender, and those that nobody may be told or that were too many.
    pub(super) errors_sent: u64,
    pub(super) errors_withheld: u64,
}

/// The gateway: a NIC between two links.
pub(super) struct Forwarder {
    pub(super) gate: Gate,
    pub(super) inside: Side,
    pub(super) outside: Side,
    /// Its own addresses on the inside.
    pub(super) inside_addresses: Vec<IpAddr>,
    /// What it answers for outside besides what the SAs say.
    pub(super) outside_addresses: Vec<IpAddr>,
    /// What the paths of SAs are known to take.
    pub(super) paths: Paths,
    /// Errors that may be sent.
    pub(super) budget: Budget,
    pub(super) counters: RouterCounters,
    /// Frames by what became of them.
    pub(super) verdicts: BTreeMap<&'static str, u64>,
    /// Frames that vanished, or came out as what they must not be.
    pub(super) lost: u64,
}

/// How a packet came, as far as it matters where an error about it goes.
#[derive(Clone, Copy)]
struct Origin {
    /// From outside.
    inward: bool,
    /// Out of an SA: whatever is said of it must not be seen outside.
    opened: bool,
    /// Its sender takes the gateway for a router, and not for its peer.
    routed: bool,
}

/// What became of a frame; nothing is a fault of the NIC.
type Verdict = Option<&'static str>;

impl Forwarder {
    /// Forwards what came from both sides, up to a burst each. Says how many frames came.
    pub(super) fn pump(&mut self, now: Instant) -> Result<usize> {
        let mut frames = 0;
        for inward in [false, true] {
            for _ in 0..BURST {
                let link = if inward { &mut self.outside.link } else { &mut self.inside.link };
                let Some(frame) = link.receive()? else { break };
                let frame = frame.to_vec();
                frames += 1;
                match self.forward(inward, frame, now)? {
                    Some(verdict) => *self.verdicts.entry(verdict).or_insert(0) += 1,
                    None => self.lost += 1,
                }
            }
        }
        self.inside.segment.pass(now);
        self.outside.segment.pass(now);
        self.inside.flush(&mut self.verdicts)?;
        self.outside.flush(&mut self.verdicts)?;
        Ok(frames)
    }

    /// Takes a frame to where it goes. Says what became of it.
    fn forward(&mut self, inward: bool, frame: Vec<u8>, now: Instant) -> Result<Verdict> {
        let from = if inward { &mut self.outside } else { &mut self.inside };
        if !from.segment.is_addressed(&frame) {
            return Ok(Some(NOT_FOR_GATEWAY));
        }
        if from.segment.hear(&frame, now) {
            return Ok(Some(NEIGHBOUR_DISCOVERY));
        }
        let plain = match packet::parse_transmit(&frame) {
            Ok(plain) if plain.vlan.is_some() => return Ok(Some(VLAN_TAG)),
            Ok(plain) if plain.ip_version == 0 => return Ok(Some(NOT_IP)),
            // From outside, what cannot be read is for the NIC to judge.
            Err(_) if inward => return self.arrive(frame, None, now),
            Err(malformed) => return Ok(Some(rx_parse::verdict(malformed).name())),
            Ok(plain) => plain,
        };
        let (source, destination) = gate::addresses(&plain);
        if is_link_scope(source) || is_link_scope(destination) {
            return Ok(Some(LINK_SCOPE));
        }
        if inward {
            return self.arrive(frame, Some(&plain), now);
        }
        if self.inside_addresses.contains(&destination) {
            return Ok(Some(TO_GATEWAY));
        }
        self.inside.segment.learn(source, &frame, now);
        self.leave(frame, &plain, now)
    }

    /// A packet from inside.
    fn leave(&mut self, mut frame: Vec<u8>, plain: &Plain, now: Instant) -> Result<Verdict> {
        let taker = self.gate.outbound(plain);
        let (routed, longest, cut_first) = match self.taker(taker) {
            Some(sa) => {
                let mode = sa.mode();
                (mode != Mode::Transport, self.longest(taker, now), mode == Mode::Tunnel)
            }
            None if self.gate.file().default == DefaultAction::Drop => {
                return Ok(Some(gate::DROPPED_BY_DEFAULT));
            }
            None => {
                let bridged = self.inside.segment.is_own(gate::addresses(plain).1);
                (!bridged, self.outside.mtu, true)
            }
        };
        let origin = Origin { inward: false, opened: false, routed };
        if let Some(refused) = self.count_down(origin, &mut frame, plain, now)? {
            return Ok(Some(refused));
        }
        match router::fit(plain, longest) {
            Fit::TooBig => {
                self.tell(Trouble::TooBig(longest), origin, &frame, plain, now)?;
                Ok(Some(PACKET_TOO_BIG))
            }
            Fit::InPieces if cut_first => {
                let fragments = self.cut(&frame, plain, longest);
                let mut verdict = Some(PACKET_TOO_BIG);
                for fragment in fragments {
                    verdict = self.send_out(taker, fragment, now)?;
                }
                Ok(verdict)
            }
            // RFC 4303 3.3.4: in transport mode what is too long is cut when it is protected.
            Fit::Whole | Fit::InPieces => self.send_out(taker, frame, now),
        }
    }

    /// Protects a frame, or not, and sends it outside.
    fn send_out(&mut self, taker: Option<usize>, frame: Vec<u8>, now: Instant) -> Result<Verdict> {
        let (verdict, frame) = match self.gate.push_out(taker, &frame)? {
            Outcome::Dropped(verdict) => return Ok(Some(verdict)),
            Outcome::Lost => return Ok(None),
            Outcome::Unchanged(verdict) => (verdict, frame),
            Outcome::Out(verdict, new) => (verdict, new),
        };
        let Ok(plain) = packet::parse_transmit(&frame) else { return Ok(None) };
        let (_, to) = gate::addresses(&plain);
        let mtu = match self.taker(taker) {
            Some(_) => self.mtu(taker, now),
            None => self.outside.mtu,
        };
        match router::fit(&plain, mtu) {
            Fit::Whole => self.outside.segment.send(frame, to, now),
            Fit::TooBig => return Ok(Some(PACKET_TOO_BIG)),
            Fit::InPieces => {
                for fragment in self.cut(&frame, &plain, mtu) {
                    self.outside.segment.send(fragment, to, now);
                }
            }
        }
        Ok(Some(verdict))
    }

    /// A packet from outside; `outer` is what can be read of it.
    fn arrive(&mut self, frame: Vec<u8>, outer: Option<&Plain>, now: Instant) -> Result<Verdict> {
        if let Some(outer) = outer
            && let Some(verdict) = self.hear_too_big(&frame, outer, now)
        {
            return Ok(Some(verdict));
        }
        let tunneled = self.gate.is_tunneled(&frame);
        let (verdict, opened, mut frame) = match self.gate.push_in(&frame)? {
            Outcome::Dropped(verdict) => return Ok(Some(verdict)),
            Outcome::Lost => return Ok(None),
            Outcome::Unchanged(verdict) => (verdict, false, frame),
            Outcome::Out(verdict, new) => {
                // The SA knows the peer: so it is where this came from.
                if let Some(outer) = outer {
                    self.outside.segment.learn(gate::addresses(outer).0, &frame, now);
                }
                (verdict, true, new)
            }
        };
        let plain = match packet::parse_transmit(&frame) {
            Ok(plain) if plain.ip_version == 0 => return Ok(Some(NOT_IP)),
            Ok(plain) => plain,
            Err(malformed) => return Ok(Some(rx_parse::verdict(malformed).name())),
        };
        let (source, to) = gate::addresses(&plain);
        if is_link_scope(source) || is_link_scope(to) {
            return Ok(Some(LINK_SCOPE));
        }
        if self.inside_addresses.contains(&to) {
            return Ok(Some(TO_GATEWAY));
        }
        let routed = if opened { tunneled } else { !self.outside.segment.is_own(to) };
        let origin = Origin { inward: true, opened, routed };
        if let Some(refused) = self.count_down(origin, &mut frame, &plain, now)? {
            return Ok(Some(refused));
        }
        let mtu = self.inside.mtu;
        match router::fit(&plain, mtu) {
            Fit::Whole => self.inside.segment.send(frame, to, now),
            Fit::TooBig => {
                self.tell(Trouble::TooBig(mtu), origin, &frame, &plain, now)?;
                return Ok(Some(PACKET_TOO_BIG));
            }
            Fit::InPieces => {
                for fragment in self.cut(&frame, &plain, mtu) {
                    self.inside.segment.send(fragment, to, now);
                }
            }
        }
        Ok(Some(verdict))
    }

    /// Counts a packet's hops where the gateway is one. Says why it goes no further.
    fn count_down(
        &mut self,
        origin: Origin,
        frame: &mut [u8],
        plain: &Plain,
        now: Instant,
    ) -> Result<Verdict> {
        if !origin.routed {
            return Ok(None);
        }
        match router::count_down(frame, plain) {
            Hops::Left => Ok(None),
            Hops::BadChecksum => Ok(Some(Status::BadIpv4Checksum.name())),
            Hops::Exceeded => {
                self.tell(Trouble::HopsExceeded, origin, frame, plain, now)?;
                Ok(Some(HOPS_EXCEEDED))
            }
        }
    }

    fn cut(&mut self, frame: &[u8], plain: &Plain, longest: usize) -> Vec<Vec<u8>> {
        let fragments = router::fragments(frame, plain, longest);
        self.counters.cut += 1;
        self.counters.fragments += fragments.len() as u64;
        fragments
    }

    /// Tells the sender of a packet what is wrong, if it may be told.
    fn tell(
        &mut self,
        trouble: Trouble,
        origin: Origin,
        frame: &[u8],
        plain: &Plain,
        now: Instant,
    ) -> Result<()> {
        let told = icmp::may_be_told(frame, plain)
            && self.budget.take(now)
            && self.send_error(trouble, origin, frame, plain, now)?;
        let counter = if told { &mut self.counters.errors_sent } else { &mut self.counters.errors_withheld };
        *counter += 1;
        Ok(())
    }

    /// Sends an error to where the packet came from. Says whether it left.
    fn send_error(
        &mut self,
        trouble: Trouble,
        origin: Origin,
        frame: &[u8],
        plain: &Plain,
        now: Instant,
    ) -> Result<bool> {
        let (to, destination) = gate::addresses(plain);
        // A host that does not know of the gateway hears it from the one that it talks with.
        let source = if origin.routed { self.address(destination) } else { destination };
        let make = |longest| icmp::error(trouble, frame, plain, source, longest);
        let Some(error) = make(usize::MAX) else { return Ok(false) };
        if !origin.inward {
            self.inside.segment.send(error, to, now);
            return Ok(true);
        }
        // By the SA that takes it, or the one that takes what answers the packet (RFC 4301 6.2).
        let taker = packet::parse_transmit(&error).ok().and_then(|plain| self.gate.outbound(&plain));
        let taker = taker.or_else(|| self.gate.outbound(&reversed(plain)));
        if origin.opened && taker.is_none() {
            return Ok(false);
        }
        let longest = self.longest(taker, now);
        let Some(error) = make(longest) else { return Ok(false) };
        let verdict = self.send_out(taker, error, now)?;
        Ok(matches!(verdict, Some(gate::PROTECTED | gate::PASSED)))
    }

    /// Hears from a router outside that an SA's packets are too long for it. None where a frame says nothing such.
    fn hear_too_big(&mut self, frame: &[u8], plain: &Plain, now: Instant) -> Verdict {
        let (_, to) = gate::addresses(plain);
        let told = icmp::too_big(frame, plain).filter(|told| told.source == to)?;
        if !self.outside.segment.is_own(to) {
            return None;
        }
        let believed = self.paths.believe(self.gate.file(), &told, self.outside.mtu, now);
        Some(if believed { PATH_MTU } else { PATH_MTU_IGNORED })
    }

    fn taker(&self, taker: Option<usize>) -> Option<&Sa> {
        self.gate.file().sas.get(taker?)
    }

    /// How long a packet may be outside.
    fn mtu(&mut self, taker: Option<usize>, now: Instant) -> usize {
        let mtu = self.outside.mtu;
        match taker.and_then(|index| self.gate.file().sas.get(index)) {
            Some(sa) => self.paths.mtu(sa, mtu, now),
            None => mtu,
        }
    }

    /// How long a packet may be so that it is not too long outside.
    fn longest(&mut self, taker: Option<usize>, now: Instant) -> usize {
        let mtu = self.mtu(taker, now);
        self.taker(taker).map_or(mtu, |sa| path_mtu::longest(sa, mtu))
    }

    /// The gateway's own address of a family, which errors come from; where it has none, that of the packet's destination.
    fn address(&self, destination: IpAddr) -> IpAddr {
        let tunnels = self.gate.file().sas.iter().filter(|sa| sa.mode() != Mode::Transport);
        let ends = tunnels.filter_map(|sa| own_address(sa).1);
        let all = self.inside_addresses.iter().chain(&self.outside_addresses).copied().chain(ends);
        let mut of_family = all.filter(|address| address.is_ipv4() == destination.is_ipv4());
        of_family.next().unwrap_or(destination)
    }

    /// Frames that SAs took.
    pub(super) fn packets(&self) -> u64 {
        [gate::PROTECTED, gate::OPENED].iter().filter_map(|verdict| self.verdicts.get(verdict)).sum()
    }

    /// Answers for the addresses that the SAs of the file name as this end's: the outer ones of tunnels, outside; those of
    /// the hosts in transport mode, each on the side where it is not.
    pub(super) fn follow_file(&mut self) {
        let (mut inside, mut outside) = (self.inside_addresses.clone(), self.outside_addresses.clone());
        for (far, near) in own_addresses(self.gate.file()) {
            inside.extend(far);
            outside.extend(near);
        }
        for addresses in [&mut inside, &mut outside] {
            let mut seen = std::collections::HashSet::new();
            addresses.retain(|address| seen.insert(*address));
        }
        self.inside.segment.set_own(inside);
        self.outside.segment.set_own(outside);
    }
}

/// For each SA: the far host that is answered for inside, the address of this end that is answered for outside.
pub(super) fn own_addresses(file: &SaFile) -> Vec<(Option<IpAddr>, Option<IpAddr>)> {
    file.sas.iter().map(own_address).collect()
}

fn own_address(sa: &Sa) -> (Option<IpAddr>, Option<IpAddr>) {
    let outer = match &sa.protocol {
        Protocol::Esp(esp) => esp.outer,
        Protocol::Psp(psp) => psp.outer,
    };
    let host = |prefix: Option<Prefix>| prefix.and_then(Prefix::host);
    let (source, destination) = match sa.mode() {
        Mode::Transport => (host(sa.selector.source), host(sa.selector.destination)),
        Mode::Tunnel | Mode::Beet => (outer.map(|outer| outer.source), outer.map(|outer| outer.destination)),
    };
    let (near, far) = match sa.direction {
        Direction::Out => (source, destination),
        Direction::In => (destination, source),
    };
    (far.filter(|_| sa.mode() == Mode::Transport), near)
}

/// A packet that answers this one, as selectors see it.
fn reversed(plain: &Plain) -> Plain {
    let ports = plain.ports.map(|ports| Ports { source: ports.destination, destination: ports.source });
    Plain { source: plain.destination, destination: plain.source, ports, ..*plain }
}

/// An Ethernet address that says which side it is of, and whose address it goes with; without one it is random.
pub(super) fn mac(side: u8, address: Option<&IpAddr>) -> Result<Mac> {
    let mut low = [0; 4];
    match address {
        Some(IpAddr::V4(address)) => low = address.octets(),
        Some(IpAddr::V6(address)) => low.copy_from_slice(&address.octets()[12..]),
        None => getrandom::fill(&mut low).map_err(crate::error::Error::input)?,
    }
    let [a, b, c, d] = low;
    // Locally administered.
    Ok(Mac([0x02, side, a, b, c, d]))
}

/// Addresses whose packets stay on their link (RFC 4291 2.5.6 and 2.7, RFC 3927, RFC 5771 4).
fn is_link_scope(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            address == Ipv4Addr::BROADCAST
                || address.is_unspecified()
                || address.is_link_local()
                || [first, second, third] == [224, 0, 0]
        }
        IpAddr::V6(address) => {
            let group_scope = address.is_multicast().then_some(address.segments()[0] & 0xf);
            address == Ipv6Addr::UNSPECIFIED
                || address.is_unicast_link_local()
                || group_scope.is_some_and(|scope| scope <= 2)
        }
    }
}
