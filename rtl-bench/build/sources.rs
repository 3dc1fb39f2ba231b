//! The SystemVerilog files of a unit. One module or package a file, which has its name: so a file needs those
//! whose names it mentions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Files by the name of their module or package.
pub type Sources = BTreeMap<String, String>;

/// Reads every `.sv` file of the folder.
pub fn read(folder: &Path) -> Result<Sources, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut sources = Sources::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "sv")
            && let Some(stem) = path.file_stem()
        {
            let text =
                std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            sources.insert(stem.to_string_lossy().into_owned(), text);
        }
    }
    Ok(sources)
}

/// The names of the files that `top` needs, itself included, each behind those that it needs.
pub fn needed(sources: &Sources, top: &str) -> Vec<String> {
    let mut order = Vec::new();
    visit(sources, top, &mut BTreeSet::new(), &mut order);
    order
}

fn visit(sources: &Sources, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<String>) {
    let Some(text) = sources.get(name) else { return };
    if !seen.insert(name.to_owned()) {
        return;
    }
    let code = without_comments(text);
    for word in code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        visit(sources, word, seen, order);
    }
    order.push(name.to_owned());
}

fn without_comments(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    loop {
        let Some(start) = rest.find("//").into_iter().chain(rest.find("/*")).min() else {
            code.push_str(rest);
            return code;
        };
        let (before, comment) = rest.split_at(start);
        code.push_str(before);
        code.push(' ');
        let end = if comment.starts_with("//") {
            comment.find('\n')
        } else {
            comment.find("*/").map(|end| end + 2)
        };
        rest = end.map_or("", |end| &comment[end..]);
    }
}
