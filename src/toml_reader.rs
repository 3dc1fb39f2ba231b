//! Reads a TOML document key by key. Every message names the file, the line and the key; a key that nobody
//! asked for is an error.

use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The text of a document, and the name that messages give it. The text may hold keys: it is zeroised.
pub(crate) struct Source {
    name: String,
    text: Zeroizing<String>,
}

impl Source {
    /// Reads a file; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Result<Source> {
        if path == Path::new("-") {
            let text = std::io::read_to_string(std::io::stdin());
            let name = "standard input";
            return Ok(Source::new(name, text.map_err(|error| Error::file(Path::new(name), &error))?));
        }
        let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, &error))?;
        Ok(Source::new(&path.display().to_string(), text))
    }

    /// A document from memory.
    pub(crate) fn new(name: &str, text: String) -> Source {
        Source { name: name.to_owned(), text: Zeroizing::new(text) }
    }

    /// The text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Reads the document with `read`, which takes the keys it knows.
    pub(crate) fn parse<T>(&self, read: impl FnOnce(&mut Table<'_>) -> Result<T>) -> Result<T> {
        let root = DeTable::parse(&self.text).map_err(|error| {
            let place = error.span().map_or(self.name.clone(), |span| self.place(span.start));
            Error::at(place, error.message())
        })?;
        let mut table = Table::new(self, root.get_ref(), String::new(), 0);
        let result = read(&mut table)?;
        table.finish()?;
        Ok(result)
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }

    fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.name, self.line(offset))
    }
}

/// A table whose keys are taken one by one.
pub(crate) struct Table<'a> {
    source: &'a Source,
    entries: &'a DeTable<'a>,
    path: String,
    offset: usize,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    fn new(source: &'a Source, entries: &'a DeTable<'a>, path: String, offset: usize) -> Table<'a> {
        Table { source, entries, path, offset, known: Vec::new() }
    }

    /// The value of a key, if the table has it.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let (spanned_key, value) = self.entries.get_key_value(key)?;
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Some(Item { source: self.source, value, path, offset: spanned_key.span().start })
    }

    /// The value of a key that must be there.
    pub(crate) fn require(&mut self, key: &'static str) -> Result<Item<'a>> {
        self.take(key).ok_or_else(|| {
            // A key that looks like the missing one is what is wrong.
            let meant = |typed: &&Spanned<DeString<'_>>| nearest(typed.get_ref(), &[key]).is_some();
            match self.entries.keys().find(meant) {
                Some(typed) => self.unknown(typed, Some(key)),
                None => self.error(format_args!("`{key}` is missing")),
            }
        })
    }

    /// An error about the table.
    pub(crate) fn error(&self, message: impl fmt::Display) -> Error {
        let place = self.source.place(self.offset);
        if self.path.is_empty() {
            Error::at(place, message)
        } else {
            Error::at(place, format_args!("{}: {message}", self.path))
        }
    }

    /// Where the table begins, as `file:line`.
    pub(crate) fn place(&self) -> String {
        self.source.place(self.offset)
    }

    /// Gives the table a better name in messages.
    pub(crate) fn rename(&mut self, path: String) {
        self.path = path;
    }

    /// Fails if there is a key that nobody asked for.
    pub(crate) fn finish(&self) -> Result<()> {
        let unknown = self
            .entries
            .keys()
            .filter(|key| !self.known.contains(&key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start);
        unknown.map_or(Ok(()), |key| Err(self.unknown(key, nearest(key.get_ref(), &self.known))))
    }

    fn unknown(&self, key: &Spanned<DeString<'_>>, near: Option<&str>) -> Error {
        let place = self.source.place(key.span().start);
        let within = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        let hint = match near {
            Some(near) => format!("; did you mean `{near}`?"),
            None => format!("; known are {}", self.known.join(", ")),
        };
        Error::at(place, format_args!("{within}unknown key `{}`{hint}", key.get_ref()))
    }
}

/// A value with the key it stands under.
pub(crate) struct Item<'a> {
    source: &'a Source,
    value: &'a Spanned<DeValue<'a>>,
    path: String,
    offset: usize,
}

impl<'a> Item<'a> {
    /// Where it stands, as `file:line`.
    pub(crate) fn place(&self) -> String {
        self.source.place(self.offset)
    }

    /// An error about it.
    pub(crate) fn error(&self, message: impl fmt::Display) -> Error {
        Error::at(self.place(), format_args!("{}: {message}", self.path))
    }

    /// "not supported yet", about it.
    pub(crate) fn not_supported(&self, what: impl fmt::Display) -> Error {
        self.error(format_args!("{what} is not supported yet"))
    }

    fn wrong(&self, wanted: &str) -> Error {
        self.error(format_args!("wants {wanted}, not {}", a(self.value.get_ref().type_str())))
    }

    /// Text.
    pub(crate) fn text(&self) -> Result<&'a str> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong("text"))
    }

    /// Whether it is text.
    pub(crate) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    /// Whether it is an array.
    pub(crate) fn is_array(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// true or false.
    pub(crate) fn boolean(&self) -> Result<bool> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// A number from `low` to `high`; 64-bit numbers may be written as "0x…" text.
    pub(crate) fn number(&self, low: u64, high: u64) -> Result<u64> {
        let number = match self.value.get_ref() {
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            DeValue::String(text) => {
                let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) else {
                    return Err(self.error(format_args!("wants a number, or text that begins with 0x")));
                };
                // from_str_radix would take a sign.
                if digits.starts_with('+') { None } else { u64::from_str_radix(digits, 16).ok() }
            }
            _ => return Err(self.wrong("a number")),
        };
        match number {
            Some(number) if (low..=high).contains(&number) => Ok(number),
            _ => Err(self.error(format_args!("wants a number from {low} to {high}"))),
        }
    }

    /// A share of a whole, from 0 to 1.
    pub(crate) fn share(&self) -> Result<f64> {
        let share = match self.value.get_ref() {
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            DeValue::Float(float) => float.as_str().parse().ok(),
            _ => return Err(self.wrong("a number")),
        };
        match share {
            Some(share) if (0.0..=1.0).contains(&share) => Ok(share),
            _ => Err(self.error("wants a number from 0 to 1")),
        }
    }

    /// One of several words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Result<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
            match nearest(text, &names) {
                Some(near) => self.error(format_args!("no such value `{text}`; did you mean `{near}`?")),
                None => self.error(format_args!("no such value `{text}`; known are {}", names.join(", "))),
            }
        })
    }

    /// Bytes written as hex digits. A message never repeats them.
    pub(crate) fn bytes(&self) -> Result<Zeroizing<Vec<u8>>> {
        let text = self.text()?;
        if let Some(at) = text.chars().position(|digit| !digit.is_ascii_hexdigit()) {
            return Err(self.error(format_args!("character {} is not a hex digit", at + 1)));
        }
        if text.len() % 2 == 1 {
            return Err(self.error(format_args!("{} hex digits are not whole bytes", text.len())));
        }
        hex::decode(text).map(Zeroizing::new).map_err(|_| self.error("wants hex digits"))
    }

    /// Exactly `N` bytes written as hex digits.
    pub(crate) fn array_of_bytes<const N: usize>(&self) -> Result<Zeroizing<[u8; N]>> {
        let bytes = self.bytes()?;
        let array: [u8; N] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| self.error(format_args!("{} bytes, wants {N}", bytes.len())))?;
        Ok(Zeroizing::new(array))
    }

    /// A table.
    pub(crate) fn table(&self) -> Result<Table<'a>> {
        let entries = self.value.get_ref().as_table().ok_or_else(|| self.wrong("a table"))?;
        Ok(Table::new(self.source, entries, self.path.clone(), self.offset))
    }

    /// The items of an array. Their paths are numbered from 1.
    pub(crate) fn items(&self) -> Result<Vec<Item<'a>>> {
        let array = self.value.get_ref().as_array().ok_or_else(|| self.wrong("an array"))?;
        let item = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| Item {
            source: self.source,
            value,
            path: format!("{} {}", self.path, index + 1),
            offset: value.span().start,
        };
        Ok(array.iter().enumerate().map(item).collect())
    }
}

fn a(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// The word that was probably meant.
pub(crate) fn nearest<'a>(typed: &str, words: &[&'a str]) -> Option<&'a str> {
    let (word, distance) =
        words.iter().map(|word| (*word, edit_distance(typed, word))).min_by_key(|(_, distance)| *distance)?;
    (distance <= 1 + typed.len() / 4).then_some(word)
}

/// How many characters must be put in, left out or changed.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, have) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, want) in to.iter().enumerate() {
            let changed = diagonal + usize::from(have != *want);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_in_every_notation_and_range() {
        let source = Source::new(
            "t",
            "a = 18446744073709551615\nb = \"0xffffffffffffffff\"\nc = 0x10\nd = -1\ne = \"12\"\nf = 1.5"
                .to_owned(),
        );
        let number = |key: &'static str| {
            source.parse(|table| {
                let number = table.take(key).map(|item| item.number(1, u64::MAX));
                for other in ["a", "b", "c", "d", "e", "f"] {
                    table.take(other);
                }
                number.transpose()
            })
        };
        for (key, value) in [("a", u64::MAX), ("b", u64::MAX), ("c", 16)] {
            assert_eq!(number(key).ok().flatten(), Some(value), "{key}");
        }
        for (key, line) in [("d", "t:4"), ("e", "t:5"), ("f", "t:6")] {
            assert_eq!(number(key).unwrap_err().place(), Some(line), "{key}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let source = Source::new("t", "[one]\nlenght = 3\n".to_owned());
        let error = source
            .parse(|root| {
                let mut one = root.require("one")?.table()?;
                one.take("length");
                one.finish()
            })
            .unwrap_err();
        assert_eq!(error.to_string(), "t:2: one: unknown key `lenght`; did you mean `length`?");
    }
}
