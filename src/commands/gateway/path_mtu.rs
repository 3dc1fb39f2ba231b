//! How long a packet may be so that it still fits the outer link when an SA has protected it (RFC 4301 8.2), and what is
//! known of the path behind that link.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cryptonic_driver::OuterHeader;
use cryptonic_regs::admin::{Direction, Mode};
use cryptonic_wire::{esp, ipv4, ipv6, psp, udp};

use super::icmp::Told;
use crate::error::{Error, Result};
use crate::sa_file::{Esp, Protocol, PspSa, Sa, SaFile};

/// What an Ethernet link carries unless it is told otherwise.
pub(super) const ETHERNET: usize = 1500;
/// No path is believed to be narrower: what every IPv6 link carries (RFC 8200 5), and what every host takes (RFC 1122 3.3.3).
const NARROWEST_4: usize = 576;
const NARROWEST_6: usize = 1280;
/// How long what was told of a path holds (RFC 1191 6.3, RFC 8201 4: ten minutes).
const HOLDS: Duration = Duration::from_secs(600);

/// The longest IP packet that an outbound SA makes one of at most `mtu` octets of; 0 if there is none. Headers of IP have
/// whole words, so that their options and extensions make no difference.
pub(super) fn longest(sa: &Sa, mtu: usize) -> usize {
    // What the outer header takes more than the packet's own, which it replaces in BEET mode.
    let outer = |outer: &Option<OuterHeader>| outer.map_or(0, |outer| header_length(outer.source));
    match &sa.protocol {
        Protocol::Esp(sa_esp) => {
            let Esp { mode, implicit_iv, icv_bytes, encapsulation, .. } = sa_esp;
            let own = match (mode, sa.selector.source.or(sa.selector.destination)) {
                (Mode::Beet, Some(prefix)) => header_length(prefix.address()),
                _ => 0,
            };
            let iv = if *implicit_iv { 0 } else { 8 };
            let in_udp = if encapsulation.is_some() { udp::HEADER_LENGTH } else { 0 };
            let around = outer(&sa_esp.outer) + in_udp + esp::FIXED_LENGTH + iv + usize::from(*icv_bytes);
            // RFC 4303 2.4: with pad length and next header it is whole words.
            let text = mtu.saturating_sub(around) / esp::ALIGNMENT * esp::ALIGNMENT;
            let text = text.saturating_sub(esp::TRAILER_FIXED_LENGTH) + own;
            if text < usize::from(sa_esp.tfc_bytes) { 0 } else { text }
        }
        Protocol::Psp(sa_psp) => {
            let PspSa { virtualization_cookie, .. } = sa_psp;
            let cookie = if virtualization_cookie.is_some() { psp::VIRTUALIZATION_COOKIE_LENGTH } else { 0 };
            let around =
                outer(&sa_psp.outer) + udp::HEADER_LENGTH + psp::HEADER_LENGTH + cookie + psp::ICV_LENGTH;
            mtu.saturating_sub(around)
        }
    }
}

/// Refuses a file with an SA that pads every packet beyond what the outer link carries.
pub(super) fn check(file: &SaFile, mtu: usize) -> Result<()> {
    let narrow = |sa: &&Sa| sa.direction == Direction::Out && longest(sa, mtu) == 0;
    match file.sas.iter().find(narrow) {
        Some(sa) => Err(Error::at(
            sa.full_place(),
            format_args!("no packet fits {mtu} bytes outside: `tfc` is too much"),
        )),
        None => Ok(()),
    }
}

/// What routers outside told of the paths of SAs.
#[derive(Default)]
pub(super) struct Paths {
    known: HashMap<Identity, (usize, Instant)>,
}

type Identity = (Direction, &'static str, u32, Option<IpAddr>);

impl Paths {
    /// How long the packets of an SA may be outside, where the link takes `mtu`.
    pub(super) fn mtu(&mut self, sa: &Sa, mtu: usize, now: Instant) -> usize {
        // For most, this is all.
        if self.known.is_empty() {
            return mtu;
        }
        self.known.retain(|_, (_, until)| *until > now);
        self.known.get(&sa.identity()).map_or(mtu, |(known, _)| mtu.min(*known))
    }

    /// Believes what a router says of the packets of an SA (RFC 4301 8.2.1): nobody vouches for it, so it must know the SPI and
    /// both addresses, and no path gets narrower than all must be. Says whether it did.
    pub(super) fn believe(&mut self, file: &SaFile, told: &Told, mtu: usize, now: Instant) -> bool {
        let narrowest = if told.source.is_ipv4() { NARROWEST_4 } else { NARROWEST_6 };
        let sa = file.sas.iter().find(|sa| is_of(sa, told));
        let Some(sa) = sa.filter(|sa| (narrowest..self.mtu(sa, mtu, now)).contains(&told.mtu)) else {
            return false;
        };
        self.known.insert(sa.identity(), (told.mtu, now + HOLDS));
        true
    }
}

/// Whether an SA sent the packet that somebody tells of.
fn is_of(sa: &Sa, told: &Told) -> bool {
    let outer = match &sa.protocol {
        Protocol::Esp(sa) => sa.outer,
        Protocol::Psp(sa) => sa.outer,
    };
    // In transport mode the addresses are those of the packet.
    let has =
        |prefix: Option<crate::sa_file::Prefix>, address| prefix.is_none_or(|prefix| prefix.has(address));
    let between = match outer {
        Some(outer) => outer.source == told.source && outer.destination == told.destination,
        None => has(sa.selector.source, told.source) && has(sa.selector.destination, told.destination),
    };
    sa.direction == Direction::Out && sa.protocol.name() == told.protocol && sa.spi == told.spi && between
}

fn header_length(address: IpAddr) -> usize {
    if address.is_ipv4() { ipv4::HEADER_LENGTH } else { ipv6::HEADER_LENGTH }
}
