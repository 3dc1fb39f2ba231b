//! The receive parser under live traffic: with the model's, with a clocked unit in its place and with one beside it,
//! everything that can be seen is the same, to the tick; and a unit that does anything else is noticed.

use std::collections::VecDeque;
use std::process::Command;

use cryptonic_driver::{Nic, OpenOptions, Protection, QueuePair, QueuePairOptions, Received, Status, Time};
use cryptonic_hwmodel::rx_parse::{
    Beat, Headers, LATENCY_CYCLES, Outputs, ParserUnit, Result as ParseResult, RxParseShell, headers,
};
use cryptonic_hwmodel::{NicId, Parameters, Parser, ParserOutcome, World};
use cryptonic_rtl_bench::rx_parse::RxParseRtl;
use cryptonic_rtl_bench::{Build, availability};
use cryptonic_wire::packet::Expected;
use serde_json::Value;

#[path = "timing/rig.rs"]
#[allow(dead_code, reason = "the tests of timing use all of it")]
mod rig;

use rig::{Kind, Rig, frame};

/// Results of the units.
const RESULTS: u64 = 64;

/// A number that looks random, from a counter (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

fn shell() -> Box<dyn ParserUnit> {
    Box::new(RxParseShell::new(RESULTS, Expected::default()))
}

fn rtl() -> Box<dyn ParserUnit> {
    Box::new(RxParseRtl::new(Build::Fast, &Expected::default()).expect("this build has the RTL"))
}

/// What makes a parser, by name.
type Made = (&'static str, fn() -> Parser);

/// Every parser. The first is what the others are compared with.
fn parsers() -> Vec<Made> {
    let mut parsers: Vec<Made> = vec![
        ("model", || Parser::Model),
        ("shell", || Parser::Replaced(shell())),
        ("shell in lockstep", || Parser::Lockstep(shell())),
    ];
    match availability() {
        Ok(_) => {
            parsers.push(("RTL", || Parser::Replaced(rtl())));
            parsers.push(("RTL in lockstep", || Parser::Lockstep(rtl())));
        }
        Err(unavailable) => skip(&unavailable.to_string()),
    }
    parsers
}

/// Says why a part is skipped, which `CRYPTONIC_REQUIRE` may forbid.
fn skip(reason: &str) {
    let required = std::env::var("CRYPTONIC_REQUIRE").unwrap_or_default();
    let forbidden = required.split(',').any(|name| name == "all" || name == "rtl");
    assert!(!forbidden, "{reason}: and CRYPTONIC_REQUIRE={required} requires it");
    println!("skipped: {reason}");
}

/// Everything that can be seen of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Status, the NIC's time of it in ps, SPI, sequence, bytes.
    received: Vec<(Status, u64, u32, u64, Vec<u8>)>,
    drops: Vec<Status>,
    /// How many, median and longest.
    latencies: (u64, Time, Time),
    end: Time,
}

impl Seen {
    fn take(&mut self, queue: &QueuePair, one: &Received) {
        let mut bytes = vec![0; one.length()];
        queue.read(one, 0, &mut bytes).expect("in range");
        self.received.push((one.status(), one.time_picoseconds(), one.spi(), one.sequence(), bytes));
    }

    fn end(mut self, world: &World, nic: NicId) -> Seen {
        self.drops = world.take_drops(nic);
        let latencies = world.latencies();
        self.latencies = (latencies.samples(), latencies.quantile(0.5), latencies.max());
        self.end = world.now();
        self
    }
}

/// What is left of a frame after some of its octets changed, were cut off, or came in addition.
fn damaged(frame: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(frame.len().clamp(1, 100));
        match random.below(4) {
            0 => frame.truncate(at),
            1 => frame.extend(vec![0; random.below(100)]),
            _ => {
                if let Some(octet) = frame.get_mut(at) {
                    *octet ^= 1 << random.below(8);
                }
            }
        }
    }
    frame
}

/// Protected traffic from `a` to `b`, whose parser it is, with damaged copies of it from nowhere in between.
fn hostile_traffic(seed: u64, parser: Parser) -> (Seen, ParserOutcome) {
    let world = World::new(seed);
    let parameters = Parameters::default();
    let a = world.add_nic(&parameters).expect("in range");
    let b = world.add_nic_with_parser(&parameters, parser).expect("in range");
    let mut rig = Rig::open(world, a, b, 64);
    rig.world.record_drops(b);
    let kinds = [Kind::Clear, Kind::EspTransport, Kind::EspTunnel, Kind::Psp];
    let protections: Vec<Protection> = kinds.iter().map(|kind| rig.protection(*kind)).collect();
    let line = rig.tap(a);
    let mut random = Random(seed);
    let mut seen = Seen::default();
    for _ in 0..40 {
        let protection = protections[random.below(protections.len())];
        let count = 1 + random.below(24);
        let frames: Vec<_> = (0..count).map(|_| frame(64 + random.below(1_455))).collect();
        rig.a.send(&frames, protection);
        for _ in 0..random.below(12) {
            for _ in 0..random.below(8) {
                let heard = line.borrow();
                let Some((_, frame)) = heard.get(random.below(heard.len().max(1))) else { continue };
                rig.world.inject(b, &damaged(frame, &mut random));
            }
            rig.a.queue.relax();
            rig.b.receive(|queue, one| seen.take(queue, one));
            rig.a.reap();
        }
        while rig.a.queue.transmit_space() < 512 {
            rig.a.queue.relax();
            rig.a.reap();
        }
    }
    rig.world.drain();
    while rig.b.receive(|queue, one| seen.take(queue, one)) > 0 {}
    let outcome = rig.world.parser_outcome(b);
    (seen.end(&rig.world, b), outcome)
}

#[test]
fn hostile_traffic_is_the_same_with_every_parser() {
    for seed in 0..4 {
        let mut model = None;
        for (name, parser) in parsers() {
            let (seen, outcome) = hostile_traffic(seed, parser());
            assert_eq!((outcome.differences, &outcome.first), (0, &None), "{name}, seed {seed}");
            if outcome.cycles > 0 {
                assert!(outcome.results > 400, "{name}: {outcome:?}");
            }
            let model = model.get_or_insert_with(|| {
                let reasons: std::collections::BTreeSet<_> =
                    seen.drops.iter().map(|one| one.name()).collect();
                assert!(seen.received.len() > 200 && reasons.len() > 8, "{reasons:?}");
                Seen { drops: seen.drops.clone(), received: seen.received.clone(), ..seen }
            });
            assert!(seen == *model, "{name}, seed {seed}: not what the model alone shows");
        }
    }
}

/// UDP to the port, with 1400 octets of what looks like ESP there.
fn esp_in_udp(port: u16) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 1, 0, 2], 64)
        .udp(1234, port);
    let mut frame = vec![];
    builder.write(&mut frame, &[0x77; 1_400]).expect("a vector takes all");
    frame
}

fn open(world: &World, id: NicId) -> (Nic, QueuePair) {
    let mut nic = Nic::open(world.host(id), OpenOptions::default()).expect("open");
    let options = QueuePairOptions { receive_slots: 1024, ..QueuePairOptions::default() };
    let queue = nic.create_queue_pair(options).expect("queue pair");
    // Receive descriptors are at hand then.
    world.drain();
    (nic, queue)
}

fn receive(queue: &mut QueuePair, seen: &mut Seen) {
    let mut received = vec![];
    queue.receive(&mut received, 256).expect("receive");
    received.iter().for_each(|one| seen.take(queue, one));
    queue.return_buffers(&mut received).expect("go back");
}

/// A frame that arrives before the register is written is judged by its old value, though it is parsed later; one that
/// arrives after it waits until the parser is drained and has the new one.
#[test]
fn a_register_reaches_the_parser_between_the_frames_before_and_behind_it() {
    let mut model = None;
    for (name, parser) in parsers() {
        let world = World::new(1);
        let id = world.add_nic_with_parser(&Parameters::default(), parser()).expect("in range");
        let (mut nic, mut queue) = open(&world, id);
        world.record_drops(id);
        let mut seen = Seen::default();
        // 40 frames are 960 cycles, 3 us, of the parser: the write takes effect while they are inside.
        let (mut to_host, mut no_sa) = (0, 0);
        for (round, ports) in
            [&[4501][..], &[4501], &[4500, 4501], &[4500], &[4501, 4500], &[0, 4500]].iter().enumerate()
        {
            let before: u16 = [4500, 4501, 4501, 4501, 4500, 4500][round];
            for _ in 0..40 {
                world.inject(id, &esp_in_udp(4500));
            }
            (if before == 4500 { no_sa += 40 } else { to_host += 40 });
            for port in ports.iter() {
                nic.set_esp_udp_port((*port != 0).then_some(*port)).expect("a port");
            }
            for _ in 0..3 {
                world.inject(id, &esp_in_udp(4500));
            }
            (if ports.last() == Some(&4500) { no_sa += 3 } else { to_host += 3 });
            world.drain();
            receive(&mut queue, &mut seen);
        }
        assert_eq!(seen.received.len(), to_host, "{name}");
        let seen = seen.end(&world, id);
        assert_eq!(seen.drops, vec![Status::NoSa; no_sa], "{name}");
        let outcome = world.parser_outcome(id);
        assert_eq!((outcome.differences, &outcome.first), (0, &None), "{name}");
        assert_eq!(model.get_or_insert(seen.end), &seen.end, "{name}");
    }
}

/// A reset finds packets inside: nothing comes of them, and the unit goes on in step.
#[test]
fn a_reset_ends_the_packets_inside_and_not_the_unit() {
    let mut model: Option<Seen> = None;
    for (name, parser) in parsers() {
        let world = World::new(1);
        let id = world.add_nic_with_parser(&Parameters::default(), parser()).expect("in range");
        let (nic, queue) = open(&world, id);
        for _ in 0..2_000 {
            world.inject(id, &esp_in_udp(9));
        }
        drop((queue, nic));
        let (_nic, mut queue) = open(&world, id);
        world.record_drops(id);
        let mut seen = Seen::default();
        for _ in 0..10 {
            world.inject(id, &esp_in_udp(9));
        }
        world.drain();
        receive(&mut queue, &mut seen);
        assert_eq!(seen.received.len(), 10, "{name}: those behind the reset, and no other");
        let outcome = world.parser_outcome(id);
        assert_eq!((outcome.differences, &outcome.first), (0, &None), "{name}");
        assert!(outcome.results < 700, "the receive buffer takes more than that: {outcome:?}");
        let seen = seen.end(&world, id);
        match &model {
            None => model = Some(seen),
            Some(model) => assert!(seen == *model, "{name}: not what the model alone shows"),
        }
    }
}

/// What a unit does that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Late,
    Early,
    WrongField,
    WrongVerdict,
    Lost,
    Doubled,
    /// It takes no more beats.
    Stuck,
    /// It never says that it is drained.
    Undrained,
    /// Every result is made up.
    Lies,
}

/// Where the fault is, by the number of the packet: the last of its ten, with nothing behind it. Only the first can be
/// early, for in front of the others is a result in each cycle.
fn faulty_packet(fault: Fault) -> u64 {
    if fault == Fault::Early { 101 } else { 100 }
}

/// A unit of the interface's bare minimum, with a fault.
struct Faulty {
    fault: Fault,
    expected: Expected,
    frame: Vec<u8>,
    in_packet: bool,
    cycle: u64,
    packets: u64,
    results: VecDeque<(u64, ParseResult)>,
    random: Random,
}

impl Faulty {
    fn new(fault: Fault) -> Box<Faulty> {
        Box::new(Faulty {
            fault,
            expected: Expected::default(),
            frame: vec![],
            in_packet: false,
            cycle: 0,
            packets: 0,
            results: VecDeque::new(),
            random: Random(1),
        })
    }

    fn judge(&mut self) {
        self.packets += 1;
        let (cycle, result) = (self.cycle + LATENCY_CYCLES, headers(&self.frame, &self.expected));
        if self.fault == Fault::Lies {
            let lie = self.lie(result);
            return self.results.push_back((cycle, lie));
        }
        let fault = if self.packets == faulty_packet(self.fault) { self.fault } else { Fault::None };
        match fault {
            Fault::Late => self.results.push_back((cycle + 1, result)),
            Fault::Early => self.results.push_back((cycle - 1, result)),
            Fault::WrongField => self.results.push_back((
                cycle,
                result.map(|mut headers| {
                    headers.parsed.plain.hop_limit ^= 1;
                    headers
                }),
            )),
            Fault::WrongVerdict => self.results.push_back((cycle, Err(Status::TooManyOptions))),
            Fault::Lost => {}
            Fault::Doubled => self.results.extend([(cycle, result), (cycle + 1, result)]),
            _ => self.results.push_back((cycle, result)),
        }
    }

    /// A result of the right form, and nothing more.
    fn lie(&mut self, result: ParseResult) -> ParseResult {
        let Ok(Headers { mut parsed, mut numbers }) = result else { return result };
        let protocols = [parsed.protocol, cryptonic_wire::Protocol::Esp, cryptonic_wire::Protocol::Psp];
        parsed.protocol = protocols[self.random.below(3)];
        for offset in [
            &mut parsed.plain.l3_offset,
            &mut parsed.plain.ip_header_length,
            &mut parsed.plain.l3_end,
            &mut parsed.plain.next_header_offset,
            &mut parsed.security_offset,
            &mut parsed.numbers_offset,
        ] {
            match self.random.below(4) {
                0 => *offset = self.random.below(1 << 14),
                1 => *offset = self.random.below(64),
                _ => {}
            }
        }
        parsed.udp_offset = (self.random.below(2) == 0).then_some(parsed.plain.l4_offset());
        parsed.plain.ip_version = [0, 4, 6][self.random.below(3)];
        numbers[0] ^= self.random.next() as u8;
        Ok(Headers { parsed, numbers })
    }
}

impl ParserUnit for Faulty {
    fn step(&mut self, offered: Option<&Beat>, _: bool) -> Outputs {
        let due = self.results.front().is_some_and(|(cycle, _)| *cycle <= self.cycle);
        let result = if due { self.results.pop_front().map(|(_, result)| result) } else { None };
        let ready = self.fault != Fault::Stuck || self.packets < faulty_packet(self.fault);
        if let Some(beat) = offered.filter(|_| ready) {
            if !self.in_packet {
                self.frame.clear();
            }
            self.frame.extend_from_slice(beat.bytes());
            self.in_packet = !beat.last;
            if beat.last {
                self.judge();
            }
        }
        self.cycle += 1;
        Outputs { ready, result }
    }

    fn drained(&mut self) -> bool {
        let undrained = self.fault == Fault::Undrained && self.packets >= faulty_packet(self.fault);
        !undrained && !self.in_packet && self.results.is_empty()
    }

    fn set_expected(&mut self, expected: Expected) {
        self.expected = expected;
    }
}

/// 300 packets of one beat, ten at a time.
fn short_traffic(parser: Parser) -> (usize, ParserOutcome) {
    let world = World::new(1);
    let id = world.add_nic_with_parser(&Parameters::default(), parser).expect("in range");
    let (_nic, mut queue) = open(&world, id);
    let mut seen = Seen::default();
    for _ in 0..30 {
        for size in 0..10 {
            world.inject(id, &frame(64 + size % 3));
        }
        world.drain();
        receive(&mut queue, &mut seen);
    }
    (seen.received.len(), world.parser_outcome(id))
}

#[test]
fn a_unit_with_a_fault_is_noticed_in_its_place_and_in_lockstep() {
    for (fault, received, in_place, in_lockstep) in [
        (Fault::None, 300, None, None),
        (Fault::Late, 300, Some("packet 100: no result in cycle"), Some("no result, the model one")),
        (Fault::Early, 300, Some("packet 101: result in cycle"), Some("a result, the model none")),
        (
            Fault::WrongField,
            300,
            Some("hop_limit 0x41, the model 0x40"),
            Some("hop_limit 0x41, the model 0x40"),
        ),
        (
            Fault::WrongVerdict,
            299,
            Some("verdict too_many_options"),
            Some("verdict too_many_options, the model ok"),
        ),
        (Fault::Lost, 299, Some("packet 100: no result, due in cycle"), Some("no result, the model one")),
        (Fault::Doubled, 300, Some("a result of no packet"), Some("a result, the model none")),
        (Fault::Stuck, 100, Some("packet 101: no result in cycle"), Some("not ready, the model ready")),
        (
            Fault::Undrained,
            300,
            Some("not drained, and nothing is inside"),
            Some("not drained, and nothing is inside"),
        ),
    ] {
        for (name, parser, says, received) in [
            ("in place", Parser::Replaced(Faulty::new(fault)), in_place, received),
            // The NIC acts on the model.
            ("in lockstep", Parser::Lockstep(Faulty::new(fault)), in_lockstep, 300),
        ] {
            let (found, outcome) = short_traffic(parser);
            println!("{fault:?} {name}: {found} received, {outcome:?}");
            assert_eq!(outcome.differences == 0, says.is_none(), "{fault:?} {name}: {outcome:?}");
            let first = outcome.first.unwrap_or_default();
            assert!(first.contains(says.unwrap_or_default()), "{fault:?} {name}: {first}");
            assert_eq!(found, received, "{fault:?} {name}");
        }
    }
}

/// What the NIC acts on may be anything: it neither panics nor hangs.
#[test]
fn a_unit_that_makes_its_results_up_does_no_harm() {
    for seed in 0..4 {
        let (_, outcome) = hostile_traffic(seed, Parser::Replaced(Faulty::new(Fault::Lies)));
        assert!(outcome.differences > 200, "{outcome:?}");
    }
}

#[test]
fn a_clocked_parser_wants_its_own_bus_and_frames() {
    for (setting, knob) in [
        ("pipeline.bus_bytes=128", "pipeline.bus_bytes"),
        ("capacity.frame_bytes=16256", "capacity.frame_bytes"),
    ] {
        let parameters = Parameters::default().with_setting(setting).expect("in range of the model");
        let world = World::new(1);
        let refused = world.add_nic_with_parser(&parameters, Parser::Replaced(shell())).expect_err(setting);
        assert!(refused.to_string().contains(knob), "{refused}");
        world.add_nic(&parameters).expect("the model takes it");
    }
}

/// `run` with this workload and these arguments: its report and the wall speed.
fn report(parser: &str, workload: Option<&str>, arguments: &[&str]) -> (Value, f64) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cryptonic"));
    command.args(["run", "--json", "--parser", parser]).args(arguments);
    if let Some(workload) = workload {
        let file = folder.path().join("workload.toml");
        std::fs::write(&file, workload).expect("a file");
        command.arg("--workload").arg(file);
    }
    let output = command.output().expect("the command line runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{parser}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut report: Value = serde_json::from_str(&text).expect("one JSON object");
    let object = report.as_object_mut().expect("an object");
    assert_eq!(object.remove("parser"), Some(parser.into()));
    assert_eq!(object["parser_differences"], 0, "{parser}: {}", object["faults"]);
    let cycles = object.remove("parser_cycles").and_then(|cycles| cycles.as_u64()).expect("a count");
    assert_eq!(cycles > 0, parser != "model", "{parser}: {cycles} cycles of RTL");
    for key in ["wall_seconds", "wall_gbps"] {
        object.remove(key);
    }
    let speed = object.remove("wall_packets_per_second").and_then(|speed| speed.as_f64()).expect("a rate");
    if workload.is_some() {
        // The file's name.
        object.remove("size");
    }
    (report, speed)
}

#[test]
fn a_run_reports_the_same_with_the_model_the_rtl_and_both() {
    if let Err(unavailable) = availability() {
        return skip(&unavailable.to_string());
    }
    let psp = "[[flow]]\nprotection = \"psp\"\n";
    let reordered = format!("[cable]\nreorder_depth = 64\nduplicate = 0.05\nloss = 0.02\n{ESP}{psp}");
    for (name, workload, arguments) in [
        ("default", None, &["--packets", "4000"][..]),
        ("short frames", None, &["--packets", "4000", "--size", "64"]),
        ("every length", None, &["--packets", "2000", "--size", "mix", "--seed", "7"]),
        ("PSP", Some(psp), &["--packets", "2000"]),
        ("reordered, doubled, lost", Some(&reordered), &["--packets", "3000"]),
        ("at 25 Gb/s", None, &["--packets", "1000", "--preset", "25g"]),
    ] {
        let (model, speed) = report("model", workload, arguments);
        println!("{name}: model {speed} packets/s");
        for parser in ["rtl", "lockstep"] {
            let (found, speed) = report(parser, workload, arguments);
            println!("{name}: {parser} {speed} packets/s");
            assert_eq!(found, model, "{name}: {parser}");
        }
    }
}

const ESP: &str = "[[flow]]\nprotection = \"esp-tunnel\"\nreplay_window = 65\n";

/// Exit 2, with what the parser wants.
#[test]
fn a_parser_that_cannot_be_had_is_explained() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cryptonic"))
            .args(["run", "--packets", "10"])
            .args(arguments)
            .output()
            .expect("the command line runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (preset, knob) in
        [("200g", "pipeline.bus_bytes = 64, not 128"), ("400g", "pipeline.bus_bytes = 64, not 256")]
    {
        let message = refused(&["--parser", "rtl", "--preset", preset]);
        assert!(message.contains("--parser") && message.contains(knob), "{message}");
    }
    let message = refused(&["--parser", "lockstep", "--set", "pipeline.parse_results=16"]);
    assert!(message.contains("pipeline.parse_results = 64, not 16"), "{message}");
    if let Err(unavailable) = availability() {
        let message = refused(&["--parser", "rtl"]);
        let reason = unavailable.reason.lines().next().unwrap_or_default();
        assert!(message.contains(reason) && message.contains(unavailable.install), "{message}");
    }
}
