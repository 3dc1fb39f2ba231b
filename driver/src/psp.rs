//! PSP: SPIs and keys from the device, device keys, receive control.
//!
//! The calls have the shape of Linux's device operations (`struct psp_dev_ops`, `include/net/psp/types.h`):
//!
//! | operation | calls |
//! |---|---|
//! | `set_config` (versions) | [`Nic::psp_receive`]: the versions that are opened, and the UDP port |
//! | `key_rotate` | [`Nic::psp_rotate`]; the device does it by itself with [`Nic::psp_set_rotation`] |
//! | `rx_spi_alloc` | [`Nic::psp_allocate`], any number at once |
//! | `tx_key_add`, `tx_key_del` | [`crate::QueuePair::add_psp_key`] and `remove_psp_key`: host memory, the key travels in each descriptor; or [`Nic::install_psp_sa`] and [`Nic::delete_sa`]: an SA slot |
//! | `get_stats` | [`Nic::psp_statistics`] |
//! | capabilities (`versions`) | [`crate::Capabilities::protocol`] |
//!
//! Linux has no operation for the epoch of the IV clock ([`Nic::psp_set_epoch`]), captures ([`Nic::psp_set_capture`]),
//! samples ([`Nic::psp_set_sampling`]) and the low-water mark of SPIs ([`Nic::psp_set_low_water`]).

use std::fmt;

use cryptonic_regs::admin::{AllocatedSpi, Opcode, PspAllocation, PspTestKeys};
use cryptonic_regs::bar0::{
    PSP_CONTROL, PSP_KEY_STATUS, PSP_SPI_REMAINING, PSP_TEST_LOCK, PspControl, PspKeyStatus, PspTestLock,
};
use zeroize::Zeroizing;

use crate::admin::{BLOCK_BYTES, Request};
use crate::{AdminAnomaly, Error, Nic, SecretKey, Unsupported};

/// An SPI and its key, derived by the device. The peer that sends to us gets both.
#[derive(Debug)]
pub struct PspSpi {
    /// The SPI.
    pub spi: u32,
    /// PSP version of the key.
    pub version: u8,
    /// Generation of the device key that derived it.
    pub generation: u16,
    /// The key.
    pub key: SecretKey,
}

/// Both device keys, for tests. `Debug` shows nothing of them.
pub struct PspDeviceKeys(Box<Zeroizing<[[u8; 32]; 2]>>);

impl PspDeviceKeys {
    /// Device key 0 and device key 1. The caller zeroises its own copy.
    pub fn new(key_0: &[u8; 32], key_1: &[u8; 32]) -> Self {
        let mut keys = Box::new(Zeroizing::new([[0; 32]; 2]));
        keys[0].copy_from_slice(key_0);
        keys[1].copy_from_slice(key_1);
        PspDeviceKeys(keys)
    }
}

impl fmt::Debug for PspDeviceKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PspDeviceKeys(redacted)")
    }
}

/// Bytes of the key of a PSP version; `None` for a version that does not exist.
pub(crate) fn key_bytes(version: u8) -> Option<usize> {
    match version {
        0 | 2 => Some(16),
        1 | 3 => Some(32),
        _ => None,
    }
}

impl Nic {
    /// Allocates `count` SPIs, and derives their keys for a PSP version.
    pub fn psp_allocate(&mut self, version: u8, count: u32) -> Result<Vec<PspSpi>, Error> {
        self.psp_supported(version)?;
        let limit = self.capabilities_from_firmware()?.spis_per_command;
        let batch = limit.clamp(1, (BLOCK_BYTES / PspAllocation::BYTES) as u64) as u32;
        let mut spis = Vec::new();
        let mut left = count;
        while left > 0 {
            let step = left.min(batch);
            let outcome = self.allocate_batch(version, step, &mut spis);
            self.admin.clear_reply();
            outcome?;
            left -= step;
        }
        Ok(spis)
    }

    fn allocate_batch(&mut self, version: u8, count: u32, spis: &mut Vec<PspSpi>) -> Result<(), Error> {
        let command = Opcode::PspAllocate;
        let anomaly = |anomaly| Err(Error::Anomaly { command, anomaly });
        let given = self.admin.run(Request {
            arguments: [u64::from(version) << 32 | u64::from(count), 0],
            reply_bytes: count as usize * PspAllocation::BYTES,
            ..Request::new(command)
        })?;
        if given != u64::from(count) {
            return anomaly(AdminAnomaly::Result);
        }
        for record in 0..count as usize {
            let first = record * PspAllocation::WORDS;
            let head = AllocatedSpi::from_bits(self.admin.reply(first)?);
            let mut words = Zeroizing::new([0; 4]);
            for (index, word) in words.iter_mut().enumerate() {
                *word = self.admin.reply(first + 1 + index)?;
            }
            let length = usize::from(head.key_bytes());
            let key = SecretKey::of_words(&words, length);
            match key {
                Some(key) if Some(length) == key_bytes(version) && head.spi() & 0x7fff_ffff != 0 => {
                    spis.push(PspSpi { spi: head.spi(), version, generation: head.generation(), key });
                }
                _ => return anomaly(AdminAnomaly::Reply),
            }
        }
        Ok(())
    }

    /// Puts a fresh device key in place of the inactive one and makes it active. Gives its generation.
    pub fn psp_rotate(&mut self) -> Result<u16, Error> {
        let command = Opcode::PspRotate;
        let generation = self.admin.run(Request::new(command))?;
        generation.try_into().map_err(|_| Error::Anomaly { command, anomaly: AdminAnomaly::Result })
    }

    /// Opens PSP packets of these versions, one bit each (0 is off), on this UDP port. In effect when it
    /// returns: the write is posted, and what is read back comes after it.
    pub fn psp_receive(&mut self, versions_mask: u8, udp_port: u16) -> Result<(), Error> {
        self.alive()?;
        if versions_mask & !self.information.capabilities.protocol.psp_versions() != 0 {
            return Err(Unsupported::one("this version of PSP").into());
        }
        let control = PspControl::new().with_receive_versions(versions_mask).with_udp_port(udp_port);
        self.shared.write(PSP_CONTROL, control)?;
        if self.shared.read(PSP_CONTROL)? == control {
            Ok(())
        } else {
            Err(Unsupported::one("these versions of PSP on receive").into())
        }
    }

    /// Test only: loads both device keys.
    pub fn psp_test_keys_load(&mut self, keys: PspDeviceKeys) -> Result<(), Error> {
        self.alive()?;
        for (index, key) in keys.0.iter().flat_map(|key| key.as_chunks::<8>().0).enumerate() {
            self.admin.set_parameter(index, &[u64::from_le_bytes(*key)])?;
        }
        let opcode = Opcode::PspTestKeyLoad;
        self.admin.run(Request { parameter_bytes: PspTestKeys::BYTES, ..Request::new(opcode) }).map(drop)
    }

    /// Test only: the next PSP packets take the IVs from `iv` on.
    pub fn psp_test_iv_load(&mut self, iv: u64) -> Result<(), Error> {
        self.admin.run(Request { arguments: [iv, 0], ..Request::new(Opcode::PspTestIvLoad) }).map(drop)
    }

    /// Refuses the test commands until power is cut.
    pub fn psp_test_lock(&mut self) -> Result<(), Error> {
        self.alive()?;
        Ok(self.shared.write(PSP_TEST_LOCK, PspTestLock::new().with_locked(true))?)
    }

    /// State of the device keys.
    pub fn psp_key_status(&self) -> Result<PspKeyStatus, Error> {
        self.alive()?;
        Ok(self.shared.read(PSP_KEY_STATUS)?)
    }

    /// SPIs that the active device key has left.
    pub fn psp_spis_remaining(&self) -> Result<u32, Error> {
        self.alive()?;
        Ok(self.shared.read(PSP_SPI_REMAINING)?)
    }

    fn psp_supported(&self, version: u8) -> Result<(), Error> {
        let protocol = self.information.capabilities.protocol;
        if !protocol.psp() || version > 3 || protocol.psp_versions() & 1 << version == 0 {
            return Err(Unsupported::one("this version of PSP").into());
        }
        Ok(())
    }
}
