//! The event hub inside this process: events are posted to the ledger at once, many in one commit.
//!
//! # When the ledger cannot be reached
//! Events go to the spool, and from there to the ledger once it answers again. Only when the disk
//! takes them no more either is usage not safe, and then it is said aloud.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::TaskTracker;

use crate::domain::usage::UsageEvent;
use crate::ledger::Ledger;
use crate::ports::{Receipt, Unavailable, UsageSink, with_causes};
use crate::spool::{Spool, Taken};

/// Events in one commit at the most.
const BATCH: usize = 512;
/// A reply waits no longer than this for the ledger: then its event goes to the spool.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often what waits in the spool is tried again.
const RETRY: Duration = Duration::from_secs(5);

struct Waiting {
    event: UsageEvent,
    /// Told once the event is safe.
    safe: oneshot::Sender<Result<(), Unavailable>>,
}

pub(super) struct InProcess {
    // As long as the requests in hand: each waits for its event.
    queue: mpsc::UnboundedSender<Waiting>,
}

/// Starts the posting. It ends when the sink is dropped, after everything in it was posted.
pub(super) fn sink(ledger: Arc<Ledger>, spool: Spool, tasks: &TaskTracker) -> InProcess {
    let (queue, waiting) = mpsc::unbounded_channel();
    tasks.spawn(Poster { ledger, spool, spooled: true }.run(waiting));
    InProcess { queue }
}

impl UsageSink for InProcess {
    fn record(&self, event: UsageEvent) -> Receipt {
        let (safe, receipt) = oneshot::channel();
        let sent = self.queue.send(Waiting { event, safe });
        Box::pin(async move {
            sent.map_err(stopped)?;
            receipt.await.map_err(stopped)?
        })
    }
}

fn stopped(error: impl std::error::Error + Send + Sync + 'static) -> Unavailable {
    Unavailable { what: "the posting of usage", source: Box::new(error) }
}

struct Poster {
    ledger: Arc<Ledger>,
    spool: Spool,
    /// Something may wait in the spool: at the start, what an earlier process left there.
    spooled: bool,
}

/// Whatever comes while others have their turn travels along: a commit costs as much as several
/// requests do. Nobody waits for a batch to fill: a turn in which nothing came is the last.
async fn gather(waiting: &mut mpsc::UnboundedReceiver<Waiting>, batch: &mut Vec<Waiting>) {
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

impl Poster {
    async fn run(mut self, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut retry = tokio::time::interval_at(Instant::now(), RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                count = waiting.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    gather(&mut waiting, &mut batch).await;
                    self.make_safe(&mut batch).await;
                }
                _ = retry.tick(), if self.spooled => self.post_spooled().await,
            }
        }
    }

    async fn make_safe(&mut self, batch: &mut Vec<Waiting>) {
        let (events, waiting): (Vec<_>, Vec<_>) = batch.drain(..).map(|w| (w.event, w.safe)).unzip();
        let posted = tokio::time::timeout(PATIENCE, self.ledger.post_events(events.clone())).await;
        let reason = match posted {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(with_causes(&error)),
            Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        if let Some(reason) = reason {
            tracing::error!(
                events = events.len(),
                "the ledger takes no usage, {} events go to the spool: {reason}",
                events.len()
            );
            if let Err(error) = self.keep(&events).await {
                say_aloud(&events, &error);
                for safe in waiting {
                    let source = error.to_string().into();
                    // A caller that has gone no longer wants to know.
                    let _ = safe.send(Err(Unavailable { what: "the spool", source }));
                }
                return;
            }
        }
        for safe in waiting {
            let _ = safe.send(Ok(()));
        }
    }

    async fn keep(&mut self, events: &[UsageEvent]) -> std::io::Result<()> {
        let (spool, events) = (self.spool.clone(), events.to_vec());
        self.spooled = true;
        tokio::task::spawn_blocking(move || spool.keep(&events)).await?
    }

    async fn post_spooled(&mut self) {
        let spool = self.spool.clone();
        let taken = match tokio::task::spawn_blocking(move || spool.take()).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => return tracing::error!(%error, "the spool cannot be read: {error}"),
            Err(error) => return tracing::error!(%error, "the spool cannot be read: {error}"),
        };
        for taken in taken {
            if let Err(reason) = self.post_taken(taken).await {
                return tracing::warn!("usage waits in the spool: {reason}");
            }
        }
        self.spooled = false;
    }

    async fn post_taken(&self, taken: Taken) -> Result<(), String> {
        for events in taken.events.chunks(BATCH) {
            let posted = tokio::time::timeout(PATIENCE, self.ledger.post_events(events.to_vec())).await;
            posted.map_err(|error| error.to_string())?.map_err(|error| with_causes(&error))?;
        }
        let (events, unreadable) = (taken.events.len(), taken.unreadable);
        tracing::info!(events, unreadable, "{events} events were posted from the spool");
        taken.done().map_err(|error| error.to_string())
    }
}

/// The last resort: the log. An event holds no key, prompt or reply.
fn say_aloud(events: &[UsageEvent], error: &std::io::Error) {
    for event in events {
        let json = serde_json::to_string(event).unwrap_or_default();
        tracing::error!(%error, "usage is not safe, neither ledger nor spool take it: {json}");
    }
}
