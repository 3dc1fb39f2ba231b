//! The security headers of generated frames, with what can be wrong with each.

use cryptonic_wire::{eesp, esp, ip, option, psp, wespv2};

use crate::random::Random;

/// An SPI: reserved ones, the last of these and the first behind them more often than chance has them.
fn spi(random: &mut Random) -> u32 {
    match random.below(40) {
        0 => 0,
        1 => 1 + random.below(255) as u32,
        2 => random.of(&[255, 256, 1 << 31, 1 << 16, u32::MAX]),
        _ => random.bits() as u32,
    }
}

/// The fixed part of ESP.
pub(super) fn write_esp(random: &mut Random, frame: &mut Vec<u8>) {
    frame.extend_from_slice(&spi(random).to_be_bytes());
    random.append(4, frame);
}

/// What comes to the port of ESP in UDP. Whether it is a packet by itself, which a keepalive is.
pub(super) fn write_at_esp_port(random: &mut Random, frame: &mut Vec<u8>) -> bool {
    match random.below(16) {
        0 => {
            frame.push(esp::NAT_KEEPALIVE);
            return random.percent(80);
        }
        1 => {
            let rest = random.below(3);
            frame.push(esp::NAT_KEEPALIVE ^ random.of(&[0, 1, 0x80, 0xff]));
            random.append(rest, frame);
            return random.percent(50);
        }
        2..4 => {
            let rest = random.below(20);
            frame.extend_from_slice(&esp::NON_ESP_MARKER);
            random.append(rest, frame);
        }
        4..=6 => {
            // ESP whose SPI cannot be taken for EESP's first bit.
            frame.extend_from_slice(&(spi(random) & 0x7fff_ffff).to_be_bytes());
            random.append(4, frame);
        }
        7 => write_esp(random, frame),
        8..=11 => write_eesp(random, frame),
        _ => {
            frame.extend_from_slice(&wespv2::UDP_MARKER);
            if random.percent(3)
                && let Some(octet) = frame.last_mut()
            {
                *octet ^= 1 << random.below(8);
            }
            write_wespv2(random, frame, false);
        }
    }
    false
}

/// PSP up to its payload, and mostly enough behind it for the ICV.
pub(super) fn write_psp(random: &mut Random, frame: &mut Vec<u8>) {
    let cookie = random.percent(40);
    let least = if cookie { 2 } else { 1 };
    let extension_length = match random.below(20) {
        0 => random.below(3),
        1 => random.below(256),
        2..6 => least + random.below(4),
        _ => least,
    };
    let crypt_offset = match random.below(8) {
        0 => random.below(64),
        1 => 0,
        _ => random.below(6),
    };
    let version = if random.percent(6) { random.below(16) } else { random.below(4) };
    let mut flags = random.octet() & (psp::flag::SAMPLE | psp::flag::DROP);
    flags |= (version as u8) << psp::flag::VERSION_SHIFT;
    flags |= if cookie { psp::flag::VIRTUALIZATION_COOKIE } else { 0 };
    flags |= if random.percent(97) { psp::flag::ONE } else { 0 };
    let mut spi = spi(random);
    if random.percent(2) {
        spi &= !psp::SPI_COUNT_MASK;
    }
    let offset = random.octet() & 0xc0 | crypt_offset as u8;
    frame.extend_from_slice(&[random.octet(), extension_length as u8, offset, flags]);
    frame.extend_from_slice(&spi.to_be_bytes());
    // Up to the payload as the header says, and at least the fixed part.
    let rest = (extension_length * 8).max(8);
    random.append(rest, frame);
    if random.percent(85) {
        let behind = psp::ICV_LENGTH + random.below(4) * random.below(9);
        random.append(behind, frame);
    }
}

/// EESP up to the end of its options.
pub(super) fn write_eesp(random: &mut Random, frame: &mut Vec<u8>) {
    let mut octets = [0; 255];
    let length = write_options(random, &mut octets, true);
    let first = match random.below(40) {
        0 => eesp::first::ONE ^ 1 << random.below(8),
        1 => random.octet(),
        _ => eesp::first::ONE,
    };
    frame.extend_from_slice(&[first, length as u8]);
    random.append(2, frame);
    frame.extend_from_slice(&spi(random).to_be_bytes());
    frame.extend_from_slice(&octets[..length]);
    if random.percent(50) {
        random.append(16, frame);
    }
}

/// WESPv2 up to the end of the ESP header in it.
pub(super) fn write_wespv2(random: &mut Random, frame: &mut Vec<u8>, aligned_8: bool) {
    let mut octets = [0; 255];
    let length = write_options(random, &mut octets[..usize::from(wespv2::MAX_OPTION_LENGTH)], false);
    let shortest = wespv2::HEADER_LENGTH + length + esp::FIXED_LENGTH;
    let unit = if aligned_8 { 8 } else { 4 };
    let right = shortest.next_multiple_of(unit) + if random.percent(50) { 8 } else { 0 };
    let header_length = match random.below(24) {
        0 => right.wrapping_sub(4),
        1 => right + random.below(8),
        2 => random.below(256),
        3 => random.below(20),
        _ => right,
    };
    let crypt_offset = if random.percent(40) { 0 } else { random.below(64) };
    let no_next_header = crypt_offset == 0 && random.percent(90);
    let next_header = if no_next_header { ip::protocol::NO_NEXT_HEADER } else { random.octet() };
    let version = if random.percent(4) { random.below(4) } else { usize::from(wespv2::VERSION) };
    frame.extend_from_slice(&[
        next_header,
        header_length as u8,
        (crypt_offset << 2) as u8 | random.octet() & 0b11,
        (version << 6 | length) as u8,
    ]);
    frame.extend_from_slice(&octets[..length]);
    write_esp(random, frame);
}

/// Options of either protocol at the front of `octets`, which is as long as they may be; gives their length.
fn write_options(random: &mut Random, octets: &mut [u8], eesp: bool) -> usize {
    let count = match random.below(20) {
        0..5 => 0,
        5..13 => 1 + random.below(3),
        13..18 => 4 + random.below(4),
        18 => option::MAX_OPTIONS,
        _ => option::MAX_OPTIONS + 1 + random.below(3),
    };
    let long = random.percent(15);
    let padded = random.percent(20);
    let mut length = 0;
    for index in 0..count {
        let option_type = match random.below(12) {
            0..2 => option::PAD1,
            2 => option::PADN,
            3..5 if eesp => eesp::option_type::CRYPT_OFFSET,
            _ if padded => option::PAD1,
            5 => random.octet(),
            _ if eesp => 3 + random.below(253) as u8,
            _ => 2 + random.below(30) as u8,
        };
        if option_type == option::PAD1 {
            length += put(octets, length, &[option_type]);
            continue;
        }
        let crypt_offset = eesp && option_type == eesp::option_type::CRYPT_OFFSET;
        let data = match random.below(20) {
            0 => random.below(6),
            _ if crypt_offset => 2,
            _ if long => random.below(60),
            _ => random.below(6),
        };
        if length + 2 + data > octets.len() {
            break;
        }
        length += put(octets, length, &[option_type, data as u8]);
        random.fill(&mut octets[length..length + data]);
        if crypt_offset && data >= 2 && !random.percent(10) {
            // The payload is behind the options that come yet, or just not.
            let least = (eesp::HEADER_LENGTH + length + data).div_ceil(4);
            let more = if index + 1 == count { 0 } else { 2 * (count - index) };
            let payload = least + more + random.below(8);
            octets[length] = (payload << 2) as u8 | random.octet() & 0b11;
        }
        length += data;
    }
    if random.percent(10) {
        // Padding up to any length.
        let data = random.below(octets.len().saturating_sub(length + 1));
        let padded = put(octets, length, &[option::PADN, data as u8]);
        length += if padded == 0 { 0 } else { padded + data };
    }
    match random.below(32) {
        // The last one passes the end.
        0 => length.saturating_sub(1 + random.below(3)),
        1 => length + put(octets, length, &[option::PADN]),
        2 => length + put(octets, length, &[random.octet(), random.octet()]),
        _ => length,
    }
}

/// Puts octets at a place if there is room; gives how many it has put.
fn put(octets: &mut [u8], at: usize, these: &[u8]) -> usize {
    match octets.get_mut(at..at + these.len()) {
        Some(place) => {
            place.copy_from_slice(these);
            these.len()
        }
        None => 0,
    }
}
