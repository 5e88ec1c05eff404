//! Where usage events wait on disk while nobody else takes them.
//!
//! A line of JSON an event, written through to the disk before it counts as safe, in parts of about a
//! megabyte that are deleted once they were delivered. The folder survives the process; whoever finds it
//! next delivers what is in it, and several processes may share it. An event may be delivered twice on the
//! way (a process that ends between delivering and deleting), which its id makes harmless. Never loses a
//! line that it cannot read, and never grows without a bound.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::domain::usage::UsageEvent;

mod part;

pub use part::{Lines, Part};

/// Small enough that what is delivered again after a crash is little, and that a part is gone soon.
const PART_BYTES: u64 = 1024 * 1024;
/// For about 400,000 events. What an instance on Azure has for temporary files is shared with others.
pub const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Events are appended here.
const WAITING: &str = "waiting.jsonl";
/// How the names of parts begin that are complete. The rest sorts by time.
const PART: &str = "taken";
/// What no destination will ever take, for a person to look at.
const REJECTED: &str = "rejected.jsonl";

/// A folder of waiting events.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
    max_bytes: u64,
}

/// Events are not on the disk.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    #[error("the spool is full: it has {max_bytes} bytes")]
    Full { max_bytes: u64 },
    #[error("the spool cannot be written: {0}")]
    Disk(#[from] io::Error),
}

impl Spool {
    pub fn new(data_dir: &Path) -> Self {
        Self::of_at_most(data_dir, MAX_BYTES)
    }

    /// One that is full with so many bytes.
    pub fn of_at_most(data_dir: &Path, max_bytes: u64) -> Self {
        Self { folder: data_dir.join("spool"), max_bytes }
    }

    /// Writes events, and returns once they are on the disk.
    ///
    /// # Errors
    /// When they are not: then none of them will be found here.
    pub fn keep(&self, events: &[UsageEvent]) -> Result<(), NotKept> {
        std::fs::create_dir_all(&self.folder)?;
        let lines = lines(events)?;
        let _lock = self.lock()?;
        let waiting = self.folder.join(WAITING);
        let bytes = lines.len() as u64;
        if self.bytes()? + bytes > self.max_bytes {
            return Err(NotKept::Full { max_bytes: self.max_bytes });
        }
        let before = std::fs::metadata(&waiting).map_or(0, |metadata| metadata.len());
        if before > 0 && before + bytes > PART_BYTES {
            self.complete(&waiting)?;
        }
        self.append(&waiting, &lines)?;
        Ok(())
    }

    /// Puts lines aside that will not be delivered, with whatever they are.
    ///
    /// # Errors
    /// When they are not on the disk.
    pub fn put_aside(&self, lines: &[Vec<u8>]) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let mut all = vec![b'\n'];
        for line in lines {
            all.extend_from_slice(line);
            all.push(b'\n');
        }
        let _lock = self.lock()?;
        self.append(&self.folder.join(REJECTED), &all)
    }

    /// The same for events.
    ///
    /// # Errors
    /// When they are not on the disk.
    pub fn reject(&self, events: &[UsageEvent]) -> io::Result<()> {
        let lines = events.iter().map(serde_json::to_vec).collect::<Result<Vec<_>, _>>()?;
        self.put_aside(&lines)
    }

    /// The oldest part that nobody is delivering, but for those that are `passed_over`. It is found again
    /// until it is [`Part::delivered`].
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn oldest(&self, passed_over: &BTreeSet<PathBuf>) -> io::Result<Option<Part>> {
        let next = |parts: BTreeSet<PathBuf>| {
            let mut parts = parts.into_iter().filter(|part| !passed_over.contains(part));
            parts.find_map(|path| free(&path).transpose().map(|file| Part::open(path, file)))
        };
        if !self.folder.exists() {
            return Ok(None);
        }
        if let Some(part) = next(self.parts()?) {
            return Ok(Some(part));
        }
        {
            let _lock = self.lock()?;
            let waiting = self.folder.join(WAITING);
            if !waiting.exists() {
                return Ok(None);
            }
            self.complete(&waiting)?;
        }
        Ok(next(self.parts()?))
    }

    /// In the order of their age.
    fn parts(&self) -> io::Result<BTreeSet<PathBuf>> {
        let mut parts = BTreeSet::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PART) {
                parts.insert(entry.path());
            }
        }
        Ok(parts)
    }

    /// What all that waits takes.
    fn bytes(&self) -> io::Result<u64> {
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let parts: u64 = self.parts()?.iter().map(|part| length(part)).sum();
        Ok(parts + length(&self.folder.join(WAITING)))
    }

    /// Whoever calls holds the lock.
    fn complete(&self, waiting: &Path) -> io::Result<()> {
        let name = format!("{PART}-{}.jsonl", uuid::Uuid::now_v7().simple());
        std::fs::rename(waiting, self.folder.join(name))
    }

    /// All of `lines` or nothing of them. Whoever calls holds the lock.
    fn append(&self, to: &Path, lines: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(to)?;
        let before = file.metadata()?.len();
        let written = file.write_all(lines).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // A full disk may have taken some of it. If this fails as well, half a line remains, which
            // costs no other: each write begins a line of its own.
            let _ = file.set_len(before);
            return Err(error);
        }
        // The name of a new file is on the disk when its folder is; where folders cannot be written
        // through, only the machine's own end could lose it.
        if before == 0
            && let Ok(folder) = File::open(&self.folder)
        {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Held while files are written or renamed, by every process that shares the folder.
    fn lock(&self) -> io::Result<File> {
        let file = OpenOptions::new().create(true).append(true).open(self.folder.join("lock"))?;
        file.lock()?;
        Ok(file)
    }
}

/// A write that was cut short (by the end of its process) leaves half a line: the first of these must not
/// become its other half.
fn lines(events: &[UsageEvent]) -> io::Result<Vec<u8>> {
    let mut lines = vec![b'\n'];
    for event in events {
        serde_json::to_writer(&mut lines, event)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// A part's file, locked; `None` when another process delivers it, or has.
fn free(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(None),
        // Where files cannot be locked, a part is delivered twice at the worst.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(path.exists().then_some(file)),
    }
}

#[cfg(test)]
mod tests;
