//! The admin queue: one command at a time, and SAs.

use std::net::Ipv4Addr;

use cryptonic_pci::DmaAccess;
use cryptonic_pci::config::{COMMAND_BUS_MASTER, COMMAND_MEMORY};
use cryptonic_regs::admin::{
    AdminCompletion, AdminCompletionEnd, AdminStatus, Cipher, Command, CommandHead, CommandLengths,
    Direction, InstalledSa, LifetimeKind, Mode, Opcode, SaForm, SaLifetime, SaNames, SaParameters,
    SaProtocol, SaStateReply, SaWindow,
};
use cryptonic_regs::bar0::{
    ADMIN_COMMAND_BASE, ADMIN_COMPLETION_BASE, ADMIN_CONTROL, ADMIN_DOORBELL, ADMIN_STATUS, AdminControl,
    SA_SLOTS,
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
            argument_0: request.arguments[0],
            argument_1: request.arguments[1],
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

    // guide: reply
    /// Takes the reply of the last command. None of it stays in memory that is the device's to write: it may hold keys.
    pub fn reply<const WORDS: usize>(&self) -> Outcome<[u64; WORDS]> {
        let mut words = [0; WORDS];
        self.completions.memory.read_words(BLOCK_OFFSET, &mut words)?;
        self.completions.memory.zeroise(BLOCK_OFFSET, size_of_val(&words))?;
        Ok(words)
    }
    // guide: end

    // guide: install
    /// Installs SAs by one command: all of them or none, and all valid from one moment on. Gives the references by which
    /// descriptors and later commands name them.
    pub fn install<const N: usize>(
        &mut self,
        function: &Function,
        sas: [SaParameters; N],
    ) -> Outcome<[TransmitSa; N]> {
        let parameters: Vec<u64> = sas.iter().flat_map(SaParameters::to_words).collect();
        let request = Request {
            arguments: [N as u64, 0],
            parameters: &parameters,
            reply_bytes: N * size_of::<InstalledSa>(),
            ..Request::new(Opcode::SaInstall)
        };
        self.run(function, request)?;
        let slots = function.read(SA_SLOTS)?;
        let installed = self.reply::<N>()?.map(InstalledSa::from_bits);
        if installed.iter().any(|sa| sa.index() >= slots || sa.generation() == 0) {
            return Err("the device names a slot that it does not have".into());
        }
        Ok(installed.map(|sa| TransmitSa::new().with_index(sa.index()).with_generation(sa.generation())))
    }

    /// Deletes an SA. When this returns, no packet uses it and every copy of its key is wiped.
    pub fn delete(&mut self, function: &Function, sa: TransmitSa) -> Outcome<()> {
        let arguments = [slot_argument(sa), 0];
        self.run(function, Request { arguments, ..Request::new(Opcode::SaDelete) }).map(drop)
    }
    // guide: end

    // guide: arm
    /// Arms the soft limit of an SA anew: notice comes once more, at `soft_limit`.
    pub fn arm(&mut self, function: &Function, sa: TransmitSa, soft_limit: u64) -> Outcome<()> {
        let arguments = [slot_argument(sa), soft_limit];
        self.run(function, Request { arguments, ..Request::new(Opcode::SaArm) }).map(drop)
    }

    /// What an SA has counted, and what its limits are.
    pub fn query(&mut self, function: &Function, sa: TransmitSa) -> Outcome<SaStateReply> {
        let arguments = [slot_argument(sa), 0];
        let reply_bytes = SaStateReply::BYTES;
        self.run(function, Request { arguments, reply_bytes, ..Request::new(Opcode::SaQuery) })?;
        Ok(SaStateReply::of_words(&self.reply()?))
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
    /// Arguments 0 and 1; 0 where the command has none.
    pub arguments: [u64; 2],
    /// Words of the parameter block.
    pub parameters: &'a [u64],
    /// Bytes that the reply may take.
    pub reply_bytes: usize,
}

impl Request<'_> {
    /// A command without arguments, parameters and reply.
    pub fn new(opcode: Opcode) -> Self {
        Request { opcode, arguments: [0; 2], parameters: &[], reply_bytes: 0 }
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
        // That there is no limit is said, never left out.
        lifetime: SaLifetime::new()
            .with_kind(LifetimeKind::Packets.number() as u8)
            .with_no_soft_limit(true)
            .with_no_hard_limit(true),
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

// guide: limits
/// An SA whose key is for so many packets, with notice before that.
pub fn limited(sa: SaParameters, soft_limit: u64, hard_limit: u64) -> SaParameters {
    let lifetime = SaLifetime::new().with_kind(LifetimeKind::Packets.number() as u8);
    SaParameters { lifetime, soft_limit, hard_limit, ..sa }
}
// guide: end

/// How a command names the slot of an SA.
fn slot_argument(sa: TransmitSa) -> u64 {
    u64::from(sa.generation()) << 32 | u64::from(sa.index())
}

/// Up to eight bytes in memory order as a word.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
