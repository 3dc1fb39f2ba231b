//! `pcap`: a capture's packets through driver and NIC.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use cryptonic_regs::Status;
use cryptonic_regs::admin::Direction;
use cryptonic_regs::events::SlotState;
use cryptonic_wire::packet;
use serde_json::json;
use zeroize::Zeroizing;

use super::gate::{self, Advanced, Gate, Outcome};
use crate::capture::{Input, Link, Output};
use crate::device::DeviceName;
use crate::error::{Error, Result};
use crate::output::{self, Interrupt, OutputFile, Paint};
use crate::report::grouped;
use crate::sa_file::{Esp, Protocol, Sa, SaFile, is_gmac};
use crate::toml_reader::Source;

/// Flows that a hint names.
const FLOWS_SHOWN: usize = 10;
/// Flows that are remembered for a hint.
const FLOWS_KEPT: usize = 10_000;
const ETHERNET_BYTES: usize = 14;
/// What Wireshark leaves undone or takes amiss by default. PSP sends UDP checksums of 0 over IPv6 too (RFC 6935).
const WIRESHARK_PREFERENCES: [&str; 3] =
    ["esp.enable_encryption_decode", "esp.enable_authentication_check", "udp.ignore_ipv6_zero_checksum"];
/// Verdicts of packets that no SA took.
const UNMATCHED: [&str; 2] = [gate::DROPPED_BY_DEFAULT, Status::ClearNotAccepted.name()];
/// The UDP port of ESP (RFC 3948), for naming a flow.
const ESP_UDP_PORT: u16 = 4500;
/// Shows the fields of PSP packets in Wireshark and tshark.
const PSP_DISSECTOR: &str = include_str!("../wireshark/psp.lua");

/// Arguments of `pcap`.
#[derive(Debug, Args)]
#[command(
    after_help = "A packet that an `in` SA (or PSP) matches is opened; else the first `out` SA whose selector \
                  matches protects it; else `default` says. A packet that cannot be protected is never written \
                  in clear. Packets come out in input order, with their times and L2 headers."
)]
pub(crate) struct PcapArguments {
    /// The SAs; see `cryptonic sa new`
    #[arg(long, value_name = "FILE")]
    sa: PathBuf,
    /// The capture: pcap or pcapng, Ethernet or raw IP; `-` is standard input
    input: PathBuf,
    /// Where the packets go, as pcap; `-` is standard output
    output: PathBuf,
    /// Write the SA file here with the sequence numbers (and IVs) that come next
    #[arg(long, value_name = "FILE")]
    sa_out: Option<PathBuf>,
    /// Write here what Wireshark needs for the output: a configuration that decrypts its ESP packets, and a
    /// dissector that shows its PSP packets
    #[arg(long, value_name = "DIR")]
    wireshark: Option<PathBuf>,
    /// Which device: `model`
    #[arg(long, default_value = "model")]
    device: DeviceName,
    /// Where chance in the device begins
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What came of the packets.
#[derive(Default)]
struct Tally {
    packets_in: u64,
    packets_out: u64,
    /// Packets of which the capture kept only the beginning.
    cut: u64,
    lost: u64,
    verdicts: BTreeMap<&'static str, u64>,
    /// Flows that no SA took, as long as none took any.
    flows: HashMap<String, u64>,
    matched: bool,
    interrupted: bool,
}

/// Runs.
pub(crate) fn run(arguments: &PcapArguments, as_json: bool) -> Result<()> {
    let to_stdout = arguments.output == Path::new("-");
    if to_stdout && as_json {
        return Err(Error::at("--json", "prints on standard output, where the packets go too"));
    }
    if arguments.sa == Path::new("-") && arguments.input == Path::new("-") {
        return Err(Error::at("--sa", "standard input cannot be both the SA file and the capture"));
    }
    let source = Source::read(&arguments.sa)?;
    let file = SaFile::parse(&source)?;
    let mut input = Input::open(&arguments.input)?;
    arguments.device.model("pcap")?;
    let mut gate = Gate::new(&arguments.device, file, arguments.seed)?;
    let mut output = Output::create(&arguments.output, input.format())?;

    let mut tally = Tally::default();
    // What is wrong with the input ends the reading; everything before it is still written.
    let wrong_input = push_all(&mut input, &mut gate, &mut output, &mut tally)?;
    output.finish()?;
    let advanced = gate.advanced()?;
    let file = gate.file();
    let lifetimes = lifetimes(file, &advanced);
    if let Some(path) = &arguments.sa_out {
        let text = advance(&arguments.sa, source.text(), &advanced)?;
        OutputFile::write_secret(path, text.as_bytes())?;
    }
    if let Some(folder) = &arguments.wireshark {
        write_wireshark(folder, file, &arguments.output)?;
    }

    if as_json {
        let mut object = json!({
            "packets_in": tally.packets_in,
            "packets_out": tally.packets_out,
            "verdicts": tally.verdicts,
            "lost_without_reason": tally.lost,
            "packets_cut_by_capture": tally.cut,
            "interrupted": tally.interrupted,
            "seed": arguments.seed,
            "notes": file.notes,
            "lifetimes": lifetimes
                .iter()
                .map(|life| json!({"sa": life.sa, "used": life.used, "unit": life.unit, "state": life.state.name()}))
                .collect::<Vec<_>>(),
        });
        if let Some(hint) = hint(&tally, file) {
            object["hint"] = hint.into();
        }
        if let Some(error) = &wrong_input {
            object["error"] = error.message().into();
            object["where"] = error.place().into();
        }
        output::print_json(&object)?;
    } else {
        let text = human(&tally, file, &lifetimes);
        if to_stdout { output::note(text.trim_end()) } else { output::print(&text)? }
    }
    if let Some(error) = wrong_input {
        return Err(if as_json { error.reported() } else { error });
    }
    if tally.lost > 0 {
        let message = format!("{} packets were lost without a reason", tally.lost);
        return Err(Error::failure(message).reported());
    }
    if tally.interrupted { Err(Error::interrupted()) } else { Ok(()) }
}

/// Takes every packet through. What is wrong with the input is a value; other errors end the command.
fn push_all(
    input: &mut Input,
    gate: &mut Gate,
    output: &mut Output,
    tally: &mut Tally,
) -> Result<Option<Error>> {
    let link = input.format().link;
    let interrupt = Interrupt::listen()?;
    let bar = output::progress(None, "packets");
    let mut frame = Vec::new();
    loop {
        if interrupt.came() {
            tally.interrupted = true;
            break;
        }
        let record = match input.next() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(error) => {
                bar.finish_and_clear();
                return Ok(Some(error));
            }
        };
        tally.packets_in += 1;
        bar.inc(1);
        tally.cut += u64::from(record.original_length as usize > record.data.len());
        to_frame(link, &record.data, &mut frame);
        let outcome = gate.push(&frame)?;
        if !tally.matched {
            tally.see(&outcome, &frame);
        }
        let (verdict, written) = match &outcome {
            Outcome::Out(verdict, frame) => (*verdict, Some((of_frame(link, frame), 0))),
            Outcome::Unchanged(verdict) => (*verdict, Some((&record.data[..], record.original_length))),
            Outcome::Dropped(verdict) => (*verdict, None),
            Outcome::Lost => {
                tally.lost += 1;
                continue;
            }
        };
        *tally.verdicts.entry(verdict).or_insert(0) += 1;
        if let Some((bytes, original_length)) = written {
            output.write(record.time, original_length, bytes)?;
            tally.packets_out += 1;
        }
    }
    bar.finish_and_clear();
    Ok(None)
}

/// The Ethernet frame of a packet: raw IP gets a header of its own.
fn to_frame(link: Link, data: &[u8], frame: &mut Vec<u8>) {
    frame.clear();
    if link == Link::RawIp {
        let ether_type: [u8; 2] = match data.first().map(|byte| byte >> 4) {
            Some(4) => [0x08, 0x00],
            Some(6) => [0x86, 0xdd],
            // Nothing that an SA could take.
            _ => [0xff, 0xff],
        };
        frame.extend_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        frame.extend_from_slice(&ether_type);
    }
    frame.extend_from_slice(data);
}

fn of_frame(link: Link, frame: &[u8]) -> &[u8] {
    match link {
        Link::Ethernet => frame,
        Link::RawIp => frame.get(ETHERNET_BYTES..).unwrap_or(&[]),
    }
}

impl Tally {
    /// Remembers what kind of packet it was, until one is taken by an SA.
    fn see(&mut self, outcome: &Outcome, frame: &[u8]) {
        match outcome {
            Outcome::Unchanged(_) => self.see_flow(frame),
            Outcome::Dropped(verdict) if UNMATCHED.contains(verdict) => self.see_flow(frame),
            _ => {
                self.matched = true;
                self.flows = HashMap::new();
            }
        }
    }

    fn see_flow(&mut self, frame: &[u8]) {
        let flow = flow(frame);
        if self.flows.len() < FLOWS_KEPT || self.flows.contains_key(&flow) {
            *self.flows.entry(flow).or_insert(0) += 1;
        }
    }
}

/// A packet's flow in words.
fn flow(frame: &[u8]) -> String {
    let ports = packet::UdpPorts { esp: ESP_UDP_PORT, ..packet::UdpPorts::default() };
    let parsed = packet::parse_receive(frame, ports);
    let plain = match &parsed {
        Ok(parsed) => Some(parsed.plain),
        Err(_) => packet::parse_transmit(frame).ok(),
    };
    let Some(plain) = plain.filter(|plain| plain.ip_version != 0) else {
        return "not IP".to_owned();
    };
    let (source, destination) = gate::addresses(&plain);
    let what = match parsed {
        Ok(parsed) if parsed.protocol == packet::Protocol::Esp => format!("ESP SPI {:#010x}", parsed.spi),
        Ok(parsed) if parsed.protocol == packet::Protocol::Psp => format!("PSP SPI {:#010x}", parsed.spi),
        _ => match plain.next_header {
            1 => "ICMP".to_owned(),
            6 => "TCP".to_owned(),
            17 => "UDP".to_owned(),
            58 => "ICMPv6".to_owned(),
            other => format!("protocol {other}"),
        },
    };
    format!("{source} -> {destination} {what}")
}

/// What to say when no packet met an SA.
fn hint(tally: &Tally, file: &SaFile) -> Option<String> {
    if tally.matched || tally.packets_in == 0 {
        return None;
    }
    let mut flows: Vec<(&String, &u64)> = tally.flows.iter().collect();
    flows.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    let mut text = "no packet matched an SA. The capture has".to_owned();
    for (flow, count) in flows.iter().take(FLOWS_SHOWN) {
        let _ = write!(text, "\n  {:>8}  {flow}", grouped(**count));
    }
    if flows.len() > FLOWS_SHOWN {
        let _ = write!(text, "\n  and {} more flows", flows.len() - FLOWS_SHOWN);
    }
    text.push_str("\nThe SA file has");
    for sa in &file.sas {
        let _ = match sa.direction {
            Direction::Out => write!(text, "\n  out {}: {}", sa.name, sa.selector),
            Direction::In => {
                let in_udp = if sa.is_in_udp() { " in UDP" } else { "" };
                let to = sa.destination().map(|address| format!(" to {address}")).unwrap_or_default();
                let protocol = sa.protocol.name();
                write!(text, "\n  in  {}: {protocol} SPI {:#010x}{in_udp}{to}", sa.name, sa.spi)
            }
        };
    }
    if file.sas.is_empty() {
        text.push_str(" no SA");
    }
    Some(text)
}

/// How far an SA that has a lifetime is.
struct Life<'a> {
    sa: &'a str,
    used: u64,
    unit: &'static str,
    state: SlotState,
}

fn lifetimes<'a>(file: &'a SaFile, advanced: &[Advanced]) -> Vec<Life<'a>> {
    let of = |(sa, advanced): (&'a Sa, &Advanced)| {
        let ((used, state), lifetime) = advanced.life.zip(sa.lifetime)?;
        let unit = lifetime.limits.kind.name();
        Some(Life { sa: &sa.name, used, unit, state })
    };
    file.sas.iter().zip(advanced).filter_map(of).collect()
}

fn human(tally: &Tally, file: &SaFile, lifetimes: &[Life<'_>]) -> String {
    let paint = Paint::for_stdout();
    let mut text = String::new();
    let _ = writeln!(text, "{} packets in, {} out", grouped(tally.packets_in), grouped(tally.packets_out));
    for (verdict, count) in &tally.verdicts {
        let _ = writeln!(text, "  {:>10}  {verdict}", grouped(*count));
    }
    for Life { sa, used, unit, state } in lifetimes {
        let _ = writeln!(text, "  {:>10}  {unit} used by sa \"{sa}\": {}", grouped(*used), state.name());
    }
    if tally.lost > 0 {
        let _ = writeln!(text, "  {:>10}  {}", grouped(tally.lost), paint.bad("lost without a reason"));
    }
    if tally.cut > 0 {
        let _ = writeln!(
            text,
            "note: the capture kept only the beginning of {} packets (snap length)",
            tally.cut
        );
    }
    if let Some(hint) = hint(tally, file) {
        let _ = writeln!(text, "hint: {hint}");
    }
    if tally.interrupted {
        let _ = writeln!(text, "{}", paint.bad("interrupted: what stands here is as far as it went"));
    }
    text
}

/// The text of an SA file with the numbers that come next; comments and order stay.
pub(crate) fn advance(path: &Path, text: &str, advanced: &[Advanced]) -> Result<Zeroizing<String>> {
    if path == Path::new("-") {
        return Err(Error::at("--sa-out", "needs an SA file that is not standard input"));
    }
    let mut document: toml_edit::DocumentMut =
        text.parse().map_err(|error| Error::at(path.display(), error))?;
    let mut numbers = advanced.iter();
    let mut set = |table: &mut dyn toml_edit::TableLike| {
        let Some(Advanced { sequence, iv, life }) = numbers.next() else { return };
        for (key, number) in [("sequence", sequence), ("iv", iv)] {
            if let Some(number) = number {
                set_number(table, key, *number);
            }
        }
        let (Some((used, _)), Some(item)) = (life, table.get_mut("lifetime")) else { return };
        let Some(lifetime) = item.as_table_like_mut() else { return };
        let is_new = !lifetime.contains_key("used");
        set_number(lifetime, "used", *used);
        // Between braces the space before the last one would stand before the comma.
        item.as_inline_table_mut().filter(|_| is_new).into_iter().for_each(toml_edit::InlineTable::fmt);
    };
    match document.get_mut("sa") {
        Some(toml_edit::Item::ArrayOfTables(tables)) => tables.iter_mut().for_each(|table| set(table)),
        Some(toml_edit::Item::Value(toml_edit::Value::Array(tables))) => {
            tables.iter_mut().filter_map(toml_edit::Value::as_inline_table_mut).for_each(|table| set(table));
        }
        _ => {}
    }
    Ok(Zeroizing::new(document.to_string()))
}

/// Puts a number where another stood, or at the end.
fn set_number(table: &mut dyn toml_edit::TableLike, key: &str, number: u64) {
    let new: toml_edit::Value =
        i64::try_from(number).map_or_else(|_| format!("{number:#x}").into(), Into::into);
    match table.get_mut(key).and_then(toml_edit::Item::as_value_mut) {
        Some(value) => {
            let decor = value.decor().clone();
            *value = new;
            *value.decor_mut() = decor;
        }
        None => drop(table.insert(key, toml_edit::value(new))),
    }
}

/// Writes a Wireshark configuration folder that knows the ESP keys, and the PSP dissector, whatever the SA file holds:
/// packets that no SA takes may be PSP too.
fn write_wireshark(folder: &Path, file: &SaFile, capture: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, &error))?;
    let mut table = Zeroizing::new(String::new());
    let mut options = Zeroizing::new(String::new());
    let mut ports = BTreeSet::new();
    for sa in &file.sas {
        let Protocol::Esp(esp) = &sa.protocol else { continue };
        if let Some(udp) = &esp.encapsulation
            && udp.destination_port != ESP_UDP_PORT
        {
            ports.insert(udp.destination_port);
        }
        if !wireshark_decrypts(esp) {
            continue;
        }
        let key = Zeroizing::new(hex::encode(esp.key.expose()));
        let salt = Zeroizing::new(hex::encode(esp.salt.expose()));
        // Fields that Wireshark has since 4.4, which follows the high half on from the first packet's. 4.0 discards them
        // with a warning.
        let first_high_half = esp.sequence.saturating_add(1) >> 32;
        let extended = if esp.esn { format!(r#","64-bit","{first_high_half:#x}""#) } else { String::new() };
        for family in ["IPv4", "IPv6"] {
            let row = Zeroizing::new(format!(
                r#""{family}","*","*","{:#010x}","AES-GCM with {} octet ICV [RFC4106]","0x{}{}","NULL",""{extended}"#,
                sa.spi, esp.icv_bytes, *key, *salt
            ));
            let _ = writeln!(table, "{}", *row);
            let _ = write!(options, " \\\n  -o 'uat:esp_sa:{}'", *row);
        }
    }
    let mut preferences = String::new();
    let mut switches = String::new();
    for name in WIRESHARK_PREFERENCES {
        let _ = writeln!(preferences, "{name}: TRUE");
        let _ = write!(switches, " -o {name}:TRUE");
    }
    for port in ports {
        let _ = write!(switches, " -d udp.port=={port},udpencap");
    }
    let dissector = folder.join("psp.lua");
    let script = format!("-X lua_script:{}", shell_word(&dissector));
    let capture = shell_word(capture);
    let command = Zeroizing::new(format!(
        "# With this folder as configuration:\nWIRESHARK_CONFIG_DIR={} wireshark {script} {capture}\n\n\
         # Without it:\ntshark {script}{switches}{} \\\n  -r {capture} -V\n",
        shell_word(folder),
        *options
    ));
    OutputFile::write_secret(&folder.join("esp_sa"), table.as_bytes())?;
    OutputFile::write_whole(&folder.join("preferences"), preferences.as_bytes())?;
    OutputFile::write_whole(&dissector, PSP_DISSECTOR.as_bytes())?;
    OutputFile::write_secret(&folder.join("command.txt"), command.as_bytes())
}

/// Whether Wireshark knows the algorithm: neither AES-GMAC (RFC 4543) nor an IV that is not sent (RFC 8750).
fn wireshark_decrypts(esp: &Esp) -> bool {
    !is_gmac(esp.cipher) && !esp.implicit_iv
}

/// A path as one word of a shell's command line.
fn shell_word(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
