//! 7, continued: a malicious host at the admin queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptonic_driver::Host;
use cryptonic_hwmodel::{NicId, Parameters, World};
use cryptonic_pci::{Bar, DmaAccess, SharedMemory, Time};
use cryptonic_regs::admin::{
    AdminCompletionEnd, Command, CommandHead, CommandLengths, Opcode, SaForm, SaLifetime, SaNames,
    SaParameters, SaWindow, SecretWord,
};
use cryptonic_regs::bar0::{self, AdminControl};
use cryptonic_regs::events::{SLOT_GENERATION, SLOT_SELECT};

use crate::hostile::{IOVA, LIMIT, address, assert_serves_again, bus_master, value, within};
use crate::rig::{Chance, cases};

/// An admin queue driven by hand.
pub struct RawAdmin {
    pub host: Box<dyn Host>,
    memory: SharedMemory,
    producer: u32,
}

const ADMIN_SLOTS_LOG2: u8 = 4;
const ADMIN_COMPLETIONS: u64 = 0x1000;
const ADMIN_BLOCK: u64 = 0x2000;
const ADMIN_REPLY: u64 = 0x3800;

impl RawAdmin {
    pub fn new(world: &World, id: NicId) -> RawAdmin {
        let host = world.host(id);
        let memory = SharedMemory::new(0x4000).expect("memory");
        host.dma_map(&memory, IOVA, DmaAccess::DeviceReadsAndWrites).expect("map");
        bus_master(&*host);
        let mut admin = RawAdmin { host, memory, producer: 0 };
        admin.bases(IOVA, IOVA + ADMIN_COMPLETIONS);
        admin.enable(true);
        admin
    }

    fn bases(&self, commands: u64, completions: u64) {
        self.host.write64(Bar::Bar0, bar0::ADMIN_COMMAND_BASE.offset, commands).expect("write");
        self.host.write64(Bar::Bar0, bar0::ADMIN_COMPLETION_BASE.offset, completions).expect("write");
    }

    fn enable(&mut self, on: bool) {
        let control = AdminControl::new().with_enable(on).with_slots_log2(ADMIN_SLOTS_LOG2);
        self.host.write32(Bar::Bar0, bar0::ADMIN_CONTROL.offset, control.into_bits()).expect("write");
        self.producer = 0;
    }

    fn put(&mut self, words: &[u64; 8]) {
        let slot = (self.producer % (1 << ADMIN_SLOTS_LOG2)) as usize * Command::BYTES;
        for (index, word) in words.iter().enumerate() {
            self.memory.write_word(slot + index * 8, *word).expect("in range");
        }
        self.producer = self.producer.wrapping_add(1);
    }

    fn ring(&self) {
        self.host.write32(Bar::Bar0, bar0::ADMIN_DOORBELL.offset, self.producer).expect("write");
    }

    fn completions(&self) -> Vec<[u64; 2]> {
        (0..1 << ADMIN_SLOTS_LOG2)
            .map(|slot| {
                [0, 8].map(|word| {
                    self.memory.read_word(ADMIN_COMPLETIONS as usize + slot * 16 + word).expect("in range")
                })
            })
            .collect()
    }
}

impl RawAdmin {
    /// Has these SAs installed as one. Gives status, result and what was installed.
    pub fn install(&mut self, world: &World, sas: &[SaParameters]) -> (u16, u64, Vec<u64>) {
        for (place, word) in sas.iter().flat_map(|sa| sa.to_words()).enumerate() {
            self.memory.write_word(ADMIN_BLOCK as usize + place * 8, word).expect("in range");
        }
        self.memory.zeroise(ADMIN_REPLY as usize, sas.len() * 8).expect("in range");
        let command = Command {
            head: CommandHead::new().with_opcode(Opcode::SaInstall.number() as u16),
            parameter_address: IOVA + ADMIN_BLOCK,
            reply_address: IOVA + ADMIN_REPLY,
            lengths: CommandLengths::new()
                .with_parameter_bytes((sas.len() * SaParameters::BYTES) as u32)
                .with_reply_bytes(sas.len() as u32 * 8),
            argument_0: sas.len() as u64,
            ..Command::default()
        };
        let slot = self.producer as usize % (1 << ADMIN_SLOTS_LOG2);
        self.put(&command.to_words());
        self.ring();
        world.drain();
        let [result, end] = self.completions()[slot];
        let reply = (0..sas.len())
            .map(|place| self.memory.read_word(ADMIN_REPLY as usize + place * 8).expect("in range"));
        (AdminCompletionEnd::from_bits(end).status(), result, reply.collect())
    }
}

/// SA parameters that are nearly right.
fn parameters(chance: &mut Chance) -> [u64; SaParameters::WORDS] {
    let incoming = chance.one_in(2);
    let tunnel = chance.one_in(2);
    let esn = chance.one_in(2);
    let outer = !incoming && tunnel;
    let limit = |chance: &mut Chance| if chance.one_in(3) { 0 } else { chance.below(5) };
    let (soft, hard) = (limit(chance), limit(chance));
    let mut words = SaParameters {
        form: SaForm::new()
            .with_direction(u8::from(incoming))
            .with_protocol(1)
            .with_mode(u8::from(!tunnel))
            .with_icv_bytes(16)
            .with_esn(esn)
            .with_ttl(if outer { 64 } else { 0 }),
        names: SaNames::new().with_spi(0x100 + chance.below(4) as u32),
        sequence: match chance.below(4) {
            0 => 0,
            1 if esn => u64::MAX - chance.below(3),
            2 => u64::from(u32::MAX) - chance.below(3),
            _ => chance.below(100),
        },
        window: SaWindow::new().with_replay_window(if incoming {
            chance.pick(&[0, 32, 64, 65_536])
        } else {
            0
        }),
        tunnel_source_1: if outer { 0x0100_000a << 32 } else { 0 },
        tunnel_destination_1: if outer { 0x0200_000a << 32 } else { 0 },
        lifetime: SaLifetime::new()
            .with_kind(1 + chance.below(2) as u8)
            .with_no_soft_limit(soft == 0)
            .with_no_hard_limit(hard == 0),
        soft_limit: soft,
        hard_limit: hard,
        packets: chance.below(4),
        bytes: chance.below(4),
        key_0: SecretWord::from(chance.word()),
        key_1: SecretWord::from(chance.word()),
        salt: SecretWord::from(chance.below(1 << 32)),
        ..SaParameters::default()
    }
    .to_words();
    if chance.one_in(3) {
        words[chance.below(SaParameters::WORDS as u64) as usize] ^= 1 << chance.below(64);
    }
    words
}

#[test]
fn random_admin_commands() {
    let installed = Arc::new(AtomicU64::new(0));
    for seed in 0..cases(30) {
        let installed = installed.clone();
        within(LIMIT, format!("admin commands, seed {seed}"), move || {
            let mut chance = Chance::new(seed);
            let world = World::new(seed);
            let id = world.add_nic(&Parameters::default()).expect("parameters");
            let mut admin = RawAdmin::new(&world, id);
            world.drain();
            for _ in 0..400 {
                let count = 1 + chance.below(3);
                let blocks = (0..count).flat_map(|_| parameters(&mut chance)).collect::<Vec<_>>();
                for (index, word) in blocks.into_iter().enumerate() {
                    admin.memory.write_word(ADMIN_BLOCK as usize + index * 8, word).expect("in range");
                }
                let opcode = chance.pick(Opcode::ALL).number() as u16;
                let install = opcode == Opcode::SaInstall.number() as u16;
                let argument = match chance.below(4) {
                    _ if install && !chance.one_in(8) => count,
                    0 => chance.word(),
                    1 => chance.below(3000),
                    2 => chance.below(4) << 32 | chance.below(64),
                    _ => 0,
                };
                let takes = matches!(opcode, 0x10 | 0x22);
                let gives = matches!(opcode, 0x01 | 0x02 | 0x10 | 0x12 | 0x20);
                let mut words = Command {
                    head: CommandHead::new().with_opcode(opcode).with_identifier(admin.producer as u16),
                    parameter_address: if takes { IOVA + ADMIN_BLOCK } else { 0 },
                    reply_address: if gives { IOVA + ADMIN_BLOCK } else { 0 },
                    lengths: CommandLengths::new()
                        .with_parameter_bytes(if opcode == 0x22 {
                            64
                        } else if takes {
                            count as u32 * SaParameters::BYTES as u32
                        } else {
                            0
                        })
                        .with_reply_bytes(if gives { 0x2000 } else { 0 }),
                    argument_0: argument,
                    argument_1: if opcode == Opcode::SaArm.number() as u16 { chance.below(6) } else { 0 },
                    ..Command::default()
                }
                .to_words();
                if chance.one_in(3) {
                    words[chance.below(8) as usize] = chance.word();
                }
                if chance.one_in(5) {
                    words[1 + chance.below(2) as usize] = address(&mut chance) & !7;
                }
                admin.put(&words);
                admin.ring();
                match chance.below(30) {
                    0 => world.restart_firmware(id),
                    1 => {
                        admin.enable(false);
                        admin.bases(address(&mut chance), address(&mut chance));
                        for _ in 0..chance.below(4) {
                            admin.host.relax();
                        }
                        admin.bases(IOVA, IOVA + ADMIN_COMPLETIONS);
                        admin.enable(true);
                    }
                    2 => admin
                        .host
                        .write32(Bar::Bar0, bar0::ADMIN_DOORBELL.offset, value(&mut chance))
                        .expect("write"),
                    3 => {
                        admin.host.reset().expect("reset");
                        bus_master(&*admin.host);
                        admin.bases(IOVA, IOVA + ADMIN_COMPLETIONS);
                        admin.enable(true);
                    }
                    _ => {}
                }
                if chance.one_in(3) {
                    world.drain();
                    // The generation of slot 0 or of the first byte-based one tells that something was installed.
                    for slot in [0, 1024] {
                        admin.host.write32(Bar::Bar0, SLOT_SELECT.offset, slot).expect("write");
                        let generation = admin.host.read32(Bar::Bar0, SLOT_GENERATION.offset).expect("read");
                        installed.fetch_add(u64::from(generation != 0), Ordering::Relaxed);
                    }
                }
                if admin.host.read32(Bar::Bar0, bar0::ADMIN_STATUS.offset).expect("read") != 1 {
                    admin.enable(false);
                    admin.enable(true);
                }
            }
            world.drain();
            admin.host.dma_unmap(IOVA).expect("unmap");
            drop(admin);
            assert_serves_again(&world, id);
        });
    }
    assert!(installed.load(Ordering::Relaxed) > 0, "some commands get as far as a slot");
}

#[test]
fn an_admin_queue_turned_off_while_a_command_is_fetched() {
    within(LIMIT, "admin queue off".into(), || {
        let world = World::new(1);
        let id = world.add_nic(&Parameters::default()).expect("parameters");
        let mut admin = RawAdmin::new(&world, id);
        world.drain();
        let rotate = Command { head: CommandHead::new().with_opcode(0x21), ..Command::default() }.to_words();
        // A first command ends well.
        admin.put(&rotate);
        admin.ring();
        world.drain();
        assert_ne!(admin.completions()[0], [0, 0]);
        // The second is on its way when the queue is turned off and its bases are set to the end of memory,
        admin.put(&rotate);
        admin.ring();
        admin.enable(false);
        admin.bases(u64::MAX - 7, u64::MAX - 7);
        world.drain();
        // and the third when the queue is turned off and on again.
        admin.bases(IOVA, IOVA + ADMIN_COMPLETIONS);
        admin.enable(true);
        admin.put(&rotate);
        admin.ring();
        admin.enable(false);
        admin.memory.zeroise(ADMIN_COMPLETIONS as usize, 256).expect("in range");
        admin.enable(true);
        world.drain();
        // Then the new ring is empty until somebody produces something.
        assert_eq!(admin.completions(), [[0, 0]; 16], "nothing was asked of this ring");
        admin.put(&rotate);
        admin.ring();
        world.drain();
        let completions = admin.completions();
        assert_ne!(completions[0], [0, 0]);
        assert_eq!(completions[1], [0, 0], "one command, one completion");
    });
}

#[test]
fn an_admin_doorbell_that_takes_back_what_it_announced() {
    within(LIMIT, "admin doorbell".into(), || {
        for steps in 0..20 {
            let world = World::new(1);
            let id = world.add_nic(&Parameters::default()).expect("parameters");
            let mut admin = RawAdmin::new(&world, id);
            world.drain();
            let rotate = Command { head: CommandHead::new().with_opcode(0x21), ..Command::default() };
            admin.put(&rotate.to_words());
            admin.ring();
            let _ = admin.host.wait(0, admin.host.now() + Time::from_nanoseconds(steps * 100));
            admin.producer -= 1;
            admin.ring();
            world.drain();
            assert_eq!(admin.completions()[1], [0, 0], "one command at most");
        }
    });
}

#[test]
fn a_command_of_a_queue_that_was_turned_off_is_not_completed_in_the_next() {
    within(LIMIT, "admin queue off, command taken".into(), || {
        for steps in 0..60 {
            let world = World::new(1);
            let id = world.add_nic(&Parameters::default()).expect("parameters");
            let mut admin = RawAdmin::new(&world, id);
            world.drain();
            let rotate = Command {
                head: CommandHead::new().with_opcode(0x21).with_identifier(0x55),
                ..Command::default()
            };
            admin.put(&rotate.to_words());
            admin.ring();
            let deadline = admin.host.now() + Time::from_nanoseconds(steps * 200);
            let _ = admin.host.wait(0, deadline);
            admin.enable(false);
            admin.host.read32(Bar::Bar0, bar0::ADMIN_STATUS.offset).expect("read");
            admin.memory.zeroise(ADMIN_COMPLETIONS as usize, 256).expect("in range");
            admin.enable(true);
            world.drain();
            assert_eq!(admin.completions(), [[0, 0]; 16], "after {} ns", steps * 200);
        }
    });
}
