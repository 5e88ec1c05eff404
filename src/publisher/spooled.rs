//! The spool's way to the destination: oldest first, piece by piece, each part deleted when it arrived.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::batch::{keep, put_aside};
use super::{BATCH, PATIENCE, telling};
use crate::domain::usage::UsageEvent;
use crate::ports::{Undelivered, UsageDestination};
use crate::spool::{Part, Spool};

/// Nobody waits for what lies in the spool.
const SPOOLED_PATIENCE: Duration = Duration::from_secs(10);
/// As many as are held in memory when nothing else takes them: some megabytes.
const MAX_HELD: usize = 10_000;

/// Sends what lies in the spool, one piece after the other.
pub(super) struct Spooled {
    destination: Arc<dyn UsageDestination>,
    spool: Spool,
    /// What neither destination nor spool took.
    held: Vec<UsageEvent>,
    part: Option<Part>,
    /// The piece of it that is to be sent next.
    piece: Vec<UsageEvent>,
    /// Parts that cannot be read, and must not be in the way of the others.
    passed_over: BTreeSet<PathBuf>,
    /// Events that arrived since it was empty.
    sent: u64,
}

/// What came of one piece.
pub(super) enum Step {
    /// Nothing is left.
    Empty,
    /// It arrived; so quickly that replies could have waited for it?
    Sent {
        quickly: bool,
    },
    Failed(Undelivered),
    /// The spool's folder cannot be read.
    Unreadable,
}

impl Spooled {
    pub(super) fn new(destination: Arc<dyn UsageDestination>, spool: Spool) -> Self {
        let (held, piece, passed_over) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { destination, spool, held, part: None, piece, passed_over, sent: 0 }
    }

    pub(super) fn hold(&mut self, events: Vec<UsageEvent>) {
        self.held.extend(events);
        self.held.truncate(MAX_HELD);
    }

    /// Sends the next piece.
    pub(super) async fn step(mut self) -> (Self, Step) {
        let step = if self.held.is_empty() { self.send_next().await } else { self.send_held().await };
        if matches!(step, Step::Empty) && self.sent > 0 {
            telling::emptied(std::mem::take(&mut self.sent));
        }
        (self, step)
    }

    /// Whether there is anything that neither destination nor spool took.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// All of that, with `more`.
    pub(super) fn into_held(mut self, more: Vec<UsageEvent>) -> Vec<UsageEvent> {
        self.hold(more);
        self.held
    }

    async fn send_held(&mut self) -> Step {
        let some = self.held[..self.held.len().min(BATCH)].to_vec();
        let step = self.send(&some).await;
        if matches!(step, Step::Sent { .. }) {
            self.held.drain(..some.len());
        } else if keep(&self.spool, &self.held).await.is_ok() {
            self.held.clear();
        }
        step
    }

    async fn send_next(&mut self) -> Step {
        while self.piece.is_empty() {
            match self.read_on().await {
                Ok(true) => {}
                Ok(false) => return Step::Empty,
                Err(error) => {
                    telling::unreadable_spool(&error);
                    match self.part.take() {
                        Some(part) => self.passed_over.insert(part.path().to_owned()),
                        None => return Step::Unreadable,
                    };
                }
            }
        }
        let piece = std::mem::take(&mut self.piece);
        let step = self.send(&piece).await;
        if !matches!(step, Step::Sent { .. }) {
            self.piece = piece;
        }
        step
    }

    /// Reads the next piece, or goes on to the next part. `false`: there is none.
    async fn read_on(&mut self) -> std::io::Result<bool> {
        let Some(mut part) = self.part.take() else {
            let (spool, passed_over) = (self.spool.clone(), self.passed_over.clone());
            self.part = tokio::task::spawn_blocking(move || spool.oldest(&passed_over)).await??;
            return Ok(self.part.is_some());
        };
        let (part, lines) = tokio::task::spawn_blocking(move || {
            let lines = part.read(BATCH);
            (part, lines)
        })
        .await?;
        let part = self.part.insert(part);
        let lines = lines?;
        if lines.is_empty() {
            let path = part.path().to_owned();
            let Some(part) = self.part.take() else { return Ok(true) };
            // One that cannot be deleted is not to be sent over and over.
            if let Err(error) = tokio::task::spawn_blocking(move || part.delivered()).await? {
                telling::unreadable_spool(&error);
                self.passed_over.insert(path);
            }
            return Ok(true);
        }
        if !lines.unreadable.is_empty() {
            telling::unreadable(lines.unreadable.len());
            let spool = self.spool.clone();
            tokio::task::spawn_blocking(move || spool.put_aside(&lines.unreadable)).await??;
        }
        self.piece = lines.events;
        Ok(true)
    }

    async fn send(&mut self, events: &[UsageEvent]) -> Step {
        let begun = Instant::now();
        let late = || {
            let source = format!("no answer within {} s", SPOOLED_PATIENCE.as_secs()).into();
            Err(Undelivered::Unavailable { what: self.destination.name(), retry_after: None, source })
        };
        match timeout(SPOOLED_PATIENCE, self.destination.send(events)).await.unwrap_or_else(|_| late()) {
            Ok(rejected) => {
                self.sent += events.len() as u64;
                put_aside(&self.spool, rejected).await;
                Step::Sent { quickly: begun.elapsed() < PATIENCE / 2 }
            }
            Err(why) => Step::Failed(why),
        }
    }
}
