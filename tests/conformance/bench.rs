//! What a case runs against: devices behind one of the backends, and a laboratory around each, which does what no driver
//! can. A case sees the driver's API and [`Lab`], and never what is behind them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cryptonic_driver::backend::vfio::Vfio;
use cryptonic_driver::backend::vfio_user::VfioUser;
use cryptonic_driver::{Nic, OpenOptions, Status, Time};
use cryptonic_hwmodel::{NicId, Parameters, World};
use cryptonic_pci::Host;
use cryptonic_pci::sysfs::Address;
use serde_json::{Value, json};

/// The variable with the addresses of functions.
pub const VFIO: &str = "CRYPTONIC_VFIO";
/// How long a server of these tests may take, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

/// What stands between driver and device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The model in this process.
    InProcess,
    /// The model in a process of its own for each device; doorbells are rung in memory.
    VfioUser,
    /// The same, with a message for each doorbell.
    VfioUserTrapped,
    /// PCI functions of this machine, by vfio-pci: `CRYPTONIC_VFIO` has their addresses. Behind each may stand a serial line
    /// to the control socket of the model behind it, as in `0000:00:05.0=/dev/ttyS1,0000:00:06.0=/dev/ttyS2`.
    Vfio,
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Backend::InProcess => "in-process",
            Backend::VfioUser => "vfio-user",
            Backend::VfioUserTrapped => "vfio-user, trapped",
            Backend::Vfio => "vfio",
        }
    }

    /// Why a case that needs a [`Lab`] cannot run.
    pub fn lacks_lab(self) -> Option<&'static str> {
        let bare = self == Backend::Vfio && std::env::var(VFIO).is_ok_and(|places| !places.contains('='));
        bare.then_some("it puts frames on the line and looks at them, for which this device has no control")
    }

    /// Devices that nothing joins, as they are after power-on.
    pub fn devices(self, count: usize) -> Vec<Device> {
        let world = World::new(1);
        (0..count)
            .map(|index| match self {
                Backend::InProcess => Device::in_process(&world, &Parameters::default()),
                Backend::VfioUser => Device::served(Server::start("shadow")),
                Backend::VfioUserTrapped => Device::served(Server::start("trapped")),
                Backend::Vfio => Device::bound(index),
            })
            .collect()
    }
}

/// A device that nobody drives yet.
pub struct Device {
    pub host: Box<dyn Host>,
    pub lab: Lab,
}

impl Device {
    /// A NIC of a world.
    pub fn in_process(world: &World, parameters: &Parameters) -> Device {
        let id = world.add_nic(parameters).expect("in range");
        world.record_drops(id);
        Device { host: world.host(id), lab: Lab::InProcess(world.clone(), id) }
    }

    fn served(server: Server) -> Device {
        Device { host: server.attach(), lab: Lab::Server(server) }
    }

    fn bound(index: usize) -> Device {
        let places = std::env::var(VFIO).expect("CRYPTONIC_VFIO has the addresses");
        let place = places.split(',').nth(index).expect("as many addresses");
        let (address, control) = place.split_once('=').map_or((place, None), |(at, line)| (at, Some(line)));
        let control = control.map(|line| {
            let file = File::options().read(true).write(true).open(line).expect("a serial line");
            let mut control = Control(BufReader::new(file));
            control.ask(json!({ "do": "power" }));
            control
        });
        let bound = Bound { address: address.parse().expect("an address"), control };
        Device { host: bound.open(), lab: Lab::Bound(bound) }
    }

    /// The driver's view of it.
    pub fn open(self) -> (Nic, Lab) {
        self.open_with(OpenOptions::default())
    }

    pub fn open_with(self, options: OpenOptions) -> (Nic, Lab) {
        (Nic::open(self.host, options).expect("open"), self.lab)
    }
}

/// What a test does to a device from its far side, and to its inside.
pub enum Lab {
    InProcess(World, NicId),
    Server(Server),
    Bound(Bound),
}

impl Lab {
    /// Waits until nothing moves in the device without its host.
    pub fn settle(&mut self) {
        match self {
            Lab::InProcess(world, _) => world.drain(),
            Lab::Bound(Bound { control: None, .. }) => {}
            _ => drop(self.ask(json!({ "do": "settle" }))),
        }
    }

    /// A frame arrives on the line; what comes of it has come when this returns.
    pub fn inject(&mut self, frame: &[u8]) {
        match self {
            Lab::InProcess(world, id) => {
                world.inject(*id, frame);
                world.drain();
            }
            _ => drop(self.ask(json!({ "do": "inject", "frame": hex::encode(frame) }))),
        }
    }

    /// The frames that left since the last call.
    pub fn take_sent(&mut self) -> Vec<Vec<u8>> {
        match self {
            Lab::InProcess(world, id) => world.take_sent(*id),
            Lab::Bound(Bound { control: None, .. }) => vec![],
            _ => list(&self.ask(json!({ "do": "sent" })), "frames", |frame| {
                hex::decode(frame.as_str().expect("text")).expect("hexadecimal")
            }),
        }
    }

    /// Why frames were dropped on receive since the last call.
    pub fn take_drops(&mut self) -> Vec<Status> {
        match self {
            Lab::InProcess(world, id) => world.take_drops(*id),
            _ => list(&self.ask(json!({ "do": "drops" })), "drops", |number| {
                let number = number.as_u64().and_then(|number| number.try_into().ok()).expect("a number");
                Status::of_number(number).expect("a status")
            }),
        }
    }

    /// Firmware crashes, and starts anew.
    pub fn restart_firmware(&mut self) {
        match self {
            Lab::InProcess(world, id) => world.restart_firmware(*id),
            _ => drop(self.ask(json!({ "do": "firmware", "what": "restart" }))),
        }
    }

    /// Firmware stalls for good.
    pub fn stop_firmware(&mut self) {
        match self {
            Lab::InProcess(world, id) => world.stop_firmware(*id),
            _ => drop(self.ask(json!({ "do": "firmware", "what": "stop" }))),
        }
    }

    /// Places in the device's memory with these bytes, given inverted. In the driver's own process it is that of the driver
    /// too.
    pub fn search(&mut self, inverted: &[u8]) -> u64 {
        match self {
            Lab::InProcess(..) => cryptonic::memory_search::count(inverted).expect("Linux") as u64,
            _ => {
                let answer = self.ask(json!({ "do": "search", "inverted": hex::encode(inverted) }));
                answer["found"].as_u64().expect("a number")
            }
        }
    }

    /// Register accesses that no register answered.
    pub fn reserved_accesses(&mut self) -> u64 {
        match self {
            Lab::InProcess(world, id) => world.reserved_accesses(*id),
            _ => self.ask(json!({ "do": "registers" }))["reserved"].as_u64().expect("a number"),
        }
    }

    /// The host side once more, for a driver that opens a device again. The one before is closed.
    pub fn attach_again(&mut self) -> Box<dyn Host> {
        match self {
            Lab::InProcess(world, id) => world.host(*id),
            Lab::Server(server) => server.attach(),
            Lab::Bound(bound) => bound.open(),
        }
    }

    /// How long a host waits for what the device does at once: longer where time is the wall's.
    pub fn patience(&self) -> Time {
        match self {
            Lab::InProcess(..) => Time::from_milliseconds(1),
            _ => Time::from_milliseconds(5_000),
        }
    }

    fn ask(&mut self, question: Value) -> Value {
        match self {
            Lab::Server(server) => server.control.ask(question),
            Lab::Bound(Bound { control: Some(control), .. }) => control.ask(question),
            Lab::InProcess(..) | Lab::Bound(_) => panic!("nobody to ask"),
        }
    }
}

fn list<T>(answer: &Value, name: &str, read: impl Fn(&Value) -> T) -> Vec<T> {
    answer[name].as_array().expect("a list").iter().map(read).collect()
}

/// A process that serves the model.
pub struct Server {
    child: Child,
    socket: PathBuf,
    control: Control,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(doorbells: &str) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let (socket, control) = (folder.path().join("device"), folder.path().join("control"));
        let child = Command::new(env!("CARGO_BIN_EXE_cryptonic"))
            .args(["serve", "--doorbells", doorbells, "--socket"])
            .arg(&socket)
            .arg("--control")
            .arg(&control)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command line runs");
        let control = Control::connect(&control);
        Server { child, socket, control, _folder: folder }
    }

    fn attach(&self) -> Box<dyn Host> {
        Box::new(VfioUser::attach(&self.socket, PATIENCE).expect("a server answers"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A function that vfio-pci has, and the control of the model behind it.
pub struct Bound {
    address: Address,
    control: Option<Control>,
}

impl Bound {
    fn open(&self) -> Box<dyn Host> {
        Box::new(Vfio::open(self.address).expect("a function that is bound to vfio-pci"))
    }
}

/// The control socket of a server, or a serial line that leads there.
struct Control(BufReader<File>);

impl Control {
    /// Connects as soon as the server is there.
    fn connect(path: &Path) -> Control {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Control(BufReader::new(File::from(OwnedFd::from(stream)))),
                Err(error) if Instant::now() > deadline => panic!("{}: {error}", path.display()),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn ask(&mut self, question: Value) -> Value {
        self.0.get_mut().write_all(format!("{question}\n").as_bytes()).expect("the server is there");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the server answers");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert!(answer.get("error").is_none(), "{question}: {answer}");
        answer
    }
}
