//! The table of knobs in docs/timing.md is what hwmodel/src/parameters.rs says.

use std::path::Path;

use cryptonic_hwmodel::Parameters;

const SOURCE: &str = include_str!("../../hwmodel/src/parameters.rs");
const BEGIN: &str = "<!-- knobs: begin -->\n";
const END: &str = "<!-- knobs: end -->";
const RENEW: &str = "CRYPTONIC_RENEW=1 cargo test --test timing knobs";

/// What a knob's name says of its unit.
fn unit(knob: &str) -> &'static str {
    for (suffix, unit) in [
        ("_ns", "ns"),
        ("_bytes", "bytes"),
        ("_hz", "Hz"),
        ("_gbps", "Gb/s"),
        ("_cycles", "cycles"),
        ("_packets", "packets"),
    ] {
        if knob.ends_with(suffix) {
            return unit;
        }
    }
    "number"
}

/// The doc comment of each field of each `…Parameters` structure, as (structure, field, comment).
fn comments() -> Vec<(String, String, String)> {
    let (mut all, mut comment, mut structure) = (vec![], String::new(), String::new());
    for line in SOURCE.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            comment += if comment.is_empty() { "" } else { " " };
            comment += text;
            continue;
        }
        if let Some(name) = line.strip_prefix("pub struct ") {
            structure = name.split_whitespace().next().unwrap_or_default().to_owned();
        } else if let Some((field, _)) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")) {
            all.push((structure.clone(), field.to_owned(), comment.clone()));
        }
        if !line.starts_with('#') {
            comment.clear();
        }
    }
    all
}

fn knob_table() -> String {
    let values =
        |preset| toml::Table::try_from(Parameters::preset(preset).expect("a preset")).expect("a table");
    let presets = Parameters::PRESETS.map(values);
    let comments = comments();
    let mut text =
        "| knob | unit | 100g (default) | 25g | 200g | 400g | meaning |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    let [slow, default, fast, fastest] = &presets;
    for (section, knobs) in default {
        let structure = comments.iter().find(|(_, field, _)| field == section);
        assert!(structure.is_some(), "section {section} has a comment");
        for (knob, value) in knobs.as_table().expect("a section") {
            let prefix = &section[..section.len().min(5)];
            let (.., comment) = comments
                .iter()
                .find(|(structure, field, _)| field == knob && structure.to_lowercase().starts_with(prefix))
                .unwrap_or_else(|| panic!("{section}.{knob} has a comment"));
            let other = |preset: &toml::Table| {
                let other = &preset[section][knob];
                if other == value { String::new() } else { other.to_string() }
            };
            text += &format!(
                "| `{section}.{knob}` | {} | {value} | {} | {} | {} | {comment} |\n",
                unit(knob),
                other(slow),
                other(fast),
                other(fastest)
            );
        }
    }
    text
}

#[test]
fn the_table_of_knobs_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/timing.md");
    let page = std::fs::read_to_string(&path).expect("docs/timing.md");
    let begin = page.find(BEGIN).expect("a beginning of the table") + BEGIN.len();
    let end = page.find(END).expect("an end of the table");
    let table = knob_table();
    if page[begin..end] == table {
        return;
    }
    if std::env::var_os("CRYPTONIC_RENEW").is_some() {
        let renewed = format!("{}{table}{}", &page[..begin], &page[end..]);
        std::fs::write(&path, renewed).expect("written");
        return;
    }
    panic!("the table of knobs in docs/timing.md is stale: {RENEW}");
}
