//! What a PCI function carries that the machine runs on: mounted file systems, swap, the default route.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cryptonic_pci::sysfs::{self, Address};

/// Flag of a route that refuses (linux/ipv6_route.h, RTF_REJECT).
const ROUTE_REFUSES: u32 = 0x0200;

/// What it carries, each as words of a sentence.
pub(super) fn uses(root: &Path, address: Address) -> io::Result<Vec<String>> {
    let folder = fs::canonicalize(sysfs::folder(root, address))?;
    let mut uses = disks(root, &folder)?;
    uses.extend(routes(root, &folder)?);
    Ok(uses)
}

/// A block device: its name, and where it is in `/sys/devices`.
struct Named {
    name: String,
    path: PathBuf,
}

fn disks(root: &Path, folder: &Path) -> io::Result<Vec<String>> {
    let all = class(root, "block")?;
    let mut below = vec![folder.to_owned()];
    // A disk of several NVMe controllers stands below their subsystem.
    for subsystem in class(root, "nvme-subsystem")? {
        let controllers =
            fs::read_dir(&subsystem.path)?.filter_map(|entry| fs::canonicalize(entry.ok()?.path()).ok());
        if controllers.into_iter().any(|controller| controller.starts_with(folder)) {
            below.push(subsystem.path);
        }
    }
    // What is built of a disk, such as an encrypted or a mirrored one, stands elsewhere: it is among the disk's holders.
    let mut found: BTreeSet<&str> = BTreeSet::new();
    loop {
        let before = found.len();
        for disk in &all {
            if !below.iter().any(|path| disk.path.starts_with(path)) || !found.insert(&disk.name) {
                continue;
            }
            for holder in names(&disk.path.join("holders"))? {
                below.extend(all.iter().filter(|disk| disk.name == holder).map(|disk| disk.path.clone()));
            }
        }
        if found.len() == before {
            break;
        }
    }
    let mut uses = Vec::new();
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo"))?;
    let swaps = optional(fs::read_to_string(root.join("proc/swaps")))?.unwrap_or_default();
    for disk in all.iter().filter(|disk| found.contains(disk.name.as_str())) {
        let number = optional(fs::read_to_string(disk.path.join("dev")))?.unwrap_or_default();
        let file = format!("/dev/{}", disk.name);
        if let Some(place) = mounts.lines().find_map(|line| mounted(line, number.trim(), &file)) {
            uses.push(format!("{} (mounted on {place})", disk.name));
        }
        if swaps.lines().any(|line| line.split_whitespace().next() == Some(file.as_str())) {
            uses.push(format!("{} (swap)", disk.name));
        }
    }
    Ok(uses)
}

/// Where a line of `mountinfo` says that a block device of this number or file is mounted (proc_pid_mountinfo(5)).
fn mounted<'a>(line: &'a str, number: &str, file: &str) -> Option<&'a str> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(2);
    let (device, place) = (front.next()?, front.nth(1)?);
    // Some file systems, such as btrfs, have numbers of their own: their source tells.
    let source = back.split(' ').nth(1)?;
    (device == number || source == file).then_some(place)
}

fn routes(root: &Path, folder: &Path) -> io::Result<Vec<String>> {
    let all = class(root, "net")?;
    let mut found: BTreeSet<String> =
        all.iter().filter(|port| port.path.starts_with(folder)).map(|port| port.name.clone()).collect();
    // A bridge, a bond or a VLAN above a port carries the route in its place.
    let mut to_see: Vec<String> = found.iter().cloned().collect();
    while let Some(name) = to_see.pop() {
        for link in names(&root.join("sys/class/net").join(&name))? {
            let Some(upper) = link.strip_prefix("upper_") else { continue };
            if found.insert(upper.to_owned()) {
                to_see.push(upper.to_owned());
            }
        }
    }
    let ipv4 = optional(fs::read_to_string(root.join("proc/net/route")))?.unwrap_or_default();
    let ipv6 = optional(fs::read_to_string(root.join("proc/net/ipv6_route")))?.unwrap_or_default();
    let default = ipv4.lines().filter_map(default_of_ipv4).chain(ipv6.lines().filter_map(default_of_ipv6));
    let carried: BTreeSet<&str> = default.filter(|name| found.contains(*name)).collect();
    Ok(carried.into_iter().map(|name| format!("the default route ({name})")).collect())
}

/// The port of a line of `/proc/net/route`, if it is a default route: name, destination, …, mask as the eighth.
fn default_of_ipv4(line: &str) -> Option<&str> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let is_default = columns.get(1) == Some(&"00000000") && columns.get(7) == Some(&"00000000");
    columns.first().copied().filter(|_| is_default)
}

/// The port of a line of `/proc/net/ipv6_route`, if it is a default route: destination, prefix length, …, flags, name.
fn default_of_ipv6(line: &str) -> Option<&str> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [destination, length, .., flags, name] = columns.as_slice() else { return None };
    let is_default = destination.bytes().all(|digit| digit == b'0') && *length == "00";
    let refuses = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & ROUTE_REFUSES != 0);
    (is_default && !refuses).then_some(*name)
}

/// Devices of a class, with where they are.
fn class(root: &Path, class: &str) -> io::Result<Vec<Named>> {
    let folder = root.join("sys/class").join(class);
    names(&folder)?
        .into_iter()
        .filter_map(|name| match fs::canonicalize(folder.join(&name)) {
            Ok(path) => Some(Ok(Named { name, path })),
            // It went away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(error)),
        })
        .collect()
}

/// Names in a folder; none if it is not there.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let Some(entries) = optional(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<io::Result<Vec<_>>>()
}

fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
