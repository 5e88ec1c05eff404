//! Writes as few times as it can without keeping anyone waiting.

use bytes::Bytes;
use tokio::time::{Duration, Instant};

/// A backend that says much at once is handed to us one chunk at a time, by a task of its connection
/// that can only go on when this one has yielded. Writing each chunk by itself would cost more than all
/// the rest, so what is ready anyway is gathered: this task yields, and writes once nothing more came.
/// A chunk that comes alone is late by one turn of the scheduler, and none by more than [`Self::MAX`].
#[derive(Default)]
pub(super) struct Gathering {
    bytes: usize,
    since: Option<Instant>,
    /// How often this has looked in vain since the last chunk came.
    looks: u8,
}

impl Gathering {
    const MAX: Duration = Duration::from_micros(500);
    const MAX_BYTES: usize = 16 * 1024;
    /// The server looks twice before it yields: only the look after that can find something.
    const LOOKS: u8 = 2;

    /// Pieces were put into the queue.
    pub(super) fn add<'a>(&mut self, pieces: impl Iterator<Item = &'a Bytes>) {
        let bytes: usize = pieces.map(Bytes::len).sum();
        if bytes > 0 {
            self.bytes += bytes;
            self.since.get_or_insert_with(Instant::now);
            self.looks = 0;
        }
    }

    /// Whether something was gathered and not written yet.
    pub(super) fn goes_on(&self) -> bool {
        self.since.is_some()
    }

    /// Whether enough was gathered for one write.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= Self::MAX_BYTES
    }

    /// Whether to yield and look again.
    pub(super) fn waits_once_more(&mut self) -> bool {
        let may_wait =
            self.looks < Self::LOOKS && self.since.is_some_and(|since| since.elapsed() < Self::MAX);
        self.looks = self.looks.saturating_add(1);
        may_wait
    }
}
