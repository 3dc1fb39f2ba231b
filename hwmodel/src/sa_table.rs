//! The SA table: slots in on-NIC memory, found by index and generation on transmit and by protocol, SPI and
//! destination on receive. Sequence numbers, windows and counters live here and are never evicted.
//!
//! A generation is taken from one 32-bit count for the whole table and never 0, so that a reference to a
//! deleted slot matches nothing until 2^32 installs have passed; a deletion besides waits for every packet
//! that still uses the slot.
//!
//! Beside the slots stands a table of the selectors of those inbound SAs that refuse packets in clear. It is small,
//! because all of it is compared at once.

use crate::Ticks;
use cryptonic_crypto::GcmKey;
use cryptonic_regs::admin::{Direction, LifetimeKind, Mode, SaParameters};
use cryptonic_regs::events::{EventCause, SlotState};
use cryptonic_wire::Plain;
use cryptonic_wire::ip::protocol;
use cryptonic_wire::outer::{Endpoints, OuterTemplate};
use cryptonic_wire::selector::Selector;
use cryptonic_wire::sequence::ReplayWindow;
use zeroize::Zeroize;

use crate::parameters::CapacityParameters;
use crate::sa_lifetime::{Causes, Lifetime};
use crate::sa_parameters::{Form, SECRET_WORDS, sa_of_parameters};

/// Index and generation of a slot.
pub type SlotName = (u32, u32);

/// How far the command is that installs an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// It may still be refused.
    Uncommitted,
    /// Its completion is on its way to the host.
    Committed,
}

/// One SA.
pub struct Sa {
    /// Generation of the slot.
    pub generation: u32,
    /// Direction.
    pub direction: Direction,
    /// Mode.
    pub mode: Mode,
    /// SPI.
    pub spi: u32,
    /// Host cookie.
    pub cookie: u32,
    /// Receive queue.
    pub receive_queue: u16,
    /// Receive scaling chooses the queue instead.
    pub receive_scaling: bool,
    /// In: it takes packets in UDP alone, and else packets over IP alone.
    pub in_udp: bool,
    /// What it does with its packets' octets.
    pub form: Form,
    /// Round keys and H powers.
    pub key: GcmKey,
    /// Out: the last sequence number used.
    pub sequence: u64,
    /// In: the highest sequence number accepted and the window behind it.
    pub window: ReplayWindow<Vec<u64>>,
    /// Out: the outer header of a tunnel; of BEET mode the addresses alone.
    pub outer: OuterTemplate,
    /// Out: the flow label of the outer header where it is to be copied and the inner packet has none.
    pub flow_label: u32,
    /// BEET mode: the inner addresses.
    pub inner: Endpoints,
    /// In: what may come out.
    pub selector: Option<Selector>,
    /// In: what may not come in in clear.
    pub clear_policy: Option<Selector>,
    /// In: the destination to match; `None` matches any.
    pub destination: Option<(u8, [u8; 16])>,
    /// Counters and limits.
    pub lifetime: Lifetime,
    /// The command that installs it is not complete, or its completion has not landed: no packet may use it yet.
    pub staged: Option<Staged>,
    /// It is being deleted: no packet may begin to use it.
    pub draining: bool,
    /// When the last packet that uses it leaves the last stage that does.
    pub busy_until: Ticks,
}

impl Sa {
    /// Last sequence number used (out) or highest accepted (in).
    pub fn last_sequence(&self) -> u64 {
        match self.direction {
            Direction::Out => self.sequence,
            Direction::In => self.window.top(),
        }
    }

    /// The state of its slot.
    pub fn state(&self) -> SlotState {
        let sticky = self.lifetime.sticky();
        // Below the highest sequence number an inbound SA may still take late packets.
        let ended = match self.direction {
            Direction::Out => Causes::END,
            Direction::In => Causes::END.without(Causes::NONE.with(EventCause::SequenceHard)),
        };
        if self.staged == Some(Staged::Uncommitted) {
            SlotState::Staged
        } else if self.draining {
            SlotState::Draining
        } else if sticky.meets(ended) {
            SlotState::Expired
        } else if sticky.meets(Causes::SOFT) {
            SlotState::Soft
        } else {
            SlotState::Armed
        }
    }

    fn usable(&self) -> bool {
        self.staged.is_none() && !self.draining
    }
}

impl Drop for Sa {
    fn drop(&mut self) {
        // The key wipes itself (see cryptonic-crypto); the salt is keying material too.
        if let Form::Esp(esp) = &mut self.form {
            esp.salt.zeroize();
        }
    }
}

/// Why an SA cannot be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// The slot is taken or of the other kind, there is no such slot, or the table of clear policies is full.
    WrongState,
    /// Another inbound SA has the same protocol, SPI and destination.
    Duplicate,
    /// A parameter is out of range: firmware let through what it must not.
    BadArgument,
}

/// The table.
pub struct SaTable {
    slots: Vec<Option<Box<Sa>>>,
    /// So many slots are count-based; those behind them are byte-based.
    packet_slots: u32,
    generation: u32,
    /// Slots that wait for the end of the command that installs them.
    staged: Vec<u32>,
    /// Slots with a sticky bit, 32 a word.
    sticky: Vec<u32>,
    /// Slots of inbound SAs by SPI, open addressing; `EMPTY` ends a probe.
    by_spi: Vec<u32>,
    /// Slots of inbound SAs that refuse packets in clear, each with what it refuses.
    clear_policies: Vec<(u32, Selector)>,
    clear_policies_max: usize,
    /// The longest IP packet that padding may make.
    padded_bytes_max: u64,
}

const EMPTY: u32 = u32::MAX;
/// Bytes of an Ethernet header without tags.
const ETHERNET_BYTES: u64 = 14;

impl SaTable {
    /// An empty table.
    pub fn new(capacity: &CapacityParameters) -> Self {
        let slots = capacity.sa_slots as usize;
        SaTable {
            slots: (0..slots).map(|_| None).collect(),
            packet_slots: capacity.sa_packet_slots() as u32,
            generation: 0,
            staged: Vec::new(),
            sticky: vec![0; slots.div_ceil(32)],
            by_spi: vec![EMPTY; (slots * 2).next_power_of_two()],
            clear_policies: Vec::new(),
            clear_policies_max: capacity.clear_policies as usize,
            padded_bytes_max: capacity.frame_bytes.saturating_sub(ETHERNET_BYTES),
        }
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The SA in a slot, if any, whatever its generation.
    pub fn slot(&self, index: u32) -> Option<&Sa> {
        self.slots.get(index as usize)?.as_deref()
    }

    /// The SA that `index` and `generation` name and that packets may use.
    #[inline]
    pub fn usable(&mut self, index: u32, generation: u32) -> Option<&mut Sa> {
        let sa = self.slots.get_mut(index as usize)?.as_deref_mut()?;
        (sa.generation == generation && sa.usable()).then_some(sa)
    }

    /// The inbound SA of an ESP packet, which may have come in UDP: one that matches the destination comes before one
    /// that takes any.
    #[inline]
    pub fn lookup(&mut self, spi: u32, in_udp: bool, plain: &Plain) -> Option<(u32, &mut Sa)> {
        let mask = self.by_spi.len() - 1;
        let mut position = hash(spi) & mask;
        let mut any = None;
        while let Some(&index) = self.by_spi.get(position) {
            if index == EMPTY {
                break;
            }
            if let Some(sa) = self.slots.get(index as usize).and_then(|slot| slot.as_deref())
                && sa.spi == spi
                && sa.in_udp == in_udp
                && sa.usable()
            {
                match sa.destination {
                    None => any = Some(index),
                    Some(destination) if destination == (plain.ip_version, plain.destination) => {
                        any = Some(index);
                        break;
                    }
                    Some(_) => {}
                }
            }
            position = (position + 1) & mask;
        }
        let index = any?;
        self.slots.get_mut(index as usize)?.as_deref_mut().map(|sa| (index, sa))
    }

    /// Whether an SA was due for a packet in clear.
    #[inline]
    pub fn refuses_clear(&self, plain: &Plain) -> bool {
        self.clear_policies.iter().any(|(slot, selector)| {
            may_be(selector, plain) && self.slot(*slot).is_some_and(|sa| sa.staged.is_none())
        })
    }

    /// Times begin anew, `by` later.
    pub fn begin_anew(&mut self, by: Ticks) {
        for sa in self.slots.iter_mut().flatten() {
            sa.busy_until = sa.busy_until.earlier_by(by);
        }
    }

    /// Puts an SA into a free slot, where it is staged, and gives its generation. `public` are its parameters but for the
    /// secret words.
    pub fn install(
        &mut self,
        index: u32,
        public: &SaParameters,
        secret: &[u64; SECRET_WORDS],
        now_picoseconds: u64,
    ) -> Result<u32, InstallError> {
        if u64::from(public.options.tfc_bytes()) > self.padded_bytes_max {
            return Err(InstallError::BadArgument);
        }
        let mut sa = sa_of_parameters(public, secret).ok_or(InstallError::BadArgument)?;
        let kind = if index < self.packet_slots { LifetimeKind::Packets } else { LifetimeKind::Bytes };
        let fits = sa.lifetime.kind == kind || sa.lifetime.unlimited();
        if !fits || !matches!(self.slots.get(index as usize), Some(None)) {
            return Err(InstallError::WrongState);
        }
        sa.lifetime.kind = kind;
        sa.lifetime.installed_picoseconds = now_picoseconds;
        if sa.direction == Direction::In && self.has_inbound(sa.spi, sa.destination) {
            return Err(InstallError::Duplicate);
        }
        let generation = self.generation.checked_add(1).ok_or(InstallError::WrongState)?;
        if let Some(selector) = sa.clear_policy {
            if self.clear_policies.len() >= self.clear_policies_max {
                return Err(InstallError::WrongState);
            }
            self.clear_policies.push((index, selector));
        }
        sa.generation = generation;
        sa.staged = Some(Staged::Uncommitted);
        self.generation = generation;
        self.staged.push(index);
        let inbound = sa.direction == Direction::In;
        let spi = sa.spi;
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = Some(Box::new(sa));
        }
        if inbound {
            self.enter(spi, index);
        }
        Ok(generation)
    }

    /// The command that installed the staged slots is complete: they are for the host, which learns of them with the
    /// completion. Until that has landed ([`SaTable::settle`]) no packet uses them.
    pub fn commit_staged(&mut self) -> Box<[SlotName]> {
        let staged = std::mem::take(&mut self.staged);
        let mut commit = |index: u32| {
            let sa = self.slots.get_mut(index as usize)?.as_deref_mut()?;
            sa.staged = Some(Staged::Committed);
            Some((index, sa.generation))
        };
        staged.into_iter().filter_map(&mut commit).collect()
    }

    /// A completion has landed in host memory, and packets may use what it installed; or it never will, and nobody learns
    /// of these slots.
    pub fn settle(&mut self, committed: &[SlotName], landed: bool) {
        for (index, generation) in committed.iter().copied() {
            let Some(sa) = self.slots.get_mut(index as usize).and_then(Option::as_deref_mut) else {
                continue;
            };
            if sa.generation != generation || sa.staged != Some(Staged::Committed) {
                continue;
            }
            if landed {
                sa.staged = None;
            } else {
                self.remove(index);
            }
        }
    }

    /// Nobody will learn of the staged slots: they are emptied.
    pub fn remove_staged(&mut self) {
        for index in std::mem::take(&mut self.staged) {
            self.remove(index);
        }
    }

    /// Lets no further packet use the slot, and says when the last one is done with it.
    pub fn drain(&mut self, index: u32) -> Option<Ticks> {
        let sa = self.slots.get_mut(index as usize)?.as_deref_mut()?;
        sa.draining = true;
        Some(sa.busy_until)
    }

    /// Arms a soft limit anew. `None`: the slot is empty; else whether the limit could be taken, and packets still pass.
    pub fn arm(&mut self, index: u32, soft: u64) -> Option<bool> {
        let sa = self.slots.get_mut(index as usize)?.as_deref_mut().filter(|sa| sa.usable())?;
        let armed = sa.state() != SlotState::Expired && sa.lifetime.arm(soft);
        if sa.lifetime.sticky().is_empty() {
            self.clear_sticky(index);
        }
        Some(armed)
    }

    /// A slot has a sticky bit.
    pub fn mark_sticky(&mut self, index: u32) {
        if let Some(word) = self.sticky.get_mut(index as usize / 32) {
            *word |= 1 << (index % 32);
        }
    }

    /// A word of the bitmap of slots with a sticky bit.
    pub fn sticky_word(&self, word: u32) -> u32 {
        self.sticky.get(word as usize).copied().unwrap_or(0)
    }

    /// Whether any slot has a sticky bit.
    pub fn any_sticky(&self) -> bool {
        self.sticky.iter().any(|word| *word != 0)
    }

    /// Empties a slot; its key is wiped as it is dropped.
    pub fn remove(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = None;
        }
        self.clear_policies.retain(|(slot, _)| *slot != index);
        self.staged.retain(|slot| *slot != index);
        self.clear_sticky(index);
        self.rebuild();
    }

    /// Empties every slot. Generations go on: a reference from before matches nothing.
    pub fn reset(&mut self) {
        self.slots.iter_mut().for_each(|slot| *slot = None);
        self.clear_policies.clear();
        self.staged.clear();
        self.sticky.fill(0);
        self.rebuild();
    }

    fn clear_sticky(&mut self, index: u32) {
        if let Some(word) = self.sticky.get_mut(index as usize / 32) {
            *word &= !(1 << (index % 32));
        }
    }

    fn has_inbound(&self, spi: u32, destination: Option<(u8, [u8; 16])>) -> bool {
        self.slots
            .iter()
            .flatten()
            .any(|sa| sa.direction == Direction::In && sa.spi == spi && sa.destination == destination)
    }

    fn enter(&mut self, spi: u32, index: u32) {
        let mask = self.by_spi.len() - 1;
        let mut position = hash(spi) & mask;
        while self.by_spi[position] != EMPTY {
            position = (position + 1) & mask;
        }
        self.by_spi[position] = index;
    }

    fn rebuild(&mut self) {
        self.by_spi.fill(EMPTY);
        for index in 0..self.slots.len() {
            if let Some(spi) =
                self.slots[index].as_ref().filter(|sa| sa.direction == Direction::In).map(|sa| sa.spi)
            {
                self.enter(spi, index as u32);
            }
        }
    }
}

/// Multiplicative hashing by the golden ratio: SPIs are often consecutive.
fn hash(spi: u32) -> usize {
    (spi.wrapping_mul(0x9e37_79b9) >> 7) as usize
}

/// Whether a packet matches, or cannot be said not to: a fragment may hide its upper protocol behind extension headers that
/// are in other fragments.
#[inline]
fn may_be(selector: &Selector, plain: &Plain) -> bool {
    let hidden = plain.fragment
        && matches!(
            plain.next_header,
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT | protocol::DESTINATION_OPTIONS
        );
    selector.matches(plain) || hidden && Selector { protocol: None, ..*selector }.matches(plain)
}
