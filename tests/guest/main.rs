//! A guest with a stock kernel: QEMU shows it the model, served over vfio-user, as a PCI device behind an emulated IOMMU; the
//! guest's own vfio-pci binds it, and the `cryptonic` of this build, unchanged, drives it.
//!
//! ```sh
//! cargo test --test guest
//! ```
//!
//! QEMU, the guest's kernel and busybox are Debian's packages, fetched by apt into a folder of their own and not
//! installed ([`cache`]). The test itself is what runs in the guest (`guest inside …`): each of its stages prints a line
//! `STAGE name OK` on the serial console, and each of those lines is a test here. What cannot be fetched is a reason to
//! skip, which is printed and which `CRYPTONIC_REQUIRE=guest` forbids.

mod cache;
mod inside;
#[allow(dead_code, reason = "other tests in a guest use the rest")]
mod machine;
#[path = "../forms/packets.rs"]
#[allow(dead_code, reason = "the table of forms uses the rest")]
mod packets;
#[path = "../forms/textbook.rs"]
#[allow(dead_code, reason = "the table of forms uses the rest")]
mod textbook;
#[path = "../forms/witness.rs"]
#[allow(dead_code, reason = "the table of forms uses the rest")]
mod witness;

use std::process::ExitCode;
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Failed, Trial};
use machine::{Guest, Log, own_kernel};

/// Where the device is in the guest.
const ADDRESS: &str = "0000:01:00.0";

/// What the guest does: a name, and a command of its shell.
const COMMANDS: &[(&str, &str)] = &[
    (
        "list says what to do next",
        "cryptonic list > out && cat out && grep -q 'next: cryptonic bind ADDRESS' out",
    ),
    (
        "an unbound device is refused with what to do",
        "cryptonic info --device vfio:ADDRESS 2> out; test $? = 2 && cat out && grep -q 'cryptonic bind ADDRESS' out",
    ),
    (
        "an address without a device is refused",
        "cryptonic info --device vfio:0000:00:1e.7 2> out; test $? = 2 && cat out && grep -q 'no PCI function' out",
    ),
    (
        "a device that is not ours is not bound",
        "cryptonic bind 0000:00:00.0 2> out; test $? = 2 && cat out && grep -q 'not a Cryptonic NIC' out",
    ),
    ("bind", "cryptonic bind ADDRESS > out && cat out && grep -q 'is bound to vfio-pci' out"),
    ("bind again", "cryptonic bind ADDRESS > out && grep -q 'as before' out"),
    ("list shows a viable group", "cryptonic list --json > out && grep -q '\"viable\": true' out"),
    (
        "info",
        "cryptonic info --device vfio:ADDRESS > out && cat out && grep -q 'Cryptonic NIC .* (model)' out",
    ),
    (
        "without huge pages it is said that memory lies in normal ones",
        "cryptonic info --device vfio:ADDRESS 2> out > /dev/null && cat out && grep -q 'no huge pages are free' out",
    ),
    ("stats", "cryptonic stats --device vfio:ADDRESS --json > out && grep -q '\"counters\"' out"),
    (
        "a command that needs the model says so",
        "cryptonic experiment inline --device vfio:ADDRESS 2> out; test $? = 2 && cat out && grep -q 'needs the model' out",
    ),
    (
        "run on the device alone, by its MAC loopback",
        "cryptonic run --device vfio:ADDRESS --packets 200 --json > out && cat out && grep -q '\"packets_verified\": 200,' out \
         && grep -q '\"frames_received\": 200$' out && grep -q '\"modelled_seconds\": null' out",
    ),
    (
        "too little memory that may be locked says so",
        "chmod 666 /dev/vfio/[0-9]*; as_nobody 4 cryptonic info --device vfio:ADDRESS 2> out; test $? = 2 && cat out && grep -q 'ulimit -l' out",
    ),
    (
        "no permission says so",
        "chmod 600 /dev/vfio/[0-9]*; as_nobody 64 cryptonic info --device vfio:ADDRESS 2> out; \
         test $? = 2 && cat out && grep -q 'no permission for /dev/vfio/' out",
    ),
];

/// What the guest does after that, by the test itself.
const STAGES: &[&[&str]] = &[inside::LOOPBACK, inside::ISOLATION, inside::ERRORS, inside::REMOVAL];

/// What it does at the end.
const LAST_COMMANDS: &[(&str, &str)] = &[
    ("bind what is back", "cryptonic bind ADDRESS > out && grep -q 'is bound to vfio-pci' out"),
    ("the device is free again", "cryptonic info --device vfio:ADDRESS > out && cat out"),
    (
        "a run whose device is taken away ends with a sentence",
        "(sleep 2; echo 1 > /sys/bus/pci/devices/ADDRESS/remove) & \
         cryptonic run --device vfio:ADDRESS --packets 100000000 2> out; test $? = 2 && cat out && grep -q 'the device is gone, after' out \
         && wait && echo 1 > /sys/bus/pci/rescan && cryptonic bind ADDRESS && cryptonic run --device vfio:ADDRESS --packets 2000",
    ),
    ("unbind", "cryptonic unbind ADDRESS > out && cat out && test ! -e /sys/bus/pci/devices/ADDRESS/driver"),
];

/// What a guest without an IOMMU does before its stages. Debian's kernels have no such mode, so it needs another.
const WITHOUT_IOMMU: &[(&str, &str)] = &[
    (
        "list says that the IOMMU is off",
        "cryptonic list > out && cat out && grep -q 'next: turn the IOMMU on' out",
    ),
    (
        "a device without an IOMMU is refused",
        "cryptonic bind ADDRESS 2> out; test $? = 2 && cat out && grep -q 'no IOMMU holds back' out && \
         cryptonic info --device vfio:ADDRESS 2> out; test $? = 2 && cat out && grep -q 'no IOMMU holds back' out",
    ),
    (
        "before the kernel lets it be it is said how to make it",
        "cryptonic info --device vfio-noiommu:ADDRESS 2> out; \
         test $? = 2 && cat out && grep -q 'enable_unsafe_noiommu_mode' out",
    ),
    (
        "the kernel lets it be",
        "echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode && cryptonic bind ADDRESS && \
         test -e /dev/vfio/noiommu-0",
    ),
    (
        "it is refused still under the name of one with an IOMMU",
        "cryptonic info --device vfio:ADDRESS 2> out; \
         test $? = 2 && cat out && grep -q 'name it vfio-noiommu:ADDRESS' out",
    ),
    ("list names the other way", "cryptonic list > out && cat out && grep -q 'vfio-noiommu:ADDRESS' out"),
    (
        "without huge pages it says how to have them",
        "cryptonic info --device vfio-noiommu:ADDRESS 2> out; test $? = 2 && cat out && grep -q 'nr_hugepages' out",
    ),
    (
        "it is for root alone",
        "chmod 666 /dev/vfio/noiommu-0; as_nobody 65536 cryptonic info --device vfio-noiommu:ADDRESS 2> out; \
         test $? = 2 && cat out && grep -q 'CAP_SYS_RAWIO' out",
    ),
    (
        "with huge pages it is had by name",
        "echo 64 > /proc/sys/vm/nr_hugepages; cryptonic info --device vfio-noiommu:ADDRESS > out 2> said && cat said && \
         grep -q 'all memory of this machine' said && grep -q 'Cryptonic NIC' out",
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, inside, rest @ ..] = arguments.as_slice()
        && inside == "inside"
    {
        return inside::run(rest);
    }
    let commands = COMMANDS.iter().chain(LAST_COMMANDS).map(|(name, _)| *name);
    let stages = STAGES.iter().flat_map(|stages| stages.iter().copied());
    let mut trials: Vec<Trial> = commands
        .chain(stages)
        .map(|name| Trial::test(name.to_owned(), move || log().map_or(Ok(()), |log| stage(log, name))))
        .collect();
    if std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1") {
        let counted =
            |name: &'static str| Trial::test(name, move || counted().map_or(Ok(()), |log| stage(&log, name)));
        trials.extend(inside::INSTRUCTIONS.iter().copied().map(counted));
    }
    if own_kernel().is_some() {
        let commands = WITHOUT_IOMMU.iter().map(|(name, _)| *name);
        let stages = [inside::LOOPBACK, inside::ERRORS, inside::REMOVAL].concat();
        trials.extend(commands.chain(stages).map(|name| {
            let test = move || without_iommu().map_or(Ok(()), |log| stage(log, name));
            Trial::test(format!("without an IOMMU: {name}"), test)
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn stage(log: &Log, name: &str) -> Result<(), Failed> {
    match log.stage(name) {
        Some(outcome) if outcome.starts_with("OK") => Ok(()),
        Some(outcome) => Err(format!("{outcome}\n{}", log.before(name)).into()),
        None => Err(format!("the guest did not come so far\n{}", log.end()).into()),
    }
}

fn guest() -> Guest {
    let mut guest = Guest::new(ADDRESS);
    guest.module("aer_inject");
    guest
}

/// What the guest without an IOMMU printed.
fn without_iommu() -> Option<&'static Log> {
    static LOG: OnceLock<Option<Log>> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let cache = cache::fetch().map_err(|reason| cache::skip(&format!("no guest: {reason}"))).ok()?;
        let mut guest = guest();
        guest.without_iommu();
        for (name, command) in WITHOUT_IOMMU {
            guest.stage(name, command);
        }
        for part in ["loopback", "errors", "removal"] {
            guest.command(&format!("guest inside {part} vfio-noiommu:ADDRESS"));
        }
        let log = guest.run(&cache).unwrap_or_else(|error| panic!("the guest could not be run: {error}"));
        println!("{}", log.summary());
        Some(log)
    });
    log.as_ref()
}

/// What a guest printed whose clock counts instructions.
fn counted() -> Option<Log> {
    let cache = cache::fetch().map_err(|reason| cache::skip(&format!("no guest: {reason}"))).ok()?;
    let mut guest = guest();
    guest.arguments(&["-icount", "shift=0,sleep=on"]);
    guest.command("cryptonic bind ADDRESS");
    guest.command("guest inside instructions vfio:ADDRESS");
    let log = guest.run(&cache).unwrap_or_else(|error| panic!("the guest could not be run: {error}"));
    println!("{}", log.summary());
    Some(log)
}

/// What the one guest of all these tests printed; none if it could not be started here.
fn log() -> Option<&'static Log> {
    static LOG: OnceLock<Result<Log, String>> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let cache = cache::fetch().map_err(|reason| format!("no guest: {reason}"))?;
        let mut guest = guest();
        for (name, command) in COMMANDS {
            guest.stage(name, command);
        }
        guest.command("echo 24 > /proc/sys/vm/nr_hugepages");
        for part in ["loopback", "isolation", "errors", "removal"] {
            guest.command(&format!("guest inside {part} vfio:ADDRESS"));
        }
        for (name, command) in LAST_COMMANDS {
            guest.stage(name, command);
        }
        let log = guest.run(&cache).unwrap_or_else(|error| panic!("the guest could not be run: {error}"));
        println!("{}", log.summary());
        Ok(log)
    });
    match log {
        Ok(log) => Some(log),
        Err(reason) => {
            cache::skip(reason);
            None
        }
    }
}
