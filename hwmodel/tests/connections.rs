//! Receiving PSP costs no state: with as many connections as SPIs were given out, each packet is opened, and nothing grows.
//!
//! 100 000 connections, or 10 000 000 with `CRYPTONIC_LONG=1`. That the model keeps nothing either is witnessed by the memory
//! of the process, so this test has one of its own.

#[expect(dead_code, reason = "shared with tests that use all of it")]
#[path = "formats/admin.rs"]
mod admin;
#[expect(dead_code, reason = "shared with tests that use all of it")]
#[path = "formats/raw.rs"]
mod raw;

use cryptonic_hwmodel::Parameters;
use cryptonic_regs::Status;
use cryptonic_regs::admin::Opcode;
use cryptonic_regs::bar0::{self, Control, PspControl};
use cryptonic_regs::descriptor::{Security, TransmitPsp};

use admin::Admin;
use raw::{Raw, control, extent, payload, status, tcp};

/// SPIs of one command.
const BATCH: u64 = 2_048;
/// Connections whose keys the test keeps to send with.
const SENDERS: usize = 1_000;
/// What the process may grow by: less than eleven bytes for each of 100 000 SPIs, a tenth of one for each of 10 000 000.
const GROWTH_BYTES: u64 = 1 << 20;

/// One connection as its sender knows it.
type Sender = (u32, [u64; 4]);

#[test]
fn connections_without_number_cost_the_receiver_no_state() {
    let long = std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1");
    let connections: u64 = if long { 10_000_000 } else { 100_000 };
    let mut raw = Raw::new(&Parameters::default(), 64);
    let mut admin = Admin::new(&raw);
    raw.write(bar0::CONTROL.offset, Control::new().with_enable(true).with_mac_loopback(true).into_bits());
    let psp = PspControl::new().with_receive_versions(1).with_udp_port(1_000);
    raw.write(bar0::PSP_CONTROL.offset, psp.into_bits());
    admin.ask(&raw, Opcode::PspRotate, 0, &[], 0);

    // Everything once, so that what is allocated for good is there.
    let mut senders: Vec<Sender> = Vec::with_capacity(SENDERS);
    senders.extend_from_slice(&admin.allocate(&raw, 0, BATCH)[..SENDERS]);
    round_trips(&mut raw, &senders);
    let state_bytes = raw.world.psp_receive_state_bytes(raw.id);
    let resident_bytes = resident();

    let mut given = BATCH;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while given < connections {
        let batch = admin.allocate(&raw, 0, BATCH.min(connections - given));
        for (index, sender) in batch.into_iter().enumerate() {
            // Each SPI has the same chance to be among those that send (reservoir sampling).
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let place = (random >> 16) % (given + index as u64 + 1);
            if let Some(sends) = senders.get_mut(place as usize) {
                *sends = sender;
            }
        }
        given = (given + BATCH).min(connections);
    }
    let last = senders.iter().map(|(spi, _)| *spi).max();
    assert!(last > Some((connections * 9 / 10) as u32), "they are spread over all of them");
    round_trips(&mut raw, &senders);

    assert_eq!(raw.world.psp_receive_state_bytes(raw.id), state_bytes, "the NIC");
    let used = (1_u32 << 31) - 1 - raw.read(bar0::PSP_SPI_REMAINING.offset);
    assert_eq!(u64::from(used), connections);
    if let (Some(before), Some(after)) = (resident_bytes, resident()) {
        println!(
            "{connections} connections: {state_bytes} bytes of state in the NIC, before and after; the process grew by {} KiB",
            after.saturating_sub(before) / 1024
        );
        assert!(after.saturating_sub(before) < GROWTH_BYTES, "the model: {before} to {after} bytes");
    }
}

/// A packet of each connection goes out, comes back and is opened.
fn round_trips(raw: &mut Raw, senders: &[Sender]) {
    let frame = tcp(false, &payload(200));
    for (spi, key) in senders {
        raw.post(&[2_048]);
        let at = raw.bytes(&frame);
        let behind: Vec<u8> = key.iter().flat_map(|word| word.to_le_bytes()).collect();
        let control = control(frame.len()).with_security(Security::PspKey.number() as u8).into_bits();
        let words = [at, control, TransmitPsp::new().with_spi(*spi).into_bits(), extent(frame.len(), 0)];
        raw.put(words, &behind);
        raw.ring();
        assert_eq!(raw.statuses(), [Status::Ok]);
        let (completion, bytes) = raw.received().remove(0);
        assert_eq!((status(completion.end.status()), completion.security.spi()), (Status::Ok, *spi));
        assert_eq!(bytes, frame);
    }
}

/// Resident memory of the process, where the system tells it.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
