//! A NIC that protects and opens PSP with keys of its own device, over a cable that leads nowhere: what leaves is changed by
//! the test and comes back.

use cryptonic_hwmodel::Parameters;
use cryptonic_regs::Status;
use cryptonic_regs::admin::Opcode;
use cryptonic_regs::bar0::{self, PspControl, STATUS_COUNTERS_OFFSET};
use cryptonic_regs::descriptor::{Security, TransmitControl, TransmitPsp};

use crate::admin::Admin;
use crate::raw::{Raw, control, extent, tcp};

/// Where the PSP header of [`Psp::wire`] begins.
pub const HEADER: usize = 42;

/// The NIC, and a key of version 0.
pub struct Psp {
    pub raw: Raw,
    pub admin: Admin,
    pub spi: u32,
    pub key: [u64; 4],
}

impl Psp {
    pub fn new(change: impl FnOnce(&mut Parameters)) -> Psp {
        let mut parameters = Parameters::default();
        change(&mut parameters);
        let raw = Raw::new(&parameters, 64);
        let mut admin = Admin::new(&raw);
        admin.ask(&raw, Opcode::PspRotate, 0, &[], 0);
        let (spi, key) = admin.allocate(&raw, 0, 1)[0];
        let psp = Psp { raw, admin, spi, key };
        psp.receive_on(1_000);
        psp
    }

    /// Turns version 0 on, at this port.
    pub fn receive_on(&self, udp_port: u16) {
        let on = PspControl::new().with_receive_versions(1).with_udp_port(udp_port);
        self.raw.write(bar0::PSP_CONTROL.offset, on.into_bits());
        self.raw.world.drain();
    }

    /// Gives a frame to the NIC, protected by the key in its descriptor.
    pub fn send(&mut self, frame: &[u8], change: impl FnOnce(TransmitControl) -> TransmitControl) -> Status {
        let behind: Vec<u8> = self.key.iter().flat_map(|word| word.to_le_bytes()).collect();
        let at = self.raw.bytes(frame);
        let control = change(control(frame.len()).with_security(Security::PspKey.number() as u8));
        let spi = TransmitPsp::new().with_spi(self.spi).into_bits();
        self.raw.put([at, control.into_bits(), spi, extent(frame.len(), 0)], &behind);
        self.raw.ring();
        *self.raw.statuses().last().expect("a completion")
    }

    /// A frame, and what it is on the wire.
    pub fn wire(&mut self, change: impl FnOnce(TransmitControl) -> TransmitControl) -> (Vec<u8>, Vec<u8>) {
        let frame = tcp(false, &[0x77; 100]);
        assert_eq!(self.send(&frame, change), Status::Ok);
        (frame, self.raw.sent().remove(0))
    }

    /// Posts buffers, which are at hand then.
    pub fn post(&mut self, buffers: &[usize]) {
        self.raw.post(buffers);
        self.raw.world.drain();
    }

    /// Has a frame arrive.
    pub fn arrive(&self, frame: &[u8]) {
        self.raw.world.inject(self.raw.id, frame);
        self.raw.world.drain();
    }

    pub fn count(&self, status: Status) -> u32 {
        self.raw.read(STATUS_COUNTERS_OFFSET + 8 * status.number())
    }

    /// The specification's counters of faults on receive: wrong ICVs, errors, bad ones.
    pub fn faults(&self) -> [u32; 3] {
        [bar0::PSP_RECEIVED_AUTHENTICATION_FAILURES, bar0::PSP_RECEIVED_ERRORS, bar0::PSP_RECEIVED_BAD]
            .map(|register| self.raw.read(register.offset))
    }
}
