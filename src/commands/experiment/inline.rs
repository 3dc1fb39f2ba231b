//! `experiment inline`: descriptor formats against each other, measured and computed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use cryptonic_hwmodel::Parameters;
use cryptonic_regs::admin::{Cipher, Mode};
use serde_json::{Value, json};

use super::formulas::{FCS_BYTES, Figures, Formulas};
use super::plot::{Plot, Series};
use crate::commands::run::{ModelArguments, parameters_json};
use crate::commands::traffic::{Bench, Ends, Models, Settings};
use crate::error::{Error, Result};
use crate::flow::{Descriptor, EspForm, Flow, Protection, PspForm};
use crate::output::{self, OutputFile, Paint};
use crate::report::ModelReport;
use crate::workload::{SIZE_MAX, SIZE_MIN, Sizes};

/// Packets that one doorbell announces under load, and descriptors that one read fetches.
pub(crate) const BATCH: u64 = 64;
pub(crate) const FETCH: u64 = 16;
pub(crate) const TRANSMIT_SLOTS: u32 = 512;
/// Room in a slot of 128 bytes behind a key.
const INLINE_BEHIND_KEY: u64 = 64;
const PACKETS_MAX: u64 = 1 << 24;
/// A format costs as many bytes as the plain one if it costs less than this more.
const SAME_BYTES: f64 = 1.02;
const SIZES_DEFAULT: [usize; 10] = [64, 96, 128, 192, 256, 512, 1024, 1518, 4096, 9000];

/// A descriptor format, and where the key comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) descriptor: Descriptor,
    /// PSP with the key in the descriptor; else ESP with the key in an SA slot.
    pub(crate) key: bool,
}

impl Format {
    /// Bytes of the frame's beginning that stand in the slot, if there are as many.
    pub(crate) fn inline_bytes(&self) -> u64 {
        let bytes = u64::from(self.descriptor.inline_bytes);
        if self.key { bytes.min(INLINE_BEHIND_KEY) } else { bytes }
    }
}

/// Every format, the one that others are held against first.
fn formats() -> Vec<Format> {
    let named = |name: &str| Descriptor::ALL.into_iter().find(|descriptor| descriptor.name == name);
    let mut all = Vec::new();
    for (name, descriptor, key) in [
        ("stride-32", "stride-32", false),
        ("inline-64", "inline-64", false),
        ("inline-128", "inline-128", false),
        ("pushed-64", "pushed-64", false),
        ("pushed-128", "pushed-128", false),
        ("scatter-gather", "scatter-gather", false),
        ("key-64", "stride-64", true),
        ("key-128", "inline-128", true),
    ] {
        all.extend(named(descriptor).map(|descriptor| Format { name, descriptor, key }));
    }
    all
}

/// Arguments of `experiment inline`.
#[derive(Debug, Args)]
pub(crate) struct InlineArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Bytes of the frames with their FCS, 64 to 9018
    #[arg(long, value_delimiter = ',', default_values_t = SIZES_DEFAULT, value_name = "BYTES")]
    sizes: Vec<usize>,
    /// Formats beside stride-32: inline-64, inline-128, pushed-64, pushed-128, scatter-gather, key-64, key-128
    #[arg(long, value_delimiter = ',', value_name = "FORMATS")]
    formats: Vec<String>,
    /// Packets to send under load for each format and size, and then twice as many; a multiple of 512 is taken
    #[arg(long, default_value_t = 2048, value_name = "N")]
    packets: u64,
    /// Packets to send one at a time
    #[arg(long, default_value_t = 16, value_name = "N")]
    alone: u64,
    /// Write inline.json, inline.txt and plots here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// One format and one size.
#[derive(Clone, Debug)]
struct Row {
    format: &'static str,
    size: usize,
    measured: Figures,
    computed: Figures,
}

/// What a plot shows of a row's measured or computed figures.
type Figure = fn(&Row, &Figures) -> f64;

/// Where a format and the plain one change places.
#[derive(Clone, Copy, Debug)]
struct Crossover {
    format: &'static str,
    /// Up to this size a packet alone is quicker by more than a cycle, by the formulas.
    quicker_up_to: Option<usize>,
    /// From this size on its bytes to the device cost less than 2 % more.
    same_bytes_from: Option<usize>,
}

/// Runs.
pub(crate) fn run(arguments: &InlineArguments, as_json: bool) -> Result<()> {
    let chosen = chosen(&arguments.formats)?;
    for size in &arguments.sizes {
        if !(SIZE_MIN..=SIZE_MAX).contains(size) {
            return Err(Error::at("--sizes", format_args!("{size}: wants {SIZE_MIN} to {SIZE_MAX} bytes")));
        }
    }
    for (option, packets) in [("--packets", arguments.packets), ("--alone", arguments.alone)] {
        if !(1..=PACKETS_MAX).contains(&packets) {
            return Err(Error::at(option, format_args!("wants 1 to {PACKETS_MAX} packets")));
        }
    }
    arguments.model.device.model("experiment")?;
    let parameters = arguments.model.parameters()?;
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, &error))?;
    }
    let bar = output::progress(Some((chosen.len() * arguments.sizes.len()) as u64), "formats and sizes");
    let mut rows = Vec::new();
    for format in &chosen {
        for size in &arguments.sizes {
            let measured = measure(arguments, &parameters, format, *size)?;
            let computed = Formulas::new(&parameters, format, *size).figures();
            rows.push(Row { format: format.name, size: *size, measured, computed });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let crossovers: Vec<Crossover> =
        chosen.iter().skip(1).map(|format| crossover(&parameters, &chosen[0], format)).collect();
    let object = as_object(arguments, &parameters, &rows, &crossovers);
    if let Some(folder) = &arguments.out {
        write_files(folder, arguments, &object, &rows, &crossovers)?;
    }
    if as_json {
        output::print_json(&object)
    } else {
        output::print(&text(&rows, &crossovers, arguments.model.preset(), Paint::for_stdout()))
    }
}

/// The plain format, and those that were named, or all.
fn chosen(names: &[String]) -> Result<Vec<Format>> {
    let all = formats();
    for name in names {
        if !all.iter().any(|format| format.name == name) {
            let known: Vec<&str> = all.iter().map(|format| format.name).collect();
            return Err(Error::at("--formats", format_args!("no `{name}`; known are {}", known.join(", "))));
        }
    }
    let wanted = |(index, format): &(usize, Format)| {
        *index == 0 || names.is_empty() || names.iter().any(|name| name == format.name)
    };
    Ok(all.into_iter().enumerate().filter(wanted).map(|(_, format)| format).collect())
}

fn measure(
    arguments: &InlineArguments,
    parameters: &Parameters,
    format: &Format,
    size: usize,
) -> Result<Figures> {
    let protection = if format.key {
        Protection::Psp(PspForm::default())
    } else {
        Protection::Esp(EspForm::new(Mode::Transport, Cipher::AesGcm128))
    };
    let flow = Flow {
        ways: [true, false],
        descriptor: format.descriptor,
        ..Flow::new(format.name, protection, Sizes::These(vec![size]))
    };
    let settings = |packets: u64| Settings {
        packets,
        transmit_slots: TRANSMIT_SLOTS,
        seed: arguments.model.seed,
        ends: Ends::Models(Models::plain(arguments.model.preset(), parameters)),
    };
    let load = |packets: u64| -> Result<ModelReport> {
        let settings = settings(packets);
        let report = Bench::new(&settings, std::slice::from_ref(&flow), None)?.run(&settings)?;
        let whole = report.is_good() && report.packets_verified == packets;
        report.model.filter(|_| whole).ok_or_else(|| lost(format, size))
    };
    // What a run takes until the first packet is through, and from the last one on, two runs have in common.
    let packets = loaded_packets(arguments);
    let (once, twice) = (load(packets)?, load(2 * packets)?);
    let alone = Bench::new(&settings(1), std::slice::from_ref(&flow), None)?.run_alone(arguments.alone)?;
    if alone.verified != arguments.alone {
        return Err(lost(format, size));
    }
    let (to_device, to_host) = twice.pcie_bytes[0];
    let share = |bytes: u64, packets: u64| bytes as f64 / packets as f64;
    Ok(Figures {
        to_device: share(to_device, 2 * packets),
        to_host: share(to_host, 2 * packets),
        to_device_alone: share(alone.pcie_bytes.0, arguments.alone),
        to_host_alone: share(alone.pcie_bytes.1, arguments.alone),
        first_byte_ns: alone.first_byte_ns,
        latency_ns: alone.latency_ns,
        packets_per_second: packets as f64 / (twice.seconds - once.seconds),
    })
}

/// Whole passes of the ring: a last batch that is shorter would cost a doorbell of its own.
fn loaded_packets(arguments: &InlineArguments) -> u64 {
    arguments.packets.next_multiple_of(TRANSMIT_SLOTS.into())
}

fn lost(format: &Format, size: usize) -> Error {
    Error::failure(format_args!("{} with {size} bytes: packets were lost or changed", format.name))
}

fn crossover(parameters: &Parameters, plain: &Format, format: &Format) -> Crossover {
    let figures =
        |format: &Format, size: usize| -> Figures { Formulas::new(parameters, format, size).figures() };
    let cycle_ns = 1e9 / parameters.pipeline.clock_hz as f64;
    let mut found = Crossover { format: format.name, quicker_up_to: None, same_bytes_from: None };
    let mut quicker_so_far = true;
    for size in SIZE_MIN..=SIZE_MAX {
        let (this, plain) = (figures(format, size), figures(plain, size));
        quicker_so_far &= this.latency_ns + cycle_ns < plain.latency_ns;
        if quicker_so_far {
            found.quicker_up_to = Some(size);
        }
        if this.to_device >= plain.to_device * SAME_BYTES {
            found.same_bytes_from = None;
        } else if found.same_bytes_from.is_none() {
            found.same_bytes_from = Some(size);
        }
    }
    found
}

fn as_object(
    arguments: &InlineArguments,
    parameters: &Parameters,
    rows: &[Row],
    crossovers: &[Crossover],
) -> Value {
    let figures = |figures: &Figures| {
        json!({
            "pcie_bytes": { "to_device": figures.to_device, "to_host": figures.to_host },
            "pcie_bytes_alone": { "to_device": figures.to_device_alone, "to_host": figures.to_host_alone },
            "first_byte_ns": figures.first_byte_ns,
            "latency_ns": figures.latency_ns,
            "packets_per_second": figures.packets_per_second,
        })
    };
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({ "format": row.format, "size": row.size, "measured": figures(&row.measured),
                    "computed": figures(&row.computed) })
        })
        .collect();
    let crossovers: Vec<Value> = crossovers
        .iter()
        .map(|crossover| {
            json!({ "format": crossover.format, "quicker_up_to": crossover.quicker_up_to,
                    "same_bytes_from": crossover.same_bytes_from })
        })
        .collect();
    json!({
        "seed": arguments.model.seed,
        "preset": arguments.model.preset(),
        "packets": loaded_packets(arguments),
        "packets_alone": arguments.alone,
        "rows": rows,
        "crossovers": crossovers,
        "parameters": parameters_json(parameters),
    })
}

/// A measured number and the computed one, as their difference.
fn pair(measured: f64, computed: f64, digits: usize) -> String {
    let mut difference = measured - computed;
    if difference.abs() < 0.5 * 10_f64.powi(-(digits as i32)) {
        difference = 0.0; // no -0.0
    }
    format!("{measured:.digits$} ({difference:+.digits$})")
}

fn text(rows: &[Row], crossovers: &[Crossover], preset: &str, paint: Paint) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} descriptor formats, {preset} preset. In brackets: measured less computed (docs/experiments.md).",
        paint.bold("cryptonic experiment inline:")
    );
    let mut last = "";
    for row in rows {
        if row.format != last {
            last = row.format;
            let _ = writeln!(text, "\n{}", paint.bold(row.format));
            let header = format!(
                "  {:>5} {:>20} {:>19} {:>20} {:>18} {:>18} {:>16}",
                "size",
                "bytes to device",
                "bytes to host",
                "alone to device",
                "first byte, ns",
                "latency, ns",
                "M packets/s"
            );
            let _ = writeln!(text, "{}", paint.dim(&header));
        }
        let (found, sum) = (&row.measured, &row.computed);
        let _ = writeln!(
            text,
            "  {:>5} {:>20} {:>19} {:>20} {:>18} {:>18} {:>16}",
            row.size,
            pair(found.to_device, sum.to_device, 2),
            pair(found.to_host, sum.to_host, 2),
            pair(found.to_device_alone, sum.to_device_alone, 1),
            pair(found.first_byte_ns, sum.first_byte_ns, 1),
            pair(found.latency_ns, sum.latency_ns, 1),
            pair(found.packets_per_second / 1e6, sum.packets_per_second / 1e6, 2),
        );
    }
    let _ = writeln!(text, "\n{}", paint.bold("against stride-32, by the formulas"));
    for Crossover { format, quicker_up_to, same_bytes_from } in crossovers {
        let quicker = match quicker_up_to {
            Some(size) if *size == SIZE_MAX => "quicker at every size".to_owned(),
            Some(size) => format!("quicker up to {size} B"),
            None => "quicker at no size".to_owned(),
        };
        let bytes = match same_bytes_from {
            Some(size) if *size == SIZE_MIN => {
                "less than 2 % more bytes to the device at every size".to_owned()
            }
            Some(size) => format!("less than 2 % more bytes to the device from {size} B on"),
            None => "never within 2 % of its bytes to the device".to_owned(),
        };
        let _ = writeln!(text, "  {format:<16}{quicker}; {bytes}");
    }
    text
}

fn write_files(
    folder: &Path,
    arguments: &InlineArguments,
    object: &Value,
    rows: &[Row],
    crossovers: &[Crossover],
) -> Result<()> {
    let plain = text(rows, crossovers, arguments.model.preset(), Paint::default());
    OutputFile::write_whole(&folder.join("inline.json"), format!("{object:#}\n").as_bytes())?;
    OutputFile::write_whole(&folder.join("inline.txt"), plain.as_bytes())?;
    let plots: [(&str, &str, Figure); 4] = [
        ("bytes", "PCI Express bytes to the device, beyond the frame's own", |row, figures| {
            figures.to_device - ((row.size as u64 - FCS_BYTES) as f64)
        }),
        ("first-byte", "first byte in the NIC, ns", |_, figures| figures.first_byte_ns),
        ("latency", "latency of one packet, ns", |_, figures| figures.latency_ns),
        ("rate", "M packets/s", |_, figures| figures.packets_per_second / 1e6),
    ];
    let mut names: Vec<&str> = rows.iter().map(|row| row.format).collect();
    names.dedup();
    for (name, title, of) in plots {
        let series = names.iter().map(|name| {
            let own = || rows.iter().filter(|row| row.format == *name);
            Series {
                name,
                line: own().map(|row| (row.size as f64, of(row, &row.measured))).collect(),
                rings: own().map(|row| (row.size as f64, of(row, &row.computed))).collect(),
            }
        });
        let x_label = "bytes of a frame with its FCS; rings: computed";
        let plot = Plot { title, x_label, log_x: true, series: series.collect() };
        plot.write(folder, &format!("inline-{name}"))?;
    }
    Ok(())
}
