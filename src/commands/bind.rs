//! `bind`, `unbind` and `list`: which driver a PCI function is bound to.

use std::fmt::Write;

use clap::Args;
use cryptonic_pci::sysfs::{Address, Function};
use serde_json::{Value, json};

use crate::binding::{self, Change, Limits, Listed, Machine};
use crate::error::Result;
use crate::output::{self, Paint};

/// What one queue pair of 32 768 slots each way locks, buffers included, is below this.
const LOCKED_BYTES_ADVISED: u64 = 256 << 20;

/// Arguments of `bind`.
#[derive(Debug, Args)]
pub(crate) struct BindArguments {
    /// The PCI address, such as 0000:03:00.0
    address: Address,
    /// Even if it carries a mounted file system, swap or the default route, or is no Cryptonic NIC
    #[arg(long)]
    force: bool,
}

/// Arguments of `unbind`.
#[derive(Debug, Args)]
pub(crate) struct UnbindArguments {
    /// The PCI address, such as 0000:03:00.0
    address: Address,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Show every PCI function
    #[arg(long)]
    all: bool,
}

/// Binds a function to vfio-pci.
pub(crate) fn bind(arguments: &BindArguments, as_json: bool) -> Result<()> {
    tell(&binding::bind(Machine::this(), arguments.address, arguments.force)?, as_json)
}

/// Takes a function from vfio-pci.
pub(crate) fn unbind(arguments: &UnbindArguments, as_json: bool) -> Result<()> {
    tell(&binding::unbind(Machine::this(), arguments.address)?, as_json)
}

/// Lists functions.
pub(crate) fn list(arguments: &ListArguments, as_json: bool) -> Result<()> {
    let machine = Machine::this();
    let listed = binding::list(machine, arguments.all)?;
    let limits = binding::limits(machine);
    let advice = advice(&listed, &limits);
    if as_json {
        return output::print_json(&json!({
            "functions": listed.iter().map(listed_as_json).collect::<Vec<_>>(),
            "vfio_pci": limits.vfio_pci,
            "locked_bytes": limits.locked_bytes,
            "huge_pages_free": limits.huge_pages_free,
            "advice": advice,
        }));
    }
    output::print(&listed_as_text(&listed, &advice, arguments.all))
}

fn tell(change: &Change, as_json: bool) -> Result<()> {
    if as_json {
        return output::print_json(&json!({
            "address": change.address.to_string(),
            "driver_before": change.before,
            "driver": change.driver,
            "group": change.group,
            "in_the_way": change.in_the_way.iter().map(function_as_json).collect::<Vec<_>>(),
        }));
    }
    let driver = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "no driver".to_owned());
    let mut text = if change.before == change.driver {
        format!("{} is bound to {}, as before\n", change.address, driver(&change.driver))
    } else {
        let (before, now) = (driver(&change.before), driver(&change.driver));
        format!("{} is bound to {now}; before: {before}\n", change.address)
    };
    if change.driver.as_deref() == Some("vfio-pci") {
        for other in &change.in_the_way {
            let _ = writeln!(
                text,
                "it cannot be used before {} in the same IOMMU group leaves {}",
                other.address,
                driver(&other.driver)
            );
        }
    }
    output::print(&text)
}

fn listed_as_text(listed: &[Listed], advice: &[String], all: bool) -> String {
    let paint = Paint::for_stdout();
    let mut text = String::new();
    if listed.is_empty() {
        let more = if all { "" } else { "; --all shows every PCI function" };
        let _ = writeln!(text, "no Cryptonic NIC{more}");
    }
    for Listed { function, group, viable, advice } in listed {
        let address = function.address.to_string();
        let name = if binding::is_ours(function) { paint.bold(&address) } else { address };
        let driver = function.driver.as_deref().unwrap_or("no driver");
        let group_name = match &function.group {
            Some(group) if group.without_iommu => "group without an IOMMU".to_owned(),
            Some(group) => format!("group {}{}", group.number, if *viable { "" } else { ", not viable" }),
            None => "no IOMMU".to_owned(),
        };
        let (vendor, device) = (function.vendor, function.device);
        let _ = writeln!(text, "{name}  {vendor:04x}:{device:04x}  {driver}, {group_name}");
        if binding::is_ours(function) {
            for other in group {
                let driver = other.driver.as_deref().unwrap_or("no driver");
                let _ = writeln!(text, "    with {} ({driver})", other.address);
            }
        }
        if let Some(advice) = advice {
            let _ = writeln!(text, "    next: {advice}");
        }
    }
    for advice in advice {
        let _ = writeln!(text, "{advice}");
    }
    text
}

/// What is to be done for all of them together.
fn advice(listed: &[Listed], limits: &Limits) -> Vec<String> {
    let mut advice = Vec::new();
    if !listed.iter().any(|listed| binding::is_ours(&listed.function)) {
        return advice;
    }
    if !limits.vfio_pci {
        advice.push("vfio-pci is not loaded: modprobe vfio-pci".to_owned());
    }
    if let Some(bytes) = limits.locked_bytes.filter(|bytes| *bytes < LOCKED_BYTES_ADVISED) {
        advice.push(format!(
            "{} MiB may be locked in memory for devices, which is little: ulimit -l unlimited",
            bytes >> 20
        ));
    }
    if limits.huge_pages_free == 0 {
        advice.push(binding::NO_HUGE_PAGES.to_owned());
    }
    advice
}

fn listed_as_json(listed: &Listed) -> Value {
    let mut value = function_as_json(&listed.function);
    let function = &listed.function;
    value["ours"] = binding::is_ours(function).into();
    value["driver_override"] = json!(function.driver_override);
    value["group"] = json!(function.group.as_ref().map(|group| group.number));
    value["viable"] = listed.viable.into();
    value["group_functions"] = listed.group.iter().map(function_as_json).collect();
    value["advice"] = json!(listed.advice);
    value
}

fn function_as_json(function: &Function) -> Value {
    json!({
        "address": function.address.to_string(),
        "vendor": format!("{:#06x}", function.vendor),
        "device": format!("{:#06x}", function.device),
        "driver": function.driver,
    })
}
