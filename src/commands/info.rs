//! `info` and `stats`: who a device is, what it can do, what it counted.

use std::fmt::Write;

use clap::Args;
use serde_json::{Map, Value, json};

use super::run::ModelArguments;
use crate::device::{self, Device};
use crate::error::{Error, Result};
use crate::output::{self, Paint};
use crate::report::grouped;

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Show counters that are 0 too
    #[arg(long)]
    all: bool,
}

fn open(arguments: &ModelArguments) -> Result<Device> {
    device::open(&arguments.device, &arguments.parameters()?, arguments.seed)
}

fn device_error(error: impl std::fmt::Display) -> Error {
    Error::at("device", error)
}

/// Shows identity and capabilities.
pub(crate) fn info(arguments: &ModelArguments, as_json: bool) -> Result<()> {
    let mut device = open(arguments)?;
    let firmware = device.nic.capabilities_from_firmware().map_err(device_error)?;
    let information = device.nic.information().clone();
    let mac = information.mac_address.map(|byte| format!("{byte:02x}")).join(":");
    let contract = format!("{}.{}", information.contract.0, information.contract.1);
    let firmware_version = format!("{}.{}", firmware.version.0, firmware.version.1);
    if as_json {
        let mut capabilities: Map<String, Value> =
            information.capabilities.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        capabilities.insert("spis_per_command".to_owned(), firmware.spis_per_command.into());
        return output::print_json(&json!({
            "vendor": format!("{:#06x}", information.vendor),
            "device": format!("{:#06x}", information.device),
            "version": contract,
            "kind": information.kind,
            "revision": information.revision,
            "serial": format!("{:#018x}", information.serial),
            "mac_address": mac,
            "firmware_version": firmware_version,
            "capabilities": capabilities,
        }));
    }
    let paint = Paint::for_stdout();
    let mut text = String::new();
    let _ = writeln!(text, "{}", paint.bold(&information.to_string()));
    let mut line = |name: &str, value: String| writeln!(text, "  {name:<32}{value}");
    let _ = line("PCI", format!("{:04x}:{:04x}", information.vendor, information.device));
    let _ = line("MAC address", mac);
    let _ = line("contract", contract);
    let _ = line("firmware", firmware_version);
    for (name, value) in information.capabilities.iter() {
        let _ = line(name, grouped(value));
    }
    let _ = line("spis_per_command", grouped(firmware.spis_per_command));
    output::print(&text)
}

/// Shows counters.
pub(crate) fn stats(arguments: &StatsArguments, as_json: bool) -> Result<()> {
    let mut device = open(&arguments.model)?;
    let statistics = device.nic.statistics().map_err(device_error)?;
    if as_json {
        let counters: Map<String, Value> =
            statistics.iter().map(|(name, count)| (name, count.into())).collect();
        return output::print_json(&json!({ "counters": counters }));
    }
    let mut text = String::new();
    for (name, count) in statistics.iter().filter(|(_, count)| arguments.all || *count > 0) {
        let _ = writeln!(text, "  {:>20}  {name}", grouped(count));
    }
    if !arguments.all {
        text.push_str("counters that are 0 are left out; --all shows them\n");
    }
    output::print(&text)
}
