//! A guest: what is in its initial file system, what it does, the machine around it, and what it printed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cache::{Cache, output};

/// What vfio-pci consists of. Others follow by what they depend on.
const MODULES: [&str; 2] = ["vfio_iommu_type1", "vfio-pci"];
/// How long a guest may take. It is emulated, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(420);
/// How long the server may take to offer its socket.
const START: Duration = Duration::from_secs(30);
/// Lines of a log that explain a failure.
const END_LINES: usize = 60;

/// A kernel of one's own with everything built in, for what Debian's lacks (tests/guest/kernel).
pub fn own_kernel() -> Option<PathBuf> {
    std::env::var_os("CRYPTONIC_GUEST_KERNEL").filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// A guest to be.
pub struct Guest {
    /// Where the device is; none for a guest without it.
    address: Option<&'static str>,
    /// Kernel modules that are loaded. Others follow by what they depend on.
    modules: Vec<&'static str>,
    /// Lines of a shell.
    commands: String,
    /// Files of this machine, and where they are in the guest.
    files: Vec<(PathBuf, String)>,
    /// More of QEMU's command line.
    arguments: Vec<String>,
    /// More of the server's command line.
    serve_arguments: Vec<String>,
    /// A kernel with all that is needed built in, in the place of Debian's with modules.
    kernel: Option<PathBuf>,
    has_iommu: bool,
}

impl Guest {
    /// One with the device at `address`, `cryptonic`, and this test as `guest`; with Debian's kernel or [`own_kernel`].
    pub fn new(address: &'static str) -> Guest {
        let mut guest = Guest::without_device(&MODULES);
        guest.address = Some(address);
        guest.kernel = own_kernel();
        if guest.kernel.is_some() {
            guest.modules.clear();
        }
        guest.file(Path::new(env!("CARGO_BIN_EXE_cryptonic")), "/bin/cryptonic");
        guest
    }

    /// One without the device, with these kernel modules, and this test as `guest`.
    pub fn without_device(modules: &[&'static str]) -> Guest {
        let test = std::env::current_exe().expect("a program has a file");
        Guest {
            address: None,
            modules: modules.to_vec(),
            commands: String::new(),
            files: vec![(test, "/bin/guest".to_owned())],
            arguments: vec![],
            serve_arguments: vec![],
            kernel: None,
            has_iommu: true,
        }
    }

    /// Loads one more kernel module, unless it is built in.
    #[allow(dead_code, reason = "not every test needs one")]
    pub fn module(&mut self, name: &'static str) {
        if self.kernel.is_none() {
            self.modules.push(name);
        }
    }

    /// Takes the IOMMU away.
    #[allow(dead_code, reason = "most tests are about one")]
    pub fn without_iommu(&mut self) {
        self.has_iommu = false;
    }

    /// Has the guest do a command, `ADDRESS` in it being where the device is.
    pub fn command(&mut self, command: &str) {
        let _ = writeln!(self.commands, "{}", command.replace("ADDRESS", self.address.unwrap_or("none")));
    }

    /// As [`Guest::command`], with a line in the log that says how it ended.
    #[allow(dead_code, reason = "not every test has stages")]
    pub fn stage(&mut self, name: &str, command: &str) {
        self.command(&format!("stage '{name}' '{}'", command.replace('\'', r"'\''")));
    }

    /// Puts a file into the guest, with the libraries it needs if it is a program.
    pub fn file(&mut self, file: &Path, place: &str) {
        self.files.push((file.to_owned(), place.to_owned()));
    }

    /// Adds to QEMU's command line, such as another device or a second serial line.
    pub fn arguments(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// Adds to the command line of `cryptonic serve`.
    pub fn serve_arguments(&mut self, arguments: &[&str]) {
        self.serve_arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// Serves the device, starts the guest, waits for its end, and gives what it printed.
    pub fn run(&self, cache: &Cache) -> io::Result<Log> {
        self.run_unless(cache, &AtomicBool::new(false))
    }

    /// As [`Guest::run`], but ends the guest at once when `stop` is set.
    pub fn run_unless(&self, cache: &Cache, stop: &AtomicBool) -> io::Result<Log> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("device");
        let image = self.image(cache, folder.path())?;
        let server = self.address.map(|_| self.serve(folder.path(), &socket)).transpose()?;
        let console = folder.path().join("console");
        let mut machine = Ended(
            self.machine(cache, &socket, &image, &console)?
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(folder.path().join("qemu"))?)
                .spawn()?,
        );
        let booted = Instant::now();
        // How it ends says nothing: it is well with a machine that was turned off.
        while machine.0.try_wait()?.is_none() && booted.elapsed() < PATIENCE && !stop.load(Ordering::Relaxed)
        {
            sleep(Duration::from_millis(50));
        }
        let seconds = booted.elapsed().as_secs_f64();
        drop(machine);
        drop(server);
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap_or_default();
        let text = |name: &str| String::from_utf8_lossy(&read(name)).replace('\r', "");
        let image_bytes = fs::metadata(&image).map_or(0, |metadata| metadata.len());
        Ok(Log { console: text("console"), server: text("server"), qemu: text("qemu"), seconds, image_bytes })
    }

    /// Serves the device, and waits until it is there.
    fn serve(&self, folder: &Path, socket: &Path) -> io::Result<Ended> {
        let started = Instant::now();
        let mut server = Ended(
            Command::new(env!("CARGO_BIN_EXE_cryptonic"))
                .args(["serve", "--socket"])
                .arg(socket)
                .args(&self.serve_arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(folder.join("server"))?)
                .spawn()?,
        );
        while !socket.exists() {
            if started.elapsed() > START || server.0.try_wait()?.is_some() {
                let said = fs::read_to_string(folder.join("server"))?;
                return Err(io::Error::other(format!("the device is not served: {said}")));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn machine(&self, cache: &Cache, socket: &Path, image: &Path, console: &Path) -> io::Result<Command> {
        let root = cache.qemu();
        let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu"));
        command.arg(root.join("usr/bin/qemu-system-x86_64"));
        command.arg("-L").arg(root.join("usr/share/qemu")).arg("-L").arg(root.join("usr/share/seabios"));
        // Emulated in any case: a /dev/kvm may be there and not do, and QEMU does not fall back then.
        command.args(["-accel", "tcg", "-cpu", "max", "-machine", "q35", "-m", "1G", "-smp", "1"]);
        // The device is another process, which has to see the guest's memory.
        command.args(["-object", "memory-backend-memfd,id=memory,size=1G,share=on"]);
        command.args(["-numa", "node,memdev=memory"]);
        command.args(["-nodefaults", "-no-reboot", "-display", "none"]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        // Devices that are mapped through an IOMMU need caching-mode, and come after it.
        if self.has_iommu {
            command.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
        }
        if let Some(address) = self.address {
            let mut device = serde_json::json!({
                "driver": "vfio-user-pci",
                "socket": { "type": "unix", "path": socket.to_string_lossy() },
            });
            match address.split([':', '.']).collect::<Vec<_>>()[..] {
                [_, "00", slot, _] => device["addr"] = format!("0x{}", slot.trim_start_matches('0')).into(),
                // Behind the first root port, as in a slot of a board.
                _ => {
                    command.args(["-device", "pcie-root-port,id=root-port,chassis=1,addr=0x5"]);
                    device["bus"] = "root-port".into();
                }
            }
            command.arg("-device").arg(device.to_string());
        }
        command.args(&self.arguments);
        let kernel = self.kernel.clone().map_or_else(|| cache.kernel(), Ok)?;
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
        command.args(["-append", "console=ttyS0 intel_iommu=on panic=-1 quiet loglevel=4"]);
        Ok(command)
    }

    /// The initial file system: busybox, modules in the order in which they need each other, programs with their
    /// libraries, and what the guest does.
    fn image(&self, cache: &Cache, folder: &Path) -> io::Result<PathBuf> {
        let root = folder.join("root");
        let put = |file: &Path, place: &str| {
            let place = root.join(place.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap_or(&root))?;
            if !place.exists() {
                fs::copy(file, place)?;
            }
            io::Result::Ok(())
        };
        put(&cache.busybox(), "/bin/busybox")?;
        let mut order = Vec::new();
        for name in &self.modules {
            with_dependencies(cache, name, &mut order)?;
        }
        let mut modules = String::new();
        for (number, file) in order.iter().enumerate() {
            put(file, &format!("/modules/{number}.ko"))?;
            let _ = writeln!(modules, "insmod /modules/{number}.ko");
        }
        for (file, place) in &self.files {
            put(file, place)?;
            for library in libraries(file)? {
                put(&library, &library.to_string_lossy())?;
            }
        }
        let script = INIT.replace("MODULES", &modules).replace("COMMANDS", &self.commands);
        fs::write(root.join("init"), script)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        archive(cache, &root, &folder.join("image"))
    }
}

/// The first program. `as_nobody LIMIT COMMAND` has a command done by a user without privileges that may lock so many KiB.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /etc
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec < /dev/console > /dev/console 2>&1
echo 'root:x:0:0::/:/bin/sh' > /etc/passwd
echo 'nobody:x:65534:65534::/:/bin/sh' >> /etc/passwd
chmod 777 /tmp
cd /tmp
stage() {
    sh -c ". /functions; $2"
    code=$?
    if [ $code = 0 ]; then echo "STAGE $1: OK"; else echo "STAGE $1: FAILED, its shell ends with $code"; fi
}
cat > /functions <<'FUNCTIONS'
as_nobody() {
    limit=$1; shift
    chmod 666 /dev/vfio/vfio
    su nobody -c "ulimit -l $limit; $*"
}
FUNCTIONS
MODULES
COMMANDS
echo "STAGE the end: OK"
poweroff -f
"#;

/// The file of a module behind those of the modules that it needs.
fn with_dependencies(cache: &Cache, name: &str, order: &mut Vec<PathBuf>) -> io::Result<()> {
    let file = cache.module(name)?;
    let bytes = fs::read(&file)?;
    // A string of the section .modinfo, after its NUL or at its beginning.
    const FIELD: &[u8] = b"depends=";
    let at = bytes.windows(FIELD.len()).position(|window| window == FIELD);
    let text = at.and_then(|at| bytes[at + FIELD.len()..].split(|byte| *byte == 0).next()).unwrap_or(&[]);
    for needed in String::from_utf8_lossy(text).split(',').filter(|needed| !needed.is_empty()) {
        with_dependencies(cache, needed, order)?;
    }
    if !order.contains(&file) {
        order.push(file);
    }
    Ok(())
}

/// The libraries and the loader that a program is linked with, as ldd names them.
fn libraries(program: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let Ok(text) = output(Command::new("ldd").arg(program)) else { return Ok(BTreeSet::new()) };
    let words = text.lines().flat_map(str::split_whitespace);
    Ok(words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// Packs a folder as the kernel takes it.
fn archive(cache: &Cache, root: &Path, image: &Path) -> io::Result<PathBuf> {
    let names =
        output(Command::new(cache.busybox()).arg("find").current_dir(root)).map_err(io::Error::other)?;
    let mut packer = Command::new(cache.busybox())
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(image)?)
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = packer.stdin.take() {
        input.write_all(names.as_bytes())?;
    }
    if packer.wait()?.success() {
        Ok(image.to_owned())
    } else {
        Err(io::Error::other("busybox does not pack the initial file system"))
    }
}

/// A process that ends with this value, whatever happens to the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a guest printed.
pub struct Log {
    console: String,
    server: String,
    qemu: String,
    /// From the start of QEMU to its end.
    seconds: f64,
    image_bytes: u64,
}

impl Log {
    /// How a stage ended.
    #[allow(dead_code, reason = "not every test has stages")]
    pub fn stage(&self, name: &str) -> Option<&str> {
        let start = format!("STAGE {name}: ");
        self.console.lines().find_map(|line| line.strip_prefix(start.as_str()))
    }

    /// What the guest printed.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.console.lines()
    }

    /// What the guest said in a stage.
    pub fn before(&self, name: &str) -> String {
        let start = format!("STAGE {name}: ");
        let lines: Vec<&str> =
            self.console.lines().take_while(|line| !line.starts_with(start.as_str())).collect();
        let of_this = lines.iter().rposition(|line| line.starts_with("STAGE ")).map_or(0, |at| at + 1);
        lines[of_this..].join("\n")
    }

    /// The last of what everybody said.
    pub fn end(&self) -> String {
        let mut text = String::new();
        for (name, said) in [("guest", &self.console), ("device", &self.server), ("QEMU", &self.qemu)] {
            let lines: Vec<&str> = said.lines().collect();
            let _ = writeln!(text, "--- {name}");
            for line in lines.iter().skip(lines.len().saturating_sub(END_LINES)) {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    /// How it went, in a few lines: with `CRYPTONIC_GUEST_LOG` all that the guest printed.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "the guest ran {:.1} s; its initial file system has {} MiB\n",
            self.seconds,
            self.image_bytes >> 20
        );
        if std::env::var_os("CRYPTONIC_GUEST_LOG").is_some() {
            text.push_str(&self.console);
            text.push_str(&self.server);
            text.push_str(&self.qemu);
            return text;
        }
        for line in self.console.lines().filter_map(|line| line.strip_prefix("FIGURE ")) {
            let _ = writeln!(text, "  {line}");
        }
        text
    }
}
