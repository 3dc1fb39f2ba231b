//! A case as a command line, so that it can be run again: `cryptonic cosim --packet HEX ...`.

use std::fmt::Write as _;

use cryptonic_wire::packet::{Expected, UdpPorts};

use crate::packets::MAX_OCTETS;
use crate::stimulus::{ALL_EXPECTED, Case, Offer, join};

/// The options of `cryptonic cosim` that run a case again. What they leave out is as it is without them.
pub fn options(case: &Case) -> String {
    let mut text = String::new();
    for offer in &case.offers {
        let _ = write!(text, " --packet {}", hexadecimal(&offer.frame));
    }
    let gaps = gaps(case);
    if gaps.iter().any(|gap| *gap != 0) {
        let _ = write!(text, " --gaps {}", join(&gaps, ","));
    }
    if !case.stalls.is_empty() {
        let _ = write!(text, " --stalls {}", join(&case.stalls, "/"));
    }
    if case.expected != ALL_EXPECTED {
        let _ = write!(text, " --expect {}", expected_text(&case.expected));
    }
    text.trim_start().to_owned()
}

/// The gaps before all beats of all packets, without the zeros at the end.
fn gaps(case: &Case) -> Vec<u16> {
    let mut gaps = Vec::new();
    for offer in &case.offers {
        let beats = offer.frame.len().div_ceil(64);
        gaps.extend((0..beats).map(|beat| offer.gaps.get(beat).copied().unwrap_or(0)));
    }
    while gaps.last() == Some(&0) {
        gaps.pop();
    }
    gaps
}

/// Packets with the idle cycles before each of their beats, all packets' beats in one list.
pub fn offers(frames: Vec<Vec<u8>>, gaps: &[u16]) -> Vec<Offer> {
    let mut gaps = gaps.iter().copied();
    let offer = |frame: Vec<u8>| {
        let gaps = gaps.by_ref().take(frame.len().div_ceil(64)).collect();
        Offer { frame, gaps }
    };
    frames.into_iter().map(offer).collect()
}

/// Octets as hexadecimal digits.
pub fn hexadecimal(octets: &[u8]) -> String {
    let mut text = String::with_capacity(2 * octets.len());
    for octet in octets {
        let _ = write!(text, "{octet:02x}");
    }
    text
}

/// A packet from hexadecimal digits; spaces, colons and line ends between octets do not count.
///
/// # Errors
/// A sentence: what is not a digit, an odd number of them, or no packet of 1 to 16383 octets.
pub fn parse_packet(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut high = None;
    for character in text.chars().filter(|character| !character.is_whitespace() && *character != ':') {
        let digit =
            character.to_digit(16).ok_or_else(|| format!("'{character}' is no hexadecimal digit"))? as u8;
        match high.take() {
            None => high = Some(digit),
            Some(high) => octets.push(high << 4 | digit),
        }
    }
    if high.is_some() {
        return Err("an odd number of hexadecimal digits".to_owned());
    }
    if octets.is_empty() || octets.len() > MAX_OCTETS {
        return Err(format!("{} octets: a packet has 1 to {MAX_OCTETS}", octets.len()));
    }
    Ok(octets)
}

/// A configuration as text: `psp=1000,esp=4500,eesp=253,eesp-in-udp=1,wespv2=141`.
pub fn expected_text(expected: &Expected) -> String {
    let Expected { udp_ports: UdpPorts { psp, esp }, eesp_protocol, eesp_in_udp, wespv2_protocol } = expected;
    let in_udp = u8::from(*eesp_in_udp);
    format!("psp={psp},esp={esp},eesp={eesp_protocol},eesp-in-udp={in_udp},wespv2={wespv2_protocol}")
}

/// A configuration from text; what is not named is as in [`ALL_EXPECTED`].
///
/// # Errors
/// A sentence that names the part.
pub fn parse_expected(text: &str) -> Result<Expected, String> {
    let mut expected = ALL_EXPECTED;
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("'{part}' is no key=number"))?;
        let most = match key {
            "psp" | "esp" => u16::MAX,
            "eesp-in-udp" => 1,
            _ => u8::MAX.into(),
        };
        let number: u16 = value
            .parse()
            .ok()
            .filter(|number| *number <= most)
            .ok_or_else(|| format!("'{part}' wants a number from 0 to {most}"))?;
        match key {
            "psp" => expected.udp_ports.psp = number,
            "esp" => expected.udp_ports.esp = number,
            "eesp" => expected.eesp_protocol = number as u8,
            "eesp-in-udp" => expected.eesp_in_udp = number != 0,
            "wespv2" => expected.wespv2_protocol = number as u8,
            _ => {
                return Err(format!("unknown key '{key}'; there are psp, esp, eesp, eesp-in-udp and wespv2"));
            }
        }
    }
    Ok(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_as_it_is_written() {
        let expected = Expected { eesp_in_udp: false, eesp_protocol: 99, ..ALL_EXPECTED };
        let text = expected_text(&expected);
        assert_eq!(parse_expected(&text), Ok(expected));
        let frames = vec![vec![0xab; 65], vec![1]];
        let case = Case { expected, offers: offers(frames, &[0, 3]), stalls: vec![2, 1] };
        let long = "ab".repeat(65);
        assert_eq!(
            options(&case),
            format!("--packet {long} --packet 01 --gaps 0,3 --stalls 2/1 --expect {text}")
        );
        let plain = Case { expected: ALL_EXPECTED, offers: offers(vec![vec![0xff]], &[]), stalls: vec![] };
        assert_eq!(options(&plain), "--packet ff");
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        assert_eq!(parse_packet("00 0a:FF\n"), Ok(vec![0, 10, 255]));
        for text in ["", "0", "0g", "000", &"00".repeat(MAX_OCTETS + 1)] {
            assert!(parse_packet(text).is_err());
        }
        for text in ["", "psp", "psp=65536", "eesp=256", "eesp-in-udp=2", "port=1", "esp=-1"] {
            assert!(parse_expected(text).is_err(), "{text}");
        }
    }
}
