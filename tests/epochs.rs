//! The model counts time in 64 bits of 1/33 ps, of which the moment of an event takes 60: 9.7 hours. So it begins to count anew
//! when it is idle. Nobody may notice: no driver, no packet, not by a single cycle.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use cryptonic_driver::{
    Cipher, Direction, Mode, Nic, OpenOptions, OuterHeader, Protection, PspTransmit, QueuePair,
    QueuePairOptions, SaConfiguration, SaHandle, SecretKey, Status, Time, TransmitPacket, Wake,
};
use cryptonic_hwmodel::{CableParameters, NicId, Parameters, World};

const DAY: Time = Time::from_milliseconds(86_400_000);
const BURSTS: u64 = 150;

struct End {
    id: NicId,
    nic: Nic,
    queue: QueuePair,
}

/// Two NICs whose caches are small, so that they miss, behind a cable that reorders: one sends, one receives.
struct Rig {
    world: World,
    near: End,
    far: End,
    protections: [Protection; 3],
    incoming: SaHandle,
    other: (SaHandle, SaHandle),
    /// What went over the line, and when.
    line: Rc<RefCell<Vec<(Time, u64)>>>,
}

impl Rig {
    fn new() -> Rig {
        let world = World::new(5);
        let mut parameters = Parameters::default();
        parameters.crypto.context_cache_entries = 1;
        parameters.crypto.derived_key_cache_entries = 4;
        let ids = [(); 2].map(|()| world.add_nic(&parameters).expect("in range"));
        let cable = CableParameters { reorder_depth: Some(8), ..CableParameters::default() };
        world.connect_through(ids[0], ids[1], Time::from_nanoseconds(700), &cable);
        let line = Rc::new(RefCell::new(Vec::new()));
        let heard = line.clone();
        let hear = move |_, time, frame: &[u8]| heard.borrow_mut().push((time, hash(&frame)));
        world.tap(ids[0], Box::new(hear));
        let [mut near, mut far] = ids.map(|id| {
            let mut nic = Nic::open(world.host(id), OpenOptions::default()).expect("it opens");
            let options = QueuePairOptions { stride: 64, clear_allowed: true, ..Default::default() };
            let queue = nic.create_queue_pair(options).expect("a queue pair");
            End { id, nic, queue }
        });
        let [(one, incoming), other] = [0x1001, 0x1002].map(|spi| install(&mut near, &mut far, spi));
        far.nic.psp_rotate().expect("it has keys");
        far.nic.psp_receive(0b11, 1000).expect("it receives PSP");
        let spi = far.nic.psp_allocate(0, 1).expect("an SPI").remove(0);
        let key = near.queue.add_psp_key(0, spi.spi, &spi.key).expect("it takes the key");
        let protections =
            [Protection::Sa(one), Protection::Sa(other.0), Protection::PspKey(PspTransmit::new(key))];
        Rig { world, near, far, protections, incoming, other, line }
    }

    /// Another SA takes the place of one.
    fn renew(&mut self, spi: u32) {
        self.near.nic.delete_sa(self.other.0).expect("deleted");
        self.far.nic.delete_sa(self.other.1).expect("deleted");
        self.other = install(&mut self.near, &mut self.far, spi);
        self.protections[1] = Protection::Sa(self.other.0);
    }

    /// Sends a burst and receives it; says what each host saw.
    fn burst(&mut self, random: &mut Random) -> u64 {
        let count = 1 + random.below(30) as usize;
        let mut batch = Vec::new();
        for _ in 0..count {
            let mut buffer = self.near.queue.take_buffer().expect("a buffer");
            self.near.queue.fill(&mut buffer, &frame(random.below(1400) as usize)).expect("it fits");
            let protection = self.protections[random.below(3) as usize];
            batch.push(TransmitPacket { report: true, ..TransmitPacket::new(buffer, protection, 7) });
        }
        assert_eq!(self.near.queue.transmit(&mut batch).expect("sent"), count);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        let deadline = self.near.queue.time() + Time::from_milliseconds(1);
        self.near.queue.drain(deadline, &mut sent).expect("all are told of");
        let deadline = self.far.queue.time() + Time::from_milliseconds(1);
        while received.len() < count {
            let left = count - received.len();
            if self.far.queue.receive(&mut received, left).expect("received") == 0 {
                assert!(self.far.queue.time() < deadline, "{} of {count} came", received.len());
                self.far.queue.relax();
            }
        }
        let mut seen = DefaultHasher::new();
        for one in sent {
            assert_eq!(one.status, Status::Ok);
            (one.time_picoseconds, one.sequence).hash(&mut seen);
        }
        for one in received {
            let mut bytes = vec![0; one.length()];
            self.far.queue.read(&one, 0, &mut bytes).expect("in range");
            (one.time_picoseconds(), one.sequence(), one.iv(), bytes).hash(&mut seen);
            self.far.queue.return_buffer(one).expect("it goes back");
        }
        seen.finish()
    }

    /// All that can be seen of the world.
    fn state(&mut self) -> String {
        let world = &self.world;
        let latencies = world.latencies();
        let spans = [0.1, 0.5, 0.99].map(|share| latencies.quantile(share));
        let sa = self.far.nic.query_sa(self.incoming).expect("its state");
        let nics = [self.near.id, self.far.id];
        format!(
            "{:?} {:?} {spans:?} {:?} {:?} {:?} {:?}",
            world.now(),
            [self.near.nic.device_time_picoseconds(), self.far.nic.device_time_picoseconds()],
            latencies.max(),
            nics.map(|nic| (world.busy(nic), world.pcie_bytes(nic), world.context_misses(nic))),
            (sa.packets, sa.installed_picoseconds, sa.first_use_picoseconds, sa.last_use_picoseconds),
            self.near.nic.psp_key_status().expect("its keys"),
        )
    }
}

fn install(near: &mut End, far: &mut End, spi: u32) -> (SaHandle, SaHandle) {
    let esp = |direction| SaConfiguration {
        replay_window: if direction == Direction::In { 1024 } else { 0 },
        outer: (direction == Direction::Out)
            .then(|| OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into())),
        ..SaConfiguration::new(
            direction,
            Mode::Tunnel,
            Cipher::AesGcm128,
            SecretKey::new(&[spi as u8; 16]).expect("16 bytes"),
            [1, 2, 3, 4],
            spi,
        )
    };
    let out = near.nic.install_sa(esp(Direction::Out)).expect("installed");
    (out, far.nic.install_sa(esp(Direction::In)).expect("installed"))
}

fn frame(payload: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, 5678);
    let mut frame = vec![];
    builder.write(&mut frame, &vec![payload as u8; payload]).expect("a vector takes all");
    frame
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Bursts with idle time of all lengths between them; `anew` after each of them. What was seen, burst by burst.
fn run(anew: bool) -> Vec<String> {
    let mut rig = Rig::new();
    // Firmware has something to do from time to time.
    rig.near.nic.psp_rotate().expect("it has keys");
    rig.near.nic.psp_set_rotation(Some(Duration::from_millis(20)), false).expect("it rotates");
    let mut random = Random(0x5eed_5eed);
    let mut seen = Vec::new();
    let mut epochs = 0;
    for index in 0..BURSTS {
        let burst = rig.burst(&mut random);
        rig.world.drain();
        if anew && rig.world.begin_epoch() {
            epochs += 1;
        }
        if index % 5 == 0 {
            rig.renew(0x2000 + index as u32);
        }
        let idle = Time::from_picoseconds(1 << random.below(40));
        rig.world.run_until(rig.world.now() + idle);
        seen.push(format!("{burst:x} {}", rig.state()));
    }
    assert!(!anew || epochs > BURSTS * 9 / 10, "{epochs}");
    seen.push(format!("{:x}", hash(&*rig.line.borrow())));
    seen
}

#[test]
fn counting_anew_after_every_burst_changes_nothing() {
    let (plain, anew) = (run(false), run(true));
    for (burst, (plain, anew)) in plain.iter().zip(&anew).enumerate() {
        assert_eq!(plain, anew, "burst {burst}");
    }
}

#[test]
fn a_world_goes_on_for_years() {
    let mut rig = Rig::new();
    let mut random = Random(1);
    rig.burst(&mut random);
    let mut first_use = None;
    for day in 1..=800_u64 {
        // Device time is told in 64 bits of picoseconds, which are 213 days.
        let later = Time(DAY.0 * u128::from(day));
        rig.world.run_until(later);
        assert_eq!(rig.world.now(), later);
        if day % 100 == 0 {
            rig.burst(&mut random);
            let sa = rig.far.nic.query_sa(rig.incoming).expect("its state");
            assert_eq!(*first_use.get_or_insert(sa.first_use_picoseconds), sa.first_use_picoseconds);
        }
    }
}

#[test]
fn a_wait_may_last_for_days() {
    let mut rig = Rig::new();
    let queue = &mut rig.far.queue;
    while queue.wait(queue.time()).expect("it waits") == Wake::Interrupt {}
    for days in [1_u64, 7, 30] {
        let deadline = queue.time() + Time(DAY.0 * u128::from(days));
        assert_eq!(queue.wait(deadline), Ok(Wake::Deadline));
        assert!(queue.time() >= deadline && queue.time() < deadline + Time::from_milliseconds(1));
    }
    rig.burst(&mut Random(1));
}
