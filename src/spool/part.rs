//! A part of the spool, read piece by piece: however large it is, little of it is in memory.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use crate::domain::usage::UsageEvent;

/// A file of events that is being delivered. While it is held, no other process delivers it.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    reader: io::Result<BufReader<File>>,
}

/// What was read of a part.
#[derive(Debug, Default)]
pub struct Lines {
    pub events: Vec<UsageEvent>,
    /// Lines that are no events: writes that were cut short by the end of their process, or another
    /// version's.
    pub unreadable: Vec<Vec<u8>>,
}

impl Part {
    pub(super) fn open(path: PathBuf, file: io::Result<File>) -> Self {
        Self { path, reader: file.map(BufReader::new) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next lines, `most` of them: none at its end.
    ///
    /// # Errors
    /// When the file cannot be read any further: from then on always.
    pub fn read(&mut self, most: usize) -> io::Result<Lines> {
        let mut lines = Lines::default();
        let reader = match &mut self.reader {
            Ok(reader) => reader,
            Err(error) => return Err(copy(error)),
        };
        let mut line = Vec::new();
        while lines.events.len() + lines.unreadable.len() < most {
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                // What comes after it may begin in the middle of a line.
                Err(error) => {
                    let failed = copy(&error);
                    self.reader = Err(error);
                    return if lines.is_empty() { Err(failed) } else { Ok(lines) };
                }
            }
            while line.last() == Some(&b'\n') {
                line.pop();
            }
            if !line.is_empty() {
                match serde_json::from_slice(&line) {
                    Ok(event) => lines.events.push(event),
                    Err(_) => lines.unreadable.push(std::mem::take(&mut line)),
                }
            }
            line.clear();
        }
        Ok(lines)
    }

    /// All of it was delivered: it need not be found again.
    ///
    /// # Errors
    /// When the file cannot be deleted; its events are then delivered again, and count once all the same.
    pub fn delivered(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

impl Lines {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.unreadable.is_empty()
    }
}
