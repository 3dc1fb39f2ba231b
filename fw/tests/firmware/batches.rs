//! Many SAs in one command: all of them, or none.

use cryptonic_fw::{Firmware, SA_BATCH};
use cryptonic_regs::admin::{AdminStatus, InstalledSa, SaParameters};
use cryptonic_regs::events::SlotState;

use crate::engines::{EngineName, Forced};
use crate::hardware::Hardware;
use crate::samples::{boot, booted, in_bytes, inbound, outbound, unlimited};

const SIZES: [usize; 4] = [1, 2, 3, SA_BATCH as usize];

/// SAs of all sorts, each with an SPI of its own.
fn batch(size: usize) -> Vec<SaParameters> {
    let sa = |index: usize| {
        let spi = 0x1000 + index as u32;
        let sa = if index % 3 == 1 { outbound(spi) } else { inbound(spi) };
        let sa = if index.is_multiple_of(2) { sa } else { in_bytes(sa) };
        if index % 5 == 4 { unlimited(sa) } else { sa }
    };
    (0..size).map(sa).collect()
}

/// An SA that is there before, and as many slots of each kind as a batch takes at most.
fn with_one_sa() -> (Hardware, Firmware) {
    let (mut hardware, mut firmware) = boot(Hardware::new(17, 34));
    assert_eq!(hardware.install(&mut firmware, &inbound(0x900)).status, AdminStatus::Ok);
    (hardware, firmware)
}

/// Installs SAs of which one is refused: nothing is left of them, and the SAs and slots that were there before
/// serve as they did.
#[track_caller]
fn assert_refused(
    (mut hardware, mut firmware): (Hardware, Firmware),
    sas: &[SaParameters],
    (status, number): (AdminStatus, usize),
) {
    let before = hardware.slots.clone();
    let done = hardware.install_all(&mut firmware, sas);
    assert_eq!((done.status, done.result), (status, number as u64), "{} SAs", sas.len());
    assert_eq!(hardware.slots, before, "{} SAs, refused at {number}", sas.len());
    let good = hardware.install_all(&mut firmware, &batch(SA_BATCH as usize)[..1]);
    assert_eq!(good.status, AdminStatus::Ok, "the next command");
}

#[test]
fn all_sas_of_a_batch_are_valid_with_the_completion() {
    for size in SIZES {
        let (mut hardware, mut firmware) = with_one_sa();
        let sas = batch(size);
        let command = hardware.install_command(&sas);
        hardware.queue.push_back(command);
        // Until the completion, no more than the SA that was there is armed.
        let armed =
            |hardware: &Hardware| hardware.slots.iter().filter(|slot| slot.state == SlotState::Armed).count();
        while hardware.completions.len() == 1 {
            assert_eq!(armed(&hardware), 1);
            if firmware.run(&mut hardware) == cryptonic_fw::Wake::OnEvent {
                hardware.step();
            }
        }
        assert_eq!(armed(&hardware), 1 + size);
        assert_eq!((hardware.completions[1].status, hardware.completions[1].result), (AdminStatus::Ok, 0));
        hardware.assert_agrees(&firmware);
        for (sa, word) in sas.iter().zip(&hardware.reply) {
            let installed = InstalledSa::from_bits(*word);
            let slot = hardware.slots[installed.index() as usize];
            assert_eq!((slot.generation, slot.spi), (installed.generation(), sa.names.spi()));
        }
    }
}

#[test]
fn a_bad_sa_at_any_place_refuses_the_batch() {
    for size in SIZES {
        for place in 0..size {
            let mut sas = batch(size);
            sas[place].form.set_icv_bytes(7);
            assert_refused(with_one_sa(), &sas, (AdminStatus::BadArgument, place));
            sas[place] = outbound(255);
            assert_refused(with_one_sa(), &sas, (AdminStatus::ReservedSpi, place));
        }
    }
}

#[test]
fn the_first_refusal_counts() {
    let mut sas = batch(4);
    sas[1] = outbound(7);
    sas[3].form.set_icv_bytes(7);
    assert_refused(with_one_sa(), &sas, (AdminStatus::ReservedSpi, 1));
}

#[test]
fn an_spi_that_is_there_already_refuses_the_batch() {
    for size in SIZES {
        for place in 0..size {
            let mut sas = batch(size);
            sas[place] = inbound(0x900);
            assert_refused(with_one_sa(), &sas, (AdminStatus::DuplicateSpi, place));
        }
    }
    // Of the batch itself.
    let mut sas = batch(16);
    sas[15] = sas[0];
    assert_refused(with_one_sa(), &sas, (AdminStatus::DuplicateSpi, 15));
}

#[test]
fn parameters_that_end_too_soon_refuse_the_batch() {
    for size in SIZES {
        for place in 0..size {
            // Mapped up to the record, up to its secret words, or up to its last word.
            for words in [0, 1, SaParameters::PUBLIC_WORDS, SaParameters::WORDS - 1] {
                let (mut hardware, mut firmware) = with_one_sa();
                let before = hardware.slots.clone();
                let command = hardware.install_command(&batch(size));
                hardware.parameters.truncate(place * SaParameters::WORDS + words);
                let done = hardware.serve(&mut firmware, command);
                assert_eq!((done.status, done.result), (AdminStatus::BadAddress, place as u64));
                assert_eq!(hardware.slots, before);
            }
        }
    }
}

#[test]
fn a_reply_that_cannot_be_written_refuses_the_batch() {
    for size in SIZES {
        let (mut hardware, mut firmware) = with_one_sa();
        let before = hardware.slots.clone();
        let mut command = hardware.install_command(&batch(size));
        command.reply_address += 8;
        let done = hardware.serve(&mut firmware, command);
        assert_eq!((done.status, done.result), (AdminStatus::BadAddress, 0), "of no one record");
        assert_eq!(hardware.slots, before);
    }
}

/// Whatever an engine says, and whether or not it did its work.
#[test]
fn a_fault_of_an_engine_at_any_place_leaves_nothing() {
    for size in SIZES {
        for (engine, operations) in [(EngineName::Dma, size + 1), (EngineName::Sa, size)] {
            for skip in 0..operations {
                for (outcome, effect) in (1..8).flat_map(|outcome| [(outcome, false), (outcome, true)]) {
                    let (mut hardware, mut firmware) = with_one_sa();
                    let before = hardware.slots.clone();
                    hardware.forced.push(Forced { engine, skip, outcome, effect });
                    let done = hardware.install_all(&mut firmware, &batch(size));
                    assert_ne!(done.status, AdminStatus::Ok, "{engine:?} {skip} {outcome}");
                    assert_eq!(done.result as usize, skip % size.max(skip), "{engine:?} {skip} {outcome}");
                    assert_eq!(hardware.slots, before, "{engine:?} {skip} {outcome}");
                }
            }
        }
    }
}

#[test]
fn a_batch_that_does_not_fit_takes_no_slot() {
    for size in SIZES {
        for slots in 0..size {
            let sas: Vec<_> = (0..size as u32).map(|index| outbound(0x1000 + index)).collect();
            let (mut hardware, mut firmware) = boot(Hardware::new(slots, slots + 20));
            let done = hardware.install_all(&mut firmware, &sas);
            assert_eq!((done.status, done.result), (AdminStatus::NoFreeSlot, slots as u64));
            assert_eq!(hardware.used(), 0);
            // Those that fit do so afterwards.
            if slots > 0 {
                assert_eq!(hardware.install_all(&mut firmware, &sas[..slots]).status, AdminStatus::Ok);
            }
        }
    }
}

#[test]
fn a_batch_of_both_kinds_is_full_by_kind() {
    let sas = [outbound(0x1000), in_bytes(outbound(0x1001)), outbound(0x1002), unlimited(outbound(0x1003))];
    for (packet_slots, byte_slots, expected) in [
        (3, 1, Ok([0, 3, 1, 2])),
        (2, 2, Ok([0, 2, 1, 3])),
        (2, 1, Err(3)),
        (4, 0, Err(1)),
        (1, 3, Err(2)),
        (0, 4, Err(0)),
    ] {
        let (mut hardware, mut firmware) = boot(Hardware::new(packet_slots, packet_slots + byte_slots));
        let done = hardware.install_all(&mut firmware, &sas);
        let outcome = match done.status {
            AdminStatus::Ok => Ok([0, 1, 2, 3].map(|index| hardware.reply[index] as u32)),
            status => {
                assert_eq!((status, hardware.used()), (AdminStatus::NoFreeSlot, 0));
                Err(done.result)
            }
        };
        assert_eq!(outcome, expected, "{packet_slots} and {byte_slots} slots");
    }
}

#[test]
fn the_last_batch_fills_the_table() {
    let (mut hardware, mut firmware) = booted(48);
    for index in 0..3 {
        let sas: Vec<_> = (0..16).map(|spi| outbound(0x1000 + 16 * index + spi)).collect();
        assert_eq!(hardware.install_all(&mut firmware, &sas).status, AdminStatus::Ok);
    }
    assert_eq!(hardware.used(), 48);
    let done = hardware.install(&mut firmware, &outbound(0x2000));
    assert_eq!((done.status, done.result), (AdminStatus::NoFreeSlot, 0));
}
