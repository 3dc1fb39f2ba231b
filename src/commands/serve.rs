//! `serve`: the model as a vfio-user device on a socket.

mod control;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use cryptonic_hwmodel::vfio_user_server::{Notice, VfioUserServer};
use cryptonic_hwmodel::{Parameters, World};
use cryptonic_pci::Time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use self::control::Control;
use crate::device;
use crate::error::{Error, Result};
use crate::link::{Link, LinkCounters, LinkName};
use crate::output::{self, Interrupt};
use crate::parser::ParserChoice;

/// How long the server sleeps at most; an interrupt, the clock of firmware and a second client wait no longer.
const SLEEP: Duration = Duration::from_millis(10);

/// How long the server looks at shadow doorbells in vain before it sleeps. Waking it costs its driver a message, and the
/// machine a switch of processes: some ten microseconds.
const AWAKE: Duration = Duration::from_micros(100);
/// Frames that are taken from the cable before the NIC moves on.
const FRAMES_AT_ONCE: usize = 64;

/// What the device's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Clock {
    /// What is under way is done at once; beside that, time passes as on the wall
    Free,
    /// As on the wall, or behind it where the model is slower than the NIC would be
    Wall,
}

/// How a driver tells of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Doorbells {
    /// In memory, as long as the server is awake; the device offers it
    Shadow,
    /// By a message each; the device offers nothing else
    Trapped,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Where clients attach
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// What the device's time is
    #[arg(long, value_enum, default_value = "free")]
    clock: Clock,
    /// Where the cable leads: none, loopback, dgram:LOCAL,REMOTE, tap:NAME, pcap:FILE or replay:FILE
    #[arg(long, value_name = "LINK", default_value = "none")]
    link: LinkName,
    /// A socket for tests, which do what no driver can: put frames on the line, crash firmware
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// How a driver tells of descriptors
    #[arg(long, value_enum, default_value = "shadow")]
    doorbells: Doorbells,
    /// End when the first client is gone
    #[arg(long)]
    once: bool,
    /// Knobs of the model by line rate: 25g, 100g, 200g or 400g
    #[arg(long, default_value = "100g")]
    preset: String,
    /// Knobs of the model, as TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One knob, such as crypto.lanes=5; may be given more than once
    #[arg(long = "set", value_name = "KNOB=VALUE")]
    settings: Vec<String>,
    /// Receive parser of the NIC
    #[arg(long, value_enum, default_value = "model")]
    parser: ParserChoice,
    /// Where chance begins: device keys, hash keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What happened to a server.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    clients: u64,
    refused: u64,
}

/// Serves until it is interrupted, which is how this work ends: the exit code is 0 then.
pub(crate) fn run(arguments: &ServeArguments, as_json: bool) -> Result<()> {
    let mut parameters: Parameters =
        device::parameters(&arguments.preset, arguments.config.as_deref(), &arguments.settings)?;
    parameters.host.shadow_doorbells = arguments.doorbells == Doorbells::Shadow;
    let world = World::new(arguments.seed);
    let parser = arguments.parser.parser(&parameters)?;
    let nic =
        world.add_nic_with_parser(&parameters, parser).map_err(|error| Error::at("parameters", error))?;
    let mut server = VfioUserServer::bind(&arguments.socket, &world, nic)
        .map_err(|error| bind_error(&arguments.socket, &error))?;
    let mut link = Link::open(&arguments.link)?;
    let mut control = arguments
        .control
        .as_deref()
        .map(|path| Control::bind(path, &world, nic).map_err(|error| Error::file(path, &error)))
        .transpose()?;
    let interrupt = Interrupt::listen()?;
    output::note(&format!("serving at {}", arguments.socket.display()));

    let started = Instant::now();
    let mut counts = Counts::default();
    let mut last_busy = started;
    while !interrupt.came() {
        let served = server.serve(|notice| tell(&notice, &mut counts));
        let busy = world.poll_shadow_doorbells(nic) || served;
        let elapsed = started.elapsed();
        let due = Time::from_nanoseconds(elapsed.as_nanos() as u64);
        let mut arrived = 0;
        while arrived < FRAMES_AT_ONCE
            && let Some(frame) = link.receive()?
        {
            world.inject(nic, frame);
            arrived += 1;
        }
        if arguments.clock == Clock::Free {
            world.drain();
        }
        world.run_until(due);
        server.signal();
        for frame in world.take_sent(nic) {
            link.send(&frame)?;
            if let Some(control) = &mut control {
                control.keep(frame);
            }
        }
        // What a test asks for comes after what its driver has asked for before.
        let asked = !busy && control.as_mut().is_some_and(|control| control.serve(&world, nic));
        if arguments.once && counts.clients > 0 && !server.attached() {
            break;
        }
        if busy || asked || arrived > 0 {
            last_busy = Instant::now();
        } else if server.attached() && parameters.host.shadow_doorbells && last_busy.elapsed() < AWAKE {
            // The driver may want this core.
            std::thread::yield_now();
        } else if world.arm_shadow_doorbells(nic) {
            let until = world.next_event().map_or(Time::NEVER, |time| time.since(due));
            sleep(&server, &link, control.as_ref(), until)?;
        }
    }
    server.request_release();
    let LinkCounters { sent, received, lost, refused: malformed } = link.counters();
    link.close()?;
    if as_json {
        let Counts { clients, refused } = counts;
        return output::print_json(&json!({
            "clients": clients,
            "refused": refused,
            "link": { "sent": sent, "received": received, "lost": lost, "refused": malformed },
        }));
    }
    Ok(())
}

/// Why there is no socket, and what to do.
fn bind_error(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => Error::at(
            path.display(),
            "another process serves it, or it is a file that is no socket; choose another path",
        ),
        io::ErrorKind::InvalidInput => {
            Error::at(path.display(), "too long for a socket's path; choose one of at most 107 bytes")
        }
        _ => Error::at(path.display(), format_args!("a socket cannot be made there: {error}")),
    }
}

fn tell(notice: &Notice, counts: &mut Counts) {
    match notice {
        Notice::Attached => {
            counts.clients += 1;
            output::note("a client attached");
        }
        Notice::Gone(reason) => output::note(&format!("the client is gone: {reason}")),
        Notice::Refused(reason) => {
            counts.refused += 1;
            // One that asks for nonsense for ever is told of now and then.
            if counts.refused.is_power_of_two() {
                output::note(&format!("refused: {reason} ({} refused so far)", counts.refused));
            }
        }
    }
}

/// Sleeps until there is something to answer, or the NIC has something to do.
fn sleep(server: &VfioUserServer, link: &Link, control: Option<&Control>, until: Time) -> Result<()> {
    let span = Duration::from_nanos(until.picoseconds() / 1_000).min(SLEEP);
    let span = link.look_again().map_or(span, |soon| span.min(soon));
    let timeout = Timespec { tv_sec: 0, tv_nsec: span.as_nanos() as _ };
    let watch = |descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN);
    let mut watched = vec![watch(server.descriptor())];
    watched.extend(link.descriptor().map(watch));
    watched.extend(control.map(|control| watch(control.descriptor())));
    match poll(&mut watched, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Error::at("socket", error)),
    }
}
