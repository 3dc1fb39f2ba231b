//! The contract holds together: fields fill their words, registers do not overlap, numbers are unique.

use cryptonic_regs::rows::{Block, Enumeration, Field};
use cryptonic_regs::{Status, admin, bar0, completion, descriptor, doorbell, firmware, status};

fn width(fields: &[Field]) -> u32 {
    fields.iter().map(|field| u32::from(field.bits)).sum()
}

fn blocks() -> impl Iterator<Item = Block> {
    bar0::BLOCKS.iter().chain(firmware::BLOCKS).chain([&doorbell::DOORBELLS]).copied()
}

#[test]
fn fields_fill_their_registers() {
    for block in blocks() {
        for register in block.registers {
            assert_eq!(width(register.fields), u32::from(register.width_bits), "{}", register.name);
        }
    }
}

#[test]
fn registers_ascend_aligned_within_their_block() {
    for block in blocks() {
        let mut end = block.offset;
        for register in block.registers {
            assert!(register.offset >= end, "{} overlaps the register before it", register.name);
            assert_eq!(register.offset % u32::from(register.width_bits / 8), 0, "{}", register.name);
            end = register.offset + u32::from(register.width_bits / 8);
        }
        assert!(end <= block.offset + block.stride, "{} outgrows its stride", block.name);
    }
}

#[test]
fn blocks_of_bar0_do_not_overlap_and_fit() {
    let mut end = 0;
    for block in bar0::BLOCKS {
        assert!(block.offset >= end, "{}", block.name);
        let instances = if block.kind == bar0::QUEUE_PAIR.kind { bar0::QUEUE_PAIRS_MAX } else { 1 };
        end = block.offset + block.stride * instances;
    }
    assert!(end <= bar0::BAR0_BYTES);
    let table = bar0::BLOCK_TABLE_OFFSET + bar0::BLOCKS.len() as u32 * bar0::BLOCK_TABLE_ENTRY_BYTES;
    assert!(table <= bar0::IDENTITY.offset + bar0::IDENTITY.stride);
}

#[test]
fn status_counters_fit_behind_the_named_counters() {
    let last = bar0::STATUS_COUNTERS_OFFSET + status::STATUS_NUMBERS * 8;
    assert!(last <= bar0::COUNTERS.offset + bar0::COUNTERS.stride);
    assert!(Status::ALL.iter().all(|status| status.number() < status::STATUS_NUMBERS));
}

#[test]
fn enumerations_have_unique_numbers_and_names() {
    let unique = |row: Enumeration| {
        let mut numbers: Vec<_> = row.values.iter().map(|value| value.number).collect();
        let mut names: Vec<_> = row.values.iter().map(|value| value.name).collect();
        numbers.sort_unstable();
        numbers.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!((numbers.len(), names.len()), (row.values.len(), row.values.len()), "{}", row.name);
    };
    for row in [Status::ROW, admin::Opcode::ROW, admin::AdminStatus::ROW, descriptor::Security::ROW] {
        unique(row);
    }
}

#[test]
fn key_bytes_never_show_in_debug_text() {
    let key = descriptor::TransmitKeyDescriptor {
        key_0: descriptor::KeyWord::new().with_key(0x1122_3344_5566_7788),
        ..Default::default()
    };
    let text = format!("{key:?} {:x?}", admin::SecretWord::new().with_secret(0x99aa_bbcc_ddee_ff00));
    assert!(text.contains("secret"));
    for digits in ["11223344", "1234605616436508552", "99aabbcc", "11072869122414935808"] {
        assert!(!text.contains(digits), "{text}");
    }
}

#[test]
fn every_secret_word_is_marked() {
    let rows = [
        descriptor::TransmitKeyDescriptor::ROW,
        admin::SaParameters::ROW,
        admin::PspTestKeys::ROW,
        admin::PspAllocation::ROW,
    ];
    for word in rows.iter().flat_map(|row| row.words) {
        let named_secret = word.name.starts_with("key") || word.name == "salt";
        assert_eq!(word.fields.iter().any(|field| field.secret), named_secret, "{}", word.name);
    }
}

#[test]
fn records_keep_their_bits() {
    let words: [u64; 8] =
        core::array::from_fn(|index| 0x0123_4567_89ab_cdef_u64.rotate_left(index as u32 * 7));
    assert_eq!(completion::ReceiveCompletion::of_words(&words).to_words(), words);
}
