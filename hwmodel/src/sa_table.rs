//! The SA table: slots in on-NIC memory, found by index and generation on transmit and by protocol, SPI and
//! destination on receive. Sequence numbers, windows and counters live here and are never evicted.
//!
//! A generation is taken from one 32-bit count for the whole table and never 0, so that a reference to a
//! deleted slot matches nothing until 2^32 installs have passed; a deletion besides waits for every packet
//! that still uses the slot.

use cryptonic_crypto::{Cipher, GcmKey};
use cryptonic_pci::Time;
use cryptonic_regs::admin::{self, Direction, Mode, SaParameters};
use cryptonic_wire::aead::IcvLength;
use cryptonic_wire::esp;
use cryptonic_wire::outer::{DontFragment, Dscp, Ecn, Endpoints, FlowLabel, OuterTemplate, Ttl};
use cryptonic_wire::sequence::{ReplayWindow, ring_blocks};
use zeroize::{Zeroize, Zeroizing};

/// One SA.
pub struct Sa {
    /// Generation of the slot.
    pub generation: u32,
    /// Direction.
    pub direction: Direction,
    /// Mode.
    pub mode: Mode,
    /// Host cookie.
    pub cookie: u32,
    /// Receive queue.
    pub receive_queue: u16,
    /// Receive scaling chooses the queue instead.
    pub receive_scaling: bool,
    /// SPI, salt, ESN, ICV length.
    pub esp: esp::Parameters,
    /// Round keys and H powers.
    pub key: GcmKey,
    /// Out: the last sequence number used.
    pub sequence: u64,
    /// In: the highest sequence number accepted and the window behind it.
    pub window: ReplayWindow<Vec<u64>>,
    /// Out: the outer header of a tunnel.
    pub outer: OuterTemplate,
    /// In: the destination to match; `None` matches any.
    pub destination: Option<(u8, [u8; 16])>,
    /// Packets protected or opened.
    pub packets: u64,
    /// Bytes of IP packets in clear.
    pub bytes: u64,
    /// No packet may begin to use it.
    pub invalid: bool,
    /// When the last packet that uses it leaves the last stage that does.
    pub busy_until: Time,
}

impl Drop for Sa {
    fn drop(&mut self) {
        // The key wipes itself (see cryptonic-crypto); the salt is keying material too.
        self.esp.salt.zeroize();
    }
}

/// Why an SA cannot be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// The slot is taken or there is no such slot.
    WrongState,
    /// Another inbound SA has the same protocol, SPI and destination.
    Duplicate,
    /// A parameter is out of range: firmware let through what it must not.
    BadArgument,
}

/// The table.
pub struct SaTable {
    slots: Vec<Option<Box<Sa>>>,
    generation: u32,
    /// Slots of inbound SAs by SPI, open addressing; `EMPTY` ends a probe.
    by_spi: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

impl SaTable {
    /// An empty table.
    pub fn new(slots: usize) -> Self {
        SaTable {
            slots: (0..slots).map(|_| None).collect(),
            generation: 0,
            by_spi: vec![EMPTY; (slots * 2).next_power_of_two()],
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
        (sa.generation == generation && !sa.invalid).then_some(sa)
    }

    /// The inbound SA of a packet: one that matches the destination comes before one that takes any.
    #[inline]
    pub fn lookup(&mut self, spi: u32, ip_version: u8, destination: &[u8; 16]) -> Option<(u32, &mut Sa)> {
        let mask = self.by_spi.len() - 1;
        let mut position = hash(spi) & mask;
        let mut any = None;
        while let Some(&index) = self.by_spi.get(position) {
            if index == EMPTY {
                break;
            }
            if let Some(sa) = self.slots.get(index as usize).and_then(|slot| slot.as_deref())
                && sa.esp.spi == spi
                && !sa.invalid
            {
                match sa.destination {
                    None => any = Some(index),
                    Some((version, address)) if version == ip_version && address == *destination => {
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

    /// Puts an SA into a free slot and gives its generation.
    pub fn install(&mut self, index: u32, parameters: &SaParameters) -> Result<u32, InstallError> {
        let mut sa = sa_of_parameters(parameters).ok_or(InstallError::BadArgument)?;
        if !matches!(self.slots.get(index as usize), Some(None)) {
            return Err(InstallError::WrongState);
        }
        if sa.direction == Direction::In && self.has_inbound(sa.esp.spi, sa.destination) {
            return Err(InstallError::Duplicate);
        }
        self.generation = self.generation.checked_add(1).ok_or(InstallError::WrongState)?;
        sa.generation = self.generation;
        let inbound = sa.direction == Direction::In;
        let spi = sa.esp.spi;
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = Some(Box::new(sa));
        }
        if inbound {
            self.enter(spi, index);
        }
        Ok(self.generation)
    }

    /// Lets no further packet use the slot, and says when the last one is done with it.
    pub fn invalidate(&mut self, index: u32) -> Option<Time> {
        let sa = self.slots.get_mut(index as usize)?.as_deref_mut()?;
        sa.invalid = true;
        Some(sa.busy_until)
    }

    /// Empties a slot; its key is wiped as it is dropped.
    pub fn remove(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = None;
        }
        self.rebuild();
    }

    /// Empties every slot. Generations go on: a reference from before matches nothing.
    pub fn reset(&mut self) {
        self.slots.iter_mut().for_each(|slot| *slot = None);
        self.rebuild();
    }

    fn has_inbound(&self, spi: u32, destination: Option<(u8, [u8; 16])>) -> bool {
        self.slots
            .iter()
            .flatten()
            .any(|sa| sa.direction == Direction::In && sa.esp.spi == spi && sa.destination == destination)
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
                self.slots[index].as_ref().filter(|sa| sa.direction == Direction::In).map(|sa| sa.esp.spi)
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

/// Makes an SA of its parameters. `None` where a field is out of range.
fn sa_of_parameters(parameters: &SaParameters) -> Option<Sa> {
    let form = parameters.form;
    let cipher = match admin::Cipher::of_number(u32::from(form.cipher()))? {
        admin::Cipher::AesGcm128 => Cipher::AesGcm128,
        admin::Cipher::AesGcm192 => Cipher::AesGcm192,
        admin::Cipher::AesGcm256 => Cipher::AesGcm256,
        _ => return None,
    };
    let direction = Direction::of_number(u32::from(form.direction()))?;
    let mut key = Zeroizing::new([0_u8; 32]);
    let words = [parameters.key_0, parameters.key_1, parameters.key_2, parameters.key_3];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.secret().to_le_bytes());
    }
    let salt = parameters.salt.secret().to_le_bytes();
    // Firmware never sees these words, so they are checked here: what is not key or salt is zero.
    if key[cipher.key_length()..].iter().chain(&salt[4..]).any(|byte| *byte != 0)
        || parameters.reserved_1 != 0
    {
        return None;
    }
    let window = parameters.window.replay_window();
    let replay = ReplayWindow::new(window, parameters.sequence, vec![0; ring_blocks(window)]).ok()?;
    let destination = address(parameters.destination_0, parameters.destination_1);
    Some(Sa {
        generation: 0,
        direction,
        mode: Mode::of_number(u32::from(form.mode()))?,
        cookie: parameters.names.cookie(),
        receive_queue: form.receive_queue(),
        receive_scaling: form.receive_scaling(),
        esp: esp::Parameters {
            extended_sequence: form.esn(),
            icv_length: IcvLength::from_octets(usize::from(form.icv_bytes()))?,
            ..esp::Parameters::new(parameters.names.spi(), [salt[0], salt[1], salt[2], salt[3]])
        },
        key: GcmKey::new(cipher, &key[..cipher.key_length()]).ok()?,
        sequence: parameters.sequence,
        window: replay,
        outer: outer_of_parameters(parameters)?,
        destination: form
            .match_destination()
            .then_some((if form.destination_ipv6() { 6 } else { 4 }, destination)),
        packets: 0,
        bytes: 0,
        invalid: false,
        busy_until: Time::ZERO,
    })
}

fn outer_of_parameters(parameters: &SaParameters) -> Option<OuterTemplate> {
    let form = parameters.form;
    let source = address(parameters.tunnel_source_0, parameters.tunnel_source_1);
    let destination = address(parameters.tunnel_destination_0, parameters.tunnel_destination_1);
    let last_four = |address: [u8; 16]| [address[12], address[13], address[14], address[15]];
    Some(OuterTemplate {
        endpoints: if form.outer_ipv6() {
            Endpoints::V6 { source, destination }
        } else {
            Endpoints::V4 { source: last_four(source), destination: last_four(destination) }
        },
        ttl: Ttl::Value(form.ttl()),
        dscp: if form.copy_dscp() { Dscp::Copy } else { Dscp::Value(form.dscp()) },
        ecn: Ecn::Copy,
        dont_fragment: match admin::DfPolicy::of_number(u32::from(form.df()))? {
            admin::DfPolicy::Copy => DontFragment::Copy,
            admin::DfPolicy::Set => DontFragment::Set,
            admin::DfPolicy::Clear => DontFragment::Clear,
        },
        flow_label: FlowLabel::Value(parameters.window.flow_label()),
    })
}

fn address(low: u64, high: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&high.to_le_bytes());
    bytes
}
