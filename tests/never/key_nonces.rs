//! 1, continued: nonces over the whole life of keys: rekeys, firmware that crashes under installs, deletions and rotations,
//! resets, drivers that are dropped, epochs of the IV clock. The witness is every frame on the wire.

use std::collections::{HashMap, HashSet};

use cryptonic_driver::{
    AdminStatus, Direction, Error, KeyLedger, Lifetime, Mode, Nic, Offload, Protection, PspSaConfiguration,
    PspTransmit, QueuePair, SaConfiguration, SaHandle, SaPair, SourcePort, Status, Time, TransmitPacket,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

use crate::rig::{
    Chance, End, Wire, cases, drain, esp_number, esp_offset, guarded, key_number, marked, packet_of,
    spi_and_iv, tcp, udp,
};
use crate::stepped::{Steps, open_stepped};

/// Keys of ESP that come again and again.
const KEYS: u64 = 6;
/// SPIs of PSP keys, in descriptors and in slots: each stands for its key.
const DESCRIPTOR_SPI: u32 = 0x90;
const SLOT_SPI: u32 = 0xa0;

/// What was on the wire so far.
#[derive(Default)]
struct Witness {
    nonces: HashSet<(u32, u64)>,
    /// The IVs of PSP are those of one clock, which only rises.
    last_psp_iv: u64,
    of_spi: HashMap<u32, u64>,
}

impl Witness {
    fn hear(&mut self, wire: &Wire, what: &str) {
        for frame in wire.take() {
            let (spi, iv) = spi_and_iv(&frame).expect("only protected packets are on the line");
            assert!(self.nonces.insert((spi, iv)), "{what}: SPI {spi:x} and IV {iv:x} twice");
            *self.of_spi.entry(spi).or_default() += 1;
            if esp_offset(&frame).is_none() {
                assert!(iv > self.last_psp_iv, "{what}: the IV clock went back");
                self.last_psp_iv = iv;
            }
        }
    }
}

/// A device between two resets.
struct Life<'a> {
    world: &'a World,
    id: NicId,
    nic: Nic,
    steps: Steps,
    queues: Vec<QueuePair>,
    esp: Vec<(u64, SaHandle)>,
    psp: Vec<SaHandle>,
    /// Where the driver lets a key start; keys that it never takes again are absent.
    starts: &'a mut HashMap<u64, Option<u64>>,
    crashes: bool,
}

impl Life<'_> {
    /// Runs a command, perhaps with firmware that crashes in it.
    fn command<T>(
        &mut self,
        chance: &mut Chance,
        command: impl FnOnce(&mut Nic) -> Result<T, Error>,
    ) -> Option<T> {
        if self.crashes && chance.one_in(2) {
            self.steps.crash_at(self.world, self.id, chance.below(60));
        }
        let outcome = command(&mut self.nic);
        self.steps.stop();
        match outcome {
            Ok(done) => Some(done),
            Err(Error::Refused { status: AdminStatus::Aborted | AdminStatus::NoFreeSlot, .. }) => None,
            Err(Error::KeyReused { .. } | Error::KeyInUse) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn sa(&self, key: u64) -> SaConfiguration {
        let sequence = self.starts.get(&key).copied().flatten().unwrap_or(0);
        SaConfiguration { sequence, esn: true, ..esp_number(Direction::Out, Mode::Tunnel, key as u32) }
    }

    /// A key that is not in use, as low as the driver takes it.
    fn install(&mut self, chance: &mut Chance) {
        let key = chance.below(KEYS);
        if self.esp.iter().any(|(used, _)| *used == key) {
            return;
        }
        // What the driver would take, it is asked with a start of 0 first: that must never be too low.
        let zero = SaConfiguration { sequence: 0, ..self.sa(key) };
        match self.nic.install_sa(zero) {
            Ok(sa) => return self.esp.push((key, sa)),
            Err(Error::KeyReused { lowest }) => self.starts.insert(key, lowest),
            Err(Error::KeyInUse) => self.starts.insert(key, None),
            Err(error) => panic!("{error}"),
        };
        if self.starts[&key].is_none() {
            return;
        }
        let sa = self.sa(key);
        if let Some(sa) = self.command(chance, |nic| nic.install_sa(sa)) {
            self.esp.push((key, sa));
        }
    }

    fn delete(&mut self, chance: &mut Chance) {
        if self.esp.is_empty() {
            return;
        }
        let place = chance.below(self.esp.len() as u64) as usize;
        let sa = self.esp[place].1;
        if self.command(chance, |nic| nic.delete_sa(sa)).is_some() {
            self.esp.swap_remove(place);
        }
    }

    /// Puts a key that was never used in the place of another.
    fn replace(&mut self, chance: &mut Chance, fresh: u64) {
        let Some((_, old)) = self.esp.pop() else { return };
        let old = SaPair { outbound: Some(old), inbound: None };
        let new = esp_number(Direction::Out, Mode::Tunnel, fresh as u32);
        let new = SaPair { outbound: Some(new), inbound: None };
        if let Some(replacement) = self.command(chance, |nic| nic.replace_sas(old, new)) {
            self.esp.push((fresh, replacement.sas.outbound.expect("outbound")));
        }
        let _ = old.outbound.map(|sa| self.nic.delete_sa(sa));
    }

    fn send(&mut self, chance: &mut Chance) {
        let place = chance.below(self.queues.len() as u64) as usize;
        let queue = &mut self.queues[place];
        let protection = match chance.below(4) {
            0 if !self.psp.is_empty() => Protection::Sa(chance.pick(&self.psp)),
            1 => {
                let spi = DESCRIPTOR_SPI + chance.below(2) as u32;
                let key = queue.add_psp_key(0, spi, &key_number(spi)).expect("key");
                Protection::PspKey(PspTransmit::new(key))
            }
            _ if !self.esp.is_empty() => {
                Protection::Sa(self.esp[chance.below(self.esp.len() as u64) as usize].1)
            }
            _ => return,
        };
        for _ in 0..=chance.below(4) {
            let large = chance.one_in(5);
            let frame = if large { tcp(1_400) } else { udp(&marked(chance.below(1200) as usize)) };
            let packet = packet_of(queue, &frame, protection);
            let offload = if large { Offload::NONE.segments(100) } else { Offload::NONE };
            let mut batch = vec![TransmitPacket { offload, ..packet }];
            if queue.transmit(&mut batch).expect("transmit") == 0 {
                queue.give_back(batch.remove(0).buffer).expect("back");
            }
        }
        if chance.one_in(3) {
            drain(queue);
        }
    }
}

/// Where the IV clock stands.
fn clock(nic: &Nic) -> u64 {
    nic.psp_clock_picoseconds().expect("read").expect("there is an epoch")
}

fn psp_slot(number: u32) -> PspSaConfiguration {
    PspSaConfiguration {
        version: 0,
        key: key_number(SLOT_SPI + number),
        spi: SLOT_SPI + number,
        mode: Mode::Transport,
        outer: None,
        crypt_offset: 0,
        source_port: SourcePort::Entropy,
        virtualization_cookie: None,
        lifetime: Lifetime::UNLIMITED,
        packets: 0,
        bytes: 0,
        cookie: 0,
    }
}

#[test]
fn no_nonce_comes_twice_in_the_life_of_a_device_whose_keys_come_and_go() {
    for (seed, preset) in (0..cases(4)).zip(Parameters::PRESETS.into_iter().cycle()) {
        let mut chance = Chance::new(seed);
        let mut parameters = Parameters::preset(preset).expect("a preset");
        // Firmware looks at few slots after a crash, and is soon there again.
        parameters.capacity.sa_slots = 64;
        let world = World::new(seed);
        let id = world.add_nic(&parameters).expect("in range");
        let wire = Wire::on(&world, id);
        let (ledger, mut starts, mut witness) = (KeyLedger::new(), HashMap::new(), Witness::default());
        let mut fresh = 1000;
        for turn in 0..5 {
            let what = format!("seed {seed}, {preset}, life {turn}");
            let (mut nic, steps) = open_stepped(&world, id, Time::from_nanoseconds(300), &ledger);
            let queues = (0..4).map(|_| nic.create_queue_pair(guarded()).expect("queue")).collect();
            let starts = &mut starts;
            let (esp, psp, crashes) = (vec![], vec![], turn != 0);
            let mut life = Life { world: &world, id, nic, steps, queues, esp, psp, starts, crashes };
            // The same keys again: the clock has gone on, so they may be used.
            for number in 0..2 {
                match life.nic.install_psp_sa(psp_slot(number)) {
                    Ok(sa) => life.psp.push(sa),
                    Err(Error::KeyReused { .. }) => {}
                    Err(error) => panic!("{what}: {error}"),
                }
            }
            for _ in 0..120 {
                match chance.below(16) {
                    0 | 1 => life.install(&mut chance),
                    2 => life.delete(&mut chance),
                    3 => {
                        fresh += 1;
                        life.replace(&mut chance, fresh);
                    }
                    4 => drop(life.command(&mut chance, |nic| nic.psp_rotate())),
                    5 => {
                        let clock = clock(&life.nic);
                        let back = chance.below(clock / 2) + 1;
                        if let Err(error) = life.nic.psp_set_epoch(back) {
                            assert!(matches!(error, Error::EpochRefused { .. }), "{error}");
                        }
                    }
                    6 if chance.one_in(3) => {
                        let clock = clock(&life.nic);
                        life.nic.psp_set_epoch(clock + chance.below(1 << 40)).expect("ahead");
                    }
                    7 => life.nic.relax(),
                    8 => world.restart_firmware(id),
                    _ => life.send(&mut chance),
                }
                witness.hear(&wire, &what);
            }
            let Life { nic, queues, .. } = life;
            match chance.below(4) {
                0 => nic.close().expect("close"),
                // With packets under way, and nobody who tells the ledger how far they got.
                1 => world.host(id).reset().expect("reset"),
                2 => drop(queues),
                _ => drop(nic),
            }
            world.drain();
            witness.hear(&wire, &what);
        }
        let used = |spi: u32| witness.of_spi.get(&spi).copied().unwrap_or(0);
        assert!(used(DESCRIPTOR_SPI) > 20 && used(SLOT_SPI) > 3, "seed {seed}: {:?}", witness.of_spi);
        assert!(witness.nonces.len() > 800, "seed {seed}: {}", witness.nonces.len());
    }
}

#[test]
fn a_psp_key_that_a_test_used_ahead_of_the_clock_is_behind_it_on_another_device() {
    let world = World::new(1);
    let parameters = Parameters::default();
    let (mut a, b) = (End::new(&world, &parameters), End::new(&world, &parameters));
    let ledger = a.ledger.clone();
    drop(b.queue);
    drop(b.nic);
    let mut b_nic = crate::rig::open(&world, b.id, &ledger);
    // Given a key whose IVs were ahead of the clock of its device,
    let ahead = clock(&a.nic) + 1_000_000_000_000;
    let sa = a.nic.install_psp_sa(psp_slot(0)).expect("install");
    a.nic.psp_test_iv_load(ahead).expect("load");
    for _ in 0..3 {
        let end = a.send(&udp(&marked(64)), Protection::Sa(sa));
        assert_eq!((end.status, end.sequence >= ahead), (Status::Ok, true));
    }
    a.nic.delete_sa(sa).expect("delete");
    // when another device is to use it, then only from behind them on.
    assert!(matches!(b_nic.install_psp_sa(psp_slot(0)), Err(Error::KeyReused { .. })));
    b_nic.psp_set_epoch(ahead + 1).expect("ahead");
    b_nic.install_psp_sa(psp_slot(0)).expect("behind all of them");
}

#[test]
fn without_an_epoch_no_psp_packet_leaves_and_with_one_the_clock_only_rises() {
    let mut parameters = Parameters::default();
    parameters.crypto.psp_epoch_ps = 0;
    let world = World::new(1);
    let mut a = End::new(&world, &parameters);
    let slot = a.nic.install_psp_sa(psp_slot(0)).expect("install");
    let mut last = 0;
    let mut witness = Witness::default();
    for epoch in [0, 1, 5_000_000_000_000, 4_999_999_999_999, 5_000_000_000_000, 1 << 60, 1 << 59] {
        let before = a.nic.psp_clock_picoseconds().expect("clock");
        match a.nic.psp_set_epoch(epoch) {
            Ok(()) => assert!(epoch >= last),
            Err(Error::Argument(_)) => assert_eq!(epoch, 0),
            Err(Error::EpochRefused { .. }) => assert!(epoch < last),
            Err(error) => panic!("{error}"),
        }
        last = last.max(epoch);
        assert!(a.nic.psp_clock_picoseconds().expect("clock") >= before || last == 0);
        let key = a.queue.add_psp_key(0, DESCRIPTOR_SPI, &key_number(DESCRIPTOR_SPI)).expect("key");
        let expected = if last == 0 { Status::PspNoEpoch } else { Status::Ok };
        for protection in [Protection::Sa(slot), Protection::PspKey(PspTransmit::new(key))] {
            assert_eq!(a.send(&udp(&marked(64)), protection).status, expected, "epoch {epoch}");
        }
        assert!(!a.wire.shows_marker());
        witness.hear(&a.wire, "epochs");
    }
    assert_eq!(witness.nonces.len(), 12);
    // A reset does not take the epoch away.
    let mut a = a.reopen(&world);
    let key = a.queue.add_psp_key(0, DESCRIPTOR_SPI, &key_number(DESCRIPTOR_SPI)).expect("key");
    assert_eq!(a.send(&udp(&marked(64)), Protection::PspKey(PspTransmit::new(key))).status, Status::Ok);
    witness.hear(&a.wire, "after a reset");
}
