//! How the SAs of a file come into a NIC.

use cryptonic_driver::{
    Error as DriverError, Nic, Protection, PspDeviceKeys, PspSaConfiguration, PspTransmit, QueuePair,
    QueuePairOptions, SaConfiguration, SaHandle, SaState, Salt, SecretKey,
};
use cryptonic_hwmodel::Parameters;
use cryptonic_pci::Time;
use cryptonic_regs::admin::{Direction, Mode};

use super::{BUFFER_BYTES, SLOTS};
use crate::device::{self, DeviceName, Wire};
use crate::error::{Error, Result};
use crate::sa_file::{DefaultAction, Esp, PSP_UDP_PORT, Protocol, PspSa, Receive, Sa, SaFile};

/// The NICs that the SAs of a file are installed in.
pub(super) struct Stations {
    /// The first opens packets and has every SA but those with IVs of their own.
    pub(super) list: Vec<Station>,
    /// What further ones are made of.
    device: DeviceName,
    parameters: Parameters,
    seed: u64,
    /// SAs installed so far.
    serial: u32,
}

/// An SA as it is installed.
pub(super) struct Installed {
    pub(super) station: usize,
    /// None for an inbound SA.
    pub(super) protection: Option<Protection>,
    pub(super) progress: Progress,
}

impl Stations {
    /// Opens the first.
    pub(super) fn open(device: &DeviceName, parameters: Parameters, seed: u64) -> Result<Stations> {
        let first = Station::open(device, &parameters, seed)?;
        Ok(Stations { list: vec![first], device: device.clone(), parameters, seed, serial: 0 })
    }

    pub(super) fn first(&mut self) -> &mut Station {
        &mut self.list[0]
    }

    /// Lets the device do what a file says of packets in general.
    pub(super) fn follow(&mut self, file: &SaFile, clear: &mut Option<QueuePair>) -> Result<()> {
        let first = self.first();
        if first.nic.information().capabilities.protocol.udp_encapsulation() {
            first.nic.set_esp_udp_port(file.esp_udp_port).map_err(device_error)?;
        }
        match (file.default, &clear) {
            (DefaultAction::Pass, None) => *clear = Some(first.queue_pair(true)?),
            (DefaultAction::Drop, Some(_)) => *clear = None,
            _ => {}
        }
        Ok(())
    }

    /// Installs an SA.
    pub(super) fn install(&mut self, sa: &Sa) -> Result<Installed> {
        let place = sa.full_place();
        let mut station = 0;
        if let Protocol::Psp(PspSa { iv: Some(iv), .. }) = sa.protocol {
            // IVs are of a device, not of an SA: an SA whose IVs are given has a device of its own.
            let seed = self.seed.wrapping_add(self.list.len() as u64);
            let mut own = Station::open(&self.device, &self.parameters, seed)?;
            own.nic.psp_test_iv_load(iv).map_err(refused(&place))?;
            station = self.list.len();
            self.list.push(own);
        }
        self.serial += 1;
        let (protection, progress) = self.list[station].install(sa, self.serial, &place)?;
        Ok(Installed { station, protection, progress })
    }

    /// Installs SAs of ESP, as many at once as the device can: those of one command come all or not at all. On an error gives
    /// those that came.
    pub(super) fn install_esp(
        &mut self,
        sas: &[(&Sa, &Esp)],
    ) -> std::result::Result<Vec<Installed>, (Vec<Installed>, Error)> {
        let mut installed = Vec::with_capacity(sas.len());
        let most = usize::from(self.list[0].nic.information().capabilities.life.sa_batch()).max(1);
        for batch in sas.chunks(most) {
            match self.install_batch(batch) {
                Ok(more) => installed.extend(more),
                Err(error) => return Err((installed, error)),
            }
        }
        Ok(installed)
    }

    fn install_batch(&mut self, sas: &[(&Sa, &Esp)]) -> Result<Vec<Installed>> {
        let mut configurations = Vec::with_capacity(sas.len());
        for (sa, esp) in sas {
            self.serial += 1;
            configurations.push(esp_configuration(sa, esp, self.serial)?);
        }
        let handles = self.first().nic.install_sas(configurations).map_err(|error| match error {
            DriverError::InBatch { number, error } => match sas.get(number) {
                Some((sa, _)) => Error::at(sa.full_place(), error),
                None => device_error(error),
            },
            error => device_error(error),
        })?;
        let of = |((sa, _), handle): (&(&Sa, &Esp), SaHandle)| Installed {
            station: 0,
            protection: (sa.direction == Direction::Out).then_some(Protection::Sa(handle)),
            progress: Progress { handle: Some(handle), iv: None },
        };
        Ok(sas.iter().zip(handles).map(of).collect())
    }

    /// The state of an SA; none where its key travels in descriptors.
    pub(super) fn state(&mut self, installed: &Installed) -> Result<Option<SaState>> {
        let nic = &mut self.list[installed.station].nic;
        installed.progress.handle.map(|handle| nic.query_sa(handle)).transpose().map_err(device_error)
    }

    /// Deletes an SA: its key is in the device no more.
    pub(super) fn delete(&mut self, installed: &Installed) -> Result<()> {
        let Station { nic, queue, .. } = &mut self.list[installed.station];
        if let Some(handle) = installed.progress.handle {
            nic.delete_sa(handle).map_err(device_error)?;
        } else if let Some(Protection::PspKey(transmit)) = installed.protection {
            queue.remove_psp_key(transmit.key).map_err(device_error)?;
        }
        Ok(())
    }

    pub(super) fn settle(&self) {
        self.list.iter().for_each(|station| station.wire.settle());
    }

    pub(super) fn pass_time(&self, time: Time) {
        self.list.iter().for_each(|station| station.wire.pass_time(time));
    }
}

/// A NIC with its queue pair and its wire side.
pub(super) struct Station {
    pub(super) nic: Nic,
    pub(super) queue: QueuePair,
    pub(super) wire: Wire,
}

/// What an installed SA counts.
pub(super) struct Progress {
    /// Its slot; none for a key that travels in descriptors.
    pub(super) handle: Option<SaHandle>,
    /// PSP: the next IV, if the file gave one.
    pub(super) iv: Option<u64>,
}

impl Station {
    pub(super) fn open(name: &DeviceName, parameters: &Parameters, seed: u64) -> Result<Station> {
        let opened = device::open(name, parameters, seed)?;
        let mut nic = opened.nic;
        let wire = opened.wire.ok_or_else(|| device_error("has no wire side that a capture could use"))?;
        let queue = nic.create_queue_pair(queue_options(false)).map_err(device_error)?;
        Ok(Station { nic, queue, wire })
    }

    pub(super) fn queue_pair(&mut self, clear_allowed: bool) -> Result<QueuePair> {
        self.nic.create_queue_pair(queue_options(clear_allowed)).map_err(device_error)
    }

    /// Sets up what `[psp]` says. Gives whether PSP is opened.
    pub(super) fn receive_psp(&mut self, file: &SaFile) -> Result<bool> {
        let Some(psp) = &file.psp else { return Ok(false) };
        match &psp.device_keys {
            Some([first, second]) => {
                let keys = PspDeviceKeys::new(&first.0, &second.0);
                self.nic.psp_test_keys_load(keys).map_err(refused("psp"))?;
            }
            None => drop(self.nic.psp_rotate().map_err(refused("psp"))?),
        }
        let versions = match psp.receive {
            Receive::All => self.nic.information().capabilities.protocol.psp_versions(),
            Receive::These(versions) => versions,
        };
        self.nic.psp_receive(versions, PSP_UDP_PORT).map_err(refused("psp"))?;
        Ok(versions != 0)
    }

    pub(super) fn install(
        &mut self,
        sa: &Sa,
        cookie: u32,
        place: &str,
    ) -> Result<(Option<Protection>, Progress)> {
        match &sa.protocol {
            Protocol::Esp(esp) => {
                let handle =
                    self.nic.install_sa(esp_configuration(sa, esp, cookie)?).map_err(refused(place))?;
                let protection = (sa.direction == Direction::Out).then_some(Protection::Sa(handle));
                Ok((protection, Progress { handle: Some(handle), iv: None }))
            }
            // The S and D bits are told a packet, with its key.
            Protocol::Psp(psp) if psp.sample || psp.drop => {
                let transmit = psp_transmit(sa.spi, psp, &mut self.queue, place)?;
                Ok((Some(Protection::PspKey(transmit)), Progress { handle: None, iv: psp.iv }))
            }
            Protocol::Psp(psp) => {
                let configuration = psp_configuration(sa, psp, place)?;
                let handle = self.nic.install_psp_sa(configuration).map_err(refused(place))?;
                Ok((Some(Protection::Sa(handle)), Progress { handle: Some(handle), iv: psp.iv }))
            }
        }
    }
}

/// Slots with room for a PSP key and a cookie.
fn queue_options(clear_allowed: bool) -> QueuePairOptions {
    QueuePairOptions {
        stride: 128,
        transmit_slots: SLOTS,
        receive_slots: SLOTS,
        buffer_bytes: BUFFER_BYTES,
        clear_allowed,
        ..QueuePairOptions::default()
    }
}

pub(super) fn device_error(error: impl std::fmt::Display) -> Error {
    Error::at("device", error)
}

/// An error of the driver or the device about something in the file.
pub(super) fn refused<E: std::fmt::Display>(place: &str) -> impl Fn(E) -> Error {
    let place = place.to_owned();
    move |error| Error::at(&place, error)
}

fn secret_key(bytes: &[u8], place: &str) -> Result<SecretKey> {
    SecretKey::new(bytes).ok_or_else(|| Error::at(place, "a key of this length"))
}

pub(super) fn esp_configuration(sa: &Sa, esp: &Esp, cookie: u32) -> Result<SaConfiguration> {
    let mut salt = Salt([0; 4]);
    salt.0.iter_mut().zip(esp.salt.expose()).for_each(|(to, from)| *to = *from);
    let outbound = sa.direction == Direction::Out;
    let key = secret_key(esp.key.expose(), &sa.place)?;
    let beet = esp.mode == Mode::Beet;
    let lifetime = sa.lifetime.unwrap_or_default();
    let selector = sa.selector.of_device().filter(|_| beet || !outbound);
    Ok(SaConfiguration {
        icv_bytes: esp.icv_bytes,
        implicit_iv: esp.implicit_iv,
        esn: esp.esn,
        sequence: esp.sequence,
        replay_window: if outbound { 0 } else { esp.replay_window },
        destination: sa.destination().filter(|_| !outbound),
        outer: esp.outer.filter(|_| beet || outbound),
        encapsulation: esp.encapsulation,
        selector,
        check_selector: !outbound && selector.is_some(),
        refuse_clear: !outbound && selector.is_some(),
        protect_destination_options: outbound && esp.protect_destination_options,
        tfc_bytes: if outbound { esp.tfc_bytes } else { 0 },
        cookie,
        lifetime: lifetime.limits,
        packets: lifetime.packets(),
        bytes: lifetime.bytes(),
        ..SaConfiguration::new(sa.direction, esp.mode, esp.cipher, key, salt, sa.spi)
    })
}

fn psp_configuration(sa: &Sa, psp: &PspSa, place: &str) -> Result<PspSaConfiguration> {
    let lifetime = sa.lifetime.unwrap_or_default();
    Ok(PspSaConfiguration {
        mode: psp.mode,
        outer: psp.outer,
        crypt_offset: psp.crypt_offset,
        source_port: psp.source_port,
        virtualization_cookie: psp.virtualization_cookie,
        lifetime: lifetime.limits,
        packets: lifetime.packets(),
        bytes: lifetime.bytes(),
        ..PspSaConfiguration::new(psp.version, secret_key(psp.key.expose(), place)?, sa.spi)
    })
}

fn psp_transmit(spi: u32, psp: &PspSa, queue: &mut QueuePair, place: &str) -> Result<PspTransmit> {
    let key = secret_key(psp.key.expose(), place)?;
    let id = queue.add_psp_key(psp.version, spi, &key).map_err(refused(place))?;
    Ok(PspTransmit {
        crypt_offset: psp.crypt_offset,
        source_port: psp.source_port,
        sample: psp.sample,
        drop: psp.drop,
        cookie: psp.virtualization_cookie,
        ..PspTransmit::new(id)
    })
}
