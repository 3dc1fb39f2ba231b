//! SAs in software, for what a device cannot do. Which way an SA goes is decided once, when it is installed; the same
//! sequence number or IV then gives the bytes that a device gives.
//!
//! A software SA protects frames before they are put into a buffer ([`QueuePair::fill_protected`]): they are sent as
//! clear packets, on a queue pair that allows those. It opens frames that the device handed up as they came
//! ([`SoftwareSa::open`]). Its keys are the driver's own: they are wiped when it is dropped, and stand in the
//! ledger like those in the device.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use cryptonic_crypto::GcmKey;
use cryptonic_regs::Status;
use cryptonic_regs::admin::Direction;
use cryptonic_regs::bar0::CONTROL;
use cryptonic_wire::outer::PerPacket;
use cryptonic_wire::selector::Selector;
use cryptonic_wire::sequence::{ReplayWindow, Verdict, infer, ring_blocks};
use cryptonic_wire::{
    Decapsulated, Plain, Protocol, Room, UdpPorts, esp, esp_beet, esp_transform, parse_receive,
    parse_transmit,
};
use siphasher::sip::SipHasher13;
use zeroize::Zeroizing;

use crate::ledger::Fingerprint;
use crate::software_form::{self as form, Form};
use crate::software_usage::{HardLimit, SoftwareUsage, Usage};
use crate::{
    Error, KeyLedger, Nic, PspSaConfiguration, QueueError, QueuePair, SaCauses, SaConfiguration, SaHandle,
    SecretKey, SoftwarePspSa, TransmitBuffer,
};

/// Room before a frame: the longest headers that are put around one (IPv6, UDP, PSP with a cookie; ESP has fewer).
pub(crate) const HEADROOM: usize = 128;
/// Room behind it, beside padding for traffic flow confidentiality: trailer and ICV.
pub(crate) const TAILROOM: usize = 64;
/// Half of the 32-bit sequence numbers, where there is no window (see [`infer`]).
const NO_WINDOW: u32 = 1 << 31;

/// Where an ESP SA was installed.
#[derive(Debug)]
pub enum Installation {
    /// In the device.
    Device(SaHandle),
    /// In the driver.
    Software(Box<SoftwareSa>),
}

/// Where a PSP SA was installed.
#[derive(Debug)]
pub enum PspInstallation {
    /// In the device.
    Device(SaHandle),
    /// In the driver.
    Software(Box<SoftwarePspSa>),
}

/// A key in use by the driver. Dropping it tells the ledger from which number on it may be used again.
pub(crate) struct Held {
    pub(crate) key: GcmKey,
    ledger: KeyLedger,
    fingerprint: Fingerprint,
    /// Where the numbers of this SA began.
    pub(crate) start: u64,
    /// The ledger had never heard of the key.
    pub(crate) fresh: bool,
    /// ESP: the last number used, or the highest received. PSP: the next.
    pub(crate) lowest: u64,
    /// Where frames are worked on.
    pub(crate) work: Zeroizing<Vec<u8>>,
    flow_key: (u64, u64),
    identification: u16,
}

/// An ESP SA in software.
pub struct SoftwareSa {
    held: Held,
    usage: Usage,
    direction: Direction,
    form: Form,
    parameters: esp::Parameters,
    window: ReplayWindow<Vec<u64>>,
    destination: Option<IpAddr>,
    selector: Option<Selector>,
    cookie: u32,
}

/// What a software SA found of a frame that it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftwareOpened {
    /// 64-bit sequence number.
    pub sequence: u64,
    /// Next header that the trailer named.
    pub next_header: u8,
    /// The configuration's cookie.
    pub cookie: u32,
}

impl Nic {
    /// Installs an SA in the device if that can do what the SA needs ([`crate::Capabilities::supports`]), and in software
    /// if not.
    pub fn install_sa_or_software(&mut self, sa: SaConfiguration) -> Result<Installation, Error> {
        if self.information.capabilities.supports(&sa).is_ok() {
            return self.install_sa(sa).map(Installation::Device);
        }
        self.software_sa(sa).map(Box::new).map(Installation::Software)
    }

    /// As [`Self::install_sa_or_software`], for PSP.
    pub fn install_psp_sa_or_software(&mut self, sa: PspSaConfiguration) -> Result<PspInstallation, Error> {
        if self.information.capabilities.supports_psp(&sa).is_ok() {
            return self.install_psp_sa(sa).map(PspInstallation::Device);
        }
        self.software_psp_sa(sa).map(Box::new).map(PspInstallation::Software)
    }

    /// Makes an SA in software, whatever the device can do. For an inbound one the device is told to hand up, from now
    /// on, every ESP packet that none of its own SAs takes.
    pub fn software_sa(&mut self, sa: SaConfiguration) -> Result<SoftwareSa, Error> {
        self.alive()?;
        sa.check()?;
        let (form, parameters) = (form::esp_form(&sa)?, form::esp_parameters(&sa)?);
        let ring = vec![0; ring_blocks(sa.replay_window)];
        let window = ReplayWindow::new(sa.replay_window, sa.sequence, ring)
            .map_err(|_| Error::Argument("a replay window has 0 or 32 to 65536 packets"))?;
        let held = self.hold(sa.direction, &sa.key, form::crypto_cipher(sa.cipher), sa.sequence)?;
        // Behind the ledger, so that a key it refuses leaves the device as it was.
        if sa.direction == Direction::In && self.information.capabilities.protocol.unmatched_to_host() {
            let control = self.shared.read(CONTROL)?;
            self.shared.write(CONTROL, control.with_unmatched_to_host(true))?;
        }
        Ok(SoftwareSa {
            held,
            usage: Usage::new(sa.lifetime, sa.packets, sa.bytes).of_esp(sa.direction, sa.icv_bytes, sa.esn),
            direction: sa.direction,
            form,
            parameters,
            window,
            destination: sa.destination,
            selector: form::checked_selector(&sa),
            cookie: sa.cookie,
        })
    }

    /// Takes a key into use from `first` on.
    pub(crate) fn hold(
        &self,
        direction: Direction,
        key: &SecretKey,
        cipher: cryptonic_crypto::Cipher,
        first: u64,
    ) -> Result<Held, Error> {
        let expanded = GcmKey::new(cipher, key.expose())
            .map_err(|_| Error::Argument("the key does not have the length of its cipher"))?;
        let claim = self.ledger.claim(direction, key, first)?;
        let random = || std::hash::RandomState::new().build_hasher().finish();
        Ok(Held {
            key: expanded,
            ledger: self.ledger.clone(),
            fingerprint: claim.fingerprint,
            start: first,
            fresh: claim.is_first(),
            lowest: first,
            work: Zeroizing::default(),
            flow_key: (random(), random()),
            identification: 0,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ledger.retire(self.fingerprint, Some(self.lowest.max(self.start.saturating_add(1))));
    }
}

impl Held {
    /// A room with the frame in it, and `tail` bytes behind.
    pub(crate) fn room(work: &mut Vec<u8>, frame: &[u8], tail: usize) -> Result<(), Status> {
        if frame.len() > usize::from(u16::MAX) {
            return Err(Status::TooLong);
        }
        work.clear();
        work.resize(HEADROOM + frame.len() + tail, 0);
        work.get_mut(HEADROOM..HEADROOM + frame.len()).ok_or(Status::TooLong)?.copy_from_slice(frame);
        Ok(())
    }

    /// A keyed hash of a flow.
    pub(crate) fn flow_hash(&self, plain: &Plain) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.flow_key.0, self.flow_key.1);
        hasher.write(&plain.source);
        hasher.write(&plain.destination);
        let ports =
            plain.ports.map_or(0, |ports| u32::from(ports.source) << 16 | u32::from(ports.destination));
        hasher.write_u64(u64::from(plain.next_header) << 32 | u64::from(ports));
        hasher.finish()
    }

    /// What the next outer header takes from its turn.
    pub(crate) fn per_packet(&mut self, plain: &Plain) -> PerPacket {
        self.identification = self.identification.wrapping_add(1);
        PerPacket { identification: self.identification, flow_hash: self.flow_hash(plain) as u32 }
    }
}

impl SoftwareSa {
    /// Last sequence number used (out) or highest accepted (in).
    pub fn sequence(&self) -> u64 {
        self.held.lowest
    }

    /// The SPI.
    pub fn spi(&self) -> u32 {
        self.parameters.spi
    }

    /// What it was used for.
    pub fn usage(&self) -> SoftwareUsage {
        self.usage.get()
    }

    /// Its events: what happened to it since it was asked last.
    pub fn take_causes(&mut self) -> SaCauses {
        self.usage.take_news()
    }

    /// Arms its soft limit anew, at `soft`, which is below the hard one.
    pub fn arm(&mut self, soft: u64) -> Result<(), Error> {
        self.usage.arm(soft)
    }

    /// Protects a frame. Gives it, and its sequence number; a packet that is refused takes none, and is not to be sent.
    pub fn protect(&mut self, frame: &[u8]) -> Result<(&[u8], u64), Status> {
        if self.direction != Direction::Out {
            return Err(Status::WrongDirection);
        }
        let plain = parse_transmit(frame).map_err(|_| Status::NotIp)?;
        let Some(sequence) = self.held.lowest.checked_add(1) else {
            return Err(exhausted(&mut self.usage));
        };
        let per_packet = self.held.per_packet(&plain);
        let held = &mut self.held;
        Held::room(&mut held.work, frame, TAILROOM + usize::from(self.parameters.tfc_length))?;
        let mut room =
            Room::new(&mut held.work, HEADROOM, HEADROOM + frame.len()).map_err(|_| Status::TooLong)?;
        let parameters = &self.parameters;
        let geometry = match &self.form {
            Form::Tunnel { outer: Some(outer) } => {
                let outer = &outer.of(&plain);
                esp_transform::encapsulate_tunnel(&mut room, &plain, parameters, sequence, outer, per_packet)
            }
            Form::Tunnel { outer: None } => return Err(Status::WrongDirection),
            Form::Transport => esp_transform::encapsulate_transport(&mut room, &plain, parameters, sequence),
            Form::Beet { inner, outer } => {
                esp_beet::encapsulate_beet(&mut room, &plain, parameters, sequence, inner, outer)
            }
        };
        let geometry = match geometry.map_err(form::refused) {
            Err(Status::SequenceExhausted) => return Err(exhausted(&mut self.usage)),
            geometry => geometry?,
        };
        self.usage.admit().map_err(|HardLimit| Status::HardLimit)?;
        // From here on the number counts as used.
        held.lowest = sequence;
        self.usage.used_sequence(sequence);
        self.usage.count_key_use();
        self.usage.count_packet();
        self.usage.count_bytes(packet_bytes(&plain));
        geometry.seal(&held.key, room.frame_mut()).map_err(|_| Status::TooLong)?;
        esp_transform::finish_outer_checksum(room.frame_mut(), parameters).map_err(|_| Status::TooLong)?;
        let (start, length) = (room.headroom(), room.length());
        Ok((held.work.get(start..start + length).ok_or(Status::TooLong)?, sequence))
    }

    /// Opens a frame as it was on the wire. Gives what came out. [`Status::NoSa`]: it is no packet of this SA.
    pub fn open(&mut self, frame: &[u8]) -> Result<(&[u8], SoftwareOpened), Status> {
        if self.direction != Direction::In {
            return Err(Status::WrongDirection);
        }
        let port = self.parameters.udp.map_or(0, |udp| udp.ports.destination);
        let parsed = parse_receive(frame, UdpPorts { esp: port, psp: 0 }).map_err(|_| Status::NoSa)?;
        let ours = parsed.protocol == Protocol::Esp
            && parsed.spi == self.parameters.spi
            && parsed.udp_offset.is_some() == self.parameters.udp.is_some()
            && self.destination.is_none_or(|address| is_address(address, &parsed.plain));
        if !ours {
            return Err(Status::NoSa);
        }
        let window = match self.window.window() {
            0 => NO_WINDOW,
            packets => packets,
        };
        let sequence = match parsed.sequence {
            low if self.parameters.extended_sequence => {
                infer(self.window.top(), low, window).map_err(|_| Status::BadSequence)?
            }
            0 => return Err(Status::BadSequence),
            low => low.into(),
        };
        replay(self.window.check(sequence))?;
        let parameters = &self.parameters;
        let geometry =
            esp::receive_geometry(&parsed, frame, parameters, sequence).map_err(|_| Status::TruncatedEsp)?;
        let held = &mut self.held;
        Held::room(&mut held.work, frame, TAILROOM)?;
        let mut room =
            Room::new(&mut held.work, HEADROOM, HEADROOM + frame.len()).map_err(|_| Status::TooLong)?;
        let outcome = geometry.open(&held.key, room.frame_mut());
        self.usage.count_icv(outcome.is_ok());
        let admitted = outcome.is_ok().then(|| self.usage.admit());
        // Each attempt on a short ICV counts, good or not (SP 800-38D, appendix C).
        self.usage.count_key_use();
        admitted.ok_or(Status::IcvMismatch)?.map_err(|HardLimit| Status::ReceiveHardLimit)?;
        replay(self.window.update(sequence))?;
        held.lowest = self.window.top();
        self.usage.count_packet();
        let opened = match &self.form {
            Form::Tunnel { .. } => esp_transform::decapsulate_tunnel(&mut room, &parsed, parameters),
            Form::Transport => esp_transform::decapsulate_transport(&mut room, &parsed, parameters),
            Form::Beet { inner, .. } => esp_beet::decapsulate_beet(&mut room, &parsed, parameters, inner),
        };
        let next_header = match opened.map_err(form::rejected)? {
            Decapsulated::Packet { next_header } => next_header,
            Decapsulated::Dummy => return Err(Status::Dummy),
        };
        let (start, length) = (room.headroom(), room.length());
        let opened = held.work.get(start..start + length).ok_or(Status::BadInner)?;
        self.usage.count_bytes(parse_transmit(opened).map_or(0, |plain| packet_bytes(&plain)));
        if let Some(selector) = &self.selector {
            let plain = parse_transmit(opened).map_err(|_| Status::BadInner)?;
            if !selector.matches(&plain) {
                return Err(Status::SelectorMismatch);
            }
        }
        Ok((opened, SoftwareOpened { sequence, next_header, cookie: self.cookie }))
    }
}

impl QueuePair {
    /// Protects a frame in software and copies it into a buffer, to be sent in clear. Gives its sequence number. A refused
    /// frame leaves the buffer empty.
    pub fn fill_protected(
        &self,
        buffer: &mut TransmitBuffer,
        frame: &[u8],
        sa: &mut SoftwareSa,
    ) -> Result<u64, QueueError> {
        buffer.length = 0;
        let (protected, sequence) = sa.protect(frame).map_err(QueueError::Refused)?;
        self.fill(buffer, protected)?;
        Ok(sequence)
    }
}

/// What the window says about a sequence number, as a status.
fn replay(verdict: Verdict) -> Result<(), Status> {
    match verdict {
        Verdict::New | Verdict::InWindow => Ok(()),
        Verdict::Duplicate => Err(Status::ReplayDuplicate),
        Verdict::BelowWindow => Err(Status::ReplayBelowWindow),
    }
}

/// Why a packet for which there is no number is refused: the device looks at limits first.
fn exhausted(usage: &mut Usage) -> Status {
    match usage.admit() {
        Ok(()) => Status::SequenceExhausted,
        Err(HardLimit) => Status::HardLimit,
    }
}

/// Bytes of an IP packet, without what is around it.
pub(crate) fn packet_bytes(plain: &Plain) -> usize {
    plain.l3_end.saturating_sub(plain.l3_offset)
}

/// Whether a packet goes to this address.
fn is_address(address: IpAddr, plain: &Plain) -> bool {
    match address {
        IpAddr::V4(address) => plain.ip_version == 4 && plain.destination[12..] == address.octets(),
        IpAddr::V6(address) => plain.ip_version == 6 && plain.destination == address.octets(),
    }
}

impl fmt::Debug for SoftwareSa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SoftwareSa(SPI {:#x}, redacted)", self.parameters.spi)
    }
}
