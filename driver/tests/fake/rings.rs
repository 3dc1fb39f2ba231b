//! The rings of the small device: descriptors of every form, pushes, chains on both sides.

use cryptonic_regs::Status;
use cryptonic_regs::bar0::{
    QUEUE_CONTROL, QUEUE_PAIR_STRIDE, QueueControl, RECEIVE_COMPLETION_BASE, RECEIVE_RING_BASE,
    TRANSMIT_COMPLETION_BASE, TRANSMIT_RING_BASE,
};
use cryptonic_regs::completion::{
    ReceiveCompleted, ReceiveCompletion, ReceiveCompletionEnd, ReceiveSecurity, ReceiveSteering,
    ReceivedProtocol, TransmitCompleted, TransmitCompletion, TransmitCompletionEnd,
};
use cryptonic_regs::descriptor::{
    ReceiveControl, Security, TransmitControl, TransmitExtent, TransmitPsp, TransmitSa, inline_offset,
    inline_room,
};
use cryptonic_regs::doorbell::{DOORBELL_PAGE_BYTES, PUSH_WINDOW_BYTES, PUSH_WINDOWS};

use super::Device;

impl Device {
    /// Takes 64 bytes that were pushed. A slot that is whole is a doorbell, and is used if it is next in line.
    pub(super) fn push(&mut self, offset: u32, line: &[u8; 64]) {
        let (number, at) = (offset / DOORBELL_PAGE_BYTES, offset % DOORBELL_PAGE_BYTES);
        let window = PUSH_WINDOWS.iter().find(|start| (**start..**start + PUSH_WINDOW_BYTES).contains(&at));
        let start = *window.unwrap_or_else(|| panic!("no push window at {at:#x}"));
        let control: QueueControl = self.register(QUEUE_CONTROL.instance(number, QUEUE_PAIR_STRIDE));
        let stride = 1usize << control.transmit_stride_log2();
        let queue = &mut self.queues[number as usize];
        if at == start {
            queue.window.clear();
        }
        assert_eq!(queue.window.len(), (at - start) as usize, "lines are pushed in order");
        queue.window.extend(line);
        if queue.window.len() < stride {
            return;
        }
        let words: Vec<u64> =
            queue.window.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let producer = TransmitExtent::from_bits(words[3]).producer();
        let ahead = producer.wrapping_sub(queue.transmit_doorbell as u16);
        queue.transmit_doorbell = queue.transmit_doorbell.wrapping_add(ahead.into());
        let position = queue.transmit_doorbell.wrapping_sub(1);
        queue.pushed = (queue.transmit_done == position).then_some((position, words));
        self.pushes.push(start);
    }

    /// The words of a slot, as they were pushed or as they stand in memory.
    fn slot(&mut self, index: usize, position: u32) -> Option<Vec<u64>> {
        let number = index as u32;
        let control: QueueControl = self.register(QUEUE_CONTROL.instance(number, QUEUE_PAIR_STRIDE));
        let slot = u64::from(position & ((1 << control.transmit_slots_log2()) - 1));
        let base = self.register(TRANSMIT_RING_BASE.instance(number, QUEUE_PAIR_STRIDE));
        let at = base + (slot << control.transmit_stride_log2());
        let words = match control.transmit_stride_log2() {
            5 => self.words::<4>(at)?.to_vec(),
            6 => self.words::<8>(at)?.to_vec(),
            _ => self.words::<16>(at)?.to_vec(),
        };
        match self.queues[index].pushed.take() {
            Some((pushed, mut bytes)) if pushed == position => {
                bytes[3] = TransmitExtent::from_bits(bytes[3]).with_producer(0).into_bits();
                assert_eq!(bytes, words, "memory is written before a push, with the same bytes");
                self.pushes_used += 1;
                Some(bytes)
            }
            _ => Some(words),
        }
    }

    /// Puts the frame of the packet at `position` together. Gives its first descriptor and the control word of its
    /// last, how many it has, and its status; nothing while it is not whole.
    fn gather(&mut self, index: usize, position: u32) -> Option<(Vec<u64>, TransmitControl, u16, Status)> {
        let words = self.slot(index, position)?;
        let mut control = TransmitControl::from_bits(words[1]);
        let extent = TransmitExtent::from_bits(words[3]);
        self.frame.clear();
        let with_key = control.security() == Security::PspKey.number() as u8;
        let room = inline_room(words.len() as u32 * 8, with_key, control.psp_cookie());
        let mut status = Status::Ok;
        if room.is_none_or(|room| u32::from(extent.inline_bytes()) > room) || extent.producer() != 0 {
            status = Status::BadDescriptor;
        } else {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let start = inline_offset(with_key, control.psp_cookie()) as usize;
            self.frame.extend(&bytes[start..start + usize::from(extent.inline_bytes())]);
        }
        let (mut address, mut count) = (words[0], 1);
        loop {
            let length = usize::from(control.length());
            if length > 0 {
                let (memory, offset) = self.reach(address, length, false)?;
                let start = self.frame.len();
                self.frame.resize(start + length, 0);
                memory.read(offset, &mut self.frame[start..]).unwrap();
            }
            if control.end_of_packet() {
                break;
            }
            let next = position.wrapping_add(count.into());
            if next == self.queues[index].transmit_doorbell {
                return None;
            }
            let more = self.slot(index, next)?;
            control = TransmitControl::from_bits(more[1]);
            address = more[0];
            count += 1;
            let plain = TransmitControl::new()
                .with_length(control.length())
                .with_tag(control.tag())
                .with_tag_generation(control.tag_generation())
                .with_end_of_packet(control.end_of_packet())
                .with_report(control.report());
            if control != plain || more[2] != 0 || more[3] != 0 || control.length() == 0 {
                status = Status::BadDescriptor;
            }
        }
        if status == Status::Ok && self.frame.len() as u32 != extent.total_length() {
            status = Status::LengthMismatch;
        }
        if count > u16::from(super::TRANSMIT_CHAIN) {
            status = Status::ChainTooLong;
        }
        Some((words, control, count, status))
    }

    /// Sends the next frame of a queue, to itself.
    pub(super) fn send(&mut self, index: usize) -> Option<()> {
        let number = index as u32;
        let control: QueueControl = self.register(QUEUE_CONTROL.instance(number, QUEUE_PAIR_STRIDE));
        let slots_log2 = u32::from(control.transmit_slots_log2());
        let position = self.queues[index].transmit_done;
        let (words, last, count, mut status) = self.gather(index, position)?;
        let first = TransmitControl::from_bits(words[1]);
        let segment = TransmitExtent::from_bits(words[3]).maximum_segment();
        let numbers = if segment == 0 { 1 } else { self.frame.len().div_ceil(segment.into()) as u64 };
        let mut completion = ReceiveCompletion::default();
        let (mut sa_index, mut sequence, mut protocol) = (0, 0, ReceivedProtocol::Clear);
        match Security::of_number(first.security().into()) {
            Some(Security::Clear) if !control.transmit_clear_allowed() => status = Status::ClearNotAllowed,
            Some(Security::Clear) => {}
            Some(Security::Sa) => {
                let name = TransmitSa::from_bits(words[2]);
                match self.sas.get_mut(&name.index()) {
                    Some(sa) if sa.generation == name.generation() && sa.at_hard_limit() => {
                        sa.refused += 1;
                        status = Status::HardLimit;
                        sa_index = name.index();
                    }
                    Some(sa) if sa.generation == name.generation() => {
                        sa.sequence += numbers;
                        sa.packets += numbers;
                        sa.bytes += self.frame.len() as u64;
                        sa_index = name.index();
                        sequence = sa.sequence;
                        protocol = ReceivedProtocol::Esp;
                        completion.security = ReceiveSecurity::new()
                            .with_spi(sa.parameters.names.spi())
                            .with_cookie(sa.parameters.names.cookie());
                        completion.sa_generation = sa.generation.into();
                    }
                    _ => status = Status::StaleSa,
                }
            }
            Some(Security::PspKey) => {
                completion.security = ReceiveSecurity::new().with_spi(TransmitPsp::from_bits(words[2]).spi());
                protocol = ReceivedProtocol::Psp;
                sequence = 0x1000 + u64::from(position);
            }
            None => status = Status::BadDescriptor,
        }
        if status == Status::Ok && protocol == ReceivedProtocol::Esp {
            self.count(sa_index);
        }
        completion.completed = ReceiveCompleted::new().with_sa_index(sa_index);
        completion.iv = sequence;
        completion.sequence = sequence;
        completion.time_picoseconds = 2;
        completion.steering = ReceiveSteering::from_bits(self.extra.steering)
            .with_protocol(protocol.number() as u8)
            .with_psp_cookie(first.psp_cookie());
        if first.psp_cookie() {
            completion.sequence = words[8];
        }
        let queue = &mut self.queues[index];
        queue.transmit_done = position.wrapping_add(count.into());
        queue.unreported += count;
        if last.report() || status != Status::Ok {
            let number = queue.transmit_completions;
            queue.transmit_completions = number.wrapping_add(1);
            let mut completion = TransmitCompletion {
                completed: TransmitCompleted::new()
                    .with_descriptors(std::mem::take(&mut queue.unreported))
                    .with_tag(last.tag())
                    .with_tag_generation(last.tag_generation())
                    .with_sa_index(sa_index),
                sequence,
                time_picoseconds: 1,
                end: TransmitCompletionEnd::new()
                    .with_status(status.number() as u16)
                    .with_phase((number >> slots_log2) & 1 == 0),
            };
            if let Some(hook) = &mut self.on_transmit {
                hook(&mut completion);
            }
            let slot = u64::from(number & ((1 << slots_log2) - 1));
            let base = self.register(TRANSMIT_COMPLETION_BASE.instance(index as u32, QUEUE_PAIR_STRIDE));
            self.put_words(base + slot * TransmitCompletion::BYTES as u64, &completion.to_words());
            self.interrupt(index);
        }
        let frame = std::mem::take(&mut self.frame);
        if status == Status::Ok {
            self.deliver(index, &frame, completion);
        }
        if self.keep_sent {
            self.sent.push((words, frame.clone()));
        }
        self.frame = frame;
        Some(())
    }

    /// What the limits of an SA say to its counters.
    fn count(&mut self, index: u32) {
        let Some(sa) = self.sas.get(&index) else { return };
        let (counted, soft, hard) = sa.counted();
        let (parameters, causes) = (sa.parameters, sa.causes);
        for (none, limit, cause) in [
            (parameters.lifetime.no_soft_limit(), parameters.soft_limit, soft),
            (parameters.lifetime.no_hard_limit(), parameters.hard_limit, hard),
        ] {
            if !none && counted >= limit && causes & 1 << cause.number() == 0 {
                self.happen(cause, index);
            }
        }
    }

    /// Puts a frame into the next posted buffers, if there are enough.
    fn deliver(&mut self, index: usize, frame: &[u8], completion: ReceiveCompletion) -> Option<()> {
        let number = index as u32;
        let control: QueueControl = self.register(QUEUE_CONTROL.instance(number, QUEUE_PAIR_STRIDE));
        let slots_log2 = u32::from(control.receive_slots_log2());
        let mask = (1 << slots_log2) - 1;
        let posted = self.queues[index].receive_doorbell.wrapping_sub(self.queues[index].receive_done);
        let base = self.register(RECEIVE_RING_BASE.instance(number, QUEUE_PAIR_STRIDE));
        let mut rest = frame;
        for place in 0.. {
            let queue = &mut self.queues[index];
            if place >= posted {
                return None;
            }
            let slot = u64::from(queue.receive_done & mask);
            let words: [u64; 2] = self.words(base + slot * 16)?;
            let buffer = ReceiveControl::from_bits(words[1]);
            let length = rest.len().min(buffer.length().into());
            if place == 0 && control.receive_scatter() {
                let needed = frame.len().div_ceil(buffer.length().into()) as u32;
                if needed > posted || needed > super::RECEIVE_CHAIN.into() {
                    return None;
                }
            }
            let (memory, offset) = self.reach(words[0], length, true)?;
            memory.write(offset, &rest[..length]).unwrap();
            rest = &rest[length..];
            let more = control.receive_scatter() && !rest.is_empty();
            let mut part = if more { ReceiveCompletion::default() } else { completion };
            let queue = &mut self.queues[index];
            queue.receive_done = queue.receive_done.wrapping_add(1);
            let at = queue.receive_completions;
            queue.receive_completions = at.wrapping_add(1);
            part.completed = part
                .completed
                .with_length(length as u16)
                .with_tag(buffer.tag())
                .with_tag_generation(buffer.tag_generation());
            part.end = ReceiveCompletionEnd::new()
                .with_next_header(if more { 0 } else { self.extra.next_header })
                .with_more(more)
                .with_phase((at >> slots_log2) & 1 == 0);
            if let Some(hook) = &mut self.on_receive {
                hook(&mut part);
            }
            let base = self.register(RECEIVE_COMPLETION_BASE.instance(number, QUEUE_PAIR_STRIDE));
            let at = base + u64::from(at & mask) * ReceiveCompletion::BYTES as u64;
            self.put_words(at, &part.to_words());
            self.interrupt(index);
            if !more {
                break;
            }
        }
        Some(())
    }
}
