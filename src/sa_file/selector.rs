//! Selectors: which packets an SA is for.

use std::fmt;
use std::net::IpAddr;

use cryptonic_driver::Network;
use cryptonic_wire::packet::Plain;
use cryptonic_wire::selector::{Prefix as WirePrefix, Selector as WireSelector};

use crate::error::Result;
use crate::toml_reader::Item;

/// Upper protocols that have a name in the file.
const PROTOCOLS: [(&str, u8); 5] = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58), ("sctp", 132)];

/// Which packets an SA takes; a part that is absent takes all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) source: Option<Prefix>,
    pub(crate) destination: Option<Prefix>,
    /// Upper protocol.
    pub(crate) protocol: Option<u8>,
}

impl Selector {
    /// Whether a packet is taken. A frame that is not IP never is.
    pub(crate) fn matches(&self, plain: &Plain) -> bool {
        let prefix = |prefix: Option<Prefix>| prefix.map_or(WirePrefix::Any, Prefix::on_the_wire);
        let selector = WireSelector {
            source: prefix(self.source),
            destination: prefix(self.destination),
            protocol: self.protocol,
            ..WireSelector::default()
        };
        selector.matches(plain)
    }

    /// Whether it takes every packet.
    pub(crate) fn is_all(&self) -> bool {
        self.source.is_none() && self.destination.is_none() && self.protocol.is_none()
    }

    /// Whether it is two whole addresses.
    pub(super) fn is_pair(&self) -> bool {
        let whole = |prefix: Option<Prefix>| prefix.is_some_and(Prefix::is_whole);
        whole(self.source) && whole(self.destination)
    }

    /// As the device knows it: of one family, so that at least one network must be there.
    pub(crate) fn of_device(&self) -> Option<cryptonic_driver::Selector> {
        let family = self.source.or(self.destination)?;
        let network = |prefix: Option<Prefix>| prefix.unwrap_or(family.whole_family()).network();
        Some(cryptonic_driver::Selector {
            source: network(self.source),
            destination: network(self.destination),
            protocol: self.protocol,
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |prefix: Option<Prefix>| prefix.map_or("any".to_owned(), |prefix| prefix.to_string());
        write!(formatter, "{} -> {}", part(self.source), part(self.destination))?;
        let name = |number: u8| PROTOCOLS.iter().find(|(_, known)| *known == number).map(|(name, _)| *name);
        match self.protocol {
            None => Ok(()),
            Some(number) => match name(number) {
                Some(name) => write!(formatter, " {name}"),
                None => write!(formatter, " protocol {number}"),
            },
        }
    }
}

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Its address, if it is one alone.
    pub(crate) fn host(self) -> Option<IpAddr> {
        self.is_whole().then_some(self.address)
    }

    /// Its first address.
    pub(crate) fn address(self) -> IpAddr {
        self.address
    }

    /// Whether an address is in it.
    pub(crate) fn has(self, address: IpAddr) -> bool {
        masked(address, self.bits) == self.address
    }

    fn is_whole(self) -> bool {
        self.bits == address_bits(self.address)
    }

    /// Every address of its family.
    fn whole_family(self) -> Prefix {
        Prefix { address: masked(self.address, 0), bits: 0 }
    }

    fn network(self) -> Network {
        Network { address: self.address, bits: self.bits }
    }

    fn on_the_wire(self) -> WirePrefix {
        match self.address {
            IpAddr::V4(address) => WirePrefix::V4 { address: address.octets(), length: self.bits },
            IpAddr::V6(address) => WirePrefix::V6 { address: address.octets(), length: self.bits },
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.bits)
    }
}

fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first `bits` of an address.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

/// Reads `{ src, dst, protocol }`.
pub(super) fn read(item: &Item<'_>) -> Result<Selector> {
    let mut table = item.table()?;
    let source = table.take("src").map(|item| prefix(&item)).transpose()?;
    let destination = table.take("dst").map(|item| prefix(&item)).transpose()?;
    if let (Some(source), Some(destination)) = (source, destination)
        && source.address.is_ipv4() != destination.address.is_ipv4()
    {
        return Err(table.error("src and dst are not of one family: no packet matches"));
    }
    let protocol = table.take("protocol").map(|item| protocol(&item)).transpose()?;
    table.finish()?;
    Ok(Selector { source, destination, protocol })
}

fn protocol(item: &Item<'_>) -> Result<u8> {
    if item.is_text() { item.word(&PROTOCOLS) } else { Ok(item.number(0, 255)? as u8) }
}

/// Reads an address.
pub(super) fn address(item: &Item<'_>) -> Result<IpAddr> {
    let text = item.text()?;
    text.parse().map_err(|_| item.error(format_args!("`{text}` is not an IP address")))
}

fn prefix(item: &Item<'_>) -> Result<Prefix> {
    let text = item.text()?;
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr =
        address.parse().map_err(|_| item.error(format_args!("`{address}` is not an IP address")))?;
    let most = address_bits(address);
    let bits = match bits {
        None => most,
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|bits| *bits <= most)
            .ok_or_else(|| item.error(format_args!("/{digits} is not a length from 0 to {most}")))?,
    };
    if masked(address, bits) != address {
        let network = masked(address, bits);
        return Err(
            item.error(format_args!("{text} has bits set beyond its length; meant {network}/{bits}?"))
        );
    }
    Ok(Prefix { address, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_gets_networks_of_one_family() {
        let prefix = |address: &str, bits| Some(Prefix { address: address.parse().unwrap(), bits });
        let cases = [
            ((None, None), None),
            ((prefix("10.0.0.0", 8), None), Some(("10.0.0.0", 8, "0.0.0.0", 0))),
            ((None, prefix("2001:db8::", 32)), Some(("::", 0, "2001:db8::", 32))),
            ((prefix("10.0.0.1", 32), prefix("10.0.0.2", 32)), Some(("10.0.0.1", 32, "10.0.0.2", 32))),
        ];
        for ((source, destination), wanted) in cases {
            let found = Selector { source, destination, protocol: Some(6) }.of_device().map(|selector| {
                assert_eq!(selector.protocol, Some(6));
                let Network { address, bits } = selector.source;
                (address, bits, selector.destination.address, selector.destination.bits)
            });
            let wanted = wanted.map(|(source, source_bits, destination, bits): (&str, u8, &str, u8)| {
                (source.parse().unwrap(), source_bits, destination.parse().unwrap(), bits)
            });
            assert_eq!(found, wanted);
        }
    }
}
