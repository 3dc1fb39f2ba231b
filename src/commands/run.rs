//! `run`: two NICs joined by a cable, or one joined with itself, a driver on each, protected traffic both ways, every
//! packet compared.

use std::path::PathBuf;

use clap::Args;
use cryptonic_hwmodel::{CableParameters, Parameters};
use serde_json::Value;

use super::traffic::{Bench, Ends, Models, Settings};
use crate::capture::{self, Format};
use crate::device::{self, DeviceName};
use crate::error::{Error, Result};
use crate::flow;
use crate::output::{self, OutputFile, Paint};
use crate::parser::ParserChoice;
use crate::workload::Sizes;

/// Enough to keep the line busy while a host looks the other way.
const TRANSMIT_SLOTS: u32 = 512;
/// Knobs that a model has without a `--preset`.
const PRESET: &str = "100g";

/// Knobs of the model, for every command that has one.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    #[arg(long, help = format!("Knobs of the model by line rate: 25g, 100g, 200g or 400g [default: {PRESET}]"))]
    pub(crate) preset: Option<String>,
    /// Knobs of the model, as TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One knob, such as crypto.lanes=5; may be given more than once
    #[arg(long = "set", value_name = "KNOB=VALUE")]
    pub(crate) settings: Vec<String>,
    /// Which device: `model`, `vfio-user:PATH`, or the PCI address of a card, as in `vfio:0000:03:00.0`
    #[arg(long, default_value = "model")]
    pub(crate) device: DeviceName,
    /// Where chance begins; the same seed gives the same packets at the same times
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl ModelArguments {
    /// The knobs together, which no other device has.
    pub(crate) fn parameters(&self) -> Result<Parameters> {
        self.refuse_unless_model(&[
            ("--preset", self.preset.is_some()),
            ("--config", self.config.is_some()),
            ("--set", !self.settings.is_empty()),
        ])?;
        device::parameters(self.preset(), self.config.as_deref(), &self.settings)
    }

    /// The name of the knobs by line rate.
    pub(crate) fn preset(&self) -> &str {
        self.preset.as_deref().unwrap_or(PRESET)
    }

    /// Refuses options that were given though they have no effect on this device.
    fn refuse_unless_model(&self, options: &[(&str, bool)]) -> Result<()> {
        match options.iter().find(|(_, given)| *given && self.device != DeviceName::Model) {
            None => Ok(()),
            Some((option, _)) => {
                let message = format!("is for a model in this process, which {} is not", self.device);
                Err(Error::at(option, message))
            }
        }
    }
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// A second device, on the other end of the first one's cable; without it, a device that is not the model is joined
    /// with itself by its MAC loopback
    #[arg(long, value_name = "DEVICE")]
    peer: Option<DeviceName>,
    /// Packets to send, both ways together
    #[arg(long, default_value_t = 500_000, value_name = "N")]
    packets: u64,
    /// Bytes of a frame with its FCS: 64 to 9018, `imix` (7 of 64 to 4 of 594 to 1 of 1518), or `mix`
    #[arg(long, default_value = "imix", value_name = "BYTES")]
    size: String,
    /// Flows to send instead of some of every form of ESP and PSP; the format stands in docs/workload.md
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// Receive parser of the NICs, where they are models [default: model]
    #[arg(long, value_enum)]
    parser: Option<ParserChoice>,
    /// Write what goes over the cable to a pcap file
    #[arg(long, value_name = "FILE")]
    wire_pcap: Option<PathBuf>,
    /// Write report.json and report.txt here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs.
pub(crate) fn run(arguments: &RunArguments, as_json: bool) -> Result<()> {
    let sizes = Sizes::parse(&arguments.size).map_err(|message| Error::at("--size", message))?;
    if arguments.packets == 0 {
        return Err(Error::at("--packets", "wants at least 1"));
    }
    let (flows, cable) = match &arguments.workload {
        Some(path) => flow::read_workload(path, &sizes)?,
        None => (flow::default_flows(&sizes), CableParameters::default()),
    };
    let devices = devices(&arguments.model.device, arguments.peer.as_ref())?;
    arguments.model.refuse_unless_model(&[
        ("--parser", arguments.parser.is_some()),
        ("--wire-pcap", arguments.wire_pcap.is_some()),
        ("[cable] of --workload", !cable.is_plain()),
    ])?;
    let parameters = arguments.model.parameters()?;
    let wire = arguments
        .wire_pcap
        .as_deref()
        .map(|path| capture::Output::create(path, Format::ETHERNET))
        .transpose()?;
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, &error))?;
    }

    let settings = Settings {
        packets: arguments.packets,
        transmit_slots: TRANSMIT_SLOTS,
        seed: arguments.model.seed,
        ends: match devices {
            Some(devices) => Ends::Devices(devices),
            None => Ends::Models(Models {
                preset: arguments.model.preset(),
                parameters: &parameters,
                cable,
                parser: arguments.parser.unwrap_or_default(),
            }),
        },
    };
    let mut bench = Bench::new(&settings, &flows, wire)?;
    if let (Some(path), [first, ..]) = (&arguments.workload, bench.left_out()) {
        return Err(Error::at(path.display(), format_args!("flow \"{}\": {}", first.flow, first.reason)));
    }
    let mut report = bench.run(&settings)?;
    bench.close(&mut report);
    report.sizes = match &arguments.workload {
        Some(path) => path.display().to_string(),
        None => sizes.name(),
    };
    if let Some(folder) = &arguments.out {
        let json = format!("{:#}\n", report.json());
        OutputFile::write_whole(&folder.join("report.json"), json.as_bytes())?;
        OutputFile::write_whole(&folder.join("report.txt"), report.text(Paint::default()).as_bytes())?;
    }
    if as_json {
        output::print_json(&report.json())?;
    } else {
        output::print(&report.text(Paint::for_stdout()))?;
    }
    if !report.is_good() {
        return Err(Error::failure(report.failure()).reported());
    }
    if report.interrupted { Err(Error::interrupted()) } else { Ok(()) }
}

/// The devices that are driven, if they are not two models in this process.
fn devices(device: &DeviceName, peer: Option<&DeviceName>) -> Result<Option<Vec<DeviceName>>> {
    match (device, peer) {
        (DeviceName::Model, None | Some(DeviceName::Model)) => Ok(None),
        (DeviceName::Model, Some(other)) | (other, Some(DeviceName::Model)) => {
            let message = format!(
                "a model in this process has no cable to {other}; serve one (`cryptonic serve --link …`) and name it \
                 vfio-user:PATH"
            );
            Err(Error::at("--peer", message))
        }
        (one, Some(other)) if one == other => {
            let message =
                format!("{one} cannot be both ends; without --peer its MAC loopback joins it with itself");
            Err(Error::at("--peer", message))
        }
        (one, other) => Ok(Some([one].into_iter().chain(other).cloned().collect())),
    }
}

/// Every effective parameter.
pub(crate) fn parameters_json(parameters: &Parameters) -> Value {
    serde_json::to_value(parameters).unwrap_or(Value::Null)
}
