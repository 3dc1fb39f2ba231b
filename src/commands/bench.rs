//! `bench`: bare AES-GCM, seal and open, against the whole path, on the same packets in one run.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Args;
use cryptonic_crypto::{Cipher, GcmKey, Library};
use cryptonic_wire::aead::Aead;
use serde_json::json;

use super::run::{ModelArguments, parameters_json};
use super::traffic::{Bench, Ends, Models, Settings};
use crate::error::{Error, Result};
use crate::flow::bench_flow;
use crate::output::{self, Paint};
use crate::workload::{FCS_BYTES, Random, Sizes, Stream};

/// Ethernet and IPv4 headers: what stays in clear in transport mode.
const CLEAR_BYTES: usize = 34;
/// Pad length and next header.
const TRAILER_BYTES: usize = 2;
/// SPI and extended sequence number.
const AAD_BYTES: usize = 12;
/// Rings whose buffers stay closer to the core than those of `run`; they do not fill the line at 64 bytes.
const TRANSMIT_SLOTS: u32 = 256;
/// How long the bare library is measured in a round.
const BARE_TIME: Duration = Duration::from_millis(60);
/// Operations between two looks at the clock.
const BARE_BATCH: u64 = 512;

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Frame sizes in bytes, FCS included
    #[arg(long, value_delimiter = ',', default_value = "64,128,256,512,1024,1500", value_name = "BYTES")]
    sizes: Vec<String>,
    /// Packets of each size and round
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    packets: u64,
    /// Rounds; the best of each counts
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: u32,
}

struct Row {
    size: usize,
    bare_ns: f64,
    path_ns: f64,
}

/// Runs.
pub(crate) fn run(arguments: &BenchArguments, as_json: bool) -> Result<()> {
    let mut sizes = Vec::new();
    for text in &arguments.sizes {
        match Sizes::parse(text) {
            Ok(Sizes::These(these)) => sizes.extend(these),
            Ok(_) => return Err(Error::at("--sizes", "wants numbers")),
            Err(message) => return Err(Error::at("--sizes", message)),
        }
    }
    if arguments.packets == 0 || arguments.rounds == 0 {
        return Err(Error::at("--packets, --rounds", "want at least 1"));
    }
    arguments.model.device.model("bench")?;
    let parameters = arguments.model.parameters()?;
    let settings = Settings {
        packets: arguments.packets,
        transmit_slots: TRANSMIT_SLOTS,
        seed: arguments.model.seed,
        ends: Ends::Models(Models::plain(arguments.model.preset(), &parameters)),
    };
    let library = fastest_library(arguments.model.seed)?;
    let mut rows = Vec::new();
    for size in sizes {
        let mut row = Row { size, bare_ns: f64::INFINITY, path_ns: f64::INFINITY };
        for _ in 0..arguments.rounds {
            row.bare_ns = row.bare_ns.min(bare(library, size, arguments.model.seed)?);
            let report = Bench::new(&settings, &[bench_flow(size)], None)?.run(&settings)?;
            if report.interrupted {
                return Err(Error::interrupted().unreported());
            }
            if !report.is_good() || report.packets_verified != arguments.packets {
                return Err(Error::failure(format_args!(
                    "{size} B: {} of {} packets verified, {} mismatches",
                    report.packets_verified, arguments.packets, report.mismatches
                )));
            }
            row.path_ns = row.path_ns.min(report.wall_seconds * 1e9 / arguments.packets as f64);
        }
        rows.push(row);
    }
    let at_64 = rows.iter().find(|row| row.size == 64).map(|row| 1e9 / row.path_ns);
    if as_json {
        let round = |value: f64| (value * 100.0).round() / 100.0;
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({ "size": row.size, "bare_ns": round(row.bare_ns), "path_ns": round(row.path_ns),
                        "ratio": round(row.path_ns / row.bare_ns),
                        "difference_ns": round(row.path_ns - row.bare_ns) })
            })
            .collect();
        return output::print_json(&json!({
            "rows": rows,
            "backend": library.name(),
            "packets_per_second_64": at_64.map(f64::round),
            "optimised": !cfg!(debug_assertions),
            "seed": arguments.model.seed,
            "packets": arguments.packets,
            "parameters": parameters_json(&parameters),
        }));
    }
    let paint = Paint::for_stdout();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} seal + open of {} alone, and the whole path: two drivers, two NICs, every packet compared",
        paint.bold("cryptonic bench:"),
        library.name()
    );
    let _ = writeln!(
        text,
        "{}",
        paint.dim("    size     bare ns     path ns   difference   ratio   path packets/s")
    );
    for row in &rows {
        let _ = writeln!(
            text,
            "  {:>6}  {:>10.1}  {:>10.1}  {:>11.1}  {:>6.2}  {:>13.2} M",
            row.size,
            row.bare_ns,
            row.path_ns,
            row.path_ns - row.bare_ns,
            row.path_ns / row.bare_ns,
            1e3 / row.path_ns
        );
    }
    if cfg!(debug_assertions) {
        text.push_str("built without optimisation: measure with `cargo run --release -- bench`\n");
    }
    output::print(&text)
}

/// Nanoseconds to seal and open what ESP seals of a frame of `size` bytes.
fn bare(library: Library, size: usize, seed: u64) -> Result<f64> {
    let key_error = |error| Error::at("bench", format_args!("{error}"));
    let key = GcmKey::with_library(library, Cipher::AesGcm128, &[0x42; 16]).map_err(key_error)?;
    let mut stream = Stream::new(&bench_flow(size), 0, 0, &mut Random::new(seed))?;
    let mut text = stream.frame(0)[CLEAR_BYTES.min(size - FCS_BYTES)..].to_vec();
    text.resize((text.len() + TRAILER_BYTES).next_multiple_of(4), 0);
    let aad = [7; AAD_BYTES];
    let mut nonce = [3; 12];
    let started = Instant::now();
    let mut operations = 0_u64;
    while started.elapsed() < BARE_TIME {
        for _ in 0..BARE_BATCH {
            operations += 1;
            nonce[4..].copy_from_slice(&operations.to_be_bytes());
            let icv = key.seal(&nonce, &aad, black_box(&mut text));
            if key.open(&nonce, &aad, black_box(&mut text), &icv).is_err() {
                return Err(Error::failure(format_args!("{} does not open what it sealed", library.name())));
            }
        }
    }
    Ok(started.elapsed().as_secs_f64() * 1e9 / operations as f64)
}

fn fastest_library(seed: u64) -> Result<Library> {
    let mut best = (f64::INFINITY, Library::default());
    for library in Library::ALL {
        let nanoseconds = bare(library, 1500, seed)?;
        if nanoseconds < best.0 {
            best = (nanoseconds, library);
        }
    }
    Ok(best.1)
}
