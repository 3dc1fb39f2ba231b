//! PCI functions as Linux shows them under `/sys`: addresses, drivers, IOMMU groups.
//!
//! The root of the file system is a parameter, so that a tree in a folder does as well.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// Where a function is: domain, bus, device and function, written `0000:03:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Domain, which is 0 on most machines; 16 bits, but for those that a host bridge of software makes up.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// A text that is no address of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a PCI address looks like 0000:03:00.0")]
pub struct NotAnAddress;

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Address, NotAnAddress> {
        let (front, function) = text.rsplit_once('.').ok_or(NotAnAddress)?;
        let (front, device) = front.rsplit_once(':').ok_or(NotAnAddress)?;
        let (domain, bus) = front.split_once(':').unwrap_or(("0000", front));
        let number = |text: &str, digits: usize, most: u32| {
            let plain = !text.is_empty() && text.len() <= digits && !text.starts_with('+');
            let value = u32::from_str_radix(text, 16).ok().filter(|value| plain && *value <= most);
            value.ok_or(NotAnAddress)
        };
        Ok(Address {
            domain: number(domain, 8, u32::MAX)?,
            bus: number(bus, 2, 0xff)? as u8,
            device: number(device, 2, 31)? as u8,
            function: number(function, 1, 7)? as u8,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { domain, bus, device, function } = self;
        write!(formatter, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

/// What `/sys` says of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Class, subclass and interface, 24 bits.
    pub class: u32,
    /// The driver that is bound to it.
    pub driver: Option<String>,
    /// The one driver that may be bound to it, if that was set.
    pub driver_override: Option<String>,
    /// Its IOMMU group; none if no IOMMU translates for it.
    pub group: Option<Group>,
}

/// An IOMMU group: functions that no IOMMU can hold apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub number: u32,
    /// It was made up for vfio's mode without an IOMMU.
    pub without_iommu: bool,
}

impl Function {
    /// Whether the kernel lets a process have the group with this function in it: nothing is bound to it that
    /// would use its DMA for the kernel (Documentation/driver-api/vfio.rst, "Groups, Devices, and IOMMUs").
    pub fn is_viable(&self) -> bool {
        match self.driver.as_deref() {
            None | Some("pci-stub" | "pcieport") => true,
            Some(driver) => driver.contains("vfio"),
        }
    }
}

/// The folder of a function.
pub fn folder(root: &Path, address: Address) -> PathBuf {
    root.join("sys/bus/pci/devices").join(address.to_string())
}

/// Reads what there is to know of a function; `None` if there is none at this address.
pub fn function(root: &Path, address: Address) -> io::Result<Option<Function>> {
    let folder = folder(root, address);
    if !folder.exists() {
        return Ok(None);
    }
    let number = |name: &str| {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).map_err(|error| with_path(&path, &error))?;
        let digits = text.trim().strip_prefix("0x").unwrap_or_else(|| text.trim());
        u32::from_str_radix(digits, 16).map_err(|error| with_path(&path, &error))
    };
    let group = link_name(&folder.join("iommu_group")).and_then(|name| name.parse().ok());
    let driver_override = fs::read_to_string(folder.join("driver_override")).ok();
    Ok(Some(Function {
        address,
        vendor: number("vendor")? as u16,
        device: number("device")? as u16,
        class: number("class")?,
        driver: link_name(&folder.join("driver")),
        driver_override: driver_override
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty() && text != "(null)"),
        group: group.map(|number| Group { number, without_iommu: without_iommu(root, number) }),
    }))
}

/// Every function, in order of addresses.
pub fn functions(root: &Path) -> io::Result<Vec<Function>> {
    read_functions(root, &root.join("sys/bus/pci/devices"))
}

/// Every function of an IOMMU group, in order of addresses.
pub fn group_functions(root: &Path, group: u32) -> io::Result<Vec<Function>> {
    read_functions(root, &root.join("sys/kernel/iommu_groups").join(group.to_string()).join("devices"))
}

fn read_functions(root: &Path, folder: &Path) -> io::Result<Vec<Function>> {
    let mut addresses = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| with_path(folder, &error))? {
        // Groups hold devices of other buses too, whose names are no addresses.
        if let Some(address) = entry?.file_name().to_str().and_then(|name| name.parse::<Address>().ok()) {
            addresses.push(address);
        }
    }
    addresses.sort_unstable();
    addresses.into_iter().filter_map(|address| function(root, address).transpose()).collect()
}

fn without_iommu(root: &Path, group: u32) -> bool {
    let name = root.join("sys/kernel/iommu_groups").join(group.to_string()).join("name");
    fs::read_to_string(name).is_ok_and(|name| name.trim() == "vfio-noiommu")
}

fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

fn with_path(path: &Path, error: &dyn fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for (text, written) in [
            ("0000:03:00.0", "0000:03:00.0"),
            ("03:00.0", "0000:03:00.0"),
            ("0000:ff:1f.7", "0000:ff:1f.7"),
            ("10000:E1:00.1", "10000:e1:00.1"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(written.to_owned()));
        }
        for text in [
            "",
            "0",
            "3:0",
            "00.0",
            "0000:03:00",
            "0000:03:20.0",
            "0000:03:00.8",
            "0000:103:00.0",
            "0000:03:00.0 ",
            "../03:00.0",
            "0:0:0:0.0",
            "+0:03:00.0",
            "0000:03:00.+1",
            "vfio:0000:03:00.0",
        ] {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress), "{text:?}");
        }
    }

    #[test]
    fn a_driver_that_uses_dma_for_the_kernel_spoils_its_group() {
        let mut function = Function {
            address: Address { domain: 0, bus: 3, device: 0, function: 0 },
            vendor: 0x8086,
            device: 1,
            class: 0x02_0000,
            driver: None,
            driver_override: None,
            group: None,
        };
        for (driver, viable) in [
            (None, true),
            (Some("vfio-pci"), true),
            (Some("mlx5_vfio_pci"), true),
            (Some("pcieport"), true),
            (Some("pci-stub"), true),
            (Some("e1000e"), false),
            (Some("nvme"), false),
        ] {
            function.driver = driver.map(str::to_owned);
            assert_eq!(function.is_viable(), viable, "{driver:?}");
        }
    }
}
