//! What goes around a packet: the outer header of a tunnel, and UDP around ESP.

use cryptonic_driver::{FlowLabel, OuterHeader, UdpEncapsulation};
use cryptonic_regs::admin::{DfPolicy, Direction, EcnPolicy, Mode};

use super::note_if_idle;
use super::selector::address;
use crate::error::Result;
use crate::toml_reader::{Item, Table};

/// Reads `tunnel`, which `mode` may need or have no place for. Inbound and in BEET mode its addresses alone count.
pub(super) fn tunnel(
    table: &mut Table<'_>,
    mode: Mode,
    direction: Direction,
    notes: &mut Vec<String>,
) -> Result<Option<OuterHeader>> {
    let needed = match mode {
        Mode::Transport => false,
        Mode::Tunnel => direction == Direction::Out,
        Mode::Beet => true,
    };
    match table.take("tunnel") {
        Some(item) if mode == Mode::Transport => {
            Err(item.error("mode \"transport\" keeps the packet's own header; `tunnel` has no place"))
        }
        Some(item) => outer_header(&item, mode, direction, notes).map(Some),
        None if needed => {
            let name = mode.name();
            Err(table.error(format_args!("`tunnel` is missing: mode \"{name}\" needs the outer addresses")))
        }
        None => Ok(None),
    }
}

fn outer_header(
    item: &Item<'_>,
    mode: Mode,
    direction: Direction,
    notes: &mut Vec<String>,
) -> Result<OuterHeader> {
    let mut table = item.table()?;
    let source = address(&table.require("src")?)?;
    let destination_item = table.require("dst")?;
    let destination = address(&destination_item)?;
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(destination_item.error("src and dst are not of one family"));
    }
    let mut outer = OuterHeader::new(source, destination);
    for key in ["ttl", "df", "dscp", "ecn", "flow_label"] {
        let Some(item) = table.take(key) else { continue };
        if mode == Mode::Beet {
            return Err(
                item.error("mode \"beet\" takes these from the packet itself; `tunnel` has its addresses")
            );
        }
        match key {
            "ttl" => outer.ttl = number_or_copy(&item, 1, 255)?.map(|ttl| ttl as u8),
            "df" => {
                outer.df = item.word(&[
                    ("copy", DfPolicy::Copy),
                    ("set", DfPolicy::Set),
                    ("clear", DfPolicy::Clear),
                ])?;
                note_if_idle(&item, source.is_ipv6(), "an IPv6 outer header", notes);
            }
            "dscp" => outer.dscp = number_or_copy(&item, 0, 63)?.map(|dscp| dscp as u8),
            "ecn" => {
                outer.ecn =
                    item.word(&[("copy", EcnPolicy::Copy), ("not-capable", EcnPolicy::NotCapable)])?;
            }
            _ => {
                outer.flow_label = flow_label(&item)?;
                if source.is_ipv4() {
                    return Err(item.error("an IPv4 outer header has no flow label"));
                }
            }
        }
        note_if_idle(&item, direction == Direction::In, "an inbound SA", notes);
    }
    table.finish()?;
    Ok(outer)
}

/// A number, or "copy", which is none.
fn number_or_copy(item: &Item<'_>, low: u64, high: u64) -> Result<Option<u64>> {
    if item.is_text() { item.word(&[("copy", None)]) } else { item.number(low, high).map(Some) }
}

fn flow_label(item: &Item<'_>) -> Result<FlowLabel> {
    if item.is_text() {
        // An inner IPv4 packet has none to copy; its outer header then has 0.
        return item.word(&[("copy", FlowLabel::CopyOr(0)), ("hash", FlowLabel::Hash)]);
    }
    Ok(FlowLabel::Fixed(item.number(0, 0xf_ffff)? as u32))
}

/// Reads `udp_encap`.
pub(super) fn encapsulation(
    item: &Item<'_>,
    direction: Direction,
    notes: &mut Vec<String>,
) -> Result<UdpEncapsulation> {
    let mut table = item.table()?;
    let mut udp = UdpEncapsulation::new();
    if let Some(item) = table.take("src_port") {
        udp.source_port = item.number(1, 65_535)? as u16;
        note_if_idle(
            &item,
            direction == Direction::In,
            "an inbound SA, which takes packets from any port",
            notes,
        );
    }
    if let Some(item) = table.take("dst_port") {
        udp.destination_port = item.number(1, 65_535)? as u16;
    }
    if let Some(item) = table.take("checksum") {
        udp.checksum = item.boolean()?;
        note_if_idle(&item, direction == Direction::In, "an inbound SA", notes);
    }
    table.finish()?;
    Ok(udp)
}
