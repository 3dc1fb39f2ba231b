//! Interrupts as eventfds: those of MSI-X, and the kernel's two signs that a function is to be let go.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use cryptonic_pci::host::Wake;
use cryptonic_pci::{HostError, Time};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX,
};

use super::attachment::{Attachment, failed};
use super::system_call;

/// The interrupts of a function.
pub(super) struct Interrupts {
    /// One for each vector that is on.
    vectors: RefCell<Vec<OwnedFd>>,
    /// Signalled by an error that the function does not survive (VFIO_PCI_ERR_IRQ_INDEX), and when somebody
    /// wants to take it from us, by its driver or its slot (VFIO_PCI_REQ_IRQ_INDEX).
    removal: Vec<OwnedFd>,
}

impl Interrupts {
    /// Listens for removal; MSI-X stays off.
    pub(super) fn arm(attachment: &Attachment) -> Result<Interrupts, HostError> {
        let mut removal = Vec::new();
        for index in [VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX] {
            // A function of conventional PCI reports no errors.
            if system_call::interrupts(attachment, index).unwrap_or(0) == 0 {
                continue;
            }
            let signal = [signal()?];
            system_call::set_interrupts(attachment, index, &signal)
                .map_err(|error| failed(format_args!("arming interrupt {index}"), error))?;
            removal.extend(signal);
        }
        Ok(Interrupts { vectors: RefCell::default(), removal })
    }

    /// Turns MSI-X on with so many vectors.
    pub(super) fn enable(&self, attachment: &Attachment, vectors: u16) -> Result<(), HostError> {
        let index = VFIO_PCI_MSIX_IRQ_INDEX;
        if system_call::interrupts(attachment, index).unwrap_or(0) < u32::from(vectors) || vectors == 0 {
            return Err(HostError::Unsupported("as many MSI-X vectors"));
        }
        let signals = (0..vectors).map(|_| signal()).collect::<Result<Vec<_>, _>>()?;
        let set = |signals: &[OwnedFd]| {
            system_call::set_interrupts(attachment, index, signals)
                .map_err(|error| failed(format_args!("enabling {vectors} vectors of MSI-X"), error))
        };
        let mut enabled = self.vectors.borrow_mut();
        // Their number cannot be changed while they are on (VFIO_IRQ_INFO_NORESIZE).
        if !enabled.is_empty() {
            set(&[])?;
            enabled.clear();
        }
        set(&signals)?;
        *enabled = signals;
        Ok(())
    }

    /// Sleeps until an interrupt, or until no time is left; `None` is for ever.
    pub(super) fn wait(&self, vector: u16, left: impl Fn() -> Option<Time>) -> Result<Wake, HostError> {
        let vectors = self.vectors.borrow();
        let Some(signal) = vectors.get(usize::from(vector)) else {
            return Err(HostError::Unsupported("an interrupt vector that is not on"));
        };
        loop {
            let left = left();
            let mut files: Vec<PollFd<'_>> = std::iter::once(signal)
                .chain(&self.removal)
                .map(|file| PollFd::new(file, PollFlags::IN))
                .collect();
            match poll(&mut files, left.map(timespec).as_ref()) {
                // A signal of the process; the deadline stays.
                Err(Errno::INTR) => continue,
                Err(error) => return Err(failed(format_args!("waiting for vector {vector}"), error)),
                Ok(_) => {}
            }
            let signalled = |file: &PollFd<'_>| !file.revents().is_empty();
            if files.iter().skip(1).any(signalled) {
                return Err(HostError::Gone);
            }
            if files.first().is_some_and(signalled) && take(signal) {
                return Ok(Wake::Interrupt);
            }
            if left.is_some_and(|left| left == Time::ZERO) {
                return Ok(Wake::Deadline);
            }
        }
    }

    /// Whether the function is to be let go.
    pub(super) fn removal(&self) -> bool {
        // It is not taken back, so that it is told every time.
        let mut files: Vec<PollFd<'_>> =
            self.removal.iter().map(|file| PollFd::new(file, PollFlags::IN)).collect();
        poll(&mut files, Some(&Timespec::default())).is_ok_and(|signalled| signalled > 0)
    }

    /// Forgets interrupts that came.
    pub(super) fn forget(&self) {
        for signal in self.vectors.borrow().iter() {
            take(signal);
        }
    }
}

fn signal() -> Result<OwnedFd, HostError> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| HostError::Refused {
        reason: format!(
            "no file descriptor for an interrupt ({error}); `ulimit -n` shows how many there may be"
        ),
    })
}

/// Takes a signal, and tells whether there was one.
fn take(signal: &OwnedFd) -> bool {
    rustix::io::read(signal, &mut [0; 8]).is_ok()
}

fn timespec(time: Time) -> Timespec {
    let nanoseconds = (time.picoseconds() / 1_000) as i64;
    Timespec { tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000 }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn armed(vectors: u16) -> Interrupts {
        let signals = |count| (0..count).map(|_| signal().expect("an eventfd")).collect();
        Interrupts { vectors: RefCell::new(signals(vectors)), removal: signals(2) }
    }

    fn ring(signal: &OwnedFd) {
        rustix::io::write(signal, &1_u64.to_ne_bytes()).expect("an eventfd takes a number");
    }

    const NOW: fn() -> Option<Time> = || Some(Time::ZERO);

    #[test]
    fn an_interrupt_is_told_once_and_to_its_vector() {
        let interrupts = armed(3);
        ring(&interrupts.vectors.borrow()[1]);
        ring(&interrupts.vectors.borrow()[1]);
        assert_eq!(interrupts.wait(0, NOW), Ok(Wake::Deadline));
        assert_eq!(interrupts.wait(1, || None), Ok(Wake::Interrupt));
        assert_eq!(interrupts.wait(1, NOW), Ok(Wake::Deadline));
        assert!(matches!(interrupts.wait(3, NOW), Err(HostError::Unsupported(_))));
    }

    #[test]
    fn a_deadline_ends_a_wait() {
        let left = Cell::new(3);
        let interrupts = armed(1);
        let wake = interrupts.wait(0, || {
            left.set(left.get() - 1);
            Some(Time::from_microseconds(left.get()))
        });
        assert_eq!((wake, left.get()), (Ok(Wake::Deadline), 0));
    }

    #[test]
    fn either_sign_of_removal_ends_every_wait() {
        for sign in 0..2 {
            let interrupts = armed(1);
            ring(&interrupts.vectors.borrow()[0]);
            assert!(!interrupts.removal());
            ring(&interrupts.removal[sign]);
            for _ in 0..2 {
                assert_eq!(interrupts.wait(0, || None), Err(HostError::Gone));
                assert!(interrupts.removal());
            }
        }
    }

    #[test]
    fn what_came_before_a_reset_is_forgotten() {
        let interrupts = armed(2);
        ring(&interrupts.vectors.borrow()[1]);
        interrupts.forget();
        assert_eq!(interrupts.wait(1, NOW), Ok(Wake::Deadline));
    }
}
