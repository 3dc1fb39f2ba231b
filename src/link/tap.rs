//! A TAP interface (Linux, Documentation/networking/tuntap.rst). The only unsafe code of the command line: two ioctls.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// Bytes of an interface's name, with the zero behind it (linux/if.h, IFNAMSIZ).
const NAME_BYTES: usize = 16;

/// A name that an interface can have (net/core/dev.c, dev_valid_name).
pub(super) fn checked_name(name: &str) -> std::result::Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    if name.len() < NAME_BYTES && name.bytes().all(plain) && name != "." && name != ".." {
        return Ok(name.to_owned());
    }
    Err(format!("`{name}` is no name of an interface: 1 to 15 letters, digits and signs but / : %"))
}

/// An open TAP interface, which ends with it unless it was made to last.
pub(super) struct Tap {
    name: String,
    descriptor: OwnedFd,
}

impl Tap {
    pub(super) fn open(name: &str) -> Result<Tap> {
        let descriptor = attach(name)
            .map_err(|(place, errno)| Error::at(format_args!("tap:{name}"), advice(name, place, errno)))?;
        Ok(Tap { name: name.to_owned(), descriptor })
    }

    /// The longest IP packet that the interface carries, while it is in this network namespace.
    pub(super) fn mtu(&self) -> Option<usize> {
        interface_mtu(&self.name).ok().and_then(|mtu| usize::try_from(mtu).ok())
    }

    /// The length of the frame that came; one more than fits is cut to `room`.
    pub(super) fn receive(&self, room: &mut [u8]) -> Result<Option<usize>> {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.descriptor, &mut *room)) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(self.gone(errno)),
        }
    }

    /// Whether the interface took the frame; one that is down does not.
    pub(super) fn send(&self, frame: &[u8]) -> Result<bool> {
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.descriptor, frame)) {
            Ok(_) => Ok(true),
            Err(Errno::IO | Errno::AGAIN | Errno::NOBUFS | Errno::INVAL | Errno::NOMEM) => Ok(false),
            Err(errno) => Err(self.gone(errno)),
        }
    }

    fn gone(&self, errno: Errno) -> Error {
        Error::at(format_args!("tap:{}", self.name), format_args!("the interface is gone: {errno}"))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Which step did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux comes so far"))]
    Attach,
}

fn advice(name: &str, step: Step, errno: Errno) -> String {
    match (step, errno) {
        (_, Errno::NOSYS) => "TAP interfaces are Linux's; dgram:LOCAL,REMOTE works everywhere".to_owned(),
        (Step::Open, Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
            "there is no /dev/net/tun: load the module (`modprobe tun`), or give the container that device"
                .to_owned()
        }
        (Step::Open, errno) => format!("/dev/net/tun cannot be opened: {errno}"),
        (Step::Attach, Errno::PERM) => format!(
            "making or using this interface is not permitted; as root, `ip tuntap add dev {name} mode tap user NAME` \
             makes one for a user"
        ),
        (Step::Attach, Errno::BUSY) => "another process uses this interface".to_owned(),
        (Step::Attach, Errno::INVAL) => {
            "an interface of this name exists and is no TAP of one queue".to_owned()
        }
        (Step::Attach, errno) => format!("cannot be used as a TAP interface: {errno}"),
    }
}

#[cfg(not(target_os = "linux"))]
fn attach(_: &str) -> std::result::Result<OwnedFd, (Step, Errno)> {
    Err((Step::Open, Errno::NOSYS))
}

#[cfg(target_os = "linux")]
fn attach(name: &str) -> std::result::Result<OwnedFd, (Step, Errno)> {
    use rustix::fs::{Mode, OFlags};

    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor =
        rustix::fs::open("/dev/net/tun", flags, Mode::empty()).map_err(|errno| (Step::Open, errno))?;
    set_interface(&descriptor, name).map_err(|errno| (Step::Attach, errno))?;
    Ok(descriptor)
}

/// Says which interface the descriptor is for.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "rustix has no call of its own for TUNSETIFF")]
fn set_interface(descriptor: &OwnedFd, name: &str) -> std::result::Result<(), Errno> {
    use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

    // linux/if_tun.h
    const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
    const IFF_TAP: u16 = 0x0002;
    const IFF_NO_PI: u16 = 0x1000;

    let [low, high] = (IFF_TAP | IFF_NO_PI).to_ne_bytes();
    let mut request = Request::of(name);
    request.value[..2].copy_from_slice(&[low, high]);
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which is 40 bytes on every 64-bit machine and which `Request` has
    // the layout of; all of it is initialised and may hold any bytes.
    unsafe { ioctl(descriptor, Updater::<TUNSETIFF, Request>::new(&mut request)) }
}

/// What an interface carries, as any socket tells.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "rustix has no call of its own for SIOCGIFMTU")]
fn interface_mtu(name: &str) -> std::result::Result<i32, Errno> {
    use rustix::ioctl::{Opcode, Updater, ioctl};
    use rustix::net::{AddressFamily, SocketType, socket};

    // linux/sockios.h
    const SIOCGIFMTU: Opcode = 0x8921;

    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut request = Request::of(name);
    // SAFETY: SIOCGIFMTU reads the name in one `struct ifreq` and writes an int behind it; see above.
    unsafe { ioctl(&socket, Updater::<SIOCGIFMTU, Request>::new(&mut request))? };
    let [a, b, c, d, ..] = request.value;
    Ok(i32::from_ne_bytes([a, b, c, d]))
}

#[cfg(not(target_os = "linux"))]
fn interface_mtu(_: &str) -> std::result::Result<i32, Errno> {
    Err(Errno::NOSYS)
}

/// `struct ifreq` (linux/if.h): a name, and a union of which flags and an MTU are at the beginning. Some of it is pointers.
#[cfg(target_os = "linux")]
#[repr(C, align(8))]
struct Request {
    name: [u8; NAME_BYTES],
    value: [u8; 24],
}

#[cfg(target_os = "linux")]
impl Request {
    fn of(name: &str) -> Request {
        let mut request = Request { name: [0; NAME_BYTES], value: [0; 24] };
        // The last byte stays zero.
        request.name[..NAME_BYTES - 1].iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        request
    }
}
