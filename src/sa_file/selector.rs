//! Selectors: which addresses a packet has.

use std::fmt;
use std::net::IpAddr;

use crate::error::Result;
use crate::toml_reader::Item;

/// Which packets an SA takes; a part that is absent takes all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Selector {
    pub(crate) source: Option<Prefix>,
    pub(crate) destination: Option<Prefix>,
}

impl Selector {
    /// Whether a packet between these addresses is taken.
    pub(crate) fn matches(&self, source: IpAddr, destination: IpAddr) -> bool {
        self.source.is_none_or(|prefix| prefix.contains(source))
            && self.destination.is_none_or(|prefix| prefix.contains(destination))
    }

    /// Whether it takes every packet.
    pub(crate) fn is_all(&self) -> bool {
        self.source.is_none() && self.destination.is_none()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |prefix: Option<Prefix>| prefix.map_or("any".to_owned(), |prefix| prefix.to_string());
        write!(formatter, "{} -> {}", part(self.source), part(self.destination))
    }
}

/// A network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Whether an address is in it.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && masked(address, self.bits) == masked(self.address, self.bits)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.bits)
    }
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

/// Reads `{ src, dst }`.
pub(super) fn read(item: &Item<'_>) -> Result<Selector> {
    let mut table = item.table()?;
    let source = table.take("src").map(|item| prefix(&item)).transpose()?;
    let destination = table.take("dst").map(|item| prefix(&item)).transpose()?;
    if let (Some(source), Some(destination)) = (source, destination)
        && source.address.is_ipv4() != destination.address.is_ipv4()
    {
        return Err(table.error("src and dst are not of one family: no packet matches"));
    }
    table.finish()?;
    Ok(Selector { source, destination })
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
    let most = if address.is_ipv4() { 32 } else { 128 };
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
    fn a_prefix_contains_its_family_alone() {
        let prefix = |address: &str, bits| Prefix { address: address.parse().unwrap(), bits };
        let cases = [
            (prefix("10.1.0.0", 16), "10.1.255.255", true),
            (prefix("10.1.0.0", 16), "10.2.0.0", false),
            (prefix("0.0.0.0", 0), "255.0.0.1", true),
            (prefix("0.0.0.0", 0), "::1", false),
            (prefix("::", 0), "ffff::", true),
            (prefix("2001:db8::", 32), "2001:db8:ffff::1", true),
            (prefix("2001:db8::1", 128), "2001:db8::2", false),
        ];
        for (prefix, address, within) in cases {
            assert_eq!(prefix.contains(address.parse().unwrap()), within, "{prefix} {address}");
        }
    }
}
