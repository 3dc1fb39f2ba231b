//! `psp_kdf` in RTL, behind the interface of the model's clocked shell.

use std::path::Path;

use cryptonic_hwmodel::psp_kdf::{BlocksPerCycle, Inputs, KeyResult, Outputs};
use zeroize::Zeroizing;

use crate::availability::Unavailable;
use crate::mutants::Mutant;
use crate::units::{Build, PSP_KDF, PSP_KDF_TWO_BLOCKS, Unit, word_of};
use crate::verilated::{Model, TraceError};

const fn input(name: &str) -> usize {
    word_of(PSP_KDF.inputs, name)
}

const fn output(name: &str) -> usize {
    word_of(PSP_KDF.outputs, name)
}

const fn unit(blocks_per_cycle: BlocksPerCycle) -> &'static Unit {
    match blocks_per_cycle {
        BlocksPerCycle::One => &PSP_KDF,
        BlocksPerCycle::Two => &PSP_KDF_TWO_BLOCKS,
    }
}

/// Places in the unit's result FIFO, as it is built.
pub const fn results(blocks_per_cycle: BlocksPerCycle) -> u64 {
    unit(blocks_per_cycle).parameters[1].1
}

/// The unit as RTL.
pub struct PspKdfRtl {
    model: Model,
    /// The first cycle that showed a key beside the word that there is none.
    key_beside_missing: Option<u64>,
}

impl PspKdfRtl {
    /// The unit after reset.
    ///
    /// # Errors
    /// [`Unavailable`] where this build has no RTL.
    pub fn new(build: Build, blocks_per_cycle: BlocksPerCycle) -> Result<Self, Unavailable> {
        Self::with_seed(build, blocks_per_cycle, 0)
    }

    /// The unit after reset, whose registers without reset began at values that `seed` gives (the inspect build).
    ///
    /// # Errors
    /// [`Unavailable`] where this build has no RTL.
    pub fn with_seed(build: Build, blocks_per_cycle: BlocksPerCycle, seed: u32) -> Result<Self, Unavailable> {
        let model = Model::new(unit(blocks_per_cycle), build, seed)?;
        Ok(PspKdfRtl { model, key_beside_missing: None })
    }

    /// One clock cycle, as the shell's.
    #[inline]
    pub fn step(&mut self, offered: Inputs<'_>) -> Outputs {
        let words = self.model.inputs();
        words[const { input("clear_i") }] = offered.clear.into();
        words[const { input("load_valid_i") }] = offered.load.is_some().into();
        if let Some(load) = offered.load {
            words[const { input("load_index_i") }] = load.index.into();
            let key = &mut words[const { input("load_key_i") }..][..8];
            for (word, octets) in key.iter_mut().zip(load.key.as_chunks().0) {
                *word = u32::from_le_bytes(*octets);
            }
        }
        words[const { input("request_valid_i") }] = offered.request.is_some().into();
        if let Some(request) = offered.request {
            words[const { input("request_spi_i") }] = request.spi;
            words[const { input("request_version_i") }] = request.version.code().into();
            words[const { input("request_tag_i") }] = request.tag.into();
        }
        words[const { input("result_ready_i") }] = offered.result_ready.into();
        self.model.step();

        let words = self.model.outputs();
        let flag = |at: usize| words[at] != 0;
        let valid = words[const { output("device_key_valid_o") }];
        let result = flag(const { output("result_valid_o") }).then(|| {
            let key = &words[const { output("result_key_o") }..][..8];
            let missing = flag(const { output("result_device_key_missing_o") });
            if missing && key.iter().any(|word| *word != 0) {
                self.key_beside_missing.get_or_insert(self.model.cycle());
            }
            let key = (!missing).then(|| {
                let mut octets = Zeroizing::new([0; 32]);
                for (octets, word) in octets.as_chunks_mut().0.iter_mut().zip(key) {
                    *octets = word.to_le_bytes();
                }
                octets
            });
            KeyResult { tag: words[const { output("result_tag_o") }] as u8, key }
        });
        Outputs {
            load_ready: flag(const { output("load_ready_o") }),
            device_key_valid: [valid & 1 != 0, valid & 2 != 0],
            request_ready: flag(const { output("request_ready_o") }),
            result,
            drained: flag(const { output("drained_o") }),
        }
    }

    /// Whether nothing is inside, after the last cycle.
    pub fn drained(&mut self) -> bool {
        self.model.look()[const { output("drained_o") }] != 0
    }

    /// The first assertion that failed, or that a missing key was shown.
    pub fn failed_assertion(&self) -> Option<String> {
        let beside = |cycle| format!("a key is shown beside device_key_missing, before cycle {cycle}");
        self.model.failed_assertion().or_else(|| self.key_beside_missing.map(beside))
    }

    /// Writes a waveform (VCD) of the cycles from now on. Device keys are in it.
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
        self.key_beside_missing = None;
        self.model.select_mutant(mutant)
    }

    /// Clock cycles since the beginning, those in reset included: the time in a waveform, in nanoseconds.
    pub fn cycle(&self) -> u64 {
        self.model.cycle()
    }
}
