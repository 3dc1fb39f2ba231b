//! `rx_geometry` in RTL, behind the interface of the model's clocked shell.

use std::path::Path;

use cryptonic_hwmodel::rx_geometry::{Answer, EespFormat, Outputs, Ranges, Request, Sa};
use cryptonic_regs::Status;
use cryptonic_wire::Protocol;
use cryptonic_wire::eesp::Numbering;
use cryptonic_wire::esp::Cipher;

use crate::availability::Unavailable;
use crate::mutants::Mutant;
use crate::units::{Build, Port, RX_GEOMETRY, word_of, words};
use crate::verilated::{Model, TraceError};

/// Places in the unit's result FIFO, as it is built.
pub const RESULTS: u64 = RX_GEOMETRY.parameters[0].1;

const fn input(name: &str) -> usize {
    word_of(RX_GEOMETRY.inputs, name)
}

const fn output(name: &str) -> usize {
    word_of(RX_GEOMETRY.outputs, name)
}

/// The unit as RTL.
///
/// What the unit must not look at has any value: all inputs while nothing is offered, and those parameters of an SA that
/// are of other protocols.
pub struct RxGeometryRtl {
    model: Model,
    noise: u64,
    /// The first answer that the RTL should never show.
    malformed: Option<String>,
}

impl RxGeometryRtl {
    /// The unit after reset. Registers without reset began at values that `seed` gives (the inspect build), and so does
    /// what must not matter.
    ///
    /// # Errors
    /// [`Unavailable`] where this build has no RTL.
    pub fn new(build: Build, seed: u32) -> Result<Self, Unavailable> {
        let model = Model::new(&RX_GEOMETRY, build, seed)?;
        Ok(RxGeometryRtl { model, noise: u64::from(seed) | 1, malformed: None })
    }

    /// One clock cycle, as the shell's. An answer that the model could never give shows as `Err(Status::Ok)`, and
    /// [`Self::failed_assertion`] says more.
    pub fn step(&mut self, offered: Option<&Request>, consumer_ready: bool) -> Outputs {
        let inputs = self.model.inputs();
        for word in inputs.iter_mut() {
            // Xorshift; bits past a port's width are dropped.
            self.noise ^= self.noise << 13;
            self.noise ^= self.noise >> 7;
            self.noise ^= self.noise << 17;
            *word = (self.noise >> 32) as u32;
        }
        inputs[const { input("request_valid_i") }] = offered.is_some().into();
        inputs[const { input("result_ready_i") }] = consumer_ready.into();
        if let Some(request) = offered {
            drive(request, inputs);
        }
        self.model.step();
        let outputs = self.model.outputs();
        let answer = (outputs[const { output("result_valid_o") }] != 0).then(|| {
            decode(outputs).unwrap_or_else(|| {
                let cycle = self.model.cycle();
                self.malformed.get_or_insert_with(|| malformed(outputs, cycle));
                Err(Status::Ok)
            })
        });
        Outputs {
            ready: outputs[const { output("request_ready_o") }] != 0,
            answer,
            drained: outputs[const { output("drained_o") }] != 0,
        }
    }

    /// The first assertion that failed, or the first answer that makes no sense.
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
}

/// Puts a request on the input ports. What its SA does not say keeps its value.
fn drive(request: &Request, inputs: &mut [u32]) {
    let mut put = |at: usize, value: u32| inputs[at] = value;
    put(const { input("request_protocol_i") }, request.protocol as u32);
    put(const { input("request_security_offset_i") }, request.security_offset.into());
    put(const { input("request_numbers_offset_i") }, request.numbers_offset.into());
    put(const { input("request_header_octets_i") }, request.header_octets.into());
    put(const { input("request_crypt_offset_i") }, request.crypt_offset.into());
    put(const { input("request_payload_offset_valid_i") }, request.payload_offset.is_some().into());
    if let Some(payload_offset) = request.payload_offset {
        put(const { input("request_payload_offset_i") }, payload_offset.into());
    }
    put(const { input("request_session_id_i") }, request.session_id.into());
    put(const { input("request_psp_flags_i") }, request.psp_flags.into());
    put(const { input("request_l3_end_i") }, request.l3_end.into());
    for (word, octets) in request.numbers.as_chunks().0.iter().enumerate() {
        put(const { input("request_numbers_i") } + word, u32::from_le_bytes(*octets));
    }

    let cipher_number = |cipher| match cipher {
        Cipher::Gcm => 0,
        Cipher::GcmImplicitIv => 1,
        Cipher::Gmac => 2,
    };
    let protocol = match request.sa {
        Sa::Esp { cipher, icv_length, extended_sequence } => {
            put(const { input("sa_cipher_i") }, cipher_number(cipher));
            put(const { input("sa_icv_octets_i") }, icv_length.octets() as u32);
            put(const { input("sa_extended_sequence_i") }, extended_sequence.is_some().into());
            if let Some(window) = extended_sequence {
                put(const { input("sa_window_top_i") }, window.top as u32);
                put(const { input("sa_window_top_i") } + 1, (window.top >> 32) as u32);
                put(const { input("sa_window_i") }, window.size);
            }
            Protocol::Esp
        }
        Sa::Psp => Protocol::Psp,
        Sa::Wespv2 { cipher, icv_length } => {
            put(const { input("sa_cipher_i") }, cipher_number(cipher));
            put(const { input("sa_icv_octets_i") }, icv_length.octets() as u32);
            Protocol::Wespv2
        }
        Sa::Eesp { numbering, format, icv_length, last_sub_sa } => {
            let numbering = match numbering {
                Numbering::SequenceAndIv => 0,
                Numbering::SequenceIsIv => 1,
                Numbering::IvAlone => 2,
            };
            let format = match format {
                EespFormat::Optimized => 0,
                EespFormat::Full => 1,
                EespFormat::FullWithCryptOffset => 2,
            };
            put(const { input("sa_numbering_i") }, numbering);
            put(const { input("sa_format_i") }, format);
            put(const { input("sa_icv_octets_i") }, icv_length.octets() as u32);
            put(const { input("sa_last_sub_sa_valid_i") }, last_sub_sa.is_some().into());
            if let Some(last) = last_sub_sa {
                put(const { input("sa_last_sub_sa_i") }, last.into());
            }
            Protocol::Eesp
        }
    };
    put(const { input("sa_protocol_i") }, protocol as u32);
}

/// The answer at the output ports, or nothing if no answer is encoded so.
fn decode(outputs: &[u32]) -> Option<Answer> {
    let half = |at: usize| outputs[at] as u16;
    let wide = |at: usize| u64::from(outputs[at + 1]) << 32 | u64::from(outputs[at]);
    let ranges = Ranges {
        sequence: wide(const { output("result_sequence_o") }),
        iv: wide(const { output("result_iv_o") }),
        aad_start: half(const { output("result_aad_start_o") }),
        aad_end: half(const { output("result_aad_end_o") }),
        sequence_high_in_aad: outputs[const { output("result_sequence_high_in_aad_o") }] != 0,
        text_start: half(const { output("result_text_start_o") }),
        icv_offset: half(const { output("result_icv_offset_o") }),
        icv_octets: outputs[const { output("result_icv_octets_o") }] as u8,
    };
    match Status::of_number(outputs[const { output("result_verdict_o") }])? {
        Status::Ok => Some(Ok(ranges)),
        status => {
            let all_zero = outputs[const { output("result_sequence_o") }..].iter().all(|word| *word == 0);
            all_zero.then_some(Err(status))
        }
    }
}

/// The ports of an answer that makes no sense.
fn malformed(outputs: &[u32], cycle: u64) -> String {
    let mut text = format!("an answer that the unit never gives, before cycle {cycle}:");
    let mut word = 0;
    for port in RX_GEOMETRY.outputs {
        let shown = &outputs[word..word + port.words()];
        word += port.words();
        text.push_str(&format!(" {}={shown:x?}", port.name));
    }
    text
}

/// All behind the verdict is zero where that is not ok: the words of [`decode`] are the last ones.
const _: () = {
    const BEHIND_VERDICT: &[Port] = RX_GEOMETRY.outputs.split_at(4).1;
    assert!(words(BEHIND_VERDICT) + output("result_sequence_o") == words(RX_GEOMETRY.outputs));
};
