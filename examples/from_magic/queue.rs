//! A queue pair: rings, descriptors, doorbells and completions.

use cryptonic_pci::host::Wake;
use cryptonic_pci::{Bar, DmaAccess, Time};
use cryptonic_regs::Status;
use cryptonic_regs::bar0::{
    QUEUE_CONTROL, QUEUE_PAIR_STRIDE, QUEUE_STATUS, QueueControl, QueueStatus, RECEIVE_COMPLETION_BASE,
    RECEIVE_RING_BASE, TRANSMIT_COMPLETION_BASE, TRANSMIT_RING_BASE,
};
use cryptonic_regs::completion::{
    ReceiveCompletion, ReceiveCompletionEnd, TransmitCompletion, TransmitCompletionEnd,
};
use cryptonic_regs::descriptor::{
    ReceiveControl, ReceiveDescriptor, Security, TransmitControl, TransmitDescriptor, TransmitExtent,
    TransmitPsp, TransmitSa, inline_offset, inline_room,
};
use cryptonic_regs::doorbell::{
    DOORBELL_PAGE_BYTES, INTERRUPT_ARM, PUSH_WINDOWS, RECEIVE_DOORBELL, TRANSMIT_DOORBELL,
};

use super::function::{Arena, Function, Outcome};

/// Eight slots a ring: so few that every ring wraps within a short story.
const SLOTS_LOG2: u8 = 3;
/// Slots of each ring.
pub const SLOTS: u32 = 1 << SLOTS_LOG2;
const STRIDE_LOG2: u8 = 6;
const STRIDE: usize = 1 << STRIDE_LOG2;
const BUFFER_BYTES: usize = 2048;
/// In what the device only reads: the transmit ring, the receive ring, frames to send.
const TRANSMIT_RING: usize = 0;
const RECEIVE_RING: usize = 0x800;
/// In what the device writes: transmit completions, receive completions, buffers.
const TRANSMIT_COMPLETIONS: usize = 0;
const RECEIVE_COMPLETIONS: usize = 0x800;
/// In both: where frames begin.
const FRAMES: usize = 0x1000;
const ARENA_BYTES: usize = FRAMES + SLOTS as usize * BUFFER_BYTES;
/// The vector of the queue's interrupt.
const VECTOR: u8 = 1;

/// A queue pair. Every count runs freely; the slot is the count modulo the number of slots.
pub struct Queue {
    index: u32,
    reads: Arena,
    writes: Arena,
    /// Transmit descriptors written, and taken back.
    produced: u32,
    retired: u32,
    /// Transmit completions taken: fewer than descriptors, so it has an index of its own.
    completions: u32,
    /// Receive descriptors written, and receive completions taken.
    posted: u32,
    received: u32,
    /// How often each receive buffer was posted: its tag generation.
    generations: [u8; SLOTS as usize],
    /// Pushes so far: the windows take turns.
    pushes: usize,
}

/// What became of a packet that was to be sent.
pub struct Ended {
    /// `Ok`, or why it was not sent.
    pub status: Status,
    /// Sequence number or IV that it took.
    pub sequence: u64,
}

/// A packet that came.
pub struct Received {
    /// `Ok`, or what is wrong with it.
    pub status: Status,
    /// What the completion says.
    pub completion: ReceiveCompletion,
    /// The frame as it was before its protection.
    pub frame: Vec<u8>,
}

/// How a packet is protected.
pub enum Protection<'a> {
    /// By an SA in its slot.
    Sa(TransmitSa),
    /// By PSP version 0, with the key in the descriptor.
    Psp {
        /// The SPI.
        spi: u32,
        /// The key as it stands in memory, the words behind a 128-bit key 0.
        key: &'a [u64; 4],
    },
}

impl Queue {
    // guide: queue pair
    /// Sets a queue pair up, with a buffer in every slot of its receive ring.
    pub fn start(function: &Function, index: u32) -> Outcome<Queue> {
        let reads = function.arena(ARENA_BYTES, DmaAccess::DeviceReads)?;
        let writes = function.arena(ARENA_BYTES, DmaAccess::DeviceReadsAndWrites)?;
        let mut queue = Queue {
            index,
            reads,
            writes,
            produced: 0,
            retired: 0,
            completions: 0,
            posted: 0,
            received: 0,
            generations: [0; SLOTS as usize],
            pushes: 0,
        };
        queue.turn_on(function)?;
        Ok(queue)
    }

    fn turn_on(&mut self, function: &Function) -> Outcome<()> {
        // Both completion rings are zeros here: the phase of the first pass is 1.
        for (register, iova) in [
            (TRANSMIT_RING_BASE, self.reads.iova + TRANSMIT_RING as u64),
            (TRANSMIT_COMPLETION_BASE, self.writes.iova + TRANSMIT_COMPLETIONS as u64),
            (RECEIVE_RING_BASE, self.reads.iova + RECEIVE_RING as u64),
            (RECEIVE_COMPLETION_BASE, self.writes.iova + RECEIVE_COMPLETIONS as u64),
        ] {
            function.write(register.instance(self.index, QUEUE_PAIR_STRIDE), iova)?;
        }
        let control = QueueControl::new()
            .with_enable(true)
            .with_transmit_stride_log2(STRIDE_LOG2)
            .with_transmit_slots_log2(SLOTS_LOG2)
            .with_receive_slots_log2(SLOTS_LOG2)
            .with_vector(VECTOR);
        function.write(QUEUE_CONTROL.instance(self.index, QUEUE_PAIR_STRIDE), control)?;
        function.poll("queue pair", || {
            let status = self.status(function)?;
            if status.quarantined() {
                return Err(
                    format!("the device refuses it: {:?}", Status::of_number(status.cause().into())).into()
                );
            }
            Ok(status.enabled().then_some(()))
        })?;
        for tag in 0..SLOTS as u16 {
            self.post(tag)?;
        }
        self.ring_receive(function)
    }

    /// What the device says of the queue pair.
    pub fn status(&self, function: &Function) -> Outcome<QueueStatus> {
        function.read(QUEUE_STATUS.instance(self.index, QUEUE_PAIR_STRIDE))
    }
    // guide: end

    // guide: post
    /// Writes the descriptor of a receive buffer; it is posted when the doorbell rings.
    fn post(&mut self, tag: u16) -> Outcome<()> {
        let generation = self.generations.get_mut(usize::from(tag)).ok_or("no such buffer")?;
        *generation = generation.wrapping_add(1);
        let descriptor = ReceiveDescriptor {
            address: self.writes.iova + (FRAMES + usize::from(tag) * BUFFER_BYTES) as u64,
            control: ReceiveControl::new()
                .with_length(BUFFER_BYTES as u16)
                .with_tag(tag)
                .with_tag_generation(*generation),
        };
        let slot = (self.posted % SLOTS) as usize;
        self.reads
            .memory
            .write_words(RECEIVE_RING + slot * ReceiveDescriptor::BYTES, &descriptor.to_words())?;
        self.posted = self.posted.wrapping_add(1);
        Ok(())
    }

    fn ring_receive(&self, function: &Function) -> Outcome<()> {
        Ok(function.host.write32(Bar::Bar2, self.page() + RECEIVE_DOORBELL.offset, self.posted)?)
    }

    /// Where the queue's page in BAR2 begins.
    fn page(&self) -> u32 {
        self.index * DOORBELL_PAGE_BYTES
    }
    // guide: end

    // guide: transmit
    /// Gives a frame to the device.
    pub fn transmit(&mut self, function: &Function, frame: &[u8], protection: &Protection) -> Outcome<()> {
        let slot = self.free_slot(frame)?;
        let place = FRAMES + slot * BUFFER_BYTES;
        self.reads.memory.write(place, frame)?;
        let (control, security, key) = self.words(protection);
        let descriptor = TransmitDescriptor {
            address: self.reads.iova + place as u64,
            control: control.with_length(frame.len().try_into()?),
            security,
            extent: TransmitExtent::new().with_total_length(frame.len().try_into()?),
        };
        let at = TRANSMIT_RING + slot * STRIDE;
        self.reads.memory.write_words(at, &descriptor.to_words())?;
        self.reads.memory.write_words(at + TransmitDescriptor::BYTES, key.unwrap_or(&[0; 4]))?;
        self.produced = self.produced.wrapping_add(1);
        self.ring_transmit(function, self.produced)
    }

    /// The slot of the next frame. A slot is the host's again when its completion is there.
    fn free_slot(&self, frame: &[u8]) -> Outcome<usize> {
        if frame.len() > BUFFER_BYTES {
            return Err("the frame is longer than its place".into());
        }
        if self.produced.wrapping_sub(self.retired) >= SLOTS {
            return Err("the ring is full".into());
        }
        Ok((self.produced % SLOTS) as usize)
    }

    /// What a descriptor says of its tag and of its protection: control, security word, key.
    fn words<'a>(&self, protection: &Protection<'a>) -> (TransmitControl, u64, Option<&'a [u64; 4]>) {
        let control = TransmitControl::new()
            .with_tag((self.produced % SLOTS) as u16)
            .with_tag_generation((self.produced / SLOTS) as u8)
            .with_report(true)
            .with_end_of_packet(true);
        match *protection {
            Protection::Sa(sa) => (control.with_security(Security::Sa.number() as u8), sa.into_bits(), None),
            Protection::Psp { spi, key } => (
                control.with_security(Security::PspKey.number() as u8).with_psp_version(0),
                TransmitPsp::new().with_spi(spi).into_bits(),
                Some(key),
            ),
        }
    }

    /// Rings the transmit doorbell with a producer index.
    pub fn ring_transmit(&self, function: &Function, producer: u32) -> Outcome<()> {
        Ok(function.host.write32(Bar::Bar2, self.page() + TRANSMIT_DOORBELL.offset, producer)?)
    }
    // guide: end

    // guide: completed
    /// Takes the next transmit completion, if it is there.
    pub fn completed(&mut self) -> Outcome<Option<Ended>> {
        let slot = (self.completions % SLOTS) as usize;
        let at = TRANSMIT_COMPLETIONS + slot * TransmitCompletion::BYTES;
        let memory = &self.writes.memory;
        let end = TransmitCompletionEnd::from_bits(memory.read_word_acquire(at + 24)?);
        if end.phase() != (self.completions / SLOTS).is_multiple_of(2) {
            return Ok(None);
        }
        // One private copy: what is checked is what is used, whatever the device writes meanwhile.
        let mut words = [0; TransmitCompletion::WORDS];
        memory.read_words(at, &mut words)?;
        let TransmitCompletion { completed, sequence, .. } = TransmitCompletion::of_words(&words);
        let count = u32::from(completed.descriptors());
        if count == 0 || count > self.produced.wrapping_sub(self.retired) {
            return Err("the device retires descriptors that it does not have".into());
        }
        let last = self.retired.wrapping_add(count - 1);
        let expected = ((last % SLOTS) as u16, (last / SLOTS) as u8);
        if (completed.tag(), completed.tag_generation()) != expected {
            return Err("the completion is of another descriptor".into());
        }
        let status = Status::of_number(end.status().into()).ok_or("no such status")?;
        // The slots are the host's again, and with them what keys they hold.
        for index in 0..count {
            let slot = (self.retired.wrapping_add(index) % SLOTS) as usize;
            self.reads.memory.zeroise(TRANSMIT_RING + slot * STRIDE, STRIDE)?;
        }
        self.retired = self.retired.wrapping_add(count);
        self.completions = self.completions.wrapping_add(1);
        Ok(Some(Ended { status, sequence }))
    }
    // guide: end

    // guide: receive
    /// Takes the next received packet, if it is there. Its buffer goes back to the device.
    pub fn receive(&mut self, function: &Function) -> Outcome<Option<Received>> {
        let Some(end) = self.receive_completion_end()? else { return Ok(None) };
        let slot = (self.received % SLOTS) as usize;
        let mut words = [0; ReceiveCompletion::WORDS];
        self.writes.memory.read_words(RECEIVE_COMPLETIONS + slot * ReceiveCompletion::BYTES, &mut words)?;
        let completion = ReceiveCompletion { end, ..ReceiveCompletion::of_words(&words) };
        let (tag, length) = (completion.completed.tag(), usize::from(completion.completed.length()));
        // The tag is a number that the device wrote: it is not an index before it is checked.
        let posted = self.generations.get(usize::from(tag));
        if posted != Some(&completion.completed.tag_generation()) || length > BUFFER_BYTES {
            return Err("the completion is of no buffer that was posted".into());
        }
        let mut frame = vec![0; length];
        self.writes.memory.read(FRAMES + usize::from(tag) * BUFFER_BYTES, &mut frame)?;
        self.received = self.received.wrapping_add(1);
        self.post(tag)?;
        self.ring_receive(function)?;
        let status = Status::of_number(end.status().into()).ok_or("no such status")?;
        Ok(Some(Received { status, completion, frame }))
    }

    /// The last word of the next receive completion, if it is there.
    fn receive_completion_end(&self) -> Outcome<Option<ReceiveCompletionEnd>> {
        let slot = (self.received % SLOTS) as usize;
        let at = RECEIVE_COMPLETIONS + slot * ReceiveCompletion::BYTES;
        let end = ReceiveCompletionEnd::from_bits(self.writes.memory.read_word_acquire(at + 56)?);
        Ok((end.phase() == (self.received / SLOTS).is_multiple_of(2)).then_some(end))
    }
    // guide: end

    // guide: sleep
    /// Sleeps until a packet is there, or the deadline.
    pub fn sleep(&self, function: &Function, deadline: Time) -> Outcome<Wake> {
        function.host.write32(Bar::Bar2, self.page() + INTERRUPT_ARM.offset, 1)?;
        // The answer to a read comes behind the write that arms, and behind every completion that was
        // written before it: what the interrupt will not announce is visible now.
        if self.status(function)?.quarantined() {
            return Err("the device stopped the queue pair".into());
        }
        if self.receive_completion_end()?.is_some() {
            return Ok(Wake::Interrupt);
        }
        Ok(function.host.wait(u16::from(VECTOR), deadline)?)
    }
    // guide: end

    // guide: push
    /// Gives a frame to the device whose head stands in the slot, and brings the slot along with the doorbell
    /// if there are push windows.
    pub fn transmit_inline(
        &mut self,
        function: &Function,
        frame: &[u8],
        protection: &Protection,
        push: bool,
    ) -> Outcome<()> {
        let slot = self.free_slot(frame)?;
        let place = FRAMES + slot * BUFFER_BYTES;
        let (control, security, key) = self.words(protection);
        let producer = self.produced.wrapping_add(1);
        let head = InlineHead { control, security, key, address: self.reads.iova + place as u64, producer };
        let (bytes, inline) = inline_slot::<STRIDE>(&head, frame)?;
        self.reads.memory.write(place, frame.get(inline..).unwrap_or(&[]))?;
        self.reads.memory.write(TRANSMIT_RING + slot * STRIDE, &bytes)?;
        self.produced = producer;
        if !push {
            return self.ring_transmit(function, producer);
        }
        let window = self.page() + PUSH_WINDOWS[self.pushes % PUSH_WINDOWS.len()];
        self.pushes = self.pushes.wrapping_add(1);
        let (lines, _) = bytes.as_chunks::<64>();
        for (line, offset) in lines.iter().zip((window..).step_by(64)) {
            function.host.push64(Bar::Bar2, offset, line)?;
        }
        Ok(())
    }
    // guide: end

    // guide: restart
    /// Turns the queue pair off and waits until it is. Nothing of it is under way after this.
    fn turn_off(&mut self, function: &Function) -> Outcome<()> {
        function.write(QUEUE_CONTROL.instance(self.index, QUEUE_PAIR_STRIDE), QueueControl::new())?;
        function.poll("end of a queue pair", || {
            let status = self.status(function)?;
            Ok((!status.enabled() && !status.quarantined()).then_some(()))
        })
    }

    /// Begins anew after a quarantine: every index is 0 again, so every phase is too.
    pub fn restart(&mut self, function: &Function) -> Outcome<()> {
        self.turn_off(function)?;
        self.reads.memory.zeroise(0, FRAMES)?;
        self.writes.memory.zeroise(0, FRAMES)?;
        (self.produced, self.retired, self.completions) = (0, 0, 0);
        (self.posted, self.received) = (0, 0);
        self.turn_on(function)
    }

    /// Turns the queue pair off and takes its memory back.
    pub fn close(mut self, function: &Function) -> Outcome<()> {
        self.turn_off(function)?;
        function.release(&self.reads)?;
        function.release(&self.writes)
    }
    // guide: end
}

// guide: inline
/// What a slot with inline data says before it.
pub struct InlineHead<'a> {
    /// Tag, flags and security; the length is set here.
    pub control: TransmitControl,
    /// SA, or SPI.
    pub security: u64,
    /// The PSP key.
    pub key: Option<&'a [u64; 4]>,
    /// Where the part of the frame stands that has no room in the slot.
    pub address: u64,
    /// Producer index behind this descriptor: a push is a doorbell too.
    pub producer: u32,
}

/// The bytes of a slot with as much of the frame in it as it has room for, and how much that is.
pub fn inline_slot<const STRIDE: usize>(head: &InlineHead, frame: &[u8]) -> Outcome<([u8; STRIDE], usize)> {
    let with_key = head.key.is_some();
    let room = inline_room(STRIDE as u32, with_key, false).ok_or("the stride has no room for a key")?;
    let inline = frame.len().min(room as usize);
    let (in_slot, behind) = frame.split_at(inline);
    let descriptor = TransmitDescriptor {
        address: if behind.is_empty() { 0 } else { head.address },
        control: head.control.with_length(behind.len().try_into()?),
        security: head.security,
        extent: TransmitExtent::new()
            .with_total_length(frame.len().try_into()?)
            .with_inline_bytes(inline as u8)
            .with_producer(head.producer as u16),
    };
    let mut bytes = [0; STRIDE];
    let words = descriptor.to_words();
    let words = words.iter().chain(head.key.into_iter().flatten());
    for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    let start = inline_offset(with_key, false) as usize;
    bytes[start..start + inline].copy_from_slice(in_slot);
    Ok((bytes, inline))
}
// guide: end
