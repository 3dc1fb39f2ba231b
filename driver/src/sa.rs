//! Security associations: installing, asking after, deleting.

use std::fmt;
use std::net::IpAddr;

use cryptonic_regs::admin::{
    Cipher, DfPolicy, Direction, Mode, Opcode, SaForm, SaNames, SaParameters, SaProtocol, SaStateReply,
    SaWindow,
};

use crate::admin::Request;
use crate::ledger::Fingerprint;
use crate::{AdminAnomaly, Error, Nic, SecretKey};

/// What an ESP SA is to be. Installing consumes it, the key included.
#[derive(Debug)]
pub struct SaConfiguration {
    /// Whether it protects or opens.
    pub direction: Direction,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// The cipher; the key has its length.
    pub cipher: Cipher,
    /// The key.
    pub key: SecretKey,
    /// The salt.
    pub salt: Salt,
    /// The SPI.
    pub spi: u32,
    /// Bytes of the ICV: 8, 12 or 16.
    pub icv_bytes: u8,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Last sequence number used (out) or highest accepted (in).
    pub sequence: u64,
    /// In: replay window in packets; 0 is off.
    pub replay_window: u32,
    /// In: the destination address that must match, if it matters.
    pub destination: Option<IpAddr>,
    /// Out, tunnel mode: the outer header.
    pub outer: Option<OuterHeader>,
    /// In: the receive queue of its packets.
    pub receive_queue: u16,
    /// The host's own number, which comes back in receive completions.
    pub cookie: u32,
}

/// The four bytes of an SA that stand before the IV in the nonce. `Debug` does not show them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub [u8; 4]);

impl fmt::Debug for Salt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Salt(redacted)")
    }
}

impl From<[u8; 4]> for Salt {
    fn from(bytes: [u8; 4]) -> Self {
        Salt(bytes)
    }
}

/// The outer header of a tunnel. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterHeader {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// TTL or hop limit, at least 1.
    pub ttl: u8,
    /// The don't-fragment bit.
    pub df: DfPolicy,
    /// DSCP, 0 to 63; `None` copies the inner one.
    pub dscp: Option<u8>,
    /// Flow label of an IPv6 header, 20 bits.
    pub flow_label: u32,
}

impl OuterHeader {
    /// A header with the defaults of RFC 4301: TTL 64, don't-fragment and DSCP copied.
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        OuterHeader { source, destination, ttl: 64, df: DfPolicy::Copy, dscp: None, flow_label: 0 }
    }
}

/// Names an installed SA. A handle of an SA that was deleted names nothing, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SaHandle {
    /// Slot.
    pub index: u32,
    /// Generation of the slot.
    pub generation: u32,
}

/// State of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaState {
    /// Whether it protects or opens.
    pub direction: Direction,
    /// The SPI.
    pub spi: u32,
    /// Last sequence number used (out) or highest accepted (in).
    pub sequence: u64,
    /// Packets protected or opened.
    pub packets: u64,
    /// Bytes of the frames' IP packets, in clear.
    pub bytes: u64,
}

/// What the driver remembers of an SA.
pub(crate) struct InstalledSa {
    pub(crate) fingerprint: Fingerprint,
    direction: Direction,
    start: u64,
}

impl SaConfiguration {
    /// Checks against the contract and the capabilities of the device.
    fn check(&self, nic: &Nic) -> Result<(), Error> {
        let capabilities = &nic.information.capabilities;
        let (protocol, cipher) = (capabilities.protocol, capabilities.cipher);
        if !protocol.esp() {
            return Err(Error::Unsupported("ESP"));
        }
        let (mode, mode_name) = match self.mode {
            Mode::Tunnel => (protocol.esp_tunnel(), "ESP in tunnel mode"),
            Mode::Transport => (protocol.esp_transport(), "ESP in transport mode"),
            Mode::Beet => (protocol.esp_beet(), "ESP in BEET mode"),
        };
        let (key_bytes, known, cipher_name) = match self.cipher {
            Cipher::AesGcm128 => (16, cipher.aes_gcm_128(), "AES-GCM with a 128-bit key"),
            Cipher::AesGcm192 => (24, cipher.aes_gcm_192(), "AES-GCM with a 192-bit key"),
            Cipher::AesGcm256 => (32, cipher.aes_gcm_256(), "AES-GCM with a 256-bit key"),
            Cipher::AesGmac128 => (16, cipher.aes_gmac(), "AES-GMAC"),
            Cipher::AesGmac192 => (24, cipher.aes_gmac(), "AES-GMAC"),
            Cipher::AesGmac256 => (32, cipher.aes_gmac(), "AES-GMAC"),
        };
        let icv = match self.icv_bytes {
            8 => cipher.icv_8(),
            12 => cipher.icv_12(),
            16 => cipher.icv_16(),
            _ => return Err(Error::Argument("an ICV has 8, 12 or 16 bytes")),
        };
        for (known, name) in [
            (mode, mode_name),
            (known, cipher_name),
            (icv, "this ICV length"),
            (protocol.esn() || !self.esn, "ESN"),
        ] {
            if !known {
                return Err(Error::Unsupported(name));
            }
        }
        if self.key.bytes() != key_bytes {
            return Err(Error::Argument("the key does not have the length of its cipher"));
        }
        if !self.esn && self.sequence > u64::from(u32::MAX) {
            return Err(Error::Argument("without ESN a sequence number has 32 bits"));
        }
        if self.replay_window > capabilities.replay_window_max {
            return Err(Error::Unsupported("a replay window of this size"));
        }
        match (&self.outer, self.direction, self.mode) {
            (None, Direction::Out, Mode::Tunnel) => Err(Error::Argument("a tunnel needs an outer header")),
            (Some(outer), ..) if outer.source.is_ipv4() != outer.destination.is_ipv4() => {
                Err(Error::Argument("the addresses of an outer header are of one family"))
            }
            (Some(outer), ..) if outer.ttl == 0 => Err(Error::Argument("an outer TTL is at least 1")),
            (Some(outer), ..) if outer.dscp.is_some_and(|dscp| dscp > 63) => {
                Err(Error::Argument("a DSCP has 6 bits"))
            }
            (Some(outer), ..) if outer.flow_label >> 20 != 0 => {
                Err(Error::Argument("a flow label has 20 bits"))
            }
            _ => Ok(()),
        }
    }

    /// The public words of the parameter block.
    fn parameters(&self) -> SaParameters {
        let mut form = SaForm::new()
            .with_direction(self.direction.number() as u8)
            .with_protocol(SaProtocol::Esp.number() as u8)
            .with_mode(self.mode.number() as u8)
            .with_cipher(self.cipher.number() as u8)
            .with_icv_bytes(self.icv_bytes)
            .with_esn(self.esn)
            .with_receive_queue(self.receive_queue);
        let mut parameters = SaParameters {
            names: SaNames::new().with_spi(self.spi).with_cookie(self.cookie),
            sequence: self.sequence,
            window: SaWindow::new().with_replay_window(self.replay_window),
            ..SaParameters::default()
        };
        if let Some(destination) = self.destination {
            form = form.with_match_destination(true).with_destination_ipv6(destination.is_ipv6());
            [parameters.destination_0, parameters.destination_1] = address_words(destination);
        }
        if self.mode == Mode::Tunnel {
            // What opens packets builds no outer header: it has a family, and no rules.
            let family = self.outer.map(|outer| outer.source).or(self.destination);
            form = form.with_outer_ipv6(family.is_some_and(|address| address.is_ipv6()));
        }
        if let Some(outer) = self.outer.filter(|_| self.mode == Mode::Tunnel) {
            [parameters.tunnel_source_0, parameters.tunnel_source_1] = address_words(outer.source);
            [parameters.tunnel_destination_0, parameters.tunnel_destination_1] =
                address_words(outer.destination);
            if self.direction == Direction::Out {
                form = form
                    .with_copy_dscp(outer.dscp.is_none())
                    .with_dscp(outer.dscp.unwrap_or(0))
                    .with_df(outer.df.number() as u8)
                    .with_ttl(outer.ttl);
                parameters.window = parameters.window.with_flow_label(outer.flow_label);
            }
        }
        SaParameters { form, ..parameters }
    }
}

/// An address in memory order, an IPv4 address in the last four of 16 bytes.
fn address_words(address: IpAddr) -> [u64; 2] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(address) => bytes[12..].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    bytes.as_chunks::<8>().0.try_into().map_or([0; 2], |halves: [[u8; 8]; 2]| halves.map(u64::from_le_bytes))
}

impl Nic {
    /// Installs an SA. Its key stays in no memory of the host; a key that was in use before is refused,
    /// unless the start sequence is above everything it may have been used for.
    pub fn install_sa(&mut self, sa: SaConfiguration) -> Result<SaHandle, Error> {
        self.alive()?;
        sa.check(self)?;
        let claim = self.ledger.claim(sa.direction, &sa.key, sa.sequence)?;
        let fingerprint = claim.fingerprint;
        match self.install_claimed(&sa) {
            Ok(handle) => {
                self.installed
                    .insert(handle, InstalledSa { fingerprint, direction: sa.direction, start: sa.sequence });
                Ok(handle)
            }
            // The key reached no slot of the device.
            Err(error @ (Error::Refused { .. } | Error::AdminStopped | Error::Closed)) => {
                self.ledger.undo(claim);
                Err(error)
            }
            Err(error) => {
                // The device may have the key and may use it.
                self.ledger.retire(fingerprint, None);
                Err(error)
            }
        }
    }

    fn install_claimed(&mut self, sa: &SaConfiguration) -> Result<SaHandle, Error> {
        self.admin.set_parameter(0, &sa.parameters().to_words())?;
        self.admin.set_parameter(SaParameters::PUBLIC_WORDS, &*sa.key.words())?;
        self.admin
            .set_parameter(SaParameters::PUBLIC_WORDS + 4, &[u64::from(u32::from_le_bytes(sa.salt.0))])?;
        let command = Opcode::SaInstall;
        let request = Request { parameter_bytes: SaParameters::BYTES, ..Request::new(command) };
        let result = self.admin.run(request)?;
        let handle = SaHandle { index: result as u32, generation: (result >> 32) as u32 };
        let possible = handle.index < self.information.capabilities.sa_slots
            && handle.generation != 0
            && self.installed.keys().all(|other| other.index != handle.index);
        if possible { Ok(handle) } else { Err(Error::Anomaly { command, anomaly: AdminAnomaly::Result }) }
    }

    /// State of an SA.
    pub fn query_sa(&mut self, handle: SaHandle) -> Result<SaState, Error> {
        if !self.installed.contains_key(&handle) {
            return Err(Error::UnknownSa);
        }
        let command = Opcode::SaQuery;
        let arguments = [u64::from(handle.generation) << 32 | u64::from(handle.index), 0];
        self.admin.run(Request { arguments, reply_bytes: SaStateReply::BYTES, ..Request::new(command) })?;
        let mut words = [0; SaStateReply::WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.admin.reply(index)?;
        }
        let reply = SaStateReply::of_words(&words);
        let direction = Direction::of_number(u32::from(reply.head.direction()));
        match direction {
            Some(direction) if reply.head.state() == 1 => Ok(SaState {
                direction,
                spi: reply.head.spi(),
                sequence: reply.sequence,
                packets: reply.packets,
                bytes: reply.bytes,
            }),
            _ => Err(Error::Anomaly { command, anomaly: AdminAnomaly::Reply }),
        }
    }

    /// Deletes an SA. When this returns, no packet uses it any more and the device has zeroised its key.
    pub fn delete_sa(&mut self, handle: SaHandle) -> Result<(), Error> {
        let Some(sa) = self.installed.get(&handle) else {
            return Err(Error::UnknownSa);
        };
        let (fingerprint, direction, start) = (sa.fingerprint, sa.direction, sa.start);
        let last = self.query_sa(handle).ok().map(|state| state.sequence);
        // Packets may take numbers between that query and the deletion: at most those under way.
        let under_way: u64 = match direction {
            Direction::Out => self.shared.queues.borrow().iter().map(|queue| queue.in_flight()).sum(),
            Direction::In => 0,
        };
        let arguments = [u64::from(handle.generation) << 32 | u64::from(handle.index), 0];
        let outcome = self.admin.run(Request { arguments, ..Request::new(Opcode::SaDelete) });
        if let Err(error @ Error::Refused { .. }) = outcome {
            return Err(error);
        }
        self.installed.remove(&handle);
        let lowest = last
            .filter(|_| outcome.is_ok())
            .and_then(|last| last.max(start.saturating_add(1)).checked_add(under_way));
        self.ledger.retire(fingerprint, lowest);
        outcome.map(drop)
    }
}
