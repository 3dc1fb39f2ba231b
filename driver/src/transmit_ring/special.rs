//! Putting packets of any kind into the ring: keys, cookies, inline data, chains, offloads.

use cryptonic_pci::SharedMemory;
use cryptonic_regs::descriptor::{
    Security, TRANSMIT_BASE_BYTES, TRANSMIT_KEY_BYTES, TransmitControl, TransmitExtent, TransmitPsp,
    inline_offset, inline_room,
};

use super::pieces::{collect_spans, take_inline};
use super::{Abilities, CONTINUES, KEYED, REPORT, SECURITY_CLEAR, SECURITY_SA, Sent, TransmitSide, sa_word};
use crate::psp_keys::Key;
use crate::transmit::InlinePolicy;
use crate::{Protection, PspTransmit, QueueError, TransmitPacket};

/// The most inline bytes a slot has room for.
const INLINE_BYTES_MAX: usize = 96;
/// The most that the descriptor's total length can say.
const TOTAL_LENGTH_MAX: usize = (1 << 18) - 1;

impl TransmitSide {
    /// Puts a packet of any kind. Gives whether there was space for it. Nothing is written before everything that
    /// can be wrong with the packet was looked at.
    #[inline(never)]
    pub(super) fn put_special(
        &mut self,
        memory: &SharedMemory,
        packet: &TransmitPacket,
        space: u32,
    ) -> Result<bool, QueueError> {
        if packet.buffer.queue != self.identity {
            return Err(QueueError::Foreign);
        }
        self.abilities.check(packet)?;
        let segment = packet.offload.maximum_segment();
        let mut key = None;
        let mut cookie = None;
        let (how, security) = match &packet.protection {
            Protection::Sa(handle) if handle.nic == self.nic => (SECURITY_SA, sa_word(*handle)),
            Protection::Sa(_) => return Err(QueueError::ForeignSa),
            Protection::Clear => (SECURITY_CLEAR, 0),
            Protection::PspKey(psp) => {
                let found = self.keys.get(self.identity, psp.key)?;
                key = Some(found);
                cookie = psp.cookie;
                psp_words(psp, found)?
            }
        };
        let stride = 1 << self.stride_log2;
        let room = inline_room(stride, key.is_some(), cookie.is_some()).ok_or(QueueError::NoRoomForKey)?;

        collect_spans(&mut self.spans, &self.pieces, &packet.buffer, self.frames_iova);
        let total: usize = self.spans.iter().map(|span| span.bytes as usize).sum();
        if total > TOTAL_LENGTH_MAX {
            return Err(QueueError::TooLong { bytes: total, room: TOTAL_LENGTH_MAX });
        }
        let room = (room as usize).min(INLINE_BYTES_MAX);
        let inline_bytes = match self.inline {
            InlinePolicy::Never => 0,
            InlinePolicy::Heads { bytes } => usize::from(bytes).min(room).min(total),
            InlinePolicy::WholeFrames if total <= room => total,
            InlinePolicy::WholeFrames => 0,
        };
        let mut inline = [0; INLINE_BYTES_MAX];
        let inline = inline.get_mut(..inline_bytes).unwrap_or(&mut []);
        let frame = self.frames_offset + packet.buffer.place as usize;
        take_inline(&mut self.spans, &self.pieces, memory, frame, self.frames_offset, inline)?;
        self.spans.retain(|span| span.bytes > 0);

        let count = self.spans.len().max(1);
        let most = self.abilities.chain_max.min(self.slots() as usize);
        if count > most {
            return Err(QueueError::ChainTooLong { descriptors: count, most });
        }
        if count > space as usize {
            return Ok(false);
        }

        let extent = TransmitExtent::new()
            .with_total_length(total as u32)
            .with_inline_bytes(inline_bytes as u8)
            .with_maximum_segment(segment);
        let mask = self.slots() - 1;
        let mut report = packet.report;
        for place in 0..count as u32 {
            let position = self.produced.wrapping_add(place);
            let slot = position & mask;
            let offset = (slot as usize) << self.stride_log2;
            let span = self.spans.get(place as usize).copied().unwrap_or_default();
            let end = place as usize + 1 == count;
            report |= slot & self.report_mask() == 0;
            let mut control =
                self.tagged(position).with_length(span.bytes as u16).with_end_of_packet(end).into_bits();
            if end && report {
                control |= REPORT;
            }
            let mut sent = Sent { cookie: 0, what: CONTINUES };
            if end {
                let buffer = &packet.buffer;
                let what = u64::from(buffer.place) | u64::from(buffer.chain) << 32;
                sent = Sent { cookie: packet.cookie, what };
            }
            if place == 0 {
                control |= how | packet.offload.control().into_bits();
                memory.write_words(offset, &[span.iova, control, security, extent.into_bits()])?;
                if let Some(key) = key {
                    key.put(memory, offset + TRANSMIT_BASE_BYTES as usize)?;
                    sent.what |= KEYED;
                }
                if let Some(cookie) = &cookie {
                    memory.write(offset + (TRANSMIT_BASE_BYTES + TRANSMIT_KEY_BYTES) as usize, cookie)?;
                }
                let behind = inline_offset(key.is_some(), cookie.is_some()) as usize;
                memory.write(offset + behind, inline)?;
            } else {
                memory.write_words(offset, &[span.iova, control, 0, 0])?;
            }
            self.last_control = control;
            self.special += u32::from(sent.is_special());
            if let Some(known) = self.sent.get_mut(slot as usize) {
                *known = sent;
            }
        }
        self.produced = self.produced.wrapping_add(count as u32);
        self.inline_bytes += inline_bytes as u64;
        self.chained_packets += u64::from(count > 1);
        if segment != 0 {
            self.extra_numbers += (total / usize::from(segment)) as u64;
        }
        Ok(true)
    }
}

impl Abilities {
    /// Whether the device can do what a packet asks for.
    fn check(&self, packet: &TransmitPacket) -> Result<(), QueueError> {
        let (descriptor, protocol) = (self.descriptor, self.protocol);
        let psp = match &packet.protection {
            Protection::PspKey(psp) => Some(psp),
            _ => None,
        };
        let offload = packet.offload;
        for (able, name) in [
            (descriptor.segmentation() || offload.maximum_segment() == 0, "segmentation"),
            (descriptor.checksums() || !offload.asks_checksum(), "checksums on transmit"),
            (protocol.traffic_flow_confidentiality() || !offload.asks_dummy(), "dummy packets"),
            (protocol.psp_cookie() || psp.is_none_or(|psp| psp.cookie.is_none()), "PSP cookies"),
            (
                descriptor.psp_preformatted() || psp.is_none_or(|psp| !psp.preformatted),
                "pre-formatted PSP frames",
            ),
        ] {
            if !able {
                return Err(QueueError::Unsupported(name));
            }
        }
        Ok(())
    }
}

/// The bits for the control word of a packet with a PSP key, and its security word.
fn psp_words(psp: &PspTransmit, key: &Key) -> Result<(u64, u64), QueueError> {
    if psp.crypt_offset > 63 {
        return Err(QueueError::Argument("a crypt offset has 6 bits"));
    }
    let own = psp.crypt_offset != 0 || psp.sample || psp.drop || psp.cookie.is_some();
    if psp.preformatted && own {
        return Err(QueueError::Argument("a pre-formatted frame has its own crypt offset, S, D and cookie"));
    }
    let (policy, port) = psp.source_port.policy();
    let control = TransmitControl::new()
        .with_security(Security::PspKey.number() as u8)
        .with_psp_version(key.version)
        .with_psp_crypt_offset(psp.crypt_offset)
        .with_psp_source_port_policy(policy.number() as u8)
        .with_psp_sample(psp.sample)
        .with_psp_drop(psp.drop)
        .with_psp_cookie(psp.cookie.is_some())
        .with_psp_preformatted(psp.preformatted);
    Ok((control.into_bits(), TransmitPsp::new().with_spi(key.spi).with_source_port(port).into_bits()))
}
