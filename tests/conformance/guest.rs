//! The suite in a guest with a stock kernel: this program, unchanged, is what runs there, over the guest's vfio-pci and its
//! IOMMU, against two models that are served over vfio-user. A case passes if the guest's console says so.

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::cache;
use crate::machine::{Guest, Log};
use crate::{Trials, rules};

/// Where the devices are in the guest.
const ADDRESSES: [&str; 2] = ["0000:00:05.0", "0000:00:06.0"];
/// Forms that are run there: one of each protocol, since a guest is emulated. All run over the other backends.
const FORMS: [&str; 4] = [
    "esp gcm-128, tunnel v4 in v4",
    "esp gcm-256 esn implicit iv, transport v6",
    "esp gcm-128 udp, tunnel v6 in v4",
    "checksums, PspTransport v4",
];

/// The cases of the table.
pub fn trials(trials: &mut Trials) {
    for name in rules::names().chain(FORMS) {
        let outcome = move || log().map_or(Ok(()), |log| passed(log, name));
        trials.push(Trial::test(format!("guest: {name}"), outcome));
    }
}

fn passed(log: &Log, name: &str) -> Result<(), Failed> {
    let line = log.lines().find_map(|line| line.strip_prefix(&format!("test vfio: {name}")));
    match line.map(|rest| rest.trim_start().trim_start_matches("... ")) {
        Some("ok") => Ok(()),
        Some(outcome) => Err(format!("{outcome}\n{}", log.end()).into()),
        None => Err(format!("the guest did not come so far\n{}", log.end()).into()),
    }
}

/// What the one guest of these cases printed; none if it could not be started here.
fn log() -> Option<&'static Log> {
    static LOG: OnceLock<Result<Log, String>> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let cache = cache::fetch().map_err(|reason| format!("no guest: {reason}"))?;
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let (first, device, second) = (path("first"), path("device"), path("second"));
        let _server = serve(&device, &second);

        let mut guest = Guest::new(ADDRESSES[0]);
        guest.serve_arguments(&["--control", &first]);
        let two = serde_json::json!({
            "driver": "vfio-user-pci", "addr": "0x6", "socket": { "type": "unix", "path": device },
        });
        guest.arguments(&["-device", &two.to_string()]);
        for (name, control) in [("first", &first), ("second", &second)] {
            guest.arguments(&["-chardev", &format!("socket,id={name},path={control}")]);
            guest.arguments(&["-serial", &format!("chardev:{name}")]);
        }
        for (index, address) in ADDRESSES.iter().enumerate() {
            guest.command(&format!(
                "cryptonic bind {address}; stty -F /dev/ttyS{} raw -echo 115200",
                index + 1
            ));
        }
        let names: Vec<String> = FORMS.iter().map(|name| format!("--exact 'vfio: {name}'")).collect();
        let [one, other] = ADDRESSES;
        guest.command(&format!("export CRYPTONIC_VFIO={one}=/dev/ttyS1,{other}=/dev/ttyS2 RUST_BACKTRACE=0"));
        for name in rules::names() {
            guest.command(&format!("guest --exact 'vfio: {name}' | grep '^test vfio'"));
        }
        for name in names {
            guest.command(&format!("guest {name} | grep '^test vfio'"));
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

/// A server that ends with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the second device.
fn serve(socket: &str, control: &str) -> Ended {
    let server = Command::new(env!("CARGO_BIN_EXE_cryptonic"))
        .args(["serve", "--socket", socket, "--control", control])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command line runs");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !std::path::Path::new(control).exists() {
        assert!(Instant::now() < deadline, "the second device is not served");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ended(server)
}
