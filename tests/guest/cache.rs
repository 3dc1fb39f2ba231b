//! QEMU, a kernel and busybox out of Debian's packages, unpacked into a folder of their own: nothing is installed, and
//! no script of a package runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the suites are if the machine's own sources name no mirror of Debian.
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Whose QEMU has vfio-user devices (10.1 and later), and whose kernel starts fastest.
const QEMU_SUITE: &str = "trixie-backports";
const KERNEL_SUITE: &str = "bookworm";
/// Another number makes everything be fetched anew.
const LAYOUT: &str = "guest-1";

/// What was unpacked.
pub struct Cache {
    pub folder: PathBuf,
}

impl Cache {
    pub fn qemu(&self) -> PathBuf {
        self.folder.join("qemu")
    }

    pub fn busybox(&self) -> PathBuf {
        self.folder.join("tools/usr/bin/busybox")
    }

    pub fn kernel(&self) -> io::Result<PathBuf> {
        find(&self.folder.join("tools/boot"), &|name| name.starts_with("vmlinuz-"))
    }

    /// The file of a kernel module, `-` and `_` being the same in its name.
    pub fn module(&self, name: &str) -> io::Result<PathBuf> {
        let wanted = format!("{}.ko", name.replace('-', "_"));
        find(&self.folder.join("tools/lib/modules"), &|name| name.replace('-', "_") == wanted)
    }
}

/// Says why tests in a guest are skipped, which `CRYPTONIC_REQUIRE=guest` forbids. `all` does not: what is fetched here may be
/// out of reach of a machine that has every tool. `./check` finds the reason in a file.
pub fn skip(reason: &str) {
    let required = std::env::var("CRYPTONIC_REQUIRE").unwrap_or_default();
    let forbidden = required.split(',').any(|name| name.trim() == "guest");
    assert!(!forbidden, "{reason}: and CRYPTONIC_REQUIRE={required} requires it");
    println!("skipped: {reason}");
    let told = fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-skipped"), reason);
    told.unwrap_or_else(|error| panic!("the reason cannot be told: {error}"));
}

/// Fetches what is not there yet; why not, if it cannot be had.
pub fn fetch() -> Result<Cache, String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("the guest is one of x86-64 Linux, and runs this build".to_owned());
    }
    let parent = parent()?;
    let folder = parent.join(LAYOUT);
    if folder.is_dir() {
        return Ok(Cache { folder });
    }
    // Beside its place, and renamed at the end: whatever is in its place is whole.
    let beside = parent.join(format!(".{LAYOUT}.{}", std::process::id()));
    let fetched = fill(&beside).and_then(|()| match fs::rename(&beside, &folder) {
        // Another run was faster.
        Err(_) if folder.is_dir() => Ok(()),
        other => other.map_err(|error| format!("{}: {error}", folder.display())),
    });
    let _ = fs::remove_dir_all(&beside);
    fetched.map(|()| Cache { folder })
}

/// `$CRYPTONIC_CACHE`, or the user's cache folder.
fn parent() -> Result<PathBuf, String> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("CRYPTONIC_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME"))
        .or_else(|| Some(variable("HOME")?.join(".cache")))
        .map(|folder| folder.join("cryptonic"))
        .ok_or_else(|| "neither CRYPTONIC_CACHE nor HOME is set".to_owned())
}

fn fill(folder: &Path) -> Result<(), String> {
    if !Path::new(KEYRING).exists() {
        return Err(format!("{KEYRING} is not there, which Debian's packages are verified with"));
    }
    let apt = Apt::new(&folder.join("apt"))?;
    apt.get(&["update"])?;
    apt.get(&[
        "--yes",
        "--no-install-recommends",
        "--download-only",
        "--target-release",
        QEMU_SUITE,
        "install",
        "qemu-system-x86",
    ])?;
    unpack(&apt.archives(), &folder.join("qemu"))?;
    let kernel = apt.kernel()?;
    let download = apt.folder.join("download");
    fs::create_dir_all(&download).map_err(|error| told(&download, &error))?;
    apt.get_in(&download, &["download", &kernel, "busybox-static"])?;
    unpack(&download, &folder.join("tools"))?;
    fs::remove_dir_all(&apt.folder).map_err(|error| told(&apt.folder, &error))
}

/// An apt that knows nothing of what is installed here, and so names every package that is needed.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(folder: &Path) -> Result<Apt, String> {
        for name in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(name)).map_err(|error| told(folder, &error))?;
        }
        let sources = format!(
            "Types: deb\nURIs: {}\nSuites: {KERNEL_SUITE} trixie {QEMU_SUITE}\nComponents: main\nSigned-By: {KEYRING}\n",
            mirror()
        );
        for (name, text) in [("sources.sources", sources.as_str()), ("status", ""), ("apt.conf", "")] {
            fs::write(folder.join(name), text).map_err(|error| told(folder, &error))?;
        }
        Ok(Apt { folder: folder.to_owned() })
    }

    fn archives(&self) -> PathBuf {
        self.folder.join("archives")
    }

    fn get(&self, arguments: &[&str]) -> Result<(), String> {
        self.get_in(&self.folder, arguments)
    }

    fn get_in(&self, folder: &Path, arguments: &[&str]) -> Result<(), String> {
        self.run("apt-get", folder, arguments).map(drop)
    }

    /// The package of the newest kernel of the suite: the one that the package without a version depends on.
    fn kernel(&self) -> Result<String, String> {
        const NAME: &str = "linux-image-cloud-amd64";
        let versions = self.run("apt-cache", &self.folder, &["madison", NAME])?;
        let version = versions
            .lines()
            .filter(|line| line.contains(&format!(" {KERNEL_SUITE}/")))
            .find_map(|line| line.split('|').nth(1))
            .ok_or_else(|| format!("{KERNEL_SUITE} has no {NAME}"))?;
        let depends =
            self.run("apt-cache", &self.folder, &["depends", &format!("{NAME}={}", version.trim())])?;
        let kernel = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        kernel.map(|name| format!("linux-image-{name}")).ok_or_else(|| format!("{NAME} names no kernel"))
    }

    fn run(&self, program: &str, folder: &Path, arguments: &[&str]) -> Result<String, String> {
        let place = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::Etc::SourceList={}", place("sources.sources")),
            "Dir::Etc::SourceParts=/nonexistent".to_owned(),
            format!("Dir::State::Lists={}", place("lists")),
            format!("Dir::State::status={}", place("status")),
            format!("Dir::Cache={}", place("")),
            format!("Dir::Cache::archives={}", place("archives")),
            // Its own user could not write into a folder of ours.
            "APT::Sandbox::User=root".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=2".to_owned(),
            "Acquire::http::Timeout=20".to_owned(),
            "Acquire::https::Timeout=20".to_owned(),
            "Debug::NoLocking=true".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.args(arguments).current_dir(folder).env("LC_ALL", "C");
        output(&mut command)
    }
}

/// The mirror that the machine's own sources name, if it is one of Debian.
fn mirror() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect::<Vec<_>>().join("\n");
    let lines = texts.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
        .unwrap_or(MIRROR)
        .to_owned()
}

/// Unpacks every package of a folder.
fn unpack(packages: &Path, into: &Path) -> Result<(), String> {
    fs::create_dir_all(into).map_err(|error| told(into, &error))?;
    for entry in fs::read_dir(packages).map_err(|error| told(packages, &error))? {
        let package = entry.map_err(|error| told(packages, &error))?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(into))?;
        }
    }
    Ok(())
}

/// What a program prints; if it fails, the last thing that it said.
pub fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} ends with {}: {}", output.status, said.lines().last().unwrap_or("it says nothing")))
}

/// The first file below a folder whose name does.
fn find(folder: &Path, does: &dyn Fn(&str) -> bool) -> io::Result<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if does(&entry.file_name().to_string_lossy()) {
                return Ok(entry.path());
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("not below {}", folder.display())))
}

fn told(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}
