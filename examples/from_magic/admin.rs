//! The admin queue: one command at a time, SAs, and PSP keys.

use std::net::Ipv4Addr;

use cryptonic_pci::DmaAccess;
use cryptonic_pci::config::{COMMAND_BUS_MASTER, COMMAND_MEMORY};
use cryptonic_regs::admin::{
    AdminCompletion, AdminCompletionEnd, AdminStatus, Cipher, Command, CommandHead, CommandLengths,
    Direction, Mode, Opcode, PspAllocation, SaForm, SaNames, SaParameters, SaProtocol, SaWindow,
};
use cryptonic_regs::bar0::{
    ADMIN_COMMAND_BASE, ADMIN_COMPLETION_BASE, ADMIN_CONTROL, ADMIN_DOORBELL, ADMIN_STATUS, AdminControl,
    PSP_CONTROL, PspControl, SA_SLOTS,
};
use cryptonic_regs::descriptor::TransmitSa;

use super::function::{Arena, Function, Outcome};

const SLOTS_LOG2: u8 = 2;
const SLOTS: u32 = 1 << SLOTS_LOG2;
/// Where a parameter block stands behind the commands, and a reply behind the completions.
const BLOCK_OFFSET: usize = 4096;
const ARENA_BYTES: usize = 8192;

/// The admin queue.
pub struct Admin {
    /// Commands and parameter blocks: the device only reads them.
    commands: Arena,
    /// Completions and replies.
    completions: Arena,
    /// Commands so far, a free-running count. There are as many completions.
    issued: u32,
}

impl Admin {
    // guide: admin queue
    /// Turns the admin queue on. From here on the device starts transactions of its own.
    pub fn start(function: &Function) -> Outcome<Admin> {
        let commands = function.arena(ARENA_BYTES, DmaAccess::DeviceReads)?;
        let completions = function.arena(ARENA_BYTES, DmaAccess::DeviceReadsAndWrites)?;
        function.set_command(COMMAND_MEMORY | COMMAND_BUS_MASTER)?;
        function.write(ADMIN_COMMAND_BASE, commands.iova)?;
        function.write(ADMIN_COMPLETION_BASE, completions.iova)?;
        function.write(ADMIN_CONTROL, AdminControl::new().with_enable(true).with_slots_log2(SLOTS_LOG2))?;
        function.poll("admin queue", || {
            let status = function.read(ADMIN_STATUS)?;
            if status.stopped() {
                return Err("the admin queue stopped: a base or a size is out of range".into());
            }
            Ok(status.enabled().then_some(()))
        })?;
        Ok(Admin { commands, completions, issued: 0 })
    }
    // guide: end

    // guide: command
    /// Runs a command and gives its result.
    pub fn run(&mut self, function: &Function, request: Request) -> Outcome<u64> {
        let index = self.issued;
        let slot = (index % SLOTS) as usize;
        // A place that a command does not use is address 0, length 0; anything else is refused.
        let place = |arena: &Arena, used: bool| if used { arena.iova + BLOCK_OFFSET as u64 } else { 0 };
        let command = Command {
            head: CommandHead::new()
                .with_opcode(request.opcode.number() as u16)
                .with_identifier(index as u16),
            parameter_address: place(&self.commands, !request.parameters.is_empty()),
            reply_address: place(&self.completions, request.reply_bytes != 0),
            lengths: CommandLengths::new()
                .with_parameter_bytes(size_of_val(request.parameters) as u32)
                .with_reply_bytes(request.reply_bytes as u32),
            argument_0: request.argument,
            ..Command::default()
        };
        self.commands.memory.write_words(BLOCK_OFFSET, request.parameters)?;
        self.commands.memory.write_words(slot * Command::BYTES, &command.to_words())?;
        self.issued = index.wrapping_add(1);
        function.write(ADMIN_DOORBELL, self.issued)?;

        let phase = (index / SLOTS).is_multiple_of(2);
        let at = slot * AdminCompletion::BYTES;
        let answer = function.poll("answer to a command", || {
            let end = AdminCompletionEnd::from_bits(self.completions.memory.read_word_acquire(at + 8)?);
            Ok((end.phase() == phase).then_some(end))
        });
        if answer.is_err() {
            // The device may still read the parameters. A key that is wiped under its hands would be
            // another key, so it goes first.
            function.host.reset()?;
        }
        self.commands.memory.zeroise(BLOCK_OFFSET, size_of_val(request.parameters))?;
        let end = answer?;
        if end.identifier() != index as u16 {
            return Err("the answer is to another command".into());
        }
        match AdminStatus::of_number(u32::from(end.status())) {
            Some(AdminStatus::Ok) => Ok(self.completions.memory.read_word(at)?),
            status => Err(format!("{:?} ended with {status:?}", request.opcode).into()),
        }
    }
    // guide: end

    // guide: install
    /// Installs an SA. Gives the reference by which descriptors and later commands name it.
    pub fn install(&mut self, function: &Function, sa: &SaParameters) -> Outcome<TransmitSa> {
        let request = Request { parameters: &sa.to_words(), ..Request::new(Opcode::SaInstall) };
        let result = self.run(function, request)?;
        let (index, generation) = (result as u32, (result >> 32) as u32);
        if index >= function.read(SA_SLOTS)? || generation == 0 {
            return Err("the device names a slot that it does not have".into());
        }
        Ok(TransmitSa::new().with_index(index).with_generation(generation))
    }

    /// Deletes an SA. When this returns, no packet uses it and every copy of its key is wiped.
    pub fn delete(&mut self, function: &Function, sa: TransmitSa) -> Outcome<()> {
        let argument = u64::from(sa.generation()) << 32 | u64::from(sa.index());
        self.run(function, Request { argument, ..Request::new(Opcode::SaDelete) }).map(drop)
    }
    // guide: end

    // guide: psp keys
    /// Makes a device key, opens PSP packets of version 0, and allocates one SPI with its key.
    pub fn psp_allocate(&mut self, function: &Function) -> Outcome<PspAllocation> {
        self.run(function, Request::new(Opcode::PspRotate))?;
        let version = 0;
        function
            .write(PSP_CONTROL, PspControl::new().with_receive_versions(1 << version).with_udp_port(1000))?;
        let request = Request {
            argument: version << 32 | 1,
            reply_bytes: PspAllocation::BYTES,
            ..Request::new(Opcode::PspAllocate)
        };
        if self.run(function, request)? != 1 {
            return Err("the device allocated another number of SPIs".into());
        }
        let reply = &self.completions.memory;
        let mut words = [0; PspAllocation::WORDS];
        reply.read_words(BLOCK_OFFSET, &mut words)?;
        // The reply holds a key, and that memory is the device's to write: no copy stays in it.
        reply.zeroise(BLOCK_OFFSET, PspAllocation::BYTES)?;
        let allocation = PspAllocation::of_words(&words);
        if allocation.spi.key_bytes() != 16 || allocation.spi.spi() << 1 == 0 {
            return Err("the device gave an SPI or a key that cannot be".into());
        }
        Ok(allocation)
    }
    // guide: end

    /// Gives the queue's memory back. The device can no longer start transactions.
    pub fn close(self, function: &Function) -> Outcome<()> {
        function.release(&self.commands)?;
        function.release(&self.completions)
    }
}

/// A command.
pub struct Request<'a> {
    /// What to do.
    pub opcode: Opcode,
    /// Argument 0.
    pub argument: u64,
    /// Words of the parameter block.
    pub parameters: &'a [u64],
    /// Bytes that the reply may take.
    pub reply_bytes: usize,
}

impl Request<'_> {
    /// A command without argument, parameters and reply.
    pub fn new(opcode: Opcode) -> Self {
        Request { opcode, argument: 0, parameters: &[], reply_bytes: 0 }
    }
}

// guide: sa parameters
/// What both ends of an ESP tunnel know: ESN, AES-GCM-128 and a full ICV.
pub fn tunnel(spi: u32, key: &[u8; 16], salt: [u8; 4]) -> SaParameters {
    let [key_0, key_1] = [&key[..8], &key[8..]].map(|half| little_endian(half).into());
    SaParameters {
        form: SaForm::new()
            .with_protocol(SaProtocol::Esp.number() as u8)
            .with_mode(Mode::Tunnel.number() as u8)
            .with_cipher(Cipher::AesGcm128.number() as u8)
            .with_icv_bytes(16)
            .with_esn(true),
        names: SaNames::new().with_spi(spi),
        key_0,
        key_1,
        salt: u64::from(u32::from_le_bytes(salt)).into(),
        ..SaParameters::default()
    }
}

/// The end that protects: it builds the outer header, and begins with sequence number 1.
pub fn outbound(sa: SaParameters, source: Ipv4Addr, destination: Ipv4Addr) -> SaParameters {
    let form = sa.form.with_direction(Direction::Out.number() as u8).with_ttl(64).with_copy_dscp(true);
    // An IPv4 address stands in the last four of 16 bytes: in the upper half of the second word.
    let last_four = |address: Ipv4Addr| u64::from(u32::from_le_bytes(address.octets())) << 32;
    SaParameters {
        form,
        tunnel_source_1: last_four(source),
        tunnel_destination_1: last_four(destination),
        ..sa
    }
}

/// The end that opens: a replay window, the receive queue, and a cookie that comes back in completions.
pub fn inbound(sa: SaParameters, receive_queue: u16, cookie: u32) -> SaParameters {
    let form = sa.form.with_direction(Direction::In.number() as u8).with_receive_queue(receive_queue);
    SaParameters {
        form,
        names: sa.names.with_cookie(cookie),
        window: SaWindow::new().with_replay_window(64),
        ..sa
    }
}
// guide: end

/// Up to eight bytes in memory order as a word.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
