//! `psp_kdf`: the derivation of PSP keys from the two device keys.
//!
//! The unit is a pipelined AES-256, [`BlocksPerCycle`] wide: one block for a 128-bit key and two for a 256-bit one
//! (SP 800-108 in counter mode over AES-256-CMAC of one block). It never stalls inside: a request may enter only
//! while the result FIFO has a place for its result.
//!
//! ```text
//!              credit for a result?       LATENCY_CYCLES         result FIFO, `results` deep
//!   requests ──▶ ready ────────▶ entry ──▶ AES-256 ──────────▶ ┌──┬──┬──┬──┐ ──▶ valid / ready
//!                                            ▲                 └──┴──┴──┴──┘
//!   loads ─────▶ ready ──▶ key expansion ────┘ two device keys
//! ```
//!
//! Whether a request has its device key is settled in the cycle in which it is taken:
//! * A load taken in cycle `c` makes its key invalid from `c + 1` on and the new one valid from
//!   `c + LOAD_CYCLES` on. Requests taken before keep the old key to their end.
//! * A clear in cycle `c` leaves no key from `c + 1` on, and what was not taken by then becomes a missing
//!   key, at the output too. Nothing is ready for [`clear_cycles`] behind it, while all is zeroised.
//!
//! It has two faces. [`derive()`] with [`KeyTiming`] and [`PspKdfTiming`] is a key at a time. [`PspKdfShell`] is the same
//! unit a cycle at a time: what RTL is held to. A property test holds the two together.

use std::collections::VecDeque;
use std::fmt;

use cryptonic_crypto::DeviceKey;
use cryptonic_wire::psp::{Version, key_length};
use zeroize::Zeroizing;

/// Cycles from the entry of a request's last block to its result: entry register, first key, fourteen rounds
/// of two cycles, result FIFO.
pub const LATENCY_CYCLES: u64 = 31;

/// Cycles from a load to its valid device key: fifteen round keys, one every second cycle, then AES(0) for the subkey.
pub const LOAD_CYCLES: u64 = 63;

/// The cycles behind a load in which no request is ready: the subkey's block takes the entry, and a 256-bit key's
/// second block leaves it before.
const SUBKEY_CYCLES: [u64; 2] = [31, 32];

/// Cycles of one step of AES's key expansion: a look-up in the S-box, then four words.
pub const EXPANSION_STEP_CYCLES: u64 = 2;

/// Cycles behind a clear in which nothing is ready: the results' memory becomes zero place by place, and what was
/// under way leaves the pipeline.
pub const fn clear_cycles(results: u64) -> u64 {
    if results > 32 { results } else { 32 }
}

/// Width of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlocksPerCycle {
    /// A 256-bit key takes two cycles.
    One,
    /// A 256-bit key takes one cycle, as a 128-bit one does.
    Two,
}

impl BlocksPerCycle {
    /// Cycles for which a key takes the entry.
    #[inline]
    pub const fn entry_cycles(self, version: Version) -> u64 {
        match self {
            BlocksPerCycle::One => key_length(version) as u64 / 16,
            BlocksPerCycle::Two => 1,
        }
    }
}

/// The function of the unit: writes the key of (`version`, `spi`) into `out`, zeros behind a 128-bit one, and gives its
/// length in bytes; `None` if the device key that the SPI's first bit names is not valid.
#[inline]
pub fn derive(
    device_keys: &[Option<DeviceKey>; 2],
    version: Version,
    spi: u32,
    out: &mut [u8; 32],
) -> Option<usize> {
    let device_key = device_keys[(spi >> 31) as usize].as_ref()?;
    Some(device_key.derive(version, spi, out))
}

/// The closed form of the device keys' timing, in cycles: loads and clears, in their order.
#[derive(Clone, Debug, Default)]
pub struct KeyTiming {
    idle_at: u64,
    /// First and last cycle of spans in which no request is ready, in order.
    closed: Vec<(u64, u64)>,
}

impl KeyTiming {
    /// A load that is offered from `cycle` on. Gives the cycle in which it is taken; its key is valid
    /// [`LOAD_CYCLES`] later.
    pub fn load(&mut self, cycle: u64) -> u64 {
        let taken = cycle.max(self.idle_at);
        self.idle_at = taken + LOAD_CYCLES;
        self.closed.push((taken + SUBKEY_CYCLES[0], taken + SUBKEY_CYCLES[1]));
        taken
    }

    /// A clear in this cycle, of a unit with `results` places: a load that is under way is over.
    pub fn clear(&mut self, cycle: u64, results: u64) {
        if let Some((first, last)) = self.closed.last_mut() {
            *last = cycle.min(*last);
            if last < first {
                self.closed.pop();
            }
        }
        let last = cycle + clear_cycles(results);
        self.closed.push((cycle + 1, last));
        self.idle_at = last + 1;
    }

    /// The first cycle from `cycle` on that is not closed.
    #[inline]
    fn open(&self, mut cycle: u64) -> u64 {
        for &(first, last) in &self.closed {
            if (first..=last).contains(&cycle) {
                cycle = last + 1;
            }
        }
        cycle
    }
}

/// The closed form of the requests' timing, in cycles.
#[derive(Clone, Debug)]
pub struct PspKdfTiming {
    blocks_per_cycle: BlocksPerCycle,
    next_entry: u64,
    results: usize,
    /// Cycles in which results that still count against the FIFO are taken; a place taken in cycle `c` may be
    /// used again in cycle `c + 1`.
    taken: VecDeque<u64>,
}

/// When a request passes the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The cycle in which it is taken.
    pub entry: u64,
    /// The first cycle in which its result may stand at the output.
    pub result: u64,
}

impl PspKdfTiming {
    /// An idle unit with a FIFO for this many results.
    pub fn new(results: u64, blocks_per_cycle: BlocksPerCycle) -> Self {
        PspKdfTiming { blocks_per_cycle, next_entry: 0, results: results as usize, taken: VecDeque::new() }
    }

    /// Lets a request pass that is offered from `cycle` on. [`Self::take`] must follow before the next one.
    #[inline]
    pub fn pass(&mut self, cycle: u64, version: Version, keys: &KeyTiming) -> Passage {
        let mut entry = cycle.max(self.next_entry);
        if self.taken.len() == self.results
            && let Some(taken) = self.taken.pop_front()
        {
            entry = entry.max(taken + 1);
        }
        let entry = keys.open(entry);
        let cycles = self.blocks_per_cycle.entry_cycles(version);
        self.next_entry = entry + cycles;
        Passage { entry, result: entry + cycles - 1 + LATENCY_CYCLES }
    }

    /// Says in which cycle the result of the last request is taken.
    #[inline]
    pub fn take(&mut self, cycle: u64) {
        self.taken.push_back(cycle);
    }
}

/// A key that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The SPI; its first bit names the device key.
    pub spi: u32,
    /// The PSP version.
    pub version: Version,
    /// Comes back with the result.
    pub tag: u8,
}

/// A device key to be loaded.
#[derive(Clone)]
pub struct Load {
    /// Which of the two: the SPI's first bit.
    pub index: bool,
    /// The AES-256 key.
    pub key: Zeroizing<[u8; 32]>,
}

/// A result: the key, with zeros behind a 128-bit one, or that its device key is missing.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyResult {
    /// That of the request.
    pub tag: u8,
    /// `None`: device_key_missing.
    pub key: Option<Zeroizing<[u8; 32]>>,
}

impl fmt::Debug for KeyResult {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map(|_| "(secret)");
        formatter.debug_struct("KeyResult").field("tag", &self.tag).field("key", &key).finish()
    }
}

/// What is offered to the unit in a cycle.
#[derive(Clone, Copy, Default)]
pub struct Inputs<'a> {
    /// All device keys are to be zeroised.
    pub clear: bool,
    /// A device key, taken if the unit shows that it is ready.
    pub load: Option<&'a Load>,
    /// A request, taken if the unit shows that it is ready.
    pub request: Option<&'a Request>,
    /// The result that is shown, if any, is taken.
    pub result_ready: bool,
}

/// What the unit shows in a cycle. It depends only on registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// It takes a load.
    pub load_ready: bool,
    /// Which device keys are valid.
    pub device_key_valid: [bool; 2],
    /// It takes a request.
    pub request_ready: bool,
    /// The result at the output, if any.
    pub result: Option<KeyResult>,
    /// No request, load or clear is under way.
    pub drained: bool,
}

/// The unit a cycle at a time.
pub struct PspKdfShell {
    blocks_per_cycle: BlocksPerCycle,
    results: usize,
    cycle: u64,
    device_keys: [Option<DeviceKey>; 2],
    /// A load that is under way, with the cycle in which it was taken.
    loading: Option<(u64, bool, DeviceKey)>,
    /// The cycle in which a clear is over.
    clear_until: u64,
    /// The cycle from which on the entry register is free.
    entry_free: u64,
    /// Results in their order, each with the cycle in which it may be shown first.
    pending: VecDeque<(u64, KeyResult)>,
}

impl PspKdfShell {
    /// The unit after reset: no device key is valid.
    pub fn new(results: u64, blocks_per_cycle: BlocksPerCycle) -> Self {
        PspKdfShell {
            blocks_per_cycle,
            results: results as usize,
            cycle: 0,
            device_keys: [None, None],
            loading: None,
            clear_until: 0,
            entry_free: 0,
            pending: VecDeque::new(),
        }
    }

    /// One clock cycle.
    pub fn step(&mut self, inputs: Inputs<'_>) -> Outputs {
        let outputs = self.outputs();
        if inputs.result_ready && outputs.result.is_some() {
            self.pending.pop_front();
        }
        if outputs.request_ready
            && let Some(request) = inputs.request
        {
            self.enter(request);
        }
        if outputs.load_ready
            && let Some(load) = inputs.load
        {
            self.device_keys[usize::from(load.index)] = None;
            self.loading = Some((self.cycle, load.index, DeviceKey::new(&load.key)));
        }
        if inputs.clear {
            self.clear();
        }
        self.cycle += 1;
        if let Some((_, index, key)) = self.loading.take_if(|(taken, ..)| *taken + LOAD_CYCLES == self.cycle)
        {
            self.device_keys[usize::from(index)] = Some(key);
        }
        outputs
    }

    /// Whether nothing is inside: no request, load or clear.
    pub fn drained(&self) -> bool {
        self.pending.is_empty() && self.loading.is_none() && self.cycle >= self.clear_until
    }

    fn outputs(&self) -> Outputs {
        let clearing = self.cycle < self.clear_until;
        let subkey =
            self.loading.as_ref().is_some_and(|(taken, ..)| SUBKEY_CYCLES.contains(&(self.cycle - taken)));
        Outputs {
            load_ready: self.loading.is_none() && !clearing,
            device_key_valid: [self.device_keys[0].is_some(), self.device_keys[1].is_some()],
            request_ready: !clearing
                && !subkey
                && self.cycle >= self.entry_free
                && self.pending.len() < self.results,
            result: self
                .pending
                .front()
                .filter(|(shown, _)| *shown <= self.cycle)
                .map(|(_, result)| result.clone()),
            drained: self.drained(),
        }
    }

    fn enter(&mut self, request: &Request) {
        let mut key = Zeroizing::new([0; 32]);
        let length = derive(&self.device_keys, request.version, request.spi, &mut key);
        let result = KeyResult { tag: request.tag, key: length.map(|_| key) };
        self.entry_free = self.cycle + self.blocks_per_cycle.entry_cycles(request.version);
        self.pending.push_back((self.entry_free - 1 + LATENCY_CYCLES, result));
    }

    fn clear(&mut self) {
        self.device_keys = [None, None];
        self.loading = None;
        self.clear_until = self.cycle + clear_cycles(self.results as u64) + 1;
        for (_, result) in &mut self.pending {
            result.key = None;
        }
    }
}
