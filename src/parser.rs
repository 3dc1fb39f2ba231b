//! Which receive parser the NICs of a run have: the model's, or RTL in its place or beside it.

use clap::ValueEnum;
use cryptonic_hwmodel::rx_parse::BEAT_OCTETS;
use cryptonic_hwmodel::{Parameters, Parser, ParserOutcome};
use cryptonic_rtl_bench::rx_parse::{RESULTS, RxParseRtl};
use cryptonic_rtl_bench::{Build, Unavailable};

use crate::error::{Error, Result};

/// Which parser the NICs have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ParserChoice {
    /// The model's
    #[default]
    Model,
    /// The RTL in its place
    Rtl,
    /// The model's, and the RTL beside it, compared in every cycle
    Lockstep,
}

impl ParserChoice {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ParserChoice::Model => "model",
            ParserChoice::Rtl => "rtl",
            ParserChoice::Lockstep => "lockstep",
        }
    }

    /// The parser of one NIC with these knobs.
    pub(crate) fn parser(self, parameters: &Parameters) -> Result<Parser> {
        if self == ParserChoice::Model {
            return Ok(Parser::Model);
        }
        let pipeline = &parameters.pipeline;
        for (knob, found, built) in [
            ("pipeline.bus_bytes", pipeline.bus_bytes, BEAT_OCTETS as u64),
            ("pipeline.parse_results", pipeline.parse_results, RESULTS),
        ] {
            if found != built {
                return Err(Error::at("--parser", format_args!("the RTL has {knob} = {built}, not {found}")));
            }
        }
        // The NIC says what to look for before the first packet.
        let unit = RxParseRtl::new(Build::Fast, &Default::default()).map_err(|error| unavailable(&error))?;
        Ok(match self {
            ParserChoice::Lockstep => Parser::Lockstep(Box::new(unit)),
            _ => Parser::Replaced(Box::new(unit)),
        })
    }
}

/// The reason may be a tool's whole output; its first line says it.
fn unavailable(error: &Unavailable) -> Error {
    let reason = error.reason.lines().next().unwrap_or_default();
    Error::at("--parser", Unavailable { reason, ..*error })
}

/// What the parsers of both NICs did.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParserReport {
    pub(crate) choice: ParserChoice,
    pub(crate) outcomes: [ParserOutcome; 2],
}

impl ParserReport {
    /// Cycles that RTL ran, of both NICs.
    pub(crate) fn cycles(&self) -> u64 {
        self.outcomes.iter().map(|outcome| outcome.cycles).sum()
    }

    /// Differences between RTL and model, of both NICs.
    pub(crate) fn differences(&self) -> u64 {
        self.outcomes.iter().map(|outcome| outcome.differences).sum()
    }

    /// The first difference of each NIC in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        let named = self.outcomes.iter().zip(["first", "second"]);
        named
            .filter_map(|(outcome, name)| {
                Some(format!("parser of the {name} NIC: {}", outcome.first.as_ref()?))
            })
            .collect()
    }
}
