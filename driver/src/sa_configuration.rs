//! What a security association is to be, and the words that tell the device.

use std::fmt;
use std::net::IpAddr;

use cryptonic_regs::admin::{
    Cipher, DfPolicy, Direction, EcnPolicy, FlowLabelPolicy, Mode, SaForm, SaNames, SaOptions, SaParameters,
    SaProtocol, SaSelector, SaWindow,
};

use crate::{Error, Lifetime, SecretKey, SourcePort};

/// What an ESP SA is to be. Installing consumes it, the key included.
#[derive(Debug)]
pub struct SaConfiguration {
    /// Whether it protects or opens.
    pub direction: Direction,
    /// Tunnel, transport or BEET mode.
    pub mode: Mode,
    /// The cipher; the key has its length.
    pub cipher: Cipher,
    /// The key.
    pub key: SecretKey,
    /// The salt.
    pub salt: Salt,
    /// The SPI.
    pub spi: u32,
    /// Bytes of the ICV: 8, 12 or 16; 16 for GMAC and with an implicit IV.
    pub icv_bytes: u8,
    /// Extended sequence numbers.
    pub esn: bool,
    /// The IV is not sent: it is the sequence number (RFC 8750).
    pub implicit_iv: bool,
    /// Last sequence number used (out) or highest accepted (in).
    pub sequence: u64,
    /// In: replay window in packets; 0 is off.
    pub replay_window: u32,
    /// In: the destination address that must match, if it matters.
    pub destination: Option<IpAddr>,
    /// The outer header: needed out in tunnel mode, and in BEET mode, where its addresses alone count.
    pub outer: Option<OuterHeader>,
    /// ESP in UDP (RFC 3948). In: the SA takes packets in UDP alone, from any port.
    pub encapsulation: Option<UdpEncapsulation>,
    /// In: what its packets are. BEET mode: the inner addresses, whole.
    pub selector: Option<Selector>,
    /// In: opened packets must match the selector.
    pub check_selector: bool,
    /// In: packets in clear that match the selector do not enter.
    pub refuse_clear: bool,
    /// Out, transport mode over IPv6: ESP stands before the destination options header, and protects it.
    pub protect_destination_options: bool,
    /// Out, tunnel mode: shorter inner packets are padded to as many bytes (RFC 4303 2.7); 0 is off.
    pub tfc_bytes: u16,
    /// In: the receive queue of its packets.
    pub receive_queue: u16,
    /// In: receive scaling chooses the queue instead.
    pub receive_scaling: bool,
    /// When its key has been used enough.
    pub lifetime: Lifetime,
    /// Packets that the key protected or opened elsewhere before.
    pub packets: u64,
    /// Bytes that the key protected or opened elsewhere before.
    pub bytes: u64,
    /// The host's own number, which comes back in receive completions and in events.
    pub cookie: u32,
}

/// What a PSP SA is to be: it protects packets, its IVs are device time. Installing consumes it, the key included.
#[derive(Debug)]
pub struct PspSaConfiguration {
    /// PSP version, 0 to 3; the key has its length.
    pub version: u8,
    /// The key.
    pub key: SecretKey,
    /// The SPI.
    pub spi: u32,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// Tunnel mode: the outer header.
    pub outer: Option<OuterHeader>,
    /// Crypt offset in units of 4 bytes, 0 to 63.
    pub crypt_offset: u8,
    /// The UDP source port.
    pub source_port: SourcePort,
    /// The virtualization cookie, in the order of the wire.
    pub virtualization_cookie: Option<[u8; 8]>,
    /// When its key has been used enough.
    pub lifetime: Lifetime,
    /// Packets that the key protected or opened elsewhere before.
    pub packets: u64,
    /// Bytes that the key protected or opened elsewhere before.
    pub bytes: u64,
    /// The host's own number, which comes back in events.
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
    /// TTL or hop limit, at least 1; `None` copies the inner one.
    pub ttl: Option<u8>,
    /// The don't-fragment bit of an IPv4 header.
    pub df: DfPolicy,
    /// DSCP, 0 to 63; `None` copies the inner one.
    pub dscp: Option<u8>,
    /// The ECN field.
    pub ecn: EcnPolicy,
    /// Flow label of an IPv6 header.
    pub flow_label: FlowLabel,
}

impl OuterHeader {
    /// A header with the defaults of RFC 4301: TTL 64; don't-fragment, DSCP and ECN copied; flow label 0.
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        OuterHeader {
            source,
            destination,
            ttl: Some(64),
            df: DfPolicy::Copy,
            dscp: None,
            ecn: EcnPolicy::Copy,
            flow_label: FlowLabel::Fixed(0),
        }
    }
}

/// The flow label of an outer IPv6 header; numbers have 20 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowLabel {
    /// This one.
    Fixed(u32),
    /// That of the inner IPv6 header, this one for an inner IPv4 packet.
    CopyOr(u32),
    /// A keyed hash of the inner flow (RFC 6438).
    Hash,
}

/// ESP in UDP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpEncapsulation {
    /// Out: UDP source port.
    pub source_port: u16,
    /// Out: UDP destination port.
    pub destination_port: u16,
    /// Out, over IPv6: the UDP header has a checksum, without which receivers drop it (RFC 8200 8.1) unless they were told not
    /// to (RFC 6935). Over IPv4 it is 0 (RFC 3948 2.1).
    pub checksum: bool,
}

impl UdpEncapsulation {
    /// Port 4500 on both sides, with a checksum over IPv6.
    pub fn new() -> Self {
        UdpEncapsulation { source_port: 4500, destination_port: 4500, checksum: true }
    }
}

impl Default for UdpEncapsulation {
    fn default() -> Self {
        UdpEncapsulation::new()
    }
}

/// What the inner packets of an SA are. Both networks are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Source network.
    pub source: Network,
    /// Destination network.
    pub destination: Network,
    /// Upper protocol, if it matters.
    pub protocol: Option<u8>,
}

impl Selector {
    /// Packets between two addresses.
    pub fn between(source: IpAddr, destination: IpAddr) -> Self {
        Selector {
            source: Network::address(source),
            destination: Network::address(destination),
            protocol: None,
        }
    }
}

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address; bits behind the prefix are 0.
    pub address: IpAddr,
    /// Bits of the prefix, 0 to 32 or 128.
    pub bits: u8,
}

impl Network {
    /// The network of one address.
    pub fn address(address: IpAddr) -> Self {
        Network { address, bits: address_bits(address) }
    }

    fn is_whole(&self) -> bool {
        self.bits == address_bits(self.address)
    }
}

fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Bytes of a cipher's key.
pub(crate) fn cipher_key_bytes(cipher: Cipher) -> usize {
    match cipher {
        Cipher::AesGcm128 | Cipher::AesGmac128 => 16,
        Cipher::AesGcm192 | Cipher::AesGmac192 => 24,
        Cipher::AesGcm256 | Cipher::AesGmac256 => 32,
    }
}

/// Whether a cipher authenticates without encrypting (RFC 4543).
pub(crate) fn is_gmac(cipher: Cipher) -> bool {
    matches!(cipher, Cipher::AesGmac128 | Cipher::AesGmac192 | Cipher::AesGmac256)
}

/// Gives the sentence if the condition does not hold.
fn require(holds: bool, sentence: &'static str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Argument(sentence)) }
}

impl SaConfiguration {
    /// An SA with an ICV of 16 bytes, without ESN, from sequence number 0 on, and everything else off; the replay
    /// window of an inbound SA is 1024.
    pub fn new(
        direction: Direction,
        mode: Mode,
        cipher: Cipher,
        key: SecretKey,
        salt: impl Into<Salt>,
        spi: u32,
    ) -> Self {
        SaConfiguration {
            direction,
            mode,
            cipher,
            key,
            salt: salt.into(),
            spi,
            icv_bytes: 16,
            esn: false,
            implicit_iv: false,
            sequence: 0,
            replay_window: if direction == Direction::In { 1024 } else { 0 },
            destination: None,
            outer: None,
            encapsulation: None,
            selector: None,
            check_selector: false,
            refuse_clear: false,
            protect_destination_options: false,
            tfc_bytes: 0,
            receive_queue: 0,
            receive_scaling: false,
            lifetime: Lifetime::UNLIMITED,
            packets: 0,
            bytes: 0,
            cookie: 0,
        }
    }

    /// Checks against the contract: what no device can do.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let out = self.direction == Direction::Out;
        let selects = self.check_selector || self.refuse_clear;
        let whole_icv = self.icv_bytes == 16;
        let beet = self.mode == Mode::Beet;
        for (holds, sentence) in [
            (matches!(self.icv_bytes, 8 | 12 | 16), "an ICV has 8, 12 or 16 bytes"),
            (whole_icv || !is_gmac(self.cipher), "the ICV of GMAC has 16 bytes (RFC 4543 3.5)"),
            (whole_icv || !self.implicit_iv, "with an implicit IV the ICV has 16 bytes (RFC 8750 6)"),
            (!self.implicit_iv || !is_gmac(self.cipher), "GMAC has no implicit IV (RFC 8750 6)"),
            (
                self.key.bytes() == cipher_key_bytes(self.cipher),
                "the key does not have the length of its cipher",
            ),
            (self.esn || self.sequence <= u64::from(u32::MAX), "without ESN a sequence number has 32 bits"),
            (self.outer.is_some() || !(out && self.mode == Mode::Tunnel), "a tunnel needs an outer header"),
            (self.outer.is_some() || !beet, "BEET mode needs outer addresses"),
            (
                !beet
                    || self
                        .selector
                        .is_some_and(|inner| inner.source.is_whole() && inner.destination.is_whole()),
                "BEET mode needs a selector of two whole addresses",
            ),
            (self.selector.is_some() || !selects, "there is no selector to be checked"),
            (!out || !selects, "selectors are checked on receive"),
            (beet || !out || self.selector.is_none(), "an outbound SA has a selector in BEET mode alone"),
            (
                !self.protect_destination_options || (out && self.mode == Mode::Transport),
                "destination options are protected on transmit in transport mode",
            ),
            (
                self.tfc_bytes == 0 || (out && self.mode == Mode::Tunnel),
                "packets are padded on transmit in tunnel mode",
            ),
            (!self.receive_scaling || !out, "receive scaling is for inbound SAs"),
            (
                !self.receive_scaling || self.receive_queue == 0,
                "receive scaling and a receive queue contradict each other",
            ),
            (
                !out || self
                    .encapsulation
                    .is_none_or(|udp| udp.source_port != 0 && udp.destination_port != 0),
                "there is no UDP port 0",
            ),
            (!out || self.replay_window == 0, "an outbound SA has no replay window"),
            (!out || self.receive_queue == 0, "an outbound SA has no receive queue"),
            (!out || self.destination.is_none(), "an outbound SA matches no destination"),
        ] {
            require(holds, sentence)?;
        }
        self.lifetime.check(self.packets, self.bytes)?;
        if let Some(selector) = &self.selector {
            selector.check()?;
        }
        self.outer.as_ref().map_or(Ok(()), OuterHeader::check)
    }

    /// The public words of the parameter block. A field without a meaning for the SA is 0.
    pub(crate) fn parameters(&self) -> SaParameters {
        let out = self.direction == Direction::Out;
        let mut form = SaForm::new()
            .with_direction(self.direction.number() as u8)
            .with_protocol(SaProtocol::Esp.number() as u8)
            .with_mode(self.mode.number() as u8)
            .with_cipher(self.cipher.number() as u8)
            .with_icv_bytes(self.icv_bytes)
            .with_esn(self.esn)
            .with_implicit_iv(self.implicit_iv)
            .with_receive_scaling(self.receive_scaling)
            .with_receive_queue(self.receive_queue);
        let mut parameters = SaParameters {
            names: SaNames::new().with_spi(self.spi).with_cookie(self.cookie),
            sequence: self.sequence,
            window: SaWindow::new().with_replay_window(self.replay_window),
            options: SaOptions::new()
                .with_protect_destination_options(self.protect_destination_options)
                .with_check_selector(self.check_selector)
                .with_refuse_clear(self.refuse_clear)
                .with_tfc_bytes(self.tfc_bytes),
            packets: self.packets,
            bytes: self.bytes,
            ..SaParameters::default()
        };
        self.lifetime.put(&mut parameters);
        if let Some(destination) = self.destination {
            form = form.with_match_destination(true).with_destination_ipv6(destination.is_ipv6());
            [parameters.destination_0, parameters.destination_1] = address_words(destination);
        }
        let selects = self.check_selector || self.refuse_clear || self.mode == Mode::Beet;
        if let Some(selector) = self.selector.as_ref().filter(|_| selects) {
            selector.put(&mut parameters);
        }
        if let Some(udp) = &self.encapsulation {
            parameters.options = parameters.options.with_udp_encapsulation(true);
            if out {
                // Over IPv4 there is none (RFC 3948 2.1); in transport mode the family is the packet's.
                let ipv4 =
                    self.mode != Mode::Transport && self.outer.is_some_and(|outer| outer.source.is_ipv4());
                parameters.options = parameters
                    .options
                    .with_udp_checksum(udp.checksum && !ipv4)
                    .with_udp_source_port(udp.source_port);
                parameters.selector = parameters.selector.with_udp_destination_port(udp.destination_port);
            }
        }
        if self.mode != Mode::Transport {
            // What opens packets builds no outer header: it has a family, and no rules.
            let family = self.outer.map(|outer| outer.source).or(self.destination);
            form = form.with_outer_ipv6(family.is_some_and(|address| address.is_ipv6()));
            if let Some(outer) = &self.outer {
                outer.put_addresses(&mut parameters);
                if out && self.mode == Mode::Tunnel {
                    form = outer.put_rules(form, &mut parameters);
                }
            }
        }
        SaParameters { form, ..parameters }
    }
}

impl PspSaConfiguration {
    /// An SA that encrypts everything, in transport mode, with its source ports by entropy and without a cookie.
    pub fn new(version: u8, key: SecretKey, spi: u32) -> Self {
        PspSaConfiguration {
            version,
            key,
            spi,
            mode: Mode::Transport,
            outer: None,
            crypt_offset: 0,
            source_port: SourcePort::Entropy,
            virtualization_cookie: None,
            lifetime: Lifetime::UNLIMITED,
            packets: 0,
            bytes: 0,
            cookie: 0,
        }
    }

    /// The cipher that says the version.
    fn cipher(&self) -> Option<Cipher> {
        match self.version {
            0 => Some(Cipher::AesGcm128),
            1 => Some(Cipher::AesGcm256),
            2 => Some(Cipher::AesGmac128),
            3 => Some(Cipher::AesGmac256),
            _ => None,
        }
    }

    /// Checks against the contract: what no device can do.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let key_bytes = crate::psp::key_bytes(self.version);
        for (holds, sentence) in [
            (key_bytes.is_some(), "a version of PSP is 0 to 3"),
            (key_bytes == Some(self.key.bytes()), "the key does not have the length of its PSP version"),
            (self.spi & 0x7fff_ffff != 0, "an SPI of PSP is not 0 in its low 31 bits"),
            (self.mode != Mode::Beet, "PSP has no BEET mode"),
            (
                self.outer.is_some() == (self.mode == Mode::Tunnel),
                "a tunnel, and it alone, has an outer header",
            ),
            (self.crypt_offset <= 63, "a crypt offset has 6 bits"),
            (
                self.crypt_offset == 0 || self.version < 2,
                "a version of PSP that does not encrypt has no crypt offset",
            ),
        ] {
            require(holds, sentence)?;
        }
        self.lifetime.check(self.packets, self.bytes)?;
        self.outer.as_ref().map_or(Ok(()), OuterHeader::check)
    }

    /// The public words of the parameter block. A field without a meaning for the SA is 0.
    pub(crate) fn parameters(&self) -> SaParameters {
        let (policy, port) = self.source_port.policy();
        let mut form = SaForm::new()
            .with_direction(Direction::Out.number() as u8)
            .with_protocol(SaProtocol::Psp.number() as u8)
            .with_mode(self.mode.number() as u8)
            .with_cipher(self.cipher().map_or(0, Cipher::number) as u8)
            .with_icv_bytes(16);
        let mut parameters = SaParameters {
            names: SaNames::new().with_spi(self.spi).with_cookie(self.cookie),
            options: SaOptions::new()
                .with_psp_cookie(self.virtualization_cookie.is_some())
                .with_psp_crypt_offset(self.crypt_offset)
                .with_psp_source_port_policy(policy.number() as u8)
                .with_udp_source_port(port),
            psp_cookie: self.virtualization_cookie.map_or(0, u64::from_le_bytes),
            packets: self.packets,
            bytes: self.bytes,
            ..SaParameters::default()
        };
        self.lifetime.put(&mut parameters);
        if let Some(outer) = self.outer.as_ref().filter(|_| self.mode == Mode::Tunnel) {
            form = form.with_outer_ipv6(outer.source.is_ipv6());
            outer.put_addresses(&mut parameters);
            form = outer.put_rules(form, &mut parameters);
        }
        SaParameters { form, ..parameters }
    }
}

impl OuterHeader {
    fn check(&self) -> Result<(), Error> {
        let label = match self.flow_label {
            FlowLabel::Fixed(label) | FlowLabel::CopyOr(label) => label,
            FlowLabel::Hash => 0,
        };
        require(
            self.source.is_ipv4() == self.destination.is_ipv4(),
            "the addresses of an outer header are of one family",
        )?;
        require(self.ttl != Some(0), "an outer TTL is at least 1")?;
        require(self.dscp.is_none_or(|dscp| dscp <= 63), "a DSCP has 6 bits")?;
        require(label >> 20 == 0, "a flow label has 20 bits")
    }

    fn put_addresses(&self, parameters: &mut SaParameters) {
        [parameters.tunnel_source_0, parameters.tunnel_source_1] = address_words(self.source);
        [parameters.tunnel_destination_0, parameters.tunnel_destination_1] = address_words(self.destination);
    }

    /// The rules by which the header is built; those of the other family are 0.
    fn put_rules(&self, form: SaForm, parameters: &mut SaParameters) -> SaForm {
        let ipv6 = self.source.is_ipv6();
        let (policy, label) = match self.flow_label {
            FlowLabel::Fixed(label) => (FlowLabelPolicy::Fixed, label),
            FlowLabel::CopyOr(label) => (FlowLabelPolicy::Copy, label),
            FlowLabel::Hash => (FlowLabelPolicy::Hash, 0),
        };
        parameters.options = parameters.options.with_ecn(self.ecn.number() as u8);
        if ipv6 {
            parameters.options = parameters.options.with_flow_label_policy(policy.number() as u8);
            parameters.window = parameters.window.with_flow_label(label);
        }
        form.with_copy_dscp(self.dscp.is_none())
            .with_dscp(self.dscp.unwrap_or(0))
            .with_df(if ipv6 { 0 } else { self.df.number() as u8 })
            .with_ttl(self.ttl.unwrap_or(0))
    }
}

impl Selector {
    fn check(&self) -> Result<(), Error> {
        let (source, destination) = (&self.source, &self.destination);
        require(
            source.address.is_ipv4() == destination.address.is_ipv4(),
            "the networks of a selector are of one family",
        )?;
        for network in [source, destination] {
            require(network.bits <= address_bits(network.address), "a prefix is longer than its address")?;
        }
        Ok(())
    }

    fn put(&self, parameters: &mut SaParameters) {
        parameters.selector = SaSelector::new()
            .with_present(true)
            .with_ipv6(self.source.address.is_ipv6())
            .with_match_protocol(self.protocol.is_some())
            .with_protocol(self.protocol.unwrap_or(0))
            .with_source_bits(self.source.bits)
            .with_destination_bits(self.destination.bits);
        [parameters.selector_source_0, parameters.selector_source_1] = address_words(self.source.address);
        [parameters.selector_destination_0, parameters.selector_destination_1] =
            address_words(self.destination.address);
    }
}

/// An address in memory order, an IPv4 address in the last four of 16 bytes.
fn address_words(address: IpAddr) -> [u64; 2] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(address) => bytes[12..].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    let number = u128::from_le_bytes(bytes);
    [number as u64, (number >> 64) as u64]
}
