//! Events that travel together, and the ways they go: to the destination, or to the spool.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{BATCH, PATIENCE, Waiting, telling};
use crate::domain::usage::UsageEvent;
use crate::ports::{Unavailable, Undelivered, UsageDestination};
use crate::spool::{NotKept, Spool};

/// A connection that breaks off, a server that is busy for a moment: one more try saves a batch from the
/// disk, and the replies from knowing.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Events, and who waits for them.
pub(super) struct Batch {
    pub(super) events: Vec<UsageEvent>,
    waiting: Vec<oneshot::Sender<Result<(), Unavailable>>>,
    /// Since when the first of them waits.
    since: Instant,
}

impl Batch {
    /// What is in `waiting`, which is not empty, and empty then.
    pub(super) fn of(waiting: &mut Vec<Waiting>) -> Self {
        let since = waiting.iter().map(|one| one.since).min().unwrap_or_else(Instant::now);
        let (events, waiting) = waiting.drain(..).map(|one| (one.event, one.safe)).unzip();
        Self { events, waiting, since }
    }

    /// Its events are safe.
    pub(super) fn tell_safe(self) {
        for safe in self.waiting {
            // A caller that has gone no longer wants to know.
            let _ = safe.send(Ok(()));
        }
    }

    /// They are not. Answers with them.
    pub(super) fn tell_unsafe(self, why: &NotKept) -> Vec<UsageEvent> {
        for safe in self.waiting {
            let source = why.to_string().into();
            let _ = safe.send(Err(Unavailable { what: "the spool", source }));
        }
        self.events
    }

    /// Sends it, for as long as its replies may wait, and until there is no time left at all.
    pub(super) async fn send(
        &self,
        destination: Arc<dyn UsageDestination>,
        spool: &Spool,
        hurry: CancellationToken,
    ) -> Result<(), Undelivered> {
        let late = |why: String| {
            Err(Undelivered::Unavailable { what: destination.name(), retry_after: None, source: why.into() })
        };
        tokio::select! {
            sent = deliver(&*destination, spool, &self.events) => sent,
            () = sleep_until(self.since + PATIENCE) => {
                late(format!("no answer within {} s", PATIENCE.as_secs()))
            }
            () = hurry.cancelled() => late("the gateway stops".to_owned()),
        }
    }
}

/// Delivers events, at the second try if the first one fails for no reason that stays.
async fn deliver(
    destination: &dyn UsageDestination,
    spool: &Spool,
    events: &[UsageEvent],
) -> Result<(), Undelivered> {
    let rejected = match destination.send(events).await {
        Err(Undelivered::Unavailable { retry_after, .. })
            if retry_after.is_none_or(|wait| wait <= AGAIN_AFTER) =>
        {
            sleep(AGAIN_AFTER).await;
            destination.send(events).await?
        }
        sent => sent?,
    };
    put_aside(spool, rejected).await;
    Ok(())
}

/// What the destination will never take must not be in the way of the rest.
pub(super) async fn put_aside(spool: &Spool, rejected: Vec<UsageEvent>) {
    if rejected.is_empty() {
        return;
    }
    telling::rejected(rejected.len());
    let (spool, events) = (spool.clone(), rejected.clone());
    let kept = tokio::task::spawn_blocking(move || spool.reject(&events)).await;
    if let Err(error) = kept.map_err(std::io::Error::from).flatten() {
        telling::lost(&rejected, &error);
    }
}

/// Writes events into the spool.
pub(super) async fn keep(spool: &Spool, events: &[UsageEvent]) -> Result<(), NotKept> {
    let (spool, events) = (spool.clone(), events.to_vec());
    let kept = tokio::task::spawn_blocking(move || spool.keep(&events)).await;
    kept.map_err(|error| NotKept::Disk(error.into()))?
}

/// Whatever comes while others have their turn travels along: a round trip costs as much as several
/// requests do. Nobody waits for a batch to fill: a turn in which nothing came is the last.
pub(super) async fn gather(waiting: &mut mpsc::UnboundedReceiver<Waiting>, batch: &mut Vec<Waiting>) {
    while batch.len() < BATCH {
        tokio::task::yield_now().await;
        let before = batch.len();
        while batch.len() < BATCH
            && let Ok(more) = waiting.try_recv()
        {
            batch.push(more);
        }
        if batch.len() == before {
            return;
        }
    }
}
