//! The bus and typed accesses over it.

use cryptonic_regs::events::SlotState;
use cryptonic_regs::firmware::{
    CLOCK_HIGH, CLOCK_LOW, DMA_BYTES, DMA_COMMAND, DMA_HOST_HIGH, DMA_HOST_LOW, DMA_SCRATCH, DmaCommand,
    EngineStatus, Outcome, SA_GENERATION, SA_INDEX, SA_STATE, SCRATCH_ADDRESS,
};
use cryptonic_regs::{Register, Value};

/// Aligned 32-bit accesses in the address space of [`cryptonic_regs::firmware`].
pub trait Bus {
    /// Reads the register or scratch word at a byte address.
    fn read(&mut self, address: u32) -> u32;
    /// Writes the register or scratch word at a byte address.
    fn write(&mut self, address: u32, value: u32);
}

/// How an engine stands.
pub enum Engine {
    Busy,
    /// Idle; `None` for an outcome that the contract does not define.
    Done(Option<Outcome>),
}

pub fn get<T: Value>(bus: &mut impl Bus, register: Register<T>) -> T {
    T::of_bits(u64::from(bus.read(register.offset)))
}

pub fn set<T: Value>(bus: &mut impl Bus, register: Register<T>, value: T) {
    bus.write(register.offset, value.bits() as u32);
}

/// Writes both halves of a 64-bit value, the low one first.
pub fn set_wide(bus: &mut impl Bus, low: Register<u32>, high: Register<u32>, value: u64) {
    set(bus, low, value as u32);
    set(bus, high, (value >> 32) as u32);
}

pub fn engine(bus: &mut impl Bus, register: Register<EngineStatus>) -> Engine {
    let status = get(bus, register);
    if status.busy() { Engine::Busy } else { Engine::Done(Outcome::of_number(u32::from(status.outcome()))) }
}

/// Reads 64-bit words from an address on, each as two little-endian halves.
pub fn read_words(bus: &mut impl Bus, address: u32, words: &mut [u64]) {
    let mut at = address;
    for word in words {
        let low = u64::from(bus.read(at));
        let high = u64::from(bus.read(at.wrapping_add(4)));
        *word = high << 32 | low;
        at = at.wrapping_add(8);
    }
}

/// Writes 64-bit words to scratch memory from a byte offset on.
pub fn write_scratch(bus: &mut impl Bus, offset: u32, words: &[u64]) {
    let mut at = SCRATCH_ADDRESS.wrapping_add(offset);
    for &word in words {
        bus.write(at, word as u32);
        bus.write(at.wrapping_add(4), (word >> 32) as u32);
        at = at.wrapping_add(8);
    }
}

/// Starts the DMA engine.
pub fn transfer(bus: &mut impl Bus, host: u64, scratch: u32, bytes: u32, command: DmaCommand) {
    set_wide(bus, DMA_HOST_LOW, DMA_HOST_HIGH, host);
    set(bus, DMA_SCRATCH, scratch);
    set(bus, DMA_BYTES, bytes);
    set(bus, DMA_COMMAND, command);
}

/// The generation of a slot, which stays in [`SA_INDEX`].
pub fn generation(bus: &mut impl Bus, slot: u32) -> u32 {
    set(bus, SA_INDEX, slot);
    get(bus, SA_GENERATION)
}

/// The state of a slot, which stays in [`SA_INDEX`]; `None` for a number that the contract does not define.
pub fn slot_state(bus: &mut impl Bus, slot: u32) -> Option<SlotState> {
    set(bus, SA_INDEX, slot);
    SlotState::of_number(get(bus, SA_STATE))
}

/// Device time in picoseconds.
pub fn clock(bus: &mut impl Bus) -> u64 {
    let low = get(bus, CLOCK_LOW);
    let high = get(bus, CLOCK_HIGH);
    u64::from(high) << 32 | u64::from(low)
}
