//! How many packets of a size pass in a second: the sawtooth of a bus that begins one packet a beat.

use cryptonic_hwmodel::rx_parse::BEAT_OCTETS;

use crate::lockstep::{Unit, run_alone};
use crate::reproduction::offers;
use crate::stimulus::{ALL_EXPECTED, Case, Segment};

/// The clock of a datacentre part's 100 Gb/s MAC with 512 bits, in hertz.
pub const CLOCK_HZ: f64 = 322_265_625.0;
/// Octets that a line has beside a frame's: FCS, preamble and gap.
const LINE_OCTETS: usize = 4 + 20;
/// The shortest frame on a line without its FCS.
const SHORTEST: usize = 60;
/// Packets of a measurement.
const PACKETS: [usize; 2] = [1_000, 3_000];

/// Sizes around the corners of beats, and those that are spoken of; octets on the bus, which has no FCS.
pub const SIZES: [usize; 24] = [
    60, 61, 62, 63, 64, 65, 66, 67, 68, 124, 125, 126, 127, 128, 129, 130, 131, 132, 192, 193, 256, 512,
    1024, 1514,
];

/// What one size comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Octets of a packet on the bus.
    pub octets: usize,
    /// Cycles that a packet takes, as measured.
    pub cycles_per_packet: f64,
    /// Packets a second at [`CLOCK_HZ`].
    pub packets_per_second: f64,
    /// What a line carries at that rate, with FCS, preamble and gap.
    pub line_gbps: f64,
}

/// Measures a size: packets back to back, a consumer that never stalls. Nothing where the unit does not let them pass.
pub fn measure<U: Unit>(unit: &mut U, octets: usize) -> Option<Row> {
    // The difference of two runs has neither the first packet's latency nor the last's.
    let [few, many] = PACKETS;
    let cycles = cycles(unit, octets, many)? - cycles(unit, octets, few)?;
    let cycles_per_packet = cycles / (many - few) as f64;
    let packets_per_second = CLOCK_HZ / cycles_per_packet;
    let line_octets = octets.max(SHORTEST) + LINE_OCTETS;
    let line_gbps = packets_per_second * line_octets as f64 * 8.0 / 1e9;
    Some(Row { octets, cycles_per_packet, packets_per_second, line_gbps })
}

fn cycles<U: Unit>(unit: &mut U, octets: usize, packets: usize) -> Option<f64> {
    let case = Case {
        expected: ALL_EXPECTED,
        offers: offers(vec![vec![0; octets]; packets], &[]),
        stalls: Vec::new(),
    };
    let most = 10 * packets * octets.div_ceil(BEAT_OCTETS) + 10_000;
    run_alone(unit, &Segment::of_case(&case), most as u64).map(|cycles| cycles as f64)
}
