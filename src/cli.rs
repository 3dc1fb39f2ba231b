//! The arguments, and what each command line leads to.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use serde_json::json;

use crate::commands;
use crate::commands::run::ModelArguments;
use crate::error::{Error, Exit, Result};
use crate::output::{self, Paint};

/// An inline-crypto SmartNIC on your desk: a model of the NIC, its driver, its contract.
#[derive(Debug, Parser)]
#[command(
    name = "cryptonic",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Start with `cryptonic run`. Exit status: 0 success, 1 the work found a failure, 2 bad usage, \
                  input or environment, 130 interrupted."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON object on standard output and nothing else there; errors too
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run protected traffic between two NICs, and compare every packet
    Run(commands::run::RunArguments),
    /// Push a capture's packets through driver and NIC, and write what comes out
    Pcap(commands::pcap::PcapArguments),
    /// Be an IPsec or PSP gateway: the NIC between two links
    Gateway(commands::gateway::GatewayArguments),
    /// Measure bare AES-GCM and the whole path on the same packets
    Bench(commands::bench::BenchArguments),
    /// Run the RTL against the model in lockstep
    Cosim(commands::cosim::CosimArguments),
    /// Answer a named question with tables and plots
    #[command(subcommand)]
    Experiment(commands::experiment::Experiment),
    /// Serve the model as a PCI device over a vfio-user socket
    #[cfg(target_os = "linux")]
    Serve(commands::serve::ServeArguments),
    /// Show what a device is and what it can do
    Info(ModelArguments),
    /// Show the counters of a device
    Stats(commands::info::StatsArguments),
    /// Show the PCI functions that are Cryptonic NICs, and what is to be done before they can be used
    List(commands::bind::ListArguments),
    /// Bind a PCI function to vfio-pci, so that a process can drive it
    Bind(commands::bind::BindArguments),
    /// Take a PCI function from vfio-pci, and give it to the driver that the kernel has for it
    Unbind(commands::bind::UnbindArguments),
    /// Check SA files, and make new ones
    #[command(subcommand)]
    Sa(SaCommand),
    /// Show the register map, descriptors and status numbers
    Regs {
        /// Registers, blocks or statuses with this in their name, or at this offset or number
        name: Option<String>,
        /// How to print it
        #[arg(long, value_enum, default_value = "text")]
        format: commands::regs::Format,
    },
    /// Print the completion script of a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff
    Man,
}

#[derive(Debug, Subcommand)]
enum SaCommand {
    /// Check an SA file and say what it holds
    Check {
        /// The file; `-` is standard input
        file: PathBuf,
    },
    /// Write a commented SA file with fresh random keys
    New {
        /// For PSP instead of ESP
        #[arg(long)]
        psp: bool,
        /// Write it here, readable by its owner alone, instead of to standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let as_json = arguments.iter().skip(1).take_while(|text| *text != "--").any(|text| text == "--json");
    let outcome = match Arguments::try_parse_from(&arguments) {
        Ok(arguments) => run(arguments),
        Err(error) => usage(&error, as_json),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, as_json);
            ExitCode::from(error.exit().code())
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let json = arguments.json;
    match arguments.command {
        Command::Run(arguments) => commands::run::run(&arguments, json),
        Command::Pcap(arguments) => commands::pcap::run(&arguments, json),
        Command::Gateway(arguments) => commands::gateway::run(&arguments, json),
        Command::Bench(arguments) => commands::bench::run(&arguments, json),
        Command::Cosim(arguments) => commands::cosim::run(&arguments, json),
        Command::Experiment(experiment) => commands::experiment::run(&experiment, json),
        #[cfg(target_os = "linux")]
        Command::Serve(arguments) => commands::serve::run(&arguments, json),
        Command::Info(arguments) => commands::info::info(&arguments, json),
        Command::Stats(arguments) => commands::info::stats(&arguments, json),
        Command::List(arguments) => commands::bind::list(&arguments, json),
        Command::Bind(arguments) => commands::bind::bind(&arguments, json),
        Command::Unbind(arguments) => commands::bind::unbind(&arguments, json),
        Command::Sa(SaCommand::Check { file }) => commands::sa::check(&file, json),
        Command::Sa(SaCommand::New { psp, out }) => commands::sa::new(psp, out.as_deref(), json),
        Command::Regs { name, format } => commands::regs::run(name.as_deref(), format, json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "cryptonic", &mut script);
            text("script", script, json)
        }
        Command::Man => text("page", manual_pages()?, json),
    }
}

/// The manual page of the program, followed by those of its commands.
fn manual_pages() -> Result<Vec<u8>> {
    let mut command = Arguments::command();
    command.build();
    let mut page = Vec::new();
    let mut render = |command: &clap::Command| {
        clap_mangen::Man::new(command.clone()).render(&mut page).map_err(Error::input)
    };
    render(&command)?;
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        render(command)?;
    }
    Ok(page)
}

fn text(name: &str, bytes: Vec<u8>, json: bool) -> Result<()> {
    let text = String::from_utf8(bytes).map_err(Error::input)?;
    if json { output::print_json(&json!({ name: text })) } else { output::print(&text) }
}

/// What clap says of the arguments: help and version are no errors.
fn usage(error: &clap::Error, as_json: bool) -> Result<()> {
    let rendered = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if as_json => {
            text("text", rendered.to_string().into(), true)
        }
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            error.print().map_err(|error| Error::file("standard output".as_ref(), &error))
        }
        _ => {
            let text = rendered.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            if as_json {
                let message = text.split("\n\n").next().unwrap_or(text).replace('\n', " ");
                return Err(Error::at("command line", message));
            }
            Err(Error::input(text))
        }
    }
}

fn report(error: &Error, as_json: bool) {
    if error.exit() == Exit::ClosedPipe {
        return;
    }
    if as_json {
        // A partial report that is already out stays the only object.
        if !error.is_reported() {
            let _ = output::print_json(&json!({ "error": error.message(), "where": error.place() }));
        }
        return;
    }
    output::note(&format!("{} {error}", Paint::for_stderr().bad("error:")));
}
