//! A unit's C++ model behind a safe interface: words in, words out, a cycle at a time.
//!
//! The only unsafe code of the bench. The C++ side is shim/unit.h; nothing of it throws or aborts.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use crate::availability::{Unavailable, unavailable};
use crate::mutants::Mutant;
use crate::units::{Build, Unit, words};

/// A waveform cannot be written.
#[derive(Debug)]
pub enum TraceError {
    /// The unit is the fast build, which has no waveforms.
    NeedsInspect,
    /// The file cannot be made.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl std::fmt::Display for TraceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TraceError::NeedsInspect => f.write_str("the fast build of the RTL has no waveforms"),
            TraceError::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TraceError::NeedsInspect => None,
            TraceError::Io { error, .. } => Some(error),
        }
    }
}

/// `UnitFunctions` of shim/unit.h.
#[repr(C)]
struct Functions {
    input_words: u32,
    output_words: u32,
    create: unsafe extern "C" fn(u32, u32) -> *mut c_void,
    destroy: unsafe extern "C" fn(*mut c_void),
    reset: unsafe extern "C" fn(*mut c_void, *const u32),
    step: unsafe extern "C" fn(*mut c_void, *const u32, *mut u32),
    look: unsafe extern "C" fn(*mut c_void, *mut u32),
    failure: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    cycle: unsafe extern "C" fn(*mut c_void) -> u64,
    trace_open: unsafe extern "C" fn(*mut c_void, *const c_char) -> bool,
    trace_close: unsafe extern "C" fn(*mut c_void),
}

/// The function table of one build of a unit, if this build of the crate has it.
#[cfg(rtl)]
fn functions(unit: &Unit, build: Build) -> Option<&'static Functions> {
    unsafe extern "C" {
        static cryptonic_rx_parse_fast: Functions;
        static cryptonic_rx_parse_inspect: Functions;
    }
    // SAFETY: build.rs has linked these tables; they are constants, of the type that both sides have.
    Some(unsafe {
        match (unit.name, build) {
            ("rx_parse", Build::Fast) => &cryptonic_rx_parse_fast,
            ("rx_parse", Build::Inspect) => &cryptonic_rx_parse_inspect,
            _ => return test_functions(unit, build),
        }
    })
}

/// The same for the units that are built for tests alone.
#[cfg(all(rtl, feature = "test-units"))]
fn test_functions(unit: &Unit, build: Build) -> Option<&'static Functions> {
    unsafe extern "C" {
        static cryptonic_rx_geometry_fast: Functions;
        static cryptonic_rx_geometry_inspect: Functions;
        static cryptonic_psp_kdf_fast: Functions;
        static cryptonic_psp_kdf_inspect: Functions;
        static cryptonic_psp_kdf_two_blocks_fast: Functions;
        static cryptonic_psp_kdf_two_blocks_inspect: Functions;
        static cryptonic_aes256_inspect: Functions;
    }
    // SAFETY: as in `functions`.
    Some(unsafe {
        match (unit.name, build) {
            ("rx_geometry", Build::Fast) => &cryptonic_rx_geometry_fast,
            ("rx_geometry", Build::Inspect) => &cryptonic_rx_geometry_inspect,
            ("psp_kdf", Build::Fast) => &cryptonic_psp_kdf_fast,
            ("psp_kdf", Build::Inspect) => &cryptonic_psp_kdf_inspect,
            ("psp_kdf_two_blocks", Build::Fast) => &cryptonic_psp_kdf_two_blocks_fast,
            ("psp_kdf_two_blocks", Build::Inspect) => &cryptonic_psp_kdf_two_blocks_inspect,
            ("aes256", Build::Inspect) => &cryptonic_aes256_inspect,
            _ => return None,
        }
    })
}

#[cfg(all(rtl, not(feature = "test-units")))]
fn test_functions(_: &Unit, _: Build) -> Option<&'static Functions> {
    None
}

#[cfg(not(rtl))]
fn functions(_: &Unit, _: Build) -> Option<&'static Functions> {
    None
}

/// A running unit. Inputs and outputs are words in the layout of [`crate::units`].
pub struct Model {
    functions: &'static Functions,
    raw: NonNull<c_void>,
    unit: &'static Unit,
    build: Build,
    seed: u32,
    inputs: Box<[u32]>,
    outputs: Box<[u32]>,
}

// SAFETY: the C++ object is used through `&mut self` or not at all, keeps no pointer to a thread, and sets what
// Verilator keeps for each thread whenever it is entered.
unsafe impl Send for Model {}

impl Model {
    /// A unit after reset, all inputs zero. Registers that have no reset begin at values that `seed` gives (the
    /// fast build: at zero).
    ///
    /// # Errors
    /// [`Unavailable`] where this build has no RTL.
    pub fn new(unit: &'static Unit, build: Build, seed: u32) -> Result<Self, Unavailable> {
        let functions = functions(unit, build).ok_or_else(unavailable)?;
        let (inputs, outputs) = (words(unit.inputs), words(unit.outputs));
        assert_eq!(
            (functions.input_words as usize, functions.output_words as usize),
            (inputs, outputs),
            "the ports of {} differ between Rust and C++",
            unit.name
        );
        let mut model = Model {
            functions,
            raw: create(functions, 0, seed).ok_or_else(unavailable)?,
            unit,
            build,
            seed,
            inputs: vec![0; inputs].into(),
            outputs: vec![0; outputs].into(),
        };
        model.reset();
        Ok(model)
    }

    /// The words of the inputs, as the next cycle will see them. They keep their values.
    #[inline]
    pub fn inputs(&mut self) -> &mut [u32] {
        &mut self.inputs
    }

    /// The words of the outputs, as they stood in the last cycle, or at the last [`Self::look`].
    #[inline]
    pub fn outputs(&self) -> &[u32] {
        &self.outputs
    }

    /// One clock cycle: outputs are read, then registers take their next values.
    #[inline]
    pub fn step(&mut self) {
        // SAFETY: `raw` is alive, and both boxes have as many words as the table says.
        unsafe {
            (self.functions.step)(self.raw.as_ptr(), self.inputs.as_ptr(), self.outputs.as_mut_ptr());
        }
    }

    /// Reads the outputs between two cycles: what registers alone decide is as the next cycle will show it.
    #[inline]
    pub fn look(&mut self) -> &[u32] {
        // SAFETY: as in `step`.
        unsafe { (self.functions.look)(self.raw.as_ptr(), self.outputs.as_mut_ptr()) }
        &self.outputs
    }

    /// Two cycles in reset.
    pub fn reset(&mut self) {
        // SAFETY: as in `step`.
        unsafe { (self.functions.reset)(self.raw.as_ptr(), self.inputs.as_ptr()) }
    }

    /// Begins anew with this mutant in place, or with none; the inputs keep their values. Ends a waveform.
    ///
    /// # Errors
    /// [`Unavailable`] for a fault of another unit, and in the fast build, which has none.
    pub fn select_mutant(&mut self, mutant: Option<&Mutant>) -> Result<(), Unavailable> {
        if mutant.is_some_and(|mutant| mutant.unit != self.unit.module) {
            return Err(Unavailable { reason: "the mutant is of another unit", install: "" });
        }
        let number = mutant.map_or(0, |mutant| mutant.number);
        let raw = create(self.functions, number, self.seed).ok_or_else(unavailable)?;
        // SAFETY: the old object is alive, and is not used after this.
        unsafe { (self.functions.destroy)(self.raw.as_ptr()) }
        self.raw = raw;
        self.reset();
        Ok(())
    }

    /// The message of the first assertion that failed, or of any other error of the simulation.
    pub fn failed_assertion(&self) -> Option<String> {
        // SAFETY: `raw` is alive; the text lives as long as it, and is copied here.
        unsafe {
            let text = (self.functions.failure)(self.raw.as_ptr());
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().trim_end().to_owned())
        }
    }

    /// Cycles since the beginning, those in reset included: the time in a waveform, in nanoseconds.
    pub fn cycle(&self) -> u64 {
        // SAFETY: `raw` is alive.
        unsafe { (self.functions.cycle)(self.raw.as_ptr()) }
    }

    /// Writes a waveform (VCD) of the cycles from now on, one cycle a nanosecond.
    ///
    /// # Errors
    /// [`TraceError`]: the build has no waveforms, or the file cannot be made. A later error, such as a full disk,
    /// shows as [`Self::failed_assertion`].
    pub fn trace_to(&mut self, path: &Path) -> Result<(), TraceError> {
        if self.build == Build::Fast {
            return Err(TraceError::NeedsInspect);
        }
        let failed = |error| TraceError::Io { path: path.to_owned(), error };
        // Verilator keeps the reason to itself.
        File::create(path).map_err(failed)?;
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
        // SAFETY: `raw` is alive, and `name` ends with a zero.
        let opened = unsafe { (self.functions.trace_open)(self.raw.as_ptr(), name.as_ptr()) };
        if opened {
            return Ok(());
        }
        let reason = self.failed_assertion().unwrap_or_else(|| "Verilator cannot open it".to_owned());
        Err(failed(std::io::Error::other(reason)))
    }

    /// Ends the waveform, if there is one.
    pub fn stop_trace(&mut self) {
        // SAFETY: `raw` is alive.
        unsafe { (self.functions.trace_close)(self.raw.as_ptr()) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: `raw` is alive, and nothing uses it after this.
        unsafe { (self.functions.destroy)(self.raw.as_ptr()) }
    }
}

fn create(functions: &Functions, mutant: u32, seed: u32) -> Option<NonNull<c_void>> {
    // SAFETY: takes plain numbers; gives an object that is ours, or null.
    NonNull::new(unsafe { (functions.create)(mutant, seed) })
}
