//! Commands and SA parameters that are right, to be broken by the tests.

use cryptonic_fw::Firmware;
use cryptonic_regs::admin::{
    Command, CommandHead, CommandLengths, Direction, LifetimeKind, Opcode, SaForm, SaLifetime, SaNames,
    SaParameters, SaWindow, SecretWord,
};

use crate::hardware::{Completion, Hardware, PARAMETERS, REPLY};

/// The key of every sample.
pub const KEY: [u64; 2] = [0x1111_2222_3333_4444, 0x5555_6666_7777_8888];

/// A well-formed command of an opcode: of `sa_arm`, with a soft limit of 1500.
pub fn command(opcode: Opcode, argument_0: u64) -> Command {
    let head = CommandHead::new().with_opcode(opcode.number() as u16).with_identifier(0x77);
    let count = argument_0 as u32;
    let (parameters, reply) = match opcode {
        Opcode::Capabilities => (0, 32),
        Opcode::Statistics => (0, 48),
        Opcode::SaInstall => (224 * count.min(64), 8 * count.min(64)),
        Opcode::SaQuery => (0, 112),
        Opcode::PspAllocate => (0, 40 * count.min(2048)),
        Opcode::PspTestKeyLoad => (64, 0),
        Opcode::SaDelete | Opcode::SaArm | Opcode::PspRotate | Opcode::PspTestIvLoad => (0, 0),
    };
    Command {
        head,
        parameter_address: if parameters > 0 { PARAMETERS } else { 0 },
        reply_address: if reply > 0 { REPLY } else { 0 },
        lengths: CommandLengths::new().with_parameter_bytes(parameters).with_reply_bytes(reply),
        argument_0,
        argument_1: if opcode == Opcode::SaArm { 1500 } else { 0 },
        ..Default::default()
    }
}

/// What every sample has: a key, and limits of 1000 and 2000 packets.
fn sample(direction: Direction, spi: u32) -> SaParameters {
    SaParameters {
        form: SaForm::new().with_direction(direction.number() as u8).with_protocol(1).with_icv_bytes(16),
        names: SaNames::new().with_spi(spi).with_cookie(5),
        lifetime: SaLifetime::new().with_kind(LifetimeKind::Packets.number() as u8),
        soft_limit: 1000,
        hard_limit: 2000,
        key_0: SecretWord::from_bits(KEY[0]),
        key_1: SecretWord::from_bits(KEY[1]),
        ..Default::default()
    }
}

/// An outbound IPv4 tunnel.
pub fn outbound(spi: u32) -> SaParameters {
    let sample = sample(Direction::Out, spi);
    SaParameters {
        form: sample.form.with_ttl(64).with_copy_dscp(true),
        tunnel_source_1: 0x0102_00c0_0000_0000,
        tunnel_destination_1: 0x0202_00c0_0000_0000,
        ..sample
    }
}

/// An inbound transport SA that matches an IPv4 destination.
pub fn inbound(spi: u32) -> SaParameters {
    let sample = sample(Direction::In, spi);
    SaParameters {
        form: sample.form.with_mode(1).with_match_destination(true).with_receive_queue(3),
        window: SaWindow::new().with_replay_window(1024),
        destination_1: 0x0202_00c0_0000_0000,
        ..sample
    }
}

/// The same SA, with its limits in bytes.
pub fn in_bytes(sa: SaParameters) -> SaParameters {
    SaParameters { lifetime: sa.lifetime.with_kind(LifetimeKind::Bytes.number() as u8), ..sa }
}

/// The same SA without limits.
pub fn unlimited(sa: SaParameters) -> SaParameters {
    let lifetime = sa.lifetime.with_no_soft_limit(true).with_no_hard_limit(true);
    SaParameters { lifetime, soft_limit: 0, hard_limit: 0, ..sa }
}

/// Hardware whose slots all count packets, with firmware that is ready for commands.
pub fn booted(slots: usize) -> (Hardware, Firmware) {
    boot(Hardware::new(slots, slots))
}

/// Firmware on this hardware, ready for commands.
pub fn boot(mut hardware: Hardware) -> (Hardware, Firmware) {
    let mut firmware = Firmware::new();
    assert!(hardware.run(&mut firmware));
    (hardware, firmware)
}

impl Hardware {
    /// Lays the parameters of SAs in host memory and gives the command that installs them.
    pub fn install_command(&mut self, sas: &[SaParameters]) -> Command {
        self.parameters = sas.iter().flat_map(|sa| sa.to_words()).collect();
        command(Opcode::SaInstall, sas.len() as u64)
    }

    pub fn install_all(&mut self, firmware: &mut Firmware, sas: &[SaParameters]) -> Completion {
        let command = self.install_command(sas);
        self.serve(firmware, command)
    }

    pub fn install(&mut self, firmware: &mut Firmware, sa: &SaParameters) -> Completion {
        self.install_all(firmware, std::slice::from_ref(sa))
    }
}
