//! The admin queue: one command at a time.

use std::rc::Rc;

use cryptonic_pci::{Bar, DmaAccess};
use cryptonic_regs::admin::{AdminCompletionEnd, AdminStatus, Command, CommandHead, CommandLengths, Opcode};
use cryptonic_regs::bar0::{
    ADMIN_COMMAND_BASE, ADMIN_COMPLETION_BASE, ADMIN_CONTROL, ADMIN_DOORBELL, ADMIN_STATUS, AdminControl,
    DEVICE_STATUS,
};

use crate::shared::{Arena, Shared};
use crate::{AdminAnomaly, Error};

const SLOTS_LOG2: u8 = 4;
const SLOTS: u32 = 1 << SLOTS_LOG2;
const COMPLETION_BYTES: usize = 16;
/// Where parameter blocks stand behind the ring of commands, and replies behind that of completions.
const BLOCK_OFFSET: usize = 4096;
/// Bytes that a parameter block or a reply may take at least.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// A command to be run.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) opcode: Opcode,
    pub(crate) arguments: [u64; 2],
    /// Bytes of the parameter block, which stands in [`AdminQueue::set_parameter`]'s place.
    pub(crate) parameter_bytes: usize,
    pub(crate) reply_bytes: usize,
}

impl Request {
    pub(crate) fn new(opcode: Opcode) -> Self {
        Request { opcode, arguments: [0; 2], parameter_bytes: 0, reply_bytes: 0 }
    }
}

pub(crate) struct AdminQueue {
    shared: Rc<Shared>,
    /// Commands and parameter blocks: the device only reads them.
    reads: Arena,
    /// Completions and replies.
    writes: Arena,
    /// Bytes that a parameter block or a reply may take.
    block_bytes: usize,
    /// Commands issued so far: a free-running count, and the identifier of the next.
    issued: u32,
    stopped: bool,
}

impl AdminQueue {
    /// Sets the queue up for parameter blocks of so many bytes; it runs once [`Self::start`] has turned it on.
    pub(crate) fn new(shared: Rc<Shared>, parameter_bytes: usize) -> Result<Self, Error> {
        let block_bytes = parameter_bytes.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES);
        let reads = shared.arena(BLOCK_OFFSET + block_bytes, DmaAccess::DeviceReads)?;
        let writes = shared.arena(BLOCK_OFFSET + block_bytes, DmaAccess::DeviceReadsAndWrites)?;
        Ok(AdminQueue { shared, reads, writes, block_bytes, issued: 0, stopped: false })
    }

    /// Turns the queue on. Bus mastering is on by now.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        let shared = &self.shared;
        shared.write(ADMIN_COMMAND_BASE, self.reads.iova)?;
        shared.write(ADMIN_COMPLETION_BASE, self.writes.iova)?;
        let control = AdminControl::new().with_enable(true).with_slots_log2(SLOTS_LOG2).with_vector(0);
        shared.write(ADMIN_CONTROL, control)?;
        shared.poll(shared.command_timeout, "ready for commands", || {
            let status = shared.read(ADMIN_STATUS)?;
            if status.stopped() { Err(Error::AdminStopped) } else { Ok(status.enabled().then_some(())) }
        })
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Puts words into the parameter block, from word `first` on.
    pub(crate) fn set_parameter(&self, first: usize, words: &[u64]) -> Result<(), Error> {
        for (index, word) in words.iter().enumerate() {
            self.reads.memory.write_word(BLOCK_OFFSET + (first + index) * 8, *word)?;
        }
        Ok(())
    }

    /// Reads a word of the reply.
    pub(crate) fn reply(&self, word: usize) -> Result<u64, Error> {
        Ok(self.writes.memory.read_word(BLOCK_OFFSET + word * 8)?)
    }

    /// Zeroises the reply.
    pub(crate) fn clear_reply(&self) {
        let _ = self.writes.memory.zeroise(BLOCK_OFFSET, self.block_bytes);
    }

    /// Runs a command and gives its result. The parameter block is zeroised in any case.
    pub(crate) fn run(&mut self, request: Request) -> Result<u64, Error> {
        let result = if self.shared.closed.get() {
            Err(Error::Closed)
        } else if self.stopped {
            Err(Error::AdminStopped)
        } else {
            self.issue_checked(request)
        };
        let _ = self.reads.memory.zeroise(BLOCK_OFFSET, self.block_bytes);
        result
    }

    /// Issues a command; after a failure that leaves the device's state unknown the queue is out of use.
    fn issue_checked(&mut self, request: Request) -> Result<u64, Error> {
        let result = self.issue(request);
        match &result {
            Ok(_) | Err(Error::Refused { .. }) => {}
            // The device may still be reading the parameter block: what it makes of a key that is zeroised
            // under its hands must not come into use.
            Err(_) => {
                self.stopped = true;
                if request.parameter_bytes != 0 {
                    self.shared.closed.set(true);
                    let _ = self.shared.host.reset();
                }
            }
        }
        result
    }

    fn issue(&mut self, request: Request) -> Result<u64, Error> {
        let index = self.issued;
        let identifier = index as u16;
        // A reply that the device does not write must not pass for the one before.
        self.writes.memory.zeroise(BLOCK_OFFSET, request.reply_bytes)?;
        let address =
            |arena: &Arena, bytes: usize| if bytes == 0 { 0 } else { arena.iova + BLOCK_OFFSET as u64 };
        let command = Command {
            head: CommandHead::new().with_opcode(request.opcode.number() as u16).with_identifier(identifier),
            parameter_address: address(&self.reads, request.parameter_bytes),
            reply_address: address(&self.writes, request.reply_bytes),
            lengths: CommandLengths::new()
                .with_parameter_bytes(request.parameter_bytes as u32)
                .with_reply_bytes(request.reply_bytes as u32),
            argument_0: request.arguments[0],
            argument_1: request.arguments[1],
            ..Command::default()
        };
        let slot = (index % SLOTS) as usize;
        for (word, value) in command.to_words().into_iter().enumerate() {
            self.reads.memory.write_word(slot * Command::BYTES + word * 8, value)?;
        }
        self.issued = index.wrapping_add(1);
        let shared = &self.shared;
        shared.host.write32(Bar::Bar0, ADMIN_DOORBELL.offset, self.issued)?;

        let phase = (index / SLOTS) & 1 == 0;
        let completion = slot * COMPLETION_BYTES;
        let memory = &self.writes.memory;
        let answered = shared.poll(shared.command_timeout, "done with a command", || {
            let end = AdminCompletionEnd::from_bits(memory.read_word_acquire(completion + 8)?);
            Ok((end.phase() == phase).then_some(end))
        });
        let end = match answered {
            Ok(end) => end,
            Err(late) => {
                shared.read(DEVICE_STATUS)?; // Gone is a better answer than late.
                return Err(late);
            }
        };
        let result = memory.read_word(completion)?;
        let command = request.opcode;
        if end.identifier() != identifier {
            return Err(Error::Anomaly { command, anomaly: AdminAnomaly::Identifier });
        }
        match AdminStatus::of_number(u32::from(end.status())) {
            Some(AdminStatus::Ok) => Ok(result),
            Some(status) => Err(Error::Refused { command, status, result }),
            None => Err(Error::Anomaly { command, anomaly: AdminAnomaly::Status }),
        }
    }

    /// Takes the memory back and zeroises it. Bus mastering is off by now.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.stopped = true;
        let result = self.shared.unmap(&self.reads).and(self.shared.unmap(&self.writes));
        for arena in [&self.reads, &self.writes] {
            let _ = arena.memory.zeroise(0, arena.memory.bytes());
        }
        Ok(result?)
    }
}
