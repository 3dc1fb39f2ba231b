//! Search of this process's own memory for secrets, by way of /proc/self/mem: how tests learn whether a key is left
//! somewhere. What is looked for is given inverted, so that the search does not find its own needle.

use std::fs::{File, read_to_string};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// Bytes that are read at a time.
const STEP: usize = 1 << 16;

/// A mapping with such bytes, and where in it they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The mapping's line of /proc/self/maps.
    pub mapping: String,
    /// The address.
    pub address: u64,
}

/// How many places of this process's own memory hold the bytes; memory that is shared with others is not looked at.
pub fn count(inverted: &[u8]) -> io::Result<usize> {
    Ok(search(inverted, |mapping| !mapping.contains("memfd"))?.len())
}

/// Places in writable mappings that hold the bytes.
pub fn search(inverted: &[u8], is_searched: impl Fn(&str) -> bool) -> io::Result<Vec<Found>> {
    /// One search at a time: the window of another would show what passes through it.
    static SEARCHING: Mutex<()> = Mutex::new(());
    let mut found = Vec::new();
    let Some((first, rest)) = inverted.split_first() else { return Ok(found) };
    let _alone = SEARCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let memory = File::open("/proc/self/mem")?;
    let mut window = vec![0_u8; STEP + rest.len()];
    let own = window.as_ptr() as u64;
    let own = own..own + window.len() as u64;
    for mapping in read_to_string("/proc/self/maps")?.lines() {
        let Some((start, end)) = bounds(mapping) else { continue };
        if mapping.contains("[vvar") || !is_searched(mapping) {
            continue;
        }
        for from in (start..end).step_by(STEP) {
            let length = window.len().min((end - from) as usize);
            let Some(window) = window.get_mut(..length) else { continue };
            // What cannot be read, such as a guard page, holds nothing.
            if memory.read_exact_at(window, from).is_err() {
                continue;
            }
            for (at, bytes) in window.windows(inverted.len()).enumerate().take(STEP) {
                let address = from + at as u64;
                if bytes.first() == Some(&!*first)
                    && bytes.iter().zip(inverted).all(|(byte, inverted)| *byte == !*inverted)
                    && !own.contains(&address)
                {
                    found.push(Found { mapping: mapping.to_owned(), address });
                }
            }
        }
    }
    window.fill(0);
    std::hint::black_box(&window);
    Ok(found)
}

/// Where a mapping that can be written begins and ends.
fn bounds(mapping: &str) -> Option<(u64, u64)> {
    let mut fields = mapping.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    fields.next().filter(|access| access.starts_with("rw"))?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}
