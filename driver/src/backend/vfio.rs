//! A PCI function behind Linux's vfio-pci: an IOMMU holds its DMA to what was mapped, interrupts come by eventfds.
//!
//! * **Attaching**: by iommufd and the function's own character device where the kernel has them, by
//!   container and group where not. A group without an IOMMU is refused, unless it is asked for
//!   ([`Vfio::open_without_iommu`]).
//! * **Registers** (`base_address`) are loads and stores where vfio lets a BAR be mapped, and system calls where it
//!   does not.
//! * **Bus mastering** is the driver's to turn on, once its memory is mapped ([`Host::config_write`]). It is turned off
//!   before a reset, because the kernel puts back what it found, and when the [`Vfio`] is dropped.
//! * **Removal.** When the function reports an error that it does not survive, or its slot or driver is to be taken from
//!   us, the kernel signals it; from then on every access is [`HostError::Gone`]. The kernel takes the function
//!   only after it was let go, so mapped registers stay mapped as long as the [`Vfio`] lives, and read all ones if
//!   the card itself was pulled.

mod attachment;
mod base_address;
mod interrupts;
mod obstacles;
mod region;
mod system_call;
mod without_iommu;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use cryptonic_pci::config::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY};
use cryptonic_pci::host::Wake;
use cryptonic_pci::sysfs::{Address, Function};
use cryptonic_pci::time::TICKS_PER_PICOSECOND;
use cryptonic_pci::{Bar, DmaAccess, Host, HostError, SharedMemory, Time, Work};
use cryptonic_regs::bar0::BAR0_BYTES;
use cryptonic_regs::doorbell::DOORBELL_PAGE_BYTES;

use attachment::Attachment;
use base_address::BaseAddress;
use interrupts::Interrupts;

/// Capabilities list: offset of its head in config space, identifier of MSI-X (PCI 3.0 6.1, 6.8.2).
const CAPABILITIES_POINTER: u16 = 0x34;
const CAPABILITY_MSIX: u32 = 0x11;
/// More capabilities than config space has room for: a list that is longer runs in a circle.
const CAPABILITIES_MAX: usize = 48;
/// A system call asks for signs of removal once in so many calls of [`Host::relax`].
const RELAXES_A_LOOK: u32 = 1024;
const TICKS_PER_NANOSECOND: u128 = TICKS_PER_PICOSECOND as u128 * 1_000;

/// A function that this process has from vfio-pci.
pub struct Vfio {
    // In this order they are dropped: the function is let go, which resets it, before memory that it reaches is freed.
    interrupts: Interrupts,
    bars: [BaseAddress; 3],
    attachment: Attachment,
    /// Memory that the function reaches, by I/O address. It must not be freed before its mapping ends.
    mapped: RefCell<BTreeMap<u64, SharedMemory>>,
    /// Memory whose mapping ended, but which the function could still reach since no IOMMU keeps it from that. It is freed
    /// when the function was reset or let go.
    in_reach: RefCell<Vec<SharedMemory>>,
    /// The kernel told that the function is to be let go, or has failed for good.
    gone: Cell<bool>,
    /// The function answers memory accesses; where it does not, an access to a mapped BAR would be a bus error.
    answers: Cell<bool>,
    relaxes: Cell<u32>,
    opened: Instant,
}

impl Vfio {
    /// Takes the function at `address`, which is bound to vfio-pci. What stands in the way is told with what to do.
    pub fn open(address: Address) -> Result<Vfio, HostError> {
        let root = Path::new("/");
        let function = obstacles::look(root, address, false)?;
        Vfio::with(Attachment::open(root, &function)?, &function)
    }

    /// Takes the function at `address`, which is bound to vfio-pci and which no IOMMU holds back: it reads and writes all of
    /// the machine's memory as it likes, and nothing here protects from one that fails or is hostile. Needs root and huge
    /// pages.
    pub fn open_without_iommu(address: Address) -> Result<Vfio, HostError> {
        let root = Path::new("/");
        let function = obstacles::look(root, address, true)?;
        Vfio::with(Attachment::open_without_iommu(root, &function)?, &function)
    }

    fn with(attachment: Attachment, function: &Function) -> Result<Vfio, HostError> {
        let address = function.address;
        let identifiers = attachment.config_read(0)?;
        let expected = u32::from(function.device) << 16 | u32::from(function.vendor);
        if identifiers == u32::MAX {
            return Err(HostError::Gone);
        }
        if identifiers != expected {
            return Err(HostError::Refused {
                reason: format!(
                    "config space of {address} says {identifiers:#010x} where /sys says {expected:#010x}: bind it anew"
                ),
            });
        }
        let with_interrupts = msix_bars(&attachment)?;
        let bar = |bar, least_bytes: u32| {
            let bar = BaseAddress::open(&attachment, bar, with_interrupts);
            if bar.bytes() >= u64::from(least_bytes) {
                return Ok(bar);
            }
            Err(HostError::Refused {
                reason: format!(
                    "{:?} of {address} has {} bytes where the contract wants {least_bytes}: this is not a Cryptonic NIC",
                    bar.bar(),
                    bar.bytes()
                ),
            })
        };
        let bars = [bar(Bar::Bar0, BAR0_BYTES)?, bar(Bar::Bar2, DOORBELL_PAGE_BYTES)?, bar(Bar::Bar4, 0)?];
        let interrupts = Interrupts::arm(&attachment)?;
        let command = attachment.config_read(COMMAND)?;
        Ok(Vfio {
            interrupts,
            bars,
            attachment,
            mapped: RefCell::default(),
            in_reach: RefCell::default(),
            gone: Cell::new(false),
            answers: Cell::new(command & COMMAND_MEMORY != 0),
            relaxes: Cell::new(0),
            opened: Instant::now(),
        })
    }

    /// Whether memory is translated by iommufd (true) or by a container (false).
    pub fn uses_iommufd(&self) -> bool {
        self.attachment.is_iommufd()
    }

    /// Whether registers of a BAR at `offset` are mapped; if not, each access is a system call.
    pub fn is_mapped(&self, bar: Bar, offset: u32) -> bool {
        self.bar(bar).is_mapped(offset)
    }

    fn bar(&self, bar: Bar) -> &BaseAddress {
        let [bar0, bar2, bar4] = &self.bars;
        match bar {
            Bar::Bar0 => bar0,
            Bar::Bar2 => bar2,
            Bar::Bar4 => bar4,
        }
    }

    fn present(&self) -> Result<(), HostError> {
        if self.gone.get() { Err(HostError::Gone) } else { Ok(()) }
    }

    fn look_for_removal(&self) {
        if self.interrupts.removal() {
            self.gone.set(true);
        }
    }

    fn bus_mastering_off(&self) -> Result<(), HostError> {
        let command = self.attachment.config_read(COMMAND)? & 0xffff;
        // The upper half is the status register, whose bits are cleared by writing ones: zeros leave it.
        self.attachment.config_write(COMMAND, command & !COMMAND_BUS_MASTER)
    }
}

impl Host for Vfio {
    fn config_read(&self, offset: u16) -> Result<u32, HostError> {
        self.look_for_removal();
        self.present()?;
        self.attachment.config_read(offset)
    }

    fn config_write(&self, offset: u16, value: u32) -> Result<(), HostError> {
        self.look_for_removal();
        self.present()?;
        if offset == COMMAND && value & COMMAND_MEMORY == 0 {
            self.answers.set(false);
        }
        self.attachment.config_write(offset, value)?;
        if offset == COMMAND {
            self.answers.set(value & COMMAND_MEMORY != 0);
        }
        Ok(())
    }

    #[inline]
    fn read32(&self, bar: Bar, offset: u32) -> Result<u32, HostError> {
        self.present()?;
        if !self.answers.get() {
            return Ok(u32::MAX); // As on a bus that nobody answers on.
        }
        self.bar(bar).read32(&self.attachment, offset)
    }

    #[inline]
    fn write32(&self, bar: Bar, offset: u32, value: u32) -> Result<(), HostError> {
        self.present()?;
        if !self.answers.get() {
            return Ok(());
        }
        self.bar(bar).write32(&self.attachment, offset, value)
    }

    #[inline]
    fn push64(&self, bar: Bar, offset: u32, line: &[u8; 64]) -> Result<(), HostError> {
        self.present()?;
        if !self.answers.get() {
            return Ok(());
        }
        self.bar(bar).push64(&self.attachment, offset, line)
    }

    fn memory(&self, bytes: usize) -> io::Result<SharedMemory> {
        self.attachment.memory(bytes)
    }

    fn address_of(&self, memory: &SharedMemory, wanted: u64) -> Result<u64, HostError> {
        self.attachment.address_of(memory, wanted)
    }

    fn dma_map(&self, memory: &SharedMemory, iova: u64, access: DmaAccess) -> Result<(), HostError> {
        self.present()?;
        self.attachment.map(memory, iova, access)?;
        self.mapped.borrow_mut().insert(iova, memory.clone());
        Ok(())
    }

    fn dma_unmap(&self, iova: u64) -> Result<(), HostError> {
        // A function that is gone has its memory taken back all the same.
        let mut mapped = self.mapped.borrow_mut();
        let Some(memory) = mapped.get(&iova) else {
            return Err(HostError::Map { iova, reason: "nothing is mapped there".to_owned() });
        };
        self.attachment.unmap(iova, memory.bytes())?;
        let memory = mapped.remove(&iova).filter(|_| !self.attachment.holds_back());
        self.in_reach.borrow_mut().extend(memory);
        Ok(())
    }

    fn interrupts_enable(&self, vectors: u16) -> Result<(), HostError> {
        self.present()?;
        self.interrupts.enable(&self.attachment, vectors)
    }

    fn now(&self) -> Time {
        Time(self.opened.elapsed().as_nanos() * TICKS_PER_NANOSECOND)
    }

    fn spend(&self, _: Work) {}

    #[inline]
    fn relax(&self) {
        let relaxes = self.relaxes.get().wrapping_add(1);
        self.relaxes.set(relaxes);
        if relaxes.is_multiple_of(RELAXES_A_LOOK) {
            self.look_for_removal();
        }
        std::hint::spin_loop();
    }

    fn wait(&self, vector: u16, deadline: Time) -> Result<Wake, HostError> {
        self.present()?;
        let result = self.interrupts.wait(vector, || match deadline {
            Time::NEVER => None,
            deadline => Some(deadline.since(self.now())),
        });
        if result == Err(HostError::Gone) {
            self.gone.set(true);
        }
        result
    }

    fn reset(&self) -> Result<(), HostError> {
        self.look_for_removal();
        self.present()?;
        // The kernel saves the command register before the reset and puts it back after it.
        self.bus_mastering_off()?;
        self.attachment.reset()?;
        self.in_reach.borrow_mut().clear();
        self.interrupts.forget();
        Ok(())
    }
}

impl Drop for Vfio {
    fn drop(&mut self) {
        // The kernel does the same, and a reset, when it closes the function; until then nothing may be written by it.
        let _ = self.bus_mastering_off();
    }
}

/// Which BARs hold the MSI-X table and its pending bits, by number, as bits. They are the kernel's: see
/// [`BaseAddress::open`].
fn msix_bars(attachment: &Attachment) -> Result<u8, HostError> {
    let mut offset = attachment.config_read(CAPABILITIES_POINTER)? as u16 & 0xfc;
    for _ in 0..CAPABILITIES_MAX {
        if offset == 0 {
            break;
        }
        let word = attachment.config_read(offset)?;
        if word & 0xff == CAPABILITY_MSIX {
            let (table, pending) = (attachment.config_read(offset + 4)?, attachment.config_read(offset + 8)?);
            return Ok(1 << (table & 7) | 1 << (pending & 7));
        }
        offset = (word >> 8) as u16 & 0xfc;
    }
    Ok(0)
}
