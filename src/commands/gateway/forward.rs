//! A frame's way through the gateway: from one link, through the NIC, to the neighbour on the other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use cryptonic_regs::admin::{Direction, Mode};
use cryptonic_wire::packet;

use crate::commands::gate::{self, Gate, Outcome};
use crate::error::Result;
use crate::link::Link;
use crate::neighbours::{Mac, Segment};
use crate::sa_file::{Protocol, SaFile};

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

/// One of the two sides.
pub(super) struct Side {
    pub(super) link: Link,
    pub(super) segment: Segment,
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

/// The gateway: a NIC between two links.
pub(super) struct Forwarder {
    pub(super) gate: Gate,
    pub(super) inside: Side,
    pub(super) outside: Side,
    /// Its own addresses on the inside.
    pub(super) inside_addresses: Vec<IpAddr>,
    /// What it answers for outside besides what the SAs say.
    pub(super) outside_addresses: Vec<IpAddr>,
    /// Frames by what became of them.
    pub(super) verdicts: BTreeMap<&'static str, u64>,
    /// Frames that vanished, or came out as what they must not be.
    pub(super) lost: u64,
}

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
                let (verdict, forwarded) = self.forward(inward, frame, now)?;
                match verdict {
                    Some(verdict) => *self.verdicts.entry(verdict).or_insert(0) += 1,
                    None => self.lost += 1,
                }
                if let Some((frame, destination)) = forwarded {
                    let to = if inward { &mut self.inside } else { &mut self.outside };
                    to.segment.send(frame, destination, now);
                }
            }
        }
        self.inside.segment.pass(now);
        self.outside.segment.pass(now);
        self.inside.flush(&mut self.verdicts)?;
        self.outside.flush(&mut self.verdicts)?;
        Ok(frames)
    }

    /// What becomes of a frame, and where it goes. No verdict is a fault of the NIC.
    #[expect(clippy::type_complexity, reason = "a verdict, and a frame with its next hop")]
    fn forward(
        &mut self,
        inward: bool,
        frame: Vec<u8>,
        now: Instant,
    ) -> Result<(Option<&'static str>, Option<(Vec<u8>, IpAddr)>)> {
        let from = if inward { &mut self.outside } else { &mut self.inside };
        let stays = |verdict| Ok((Some(verdict), None));
        if !from.segment.is_addressed(&frame) {
            return stays(NOT_FOR_GATEWAY);
        }
        if from.segment.hear(&frame, now) {
            return stays(NEIGHBOUR_DISCOVERY);
        }
        // What cannot be read is for the NIC to judge.
        let plain = packet::parse_transmit(&frame).ok();
        let ends = plain.filter(|plain| plain.ip_version != 0).map(|plain| gate::addresses(&plain));
        match (&plain, ends) {
            (Some(plain), _) if plain.vlan.is_some() => return stays(VLAN_TAG),
            (Some(_), None) => return stays(NOT_IP),
            (_, Some((source, destination))) if is_link_scope(source) || is_link_scope(destination) => {
                return stays(LINK_SCOPE);
            }
            (_, Some((_, destination))) if !inward && self.inside_addresses.contains(&destination) => {
                return stays(TO_GATEWAY);
            }
            _ => {}
        }
        if let (false, Some((source, _))) = (inward, ends) {
            from.segment.learn(source, &frame, now);
        }
        let outcome = if inward { self.gate.push_in(&frame)? } else { self.gate.push_out(&frame)? };
        let (verdict, frame) = match outcome {
            Outcome::Dropped(verdict) => return stays(verdict),
            Outcome::Lost => return Ok((None, None)),
            Outcome::Unchanged(verdict) => (verdict, frame),
            Outcome::Out(verdict, new) => {
                // The SA knows the peer: so it is where this came from.
                if let (true, Some((source, _))) = (inward, ends) {
                    self.outside.segment.learn(source, &frame, now);
                }
                (verdict, new)
            }
        };
        let destination = packet::parse_transmit(&frame).ok().map(|plain| gate::addresses(&plain).1);
        Ok((Some(verdict), destination.map(|destination| (frame, destination))))
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
    let of = |sa: &crate::sa_file::Sa| {
        let outer = match &sa.protocol {
            Protocol::Esp(esp) => esp.outer,
            Protocol::Psp(psp) => psp.outer,
        };
        let host = |prefix: Option<crate::sa_file::Prefix>| prefix.and_then(crate::sa_file::Prefix::host);
        let (source, destination) = match sa.mode() {
            Mode::Transport => (host(sa.selector.source), host(sa.selector.destination)),
            Mode::Tunnel | Mode::Beet => {
                (outer.map(|outer| outer.source), outer.map(|outer| outer.destination))
            }
        };
        let (near, far) = match sa.direction {
            Direction::Out => (source, destination),
            Direction::In => (destination, source),
        };
        (far.filter(|_| sa.mode() == Mode::Transport), near)
    };
    file.sas.iter().map(of).collect()
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
