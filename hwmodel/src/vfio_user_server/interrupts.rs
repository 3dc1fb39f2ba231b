//! Eventfds of a client, and which of them the NIC's interrupts go to.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use cryptonic_pci::vfio_user::{InterruptInfo, SetInterrupts, interrupt, interrupt_flags, set_flags};
use cryptonic_pci::{Bar, Host, HostError, config, msix};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::Refusal;

/// What interrupt messages are written to; the server takes them before they reach memory.
const INTERRUPT_ADDRESS: u32 = 0xfee0_0000;
/// Index of the interrupt that tells of errors (linux/vfio.h).
const ERROR: u32 = 3;
/// Index of the interrupt that asks to let go of the device (linux/vfio.h).
const REQUEST: u32 = 4;

/// Where interrupts go.
pub(super) struct Interrupts {
    msix: Vec<Option<File>>,
    error: Option<File>,
    request: Option<File>,
}

impl Interrupts {
    pub(super) fn new(vectors: u16) -> Interrupts {
        let msix = (0..vectors).map(|_| None).collect();
        Interrupts { msix, error: None, request: None }
    }

    /// How many interrupts of a kind there are.
    pub(super) fn information(&self, index: u32) -> Result<InterruptInfo, Refusal> {
        let count = match index {
            interrupt::MSIX => self.msix.len() as u32,
            ERROR | REQUEST => 1,
            _ if index < interrupt::COUNT => 0,
            _ => return Err(Refusal::invalid(format!("there are no interrupts {index}"))),
        };
        let flags = if count > 0 { interrupt_flags::EVENTFD | interrupt_flags::NO_RESIZE } else { 0 };
        Ok(InterruptInfo { record_bytes: InterruptInfo::BYTES as u32, flags, index, count })
    }

    /// Does what a client says. QEMU sends one vector a message, the first time without an eventfd, and turns all off before it
    /// adds one.
    pub(super) fn set(
        &mut self,
        set: &SetInterrupts,
        data: &[u8],
        files: Vec<File>,
        host: &dyn Host,
    ) -> Result<(), Refusal> {
        let count = self.information(set.index)?.count;
        let end = set.start.checked_add(set.count).filter(|end| *end <= count);
        let Some(end) = end else {
            let SetInterrupts { index, start, count, .. } = *set;
            return Err(Refusal::invalid(format!("there are no {count} interrupts {index} from {start} on")));
        };
        if set.flags & !set_flags::DATA != set_flags::ACTION_TRIGGER {
            return Err(Refusal::unsupported("interrupts are not masked this way"));
        }
        match set.flags & set_flags::DATA {
            set_flags::DATA_NONE if set.count == 0 => {
                self.places(set.index).iter_mut().for_each(|place| *place = None);
                if set.index == interrupt::MSIX {
                    enable(host, false).map_err(failed)?;
                }
            }
            set_flags::DATA_NONE => (set.start..end).for_each(|number| self.send(set.index, number)),
            set_flags::DATA_BOOL => {
                for (number, _) in (set.start..end).zip(data).filter(|(_, wanted)| **wanted != 0) {
                    self.send(set.index, number);
                }
            }
            set_flags::DATA_EVENTFD => {
                files.iter().try_for_each(never_blocks)?;
                let mut files = files.into_iter();
                for number in set.start..end {
                    let file = files.next();
                    if let Some(place) = self.places(set.index).get_mut(number as usize) {
                        *place = file;
                    }
                }
                if set.index == interrupt::MSIX && set.count > 0 {
                    self.program(host).map_err(failed)?;
                }
            }
            _ => return Err(Refusal::invalid("interrupts with two kinds of data")),
        }
        Ok(())
    }

    /// Gives the NIC its table back after a reset, as vfio-pci does: a client that was told of its interrupts before goes on
    /// to get them.
    pub(super) fn restore(&self, host: &dyn Host) -> Result<(), Refusal> {
        if self.msix.iter().any(Option::is_some) { self.program(host).map_err(failed) } else { Ok(()) }
    }

    /// Sends MSI-X interrupt `vector`.
    pub(super) fn signal(&self, vector: u32) {
        self.send(interrupt::MSIX, vector);
    }

    /// Asks the client to let go.
    pub(super) fn request_release(&self) {
        self.send(REQUEST, 0);
    }

    fn send(&self, index: u32, number: u32) {
        let file = match index {
            interrupt::MSIX => self.msix.get(number as usize),
            ERROR => Some(&self.error),
            REQUEST => Some(&self.request),
            _ => None,
        };
        if let Some(Some(file)) = file {
            // A counter that is full has something to tell already.
            let mut file: &File = file;
            let _ = file.write(&1_u64.to_ne_bytes());
        }
    }

    fn places(&mut self, index: u32) -> &mut [Option<File>] {
        match index {
            interrupt::MSIX => &mut self.msix,
            ERROR => std::slice::from_mut(&mut self.error),
            REQUEST => std::slice::from_mut(&mut self.request),
            _ => &mut [],
        }
    }

    /// Writes the NIC's table: vectors that have an eventfd are not masked.
    fn program(&self, host: &dyn Host) -> Result<(), HostError> {
        for (vector, file) in self.msix.iter().enumerate() {
            let entry = vector as u32 * msix::ENTRY_BYTES;
            let words = [INTERRUPT_ADDRESS, 0, vector as u32, u32::from(file.is_none())];
            for (word, value) in words.into_iter().enumerate() {
                host.write32(Bar::Bar4, entry + word as u32 * 4, value)?;
            }
        }
        enable(host, true)
    }
}

fn enable(host: &dyn Host, on: bool) -> Result<(), HostError> {
    let control = host.config_read(config::MSIX)? & !config::MSIX_FUNCTION_MASK & !config::MSIX_ENABLE;
    host.config_write(config::MSIX, if on { control | config::MSIX_ENABLE } else { control })
}

/// Makes an eventfd one that stops nobody, and refuses any other file: what it is only its name among the descriptors of
/// this process tells (proc(5)). The client's descriptor is the same open file, so it does not block there either.
fn never_blocks(file: &File) -> Result<(), Refusal> {
    let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed)?;
    if name.as_os_str() != "anon_inode:[eventfd]" {
        return Err(Refusal::invalid("an interrupt goes to an eventfd, and to no other file"));
    }
    let flags = fcntl_getfl(file).map_err(failed)?;
    // A counter that is full must not stop the NIC.
    fcntl_setfl(file, flags | OFlags::NONBLOCK).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::invalid(error.to_string())
}
