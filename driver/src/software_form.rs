//! An SA configuration as the packet formats know it.

use std::net::IpAddr;

use cryptonic_crypto as crypto;
use cryptonic_regs::Status;
use cryptonic_regs::admin::{Cipher, DfPolicy, EcnPolicy, Mode};
use cryptonic_wire::outer::{DontFragment, Dscp, Ecn, Endpoints, FlowLabel, Ttl};
use cryptonic_wire::packet::Ports;
use cryptonic_wire::selector::{Prefix, Selector};
use cryptonic_wire::{IcvLength, OuterTemplate, Plain, Refused, Rejected, esp, psp};

use crate::sa_configuration::{self as configured, is_gmac};
use crate::{Error, OuterHeader, SaConfiguration};

/// How an outer header is made.
#[derive(Clone, Copy)]
pub(crate) struct Outer {
    template: OuterTemplate,
    /// The flow label of a packet that has none to be copied.
    label_of_ipv4: Option<u32>,
}

impl Outer {
    /// For a packet.
    pub(crate) fn of(&self, plain: &Plain) -> OuterTemplate {
        match self.label_of_ipv4 {
            Some(label) if plain.ip_version == 4 => {
                OuterTemplate { flow_label: FlowLabel::Value(label), ..self.template }
            }
            _ => self.template,
        }
    }
}

/// The form of an ESP SA's packets.
pub(crate) enum Form {
    Tunnel {
        /// Sending: the outer header.
        outer: Option<Outer>,
    },
    Transport,
    Beet {
        inner: Endpoints,
        outer: Endpoints,
    },
}

pub(crate) fn esp_form(sa: &SaConfiguration) -> Result<Form, Error> {
    let outer = sa.outer.as_ref().map(template).transpose()?;
    match (sa.mode, outer, sa.selector) {
        (Mode::Transport, ..) => Ok(Form::Transport),
        (Mode::Tunnel, outer, _) => Ok(Form::Tunnel { outer }),
        (Mode::Beet, Some(outer), Some(inner)) => Ok(Form::Beet {
            inner: endpoints(inner.source.address, inner.destination.address)?,
            outer: outer.template.endpoints,
        }),
        (Mode::Beet, ..) => Err(Error::Argument("BEET mode needs inner and outer addresses")),
    }
}

pub(crate) fn esp_parameters(sa: &SaConfiguration) -> Result<esp::Parameters, Error> {
    let cipher = match (is_gmac(sa.cipher), sa.implicit_iv) {
        (true, _) => esp::Cipher::Gmac,
        (false, true) => esp::Cipher::GcmImplicitIv,
        (false, false) => esp::Cipher::Gcm,
    };
    let icv_length = IcvLength::from_octets(sa.icv_bytes.into());
    let udp = sa.encapsulation.map(|udp| esp::UdpEncapsulation {
        ports: Ports { source: udp.source_port, destination: udp.destination_port },
        ipv6_checksum: if udp.checksum { esp::Ipv6UdpChecksum::Computed } else { esp::Ipv6UdpChecksum::Zero },
    });
    Ok(esp::Parameters {
        extended_sequence: sa.esn,
        cipher,
        icv_length: icv_length.ok_or(Error::Argument("an ICV has 8, 12 or 16 bytes"))?,
        udp,
        tfc_length: sa.tfc_bytes,
        last_options: if sa.protect_destination_options {
            esp::LastOptions::Inside
        } else {
            esp::LastOptions::Outside
        },
        ..esp::Parameters::new(sa.spi, sa.salt.0)
    })
}

pub(crate) fn crypto_cipher(cipher: Cipher) -> crypto::Cipher {
    match cipher {
        Cipher::AesGcm128 => crypto::Cipher::AesGcm128,
        Cipher::AesGcm192 => crypto::Cipher::AesGcm192,
        Cipher::AesGcm256 => crypto::Cipher::AesGcm256,
        Cipher::AesGmac128 => crypto::Cipher::AesGmac128,
        Cipher::AesGmac192 => crypto::Cipher::AesGmac192,
        Cipher::AesGmac256 => crypto::Cipher::AesGmac256,
    }
}

pub(crate) fn psp_cipher(version: psp::Version) -> crypto::Cipher {
    match version {
        psp::Version::AesGcm128 => crypto::Cipher::AesGcm128,
        psp::Version::AesGcm256 => crypto::Cipher::AesGcm256,
        psp::Version::AesGmac128 => crypto::Cipher::AesGmac128,
        psp::Version::AesGmac256 => crypto::Cipher::AesGmac256,
    }
}

/// The selector that opened packets are held against, where they are.
pub(crate) fn checked_selector(sa: &SaConfiguration) -> Option<Selector> {
    let selector = sa.selector.filter(|_| sa.check_selector)?;
    Some(Selector {
        source: prefix(selector.source),
        destination: prefix(selector.destination),
        protocol: selector.protocol,
        ..Selector::default()
    })
}

fn prefix(network: configured::Network) -> Prefix {
    match network.address {
        IpAddr::V4(address) => Prefix::V4 { address: address.octets(), length: network.bits },
        IpAddr::V6(address) => Prefix::V6 { address: address.octets(), length: network.bits },
    }
}

pub(crate) fn template(outer: &OuterHeader) -> Result<Outer, Error> {
    let template = OuterTemplate {
        ttl: outer.ttl.map_or(Ttl::Copy, Ttl::Value),
        dscp: outer.dscp.map_or(Dscp::Copy, Dscp::Value),
        ecn: match outer.ecn {
            EcnPolicy::Copy => Ecn::Copy,
            EcnPolicy::NotCapable => Ecn::NotCapable,
        },
        dont_fragment: match outer.df {
            DfPolicy::Copy => DontFragment::Copy,
            DfPolicy::Set => DontFragment::Set,
            DfPolicy::Clear => DontFragment::Clear,
        },
        flow_label: match outer.flow_label {
            configured::FlowLabel::Fixed(label) => FlowLabel::Value(label),
            configured::FlowLabel::CopyOr(_) => FlowLabel::Copy,
            configured::FlowLabel::Hash => FlowLabel::Hash,
        },
        ..OuterTemplate::new(endpoints(outer.source, outer.destination)?)
    };
    let label_of_ipv4 = match outer.flow_label {
        configured::FlowLabel::CopyOr(label) => Some(label),
        _ => None,
    };
    Ok(Outer { template, label_of_ipv4 })
}

fn endpoints(source: IpAddr, destination: IpAddr) -> Result<Endpoints, Error> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Ok(Endpoints::V4 { source: source.octets(), destination: destination.octets() })
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Ok(Endpoints::V6 { source: source.octets(), destination: destination.octets() })
        }
        _ => Err(Error::Argument("the addresses of an outer header are of one family")),
    }
}

/// The status by which a device would refuse the packet.
pub(crate) fn refused(refused: Refused) -> Status {
    match refused {
        Refused::Fragment => Status::FragmentInTransport,
        Refused::BeetFragment | Refused::BeetOptions | Refused::BeetAddresses => Status::NotBeet,
        Refused::TooLong | Refused::NoRoom => Status::TooLong,
        Refused::SequenceExhausted => Status::SequenceExhausted,
        Refused::CryptOffsetPastEnd | Refused::CryptOffsetWithoutEncryption => Status::TransmitCryptOffset,
        Refused::ReservedSpi | Refused::PspExtension | Refused::PreformattedVersion => Status::BadPspKey,
        _ => Status::NotIp,
    }
}

/// The status by which a device would drop the packet.
pub(crate) fn rejected(rejected: Rejected) -> Status {
    match rejected {
        Rejected::Trailer(_) => Status::BadTrailer,
        Rejected::CongestionDrop => Status::EcnDrop,
        _ => Status::BadInner,
    }
}
