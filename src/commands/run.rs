//! `run`: two NICs joined by a cable, a driver on each, protected traffic both ways, every packet compared.

use std::path::PathBuf;

use clap::Args;
use cryptonic_hwmodel::{CableParameters, Parameters};
use serde_json::Value;

use super::traffic::{Bench, Settings};
use crate::capture::{self, Format};
use crate::device::{self, DeviceName};
use crate::error::{Error, Result};
use crate::flow;
use crate::output::{self, OutputFile, Paint};
use crate::parser::ParserChoice;
use crate::workload::Sizes;

/// Enough to keep the line busy while a host looks the other way.
const TRANSMIT_SLOTS: u32 = 512;

/// Knobs of the model, for every command that has one.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// Knobs of the model by line rate: 25g, 100g, 200g or 400g
    #[arg(long, default_value = "100g")]
    pub(crate) preset: String,
    /// Knobs of the model, as TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One knob, such as crypto.lanes=5; may be given more than once
    #[arg(long = "set", value_name = "KNOB=VALUE")]
    pub(crate) settings: Vec<String>,
    /// Which device: `model`, or `vfio-user:PATH`
    #[arg(long, default_value = "model")]
    pub(crate) device: DeviceName,
    /// Where chance begins; the same seed gives the same packets at the same times
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl ModelArguments {
    /// The knobs together.
    pub(crate) fn parameters(&self) -> Result<Parameters> {
        device::parameters(&self.preset, self.config.as_deref(), &self.settings)
    }
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// Packets to send, both ways together
    #[arg(long, default_value_t = 500_000, value_name = "N")]
    packets: u64,
    /// Bytes of a frame with its FCS: 64 to 9018, `imix` (7 of 64 to 4 of 594 to 1 of 1518), or `mix`
    #[arg(long, default_value = "imix", value_name = "BYTES")]
    size: String,
    /// Flows to send instead of some of every form of ESP and PSP; the format stands in docs/workload.md
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// Receive parser of the NICs
    #[arg(long, value_enum, default_value = "model")]
    parser: ParserChoice,
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
        parameters: &parameters,
        model: &arguments.model,
        cable,
        parser: arguments.parser,
    };
    let mut bench = Bench::new(&settings, &flows, wire)?;
    let mut report = bench.run(&settings)?;
    report.sizes = match &arguments.workload {
        Some(path) => path.display().to_string(),
        None => sizes.name(),
    };
    report.preset.clone_from(&arguments.model.preset);
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
        let mut message = format!(
            "{} mismatches, {} packets lost without a reason",
            report.mismatches, report.lost_without_reason
        );
        if report.parser.differences() > 0 {
            message += &format!(", {} differences of the parsers", report.parser.differences());
        }
        return Err(Error::failure(message).reported());
    }
    if report.interrupted { Err(Error::interrupted()) } else { Ok(()) }
}

/// Every effective parameter.
pub(crate) fn parameters_json(parameters: &Parameters) -> Value {
    serde_json::to_value(parameters).unwrap_or(Value::Null)
}
