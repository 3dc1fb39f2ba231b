//! `rx_geometry`: with what the receive parser has found and what the SA says, where the cipher works.
//!
//! The unit takes one request a cycle and gives one answer for each, [`LATENCY_CYCLES`] later: the verdict, or the 64-bit
//! sequence number, the IV, and the ranges of AAD, text and ICV. It does not see the packet. Sequence number and IV come
//! with the parser's result, as the sixteen octets from [`Request::numbers_offset`] on. It never stalls inside: a request
//! enters only while the result FIFO has a place for its answer.
//!
//! ```text
//!   security_offset                numbers_offset                                          l3_end
//!   │◄──── header_octets ────►│◄── sequence, IV ──►│◄── crypt offset ──►│                    │
//!   ▼                         ▼                    ▼                    ▼                    ▼
//!   ┌─────────────────────────┬────────────────────┬────────────────────┬────────────┬───────┐
//!   │ header                  │ numbers            │ clear payload      │ text       │ ICV   │   EESP; the others differ in
//!   └─────────────────────────┴────────────────────┴────────────────────┴────────────┴───────┘   what is in header_octets
//!   └───────────────────────────── AAD ────────────────────────────────┘
//! ```
//! What a packet says wrongly is found in the order in which `cryptonic_wire`'s functions find it, which read the frame:
//! a test holds the two together.
//!
//! It has two faces. [`answer`] with [`RxGeometryTiming`] is what the NIC uses; [`RxGeometryShell`] is the same unit a
//! cycle at a time, with valid and ready: what RTL is held to.

use std::collections::VecDeque;

use cryptonic_regs::Status;
use cryptonic_wire::eesp::{self, Numbering};
use cryptonic_wire::esp::{self, Cipher};
use cryptonic_wire::sequence;
use cryptonic_wire::{Aad, Geometry, IcvLength, Parsed, Protocol, Span, psp, wespv2};

pub use crate::rx_parse::NUMBERS_OCTETS;

/// Cycles from a request to its answer: request register, the header's end and the distance of the sequence number, the
/// payload and the high half, the text, comparisons, verdict, FIFO.
pub const LATENCY_CYCLES: u64 = 7;

/// What the unit says: the ranges, or the verdict that there are none.
pub type Answer = Result<Ranges, Status>;

/// What the unit is asked: what the parser says of a packet, and its SA. Offsets count from the frame's first octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// [`Parsed::protocol`].
    pub protocol: Protocol,
    /// [`Parsed::security_offset`], below 2^14.
    pub security_offset: u16,
    /// [`Parsed::numbers_offset`], below 2^14.
    pub numbers_offset: u16,
    /// [`Parsed::header_octets`], below 2^12.
    pub header_octets: u16,
    /// [`Parsed::crypt_offset`], below 64.
    pub crypt_offset: u8,
    /// [`Parsed::payload_offset`], below 64.
    pub payload_offset: Option<u8>,
    /// [`Parsed::session_id`].
    pub session_id: u16,
    /// [`Parsed::psp_flags`].
    pub psp_flags: u8,
    /// One past the IP packet's last octet, below 2^14.
    pub l3_end: u16,
    /// The octets of the frame from `numbers_offset` on.
    pub numbers: [u8; NUMBERS_OCTETS],
    /// What the SA says.
    pub sa: Sa,
}

/// What an SA says of where the cipher works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sa {
    /// ESP.
    Esp {
        /// What is done to the octets.
        cipher: Cipher,
        /// Length of the ICV.
        icv_length: IcvLength,
        /// Where sequence numbers have 64 bits: what the high half is inferred from.
        extended_sequence: Option<Window>,
    },
    /// PSP. All that decides stands in the packet.
    Psp,
    /// WESPv2, which has no extended sequence numbers (see [`wespv2`]).
    Wespv2 {
        /// What is done to the octets.
        cipher: Cipher,
        /// Length of the ICV.
        icv_length: IcvLength,
    },
    /// EESP.
    Eesp {
        /// Sequence number and IV.
        numbering: Numbering,
        /// Whether there is a payload info header.
        format: EespFormat,
        /// Length of the ICV.
        icv_length: IcvLength,
        /// The last sub SA's ID, where session IDs are those of sub SAs.
        last_sub_sa: Option<u16>,
    },
}

/// How the payload of an EESP SA's packets begins, as far as it matters on receipt: [`eesp::Format`] without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EespFormat {
    /// With an IP header.
    Optimized,
    /// With a payload info header.
    Full,
    /// With a payload info header, and a crypt offset option is allowed.
    FullWithCryptOffset,
}

impl From<eesp::Format> for EespFormat {
    fn from(format: eesp::Format) -> Self {
        match format {
            eesp::Format::Optimized => Self::Optimized,
            eesp::Format::Full => Self::Full,
            eesp::Format::FullWithCryptOffset { .. } => Self::FullWithCryptOffset,
        }
    }
}

/// A replay window, from which the high half of a sequence number is inferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The highest number that was authenticated.
    pub top: u64,
    /// The window's size in packets; 0 where it is off. Half of all numbers then count as behind the top and half as ahead
    /// (RFC 4303, A2.1), as they do for a size above 2^31.
    pub size: u32,
}

impl Sa {
    /// The SA of ESP with these parameters and this window.
    #[inline]
    pub fn esp(parameters: &esp::Parameters, window: Window) -> Self {
        Self::Esp {
            cipher: parameters.cipher,
            icv_length: parameters.icv_length,
            extended_sequence: parameters.extended_sequence.then_some(window),
        }
    }

    /// The SA of WESPv2 with these parameters.
    #[inline]
    pub fn wespv2(parameters: &wespv2::Parameters) -> Self {
        let esp = parameters.esp();
        Self::Wespv2 { cipher: esp.cipher, icv_length: esp.icv_length }
    }

    /// The SA of EESP with these parameters.
    #[inline]
    pub fn eesp(parameters: &eesp::Parameters) -> Self {
        Self::Eesp {
            numbering: parameters.numbering,
            format: parameters.format.into(),
            icv_length: parameters.icv_length,
            last_sub_sa: parameters.last_sub_sa,
        }
    }
}

impl Request {
    /// What is asked of a packet that the parser has found in `frame`, which has fewer than 2^15 octets.
    #[inline]
    pub fn of(parsed: &Parsed, frame: &[u8], sa: Sa) -> Self {
        Self {
            protocol: parsed.protocol,
            security_offset: parsed.security_offset as u16,
            numbers_offset: parsed.numbers_offset as u16,
            header_octets: parsed.header_octets,
            crypt_offset: parsed.crypt_offset,
            payload_offset: parsed.payload_offset,
            session_id: parsed.session_id,
            psp_flags: parsed.psp_flags,
            l3_end: parsed.plain.l3_end as u16,
            numbers: numbers(frame, parsed.numbers_offset),
            sa,
        }
    }

    /// The 64-bit word of [`Self::numbers`] that begins at octet 0, 4 or 8.
    #[inline]
    fn number<const AT: usize>(&self) -> u64 {
        const { assert!(AT <= 8) };
        (u128::from_be_bytes(self.numbers) >> (64 - 8 * AT)) as u64
    }

    /// ESP and WESPv2: the low half of the sequence number.
    #[inline]
    fn sequence_low(&self) -> u32 {
        (self.number::<0>() >> 32) as u32
    }
}

/// The octets of a frame from where its numbers begin, zero behind its end.
#[inline]
fn numbers(frame: &[u8], offset: usize) -> [u8; NUMBERS_OCTETS] {
    let there = frame.get(offset..).unwrap_or(&[]);
    if let Some(numbers) = there.first_chunk() {
        return *numbers;
    }
    let mut numbers = [0; NUMBERS_OCTETS];
    for (number, octet) in numbers.iter_mut().zip(there) {
        *number = *octet;
    }
    numbers
}

/// Where the cipher works. Encryption ends where the ICV begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// The sequence number, inferred where half of it is not sent; 0 where there is none.
    pub sequence: u64,
    /// The last eight octets of the nonce.
    pub iv: u64,
    /// The first octet of the AAD.
    pub aad_start: u16,
    /// One past the last octet of the AAD.
    pub aad_end: u16,
    /// Whether the high half of the sequence number stands in the AAD behind its first four octets.
    pub sequence_high_in_aad: bool,
    /// The first octet that is encrypted; [`Self::icv_offset`] where none is.
    pub text_start: u16,
    /// The first octet of the ICV.
    pub icv_offset: u16,
    /// Octets of the ICV.
    pub icv_octets: u8,
}

impl Ranges {
    /// The same as a cipher wants it. `salt` is the nonce's first four octets: the SA's salt, of PSP the SPI.
    #[inline]
    pub fn geometry(&self, salt: [u8; 4], spi: u32) -> Geometry {
        let (start, end) = (usize::from(self.aad_start), usize::from(self.aad_end));
        let aad = if !self.sequence_high_in_aad {
            Aad::InPlace { start, end }
        } else if end - start == esp::FIXED_LENGTH {
            esp::aad(start, spi, Some(self.sequence))
        } else {
            let sequence_high = (self.sequence >> 32) as u32;
            Aad::InPlaceWithSequenceHigh { start, end, sequence_high }
        };
        let icv = usize::from(self.icv_offset);
        Geometry {
            nonce: esp::nonce(salt, self.iv.to_be_bytes()),
            aad,
            text: Span::new(usize::from(self.text_start), icv),
            icv: Span::new(icv, icv + usize::from(self.icv_octets)),
        }
    }
}

/// The function of the unit. An SA is for packets of its protocol alone.
#[inline]
pub fn answer(request: &Request) -> Answer {
    match (request.protocol, request.sa) {
        (Protocol::Esp, Sa::Esp { cipher, icv_length, extended_sequence }) => {
            of_esp(request, cipher, icv_length, extended_sequence)
        }
        (Protocol::Psp, Sa::Psp) => of_psp(request),
        (Protocol::Wespv2, Sa::Wespv2 { cipher, icv_length }) => of_wespv2(request, cipher, icv_length),
        (Protocol::Eesp, Sa::Eesp { numbering, format, icv_length, last_sub_sa }) => {
            of_eesp(request, numbering, format, icv_length, last_sub_sa)
        }
        _ => Err(Status::NoSa),
    }
}

/// Where the ICV begins. All sums of the fields' widths fit: they stay below 2^15.
#[inline]
fn icv_offset(request: &Request, icv_length: IcvLength, truncated: Status) -> Result<u16, Status> {
    request.l3_end.checked_sub(icv_length.octets() as u16).ok_or(truncated)
}

/// The IV of ESP and WESPv2.
#[inline]
fn esp_iv(request: &Request, cipher: Cipher, sequence: u64) -> u64 {
    match cipher {
        Cipher::Gcm | Cipher::Gmac => request.number::<4>(),
        Cipher::GcmImplicitIv => sequence,
    }
}

#[inline]
fn of_esp(request: &Request, cipher: Cipher, icv_length: IcvLength, extended: Option<Window>) -> Answer {
    let low = request.sequence_low();
    let sequence = match extended {
        Some(Window { top, size }) => {
            let size = if size == 0 { 1 << 31 } else { size };
            sequence::infer(top, low, size).map_err(|_| Status::BadSequence)?
        }
        None if low == 0 => return Err(Status::BadSequence),
        None => u64::from(low),
    };
    let icv_offset = icv_offset(request, icv_length, Status::TruncatedEsp)?;
    let header_end = request.security_offset + request.header_octets;
    let payload = header_end + cipher.iv_length() as u16;
    if payload + esp::TRAILER_FIXED_LENGTH as u16 > icv_offset {
        return Err(Status::TruncatedEsp);
    }
    let (aad_end, text_start) = match cipher {
        Cipher::Gcm | Cipher::GcmImplicitIv => (header_end, payload),
        Cipher::Gmac => (icv_offset, icv_offset),
    };
    Ok(Ranges {
        sequence,
        iv: esp_iv(request, cipher, sequence),
        aad_start: request.security_offset,
        aad_end,
        sequence_high_in_aad: extended.is_some(),
        text_start,
        icv_offset,
        icv_octets: icv_length.octets() as u8,
    })
}

#[inline]
fn of_wespv2(request: &Request, cipher: Cipher, icv_length: IcvLength) -> Answer {
    let sequence = u64::from(request.sequence_low());
    if sequence == 0 {
        return Err(Status::BadSequence);
    }
    let payload = request.security_offset + request.header_octets;
    let behind_sequence = request.numbers_offset + esp::field::SEQUENCE.len() as u16;
    if behind_sequence + cipher.iv_length() as u16 != payload {
        return Err(Status::WespHeaderLengthMismatch);
    }
    let icv_offset = icv_offset(request, icv_length, Status::TruncatedEsp)?;
    if payload + esp::TRAILER_FIXED_LENGTH as u16 > icv_offset {
        return Err(Status::TruncatedEsp);
    }
    let clear_end = payload + u16::from(request.crypt_offset) * 4;
    if clear_end + esp::TRAILER_FIXED_LENGTH as u16 > icv_offset {
        return Err(Status::CryptOffsetPastEnd);
    }
    let text_start = if cipher == Cipher::Gmac { icv_offset } else { clear_end };
    let iv = esp_iv(request, cipher, sequence);
    Ok(in_place(request, sequence, iv, text_start, icv_offset, icv_length))
}

#[inline]
fn of_eesp(
    request: &Request,
    numbering: Numbering,
    format: EespFormat,
    icv_length: IcvLength,
    last_sub_sa: Option<u16>,
) -> Answer {
    if last_sub_sa.is_some_and(|last| request.session_id > last) {
        return Err(Status::EespSessionId);
    }
    let numbers_octets = match numbering {
        Numbering::SequenceAndIv => eesp::SEQUENCE_LENGTH + eesp::IV_LENGTH,
        Numbering::SequenceIsIv => eesp::SEQUENCE_LENGTH,
        Numbering::IvAlone => eesp::IV_LENGTH,
    };
    let payload_header = request.security_offset + request.header_octets + numbers_octets as u16;
    if let Some(payload_offset) = request.payload_offset {
        if format != EespFormat::FullWithCryptOffset {
            return Err(Status::CryptOffsetNotAllowed);
        }
        if request.security_offset + u16::from(payload_offset) * 4 != payload_header {
            return Err(Status::EespPayloadOffset);
        }
    }
    let icv_offset = icv_offset(request, icv_length, Status::TruncatedEesp)?;
    let payload_info = if format == EespFormat::Optimized { 0 } else { eesp::PAYLOAD_INFO_LENGTH as u16 };
    if payload_header + payload_info > icv_offset {
        return Err(Status::TruncatedEesp);
    }
    let text_start = payload_header + u16::from(request.crypt_offset) * 4;
    if text_start > icv_offset {
        return Err(Status::CryptOffsetPastEnd);
    }
    let (sequence, iv) = match numbering {
        Numbering::SequenceAndIv => (request.number::<0>(), request.number::<8>()),
        Numbering::SequenceIsIv => (request.number::<0>(), request.number::<0>()),
        Numbering::IvAlone => (0, request.number::<0>()),
    };
    if sequence == 0 && numbering != Numbering::IvAlone {
        return Err(Status::BadSequence);
    }
    Ok(in_place(request, sequence, iv, text_start, icv_offset, icv_length))
}

#[inline]
fn of_psp(request: &Request) -> Answer {
    let iv_end = request.security_offset + psp::HEADER_LENGTH as u16;
    let icv_offset = icv_offset(request, IcvLength::Octets16, Status::TruncatedPsp)?;
    if iv_end > icv_offset {
        return Err(Status::TruncatedPsp);
    }
    if request.security_offset + request.header_octets > icv_offset {
        return Err(Status::PspBadHeaderLength);
    }
    let clear_end = iv_end + u16::from(request.crypt_offset) * 4;
    if clear_end > icv_offset {
        return Err(Status::PspCryptOffsetPastEnd);
    }
    let version = (request.psp_flags & psp::flag::VERSION) >> psp::flag::VERSION_SHIFT;
    let encrypts = psp::Version::from_code(version).is_some_and(psp::Version::encrypts);
    let text_start = if encrypts { clear_end } else { icv_offset };
    Ok(in_place(request, 0, request.number::<0>(), text_start, icv_offset, IcvLength::Octets16))
}

/// The AAD is all that stands between the security header's first octet and the text.
#[inline]
fn in_place(
    request: &Request,
    sequence: u64,
    iv: u64,
    text_start: u16,
    icv_offset: u16,
    icv_length: IcvLength,
) -> Ranges {
    Ranges {
        sequence,
        iv,
        aad_start: request.security_offset,
        aad_end: text_start,
        sequence_high_in_aad: false,
        text_start,
        icv_offset,
        icv_octets: icv_length.octets() as u8,
    }
}

/// The closed form of the unit's timing, in cycles.
#[derive(Clone, Debug)]
pub struct RxGeometryTiming {
    next_entry: u64,
    results: usize,
    /// Cycles in which answers that still count against the FIFO are taken; a place taken in cycle `c` may be used again in
    /// cycle `c + 1`.
    taken: VecDeque<u64>,
}

/// When a request passes the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The cycle in which it enters.
    pub entry: u64,
    /// The first cycle in which its answer may stand at the output.
    pub answer: u64,
}

impl RxGeometryTiming {
    /// An idle unit with a FIFO for this many answers.
    pub fn new(results: u64) -> Self {
        RxGeometryTiming { next_entry: 0, results: results as usize, taken: VecDeque::new() }
    }

    /// Lets a request pass that is there in this cycle. [`Self::take`] must follow before the next request.
    #[inline]
    pub fn pass(&mut self, arrival: u64) -> Passage {
        let mut entry = arrival.max(self.next_entry);
        if self.taken.len() == self.results
            && let Some(taken) = self.taken.pop_front()
        {
            entry = entry.max(taken + 1);
        }
        self.next_entry = entry + 1;
        Passage { entry, answer: entry + LATENCY_CYCLES }
    }

    /// Says in which cycle the answer to the last request is taken.
    #[inline]
    pub fn take(&mut self, cycle: u64) {
        self.taken.push_back(cycle);
    }
}

/// The unit a cycle at a time.
pub struct RxGeometryShell {
    cycle: u64,
    /// Answers on their way, with the cycle in which each comes out.
    pipeline: VecDeque<(u64, Answer)>,
    fifo: VecDeque<Answer>,
    results: usize,
}

/// What the unit shows in a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// It takes the request that is offered.
    pub ready: bool,
    /// The answer at the output, if any.
    pub answer: Option<Answer>,
    /// Nothing is inside: no request on its way, no answer left to be taken.
    pub drained: bool,
}

impl RxGeometryShell {
    /// The unit after reset.
    pub fn new(results: u64) -> Self {
        RxGeometryShell {
            cycle: 0,
            pipeline: VecDeque::new(),
            fifo: VecDeque::new(),
            results: results as usize,
        }
    }

    /// One clock cycle: a request may be offered, and the consumer may be ready. What is shown in a cycle depends only on
    /// registers; the request is taken if `ready`, the answer if there is one and the consumer is ready.
    pub fn step(&mut self, offered: Option<&Request>, consumer_ready: bool) -> Outputs {
        if self.pipeline.front().is_some_and(|(cycle, _)| *cycle == self.cycle)
            && let Some((_, answer)) = self.pipeline.pop_front()
        {
            self.fifo.push_back(answer);
        }
        let inside = self.pipeline.len() + self.fifo.len();
        let outputs = Outputs {
            ready: inside < self.results,
            answer: self.fifo.front().copied(),
            drained: inside == 0,
        };
        if outputs.ready
            && let Some(request) = offered
        {
            self.pipeline.push_back((self.cycle + LATENCY_CYCLES, answer(request)));
        }
        if consumer_ready && outputs.answer.is_some() {
            self.fifo.pop_front();
        }
        self.cycle += 1;
        outputs
    }
}
