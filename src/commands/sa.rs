//! `sa check` and `sa new`.

use std::fmt::Write;
use std::path::Path;

use cryptonic_driver::SourcePort;
use serde_json::json;

use crate::error::{Error, Result};
use crate::output::{self, OutputFile, Paint};
use crate::sa_file::{DefaultAction, Protocol, Psp, Receive, Sa, SaFile, SaLifetime, template};

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
            "psp_receive": file.psp.as_ref().is_some_and(Psp::receives),
            "sas": sas,
            "notes": file.notes,
        }));
    }
    let paint = Paint::for_stdout();
    let mut text = String::new();
    for sa in &file.sas {
        let _ = writeln!(
            text,
            "{:<12} {:<3} {:<4} {:#010x}  {:<30} {}{}",
            sa.name,
            sa.direction.name(),
            sa.protocol.name(),
            sa.spi,
            summary(sa),
            sa.selector,
            sa.lifetime.map_or_else(String::new, |lifetime| format!(", {lifetime}"))
        );
    }
    if let Some(psp) = &file.psp {
        let receive = match psp.receive {
            Receive::All => "PSP packets are opened".to_owned(),
            Receive::These(0) => "PSP packets are not opened".to_owned(),
            Receive::These(mask) => {
                let versions: Vec<String> = (0..4)
                    .filter(|version| mask & 1 << version != 0)
                    .map(|version| version.to_string())
                    .collect();
                format!("PSP packets of version {} are opened", versions.join(", "))
            }
        };
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
    let mode = sa.mode().name();
    match &sa.protocol {
        Protocol::Esp(esp) => {
            let mut text = format!("{mode} {}", esp.cipher.name().replace('_', "-"));
            for (is, what) in [
                (esp.icv_bytes != 16, format!(" icv {}", esp.icv_bytes)),
                (esp.implicit_iv, " implicit iv".to_owned()),
                (esp.esn, " esn".to_owned()),
                (esp.encapsulation.is_some(), " in udp".to_owned()),
            ] {
                if is {
                    text.push_str(&what);
                }
            }
            text
        }
        Protocol::Psp(psp) => {
            let cookie = if psp.virtualization_cookie.is_some() { " cookie" } else { "" };
            format!("{mode} version {} offset {}{cookie}", psp.version, psp.crypt_offset)
        }
    }
}

fn as_json_object(sa: &Sa) -> serde_json::Value {
    let mut object = json!({
        "name": sa.name,
        "direction": sa.direction.name(),
        "protocol": sa.protocol.name(),
        "mode": sa.mode().name(),
        "spi": sa.spi,
        "selector": {
            "src": sa.selector.source.map(|prefix| prefix.to_string()),
            "dst": sa.selector.destination.map(|prefix| prefix.to_string()),
            "protocol": sa.selector.protocol,
        },
    });
    if let Some(SaLifetime { limits, used }) = sa.lifetime {
        let (soft, hard) = (limits.soft, limits.hard);
        object["lifetime"] = json!({ "unit": limits.kind.name(), "soft": soft, "hard": hard, "used": used });
    }
    let outer = match &sa.protocol {
        Protocol::Esp(esp) => {
            object["cipher"] = esp.cipher.name().replace('_', "-").into();
            object["icv"] = esp.icv_bytes.into();
            object["implicit_iv"] = esp.implicit_iv.into();
            object["esn"] = esp.esn.into();
            object["sequence"] = esp.sequence.into();
            object["replay_window"] = esp.replay_window.into();
            object["tfc"] = esp.tfc_bytes.into();
            if let Some(udp) = &esp.encapsulation {
                object["udp_encap"] =
                    json!({ "src_port": udp.source_port, "dst_port": udp.destination_port });
            }
            esp.outer
        }
        Protocol::Psp(psp) => {
            object["version"] = psp.version.into();
            object["crypt_offset"] = psp.crypt_offset.into();
            object["src_port"] = match psp.source_port {
                SourcePort::Entropy => "entropy".into(),
                SourcePort::PortsXor => "ports-xor".into(),
                SourcePort::Table => "table".into(),
                SourcePort::Fixed(port) => port.into(),
            };
            object["cookie"] = psp.virtualization_cookie.is_some().into();
            psp.outer
        }
    };
    if let Some(outer) = outer {
        object["tunnel"] = json!({ "src": outer.source.to_string(), "dst": outer.destination.to_string() });
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
