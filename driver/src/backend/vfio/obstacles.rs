//! What stands in the way of having a function from vfio-pci, each as a sentence that says what to do.

use std::io;
use std::path::Path;

use cryptonic_pci::HostError;
use cryptonic_pci::sysfs::{self, Address, Function, Group};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use vfio_ioctls::VfioError;

/// Looks at what `/sys` says of the function before anything is opened. `without_iommu`: the user named it as one that
/// no IOMMU holds back.
pub(super) fn look(root: &Path, address: Address, without_iommu: bool) -> Result<Function, HostError> {
    let function = sysfs::function(root, address).map_err(refused)?.ok_or_else(|| {
        refused(format_args!(
            "there is no PCI function at {address}; `cryptonic list --all` shows those that there are"
        ))
    })?;
    let Some(group) = function.group.as_ref().filter(|group| group.without_iommu == without_iommu) else {
        return Err(match (&function.group, without_iommu) {
            (None, false) => refused(format_args!(
                "no IOMMU holds back the DMA of {address}: turn it on in the firmware's setup (VT-d, AMD-Vi) and on the \
                 kernel's command line (intel_iommu=on)"
            )),
            (None, true) => refused(format_args!(
                "vfio has not made up a group for {address}: `echo Y > \
                 /sys/module/vfio/parameters/enable_unsafe_noiommu_mode` (CONFIG_VFIO_NOIOMMU), then `cryptonic bind \
                 {address}`"
            )),
            (Some(_), false) => refused(format_args!(
                "{address} is bound without an IOMMU and could write all memory: turn the IOMMU on in the firmware's setup \
                 and on the kernel's command line (intel_iommu=on); or, if it may, name it vfio-noiommu:{address}"
            )),
            (Some(_), true) => {
                refused(format_args!("an IOMMU holds back the DMA of {address}: name it vfio:{address}"))
            }
        });
    };
    match function.driver.as_deref() {
        Some(driver) if driver.contains("vfio") => {}
        other => {
            let bound = other.map_or("to no driver".to_owned(), |driver| format!("to {driver}"));
            return Err(refused(format_args!(
                "{address} is bound {bound}: `cryptonic bind {address}` binds it to vfio-pci"
            )));
        }
    }
    viable(root, address, group)?;
    Ok(function)
}

/// Whether the group can be had: if not, who is in the way.
fn viable(root: &Path, address: Address, group: &Group) -> Result<(), HostError> {
    let others = sysfs::group_functions(root, group.number).map_err(refused)?;
    let in_the_way: Vec<String> = others
        .iter()
        .filter(|other| !other.is_viable())
        .map(|other| format!("{} ({})", other.address, other.driver.as_deref().unwrap_or("no driver")))
        .collect();
    if in_the_way.is_empty() {
        return Ok(());
    }
    Err(refused(format_args!(
        "IOMMU group {} of {address} is not viable because of {}: `cryptonic bind` each of them too, or put the card into \
         a slot that has a group of its own",
        group.number,
        in_the_way.join(", ")
    )))
}

/// What it means that a function cannot be opened.
pub(super) fn opening(function: &Function, error: &VfioError) -> HostError {
    let address = function.address;
    let group = function.group.as_ref().map_or(0, |group| group.number);
    match error {
        VfioError::OpenContainer(error) => file("/dev/vfio/vfio", error),
        VfioError::OpenGroup(error, _) => file(&format!("/dev/vfio/{group}"), error),
        VfioError::GroupViable => refused(format_args!(
            "IOMMU group {group} of {address} is not viable: `cryptonic list` shows what is in it; all of that has to be \
             bound to vfio-pci, or to nothing"
        )),
        VfioError::VfioExtension | VfioError::ContainerSetIOMMU(_) => refused(format_args!(
            "the IOMMU of {address} cannot be used ({error}): load vfio_iommu_type1, and if the kernel says that interrupts \
             are not remapped, turn that on (intremap=on)"
        )),
        VfioError::GroupGetDeviceFD(reason) => {
            refused(format_args!("vfio does not give {address} away ({reason}): the kernel's log says why"))
        }
        error => refused(format_args!("opening {address} by vfio: {error}")),
    }
}

/// What it means that a file of a function without an IOMMU cannot be opened.
pub(super) fn opening_without_iommu(path: &str, error: &io::Error) -> HostError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => refused(format_args!(
            "no permission for {path}: a device without an IOMMU is for root alone (CAP_SYS_RAWIO)"
        )),
        _ => file(path, error),
    }
}

fn file(path: &str, error: &io::Error) -> HostError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            refused(format_args!("there is no {path}: load vfio-pci (`modprobe vfio-pci`)"))
        }
        io::ErrorKind::PermissionDenied => refused(format_args!(
            "no permission for {path}: run as root, or let root give it away (`chown USER {path}`)"
        )),
        io::ErrorKind::ResourceBusy => {
            refused(format_args!("another process has {path}: `fuser {path}` shows which"))
        }
        _ => refused(format_args!("{path}: {error}")),
    }
}

/// Why memory cannot be mapped for a function.
pub(super) fn mapping(bytes: usize, code: Option<i32>) -> String {
    mapping_under(bytes, code, getrlimit(Resource::Memlock).current)
}

fn mapping_under(bytes: usize, code: Option<i32>, limit: Option<u64>) -> String {
    match code.map(Errno::from_raw_os_error) {
        Some(Errno::NOMEM) => {
            let limit =
                limit.map_or("no limit".to_owned(), |limit| format!("a limit of {} KiB", limit >> 10));
            format!(
                "{} KiB cannot be locked in memory under {limit}: raise it (`ulimit -l unlimited`, or memlock in \
                 /etc/security/limits.conf)",
                bytes >> 10
            )
        }
        Some(Errno::NOSPC) => {
            "vfio has no room for more mappings (dma_entry_limit of vfio_iommu_type1)".to_owned()
        }
        Some(Errno::EXIST | Errno::ADDRINUSE) => "something is mapped there".to_owned(),
        Some(error) => error.to_string(),
        None => "for an unknown reason".to_owned(),
    }
}

fn refused(reason: impl std::fmt::Display) -> HostError {
    HostError::Refused { reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;
    use vmm_sys_util::errno::Error as SystemError;

    use super::*;

    /// A tree with functions: address, driver, IOMMU group, and whether that group is one without an IOMMU.
    fn tree(functions: &[(&str, Option<&str>, Option<u32>, bool)]) -> TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (address, driver, group, without_iommu) in functions {
            let folder = root.path().join("sys/bus/pci/devices").join(address);
            fs::create_dir_all(&folder).expect("a folder");
            for (name, text) in [("vendor", "0x1234\n"), ("device", "0x11e9\n"), ("class", "0x020000\n")] {
                fs::write(folder.join(name), text).expect("a file");
            }
            if let Some(driver) = driver {
                symlink(format!("../../drivers/{driver}"), folder.join("driver")).expect("a link");
            }
            if let Some(group) = group {
                symlink(format!("../../../../kernel/iommu_groups/{group}"), folder.join("iommu_group"))
                    .expect("a link");
                let members = root.path().join(format!("sys/kernel/iommu_groups/{group}/devices"));
                fs::create_dir_all(&members).expect("a folder");
                symlink(&folder, members.join(address)).expect("a link");
                if *without_iommu {
                    fs::write(members.with_file_name("name"), "vfio-noiommu\n").expect("a file");
                }
            }
        }
        root
    }

    const CARD: &str = "0000:03:00.0";

    /// What stands in the way of the card among these functions.
    fn told(functions: &[(&str, Option<&str>, Option<u32>, bool)]) -> Option<String> {
        let root = tree(functions);
        look(root.path(), CARD.parse().expect("an address"), false).err().map(|error| error.to_string())
    }

    #[test]
    fn each_obstacle_says_what_to_do() {
        let bridge = ("0000:00:01.0", Some("pcieport"), Some(7), false);
        let disk = ("0000:03:00.1", Some("nvme"), Some(7), false);
        let free = ("0000:03:00.1", None, Some(7), false);
        let card = (CARD, Some("vfio-pci"), Some(7), false);
        for (functions, words) in [
            (&[bridge][..], &["no PCI function at 0000:03:00.0", "cryptonic list"][..]),
            (&[(CARD, Some("vfio-pci"), None, false)], &["no IOMMU", "intel_iommu=on"]),
            (&[(CARD, Some("vfio-pci"), Some(7), true)], &["without an IOMMU", "vfio-noiommu:0000:03:00.0"]),
            (
                &[(CARD, Some("e1000e"), Some(7), false)],
                &["bound to e1000e", "`cryptonic bind 0000:03:00.0`"],
            ),
            (&[(CARD, None, Some(7), false)], &["bound to no driver", "`cryptonic bind 0000:03:00.0`"]),
            (&[card, bridge, disk], &["group 7", "not viable", "0000:03:00.1 (nvme)", "cryptonic bind"]),
        ] {
            let told = told(functions).unwrap_or_else(|| panic!("{functions:?} are no obstacle"));
            for word in words {
                assert!(told.contains(word), "{functions:?}: {told:?} lacks {word:?}");
            }
            assert!(!told.contains("pcieport"), "a bridge is in nobody's way: {told:?}");
        }
        assert_eq!(told(&[card, bridge, free]), None);
    }

    #[test]
    fn without_an_iommu_a_function_has_to_be_named_so() {
        for (group, without_iommu, named_so, words) in [
            (Some(7), false, true, Some("name it vfio:0000:03:00.0")),
            (Some(7), true, false, Some("vfio-noiommu:0000:03:00.0")),
            (None, false, true, Some("enable_unsafe_noiommu_mode")),
            (None, false, false, Some("intel_iommu=on")),
            (Some(7), true, true, None),
            (Some(7), false, false, None),
        ] {
            let root = tree(&[(CARD, Some("vfio-pci"), group, without_iommu)]);
            let looked = look(root.path(), CARD.parse().expect("an address"), named_so);
            let told = looked.err().map(|error| error.to_string());
            match (words, &told) {
                (None, None) => {}
                (Some(words), Some(told)) if told.contains(words) => {}
                _ => panic!("{group:?}, {without_iommu}, {named_so}: {told:?} instead of {words:?}"),
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_says_what_to_do() {
        let root = tree(&[(CARD, Some("vfio-pci"), Some(7), false)]);
        let function = look(root.path(), CARD.parse().expect("an address"), false).expect("no obstacle");
        let error = |kind: io::ErrorKind| io::Error::from(kind);
        for (failure, words) in [
            (VfioError::OpenContainer(error(io::ErrorKind::NotFound)), "modprobe vfio-pci"),
            (
                VfioError::OpenContainer(error(io::ErrorKind::PermissionDenied)),
                "no permission for /dev/vfio/vfio",
            ),
            (
                VfioError::OpenGroup(error(io::ErrorKind::PermissionDenied), "7".into()),
                "chown USER /dev/vfio/7",
            ),
            (
                VfioError::OpenGroup(error(io::ErrorKind::ResourceBusy), "7".into()),
                "another process has /dev/vfio/7",
            ),
            (VfioError::GroupViable, "group 7 of 0000:03:00.0 is not viable"),
            (VfioError::ContainerSetIOMMU(SystemError::new(1)), "intremap=on"),
        ] {
            let told = opening(&function, &failure).to_string();
            assert!(told.contains(words), "{told:?} lacks {words:?}");
        }
    }

    #[test]
    fn a_map_that_is_refused_says_what_to_do() {
        for (error, words) in [
            (
                Errno::NOMEM,
                "2048 KiB cannot be locked in memory under a limit of 64 KiB: raise it (`ulimit -l",
            ),
            (Errno::NOSPC, "dma_entry_limit"),
            (Errno::EXIST, "something is mapped there"),
            (Errno::INVAL, "nvalid argument"),
        ] {
            let told = mapping_under(2 << 20, Some(error.raw_os_error()), Some(64 << 10));
            assert!(told.contains(words), "{told:?} lacks {words:?}");
        }
    }
}
