//! How the flows of `run` are protected: installs their SAs and keys at both ends, and names them.

use cryptonic_driver::{
    AdminStatus, Direction, Lifetime, Nic, OuterHeader, PspSaConfiguration, PspTransmit, QueuePair,
    SaConfiguration, SaHandle, Salt, SecretKey, Selector, UdpEncapsulation,
};
use cryptonic_regs::admin::Mode;

use super::traffic::device_error;
use crate::error::{Error, Result};
use crate::flow::{Descriptor, EspForm, Flow, Protection, PspForm, REPLAY_WINDOW};
use crate::sa_file::CIPHERS;
use crate::workload::Random;

/// SPIs of the ESP SAs begin here.
pub(super) const FIRST_SPI: u32 = 0x1000;

/// Has the far end allocate an SPI, and gives its key to this end. Gives the SPI.
pub(super) fn psp(
    nics: &mut [Nic],
    queue: &mut QueuePair,
    way: usize,
    lane: u32,
    form: PspForm,
) -> Result<(u32, cryptonic_driver::Protection)> {
    let allocated = nics[1 - way].psp_allocate(form.version, 1).map_err(device_error)?;
    let psp = allocated.into_iter().next().ok_or_else(|| device_error("no SPI was allocated"))?;
    let cookie = form.cookie.then(|| (u64::from(lane) + 1).to_be_bytes());
    if form.slot {
        let outer = form.tunnel.then(|| outer_header(lane, way, form.outer_ipv6));
        let configuration = PspSaConfiguration {
            mode: if form.tunnel { Mode::Tunnel } else { Mode::Transport },
            outer,
            crypt_offset: form.crypt_offset,
            virtualization_cookie: cookie,
            ..PspSaConfiguration::new(psp.version, psp.key, psp.spi)
        };
        let handle = nics[way].install_psp_sa(configuration).map_err(install_error)?;
        return Ok((psp.spi, cryptonic_driver::Protection::Sa(handle)));
    }
    let key = queue.add_psp_key(psp.version, psp.spi, &psp.key).map_err(device_error)?;
    let transmit = PspTransmit { crypt_offset: form.crypt_offset, cookie, ..PspTransmit::new(key) };
    Ok((psp.spi, cryptonic_driver::Protection::PspKey(transmit)))
}

/// The ESP SAs of a lane, one after another.
#[derive(Clone, Copy)]
pub(super) struct EspLane {
    /// The NIC that sends.
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
        nics: [&mut Nic; 2],
        spi: u32,
        sequence: u64,
        random: &mut Random,
    ) -> Result<[SaHandle; 2]> {
        let EspLane { way, lane, form, inner } = *self;
        let mut key = zeroize::Zeroizing::new([0; 32]);
        let mut salt = [0; 4];
        random.fill(key.as_mut());
        random.fill(&mut salt);
        let key_bytes =
            CIPHERS.iter().find(|(_, (cipher, _))| *cipher == form.cipher).map_or(16, |row| row.1.1);
        let outer = (form.mode != Mode::Transport).then(|| outer_header(lane, way, form.outer_ipv6));
        let configuration = |direction| -> Result<SaConfiguration> {
            let key =
                SecretKey::new(&key[..key_bytes]).ok_or_else(|| device_error("a key of this length"))?;
            let beet = form.mode == Mode::Beet;
            Ok(SaConfiguration {
                icv_bytes: form.icv_bytes,
                implicit_iv: form.implicit_iv,
                esn: form.esn,
                replay_window: if direction == Direction::In { form.replay_window } else { 0 },
                sequence,
                outer: outer.filter(|_| beet || direction == Direction::Out),
                encapsulation: form.in_udp.then(UdpEncapsulation::new),
                selector: beet.then(|| Selector::between(inner[0], inner[1])),
                cookie: lane + 1,
                lifetime: form.lifetime.unwrap_or_default(),
                ..SaConfiguration::new(direction, form.mode, form.cipher, key, Salt(salt), spi)
            })
        };
        let inbound = nics[1 - way].install_sa(configuration(Direction::In)?);
        let inbound = inbound.map_err(install_error)?;
        let outbound = nics[way].install_sa(configuration(Direction::Out)?);
        Ok([outbound.map_err(install_error)?, inbound])
    }
}

/// An SA was not installed. A table that is full says what takes its slots.
fn install_error(error: cryptonic_driver::Error) -> Error {
    match error {
        cryptonic_driver::Error::Refused { status: AdminStatus::NoFreeSlot, .. } => device_error(
            "no free slot in the SA table: an SA takes one at either end, two while it is replaced, and with a lifetime one \
             that counts what its limits are of (capacity.sa_slots, capacity.sa_packet_slots_percent)",
        ),
        other => device_error(other),
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
