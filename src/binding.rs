//! Which driver a PCI function is bound to, and changing that: what `bind`, `unbind` and `list` do.
//!
//! Everything is read and written below a root folder, and written through a function, so that a tree in a folder and
//! a kernel of a test's own do as well.

mod in_use;
#[cfg(test)]
mod tests;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use cryptonic_pci::sysfs::{self, Address, Function};
use cryptonic_regs::{PCI_DEVICE_ID, PCI_VENDOR_ID};

use crate::error::{Error, Result};

/// The driver that hands functions to processes.
const VFIO_PCI: &str = "vfio-pci";
/// What `/proc/self/status` says of a process that locks as much memory as it likes: bit of CAP_IPC_LOCK.
const CAPABILITY_TO_LOCK: u32 = 14;

/// The machine as `/sys` and `/proc` show it.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'a> {
    /// The folder that `sys` and `proc` are in.
    pub(crate) root: &'a Path,
    /// How a file of `/sys` is written.
    pub(crate) write: &'a dyn Fn(&Path, &str) -> io::Result<()>,
}

impl Machine<'static> {
    /// The machine that this process runs on.
    pub(crate) fn this() -> Machine<'static> {
        Machine { root: Path::new("/"), write: &write_existing }
    }
}

/// A function whose driver was changed, or was what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) address: Address,
    /// The driver before.
    pub(crate) before: Option<String>,
    /// The driver now.
    pub(crate) driver: Option<String>,
    /// The IOMMU group.
    pub(crate) group: Option<u32>,
    /// What keeps the group from being viable.
    pub(crate) in_the_way: Vec<Function>,
}

/// Binds a function to vfio-pci. Unless `force`, not one that the machine needs, nor one that is not ours.
/// After an error it is bound to what it was bound to before.
pub(crate) fn bind(machine: Machine<'_>, address: Address, force: bool) -> Result<Change> {
    let function = find(machine, address)?;
    let bound = |driver: Option<String>| change(machine, &function, driver);
    if function.driver.as_deref() == Some(VFIO_PCI) {
        return bound(function.driver.clone());
    }
    if !is_ours(&function) && !force {
        return Err(Error::at(
            address,
            format_args!(
                "is {:04x}:{:04x}, which is not a Cryptonic NIC; --force binds it all the same",
                function.vendor, function.device
            ),
        ));
    }
    if !machine.root.join("sys/bus/pci/drivers").join(VFIO_PCI).exists() {
        return Err(Error::at(address, "vfio-pci is not loaded: `modprobe vfio-pci`"));
    }
    if function.group.is_none() && !goes_without_iommu(machine) {
        return Err(Error::at(
            address,
            "no IOMMU holds back its DMA, so vfio-pci will not have it: turn the IOMMU on in the firmware's setup \
             (VT-d, AMD-Vi) and on the kernel's command line (intel_iommu=on)",
        ));
    }
    if !force {
        let uses = in_use::uses(machine.root, address).map_err(|error| {
            Error::at(
                address,
                format_args!(
                    "cannot tell whether the machine needs it ({error}); --force binds it all the same"
                ),
            )
        })?;
        if !uses.is_empty() {
            return Err(Error::at(
                address,
                format_args!("carries {}; --force takes it away all the same", uses.join(" and ")),
            ));
        }
    }
    let changed = hand_over(machine, &function, VFIO_PCI).and_then(|driver| match driver.as_deref() {
        Some(VFIO_PCI) => Ok(driver),
        _ => Err(Error::at(address, "vfio-pci did not take it: the kernel's log says why")),
    });
    match changed {
        Ok(driver) => bound(driver),
        Err(error) => Err(put_back(machine, &function, error)),
    }
}

/// Takes a function from vfio-pci and gives it to the driver that the kernel has for it, if any.
/// After an error it is bound to what it was bound to before.
pub(crate) fn unbind(machine: Machine<'_>, address: Address) -> Result<Change> {
    let function = find(machine, address)?;
    match function.driver.as_deref() {
        Some(VFIO_PCI) => {}
        None if function.driver_override.is_some() => {}
        other => {
            let driver = other.unwrap_or("no driver");
            return Err(Error::at(address, format_args!("is bound to {driver}, not to {VFIO_PCI}")));
        }
    }
    match hand_over(machine, &function, "") {
        Ok(driver) => change(machine, &function, driver),
        Err(error) => Err(put_back(machine, &function, error)),
    }
}

/// A function, and what else is to be known before it can be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) function: Function,
    /// The other functions of its IOMMU group.
    pub(crate) group: Vec<Function>,
    /// Whether nothing in the group keeps it from being used.
    pub(crate) viable: bool,
    /// What to do next.
    pub(crate) advice: Option<String>,
}

/// Functions of ours, or all.
pub(crate) fn list(machine: Machine<'_>, all: bool) -> Result<Vec<Listed>> {
    let functions = sysfs::functions(machine.root)
        .map_err(|error| Error::input(format_args!("no list of PCI functions, which Linux has: {error}")))?;
    let wanted = functions.into_iter().filter(|function| all || is_ours(function));
    wanted
        .map(|function| {
            let mut group = in_group(machine, &function)?;
            group.retain(|other| other.address != function.address);
            let viable = function.group.as_ref().is_some_and(|group| !group.without_iommu)
                && group.iter().all(Function::is_viable);
            let advice = advice(&function, &group).filter(|_| is_ours(&function));
            Ok(Listed { function, group, viable, advice })
        })
        .collect()
}

fn advice(function: &Function, group: &[Function]) -> Option<String> {
    let address = function.address;
    let Some(own) = &function.group else {
        return Some("turn the IOMMU on: intel_iommu=on on the kernel's command line".to_owned());
    };
    if own.without_iommu {
        return Some(format!(
            "turn the IOMMU on; or use --device vfio-noiommu:{address}, if it may reach all memory of this machine"
        ));
    }
    if function.driver.as_deref() != Some(VFIO_PCI) {
        return Some(format!("cryptonic bind {address}"));
    }
    let in_the_way: Vec<String> = group
        .iter()
        .filter(|other| !other.is_viable())
        .map(|other| format!("cryptonic bind --force {}", other.address))
        .collect();
    (!in_the_way.is_empty()).then(|| in_the_way.join("; "))
}

/// What is said where a device's memory will not lie in huge pages.
pub(crate) const NO_HUGE_PAGES: &str =
    "no huge pages are free, so memory for devices lies in normal ones: sysctl vm.nr_hugepages=64";

/// What a process of ours may have of the machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes that it may lock in memory; none for as many as it likes.
    pub(crate) locked_bytes: Option<u64>,
    /// Pages of 2 MiB that are set aside and free.
    pub(crate) huge_pages_free: u64,
    /// Whether vfio-pci is loaded.
    pub(crate) vfio_pci: bool,
}

/// Reads them. What is not told is taken for absent.
pub(crate) fn limits(machine: Machine<'_>) -> Limits {
    let text = |name: &str| fs::read_to_string(machine.root.join("proc").join(name)).unwrap_or_default();
    let capabilities = text("self/status")
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    let is_limited = capabilities >> CAPABILITY_TO_LOCK & 1 == 0;
    let limits = text("self/limits");
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    // The soft limit, which is a number or `unlimited`.
    let soft = limit.and_then(|columns| columns.split_whitespace().next()).filter(|_| is_limited);
    let locked_bytes = soft.and_then(|soft| soft.parse().ok());
    let memory = text("meminfo");
    let figure = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    let of_2_mib = figure("Hugepagesize") == Some(2048);
    Limits {
        locked_bytes,
        huge_pages_free: figure("HugePages_Free").filter(|_| of_2_mib).unwrap_or(0),
        vfio_pci: machine.root.join("sys/bus/pci/drivers").join(VFIO_PCI).exists(),
    }
}

/// Whether vfio takes functions that no IOMMU holds back.
fn goes_without_iommu(machine: Machine<'_>) -> bool {
    let mode = machine.root.join("sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
    fs::read_to_string(mode).is_ok_and(|mode| mode.trim() == "Y")
}

/// Whether it is a NIC of our contract.
pub(crate) fn is_ours(function: &Function) -> bool {
    (function.vendor, function.device) == (PCI_VENDOR_ID, PCI_DEVICE_ID)
}

fn find(machine: Machine<'_>, address: Address) -> Result<Function> {
    sysfs::function(machine.root, address).map_err(|error| Error::at(address, error))?.ok_or_else(|| {
        Error::at(
            address,
            "there is no PCI function there; `cryptonic list --all` shows those that there are",
        )
    })
}

fn in_group(machine: Machine<'_>, function: &Function) -> Result<Vec<Function>> {
    match &function.group {
        Some(group) => sysfs::group_functions(machine.root, group.number)
            .map_err(|error| Error::at(function.address, error)),
        None => Ok(Vec::new()),
    }
}

fn change(machine: Machine<'_>, function: &Function, driver: Option<String>) -> Result<Change> {
    // A group that vfio makes up is there with its driver alone.
    let now = find(machine, function.address)?;
    let mut in_the_way = in_group(machine, &now)?;
    in_the_way.retain(|other| other.address != function.address && !other.is_viable());
    Ok(Change {
        address: function.address,
        before: function.driver.clone(),
        driver,
        group: now.group.map(|group| group.number),
        in_the_way,
    })
}

/// Has the kernel give a function to one driver, or for an empty name to the one that it has for it. Gives the driver
/// that it is bound to then.
fn hand_over(machine: Machine<'_>, function: &Function, driver: &str) -> Result<Option<String>> {
    let address = function.address;
    let folder = sysfs::folder(machine.root, address);
    // The override first: once it stands, nothing but this driver can take the function (Documentation/ABI/testing/
    // sysfs-bus-pci, driver_override). An end of line alone clears it.
    put(machine, address, &folder.join("driver_override"), &format!("{driver}\n"))?;
    let now = find(machine, address)?.driver;
    if now.as_deref() != Some(driver) {
        if now.is_some() {
            put(machine, address, &folder.join("driver/unbind"), &address.to_string())?;
        }
        put(machine, address, &machine.root.join("sys/bus/pci/drivers_probe"), &address.to_string())?;
    }
    Ok(find(machine, address)?.driver)
}

/// Puts a function back to where it was before something failed, and tells if that fails too.
fn put_back(machine: Machine<'_>, function: &Function, error: Error) -> Error {
    let before = function.driver.as_deref();
    match restore(machine, function).and_then(|()| find(machine, function.address)) {
        Ok(now) if now.driver.as_deref() == before => error,
        _ => Error::at(
            function.address,
            format_args!(
                "{}; and it could not be given back to {}",
                error.message(),
                before.unwrap_or("no driver")
            ),
        ),
    }
}

fn restore(machine: Machine<'_>, function: &Function) -> Result<()> {
    let address = function.address;
    let folder = sysfs::folder(machine.root, address);
    if find(machine, address)?.driver != function.driver {
        match &function.driver {
            Some(before) => drop(hand_over(machine, function, before)?),
            None => put(machine, address, &folder.join("driver/unbind"), &address.to_string())?,
        }
    }
    let name = function.driver_override.as_deref().unwrap_or("");
    put(machine, address, &folder.join("driver_override"), &format!("{name}\n"))
}

fn put(machine: Machine<'_>, address: Address, path: &Path, text: &str) -> Result<()> {
    (machine.write)(path, text).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::at(address, format_args!("only root may write {}", path.display()))
        }
        _ => Error::at(address, format_args!("writing {}: {error}", path.display())),
    })
}

/// Writes a file that is there: in `/sys` nobody can make one.
fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}
