//! Archives by the content of what they are made of, under the target directory: check, clippy, test, debug and
//! release builds share them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

/// How many versions of one archive are kept.
const KEPT: usize = 4;

/// The cache, locked while this lives: a second build waits for the first and then finds its work done.
pub struct Cache {
    folder: PathBuf,
    _lock: File,
}

impl Cache {
    /// Opens the cache of the target directory that `out_dir` is in.
    pub fn open(out_dir: &Path) -> io::Result<Self> {
        let folder = target_directory(out_dir).join("verilated");
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        // Where a file system has no locks, the rename below still keeps entries whole.
        let _ = lock.lock();
        Ok(Self { folder, _lock: lock })
    }

    /// The folder of `name` for this key, made by `make` in a temporary folder if it is not there yet.
    pub fn entry<E>(
        &self,
        name: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E>
    where
        E: From<io::Error>,
    {
        let entry = self.folder.join(format!("{name}-{key}"));
        if entry.is_dir() {
            return Ok(entry);
        }
        let temporary = self.folder.join(format!(".{name}-{}", std::process::id()));
        if temporary.exists() {
            fs::remove_dir_all(&temporary)?;
        }
        fs::create_dir(&temporary)?;
        let made = make(&temporary);
        if made.is_ok()
            && let Err(error) = fs::rename(&temporary, &entry)
            && !entry.is_dir()
        {
            return Err(error.into());
        }
        let _ = fs::remove_dir_all(&temporary);
        made?;
        self.forget_oldest(name);
        Ok(entry)
    }

    /// Keeps the newest entries of a name. Nothing links from here (archives are copied out), so nothing breaks.
    fn forget_oldest(&self, name: &str) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut of_name: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let file_name = entry.file_name();
                let (entry_name, _) = file_name.to_str()?.rsplit_once('-')?;
                (entry_name == name).then_some(())?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        of_name.sort_by(|a, b| b.cmp(a));
        for (_, path) in of_name.into_iter().skip(KEPT) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// The key of content: 128 bits of SHA-256 in hexadecimal. Parts cannot run into each other.
pub fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Cargo marks its target directory; where it did not, `OUT_DIR` is TARGET/PROFILE/build/PACKAGE/out.
fn target_directory(out_dir: &Path) -> &Path {
    out_dir
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .or_else(|| out_dir.ancestors().nth(4))
        .unwrap_or(out_dir)
}
