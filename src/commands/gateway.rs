//! `gateway`: a NIC between two links, as an IPsec or PSP gateway.

mod forward;
mod icmp;
mod path_mtu;
mod report;
mod router;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use cryptonic_pci::Time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::gate::Gate;
use super::pcap::advance;
use crate::device::DeviceName;
use crate::error::{Error, Result};
use crate::link::{Link, LinkName};
use crate::neighbours::{Mac, Segment};
use crate::output::{self, OutputFile};
use crate::sa_file::SaFile;
use crate::signals::Signals;
use crate::toml_reader::Source;
use forward::{Forwarder, RouterCounters, Side, mac, own_addresses};
use icmp::Budget;
use path_mtu::Paths;
use report::{Ended, Report};

/// From what every IPv6 link carries (RFC 8200 5) to what a frame of a link and of the NIC has room for, headers included.
const MTU_MIN: u64 = 1280;
const MTU_MAX: u64 = 16_000;

/// Arguments of `gateway`.
#[derive(Debug, Args)]
#[command(
    after_help = "A packet from inside is protected by the first `out` SA whose selector matches; one from outside is \
                  opened by the `in` SA, or by PSP; `default` says what becomes of the others. Links: \
                  dgram:LOCAL,REMOTE (two Unix datagram sockets, as QEMU's -netdev dgram), tap:NAME, pcap:FILE, \
                  replay:FILE, loopback, none. SIGHUP has the SA file read again while packets go on; Ctrl-C ends \
                  with a report."
)]
pub(crate) struct GatewayArguments {
    /// The SAs; see `cryptonic sa new`
    #[arg(long, value_name = "FILE")]
    sa: PathBuf,
    /// Where packets are in clear
    #[arg(long, value_name = "LINK")]
    inside: LinkName,
    /// Where packets are protected
    #[arg(long, value_name = "LINK")]
    outside: LinkName,
    /// An address of the gateway inside, which hosts there route to; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    inside_gateway: Vec<IpAddr>,
    /// An address to answer for outside, beside those that the SA file names; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    outside_address: Vec<IpAddr>,
    /// The longest IP packet on the inside link; if left out, what a TAP interface has at the start, else 1500
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(MTU_MIN..=MTU_MAX))]
    inside_mtu: Option<u64>,

    /// The longest IP packet outside, on the link and the path behind it; if left out, as for --inside-mtu
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(MTU_MIN..=MTU_MAX))]
    outside_mtu: Option<u64>,

    /// The Ethernet address of a neighbour, on either side, that need not be asked for: a router, say; may be given more
    /// than once
    #[arg(long, value_name = "ADDRESS=MAC")]
    neighbour: Vec<Neighbour>,
    /// End when SAs have protected or opened as many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    packets: Option<u64>,
    /// End after as many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: Option<u64>,
    /// Write the SA file here at the end, with the sequence numbers (and IVs) that come next
    #[arg(long, value_name = "FILE")]
    sa_out: Option<PathBuf>,
    /// Which device: `model`
    #[arg(long, default_value = "model")]
    device: DeviceName,
    /// Where chance in the device begins
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A neighbour that is given on the command line.
#[derive(Clone, Copy, Debug)]
struct Neighbour {
    address: IpAddr,
    mac: Mac,
}

impl FromStr for Neighbour {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Neighbour, String> {
        let (address, mac) =
            text.split_once('=').ok_or("wants ADDRESS=MAC, as in 192.0.2.1=02:00:00:00:00:01")?;
        let address = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
        Ok(Neighbour { address, mac: mac.parse()? })
    }
}

/// Runs.
pub(crate) fn run(arguments: &GatewayArguments, as_json: bool) -> Result<()> {
    if arguments.inside == arguments.outside && arguments.inside != LinkName::None {
        return Err(Error::at("--outside", "is the same link as --inside"));
    }
    let started = Instant::now();
    // Before the links are open: a signal must not leave anything of theirs.
    let mut signals = Signals::listen()?;
    let source = Source::read(&arguments.sa)?;
    let file = SaFile::parse(&source)?;
    let report = Report::new(file.notes.clone());
    let mut forwarder = open(arguments, file)?;
    let (inside, outside) = (&arguments.inside, &arguments.outside);
    output::note(&format!("gateway between {inside} and {outside}; Ctrl-C ends it"));

    let mut running = Running { arguments, started, source, report };
    let ended = running.forward_all(&mut forwarder, &mut signals);
    let Running { source, mut report, .. } = running;
    report.seconds = started.elapsed().as_secs_f64();
    report.interrupted = matches!(ended, Ok(Ended::Interrupted));
    let closed = close(arguments, &source, &mut report, forwarder);
    // What ended it by force comes before what that made impossible; the report tells how far it went.
    let outcome = ended.and_then(|ended| closed.map(|lost| (ended, lost)));
    report.print(as_json, outcome.as_ref().err())?;
    match outcome {
        Err(error) => Err(if as_json { error.reported() } else { error }),
        Ok((_, lost)) if lost > 0 => {
            Err(Error::failure(format_args!("{lost} packets were lost without a reason")).reported())
        }
        Ok((Ended::Interrupted, _)) => Err(Error::interrupted()),
        Ok((Ended::Enough | Ended::ReplayOver, _)) => Ok(()),
    }
}

/// Takes the numbers of the end, writes what is to be written, and closes the links. Gives the packets lost without a reason.
fn close(
    arguments: &GatewayArguments,
    source: &Source,
    report: &mut Report,
    mut forwarder: Forwarder,
) -> Result<u64> {
    report.finish(arguments, &mut forwarder)?;
    if let Some(path) = &arguments.sa_out {
        let text = advance(&arguments.sa, source.text(), &forwarder.gate.advanced()?)?;
        OutputFile::write_secret(path, text.as_bytes())?;
    }
    forwarder.inside.link.close()?;
    forwarder.outside.link.close()?;
    Ok(forwarder.lost)
}

/// Opens the NIC and both links.
fn open(arguments: &GatewayArguments, file: SaFile) -> Result<Forwarder> {
    let near: Vec<IpAddr> = own_addresses(&file).into_iter().filter_map(|(_, near)| near).collect();
    let outside_address = near.first().or(arguments.outside_address.first()).copied();
    let macs = [mac(0, arguments.inside_gateway.first())?, mac(1, outside_address.as_ref())?];
    arguments.device.model("gateway")?;
    let gate = Gate::new(&arguments.device, file, arguments.seed)?;
    let side = |name: &LinkName, mtu: Option<u64>, mac: Mac| -> Result<Side> {
        let link = Link::open(name)?;
        let mtu = mtu.map(|mtu| mtu as usize).or(link.mtu()).unwrap_or(path_mtu::ETHERNET);
        let mtu = mtu.min(MTU_MAX as usize);
        let mut segment = Segment::new(mac);
        for neighbour in &arguments.neighbour {
            segment.fix(neighbour.address, neighbour.mac);
        }
        Ok(Side { link, segment, mtu })
    };
    let [inside_mac, outside_mac] = macs;
    let mut forwarder = Forwarder {
        gate,
        inside: side(&arguments.inside, arguments.inside_mtu, inside_mac)?,
        outside: side(&arguments.outside, arguments.outside_mtu, outside_mac)?,
        inside_addresses: arguments.inside_gateway.clone(),
        outside_addresses: arguments.outside_address.clone(),
        paths: Paths::default(),
        budget: Budget::new(Instant::now()),
        counters: RouterCounters::default(),
        verdicts: BTreeMap::new(),
        lost: 0,
    };
    path_mtu::check(forwarder.gate.file(), forwarder.outside.mtu)?;
    forwarder.follow_file();
    Ok(forwarder)
}

/// What goes on beside the packets.
struct Running<'a> {
    arguments: &'a GatewayArguments,
    started: Instant,
    /// The SA file as it was read last.
    source: Source,
    report: Report,
}

impl Running<'_> {
    /// Forwards until something ends it.
    fn forward_all(&mut self, forwarder: &mut Forwarder, signals: &mut Signals) -> Result<Ended> {
        let end =
            self.arguments.seconds.and_then(|seconds| self.started.checked_add(Duration::from_secs(seconds)));
        loop {
            if signals.end() {
                return Ok(Ended::Interrupted);
            }
            if signals.take_hangup() {
                self.read_again(forwarder)?;
            }
            let now = Instant::now();
            let frames = forwarder.pump(now)?;
            if self.arguments.packets.is_some_and(|packets| forwarder.packets() >= packets)
                || end.is_some_and(|end| end <= now)
            {
                return Ok(Ended::Enough);
            }
            if frames > 0 {
                continue;
            }
            let waits = [&forwarder.inside, &forwarder.outside];
            if waits.iter().any(|side| side.link.is_over())
                && waits.iter().all(|side| side.segment.next_time().is_none())
            {
                return Ok(Ended::ReplayOver);
            }
            let elapsed = self.started.elapsed();
            forwarder.gate.pass_time(Time::from_nanoseconds(elapsed.as_nanos() as u64));
            sleep(forwarder, signals, end)?;
        }
    }

    /// Reads the SA file again and has it take the place of the one before. What is wrong with it is told, and nothing changes.
    fn read_again(&mut self, forwarder: &mut Forwarder) -> Result<()> {
        let path = &self.arguments.sa;
        let read = || {
            if path == Path::new("-") {
                return Err(Error::at("SIGHUP", "standard input cannot be read again"));
            }
            let source = Source::read(path)?;
            Ok((SaFile::parse(&source)?, source))
        };
        let replaced = read().and_then(|(file, source)| {
            let notes = file.notes.clone();
            path_mtu::check(&file, forwarder.outside.mtu)?;
            let replaced = forwarder.gate.replace(file)?;
            Ok((replaced, notes, source))
        });
        match replaced {
            Ok((replaced, notes, source)) => {
                self.source = source;
                self.report.notes = notes;
                forwarder.follow_file();
                output::note(&format!(
                    "{}: read again: {} SAs installed, {} kept, {} deleted",
                    path.display(),
                    replaced.installed,
                    replaced.kept,
                    replaced.deleted.len()
                ));
                self.report.read_again += 1;
                self.report.add_deleted(&replaced.deleted);
            }
            Err(error) => {
                output::note(&format!("{error}; the SAs stay as they were"));
                self.report.read_again_refused += 1;
            }
        }
        Ok(())
    }
}

/// Waits for a frame, a signal, or for the time that something is due.
fn sleep(forwarder: &Forwarder, signals: &Signals, end: Option<Instant>) -> Result<()> {
    let sides = [&forwarder.inside, &forwarder.outside];
    let now = Instant::now();
    let due = sides.iter().filter_map(|side| side.segment.next_time()).chain(end).min();
    let due = due.map(|due| due.saturating_duration_since(now));
    let wait = sides.iter().filter_map(|side| side.link.look_again()).chain(due).min();
    let timeout = wait.map(|wait| Timespec {
        tv_sec: wait.as_secs().min(86_400) as i64,
        tv_nsec: i64::from(wait.subsec_nanos()),
    });
    let mut descriptors = vec![PollFd::new(signals, PollFlags::IN)];
    let links: Vec<_> = sides.iter().filter_map(|side| side.link.descriptor()).collect();
    descriptors.extend(links.iter().map(|link| PollFd::new(link, PollFlags::IN)));
    match poll(&mut descriptors, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Error::input(format_args!("cannot wait for frames: {errno}"))),
    }
}
