//! A difference in words: the packet, what the model says of it and what the unit shows, field by field.

use std::fmt::Write as _;

use cryptonic_hwmodel::rx_parse::Result as ParseResult;

use crate::lockstep::{Difference, Shown};
use crate::reproduction::{expected_text, hexadecimal};
use crate::stimulus::Case;

/// Octets of a packet that are printed.
const DUMPED: usize = 512;

/// A difference in a case, in several lines.
pub fn difference(difference: &Difference, case: &Case) -> String {
    let mut text = String::new();
    let Difference { what, cycle, packet, model, unit, ports, assertion, .. } = difference;
    let _ = writeln!(text, "cycle {cycle}, packet {packet}: {} differs", what.name());
    let _ = writeln!(text, "  configuration {}", expected_text(&case.expected));
    if let Some(assertion) = assertion {
        let _ = writeln!(text, "  the unit says: {assertion}");
    }
    let _ = writeln!(text, "  {:<22}{:<36}unit", "", "model");
    for (name, model, unit) in fields(model, unit) {
        let mark = if model == unit { ' ' } else { '*' };
        let _ = writeln!(text, "{mark} {name:<22}{model:<36}{unit}");
    }
    for port in ports {
        let _ = writeln!(text, "* port {:<34} model {}, unit {}", port.port, port.model, port.rtl);
    }
    if let Some(offer) = case.offers.get(*packet) {
        let _ = writeln!(text, "packet {packet}, {} octets:", offer.frame.len());
        dump(&mut text, &offer.frame);
    }
    text
}

/// Octets in hexadecimal, sixteen in a line; a gap where a beat ends.
fn dump(text: &mut String, octets: &[u8]) {
    for (index, line) in octets.chunks(16).take(DUMPED / 16).enumerate() {
        if index > 0 && index % 4 == 0 {
            text.push('\n');
        }
        let _ = write!(text, "  {:04x} ", index * 16);
        for octet in line {
            let _ = write!(text, " {octet:02x}");
        }
        text.push('\n');
    }
    if octets.len() > DUMPED {
        let _ = writeln!(text, "  ... {} octets more", octets.len() - DUMPED);
    }
}

/// Each field with the model's and the unit's view of it.
fn fields(model: &Shown, unit: &Shown) -> Vec<(&'static str, String, String)> {
    let mut rows = vec![
        ("ready", model.outputs.ready.to_string(), unit.outputs.ready.to_string()),
        ("drained", model.drained.to_string(), unit.drained.to_string()),
    ];
    let (models, units) = (views(&model.outputs.result), views(&unit.outputs.result));
    for (index, (name, model)) in models.iter().enumerate() {
        let unit = units.get(index).map_or("", |(_, unit)| unit);
        rows.push((name, model.clone(), unit.to_owned()));
    }
    rows
}

/// A result, field by field; as many fields whatever the result is.
fn views(result: &Option<ParseResult>) -> Vec<(&'static str, String)> {
    let verdict = match result {
        None => "no result",
        Some(Ok(_)) => "ok",
        Some(Err(status)) => status.name(),
    };
    let parsed = match result {
        Some(Ok(headers)) => Some(headers),
        _ => None,
    };
    let mut views = vec![("verdict", verdict.to_owned())];
    let mut field = |name, view: &dyn Fn(&cryptonic_hwmodel::rx_parse::Headers) -> String| {
        views.push((name, parsed.map_or_else(|| "-".to_owned(), view)));
    };
    field("protocol", &|headers| format!("{:?}", headers.parsed.protocol));
    field("reserved_esp_spi", &|headers| headers.parsed.reserved_esp_spi.to_string());
    field("vlan", &|headers| optional(headers.parsed.plain.vlan));
    field("l3_offset", &|headers| headers.parsed.plain.l3_offset.to_string());
    field("ip_version", &|headers| headers.parsed.plain.ip_version.to_string());
    field("l4_offset", &|headers| headers.parsed.plain.l4_offset().to_string());
    field("l3_end", &|headers| headers.parsed.plain.l3_end.to_string());
    field("next_header", &|headers| headers.parsed.plain.next_header.to_string());
    field("next_header_offset", &|headers| headers.parsed.plain.next_header_offset.to_string());
    field("traffic_class", &|headers| headers.parsed.plain.traffic_class.to_string());
    field("dont_fragment", &|headers| headers.parsed.plain.dont_fragment.to_string());
    field("hop_limit", &|headers| headers.parsed.plain.hop_limit.to_string());
    field("flow_label", &|headers| format!("{:#x}", headers.parsed.plain.flow_label));
    field("source", &|headers| hexadecimal(&headers.parsed.plain.source));
    field("destination", &|headers| hexadecimal(&headers.parsed.plain.destination));
    field("ports", &|headers| {
        let ports = headers.parsed.plain.ports;
        ports.map_or_else(|| "-".to_owned(), |ports| format!("{} to {}", ports.source, ports.destination))
    });
    field("fragment", &|headers| headers.parsed.plain.fragment.to_string());
    field("udp_offset", &|headers| optional(headers.parsed.udp_offset));
    field("security_offset", &|headers| headers.parsed.security_offset.to_string());
    field("spi", &|headers| format!("{:#x}", headers.parsed.spi));
    field("session_id", &|headers| headers.parsed.session_id.to_string());
    field("sequence", &|headers| headers.parsed.sequence.to_string());
    field("numbers_offset", &|headers| headers.parsed.numbers_offset.to_string());
    field("header_octets", &|headers| headers.parsed.header_octets.to_string());
    field("crypt_offset", &|headers| headers.parsed.crypt_offset.to_string());
    field("payload_offset", &|headers| optional(headers.parsed.payload_offset));
    field("psp_flags", &|headers| format!("{:#04x}", headers.parsed.psp_flags));
    field("numbers", &|headers| hexadecimal(&headers.numbers));
    views
}

fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
