//! Bytes on the PCI Express link and the latency of one packet, each as the sum of its documented parts.

use cryptonic_driver::Time;
use cryptonic_hwmodel::Parameters;
use cryptonic_hwmodel::pcie::transaction_rate_gbps;

use crate::rig::{CABLE, Kind, Rig, frame, protected_bytes, text_bytes, with_idle_hosts};

/// Host-to-device bytes of a 64 B packet: its completion, a sixteenth of a fetch of 16 descriptors of 32 bytes, and
/// its share of a doorbell.
fn transmit_bytes(mps: u64, doorbell_every: u64) -> f64 {
    let completion = |bytes: u64| (20 * bytes.div_ceil(mps) + bytes) as f64;
    completion(60) + completion(16 * 32) / 16.0 + 28.0 / doorbell_every as f64
}

#[test]
fn host_to_device_bytes_of_a_short_packet_are_those_of_the_formula() {
    let free = with_idle_hosts(Parameters::default());
    let mut line_bound = free.clone();
    line_bound.mac.rate_gbps = 10;
    line_bound.mac.transmit_buffer_bytes = 16_384;
    let mut large_payload = free.clone();
    (large_payload.pcie.mps_bytes, large_payload.pcie.completion_bytes) = (512, 512);
    for (name, parameters, batch, goal) in [
        ("MPS 256, a doorbell each 64 packets", &free, 64, 115.0),
        ("the same, transmit buffer full", &line_bound, 64, 115.0),
        ("MPS 512, a doorbell each 32 packets", &large_payload, 32, 115.0),
    ] {
        let mut rig = Rig::new(parameters, 32);
        let protection = rig.protection(Kind::Clear);
        let before = rig.world.pcie_bytes(rig.a.id);
        let packets = 6_400;
        assert_eq!(rig.flood(&frame(64), protection, packets, batch), packets);
        let after = rig.world.pcie_bytes(rig.a.id);
        let to_device = (after.0 - before.0) as f64 / packets as f64;
        let to_host = (after.1 - before.1) as f64 / packets as f64;
        let formula = transmit_bytes(parameters.pcie.mps_bytes, batch as u64);
        println!(
            "{name}: {to_device:.2} bytes to the device ({formula:.2} expected), {to_host:.2} to the host"
        );
        assert!((to_device - formula).abs() < 1e-9, "{name}: {to_device}, not {formula}");
        assert!(to_device <= goal);
    }
}

/// What docs/timing.md says that the parts of a packet's way take.
struct Parts<'a> {
    parameters: &'a Parameters,
    /// Ticks of 1024 bytes on the PCI Express link.
    kilobyte: u64,
}

impl<'a> Parts<'a> {
    fn new(parameters: &'a Parameters) -> Self {
        let link = &parameters.pcie;
        let rate = transaction_rate_gbps(link.generation, link.lanes, link.mps_bytes);
        Parts { parameters, kilobyte: (8_000.0 / rate * 33.0 * 1024.0).round() as u64 }
    }

    fn span(&self, bytes: u64) -> Time {
        Time(u128::from(bytes * self.kilobyte / 1024))
    }

    fn read(&self, bytes: u64) -> Time {
        let link = &self.parameters.pcie;
        self.span(24 * bytes.div_ceil(link.mrrs_bytes))
            + Time::from_nanoseconds(link.read_latency_ns)
            + self.span(20 * bytes.div_ceil(link.completion_bytes) + bytes)
    }

    fn write(&self, bytes: u64) -> Time {
        self.span(24 * bytes.div_ceil(self.parameters.pcie.mps_bytes) + bytes)
    }

    fn cycles(&self, count: u64) -> Time {
        Time::from(self.parameters.cycle()).times(count)
    }

    fn beats(&self, bytes: usize) -> u64 {
        (bytes as u64).div_ceil(self.parameters.pipeline.bus_bytes)
    }

    /// Lanes: text, E(K, J0) and, for the fresh key of PSP, H; or AAD (one block), text and lengths.
    fn lanes(&self, kind: Kind, size: usize) -> Time {
        let text = (text_bytes(kind, size) as u64).div_ceil(16);
        let fresh = u64::from(kind == Kind::Psp);
        let blocks = (text + 1 + fresh).max(1 + text + 1);
        match kind {
            Kind::Clear => Time::ZERO,
            _ => self.cycles(blocks + self.parameters.crypto.lane_latency_cycles),
        }
    }

    fn miss(&self, kind: Kind, first: bool) -> Time {
        let esp = matches!(kind, Kind::EspTransport | Kind::EspTunnel);
        Time::from_nanoseconds(if esp && first { self.parameters.crypto.context_miss_ns } else { 0 })
    }

    /// Doorbell accepted to last bit on the line.
    fn transmit(&self, kind: Kind, size: usize, stride: u64, first: bool) -> Time {
        let (pipeline, mac) = (&self.parameters.pipeline, &self.parameters.mac);
        let bytes = protected_bytes(kind, size);
        let line_byte = 33 * 8_000 / mac.rate_gbps;
        self.read(stride)
            + self.read(size as u64 - 4)
            + self.cycles(pipeline.commit_interval_cycles)
            + self.cycles(pipeline.stage_latency_cycles).max(self.miss(kind, first))
            + self.lanes(kind, size)
            + self.cycles(pipeline.stage_latency_cycles)
            + self.cycles(self.beats(bytes))
            + Time(u128::from(line_byte * (8 + bytes.max(60) as u64 + 4)))
            + Time::from_nanoseconds(mac.latency_ns)
    }

    /// Last bit on the line at `on_line` to receive completion visible: the time of that.
    fn receive(&self, kind: Kind, size: usize, on_line: Time, first: bool) -> Time {
        let (pipeline, crypto) = (&self.parameters.pipeline, &self.parameters.crypto);
        let arrives = on_line + CABLE + Time::from_nanoseconds(self.parameters.mac.latency_ns);
        let edge = self.cycles(arrives.0.div_ceil(Time::from(self.parameters.cycle()).0) as u64);
        let derivation = if kind == Kind::Psp { crypto.derivation_latency_cycles } else { 0 };
        edge + self.cycles(self.beats(protected_bytes(kind, size)) + 54)
            + self.cycles(pipeline.lookup_latency_cycles)
            + self.miss(kind, first)
            + self.cycles(derivation)
            + self.lanes(kind, size)
            + self.cycles(pipeline.commit_interval_cycles)
            + self.write(size as u64 - 4)
            + self.write(64)
            + Time::from_nanoseconds(self.parameters.pcie.write_latency_ns)
    }
}

#[test]
fn the_latency_of_one_packet_is_the_sum_of_its_parts_to_the_tick() {
    for preset in Parameters::PRESETS {
        let parameters = Parameters::preset(preset).expect("a preset");
        let parts = Parts::new(&parameters);
        for kind in [Kind::Clear, Kind::EspTransport, Kind::EspTunnel, Kind::Psp] {
            for size in [64, 65, 594, 1518] {
                let stride = if kind == Kind::Psp { 64 } else { 32 };
                let mut rig = Rig::new(&parameters, stride);
                let protection = rig.protection(kind);
                let line = rig.tap(rig.a.id);
                for first in [true, false] {
                    rig.world.drain();
                    rig.world.reset_latencies();
                    assert_eq!(rig.flood(&frame(size), protection, 1, 1), 1);
                    let found = rig.world.latencies().max();
                    let on_line = line.borrow().last().expect("one frame").0;
                    let accepted = on_line - parts.transmit(kind, size, stride.into(), first);
                    let expected = parts.receive(kind, size, on_line, first) - accepted;
                    assert_eq!(
                        found,
                        expected,
                        "{preset}, {kind:?}, {size} bytes: {} ns, not {} ns",
                        found.nanoseconds(),
                        expected.nanoseconds()
                    );
                    if !first && size == 64 {
                        println!("{preset}, {kind:?}, 64 bytes: {:.1} ns", found.nanoseconds());
                    }
                }
            }
        }
    }
}
