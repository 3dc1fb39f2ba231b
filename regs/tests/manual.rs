//! The manual: every link leads somewhere, and every picture shows the fields that the table under it lists.

use std::collections::BTreeSet;

use cryptonic_regs::export;

fn manual() -> String {
    let mut text = String::new();
    export::manual(&mut text).expect("a string takes everything");
    text
}

/// The anchors of the headings, as forges make them.
fn anchors(text: &str) -> Vec<String> {
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| -> String {
        let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " _-".contains(*letter));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_to_one_heading() {
    let text = manual();
    let anchors = anchors(&text);
    let unique: BTreeSet<&str> = anchors.iter().map(String::as_str).collect();
    assert_eq!(unique.len(), anchors.len(), "two headings have one anchor");
    let links: Vec<&str> = text.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > unique.len(), "the contents list all headings, and fields refer to some again");
    for link in links {
        assert!(unique.contains(link), "#{link} leads nowhere");
    }
}

#[test]
fn no_reference_of_a_comment_is_left_as_it_was_written() {
    assert!(!manual().contains("[`crate::") && !manual().contains("`]\n") && !manual().contains("`] "));
}

#[test]
fn a_field_names_its_numbers_with_a_link() {
    let text = manual();
    for (field, wanted) in [
        ("| `security` ", "[Security](#security)"),
        ("| `cipher` ", "[Cipher](#cipher)"),
        ("| `status` ", "[Status](#status)"),
        ("| `outcome` ", "[Outcome](#outcome)"),
        ("| `opcode` ", "[Opcode](#opcode)"),
    ] {
        assert!(text.lines().any(|line| line.contains(field) && line.contains(wanted)), "{field} {wanted}");
    }
}

/// The lines of each picture, and the part of the manual from it to the next heading.
fn pictures(text: &str) -> Vec<(&str, Vec<&str>, &str)> {
    let sections = text.split("\n### ").flat_map(|part| part.split("\n#### "));
    sections
        .filter_map(|section| {
            let (title, rest) = section.split_once('\n')?;
            let (before, rest) = rest.split_once("```text\n")?;
            let (picture, after) = rest.split_once("```\n")?;
            let bits = picture.lines().nth(1)?.trim_start().starts_with("1 0 9 8");
            (bits && !before.contains("| bits")).then(|| (title, picture.lines().collect(), after))
        })
        .collect()
}

/// The rows of a picture that hold bits: the characters between their outer edges.
fn rows<'a>(picture: &[&'a str]) -> Vec<&'a [u8]> {
    let framed =
        picture.iter().filter(|line| line.get(5..6) == Some("|")).map(|line| &line.as_bytes()[5..70]);
    framed.collect()
}

#[test]
fn pictures_have_an_edge_where_a_field_of_the_table_begins_and_ends() {
    let text = manual();
    let (mut seen, mut fields) = (0, 0);
    for (title, picture, after) in pictures(&text) {
        let rows = rows(&picture);
        seen += 1;
        // Which row a table's bits 31:0 are: that of its word, which a record names on its right.
        let mut row = 0;
        for line in after.lines() {
            if let Some(word) = line.strip_prefix("Bytes ").and_then(|rest| rest.split('`').nth(1)) {
                let named = |line: &str| line.ends_with(&format!("| {word}"));
                if let Some(found) =
                    picture.iter().filter(|line| line.get(5..6) == Some("|")).position(|line| named(line))
                {
                    row = found;
                }
            }
            let mut cells = line.split('|').map(str::trim);
            let Some(bits) =
                cells.nth(1).filter(|cell| cell.starts_with(|letter: char| letter.is_ascii_digit()))
            else {
                continue;
            };
            let Some(name) = cells.next().map(|cell| cell.split('`').nth(1).unwrap_or_default()) else {
                continue;
            };
            let (high, low) = bits.split_once(':').unwrap_or((bits, bits));
            let (high, low): (usize, usize) =
                (high.trim().parse().expect("a bit"), low.trim().parse().expect("a bit"));
            fields += 1;
            for (bit, column) in [(high, 2 * (31 - high % 32)), (low, 2 * (32 - low % 32))] {
                assert_eq!(rows[row + bit / 32][column], b'|', "{title}: {name} at bit {bit}");
            }
            let inside = &rows[row + low / 32][2 * (31 - high.min(low | 31) % 32) + 1..2 * (32 - low % 32)];
            assert!(!inside.contains(&b'|'), "{title}: an edge inside {name}");
            match name {
                "reserved" => {
                    assert!(inside.iter().all(|letter| *letter == b'.'), "{title}: reserved bits are dots")
                }
                _ => {
                    let shown = String::from_utf8_lossy(inside);
                    let shown = shown.trim_matches(|letter| " #".contains(letter));
                    let legend = picture
                        .iter()
                        .any(|line| format!("{line}   ").contains(&format!(" {shown} {name}   ")));
                    assert!(shown == name || legend, "{title}: {name} is shown as {shown}");
                }
            }
        }
    }
    let with_fields = text.split("\n#").filter(|section| section.contains("| bits  |")).count();
    assert!(
        seen >= with_fields && fields > 200,
        "{seen} pictures, {with_fields} with fields, {fields} fields"
    );
}

#[test]
fn secret_words_are_marked_in_their_pictures() {
    let text = manual();
    for (title, name) in [
        ("SaParameters", " salt "),
        ("TransmitKeyDescriptor", " key_0 to key_3 "),
        ("PspAllocation", " key_0 to key_3 "),
    ] {
        let (_, picture, _) =
            pictures(&text).into_iter().find(|(found, ..)| *found == title).expect("a picture");
        assert!(picture.iter().any(|line| line.contains(&format!("##{name}##"))), "{title}");
    }
}

#[test]
fn pictures_fit_a_terminal() {
    let mut inside = false;
    for line in manual().lines() {
        inside = line.starts_with("```text") || inside && !line.starts_with("```");
        assert!(!inside || line.len() <= 84, "{line}");
        assert_eq!(line, line.trim_end(), "blanks at the end of a line");
    }
}
