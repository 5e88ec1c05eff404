//! Ledger rows → where logs are kept, the oldest first, in pieces that it takes.
//!
//! Never holds anything but the store's own word for what was sent: whoever dies with rows in hand leaves them
//! to others once its claim has run out. A row may therefore arrive twice, and none is left out.
//!
//! # When rows are not taken
//! They stay in the outbox, and the sink is left alone for as long as it asked, or longer and longer; nothing
//! that posts waits for it. A row that alone is refused while others are taken would stand in the way for ever:
//! it is taken out, and said aloud. It stays in the ledger.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::domain::ids::RequestId;
use crate::domain::units::UnixMillis;
use crate::ports::{Clock, LogFailure, LogRow, LogSink, Outbox, Unavailable, with_causes};

mod rest;
pub mod row;

use rest::Rest;

/// For how long rows are nobody else's. Whoever takes longer leaves the rest to whoever comes.
const CLAIM: Duration = Duration::from_mins(1);
/// About a megabyte of rows.
const CLAIM_ROWS: u32 = 1_500;
/// For one call, with the token for it.
const SEND: Duration = Duration::from_secs(20);
/// What was posted in this time travels along: a rule takes 12,000 calls a minute, from all instances.
const GATHER: Duration = Duration::from_secs(1);
/// Calls that are refused for their rows, before it is not for the rows.
const MAX_REFUSED: usize = 200;

/// The way to where logs are kept.
pub struct Shipping {
    outbox: Arc<dyn Outbox>,
    sink: Arc<dyn LogSink>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    /// One turn at a time, and when the next may be.
    rest: Mutex<Rest>,
    posted: Notify,
    hurry: Notify,
    /// Who waits for a turn has a number: turns that began since have served all numbers until theirs.
    asked: AtomicU64,
    served: watch::Sender<u64>,
    /// There is more than one claim takes: whoever waited for it would wait long.
    is_behind: AtomicBool,
}

/// What became of a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipped {
    pub rows: usize,
    /// Rows that nobody takes: not sent, and not tried again.
    pub taken_out: usize,
    /// Why rows wait that should not.
    pub trouble: Option<String>,
}

/// Why a turn ended before everything was sent.
enum End {
    /// Its time is up, or the process stops.
    Time,
    Sink(LogFailure),
    Store(Unavailable),
}

impl From<Unavailable> for End {
    fn from(error: Unavailable) -> Self {
        Self::Store(error)
    }
}

/// What a turn has done so far.
#[derive(Default)]
struct Turn {
    sent: usize,
    /// Rows that were refused alone, with the reason.
    refused: Vec<(RequestId, String)>,
    refused_calls: usize,
    deadline: Duration,
}

impl Shipping {
    /// Turns under way end with `stop`.
    pub fn new(
        outbox: Arc<dyn Outbox>,
        sink: Arc<dyn LogSink>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            outbox,
            sink,
            clock,
            stop,
            rest: Mutex::default(),
            posted: Notify::new(),
            hurry: Notify::new(),
            asked: AtomicU64::new(0),
            served: watch::Sender::new(0),
            is_behind: AtomicBool::new(false),
        }
    }

    /// Something new is in the outbox: it is sent behind whoever says so.
    pub fn wake(&self) {
        self.posted.notify_one();
    }

    /// Waits until what is in the outbox now was sent, or cannot be just now; at most `patience`, and not at
    /// all while much else is to be sent first.
    pub async fn caught_up(&self, patience: Duration) {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.hurry.notify_one();
        if self.is_behind.load(Ordering::Relaxed) {
            return;
        }
        let mut served = self.served.subscribe();
        // What is late is sent all the same.
        let served = tokio::time::timeout(patience, served.wait_for(|served| *served >= number));
        let _ = self.stop.run_until_cancelled(served).await;
    }

    /// Sends what there is whenever there is something, beginning with what another process left.
    pub async fn keep_up(self: Arc<Self>) {
        loop {
            let asked = self.asked.load(Ordering::SeqCst);
            self.ship(CLAIM).await;
            self.served.send_replace(asked);
            let rest = self.rest.lock().await.left(self.clock.elapsed());
            let again = async {
                match rest {
                    Some(rest) => tokio::time::sleep(rest).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.hurry.notified() => {}
                () = again => {}
                () = self.gathered(), if rest.is_none() => {}
            }
        }
    }

    async fn gathered(&self) {
        self.posted.notified().await;
        let _ = tokio::time::timeout(GATHER, self.hurry.notified()).await;
    }

    /// Sends everything in the outbox that nobody else has in hand, in this time, unless the sink is to be left alone.
    pub async fn ship(&self, patience: Duration) -> Shipped {
        let deadline = self.clock.elapsed() + patience;
        let mut rest = self.rest.lock().await;
        if let Some(trouble) = rest.trouble(self.clock.elapsed()) {
            return Shipped { trouble: Some(trouble), ..Shipped::default() };
        }
        let mut turn = Turn { deadline, ..Turn::default() };
        let end = self.send_everything(&mut turn).await;
        let (taken_out, end) = self.settle(&turn, end).await;
        let trouble = match end {
            Ok(()) | Err(End::Time) => {
                if turn.sent > 0 {
                    rest.went_well();
                }
                None
            }
            Err(End::Sink(failure)) => Some(rest.failed(&failure, turn.sent > 0, self.clock.elapsed())),
            Err(End::Store(error)) => {
                let error = with_causes(&error);
                tracing::warn!(%error, "what is to be sent to Log Analytics cannot be read just now: {error}");
                Some(error)
            }
        };
        Shipped { rows: turn.sent, taken_out, trouble }
    }

    async fn send_everything(&self, turn: &mut Turn) -> Result<(), End> {
        loop {
            let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
            if self.stop.is_cancelled() || elapsed >= turn.deadline {
                return Err(End::Time);
            }
            let until = UnixMillis(now.0 + i64::try_from(CLAIM.as_millis()).unwrap_or(i64::MAX));
            let claimed = self.outbox.claim(now, until, CLAIM_ROWS).await?;
            self.is_behind.store(claimed.len() >= CLAIM_ROWS as usize, Ordering::Relaxed);
            if claimed.is_empty() {
                return Ok(());
            }
            let pieces = cut(claimed.iter().map(row::of), self.sink.max_bytes());
            self.send_pieces(pieces, turn, elapsed + CLAIM).await?;
        }
    }

    /// Sends pieces, and smaller ones of those that are refused. What is not sent is anybody's again.
    async fn send_pieces(
        &self,
        mut pieces: VecDeque<Vec<LogRow>>,
        turn: &mut Turn,
        claimed_until: Duration,
    ) -> Result<(), End> {
        while let Some(rows) = pieces.pop_front() {
            let is_late = self.clock.elapsed() + SEND > claimed_until;
            let end = if is_late { Err(End::Time) } else { self.send(&rows).await };
            match end {
                Ok(()) => {
                    self.outbox.shipped(&ids(&rows)).await?;
                    turn.sent += rows.len();
                }
                Err(End::Sink(failure @ (LogFailure::TooLarge | LogFailure::BadRows(_))))
                    if turn.refused_calls < MAX_REFUSED =>
                {
                    turn.refused_calls += usize::from(turn.sent == 0);
                    if let [row] = rows.as_slice() {
                        turn.refused.push((row.id, failure.to_string()));
                    } else {
                        // At the end, so that whatever is good is found soon.
                        pieces.extend(rows.chunks(rows.len().div_ceil(2)).map(<[LogRow]>::to_vec));
                    }
                }
                Err(end) => {
                    let left: Vec<_> = pieces.iter().flatten().chain(&rows).map(|row| row.id).collect();
                    self.outbox.release(&left).await?;
                    // Only the claim's time is up: what is left is claimed anew.
                    return if is_late && self.clock.elapsed() < turn.deadline { Ok(()) } else { Err(end) };
                }
            }
        }
        Ok(())
    }

    async fn send(&self, rows: &[LogRow]) -> Result<(), End> {
        let sent = tokio::time::timeout(SEND, self.sink.send(rows));
        match self.stop.run_until_cancelled(sent).await {
            Some(Ok(sent)) => sent.map_err(End::Sink),
            Some(Err(late)) => Err(End::Sink(LogFailure::Unavailable {
                what: "Log Analytics",
                retry_after: None,
                source: late.into(),
            })),
            None => Err(End::Time),
        }
    }

    /// Takes out what was refused alone, if others were taken; else nothing is known against it.
    async fn settle(&self, turn: &Turn, end: Result<(), End>) -> (usize, Result<(), End>) {
        let Some((_, first)) = turn.refused.first() else { return (0, end) };
        let refused: Vec<_> = turn.refused.iter().map(|(id, _)| *id).collect();
        let (settled, taken_out) = if turn.sent > 0 {
            (self.outbox.shipped(&refused).await, refused.len())
        } else {
            (self.outbox.release(&refused).await, 0)
        };
        if let Err(error) = settled {
            return (0, end.and(Err(End::Store(error))));
        }
        if turn.sent == 0 {
            let text = format!("no row is taken: {first}");
            return (0, end.and(Err(End::Sink(LogFailure::Refused(text)))));
        }
        for (id, reason) in &turn.refused {
            tracing::error!(
                request.id = %id.0,
                "Log Analytics will never take the usage of request {}, which is in the ledger alone: {reason}",
                id.0
            );
        }
        (taken_out, end)
    }
}

fn ids(rows: &[LogRow]) -> Vec<RequestId> {
    rows.iter().map(|row| row.id).collect()
}

/// Rows in pieces of so many bytes. A row that is larger by itself is a piece of its own.
fn cut(rows: impl Iterator<Item = LogRow>, max_bytes: usize) -> VecDeque<Vec<LogRow>> {
    let mut pieces = VecDeque::new();
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for row in rows {
        let more = row.json.len() + 1;
        if bytes + more > max_bytes && !piece.is_empty() {
            pieces.push_back(std::mem::take(&mut piece));
            bytes = 0;
        }
        bytes += more;
        piece.push(row);
    }
    if !piece.is_empty() {
        pieces.push_back(piece);
    }
    pieces
}
