//! Devices by name, opened with the driver: the model in this process, and later others.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;

#[cfg(target_os = "linux")]
use cryptonic_driver::backend::vfio::Vfio;
#[cfg(target_os = "linux")]
use cryptonic_driver::backend::vfio_user::{PATIENCE, VfioUser};
use cryptonic_driver::{Nic, OpenOptions};
use cryptonic_hwmodel::{
    CableCounters, CableParameters, Latencies, NicId, ParameterError, Parameters, Parser, ParserOutcome,
    Spread, World,
};
use cryptonic_pci::sysfs::Address;
use cryptonic_pci::{Host, Time};
use cryptonic_regs::Status;

use crate::binding::{self, Machine};
use crate::error::{Error, Result};
use crate::output;

/// Which device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// The model, in this process.
    Model,
    /// One that another process serves at a socket.
    VfioUser(PathBuf),
    /// A PCI function that is bound to vfio-pci.
    Vfio(Address),
    /// One that no IOMMU holds back.
    VfioWithoutIommu(Address),
}

impl DeviceName {
    /// Refuses what is not the model, for a command that needs its clock and its wire.
    pub fn model(&self, command: &str) -> Result<()> {
        match self {
            DeviceName::Model => Ok(()),
            other => {
                let message = format!("`{command}` needs the model in its own process; {other} is not");
                Err(Error::at("--device", message))
            }
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Model => formatter.write_str("model"),
            DeviceName::VfioUser(path) => write!(formatter, "vfio-user:{}", path.display()),
            DeviceName::Vfio(address) => write!(formatter, "vfio:{address}"),
            DeviceName::VfioWithoutIommu(address) => write!(formatter, "vfio-noiommu:{address}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<DeviceName, String> {
        match text {
            "model" => Ok(DeviceName::Model),
            _ if text.starts_with("vfio:") => {
                let address = text["vfio:".len()..].parse::<Address>();
                address.map(DeviceName::Vfio).map_err(|error| error.to_string())
            }
            _ if text.starts_with("vfio-noiommu:") => {
                let address = text["vfio-noiommu:".len()..].parse::<Address>();
                address.map(DeviceName::VfioWithoutIommu).map_err(|error| error.to_string())
            }
            _ if text.len() > "vfio-user:".len() && text.starts_with("vfio-user:") => {
                Ok(DeviceName::VfioUser(PathBuf::from(&text["vfio-user:".len()..])))
            }
            _ => Err("there are model, vfio-user:PATH and vfio:0000:03:00.0".to_owned()),
        }
    }
}

/// The cable of two NICs that face each other.
const CABLE_DELAY: Time = Time::from_nanoseconds(10);

/// An opened device.
pub struct Device {
    /// Its driver.
    pub nic: Nic,
    /// The wire side, of a model.
    pub wire: Option<Wire>,
}

/// The wire side of a modelled NIC, and the clock it lives by.
#[derive(Clone)]
pub struct Wire {
    world: World,
    id: NicId,
}

impl Wire {
    /// A frame arrives.
    pub fn inject(&self, frame: &[u8]) {
        self.world.inject(self.id, frame);
    }

    /// Does what is under way, until nothing moves without the host.
    pub fn settle(&self) {
        self.world.drain();
    }

    /// Lets time pass up to `time` since the device was opened; it has no effect where the device is ahead.
    pub fn pass_time(&self, time: Time) {
        self.world.run_until(time);
    }

    /// Takes the frames that left since the last call.
    pub fn take_sent(&self) -> Vec<Vec<u8>> {
        self.world.take_sent(self.id)
    }

    /// Takes the reasons of the frames that were dropped on receive since the last call.
    pub fn take_drops(&self) -> Vec<Status> {
        self.world.take_drops(self.id)
    }
}

/// Opens a device by name.
pub fn open(name: &DeviceName, parameters: &Parameters, seed: u64) -> Result<Device> {
    match name {
        DeviceName::Model => {
            let world = World::new(seed);
            let id = add(&world, parameters, Parser::Model)?;
            world.record_drops(id);
            let nic = drive(&world, id)?;
            Ok(Device { nic, wire: Some(Wire { world, id }) })
        }
        other => Ok(Device { nic: open_outside(other)?, wire: None }),
    }
}

/// Opens a device that is not in this process.
pub(crate) fn open_outside(name: &DeviceName) -> Result<Nic> {
    match name {
        DeviceName::Vfio(_) if binding::limits(Machine::this()).huge_pages_free == 0 => {
            output::note(binding::NO_HUGE_PAGES);
        }
        DeviceName::VfioWithoutIommu(address) => output::note(&format!(
            "no IOMMU holds back the DMA of {address}: it can read and write all memory of this machine"
        )),
        _ => {}
    }
    Nic::open(host(name)?, patient())
        .map_err(|error| Error::at(name, format_args!("cannot be opened: {error}")))
}

/// Deadlines for a device that lives by the clock on the wall, behind a socket or an emulator, on a machine that may be busy.
pub fn patient() -> OpenOptions {
    OpenOptions {
        ready_timeout: Time::from_milliseconds(5_000),
        command_timeout: Time::from_milliseconds(2_000),
        ..OpenOptions::default()
    }
}

/// The host side of a device that is not in this process, for a driver of one's own.
pub fn host(name: &DeviceName) -> Result<Box<dyn Host>> {
    attach(name).map_err(|error| Error::at(name, error))
}

#[cfg(target_os = "linux")]
fn attach(name: &DeviceName) -> std::result::Result<Box<dyn Host>, String> {
    match name {
        DeviceName::Model => Err("the model has its driver in this process".to_owned()),
        DeviceName::VfioUser(path) => match VfioUser::attach(path, PATIENCE) {
            Ok(host) => Ok(Box::new(host)),
            Err(error) => Err(error.to_string()),
        },
        DeviceName::Vfio(address) => match Vfio::open(*address) {
            Ok(host) => Ok(Box::new(host)),
            Err(error) => Err(error.to_string()),
        },
        DeviceName::VfioWithoutIommu(address) => match Vfio::open_without_iommu(*address) {
            Ok(host) => Ok(Box::new(host)),
            Err(error) => Err(error.to_string()),
        },
    }
}

#[cfg(not(target_os = "linux"))]
fn attach(_: &DeviceName) -> std::result::Result<Box<dyn Host>, String> {
    Err("devices beside the model need Linux".to_owned())
}

fn add(world: &World, parameters: &Parameters, parser: Parser) -> Result<NicId> {
    world.add_nic_with_parser(parameters, parser).map_err(|error| parameter_error("parameters", &error))
}

fn drive(world: &World, id: NicId) -> Result<Nic> {
    Nic::open(world.host(id), OpenOptions::default())
        .map_err(|error| Error::at("model", format_args!("cannot be opened: {error}")))
}

/// Two modelled NICs joined by a cable.
#[derive(Clone)]
pub struct Pair {
    world: World,
    ids: [NicId; 2],
}

/// What a pair measured up to some moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The time.
    pub now: Time,
    /// PCI Express bytes of either NIC: to the device, to the host.
    pub pcie_bytes: [(u64, u64); 2],
    /// How long each stage was in use, for either NIC.
    pub busy: [Vec<(&'static str, Time)>; 2],
}

impl Pair {
    /// Opens both, with a parser and a driver on each.
    pub fn open(
        parameters: &Parameters,
        parsers: [Parser; 2],
        cable: &CableParameters,
        seed: u64,
    ) -> Result<(Pair, [Nic; 2])> {
        let world = World::new(seed);
        let [one, other] = parsers;
        let ids = [add(&world, parameters, one)?, add(&world, parameters, other)?];
        world.connect_through(ids[0], ids[1], CABLE_DELAY, cable);
        let nics = [drive(&world, ids[0])?, drive(&world, ids[1])?];
        Ok((Pair { world, ids }, nics))
    }

    /// Whether nothing is under way in the NICs or on the cable.
    pub fn drained(&self) -> bool {
        self.world.drained()
    }

    /// Does what is under way, until nothing moves without the hosts.
    pub fn settle(&self) {
        self.world.drain();
    }

    /// What the cable did to the frames of both NICs.
    pub fn cable_counters(&self) -> CableCounters {
        let [one, other] = self.ids.map(|id| self.world.cable_counters(id));
        CableCounters {
            lost: one.lost + other.lost,
            duplicated: one.duplicated + other.duplicated,
            deepest: one.deepest.max(other.deepest),
        }
    }

    /// Begins to measure latencies anew.
    pub fn reset_latencies(&self) {
        self.world.reset_latencies();
    }

    /// Latencies from doorbell accepted to completion visible at the far end.
    pub fn latencies(&self) -> Latencies {
        self.world.latencies()
    }

    /// Times from the first NIC's doorbell or push, as its host issues it, to the first byte of the frame in it.
    pub fn first_bytes(&self) -> Spread {
        self.world.first_bytes(self.ids[0])
    }

    /// What a clocked parser of each NIC did so far.
    pub fn parser_outcomes(&self) -> [ParserOutcome; 2] {
        self.ids.map(|id| self.world.parser_outcome(id))
    }

    /// What was measured so far.
    pub fn read(&self) -> Reading {
        Reading {
            now: self.world.now(),
            pcie_bytes: self.ids.map(|id| self.world.pcie_bytes(id)),
            busy: self.ids.map(|id| self.world.busy(id)),
        }
    }

    /// Has every frame on the cable told, with the NIC that sent it and the time.
    pub fn tap(&self, hear: impl FnMut(Time, &[u8]) + 'static) {
        let hear = Rc::new(RefCell::new(hear));
        for id in self.ids {
            let hear = Rc::clone(&hear);
            let tell = move |_, time, frame: &[u8]| (hear.borrow_mut())(time, frame);
            self.world.tap(id, Box::new(tell));
        }
    }
}

/// The knobs of a model: a preset, then a file, then single settings.
pub fn parameters(preset: &str, config: Option<&Path>, settings: &[String]) -> Result<Parameters> {
    let mut parameters = Parameters::preset(preset).map_err(|error| Error::at("--preset", error))?;
    if let Some(path) = config {
        let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, &error))?;
        parameters = parameters.with_toml(&text).map_err(|error| config_error(path, &error))?;
    }
    for setting in settings {
        parameters = parameters
            .with_setting(setting)
            .map_err(|error| Error::at(format_args!("--set {setting}"), knob_message(&error)))?;
    }
    Ok(parameters)
}

/// An error of a parameter file, with its line where the message tells one.
fn config_error(path: &Path, error: &ParameterError) -> Error {
    let text = error.to_string();
    let line =
        text.split_once("line ").map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect());
    let message = knob_message(error);
    match (error, line) {
        (ParameterError::Syntax(_), Some::<String>(line)) => {
            Error::at(format_args!("{}:{line}", path.display()), message)
        }
        _ => Error::at(path.display(), message),
    }
}

/// The message without the excerpt that the TOML reader puts before it.
fn knob_message(error: &ParameterError) -> String {
    let text = error.to_string();
    match error {
        ParameterError::Syntax(_) => text.lines().last().unwrap_or(&text).trim().to_owned(),
        _ => text,
    }
}

fn parameter_error(place: &str, error: &ParameterError) -> Error {
    Error::at(place, knob_message(error))
}
