//! `rx_parse` in RTL, behind the interface of the model's clocked shell.

use std::path::Path;

use cryptonic_hwmodel::rx_parse::{Beat, Headers, Outputs, ParserUnit, Result as ParseResult};
use cryptonic_regs::Status;
use cryptonic_wire::Parsed;
use cryptonic_wire::packet::{Expected, Plain, Ports, Protocol};

use crate::availability::Unavailable;
use crate::mutants::Mutant;
use crate::units::{Build, RX_PARSE, word_of, words};
use crate::verilated::{Model, TraceError};

/// Places in the unit's result FIFO, as it is built.
pub const RESULTS: u64 = RX_PARSE.parameters[0].1;

const OUTPUT_WORDS: usize = words(RX_PARSE.outputs);

const fn input(name: &str) -> usize {
    word_of(RX_PARSE.inputs, name)
}

const fn output(name: &str) -> usize {
    word_of(RX_PARSE.outputs, name)
}

/// The unit as RTL.
pub struct RxParseRtl {
    model: Model,
    /// The first result that the RTL should never show.
    malformed: Option<String>,
}

/// An output port that does not show what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortDifference {
    /// The port.
    pub port: &'static str,
    /// What the RTL shows, in hexadecimal.
    pub rtl: String,
    /// What the model says it should be.
    pub model: String,
}

impl RxParseRtl {
    /// The unit after reset.
    ///
    /// # Errors
    /// [`Unavailable`] where this build has no RTL.
    pub fn new(build: Build, expected: &Expected) -> Result<Self, Unavailable> {
        Self::with_seed(build, expected, 0)
    }

    /// The unit after reset, whose registers without reset began at values that `seed` gives (the inspect build).
    ///
    /// # Errors
    /// [`Unavailable`] where this build has no RTL.
    pub fn with_seed(build: Build, expected: &Expected, seed: u32) -> Result<Self, Unavailable> {
        let mut model = Model::new(&RX_PARSE, build, seed)?;
        configure(&mut model, expected);
        model.reset();
        Ok(RxParseRtl { model, malformed: None })
    }

    /// What it looks for from the next cycle on. To be called while it is drained.
    pub fn set_expected(&mut self, expected: &Expected) {
        configure(&mut self.model, expected);
    }

    /// One clock cycle, as the shell's. A result that no packet can have (a verdict without a name, a field that is
    /// set beside a malformation) shows as `Err(Status::Ok)`, and [`Self::failed_assertion`] says more.
    #[inline]
    pub fn step(&mut self, offered: Option<&Beat>, consumer_ready: bool) -> Outputs {
        let inputs = self.model.inputs();
        inputs[const { input("beat_valid_i") }] = offered.is_some().into();
        if let Some(beat) = offered {
            let data = &mut inputs[const { input("beat_data_i") }..][..beat.data.len() / 4];
            for (word, octets) in data.iter_mut().zip(beat.data.as_chunks().0) {
                *word = u32::from_le_bytes(*octets);
            }
            inputs[const { input("beat_octets_i") }] = beat.octets.into();
            inputs[const { input("beat_last_i") }] = beat.last.into();
        }
        inputs[const { input("result_ready_i") }] = consumer_ready.into();
        self.model.step();
        let outputs = self.model.outputs();
        let ready = outputs[const { output("beat_ready_o") }] != 0;
        let result = (outputs[const { output("result_valid_o") }] != 0).then(|| {
            decode(outputs).unwrap_or_else(|| {
                let cycle = self.model.cycle();
                self.malformed.get_or_insert_with(|| malformed(outputs, cycle));
                Err(Status::Ok)
            })
        });
        Outputs { ready, result }
    }

    /// Whether the unit said in the last cycle that nothing was inside.
    #[inline]
    pub fn was_drained(&self) -> bool {
        self.model.outputs()[const { output("drained_o") }] != 0
    }

    /// Whether nothing is inside, after the last cycle.
    pub fn drained(&mut self) -> bool {
        self.model.look()[const { output("drained_o") }] != 0
    }

    /// The first assertion that failed, or the first result that makes no sense.
    pub fn failed_assertion(&self) -> Option<String> {
        self.model.failed_assertion().or_else(|| self.malformed.clone())
    }

    /// Writes a waveform (VCD) of the cycles from now on.
    ///
    /// # Errors
    /// [`TraceError`]: the fast build has none, or the file cannot be made.
    pub fn trace_to(&mut self, path: &Path) -> Result<(), TraceError> {
        self.model.trace_to(path)
    }

    /// Ends the waveform, if there is one.
    pub fn stop_trace(&mut self) {
        self.model.stop_trace();
    }

    /// Begins anew, with this mutant in place or with none.
    ///
    /// # Errors
    /// [`Unavailable`] for a fault of another unit, and in the fast build, which has none.
    pub fn select_mutant(&mut self, mutant: Option<&Mutant>) -> Result<(), Unavailable> {
        self.malformed = None;
        self.model.select_mutant(mutant)
    }

    /// Clock cycles since the beginning, those in reset included: the time in a waveform, in nanoseconds.
    pub fn cycle(&self) -> u64 {
        self.model.cycle()
    }

    /// The output ports that did not show in the last cycle what the model did, by name. `drained_o` is not among
    /// them.
    pub fn differences(&self, model: &Outputs) -> Vec<PortDifference> {
        let rtl = self.model.outputs();
        let mut expected = [0; OUTPUT_WORDS];
        if let Some(result) = &model.result {
            encode(result, &mut expected);
        }
        expected[const { output("beat_ready_o") }] = model.ready.into();
        let mut differences = Vec::new();
        let mut word = 0;
        for port in RX_PARSE.outputs {
            let range = word..word + port.words();
            word = range.end;
            let shown = matches!(port.name, "beat_ready_o" | "result_valid_o")
                || (model.result.is_some() && port.name != "drained_o");
            if shown && rtl[range.clone()] != expected[range.clone()] {
                differences.push(PortDifference {
                    port: port.name,
                    rtl: hexadecimal(&rtl[range.clone()]),
                    model: hexadecimal(&expected[range]),
                });
            }
        }
        differences
    }
}

impl ParserUnit for RxParseRtl {
    fn step(&mut self, offered: Option<&Beat>, consumer_ready: bool) -> Outputs {
        RxParseRtl::step(self, offered, consumer_ready)
    }

    fn drained(&mut self) -> bool {
        RxParseRtl::drained(self)
    }

    fn set_expected(&mut self, expected: Expected) {
        RxParseRtl::set_expected(self, &expected);
    }
}

fn configure(model: &mut Model, expected: &Expected) {
    let inputs = model.inputs();
    inputs[const { input("psp_udp_port_i") }] = expected.udp_ports.psp.into();
    inputs[const { input("esp_udp_port_i") }] = expected.udp_ports.esp.into();
    inputs[const { input("eesp_protocol_i") }] = expected.eesp_protocol.into();
    inputs[const { input("eesp_in_udp_i") }] = expected.eesp_in_udp.into();
    inputs[const { input("wespv2_protocol_i") }] = expected.wespv2_protocol.into();
}

/// The result at the output ports, or nothing if no result is encoded so.
fn decode(words: &[u32]) -> Option<ParseResult> {
    let word = |at: usize| words[at];
    let flag = |at: usize| word(at) != 0;
    // Ports are no wider than what they are read into, with one exception, which is checked.
    let offset = |at: usize| word(at) as usize;
    let octet = |at: usize| word(at) as u8;
    let half = |at: usize| word(at) as u16;

    let status = Status::of_number(word(const { output("result_verdict_o") }))?;
    let result = if status == Status::Ok {
        let numbers = octets(&words[const { output("result_numbers_o") }..]);
        let l3_offset = offset(const { output("result_l3_offset_o") });
        let l4_offset = offset(const { output("result_l4_offset_o") });
        let protocol = match word(const { output("result_protocol_o") }) {
            0 => Protocol::Other,
            1 => Protocol::Esp,
            2 => Protocol::Psp,
            3 => Protocol::NatKeepalive,
            4 => Protocol::Wespv2,
            5 => Protocol::Eesp,
            _ => return None,
        };
        let sequence = match protocol {
            Protocol::Esp | Protocol::Wespv2 => {
                u32::from_be_bytes([numbers[0], numbers[1], numbers[2], numbers[3]])
            }
            _ => 0,
        };
        let plain = Plain {
            vlan: flag(const { output("result_vlan_valid_o") })
                .then(|| half(const { output("result_vlan_o") })),
            l3_offset,
            ip_version: octet(const { output("result_ip_version_o") }),
            ip_header_length: l4_offset.checked_sub(l3_offset)?,
            l3_end: offset(const { output("result_l3_end_o") }),
            next_header: octet(const { output("result_next_header_o") }),
            next_header_offset: offset(const { output("result_next_header_offset_o") }),
            traffic_class: octet(const { output("result_traffic_class_o") }),
            dont_fragment: flag(const { output("result_dont_fragment_o") }),
            hop_limit: octet(const { output("result_hop_limit_o") }),
            flow_label: word(const { output("result_flow_label_o") }),
            source: octets(&words[const { output("result_source_o") }..]),
            destination: octets(&words[const { output("result_destination_o") }..]),
            ports: flag(const { output("result_ports_valid_o") }).then(|| Ports {
                source: half(const { output("result_source_port_o") }),
                destination: half(const { output("result_destination_port_o") }),
            }),
            fragment: flag(const { output("result_fragment_o") }),
        };
        let parsed = Parsed {
            plain,
            protocol,
            udp_offset: flag(const { output("result_udp_o") }).then_some(l4_offset),
            security_offset: offset(const { output("result_security_offset_o") }),
            spi: word(const { output("result_spi_o") }),
            sequence,
            reserved_esp_spi: flag(const { output("result_reserved_spi_o") }),
            numbers_offset: offset(const { output("result_numbers_offset_o") }),
            header_octets: half(const { output("result_header_octets_o") }),
            crypt_offset: octet(const { output("result_crypt_offset_o") }),
            payload_offset: flag(const { output("result_payload_offset_valid_o") })
                .then(|| octet(const { output("result_payload_offset_o") })),
            session_id: half(const { output("result_session_id_o") }),
            psp_flags: octet(const { output("result_psp_flags_o") }),
        };
        Ok(Headers { parsed, numbers })
    } else {
        Err(status)
    };
    // What was not looked at, or was lost, must be zero.
    let mut again = [0; OUTPUT_WORDS];
    encode(&result, &mut again);
    for shown_besides in [const { output("beat_ready_o") }, const { output("drained_o") }] {
        again[shown_besides] = words[shown_besides];
    }
    (words == again).then_some(result)
}

/// What the output ports show for a result.
fn encode(result: &ParseResult, words: &mut [u32; OUTPUT_WORDS]) {
    words[const { output("result_valid_o") }] = 1;
    let Headers { parsed, numbers } = match result {
        Ok(headers) => headers,
        Err(status) => {
            words[const { output("result_verdict_o") }] = status.number();
            return;
        }
    };
    let plain = &parsed.plain;
    let ports = plain.ports.unwrap_or(Ports { source: 0, destination: 0 });
    let single = [
        (const { output("result_protocol_o") }, parsed.protocol as u32),
        (const { output("result_reserved_spi_o") }, parsed.reserved_esp_spi.into()),
        (const { output("result_vlan_valid_o") }, plain.vlan.is_some().into()),
        (const { output("result_vlan_o") }, plain.vlan.unwrap_or(0).into()),
        (const { output("result_ip_version_o") }, plain.ip_version.into()),
        (const { output("result_l3_offset_o") }, number(plain.l3_offset)),
        (const { output("result_l4_offset_o") }, number(plain.l4_offset())),
        (const { output("result_l3_end_o") }, number(plain.l3_end)),
        (const { output("result_next_header_o") }, plain.next_header.into()),
        (const { output("result_next_header_offset_o") }, number(plain.next_header_offset)),
        (const { output("result_traffic_class_o") }, plain.traffic_class.into()),
        (const { output("result_dont_fragment_o") }, plain.dont_fragment.into()),
        (const { output("result_hop_limit_o") }, plain.hop_limit.into()),
        (const { output("result_flow_label_o") }, plain.flow_label),
        (const { output("result_ports_valid_o") }, plain.ports.is_some().into()),
        (const { output("result_source_port_o") }, ports.source.into()),
        (const { output("result_destination_port_o") }, ports.destination.into()),
        (const { output("result_fragment_o") }, plain.fragment.into()),
        (const { output("result_udp_o") }, parsed.udp_offset.is_some().into()),
        (const { output("result_security_offset_o") }, number(parsed.security_offset)),
        (const { output("result_spi_o") }, parsed.spi),
        (const { output("result_session_id_o") }, parsed.session_id.into()),
        (const { output("result_numbers_offset_o") }, number(parsed.numbers_offset)),
        (const { output("result_header_octets_o") }, parsed.header_octets.into()),
        (const { output("result_crypt_offset_o") }, parsed.crypt_offset.into()),
        (const { output("result_payload_offset_valid_o") }, parsed.payload_offset.is_some().into()),
        (const { output("result_payload_offset_o") }, parsed.payload_offset.unwrap_or(0).into()),
        (const { output("result_psp_flags_o") }, parsed.psp_flags.into()),
    ];
    for (at, value) in single {
        words[at] = value;
    }
    for (at, octets) in [
        (const { output("result_source_o") }, &plain.source),
        (const { output("result_destination_o") }, &plain.destination),
        (const { output("result_numbers_o") }, numbers),
    ] {
        for (word, octets) in words[at..].iter_mut().zip(octets.as_chunks().0) {
            *word = u32::from_le_bytes(*octets);
        }
    }
}

/// Sixteen octets of a port, octet 0 in its lowest bits.
fn octets(words: &[u32]) -> [u8; 16] {
    let mut octets = [0; 16];
    for (octets, word) in octets.as_chunks_mut().0.iter_mut().zip(words) {
        *octets = word.to_le_bytes();
    }
    octets
}

/// An offset as a port shows it. None is past 16383.
fn number(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

fn hexadecimal(words: &[u32]) -> String {
    let digits: String = words.iter().rev().map(|word| format!("{word:08x}")).collect();
    let significant = digits.trim_start_matches('0');
    format!("0x{}", if significant.is_empty() { "0" } else { significant })
}

/// The ports of a result that makes no sense.
fn malformed(words: &[u32], cycle: u64) -> String {
    let mut text = format!("a result that no packet has, before cycle {cycle}:");
    let mut word = 0;
    for port in RX_PARSE.outputs {
        let shown = &words[word..word + port.words()];
        word += port.words();
        if shown.iter().any(|word| *word != 0) {
            text.push_str(&format!(" {}={}", port.name, hexadecimal(shown)));
        }
    }
    text
}
