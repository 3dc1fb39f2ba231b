//! Any command: no panic, one completion, a defined status (the hardware checks each).

use cryptonic_fw::Firmware;
use cryptonic_regs::admin::{Command, Opcode, SaParameters};
use proptest::prelude::*;

use crate::hardware::{EngineName, Forced, Hardware, booted, command, inbound, outbound};

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
    let near = (any::<bool>(), 0..SaParameters::PUBLIC_WORDS, 0..64u32, any::<bool>(), 256..300u32);
    prop_oneof![
        prop::array::uniform24(any::<u64>()),
        near.prop_map(|(out, index, bit, flip, spi)| {
            let mut words = if out { outbound(spi) } else { inbound(spi) }.to_words();
            words[index] ^= u64::from(flip) << bit;
            words
        }),
    ]
}

fn any_outcome() -> impl Strategy<Value = Option<Forced>> {
    let engine = prop_oneof![Just(EngineName::Dma), Just(EngineName::Sa), Just(EngineName::Psp)];
    prop::option::weighted(
        0.2,
        (engine, 0..9u8, any::<bool>()).prop_map(|(engine, outcome, effect)| Forced {
            engine,
            outcome,
            effect,
        }),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_command_completes_once(
        steps in prop::collection::vec((any_command(), any_parameters(), any_outcome()), 1..24),
        slots in 0..40usize,
    ) {
        let (mut hardware, mut firmware) = booted(slots);
        for (command, parameters, forced) in steps {
            hardware.parameters = parameters;
            hardware.forced = forced.into_iter().collect();
            let done = hardware.serve(&mut firmware, command);
            prop_assert_eq!(done.identifier, command.head.identifier());
        }
    }

    #[test]
    fn any_command_with_restarts_completes_once(
        steps in prop::collection::vec((any_command(), any_parameters(), 0..120usize), 1..24),
        slots in 0..12usize,
    ) {
        let (mut hardware, mut firmware) = (Hardware::new(slots), Firmware::new());
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
