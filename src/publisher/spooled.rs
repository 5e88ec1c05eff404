//! The spool's way to the destination: oldest first, piece by piece, each part deleted when it arrived.
//!
//! Never deletes a part of which anything is neither delivered nor put aside, and never gives one up: what
//! cannot be read, put aside or deleted is passed over for a while, and then tried again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::batch::{keep, put_aside};
use super::{BATCH, telling};
use crate::domain::usage::UsageEvent;
use crate::ports::{Undelivered, UsageDestination};
use crate::spool::{Part, Spool};

/// Nobody waits for what lies in the spool.
const SPOOLED_PATIENCE: Duration = Duration::from_secs(10);
/// As many as are held in memory when nothing else takes them: some megabytes.
const MAX_HELD: usize = 10_000;
/// A disk that is full, or a file that another program holds, is so for longer than a moment.
pub(super) const PASSED_OVER_FOR: Duration = Duration::from_mins(1);
/// Parts that only wait to be deleted, with their unreadable lines in memory: a megabyte each at the most.
const MAX_ARRIVED: usize = 16;

/// Sends what lies in the spool, some pieces after the others.
pub(super) struct Spooled {
    destination: Arc<dyn UsageDestination>,
    spool: Spool,
    /// What neither destination nor spool took.
    held: Vec<UsageEvent>,
    part: Option<Reading>,
    /// The pieces of it that are to be sent next.
    pieces: Vec<Vec<UsageEvent>>,
    /// Parts all of whose events arrived, and that are still there.
    arrived: Vec<Reading>,
    /// Parts that could not be dealt with, and must not be in the way of the others.
    passed_over: BTreeSet<PathBuf>,
    /// When those have their next turn.
    next_turn: Instant,
    /// Pieces that may be under way at the same time: one, until it arrived.
    at_once: usize,
    most_at_once: usize,
    /// Events that arrived since it was empty.
    sent: u64,
}

/// A part, and what of it is no event.
struct Reading {
    part: Part,
    unreadable: Vec<Vec<u8>>,
}

/// What came of some pieces.
pub(super) enum Step {
    /// Nothing is left.
    Empty,
    /// Nothing but what has its next turn after [`PASSED_OVER_FOR`].
    Left,
    /// They arrived, and it took so long.
    Sent(Duration),
    Failed(Undelivered),
    /// The spool's folder cannot be read.
    Unreadable,
}

impl Spooled {
    pub(super) fn new(destination: Arc<dyn UsageDestination>, spool: Spool, most_at_once: usize) -> Self {
        Self {
            destination,
            spool,
            held: Vec::new(),
            part: None,
            pieces: Vec::new(),
            arrived: Vec::new(),
            passed_over: BTreeSet::new(),
            next_turn: Instant::now(),
            at_once: 1,
            most_at_once: most_at_once.max(1),
            sent: 0,
        }
    }

    pub(super) fn hold(&mut self, events: Vec<UsageEvent>) {
        self.held.extend(events);
        self.held.truncate(MAX_HELD);
    }

    /// Sends the next pieces.
    pub(super) async fn step(mut self: Box<Self>) -> (Box<Self>, Step) {
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
        let step = match self.send(&some).await {
            Ok(took) => {
                self.held.drain(..some.len());
                self.sent += some.len() as u64;
                return Step::Sent(took);
            }
            Err(why) => Step::Failed(why),
        };
        if keep(&self.spool, &self.held).await.is_ok() {
            self.held.clear();
        }
        step
    }

    async fn send_next(&mut self) -> Step {
        if !self.passed_over.is_empty() && self.next_turn <= Instant::now() {
            self.try_again().await;
        }
        while self.pieces.is_empty() {
            match self.read_on().await {
                Ok(true) => {}
                Ok(false) if self.passed_over.is_empty() => return Step::Empty,
                Ok(false) => return Step::Left,
                Err(error) => {
                    telling::unreadable_spool(&error);
                    match self.part.take() {
                        Some(reading) => self.pass_over(&reading),
                        None => return Step::Unreadable,
                    }
                }
            }
        }
        self.send_pieces().await
    }

    /// Sends as many pieces at the same time as went well so far, and twice as many next time.
    async fn send_pieces(&mut self) -> Step {
        let some: Vec<_> = self.pieces.drain(..self.pieces.len().min(self.at_once)).collect();
        let answers = join_all(some.iter().map(|piece| self.send(piece))).await;
        let (mut failed, mut left, mut longest) = (None, Vec::new(), Duration::ZERO);
        for (piece, answer) in some.into_iter().zip(answers) {
            match answer {
                Ok(took) => {
                    self.sent += piece.len() as u64;
                    longest = longest.max(took);
                }
                Err(why) => {
                    failed = Some(why);
                    left.push(piece);
                }
            }
        }
        self.pieces.splice(..0, left);
        self.at_once = if failed.is_none() { (2 * self.at_once).min(self.most_at_once) } else { 1 };
        failed.map_or(Step::Sent(longest), Step::Failed)
    }

    /// Reads the next pieces, or goes on to the next part. `false`: there is none.
    async fn read_on(&mut self) -> std::io::Result<bool> {
        let Some(mut reading) = self.part.take() else {
            let (spool, passed_over) = (self.spool.clone(), self.passed_over.clone());
            let part = tokio::task::spawn_blocking(move || spool.oldest(&passed_over)).await??;
            self.part = part.map(|part| Reading { part, unreadable: Vec::new() });
            return Ok(self.part.is_some());
        };
        let most = self.at_once;
        let (reading, read) = tokio::task::spawn_blocking(move || {
            let read = reading.read(most);
            (reading, read)
        })
        .await?;
        match read {
            Ok(Some(pieces)) => {
                self.part = Some(reading);
                self.pieces = pieces;
            }
            // All of it arrived.
            Ok(None) => self.delete(reading).await,
            Err(error) => {
                self.part = Some(reading);
                return Err(error);
            }
        }
        Ok(true)
    }

    /// A part that cannot be deleted, or of which anything cannot be put aside, is not sent again: it only
    /// waits for that.
    async fn delete(&mut self, mut reading: Reading) {
        let spool = self.spool.clone();
        let finishing = tokio::task::spawn_blocking(move || {
            let finished = reading.finish(&spool);
            (reading, finished)
        });
        // It fails only where the process ends: the next one finds the part.
        let Ok((reading, Err(error))) = finishing.await else { return };
        telling::unfinished(&error);
        self.pass_over(&reading);
        if self.arrived.len() < MAX_ARRIVED {
            self.arrived.push(reading);
        }
    }

    fn pass_over(&mut self, reading: &Reading) {
        if self.passed_over.is_empty() {
            self.next_turn = Instant::now() + PASSED_OVER_FOR;
        }
        self.passed_over.insert(reading.part.path().to_owned());
    }

    /// What was passed over has its next turn.
    async fn try_again(&mut self) {
        self.passed_over.clear();
        for reading in std::mem::take(&mut self.arrived) {
            self.delete(reading).await;
        }
    }

    /// Sends a piece. Answers with how long that took.
    async fn send(&self, events: &[UsageEvent]) -> Result<Duration, Undelivered> {
        let begun = Instant::now();
        let late = || {
            let source = format!("no answer within {} s", SPOOLED_PATIENCE.as_secs()).into();
            Err(Undelivered::Unavailable { what: self.destination.name(), retry_after: None, source })
        };
        let sent = timeout(SPOOLED_PATIENCE, self.destination.send(events)).await;
        let rejected = sent.unwrap_or_else(|_| late())?;
        let took = begun.elapsed();
        put_aside(&self.spool, rejected).await;
        Ok(took)
    }
}

impl Reading {
    /// The next pieces, `most` of them. `None`: its end.
    fn read(&mut self, most: usize) -> std::io::Result<Option<Vec<Vec<UsageEvent>>>> {
        let mut pieces = Vec::new();
        while pieces.len() < most {
            let lines = match self.part.read(BATCH) {
                Ok(lines) if lines.is_empty() => break,
                Ok(lines) => lines,
                // It comes again at the next reading.
                Err(_) if !pieces.is_empty() => break,
                Err(error) => return Err(error),
            };
            self.unreadable.extend(lines.unreadable);
            if !lines.events.is_empty() {
                pieces.push(lines.events);
            }
        }
        Ok(Some(pieces).filter(|pieces| !pieces.is_empty()))
    }

    /// Puts aside what is no event, and deletes the rest, which arrived.
    fn finish(&mut self, spool: &Spool) -> std::io::Result<()> {
        if !self.unreadable.is_empty() {
            spool.put_aside(&self.unreadable)?;
            telling::unreadable(self.unreadable.len());
            self.unreadable.clear();
        }
        self.part.delivered()
    }
}
