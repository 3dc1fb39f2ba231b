//! The receive side up to commit: parse, SA lookup or key derivation, geometry, advisory replay check, lanes.
//!
//! Bytes are opened here, in the NIC's own buffer; whether they count is decided at commit, and nothing
//! reaches host memory before.

use crate::Ticks;
use cryptonic_regs::Status;
use cryptonic_regs::completion::ReceivedProtocol;
use cryptonic_wire::packet::Expected;
use cryptonic_wire::psp;
use cryptonic_wire::sequence::Verdict;
use cryptonic_wire::{Parsed, Protocol, UdpPorts, parse_receive};
use zeroize::Zeroizing;

use crate::events::InParser;
use crate::lanes::blocks;
use crate::mac::FCS_BYTES;
use crate::nic::Nic;
use crate::packet::{Packet, PacketPool, Purpose, Received};
use crate::protect_psp::cipher_of;
use crate::psp_copies::psp_offset;
use crate::rx_geometry::{self, Request, Window};
use crate::rx_parse::{self, Arrival};
use crate::rx_parse_in_place::Answer;
use crate::sa_lifetime::Lifetime;
use crate::sa_parameters::Form;

/// A packet on its way through the lanes.
struct Opening {
    /// When it is ready for a lane.
    ready: Ticks,
    /// For how many blocks it takes one.
    blocks: u64,
}

impl Nic {
    /// A frame's last bit is here.
    pub(crate) fn wire_arrival(&mut self, mut packet: Box<Packet>, pool: &mut PacketPool) {
        self.counters.received_frames += 1;
        self.counters.received_bytes += packet.bytes() + FCS_BYTES;
        packet.arrived_at = self.now;
        packet.buffer_bytes = 0;
        if !self.enabled() {
            self.drop_received(packet, Status::QueueOff, pool);
            return;
        }
        if packet.bytes() > self.parameters.capacity.frame_bytes + MARGIN_BYTES {
            self.drop_received(packet, Status::TooBig, pool);
            return;
        }
        if self.receive.buffer.take(self.now, packet.bytes()).is_err() {
            self.drop_received(packet, Status::ReceiveOverflow, pool);
            return;
        }
        packet.buffer_bytes = packet.bytes();

        let parsed_at = self.parse_time(packet.bytes());
        if let Some(unit) = &mut self.receive.in_place {
            unit.arrive(packet.frame(), self.cycles_before_epoch + self.now.0.div_ceil(self.cycle.0));
        }
        self.events.parsed.push(parsed_at, InParser { packet, expected: self.receive.expected });
    }

    /// The parser's result of a frame is taken: lookup begins, and the packet is opened.
    pub(crate) fn parsed(&mut self, frame: InParser, pool: &mut PacketPool) {
        let InParser { packet, expected } = frame;
        match &mut self.receive.in_place {
            None => {
                let parsed = parse_receive(packet.frame(), expected);
                let parsed = parsed.as_ref().map_err(|malformed| rx_parse::verdict(*malformed));
                self.judge_parsed(packet, parsed, pool);
            }
            Some(unit) => match unit.answer(
                self.cycles_before_epoch + self.now.0 / self.cycle.0,
                packet.frame(),
                &expected,
            ) {
                Answer::Result(parsed) => {
                    self.judge_parsed(packet, parsed.as_ref().map_err(|status| *status), pool);
                }
                Answer::Late => {
                    self.events.parsed.put_back(self.now + self.cycle, InParser { packet, expected });
                }
                Answer::Lost => {
                    self.receive.buffer.release(self.now, packet.buffer_bytes);
                    pool.give(packet);
                }
            },
        }
    }

    /// What becomes of a frame by the parser's result.
    fn judge_parsed(
        &mut self,
        mut packet: Box<Packet>,
        parsed: Result<&Parsed, Status>,
        pool: &mut PacketPool,
    ) {
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(status) => {
                let of_psp = self.count_psp_fault(packet.frame(), status);
                self.end_received(packet, status, of_psp, self.now, pool);
                return;
            }
        };
        packet.parsed = Some(*parsed);
        packet.received.scaling = true;
        self.judge_outer(&mut packet, parsed);
        let looked_up = self.now + self.cycle.times(self.parameters.pipeline.lookup_latency_cycles);
        let opening = match parsed.protocol {
            // ESP with an SPI that no SA has is not in clear: it is for the host (RFC 4303 2.1).
            Protocol::Other if !parsed.reserved_esp_spi && self.sa_table.refuses_clear(&parsed.plain) => {
                Err(Status::ClearNotAccepted)
            }
            Protocol::Other => Ok(None),
            Protocol::NatKeepalive => Err(Status::NatKeepalive),
            Protocol::Esp => match self.open_esp(&mut packet, parsed, looked_up) {
                Err(Status::NoSa) if self.control.unmatched_to_host() => Ok(None),
                opening => opening.map(Some),
            },
            Protocol::Psp => self.open_psp(&mut packet, parsed, looked_up).map(Some),
            Protocol::Wespv2 | Protocol::Eesp if self.control.unmatched_to_host() => Ok(None),
            Protocol::Wespv2 | Protocol::Eesp => Err(Status::NoSa),
        };
        let opening = match opening {
            Ok(opening) => opening,
            Err(status) => {
                self.end_received(packet, status, parsed.protocol == Protocol::Psp, looked_up, pool);
                return;
            }
        };
        let left_lanes = match opening {
            Some(Opening { ready, blocks }) => self.receive.lanes.pass(ready, blocks),
            None => self.receive.lanes.bypass(looked_up),
        };
        self.commit_later(packet, left_lanes);
    }

    /// Where the registers have the parser look for security protocols.
    pub(crate) fn expected(&self) -> Expected {
        Expected {
            udp_ports: UdpPorts { psp: self.psp_control.udp_port(), esp: self.esp_udp_port.port() },
            eesp_protocol: self.security_protocols.eesp_protocol(),
            eesp_in_udp: self.security_protocols.eesp_in_udp(),
            wespv2_protocol: self.security_protocols.wespv2_protocol(),
        }
    }

    /// A register was written that the parser obeys: frames that arrive from now on are judged by its new value. The
    /// parser lets none of them in before the last one under the old value has left.
    pub(crate) fn parser_registers_written(&mut self) {
        let expected = self.expected();
        if expected != self.receive.expected {
            self.receive.expected = expected;
            self.receive.parse.change();
            if let Some(unit) = &mut self.receive.in_place {
                unit.change(expected);
            }
        }
    }

    /// A packet that has left the reorder buffer goes to commit.
    fn commit_later(&mut self, packet: Box<Packet>, left_lanes: Ticks) {
        let interval = self.cycle.times(self.parameters.pipeline.commit_interval_cycles);
        let commit_at = self.receive.commit.serve(left_lanes, interval) + interval;
        let Received { sa_index, sa_generation, .. } = packet.received;
        if sa_generation != 0
            && let Some(sa) = self.sa_table.usable(sa_index, sa_generation)
        {
            sa.busy_until = sa.busy_until.max(commit_at);
        }
        self.events.receive_commits.push(commit_at, packet);
    }

    /// A packet goes no further than here: one of PSP may be captured.
    fn end_received(
        &mut self,
        mut packet: Box<Packet>,
        status: Status,
        of_psp: bool,
        judged_at: Ticks,
        pool: &mut PacketPool,
    ) {
        if of_psp && self.mark_for_capture(&mut packet, status) {
            let left_lanes = self.receive.lanes.bypass(judged_at);
            self.commit_later(packet, left_lanes);
        } else {
            self.drop_received(packet, status, pool);
        }
    }

    /// When lookup has taken the parser's result of a packet that is here now. The packet is in the receive buffer
    /// whole, so its beats come one a cycle, and lookup takes a result a cycle.
    fn parse_time(&mut self, bytes: u64) -> Ticks {
        let first_beat = self.cycles_before_epoch + self.now.0.div_ceil(self.cycle.0);
        let beats = bytes.div_ceil(self.parameters.pipeline.bus_bytes).max(1);
        let passage = self.receive.parse.pass(Arrival { first_beat, latest_skew: first_beat, beats });
        self.receive.parse.take(passage.result);
        self.receive.parse_busy += self.cycle.times(beats);
        self.cycle.times(passage.result + 1 - self.cycles_before_epoch)
    }

    fn open_esp(
        &mut self,
        packet: &mut Packet,
        parsed: &Parsed,
        looked_up: Ticks,
    ) -> Result<Opening, Status> {
        let in_udp = parsed.udp_offset.is_some();
        let (index, sa) = self.sa_table.lookup(parsed.spi, in_udp, &parsed.plain).ok_or(Status::NoSa)?;
        let Form::Esp(esp) = &sa.form else { return Err(Status::NoSa) };
        let window = Window { top: sa.window.top(), size: sa.window.window() };
        let request = Request::of(parsed, packet.frame(), rx_geometry::Sa::esp(esp, window));
        let ranges = rx_geometry::answer(&request)?;
        replay_status(&mut sa.lifetime, sa.window.check(ranges.sequence))?;
        let geometry = ranges.geometry(esp.salt, parsed.spi);
        packet.protocol = ReceivedProtocol::Esp;
        packet.received.sa_index = index;
        packet.received.sa_generation = sa.generation;
        packet.received.spi = parsed.spi;
        packet.received.cookie = sa.cookie;
        packet.received.queue = sa.receive_queue;
        packet.received.scaling = sa.receive_scaling;
        packet.received.sequence = ranges.sequence;
        packet.received.iv = ranges.iv;
        if geometry.open(&sa.key, packet.frame_mut()).is_err() {
            packet.status = Status::IcvMismatch;
        }
        let ready = self.context_cache.fetch(looked_up, index);
        Ok(Opening { ready, blocks: blocks(&geometry, false) })
    }

    fn open_psp(
        &mut self,
        packet: &mut Packet,
        parsed: &Parsed,
        looked_up: Ticks,
    ) -> Result<Opening, Status> {
        let (flags, spi) = (parsed.psp_flags, parsed.spi);
        let version = psp::Version::from_code((flags & psp::flag::VERSION) >> psp::flag::VERSION_SHIFT);
        let version = version.ok_or(Status::PspBadVersion)?;
        let ranges = rx_geometry::answer(&Request::of(parsed, packet.frame(), rx_geometry::Sa::Psp))?;
        packet.received.spi = spi;
        packet.received.iv = ranges.iv;
        packet.received.psp_version = version.code();
        packet.received.psp_sample = flags & psp::flag::SAMPLE != 0;
        packet.received.psp_drop = flags & psp::flag::DROP != 0;
        packet.received.psp_device_key = spi >> 31 == 1;
        let bad = |nic: &mut Nic, status| {
            nic.counters.psp.received_bad += 1;
            Err(status)
        };
        let enabled = self.psp_control.receive_versions() >> version.code() & 1 == 1;
        if !enabled {
            return bad(self, Status::PspVersionDisabled);
        }
        let cipher = cipher_of(version);
        let geometry = ranges.geometry(spi.to_be_bytes(), spi);
        let mut key = Zeroizing::new([0_u8; 32]);
        if self.keys.receive_key(version, spi, &mut key).is_none() {
            return bad(self, Status::PspNoDeviceKey);
        }
        let (ready, fresh) = self.keys.receive_time(looked_up, version, spi);
        let now_picoseconds = self.now_picoseconds();
        let key = self.key_schedules.get(cipher, &key).ok_or(Status::PspNoDeviceKey)?;
        packet.protocol = ReceivedProtocol::Psp;
        packet.received.psp_bytes = psp::counted_octets(parsed.security_offset, parsed.plain.l3_end) as u64;
        let kept = self.psp_copies.keep(packet.frame(), now_picoseconds);
        if geometry.open(key, packet.frame_mut()).is_err() {
            packet.status = Status::IcvMismatch;
            if kept {
                self.psp_copies.put_back(packet.frame_mut());
                packet.purpose = Purpose::Capture;
            }
        }
        Ok(Opening { ready, blocks: blocks(&geometry, fresh) })
    }

    /// The specification's counters of PSP packets that do not get as far as the lanes. Says whether it is one.
    fn count_psp_fault(&mut self, frame: &[u8], status: Status) -> bool {
        let counters = &mut self.counters.psp;
        // Statuses that are ESP's and UDP's too are looked at twice.
        let of_psp = || psp_offset(frame, self.psp_control.udp_port()).is_some();
        match status {
            Status::TruncatedPsp | Status::PspBadHeaderLength | Status::PspCryptOffsetPastEnd => {
                counters.received_errors += 1;
            }
            Status::BadUdpLength if of_psp() => counters.received_errors += 1,
            Status::PspBadVersion | Status::PspReservedBit => counters.received_bad += 1,
            Status::ReservedSpi if of_psp() => counters.received_bad += 1,
            _ => return false,
        }
        true
    }
}

/// Room above the largest frame for what protection adds to it.
pub(crate) const MARGIN_BYTES: u64 = 128;

/// The status of a replay verdict, if it is one; the slot counts it.
pub(crate) fn replay_status(lifetime: &mut Lifetime, verdict: Verdict) -> Result<(), Status> {
    match verdict {
        Verdict::New | Verdict::InWindow => Ok(()),
        Verdict::Duplicate => {
            lifetime.replay_duplicates += 1;
            Err(Status::ReplayDuplicate)
        }
        Verdict::BelowWindow => {
            lifetime.replay_below_window += 1;
            Err(Status::ReplayBelowWindow)
        }
    }
}
