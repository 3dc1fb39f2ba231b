//! PSP SAs in software.

use std::fmt;

use cryptonic_regs::Status;
use cryptonic_regs::admin::{Direction, Mode};
use cryptonic_wire::packet::Ports;
use cryptonic_wire::{Room, parse_transmit, psp, psp_transform};

use crate::software::{HEADROOM, Held, TAILROOM, packet_bytes};
use crate::software_form::{self as form, Outer};
use crate::software_usage::{HardLimit, SoftwareUsage, Usage};
use crate::{Error, Nic, PspSaConfiguration, QueueError, QueuePair, SaCauses, SourcePort, TransmitBuffer};

/// A PSP SA in software. Its IVs begin at what the IV clock says at its installation, and rise by one a packet.
pub struct SoftwarePspSa {
    held: Held,
    usage: Usage,
    /// There is a clock that its IVs come from, or test IVs.
    has_epoch: bool,
    outer: Option<Outer>,
    parameters: psp::Parameters<'static>,
    source_port: SourcePort,
    source_ports: [u16; 16],
    udp_port: u16,
}

impl Nic {
    /// Makes a PSP SA in software, whatever the device can do.
    pub fn software_psp_sa(&mut self, sa: PspSaConfiguration) -> Result<SoftwarePspSa, Error> {
        sa.check()?;
        let version =
            psp::Version::from_code(sa.version).ok_or(Error::Argument("a version of PSP is 0 to 3"))?;
        let outer = sa.outer.as_ref().filter(|_| sa.mode == Mode::Tunnel).map(form::template).transpose()?;
        let now = self.iv_clock_picoseconds()?;
        let held = self.hold(Direction::Out, &sa.key, form::psp_cipher(version), now)?;
        Ok(SoftwarePspSa {
            held,
            usage: Usage::new(sa.lifetime, sa.packets, sa.bytes),
            has_epoch: self.psp_clock_picoseconds()?.is_some(),
            outer,
            parameters: psp::Parameters {
                crypt_offset: sa.crypt_offset,
                virtualization_cookie: sa.virtualization_cookie,
                ..psp::Parameters::new(sa.spi, version)
            },
            source_port: sa.source_port,
            source_ports: std::array::from_fn(|index| 49_152 + 1024 * index as u16),
            udp_port: psp::DEFAULT_UDP_PORT,
        })
    }
}

impl SoftwarePspSa {
    /// The SPI.
    pub fn spi(&self) -> u32 {
        self.parameters.spi
    }

    /// The UDP source ports among which [`SourcePort::Table`] chooses; those of a device after its reset at first.
    pub fn set_source_ports(&mut self, ports: [u16; 16]) {
        self.source_ports = ports;
    }

    /// The UDP destination port; 1000 at first.
    pub fn set_udp_port(&mut self, port: u16) {
        self.udp_port = port;
    }

    /// Test only: the packets take the IVs from `iv` on, below device time too. Refused once a packet was protected, and
    /// for a key that was in use before.
    pub fn load_test_iv(&mut self, iv: u64) -> Result<(), Error> {
        let held = &mut self.held;
        if !held.fresh || held.lowest != held.start {
            return Err(Error::Argument("test IVs are for new keys, before the first packet"));
        }
        held.lowest = iv;
        self.has_epoch = true;
        Ok(())
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

    /// Protects a frame. Gives it, and its IV; a packet that is refused takes none, and is not to be sent.
    pub fn protect(&mut self, frame: &[u8]) -> Result<(&[u8], u64), Status> {
        let plain = parse_transmit(frame).map_err(|_| Status::NotIp)?;
        let iv = self.held.lowest;
        let following = iv.checked_add(1).ok_or(Status::SequenceExhausted)?;
        let policy = match self.source_port {
            SourcePort::Entropy => psp::SourcePort::Entropy,
            SourcePort::PortsXor => psp::SourcePort::PortsXor,
            SourcePort::Fixed(port) => psp::SourcePort::Fixed(port),
            SourcePort::Table => psp::SourcePort::Table(&self.source_ports),
        };
        let source = policy.port(&plain, self.held.flow_hash(&plain));
        let ports = Ports { source, destination: self.udp_port };
        let per_packet = self.held.per_packet(&plain);
        let held = &mut self.held;
        Held::room(&mut held.work, frame, TAILROOM)?;
        let mut room =
            Room::new(&mut held.work, HEADROOM, HEADROOM + frame.len()).map_err(|_| Status::TooLong)?;
        let parameters = &self.parameters;
        let geometry = match &self.outer {
            Some(outer) => {
                let outer = &outer.of(&plain);
                psp_transform::encapsulate_tunnel(&mut room, &plain, parameters, iv, ports, outer, per_packet)
            }
            None => psp_transform::encapsulate_transport(&mut room, &plain, parameters, iv, ports),
        };
        let geometry = geometry.map_err(form::refused)?;
        self.usage.admit().map_err(|HardLimit| Status::HardLimit)?;
        if !self.has_epoch {
            return Err(Status::PspNoEpoch);
        }
        // From here on the IV counts as used.
        held.lowest = following;
        self.usage.count_packet();
        self.usage.count_bytes(packet_bytes(&plain));
        geometry.seal(&held.key, room.frame_mut()).map_err(|_| Status::TooLong)?;
        let (start, length) = (room.headroom(), room.length());
        Ok((held.work.get(start..start + length).ok_or(Status::TooLong)?, iv))
    }
}

impl QueuePair {
    /// As [`Self::fill_protected`], for PSP. Gives the IV.
    pub fn fill_psp_protected(
        &self,
        buffer: &mut TransmitBuffer,
        frame: &[u8],
        sa: &mut SoftwarePspSa,
    ) -> Result<u64, QueueError> {
        buffer.length = 0;
        let (protected, iv) = sa.protect(frame).map_err(QueueError::Refused)?;
        self.fill(buffer, protected)?;
        Ok(iv)
    }
}

impl fmt::Debug for SoftwarePspSa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SoftwarePspSa(SPI {:#x}, redacted)", self.parameters.spi)
    }
}
