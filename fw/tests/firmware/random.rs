//! Any command: no panic, one completion, a defined status (the hardware checks each).

use cryptonic_fw::Firmware;
use cryptonic_regs::admin::{Command, Opcode, SaParameters};
use proptest::prelude::*;

use crate::engines::{EngineName, Forced};
use crate::hardware::Hardware;
use crate::samples::{boot, command, in_bytes, inbound, outbound, unlimited};

/// Any words, words that are often 0, and a command that is right but for one word.
fn any_command() -> impl Strategy<Value = Command> {
    let word = prop_oneof![Just(0), 0..300u64, any::<u64>()];
    let near = (0..Opcode::ALL.len(), 0..4u64, 0..4u64, 0..8usize, word.clone(), any::<bool>());
    prop_oneof![
        prop::array::uniform8(any::<u64>()).prop_map(|words| Command::of_words(&words)),
        prop::array::uniform8(word).prop_map(|words| Command::of_words(&words)),
        near.prop_map(|(opcode, low, high, index, word, change)| {
            let mut words = command(Opcode::ALL[opcode], high << 32 | low).to_words();
            if change {
                words[index] = word;
            }
            Command::of_words(&words)
        }),
    ]
}

/// Right parameters with some bit flipped, or any words.
fn any_parameters() -> impl Strategy<Value = [u64; SaParameters::WORDS]> {
    let sample = (any::<bool>(), any::<bool>(), any::<bool>(), 256..300u32);
    let flip = (prop::bool::weighted(0.3), 0..SaParameters::PUBLIC_WORDS, 0..64u32);
    let near = (sample, flip).prop_map(|((out, bytes, limitless, spi), (flip, index, bit))| {
        let mut sa = if out { outbound(spi) } else { inbound(spi) };
        sa = if bytes { in_bytes(sa) } else { sa };
        sa = if limitless { unlimited(sa) } else { sa };
        let mut words = sa.to_words();
        words[index] ^= u64::from(flip) << bit;
        words
    });
    prop_oneof![1 => prop::array::uniform28(any::<u64>()), 9 => near]
}

/// What the host has in memory: some records.
fn any_records() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(any_parameters(), 1..5).prop_map(|records| records.concat())
}

fn any_outcome() -> impl Strategy<Value = Option<Forced>> {
    let engine = prop_oneof![Just(EngineName::Dma), Just(EngineName::Sa), Just(EngineName::Psp)];
    prop::option::weighted(
        0.2,
        (engine, 0..4usize, 0..9u8, any::<bool>()).prop_map(|(engine, skip, outcome, effect)| Forced {
            engine,
            skip,
            outcome,
            effect,
        }),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_command_completes_once(
        steps in prop::collection::vec((any_command(), any_records(), any_outcome()), 1..24),
        slots in 0..40usize,
        packet_slots in 0..40usize,
    ) {
        let (mut hardware, mut firmware) = boot(Hardware::new(packet_slots, slots));
        for (command, parameters, forced) in steps {
            hardware.parameters = parameters;
            hardware.forced = forced.into_iter().collect();
            let done = hardware.serve(&mut firmware, command);
            prop_assert_eq!(done.identifier, command.head.identifier());
        }
    }

    #[test]
    fn any_command_with_restarts_completes_once(
        steps in prop::collection::vec((any_command(), any_records(), 0..400usize), 1..24),
        slots in 0..12usize,
        packet_slots in 0..12usize,
    ) {
        let (mut hardware, mut firmware) = (Hardware::new(packet_slots, slots), Firmware::new());
        hardware.wakes_early = true;
        for (index, (command, parameters, crash)) in steps.into_iter().enumerate() {
            hardware.parameters = parameters;
            hardware.queue.push_back(command);
            hardware.crash_at = Some(hardware.accesses + crash);
            while !hardware.run(&mut firmware) {
                firmware = Firmware::new();
            }
            prop_assert_eq!(hardware.completions.len(), index + 1);
            hardware.assert_agrees(&firmware);
        }
    }
}
