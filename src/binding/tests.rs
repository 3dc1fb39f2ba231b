//! Functions of a tree in a folder, under a kernel that is played.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

const CARD: &str = "0000:03:00.0";
const OTHER: &str = "0000:03:00.1";
const OURS: (u16, u16) = (PCI_VENDOR_ID, PCI_DEVICE_ID);
const FOREIGN: (u16, u16) = (0x8086, 0x1521);

/// A machine: its tree, what its kernel does on a probe, and what was written.
struct Played {
    root: TempDir,
    /// Which driver the kernel has for each function.
    native: Vec<(&'static str, &'static str)>,
    /// Drivers that refuse to be bound.
    refusing: Vec<&'static str>,
    /// The write of this number, from 0 on, fails.
    failing_write: Option<usize>,
    writes: RefCell<Vec<String>>,
}

impl Played {
    fn new() -> Played {
        let root = tempfile::tempdir().expect("a folder");
        let played = Played {
            root,
            native: Vec::new(),
            refusing: Vec::new(),
            failing_write: None,
            writes: RefCell::default(),
        };
        played.file("proc/self/mountinfo", "21 1 0:20 / /proc rw - proc proc rw\n");
        fs::create_dir_all(played.path("sys/bus/pci/drivers/vfio-pci")).expect("a folder");
        played
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn link(&self, name: &str, target: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        symlink(self.path(target), path).expect("a link");
    }

    /// Adds a function; its driver is the one that the kernel has for it.
    fn function(
        &mut self,
        address: &'static str,
        identifiers: (u16, u16),
        driver: Option<&'static str>,
        group: u32,
    ) {
        let real = format!("sys/devices/pci0000:00/{address}");
        self.file(&format!("{real}/vendor"), &format!("{:#06x}\n", identifiers.0));
        self.file(&format!("{real}/device"), &format!("{:#06x}\n", identifiers.1));
        self.file(&format!("{real}/class"), "0x020000\n");
        self.file(&format!("{real}/driver_override"), "(null)\n");
        self.link(&format!("sys/bus/pci/devices/{address}"), &real);
        fs::create_dir_all(self.path(&format!("sys/kernel/iommu_groups/{group}/devices"))).expect("a folder");
        self.link(&format!("{real}/iommu_group"), &format!("sys/kernel/iommu_groups/{group}"));
        self.link(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"), &real);
        if let Some(driver) = driver {
            self.native.push((address, driver));
            self.attach(address, driver);
        }
    }

    fn attach(&self, address: &str, driver: &str) {
        fs::create_dir_all(self.path(&format!("sys/bus/pci/drivers/{driver}"))).expect("a folder");
        self.file(&format!("sys/bus/pci/drivers/{driver}/unbind"), "");
        self.link(
            &format!("sys/devices/pci0000:00/{address}/driver"),
            &format!("sys/bus/pci/drivers/{driver}"),
        );
    }

    /// What the kernel does when a file of `/sys` is written.
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let number = self.writes.borrow().len();
        let name = path.strip_prefix(self.root.path()).expect("below the root").display().to_string();
        self.writes.borrow_mut().push(format!("{name} {}", text.trim()));
        if self.failing_write == Some(number) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if name.ends_with("/driver_override") {
            return fs::write(path, if text == "\n" { "(null)\n" } else { text });
        }
        let device = self.path(&format!("sys/devices/pci0000:00/{text}"));
        if name.ends_with("/unbind") {
            return fs::remove_file(device.join("driver"));
        }
        assert_eq!(name, "sys/bus/pci/drivers_probe");
        let wanted = fs::read_to_string(device.join("driver_override"))?;
        let native = self.native.iter().find(|(address, _)| *address == text).map(|(_, driver)| *driver);
        let driver = if wanted == "(null)\n" { native } else { Some(wanted.trim()) };
        if let Some(driver) = driver.filter(|driver| !self.refusing.contains(driver)) {
            self.attach(text, driver);
        }
        Ok(())
    }

    fn run<T>(&self, action: impl FnOnce(Machine<'_>) -> T) -> T {
        action(Machine { root: self.root.path(), write: &|path, text| self.write(path, text) })
    }

    fn bind(&self, force: bool) -> Result<Change> {
        self.run(|machine| bind(machine, CARD.parse().expect("an address"), force))
    }

    fn unbind(&self) -> Result<Change> {
        self.run(|machine| unbind(machine, CARD.parse().expect("an address")))
    }

    /// The driver and the override of the card.
    fn state(&self) -> (Option<String>, Option<String>) {
        let function = sysfs::function(self.root.path(), CARD.parse().expect("an address"));
        let function = function.expect("it can be read").expect("it is there");
        (function.driver, function.driver_override)
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_function_goes_to_vfio_and_back() {
    for native in [Some("e1000e"), None] {
        let mut machine = Played::new();
        machine.function(CARD, OURS, native, 7);
        let bound = machine.bind(false).expect("it can be bound");
        assert_eq!((bound.before, bound.driver.as_deref()), (native.map(str::to_owned), Some("vfio-pci")));
        assert_eq!(machine.state(), (some("vfio-pci"), some("vfio-pci")));
        let again = machine.bind(false).expect("it is bound");
        assert_eq!(again.before, again.driver);
        let unbound = machine.unbind().expect("it can be given back");
        assert_eq!(unbound.driver.as_deref(), native);
        assert_eq!(machine.state(), (native.map(str::to_owned), None));
    }
}

#[test]
fn the_override_stands_before_the_function_is_free() {
    let mut machine = Played::new();
    machine.function(CARD, OURS, Some("e1000e"), 7);
    machine.bind(false).expect("it can be bound");
    assert_eq!(
        *machine.writes.borrow(),
        [
            "sys/bus/pci/devices/0000:03:00.0/driver_override vfio-pci",
            "sys/bus/pci/devices/0000:03:00.0/driver/unbind 0000:03:00.0",
            "sys/bus/pci/drivers_probe 0000:03:00.0",
        ]
    );
}

#[test]
fn what_fails_leaves_the_driver_of_before() {
    for failing in 0..3 {
        let mut machine = Played::new();
        machine.function(CARD, OURS, Some("e1000e"), 7);
        machine.failing_write = Some(failing);
        let error = machine.bind(false).expect_err("a write fails").to_string();
        assert!(error.contains("only root may write"), "{error}");
        assert_eq!(machine.state(), (some("e1000e"), None), "write {failing} fails");

        let mut machine = Played::new();
        machine.function(CARD, OURS, Some("e1000e"), 7);
        machine.bind(false).expect("it can be bound");
        machine.failing_write = Some(3 + failing);
        machine.unbind().expect_err("a write fails");
        assert_eq!(machine.state(), (some("vfio-pci"), some("vfio-pci")), "write {failing} fails");
    }
    let mut machine = Played::new();
    machine.function(CARD, OURS, Some("e1000e"), 7);
    machine.refusing.push("vfio-pci");
    let error = machine.bind(false).expect_err("vfio-pci refuses").to_string();
    assert!(error.contains("vfio-pci did not take it"), "{error}");
    assert_eq!(machine.state(), (some("e1000e"), None));

    // If the driver of before does not come back either, that is told.
    machine.refusing.push("e1000e");
    let error = machine.bind(false).expect_err("nobody takes it").to_string();
    assert!(error.contains("could not be given back to e1000e"), "{error}");
}

#[test]
fn what_the_machine_runs_on_is_not_taken_away() {
    type Carry = fn(&Played);
    let disk: Carry = |machine| {
        machine.file("sys/devices/pci0000:00/0000:03:00.0/ata1/block/sda/dev", "8:0\n");
        machine.file("sys/devices/pci0000:00/0000:03:00.0/ata1/block/sda/sda1/dev", "8:1\n");
        machine.link("sys/class/block/sda", "sys/devices/pci0000:00/0000:03:00.0/ata1/block/sda");
        machine.link("sys/class/block/sda1", "sys/devices/pci0000:00/0000:03:00.0/ata1/block/sda/sda1");
    };
    let port: Carry = |machine| {
        machine.file("sys/devices/pci0000:00/0000:03:00.0/virtio0/net/eth0/mtu", "1500\n");
        machine.link("sys/class/net/eth0", "sys/devices/pci0000:00/0000:03:00.0/virtio0/net/eth0");
        machine.file("sys/class/net/bonding_masters", "\n");
    };
    let route = "eth0 00000000 0200000A 0003 0 0 100 00000000 0 0 0\n";
    let zeros = "0".repeat(32);
    let route6 = |flags: &str, name: &str| {
        format!("{zeros} 00 {zeros} 00 fe80000000000000000000000000000a 00000400 1 0 {flags}     {name}\n")
    };
    // A name, what the card carries, files of `/proc`, and why it is not taken away.
    type Case<'a> = (&'a str, Carry, &'a [(&'a str, &'a str)], Option<&'a str>);
    let cases: &[Case<'_>] = &[
        ("a disk that nobody mounted", disk, &[], None),
        (
            "a mounted partition",
            disk,
            &[("proc/self/mountinfo", "30 1 8:1 / / rw shared:1 - ext4 /dev/root rw\n")],
            Some("sda1 (mounted on /)"),
        ),
        (
            "a file system with a number of its own",
            disk,
            &[("proc/self/mountinfo", "30 1 0:31 /@ /home rw - btrfs /dev/sda1 rw\n")],
            Some("sda1 (mounted on /home)"),
        ),
        (
            "another disk is mounted",
            disk,
            &[("proc/self/mountinfo", "30 1 8:17 / / rw shared:1 - ext4 /dev/sdb1 rw\n")],
            None,
        ),
        (
            "swap",
            disk,
            &[("proc/swaps", "Filename Type Size Used Priority\n/dev/sda1 partition 1000 0 -2\n")],
            Some("sda1 (swap)"),
        ),
        (
            "an encrypted volume on a partition",
            |machine| {
                let sda = "sys/devices/pci0000:00/0000:03:00.0/ata1/block/sda";
                machine.file(&format!("{sda}/sda1/dev"), "8:1\n");
                machine.link("sys/class/block/sda1", &format!("{sda}/sda1"));
                machine.file("sys/devices/virtual/block/dm-0/dev", "254:0\n");
                machine.link("sys/class/block/dm-0", "sys/devices/virtual/block/dm-0");
                machine.link(&format!("{sda}/sda1/holders/dm-0"), "sys/devices/virtual/block/dm-0");
            },
            &[("proc/self/mountinfo", "30 1 254:0 / / rw - ext4 /dev/mapper/root rw\n")],
            Some("dm-0 (mounted on /)"),
        ),
        (
            "a disk of several NVMe controllers",
            |machine| {
                let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
                machine.file("sys/devices/pci0000:00/0000:03:00.0/nvme/nvme0/state", "live\n");
                machine.file(&format!("{subsystem}/nvme0n1/dev"), "259:0\n");
                machine.link("sys/class/block/nvme0n1", &format!("{subsystem}/nvme0n1"));
                machine.link(&format!("{subsystem}/nvme0"), "sys/devices/pci0000:00/0000:03:00.0/nvme/nvme0");
                machine.link("sys/class/nvme-subsystem/nvme-subsys0", subsystem);
            },
            &[("proc/self/mountinfo", "30 1 259:0 / /data rw - xfs /dev/nvme0n1 rw\n")],
            Some("nvme0n1 (mounted on /data)"),
        ),
        ("a port without a route", port, &[("proc/net/route", "Iface Destination Gateway\n")], None),
        ("the default route", port, &[("proc/net/route", route)], Some("the default route (eth0)")),
        (
            "a route to a network",
            port,
            &[("proc/net/route", "eth0 0000A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n")],
            None,
        ),
        (
            "the default route of IPv6",
            port,
            &[("proc/net/ipv6_route", &route6("00000003", "eth0"))],
            Some("the default route (eth0)"),
        ),
        ("no route of IPv6", port, &[("proc/net/ipv6_route", &route6("00200200", "lo"))], None),
        ("a route that refuses", port, &[("proc/net/ipv6_route", &route6("00000200", "eth0"))], None),
        (
            "the default route over a bridge over a bond",
            |machine| {
                machine.file("sys/devices/pci0000:00/0000:03:00.0/net/eth0/upper_bond0", "");
                machine.link("sys/class/net/eth0", "sys/devices/pci0000:00/0000:03:00.0/net/eth0");
                machine.file("sys/devices/virtual/net/bond0/upper_br0", "");
                machine.link("sys/class/net/bond0", "sys/devices/virtual/net/bond0");
            },
            &[("proc/net/route", "br0 00000000 0200000A 0003 0 0 100 00000000 0 0 0\n")],
            Some("the default route (br0)"),
        ),
    ];
    for (name, carry, files, expected) in cases {
        let mut machine = Played::new();
        machine.function(CARD, OURS, Some("e1000e"), 7);
        carry(&machine);
        for (file, text) in *files {
            machine.file(file, text);
        }
        match expected {
            Some(words) => {
                let error = machine.bind(false).expect_err(name).to_string();
                assert!(error.contains(words) && error.contains("--force"), "{name}: {error}");
                assert_eq!((machine.state().0, machine.writes.borrow().len()), (some("e1000e"), 0), "{name}");
                machine.bind(true).expect(name);
            }
            None => drop(machine.bind(false).expect(name)),
        }
        assert_eq!(machine.state().0, some("vfio-pci"), "{name}");
    }
}

#[test]
fn what_cannot_be_told_is_not_taken_for_free() {
    let mut machine = Played::new();
    machine.function(CARD, OURS, Some("e1000e"), 7);
    fs::remove_file(machine.path("proc/self/mountinfo")).expect("it was there");
    let error = machine.bind(false).expect_err("nobody knows what is mounted").to_string();
    assert!(error.contains("cannot tell whether the machine needs it"), "{error}");
    assert_eq!(machine.state().0, some("e1000e"));
}

#[test]
fn bad_requests_say_what_is_the_matter_and_write_nothing() {
    type Prepare = fn(&mut Played);
    let cases: &[(Prepare, &str)] = &[
        (|_| {}, "no PCI function there"),
        (
            |machine| machine.function(CARD, FOREIGN, Some("igb"), 7),
            "8086:1521, which is not a Cryptonic NIC",
        ),
        (
            |machine| {
                machine.function(CARD, OURS, None, 7);
                fs::remove_dir(machine.path("sys/bus/pci/drivers/vfio-pci")).expect("it was there");
            },
            "modprobe vfio-pci",
        ),
        (
            |machine| {
                machine.function(CARD, OURS, None, 7);
                let link = "sys/devices/pci0000:00/0000:03:00.0/iommu_group";
                fs::remove_file(machine.path(link)).expect("it was there");
            },
            "intel_iommu=on",
        ),
        (
            |machine| {
                machine.function(CARD, OURS, None, 7);
                machine.file("sys/devices/pci0000:00/0000:03:00.0/vendor", "0xgarbage\n");
            },
            "vendor",
        ),
    ];
    for (prepare, words) in cases {
        let mut machine = Played::new();
        prepare(&mut machine);
        let error = machine.bind(false).expect_err(words).to_string();
        assert!(error.starts_with(CARD) && error.contains(words), "{error:?} lacks {words:?}");
        assert!(machine.writes.borrow().is_empty());
    }
    let mut machine = Played::new();
    machine.function(CARD, OURS, Some("e1000e"), 7);
    let error = machine.unbind().expect_err("it is not vfio's").to_string();
    assert!(error.contains("bound to e1000e, not to vfio-pci"), "{error}");
}

#[test]
fn without_an_iommu_a_function_is_bound_only_where_vfio_takes_it() {
    for (mode, bound) in [("N\n", false), ("Y\n", true)] {
        let mut machine = Played::new();
        machine.function(CARD, OURS, None, 7);
        let link = "sys/devices/pci0000:00/0000:03:00.0/iommu_group";
        fs::remove_file(machine.path(link)).expect("it was there");
        machine.file("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", mode);
        assert_eq!(machine.bind(false).is_ok(), bound, "{mode}");
        assert_eq!(machine.state().0.is_some(), bound, "{mode}");
    }
}

#[test]
fn a_list_tells_groups_and_the_next_step() {
    let mut machine = Played::new();
    machine.function(CARD, OURS, None, 7);
    machine.function(OTHER, FOREIGN, Some("igb"), 7);
    machine.function("0000:00:1c.0", FOREIGN, Some("pcieport"), 7);
    let listed = |all| machine.run(|machine| list(machine, all)).expect("it can be read");
    let [card] = listed(false).try_into().expect("one of ours");
    let group: Vec<String> = card.group.iter().map(|other| other.address.to_string()).collect();
    assert_eq!(group, ["0000:00:1c.0", OTHER]);
    assert_eq!((card.viable, card.advice), (false, some("cryptonic bind 0000:03:00.0")));
    assert_eq!(listed(true).len(), 3);

    let bound = machine.bind(false).expect("it can be bound");
    let in_the_way: Vec<String> = bound.in_the_way.iter().map(|other| other.address.to_string()).collect();
    assert_eq!(in_the_way, [OTHER]);
    let [card] = listed(false).try_into().expect("one of ours");
    assert_eq!(card.advice, some("cryptonic bind --force 0000:03:00.1"));

    machine.run(|machine| bind(machine, OTHER.parse().expect("an address"), true)).expect("forced");
    let [card] = listed(false).try_into().expect("one of ours");
    assert_eq!((card.viable, card.advice), (true, None));
}

#[test]
fn limits_are_those_of_the_process() {
    let machine = Played::new();
    let limits = || machine.run(limits);
    assert_eq!(limits(), Limits { locked_bytes: None, huge_pages_free: 0, vfio_pci: true });
    machine.file(
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units\n\
         Max locked memory         8388608              unlimited            bytes\n",
    );
    machine.file("proc/self/status", "Name: cryptonic\nCapEff:\t0000000000000000\n");
    machine.file(
        "proc/meminfo",
        "HugePages_Total:      10\nHugePages_Free:        9\nHugepagesize:       2048 kB\n",
    );
    assert_eq!(limits(), Limits { locked_bytes: Some(8 << 20), huge_pages_free: 9, vfio_pci: true });
    machine.file("proc/self/status", "Name: cryptonic\nCapEff:\t000001ffffffffff\n");
    assert_eq!(limits().locked_bytes, None);
}
