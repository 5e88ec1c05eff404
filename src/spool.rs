//! Where usage events wait on disk while the ledger cannot take them.
//!
//! A line of JSON an event, written through to the disk before it counts as safe. The file survives
//! the process; whoever finds it next posts it. An event may be posted twice on the way (a process
//! that ends between posting and deleting), which its id makes harmless.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use crate::domain::usage::UsageEvent;

/// A folder of waiting events.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

/// Events that were taken out of the spool to be posted.
#[derive(Debug)]
pub struct Taken {
    pub events: Vec<UsageEvent>,
    /// Lines that are no events: a write that was cut short by the end of its process.
    pub unreadable: usize,
    file: PathBuf,
}

const WAITING: &str = "waiting.jsonl";
const TAKEN: &str = "taken";

impl Spool {
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("spool") }
    }

    /// Writes events, and returns once they are on the disk.
    ///
    /// # Errors
    /// When they are not.
    pub fn keep(&self, events: &[UsageEvent]) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        // A write that was cut short (a full disk, the end of its process) leaves half a line: the
        // first of these must not become its other half.
        let mut lines = vec![b'\n'];
        for event in events {
            serde_json::to_writer(&mut lines, event)?;
            lines.push(b'\n');
        }
        let _lock = self.lock()?;
        let mut file = OpenOptions::new().create(true).append(true).open(self.folder.join(WAITING))?;
        file.write_all(&lines)?;
        file.sync_data()
    }

    /// Takes all that wait, oldest first; what is not [`Taken::done`] is found again next time.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn take(&self) -> io::Result<Vec<Taken>> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        {
            let _lock = self.lock()?;
            let waiting = self.folder.join(WAITING);
            if waiting.exists() {
                let name = format!("{TAKEN}-{}.jsonl", uuid::Uuid::now_v7().simple());
                std::fs::rename(waiting, self.folder.join(name))?;
            }
        }
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TAKEN)))
            .collect();
        files.sort();
        files.into_iter().map(read).collect()
    }

    /// Held while the waiting file is written or renamed, by every process that shares the folder.
    fn lock(&self) -> io::Result<File> {
        let file = OpenOptions::new().create(true).append(true).open(self.folder.join("lock"))?;
        file.lock()?;
        Ok(file)
    }
}

fn read(path: PathBuf) -> io::Result<Taken> {
    let mut taken = Taken { events: Vec::new(), unreadable: 0, file: path };
    for line in BufReader::new(File::open(&taken.file)?).split(b'\n') {
        let line = line?;
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(event) => taken.events.push(event),
            Err(_) => taken.unreadable += 1,
        }
    }
    Ok(taken)
}

impl Taken {
    /// The events are posted: they need not be found again.
    ///
    /// # Errors
    /// When the file cannot be deleted; its events are then posted again, once each all the same.
    pub fn done(self) -> io::Result<()> {
        std::fs::remove_file(self.file)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(number: u8) -> UsageEvent {
        serde_json::from_value(json!({
            "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-0000000000{number:02}"),
            "time": "2026-11-21T09:00:00.123Z", "subscription_id": "s", "product": "p",
            "operation": "chat.completions", "deployment": "d", "backend": "b", "status": 200,
            "outcome": "completed", "usage": {"source": "reported", "input_tokens": 1, "output_tokens": 2},
        }))
        .unwrap()
    }

    fn taken(spool: &Spool) -> Vec<UsageEvent> {
        spool.take().unwrap().into_iter().flat_map(|taken| taken.events).collect()
    }

    #[test]
    fn what_waits_is_found_until_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path());
        assert_eq!(taken(&spool), []);
        spool.keep(&[event(1), event(2)]).unwrap();
        assert_eq!(taken(&spool), [event(1), event(2)]);
        spool.keep(&[event(3)]).unwrap();
        assert_eq!(taken(&Spool::new(folder.path())), [event(1), event(2), event(3)]);
        spool.take().unwrap().into_iter().for_each(|taken| taken.done().unwrap());
        assert_eq!(taken(&spool), []);
    }

    #[test]
    fn a_line_that_was_cut_short_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path());
        spool.keep(&[event(1)]).unwrap();
        let waiting = folder.path().join("spool").join(WAITING);
        OpenOptions::new().append(true).open(waiting).unwrap().write_all(b"{\"schema\":\"toll").unwrap();
        spool.keep(&[event(2)]).unwrap();
        let taken = spool.take().unwrap();
        assert_eq!((taken[0].events.as_slice(), taken[0].unreadable), ([event(1), event(2)].as_slice(), 1));
    }
}
