//! How the flows of `run` are protected: installs their SAs and keys at both ends, and names them.

use std::fmt::Display;

use cryptonic_driver::{
    AdminStatus, Capabilities, Direction, Lifetime, OuterHeader, PspSaConfiguration, PspTransmit,
    QueuePairOptions, SaConfiguration, SaHandle, Salt, SecretKey, Selector, UdpEncapsulation,
};
use cryptonic_regs::admin::Mode;
use zeroize::Zeroizing;

use super::traffic::{Side, far, near};
use crate::error::{Error, Result};
use crate::flow::{Descriptor, EspForm, Flow, Protection, PspForm, REPLAY_WINDOW};
use crate::sa_file::CIPHERS;
use crate::workload::{self, Random};

/// SPIs of the ESP SAs begin here.
pub(super) const FIRST_SPI: u32 = 0x1000;

/// Where the keys and salts of ESP come from.
pub(super) enum Keys {
    /// The seed. The model of a run is new, and nothing else has its keys.
    Seeded(Random),
    /// The operating system. A device outlives the run, and in its lifetime no key may come with the same sequence numbers
    /// twice (RFC 4106 section 3).
    Fresh,
}

impl Keys {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        match self {
            Keys::Seeded(random) => random.fill(bytes),
            Keys::Fresh => getrandom::fill(bytes)
                .map_err(|error| Error::input(format_args!("no random bytes: {error}")))?,
        }
        Ok(())
    }
}

/// Has the far end allocate an SPI, and gives its key to this end. Gives the SPI.
pub(super) fn psp(
    sides: &mut [Side],
    queue: usize,
    way: usize,
    lane: u32,
    form: PspForm,
) -> Result<(u32, cryptonic_driver::Protection)> {
    let opens = far(way, sides);
    let Side { name, nic, .. } = &mut sides[opens];
    let allocated = nic.psp_allocate(form.version, 1).map_err(|error| Error::at(&name, error))?;
    let psp = allocated.into_iter().next().ok_or_else(|| Error::at(name, "no SPI was allocated"))?;
    let protects = near(way, sides);
    let Side { name, nic, queues, .. } = &mut sides[protects];
    if form.slot {
        let configuration = psp_slot(form, way, lane, psp.version, psp.key, psp.spi);
        let handle = nic.install_psp_sa(configuration).map_err(|error| install_error(name, error))?;
        return Ok((psp.spi, cryptonic_driver::Protection::Sa(handle)));
    }
    let key = queues[queue].pair.add_psp_key(psp.version, psp.spi, &psp.key);
    let key = key.map_err(|error| Error::at(name, error))?;
    let cookie = form.cookie.then(|| cookie(lane));
    let transmit = PspTransmit { crypt_offset: form.crypt_offset, cookie, ..PspTransmit::new(key) };
    Ok((psp.spi, cryptonic_driver::Protection::PspKey(transmit)))
}

/// The end of a PSP lane that protects by a key in a slot.
fn psp_slot(
    form: PspForm,
    way: usize,
    lane: u32,
    version: u8,
    key: SecretKey,
    spi: u32,
) -> PspSaConfiguration {
    PspSaConfiguration {
        mode: if form.tunnel { Mode::Tunnel } else { Mode::Transport },
        outer: form.tunnel.then(|| outer_header(lane, way, form.outer_ipv6)),
        crypt_offset: form.crypt_offset,
        virtualization_cookie: form.cookie.then(|| cookie(lane)),
        ..PspSaConfiguration::new(version, key, spi)
    }
}

fn cookie(lane: u32) -> [u8; 8] {
    (u64::from(lane) + 1).to_be_bytes()
}

/// The ESP SAs of a lane, one after another.
#[derive(Clone, Copy)]
pub(super) struct EspLane {
    /// From the first NIC, or to it.
    pub(super) way: usize,
    pub(super) lane: u32,
    pub(super) form: EspForm,
    /// Addresses of its packets, source and destination.
    pub(super) inner: [std::net::IpAddr; 2],
}

impl EspLane {
    /// Installs both ends of an SA with a key of its own, the end that opens first. Gives the end that protects and the
    /// end that opens.
    pub(super) fn install(
        &self,
        sides: &mut [Side],
        spi: u32,
        sequence: u64,
        keys: &mut Keys,
    ) -> Result<[SaHandle; 2]> {
        let mut key = Zeroizing::new([0; 32]);
        let mut salt = [0; 4];
        keys.fill(key.as_mut())?;
        keys.fill(&mut salt)?;
        let (protects, opens) = (near(self.way, sides), far(self.way, sides));
        let mut install = |side: usize, direction| {
            let Side { name, nic, .. } = &mut sides[side];
            let configuration = self
                .configuration(direction, &key, Salt(salt), spi)
                .ok_or_else(|| Error::at(&name, "a key of this length"))?;
            nic.install_sa(SaConfiguration { sequence, ..configuration })
                .map_err(|error| install_error(name, error))
        };
        let inbound = install(opens, Direction::In)?;
        Ok([install(protects, Direction::Out)?, inbound])
    }

    /// One end of its SA, by as much of `key` as the cipher takes.
    fn configuration(
        &self,
        direction: Direction,
        key: &[u8; 32],
        salt: Salt,
        spi: u32,
    ) -> Option<SaConfiguration> {
        let EspLane { way, lane, form, inner } = *self;
        let key_bytes =
            CIPHERS.iter().find(|(_, (cipher, _))| *cipher == form.cipher).map_or(16, |row| row.1.1);
        let key = SecretKey::new(&key[..key_bytes])?;
        let outer = (form.mode != Mode::Transport).then(|| outer_header(lane, way, form.outer_ipv6));
        let beet = form.mode == Mode::Beet;
        Some(SaConfiguration {
            icv_bytes: form.icv_bytes,
            implicit_iv: form.implicit_iv,
            esn: form.esn,
            replay_window: if direction == Direction::In { form.replay_window } else { 0 },
            outer: outer.filter(|_| beet || direction == Direction::Out),
            encapsulation: form.in_udp.then(UdpEncapsulation::new),
            selector: beet.then(|| Selector::between(inner[0], inner[1])),
            cookie: lane + 1,
            lifetime: form.lifetime.unwrap_or_default(),
            ..SaConfiguration::new(direction, form.mode, form.cipher, key, salt, spi)
        })
    }
}

/// What a NIC lacks for its part in a flow, if anything.
pub(super) fn lacking(
    flow: &Flow,
    options: &QueuePairOptions,
    capabilities: &Capabilities,
) -> Option<String> {
    let mut able = capabilities.supports_queue(options);
    match flow.protection {
        Protection::Esp(form) => {
            let inner = [0, 1].map(|side| workload::address(flow.ipv6, 0, side));
            let lane = EspLane { way: 0, lane: 0, form, inner };
            for direction in [Direction::Out, Direction::In] {
                let sa = lane.configuration(direction, &[0; 32], Salt([0; 4]), FIRST_SPI);
                able = able.and_then(|()| sa.map_or(Ok(()), |sa| capabilities.supports(&sa)));
            }
        }
        Protection::Psp(form) if form.slot => {
            let sa = SecretKey::new(&[0; 32]).map(|key| psp_slot(form, 0, 0, form.version, key, 1));
            able = able.and_then(|()| sa.map_or(Ok(()), |sa| capabilities.supports_psp(&sa)));
        }
        Protection::Psp(form) => {
            able = able.and_then(|()| capabilities.supports_psp_key(form.version, form.cookie));
        }
    }
    able.err().map(|unsupported| unsupported.to_string())
}

/// An SA was not installed. A table that is full says what takes its slots.
fn install_error(name: impl Display, error: cryptonic_driver::Error) -> Error {
    match error {
        cryptonic_driver::Error::Refused { status: AdminStatus::NoFreeSlot, .. } => Error::at(
            name,
            "no free slot in the SA table: an SA takes one at either end, two while it is replaced, and with a lifetime one \
             that counts what its limits are of (capacity.sa_slots, capacity.sa_packet_slots_percent)",
        ),
        other => Error::at(name, other),
    }
}

/// A flow's protection in a few words.
pub(super) fn describe(flow: &Flow) -> String {
    let family = |ipv6: bool| if ipv6 { 6 } else { 4 };
    let mut text = match flow.protection {
        Protection::Esp(form) => {
            let cipher = form.cipher.name().replace('_', "-");
            match form.mode {
                Mode::Transport => format!("ESP transport, {cipher}"),
                mode => format!("ESP {} in IPv{}, {cipher}", mode.name(), family(form.outer_ipv6)),
            }
        }
        Protection::Psp(form) if form.tunnel => {
            format!("PSP tunnel in IPv{}, version {}", family(form.outer_ipv6), form.version)
        }
        Protection::Psp(form) => format!("PSP version {}", form.version),
    };
    let mut add = |is: bool, what: &str| {
        if is {
            text.push_str(", ");
            text.push_str(what);
        }
    };
    match flow.protection {
        Protection::Esp(form) => {
            add(form.icv_bytes != 16, &format!("ICV {}", form.icv_bytes));
            add(form.implicit_iv, "implicit IV");
            add(form.esn, "ESN");
            add(form.in_udp, "UDP");
            if let Some(Lifetime { kind, soft, hard }) = form.lifetime {
                let limits: Vec<String> = [soft, hard].iter().flatten().map(u64::to_string).collect();
                add(true, &format!("rekeyed at {} {}", limits.join(" of "), kind.name()));
            }
            add(form.replay_window != REPLAY_WINDOW, &format!("window {}", form.replay_window));
        }
        Protection::Psp(form) => {
            add(form.crypt_offset != 0, &format!("crypt offset {}", form.crypt_offset));
            add(form.cookie, "cookie");
            add(form.slot && !form.tunnel, "in a slot");
        }
    }
    add(flow.descriptor != Descriptor::STRIDE_64, flow.descriptor.name);
    add(flow.count > 1, &format!("{} SAs", flow.count));
    text
}

fn outer_header(lane: u32, way: usize, ipv6: bool) -> OuterHeader {
    let [high, low] = (lane as u16).to_be_bytes();
    let address = |side: usize| -> std::net::IpAddr {
        if ipv6 {
            [0x2001, 0xdb8, 0xffff, side as u16, 0, 0, 0, lane as u16].into()
        } else {
            [172, 16 + side as u8, high, low].into()
        }
    };
    OuterHeader::new(address(way), address(1 - way))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{self, DeviceName};
    use crate::flow::default_flows;
    use crate::workload::Sizes;
    use cryptonic_hwmodel::Parameters;

    #[test]
    fn a_flow_is_left_out_for_what_the_device_lacks() {
        type Change = fn(&mut Capabilities);
        const ESP: &[&str] = &["esp-tunnel", "esp-transport", "esp-udp", "esp-beet"];
        let device = device::open(&DeviceName::Model, &Parameters::default(), 1).expect("the model opens");
        let whole = device.nic.information().capabilities;
        let rows: &[(Change, &[&str], &str)] = &[
            (|_| (), &[], ""),
            (|all| all.protocol.set_esp_beet(false), &["esp-beet"], "ESP in BEET mode"),
            (|all| all.protocol.set_psp_versions(1), &["psp-v1"], "version 1 of PSP"),
            (|all| all.protocol.set_psp_slot(false), &["psp-tunnel"], "PSP keys in SA slots"),
            (|all| all.protocol.set_psp(false), &["psp-v0", "psp-v1", "psp-tunnel"], "PSP"),
            (|all| all.cipher.set_aes_gcm_256(false), &["esp-transport"], "AES-GCM with a 256-bit key"),
            (|all| all.replay_window_max = 64, ESP, "a replay window of more than 64 packets"),
        ];
        for (change, names, lacking_part) in rows {
            let mut capabilities = whole;
            change(&mut capabilities);
            let options = QueuePairOptions { stride: 64, ..QueuePairOptions::new() };
            let mut left_out = Vec::new();
            for flow in default_flows(&Sizes::Mix) {
                if let Some(reason) = lacking(&flow, &options, &capabilities) {
                    assert_eq!(reason, format!("the device does not support {lacking_part}"));
                    left_out.push(flow.name);
                }
            }
            assert_eq!(left_out, *names, "{lacking_part}");
        }
    }
}
