//! A clocked receive parser under live traffic: RTL in the place of the model's, or beside it.
//!
//! The NIC's events are a packet at a time; a clocked unit wants a beat a cycle. Frames wait here with the cycle in which
//! they arrived, and the unit runs behind: when the closed form says that a result is taken, the unit is stepped up to
//! that cycle, and no further, so it never sees what has not yet arrived. Cycles in which it is drained and nothing is
//! offered are skipped.
//!
//! ```text
//!              frame, cycle            beats               results
//!   arrival ───────────────▶ ┌──┬──┬──┐ ────▶ unit ──────────────▶ ┌──┬──┐ ──▶ event Parsed: lookup
//!   registers ── change ───▶ └──┴──┴──┘   └─▶ shell (lockstep) ──▶ └──┴──┘
//! ```
//!
//! The closed form stays what schedules. A result that is not there when it is due is waited for, a cycle at a time; that,
//! one that was there before, and one that is not what the function says, are differences. They are counted, and the
//! first is told with its place.

use std::collections::VecDeque;

use cryptonic_regs::Status;
use cryptonic_wire::Parsed;
use cryptonic_wire::packet::Expected;

use crate::rx_parse::{
    BEAT_OCTETS, Beat, CHANGE_CYCLES, Headers, Outputs, ParserUnit, Result, RxParseShell, headers,
};

/// What parses the frames that a NIC receives.
#[derive(Default)]
pub enum Parser {
    /// The model: the function at the closed form's time.
    #[default]
    Model,
    /// A clocked unit in the model's place: the NIC acts on its results when it gives them.
    Replaced(Box<dyn ParserUnit>),
    /// The model, and a clocked unit beside it whose outputs are compared with the shell's in every cycle.
    Lockstep(Box<dyn ParserUnit>),
}

/// What a NIC's clocked parser did so far; all zero where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParserOutcome {
    /// Cycles that it ran; those that were skipped are not among them.
    pub cycles: u64,
    /// Results that were due.
    pub results: u64,
    /// In the model's place: results that were late, early, wrong, lost or of no packet. In lockstep: cycles in which
    /// outputs differed.
    pub differences: u64,
    /// The first of them in words.
    pub first: Option<String>,
}

/// Cycles after which a result that has not come is lost.
const PATIENCE_CYCLES: u64 = 4_096;
/// Cycles with nothing inside and nothing offered after which a unit ought to say that it is drained.
const UNDRAINED_CYCLES: u64 = 16;

/// A frame of which the unit has not taken every beat.
struct Frame {
    octets: Vec<u8>,
    /// The cycle in which its beats are there.
    there: u64,
    /// What to look for changes in front of it.
    change: Option<Expected>,
}

/// A clocked unit and what it needs around it.
pub(crate) struct InPlace {
    unit: Box<dyn ParserUnit>,
    /// In lockstep: what the unit is held against, and what decides when a beat is taken.
    shell: Option<RxParseShell>,
    /// The next cycle to be stepped.
    cycle: u64,
    frames: VecDeque<Frame>,
    /// Octets of the first frame that were taken.
    taken_octets: usize,
    /// The beat that is offered. What stands behind its octets is what a frame before left there.
    beat: Beat,
    /// What to look for changes in front of the next frame.
    change: Option<Expected>,
    /// Frames whose result has not come.
    outstanding: u64,
    /// As many of those that come next are of packets that a reset ended.
    abandoned: u64,
    /// Cycle of the last result.
    last_result: Option<u64>,
    /// Results that the NIC has not asked for, with their cycles.
    results: VecDeque<(u64, Result)>,
    /// When the result was due that the NIC waits for.
    late_since: Option<u64>,
    /// Cycles in a row in which nothing was inside or offered and the unit did not say so.
    undrained_cycles: u64,
    /// It is not stepped any more.
    stuck: bool,
    spare: Vec<Vec<u8>>,
    outcome: ParserOutcome,
}

/// What the NIC does with a frame whose result is due.
pub(crate) enum Answer {
    /// It goes on with this.
    Result(std::result::Result<Parsed, Status>),
    /// It asks again a cycle later.
    Late,
    /// It will not come: the frame is lost.
    Lost,
}

impl InPlace {
    /// A unit in the place of the model's, or none where the model does without. The unit is drained.
    pub(crate) fn new(parser: Parser, results: u64, expected: Expected) -> Option<Box<InPlace>> {
        let (mut unit, shell) = match parser {
            Parser::Model => return None,
            Parser::Replaced(unit) => (unit, None),
            Parser::Lockstep(unit) => (unit, Some(RxParseShell::new(results, expected))),
        };
        unit.set_expected(expected);
        Some(Box::new(InPlace {
            unit,
            shell,
            cycle: 0,
            frames: VecDeque::new(),
            taken_octets: 0,
            beat: Beat { data: [0; BEAT_OCTETS], octets: 0, last: false },
            change: None,
            outstanding: 0,
            abandoned: 0,
            last_result: None,
            results: VecDeque::new(),
            late_since: None,
            undrained_cycles: 0,
            stuck: false,
            spare: Vec::new(),
            outcome: ParserOutcome::default(),
        }))
    }

    /// What it did so far.
    pub(crate) fn outcome(&self) -> &ParserOutcome {
        &self.outcome
    }

    /// A frame is in the receive buffer whole from cycle `there` on; cycles ascend from call to call.
    pub(crate) fn arrive(&mut self, frame: &[u8], there: u64) {
        if self.stuck {
            return;
        }
        let mut octets = self.spare.pop().unwrap_or_default();
        octets.clear();
        octets.extend_from_slice(frame);
        if octets.is_empty() {
            // The bus has no empty beat; a line has no empty frame either. It is too short as one of one octet is.
            octets.push(0);
        }
        self.frames.push_back(Frame { octets, there, change: self.change.take() });
        self.outstanding += 1;
    }

    /// What to look for is another for the frames that arrive from now on.
    pub(crate) fn change(&mut self, expected: Expected) {
        self.change = Some(expected);
    }

    /// A reset ended the packets inside: their results go nowhere.
    pub(crate) fn abandon(&mut self) {
        self.results.clear();
        self.late_since = None;
        self.abandoned = self.outstanding;
    }

    /// The result of a frame, which by the closed form is taken in the cycle before `now`.
    pub(crate) fn answer(&mut self, now: u64, frame: &[u8], expected: &Expected) -> Answer {
        self.run_to(now);
        let due = self.late_since.unwrap_or(now.saturating_sub(1));
        let ours = headers(frame, expected);
        let Some((cycle, theirs)) = self.results.pop_front() else {
            return self.missing(now, due, &ours);
        };
        self.late_since = None;
        self.outcome.results += 1;
        let number = self.outcome.results;
        if cycle < due {
            self.differ(|| format!("packet {number}: result in cycle {cycle}, due in {due}"));
        }
        if theirs != ours {
            self.differ(|| format!("packet {number}, cycle {cycle}: {}", difference(&theirs, &ours)));
        }
        Answer::Result(if self.shell.is_some() { ours } else { theirs }.map(|headers| headers.parsed))
    }

    /// A result is due and not there.
    #[cold]
    fn missing(&mut self, now: u64, due: u64, ours: &Result) -> Answer {
        let number = self.outcome.results + 1;
        let gone = self.frames.is_empty() && self.unit.drained();
        let stuck = self.stuck || now > due + PATIENCE_CYCLES;
        if !gone && !stuck {
            if self.late_since.is_none() {
                self.late_since = Some(due);
                self.differ(|| format!("packet {number}: no result in cycle {due}, when it was due"));
            }
            return Answer::Late;
        }
        if stuck {
            self.stop();
        }
        self.late_since = None;
        self.outcome.results = number;
        self.outstanding = self.outstanding.saturating_sub(1);
        self.differ(|| format!("packet {number}: no result, due in cycle {due}"));
        if self.shell.is_some() { Answer::Result(ours.map(|headers| headers.parsed)) } else { Answer::Lost }
    }

    /// Steps every cycle before `end`.
    fn run_to(&mut self, end: u64) {
        while self.cycle < end && !self.stuck {
            let next = self.next_beat();
            let undrained = self.undrained_cycles >= UNDRAINED_CYCLES;
            if self.nothing_inside() && (undrained || self.unit.drained()) {
                if next > self.cycle {
                    self.cycle = next.min(end);
                    continue;
                }
                self.change_now();
            }
            self.step(next);
        }
        self.cycle = self.cycle.max(end);
    }

    /// Whether every packet of which the last beat was taken has its result.
    fn nothing_inside(&self) -> bool {
        self.outstanding == self.frames.len() as u64
    }

    /// From when on a beat is there to be taken.
    fn next_beat(&self) -> u64 {
        let Some(frame) = self.frames.front() else { return u64::MAX };
        match (&frame.change, self.last_result) {
            (Some(_), Some(last)) => frame.there.max(last + CHANGE_CYCLES),
            _ => frame.there,
        }
    }

    /// Has the units look for what the next frame is to be judged by. They are drained.
    fn change_now(&mut self) {
        if let Some(expected) = self.frames.front_mut().and_then(|frame| frame.change.take()) {
            self.unit.set_expected(expected);
            if let Some(shell) = &mut self.shell {
                shell.set_expected(expected);
            }
        }
    }

    /// One cycle; the next beat is there from cycle `next` on, unless it waits for a change.
    fn step(&mut self, next: u64) {
        let offers = next <= self.cycle && self.fill_beat();
        let idle = !offers && self.nothing_inside();
        let offered = offers.then_some(&self.beat);
        let outputs = self.unit.step(offered, true);
        let decides = match &mut self.shell {
            None => outputs,
            Some(shell) => {
                let ours = shell.step(offered, true);
                if outputs != ours {
                    let cycle = self.cycle;
                    self.differ(|| format!("cycle {cycle}: {}", output_difference(&outputs, &ours)));
                }
                ours
            }
        };
        if let Some(result) = decides.result {
            self.result_taken(result);
        }
        if offers && decides.ready {
            self.beat_taken();
        }
        self.outcome.cycles += 1;
        self.cycle += 1;
        self.undrained_cycles = if idle { self.undrained_cycles + 1 } else { 0 };
        if self.undrained_cycles == UNDRAINED_CYCLES {
            let cycle = self.cycle;
            self.differ(|| format!("cycle {cycle}: not drained, and nothing is inside"));
        }
    }

    /// Makes the beat that is to be offered. There is none while a change waits for the unit to drain.
    fn fill_beat(&mut self) -> bool {
        let Some(Frame { octets, change: None, .. }) = self.frames.front() else { return false };
        let rest = octets.get(self.taken_octets..).unwrap_or(&[]);
        let count = rest.len().min(BEAT_OCTETS);
        if let (Some(place), Some(now)) = (self.beat.data.get_mut(..count), rest.get(..count)) {
            place.copy_from_slice(now);
        }
        self.beat.octets = count as u8;
        self.beat.last = rest.len() <= BEAT_OCTETS;
        count > 0
    }

    fn beat_taken(&mut self) {
        self.taken_octets += usize::from(self.beat.octets);
        if self.beat.last {
            self.taken_octets = 0;
            self.spare.extend(self.frames.pop_front().map(|frame| frame.octets));
        }
    }

    fn result_taken(&mut self, result: Result) {
        let cycle = self.cycle;
        self.last_result = Some(cycle);
        if self.nothing_inside() {
            self.differ(|| format!("cycle {cycle}: a result of no packet"));
            return;
        }
        self.outstanding -= 1;
        if self.abandoned > 0 {
            self.abandoned -= 1;
        } else {
            self.results.push_back((cycle, result));
        }
    }

    /// Steps no further.
    fn stop(&mut self) {
        self.stuck = true;
        self.frames.clear();
        self.outstanding = 0;
    }

    #[cold]
    fn differ(&mut self, describe: impl FnOnce() -> String) {
        self.outcome.differences += 1;
        self.outcome.first.get_or_insert_with(describe);
    }
}

/// What is different in two cycles' outputs: a unit's and the shell's.
fn output_difference(theirs: &Outputs, ours: &Outputs) -> String {
    let ready = |outputs: &Outputs| if outputs.ready { "ready" } else { "not ready" };
    match (&theirs.result, &ours.result) {
        _ if theirs.ready != ours.ready => format!("{}, the model {}", ready(theirs), ready(ours)),
        (Some(theirs), Some(ours)) => difference(theirs, ours),
        (Some(_), None) => "a result, the model none".to_owned(),
        _ => "no result, the model one".to_owned(),
    }
}

/// What is different in two results: a unit's and the model's.
fn difference(theirs: &Result, ours: &Result) -> String {
    let verdict = |result: &Result| result.map_or_else(|status| status.name(), |_| Status::Ok.name());
    let (Ok(theirs), Ok(ours)) = (theirs, ours) else {
        return format!("verdict {}, the model {}", verdict(theirs), verdict(ours));
    };
    let differing = fields(theirs).into_iter().zip(fields(ours)).filter(|(theirs, ours)| theirs != ours);
    let told: Vec<String> = differing
        .map(|((name, theirs), (_, ours))| format!("{name} {theirs:#x}, the model {ours:#x}"))
        .collect();
    told.join("; ")
}

/// The fields of a result by name, as numbers; what is absent is all ones.
fn fields(headers: &Headers) -> [(&'static str, u128); 29] {
    let Headers { parsed, numbers } = headers;
    let plain = &parsed.plain;
    let option = |value: Option<u128>| value.unwrap_or(u128::MAX);
    [
        ("protocol", parsed.protocol as u128),
        ("reserved_esp_spi", parsed.reserved_esp_spi.into()),
        ("vlan", option(plain.vlan.map(u128::from))),
        ("ip_version", plain.ip_version.into()),
        ("l3_offset", plain.l3_offset as u128),
        ("ip_header_length", plain.ip_header_length as u128),
        ("l3_end", plain.l3_end as u128),
        ("next_header", plain.next_header.into()),
        ("next_header_offset", plain.next_header_offset as u128),
        ("traffic_class", plain.traffic_class.into()),
        ("dont_fragment", plain.dont_fragment.into()),
        ("hop_limit", plain.hop_limit.into()),
        ("flow_label", plain.flow_label.into()),
        ("source", u128::from_be_bytes(plain.source)),
        ("destination", u128::from_be_bytes(plain.destination)),
        ("source_port", option(plain.ports.map(|ports| ports.source.into()))),
        ("destination_port", option(plain.ports.map(|ports| ports.destination.into()))),
        ("fragment", plain.fragment.into()),
        ("udp_offset", option(parsed.udp_offset.map(|offset| offset as u128))),
        ("security_offset", parsed.security_offset as u128),
        ("spi", parsed.spi.into()),
        ("sequence", parsed.sequence.into()),
        ("session_id", parsed.session_id.into()),
        ("numbers_offset", parsed.numbers_offset as u128),
        ("header_octets", parsed.header_octets.into()),
        ("crypt_offset", parsed.crypt_offset.into()),
        ("payload_offset", option(parsed.payload_offset.map(u128::from))),
        ("psp_flags", parsed.psp_flags.into()),
        ("numbers", u128::from_be_bytes(*numbers)),
    ]
}
