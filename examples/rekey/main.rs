//! Rekeying on the driver's API: two NICs of the model, packets both ways without a pause, and a pair of SAs that is replaced
//! whenever an event says that one of it has come to its soft limit. No packet is lost.
//!
//! ```text
//! cargo run --release --example rekey [REKEYS]
//! ```

mod executor;

use std::cell::RefCell;
use std::error::Error;
use std::future::poll_fn;
use std::rc::Rc;

use cryptonic_driver::rekey::{Margins, Policy, Rekeyer, Role};
use cryptonic_driver::{
    Cipher, Direction, Event, EventDispatcher, EventOptions, EventStream, LifetimeKind, Mode, Nic,
    OpenOptions, Protection, QueuePair, QueuePairOptions, Replacement, SaConfiguration, SaHandle, SaPair,
    SecretKey, Status, Time, TransmitPacket,
};
use cryptonic_hwmodel::{NicId, Parameters, World};

use executor::Executor;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Packets that a key is for. Soft limits lie far below: packets go on while a pair is replaced.
pub const HARD: u64 = 20_000;

/// The task of an end: it awaits events, and tells those at which the pair in use is to be replaced, each pair once.
async fn listen(mut events: EventStream, watched: Rc<RefCell<Watched>>) -> Outcome<()> {
    loop {
        let event = poll_fn(|context| events.poll_next(context)).await?;
        let mut watched = watched.borrow_mut();
        if watched.rekeyer.take(&event).is_some() {
            watched.due = Some(event);
        }
    }
}

#[derive(Default)]
struct Watched {
    rekeyer: Rekeyer<()>,
    due: Option<Event>,
}

struct End {
    nic: Nic,
    queue: QueuePair,
    dispatcher: EventDispatcher,
    executor: Executor<Box<dyn Error>>,
    watched: Rc<RefCell<Watched>>,
    pair: SaPair<SaHandle>,
    /// The pair of before, while it may still be used, and how many packets were sent when it was replaced.
    retired: Option<(Replacement, u64)>,
    /// Packets sent, of them ended, and received.
    counts: [u64; 3],
}

impl End {
    fn new(world: &World, id: NicId, [outbound, inbound]: [SaConfiguration; 2]) -> Outcome<End> {
        let mut nic = Nic::open(world.host(id), OpenOptions::default())?;
        let queue = nic.create_queue_pair(QueuePairOptions::default())?;
        let events = nic.open_events(EventOptions::default())?;
        let (dispatcher, watched) = (events.dispatcher(), Rc::<RefCell<Watched>>::default());
        let executor = Executor::new(listen(events, watched.clone()));
        let pair = SaPair::new(nic.install_sa(outbound)?, nic.install_sa(inbound)?);
        watched.borrow_mut().rekeyer.watch((), pair);
        Ok(End { nic, queue, dispatcher, executor, watched, pair, retired: None, counts: [0; 3] })
    }

    /// Sends some packets, takes what came, and has the task run if there are events.
    fn turn(&mut self, packets: u64) -> Outcome<()> {
        let (mut batch, mut done, mut received) = (vec![], vec![], vec![]);
        let [sent, ended, arrived] = &mut self.counts;
        for _ in 0..packets {
            let (sa, buffer) = (self.pair.outbound, self.queue.take_buffer());
            let (Some(sa), Some(mut buffer)) = (sa, buffer) else { break };
            self.queue.fill(&mut buffer, &frame())?;
            let packet = TransmitPacket::new(buffer, Protection::Sa(sa), 0);
            batch.push(TransmitPacket { report: true, ..packet });
        }
        *sent += self.queue.transmit(&mut batch)? as u64;
        batch.into_iter().try_for_each(|unsent| self.queue.give_back(unsent.buffer))?;
        self.queue.completed(&mut done)?;
        if let Some(refused) = done.iter().find(|ended| ended.status != Status::Ok) {
            return Err(format!("a packet was refused: {}", refused.status.name()).into());
        }
        *ended += done.iter().map(|ended| u64::from(ended.packets)).sum::<u64>();
        self.queue.receive(&mut received, 256)?;
        *arrived += received.iter().filter(|packet| packet.status() == Status::Ok).count() as u64;
        self.queue.return_buffers(&mut received)?;
        self.nic.relax();
        self.dispatcher.dispatch()?;
        self.executor.run()
    }

    fn replace(&mut self, [outbound, inbound]: [SaConfiguration; 2]) -> Outcome<()> {
        let replacement = self.nic.replace_sas(self.pair, SaPair::new(outbound, inbound))?;
        self.pair = replacement.sas;
        self.retired = Some((replacement, self.counts[0]));
        let mut watched = self.watched.borrow_mut();
        watched.rekeyer.watch((), self.pair);
        watched.due = None;
        Ok(())
    }

    /// Deletes the pair of before, once what was sent by it has left and the peer sends by the new one.
    fn finish(&mut self) -> Outcome<()> {
        match self.retired.take() {
            Some((old, sent)) if self.counts[1] >= sent && self.nic.has_peer_switched(&old)? => {
                self.pair = self.nic.finish_replacement(old)?;
            }
            retired => self.retired = retired,
        }
        Ok(())
    }
}

/// A new pair for each end, as IKE would agree on them: fresh keys, and a soft limit drawn by the role of who protects.
fn agree(turn: u32) -> Outcome<[[SaConfiguration; 2]; 2]> {
    let pair = |role, spi| -> Outcome<[SaConfiguration; 2]> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        let sa = |direction| -> Outcome<SaConfiguration> {
            let key = SecretKey::new(&key).ok_or("16 bytes are a key")?;
            let cipher = Cipher::AesGcm128;
            Ok(SaConfiguration::new(direction, Mode::Transport, cipher, key, [1, 2, 3, 4], spi))
        };
        let policy = Policy { margins: Margins::Libreswan, role };
        let lifetime = policy.lifetime(LifetimeKind::Packets, HARD, random);
        Ok([SaConfiguration { lifetime, ..sa(Direction::Out)? }, sa(Direction::In)?])
    };
    let [[out_of_one, into_other], [out_of_other, into_one]] =
        [pair(Role::Initiator, 0x1_0000 + turn)?, pair(Role::Responder, 0x2_0000 + turn)?];
    Ok([[out_of_one, into_one], [out_of_other, into_other]])
}

/// What happened: at which end each rekey began and by which event, and what both ends sent and received.
#[derive(Debug)]
pub struct Rekeyed {
    /// 0 for the initiator of the SAs, 1 for the responder; the soft limit that it reached in the event.
    pub rekeys: Vec<(usize, Event)>,
    /// Packets sent and received by each end.
    pub packets: [(u64, u64); 2],
    /// SA slots in use at the end.
    pub slots: [u64; 2],
}

/// Moves packets until there were so many rekeys.
pub fn run(rekeys: usize) -> Outcome<Rekeyed> {
    let world = World::new(1);
    let ids = [world.add_nic(&Parameters::default())?, world.add_nic(&Parameters::default())?];
    world.connect(ids[0], ids[1], Time::from_nanoseconds(100));
    let [one, other] = agree(0)?;
    let mut ends = [End::new(&world, ids[0], one)?, End::new(&world, ids[1], other)?];
    let mut told = vec![];
    while told.len() < rekeys || ends.iter().any(|end| end.retired.is_some()) {
        // By turns either end sends more, and comes to its limit first.
        let busy = told.len() % 2;
        for (number, end) in ends.iter_mut().enumerate() {
            end.turn(random() % if number == busy { 8 } else { 4 })?;
            end.finish()?;
        }
        let due = ends.iter().enumerate().find_map(|(number, end)| Some((number, end.watched.borrow().due?)));
        if let Some(due) = due.filter(|_| ends.iter().all(|end| end.retired.is_none())) {
            told.push(due);
            for (end, new) in ends.iter_mut().zip(agree(told.len() as u32)?) {
                end.replace(new)?;
            }
        }
    }
    for _ in 0..2 {
        world.drain();
        ends.iter_mut().try_for_each(|end| end.turn(0))?;
    }
    let mut slots = [0; 2];
    for (end, slots) in ends.iter_mut().zip(&mut slots) {
        *slots = end.nic.statistics()?.firmware.sa_slots_used;
    }
    Ok(Rekeyed { rekeys: told, packets: ends.map(|end| (end.counts[0], end.counts[2])), slots })
}

#[allow(dead_code)] // The test of this example has its own.
fn main() -> Outcome<()> {
    let rekeys = std::env::args().nth(1).map_or(Ok(10), |rekeys| rekeys.parse())?;
    let Rekeyed { rekeys, packets, slots } = run(rekeys)?;
    for (end, event) in rekeys {
        let (name, cause) = (["initiator", "responder"][end], event.cause.name());
        let Some(record) = event.record else { continue };
        println!(
            "at {} us the {name} replaces its pair: {cause} at packet {} of {HARD}, SPI {:#x}",
            record.time_picoseconds / 1_000_000,
            record.packets,
            event.spi
        );
    }
    for ((sent, received), slots) in packets.into_iter().zip(slots) {
        println!("{sent} packets sent, {received} received; {slots} SA slots in use");
    }
    Ok(())
}

fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

fn frame() -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 1], 64)
        .udp(4_000, 5_000);
    let mut frame = Vec::new();
    // A vector takes everything.
    let _ = builder.write(&mut frame, &[7; 100]);
    frame
}
