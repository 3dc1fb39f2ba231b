//! From the words of `sa_install` to an SA. Firmware judged the public ones; what it never sees, and what would make the
//! stages behind do what the words do not say, is judged here.

use crate::Ticks;
use cryptonic_crypto::{Cipher, GcmKey};
use cryptonic_regs::admin::{self, Direction, Mode, SaParameters, SaProtocol};
use cryptonic_regs::descriptor::SourcePortPolicy;
use cryptonic_wire::aead::IcvLength;
use cryptonic_wire::esp::{self, Ipv6UdpChecksum, LastOptions, UdpEncapsulation};
use cryptonic_wire::outer::{DontFragment, Dscp, Ecn, Endpoints, FlowLabel, OuterTemplate, Ttl};
use cryptonic_wire::packet::Ports;
use cryptonic_wire::psp::{VIRTUALIZATION_COOKIE_LENGTH, Version};
use cryptonic_wire::selector::{Prefix, Selector};
use cryptonic_wire::sequence::{ReplayWindow, ring_blocks};
use zeroize::Zeroizing;

use crate::sa_lifetime::Lifetime;
use crate::sa_table::Sa;

/// Words of the parameters that hold secrets, and the reserved one behind them.
pub const SECRET_WORDS: usize = SaParameters::WORDS - SaParameters::PUBLIC_WORDS;
const KEY_WORDS: usize = 4;

/// What an SA does with its packets' octets, beside the key.
pub enum Form {
    /// ESP.
    Esp(esp::Parameters),
    /// PSP, on transmit.
    Psp(PspForm),
}

/// What a slot says of its PSP packets.
#[derive(Clone, Copy)]
pub struct PspForm {
    /// The algorithm.
    pub version: Version,
    /// In units of 4 bytes from the end of the IV.
    pub crypt_offset: u8,
    /// The virtualization cookie, if it is sent.
    pub cookie: Option<[u8; VIRTUALIZATION_COOKIE_LENGTH]>,
    /// Where the UDP source port comes from.
    pub source_port: SourcePortPolicy,
    /// The port of the policy `fixed`.
    pub fixed_port: u16,
}

/// Makes an SA of the public words of its parameters (the others are not looked at) and of its secret words. `None`
/// where a field is out of range.
pub fn sa_of_parameters(public: &SaParameters, secret: &[u64; SECRET_WORDS]) -> Option<Sa> {
    let (form, options) = (public.form, public.options);
    let cipher = cipher_of_number(form.cipher())?;
    let [key_words @ .., salt, reserved] = secret;
    let mut key = Zeroizing::new([0_u8; KEY_WORDS * 8]);
    for (bytes, word) in key.chunks_exact_mut(8).zip(key_words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let (key, behind_key) = key.split_at(cipher.key_length());
    let salt = Zeroizing::new(salt.to_le_bytes());
    let (salt, behind_salt) = salt.split_first_chunk::<4>()?;
    let protocol = SaProtocol::of_number(u32::from(form.protocol()))?;
    // PSP has no salt: SPI and IV are all of its nonce.
    let unused_salt: &[u8] = if protocol == SaProtocol::Psp { salt } else { &[] };
    if behind_key.iter().chain(behind_salt).chain(unused_salt).any(|byte| *byte != 0) || *reserved != 0 {
        return None;
    }
    let window = public.window.replay_window();
    let selector = selector_of_parameters(public);
    Some(Sa {
        generation: 0,
        direction: Direction::of_number(u32::from(form.direction()))?,
        mode: Mode::of_number(u32::from(form.mode()))?,
        spi: public.names.spi(),
        cookie: public.names.cookie(),
        receive_queue: form.receive_queue(),
        receive_scaling: form.receive_scaling(),
        in_udp: options.udp_encapsulation(),
        form: match protocol {
            SaProtocol::Esp => Form::Esp(esp_of_parameters(public, cipher, *salt)?),
            SaProtocol::Psp => Form::Psp(psp_of_parameters(public, cipher)?),
        },
        key: GcmKey::new(cipher, key).ok()?,
        sequence: public.sequence,
        window: ReplayWindow::new(window, public.sequence, vec![0; ring_blocks(window)]).ok()?,
        outer: outer_of_parameters(public)?,
        flow_label: public.window.flow_label(),
        inner: inner_of_parameters(public),
        selector: options.check_selector().then_some(selector),
        clear_policy: options.refuse_clear().then_some(selector),
        destination: form.match_destination().then(|| {
            let version = if form.destination_ipv6() { 6 } else { 4 };
            (version, address(public.destination_0, public.destination_1))
        }),
        lifetime: Lifetime::of_parameters(public)?,
        staged: None,
        draining: false,
        busy_until: Ticks::ZERO,
    })
}

fn cipher_of_number(number: u8) -> Option<Cipher> {
    Some(match admin::Cipher::of_number(u32::from(number))? {
        admin::Cipher::AesGcm128 => Cipher::AesGcm128,
        admin::Cipher::AesGcm192 => Cipher::AesGcm192,
        admin::Cipher::AesGcm256 => Cipher::AesGcm256,
        admin::Cipher::AesGmac128 => Cipher::AesGmac128,
        admin::Cipher::AesGmac192 => Cipher::AesGmac192,
        admin::Cipher::AesGmac256 => Cipher::AesGmac256,
    })
}

fn esp_of_parameters(public: &SaParameters, cipher: Cipher, salt: [u8; 4]) -> Option<esp::Parameters> {
    let (form, options) = (public.form, public.options);
    // Commit reckons how many numbers are left.
    if !form.esn() && public.sequence > u64::from(u32::MAX) {
        return None;
    }
    let cipher = match (cipher.is_gmac(), form.implicit_iv()) {
        (false, false) => esp::Cipher::Gcm,
        (false, true) => esp::Cipher::GcmImplicitIv,
        (true, false) => esp::Cipher::Gmac,
        (true, true) => return None,
    };
    let icv_length = IcvLength::from_octets(usize::from(form.icv_bytes()))?;
    cipher.has_icv_length(icv_length).then_some(esp::Parameters {
        extended_sequence: form.esn(),
        cipher,
        icv_length,
        udp: options.udp_encapsulation().then(|| UdpEncapsulation {
            ports: Ports {
                source: options.udp_source_port(),
                destination: public.selector.udp_destination_port(),
            },
            ipv6_checksum: if options.udp_checksum() {
                Ipv6UdpChecksum::Computed
            } else {
                Ipv6UdpChecksum::Zero
            },
        }),
        tfc_length: options.tfc_bytes(),
        last_options: if options.protect_destination_options() {
            LastOptions::Inside
        } else {
            LastOptions::Outside
        },
        ..esp::Parameters::new(public.names.spi(), salt)
    })
}

fn psp_of_parameters(public: &SaParameters, cipher: Cipher) -> Option<PspForm> {
    let options = public.options;
    // What receives has its keys from the device keys alone.
    if Direction::of_number(u32::from(public.form.direction()))? != Direction::Out {
        return None;
    }
    Some(PspForm {
        version: match cipher {
            Cipher::AesGcm128 => Version::AesGcm128,
            Cipher::AesGcm256 => Version::AesGcm256,
            Cipher::AesGmac128 => Version::AesGmac128,
            Cipher::AesGmac256 => Version::AesGmac256,
            Cipher::AesGcm192 | Cipher::AesGmac192 => return None,
        },
        crypt_offset: options.psp_crypt_offset(),
        cookie: options.psp_cookie().then_some(public.psp_cookie.to_le_bytes()),
        source_port: SourcePortPolicy::of_number(u32::from(options.psp_source_port_policy()))?,
        fixed_port: options.udp_source_port(),
    })
}

fn outer_of_parameters(public: &SaParameters) -> Option<OuterTemplate> {
    let (form, options) = (public.form, public.options);
    let source = address(public.tunnel_source_0, public.tunnel_source_1);
    let destination = address(public.tunnel_destination_0, public.tunnel_destination_1);
    Some(OuterTemplate {
        endpoints: endpoints(form.outer_ipv6(), source, destination),
        ttl: if form.ttl() == 0 { Ttl::Copy } else { Ttl::Value(form.ttl()) },
        dscp: if form.copy_dscp() { Dscp::Copy } else { Dscp::Value(form.dscp()) },
        ecn: match admin::EcnPolicy::of_number(u32::from(options.ecn()))? {
            admin::EcnPolicy::Copy => Ecn::Copy,
            admin::EcnPolicy::NotCapable => Ecn::NotCapable,
        },
        dont_fragment: match admin::DfPolicy::of_number(u32::from(form.df()))? {
            admin::DfPolicy::Copy => DontFragment::Copy,
            admin::DfPolicy::Set => DontFragment::Set,
            admin::DfPolicy::Clear => DontFragment::Clear,
        },
        flow_label: match admin::FlowLabelPolicy::of_number(u32::from(options.flow_label_policy()))? {
            admin::FlowLabelPolicy::Fixed => FlowLabel::Value(public.window.flow_label()),
            admin::FlowLabelPolicy::Copy => FlowLabel::Copy,
            admin::FlowLabelPolicy::Hash => FlowLabel::Hash,
        },
    })
}

/// The inner addresses of BEET mode.
fn inner_of_parameters(public: &SaParameters) -> Endpoints {
    let source = address(public.selector_source_0, public.selector_source_1);
    let destination = address(public.selector_destination_0, public.selector_destination_1);
    endpoints(public.selector.ipv6(), source, destination)
}

fn selector_of_parameters(public: &SaParameters) -> Selector {
    let selector = public.selector;
    let prefix = |address: [u8; 16], length: u8| {
        if selector.ipv6() {
            Prefix::V6 { address, length }
        } else {
            Prefix::V4 { address: last_four(address), length }
        }
    };
    Selector {
        source: prefix(address(public.selector_source_0, public.selector_source_1), selector.source_bits()),
        destination: prefix(
            address(public.selector_destination_0, public.selector_destination_1),
            selector.destination_bits(),
        ),
        protocol: selector.match_protocol().then_some(selector.protocol()),
        source_ports: None,
        destination_ports: None,
    }
}

fn endpoints(ipv6: bool, source: [u8; 16], destination: [u8; 16]) -> Endpoints {
    if ipv6 {
        Endpoints::V6 { source, destination }
    } else {
        Endpoints::V4 { source: last_four(source), destination: last_four(destination) }
    }
}

fn last_four(address: [u8; 16]) -> [u8; 4] {
    let [.., a, b, c, d] = address;
    [a, b, c, d]
}

fn address(low: u64, high: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&high.to_le_bytes());
    bytes
}
