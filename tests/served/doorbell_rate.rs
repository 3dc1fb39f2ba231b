//! What shadow doorbells buy: ESP packets a second through a served NIC whose MAC is looped back, with doorbells in memory and
//! with a message for each, in turns, in one run: `CRYPTONIC_LONG=1 cargo test --release --test served doorbell_rate --
//! --nocapture`. The figures are printed, not judged.

use std::time::{Duration, Instant};

use cryptonic_driver::{
    Cipher, Direction, Mode, Nic, OuterHeader, Protection, QueuePair, SaConfiguration, SecretKey, Status,
    TransmitPacket,
};

use crate::rig::{PATIENCE, Server, udp_frame};

const TURNS: usize = 5;
const TURN: Duration = Duration::from_millis(500);

#[test]
fn doorbell_rate() {
    let long = std::env::var("CRYPTONIC_LONG").is_ok_and(|value| value == "1");
    // Without the variable both are run, for their packets' sake.
    let (turns, turn) = if long { (TURNS, TURN) } else { (1, Duration::from_millis(20)) };
    let servers = ["shadow", "trapped"].map(|doorbells| Server::start(&["--doorbells", doorbells]));
    let mut ends = servers.each_ref().map(End::new);
    assert_eq!(ends.each_ref().map(|end| end.nic.shadow_doorbells()), [true, false]);
    for batch in [1, 32] {
        let mut rates = [const { vec![] }; 2];
        for _ in 0..turns {
            for (end, rates) in ends.iter_mut().zip(&mut rates) {
                rates.push(end.rate(batch, turn));
            }
        }
        if long {
            let [shadow, trapped] = rates.map(|mut rates| {
                rates.sort_unstable_by(f64::total_cmp);
                rates[turns / 2]
            });
            println!(
                "batches of {batch}: {shadow:.0} packets/s with shadow doorbells, {trapped:.0} trapped, ratio {:.2}",
                shadow / trapped
            );
        }
    }
}

struct End {
    queue: QueuePair,
    nic: Nic,
    protection: Protection,
    frame: Vec<u8>,
}

impl End {
    fn new(server: &Server) -> End {
        let (mut nic, queue) = server.open();
        let sa = |direction| {
            let key = SecretKey::new(&[0x42; 16]).expect("16 bytes");
            let outer = OuterHeader::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
            SaConfiguration {
                outer: (direction == Direction::Out).then_some(outer),
                ..SaConfiguration::new(direction, Mode::Tunnel, Cipher::AesGcm128, key, [1, 2, 3, 4], 0x1001)
            }
        };
        let out = nic.install_sa(sa(Direction::Out)).expect("out");
        nic.install_sa(sa(Direction::In)).expect("in");
        End { queue, nic, protection: Protection::Sa(out), frame: udp_frame(60) }
    }

    /// Packets a second that were sent in batches, went around and were received, each with its status.
    fn rate(&mut self, batch: usize, span: Duration) -> f64 {
        let started = Instant::now();
        let mut packets = 0;
        while started.elapsed() < span {
            let mut sent: Vec<TransmitPacket> = (0..batch)
                .map(|number| {
                    let mut buffer = self.queue.take_buffer().expect("a buffer");
                    self.queue.fill(&mut buffer, &self.frame).expect("fits");
                    TransmitPacket::new(buffer, self.protection, number as u64)
                })
                .collect();
            if let Some(last) = sent.last_mut() {
                last.report = true;
            }
            assert_eq!(self.queue.transmit(&mut sent).expect("transmit"), batch);
            let (mut received, mut completed) = (0, vec![]);
            while received < batch || completed.is_empty() {
                let mut frames = vec![];
                self.queue.receive(&mut frames, batch).expect("receive");
                assert!(frames.iter().all(|frame| frame.status() == Status::Ok));
                received += frames.len();
                self.queue.return_buffers(&mut frames).expect("go back");
                self.queue.completed(&mut completed).expect("completed");
                self.queue.relax();
                assert!(started.elapsed() < PATIENCE, "{received} of {batch} came");
            }
            self.queue.reclaim(&mut vec![]);
            packets += batch;
        }
        packets as f64 / started.elapsed().as_secs_f64()
    }
}
