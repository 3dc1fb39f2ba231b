//! `sa check` and `sa new`.

use std::fmt::Write;
use std::path::Path;

use cryptonic_regs::admin::Mode;
use serde_json::json;

use crate::error::{Error, Result};
use crate::output::{self, OutputFile, Paint};
use crate::sa_file::{DefaultAction, Protocol, Sa, SaFile, template};

/// Checks a file and says what it holds.
pub(crate) fn check(path: &Path, as_json: bool) -> Result<()> {
    let file = SaFile::read(path)?;
    if as_json {
        let sas: Vec<_> = file.sas.iter().map(as_json_object).collect();
        let default = match file.default {
            DefaultAction::Pass => "pass",
            DefaultAction::Drop => "drop",
        };
        return output::print_json(&json!({
            "file": path.display().to_string(),
            "default": default,
            "psp_receive": file.psp.as_ref().is_some_and(|psp| psp.receive),
            "sas": sas,
            "notes": file.notes,
        }));
    }
    let paint = Paint::for_stdout();
    let mut text = String::new();
    for sa in &file.sas {
        let _ = writeln!(
            text,
            "{:<12} {:<3} {:<4} {:#010x}  {:<22} {}",
            sa.name,
            sa.direction.name(),
            sa.protocol.name(),
            sa.spi,
            summary(sa),
            sa.selector
        );
    }
    if let Some(psp) = &file.psp {
        let receive = if psp.receive { "PSP packets are opened" } else { "PSP packets are not opened" };
        let keys = if psp.device_keys.is_some() {
            "with the device keys given"
        } else {
            "with keys of the device's own"
        };
        let _ = writeln!(text, "{:<12} {receive} {keys}", "[psp]");
    }
    for note in &file.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let rest = match file.default {
        DefaultAction::Pass => "everything else passes in clear",
        DefaultAction::Drop => "everything else is dropped",
    };
    let _ = writeln!(text, "{}: {} SAs; {rest}", paint.good("good"), file.sas.len());
    output::print(&text)
}

fn summary(sa: &Sa) -> String {
    match &sa.protocol {
        Protocol::Esp(esp) => {
            let cipher = esp.cipher.name().replace('_', "-");
            let esn = if esp.esn { " esn" } else { "" };
            format!("{} {cipher}{esn}", esp.mode.name())
        }
        Protocol::Psp(psp) => format!("version {} offset {}", psp.version, psp.crypt_offset),
    }
}

fn as_json_object(sa: &Sa) -> serde_json::Value {
    let mut object = json!({
        "name": sa.name,
        "direction": sa.direction.name(),
        "protocol": sa.protocol.name(),
        "spi": sa.spi,
        "selector": {
            "src": sa.selector.source.map(|prefix| prefix.to_string()),
            "dst": sa.selector.destination.map(|prefix| prefix.to_string()),
        },
    });
    match &sa.protocol {
        Protocol::Esp(esp) => {
            object["mode"] = esp.mode.name().into();
            object["cipher"] = esp.cipher.name().replace('_', "-").into();
            object["esn"] = esp.esn.into();
            object["sequence"] = esp.sequence.into();
            object["replay_window"] = esp.replay_window.into();
            if let Some(tunnel) = &esp.tunnel {
                object["tunnel"] =
                    json!({ "src": tunnel.source.to_string(), "dst": tunnel.destination.to_string() });
            }
        }
        Protocol::Psp(psp) => {
            object["mode"] = Mode::Transport.name().into();
            object["version"] = psp.version.into();
            object["crypt_offset"] = psp.crypt_offset.into();
            object["src_port"] = psp.source_port_policy.name().into();
        }
    }
    object
}

/// Writes a template with fresh keys.
pub(crate) fn new(psp: bool, out: Option<&Path>, as_json: bool) -> Result<()> {
    let text = if psp { template::psp()? } else { template::esp()? };
    match out {
        Some(path) if path.exists() => {
            Err(Error::at(path.display(), "exists; its keys may be in use, so it is not replaced"))
        }
        Some(path) => {
            OutputFile::write_secret(path, text.as_bytes())?;
            if as_json {
                return output::print_json(&json!({ "file": path.display().to_string() }));
            }
            output::note(&format!("wrote {}; try `cryptonic sa check {0}`", path.display()));
            Ok(())
        }
        None if as_json => output::print_json(&json!({ "text": *text })),
        None => output::print(&text),
    }
}
