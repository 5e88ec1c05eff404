//! The life of a usage event between a reply's end and where it counts: queue → batch → destination, with
//! the spool behind.
//!
//! A reply waits for its event's [`Receipt`]. Whatever waits travels together: a batch leaves as soon as a
//! sender is idle, and nobody waits for one to fill. Never waits longer than [`PATIENCE`] for the
//! destination, never lets an event go that this process could still keep, and never needs an order: an
//! event counts once however often it arrives.
//!
//! # When the destination takes nothing
//! What is under way goes to the spool after [`PATIENCE`]; from then on events go there at once, and the
//! sending of the spool, oldest first, finds out when the destination takes events again. When the spool
//! takes no more either, that is said aloud with the event itself, events are held in memory as well, and
//! [`Standing::Full`] lets no new request begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::domain::usage::{Standing, UsageEvent};
use crate::ports::{Receipt, Unavailable, UsageDestination, UsageSink};
use crate::spool::Spool;

mod batch;
mod run;
mod spooled;
mod telling;

#[cfg(test)]
mod tests;

/// A reply waits no longer than this for the destination: then its event goes to the spool.
const PATIENCE: Duration = Duration::from_secs(2);
/// Events in one batch at the most. The destination may send them in several pieces.
const BATCH: usize = 256;

/// Events that are worth a round trip of their own.
const MANY: usize = 32;

/// How many batches may be under way to the destination at the same time.
#[derive(Clone, Copy, Debug)]
pub struct AtOnce {
    /// However small they are.
    pub always: usize,
    /// Of those that are worth it, when more than a few events wait.
    pub when_many_wait: usize,
}

/// Takes the events of replies, and makes them safe.
pub struct Publisher {
    // As long as the requests in hand: each waits for its event.
    queue: mpsc::UnboundedSender<Waiting>,
    standing: Arc<Shown>,
    /// Told by the end of this: a queue that is not read does not tell that it is over.
    _dropped: DropGuard,
}

/// An event, and who waits for it.
struct Waiting {
    event: UsageEvent,
    since: Instant,
    safe: oneshot::Sender<Result<(), Unavailable>>,
}

/// How it stands, for every request to see.
#[derive(Default)]
struct Shown(AtomicU8);

impl Shown {
    const ALL: [Standing; 4] = [Standing::Flowing, Standing::Waiting, Standing::Spooling, Standing::Full];

    fn show(&self, standing: Standing) {
        let index = Self::ALL.iter().position(|one| *one == standing).unwrap_or_default();
        self.0.store(u8::try_from(index).unwrap_or_default(), Relaxed);
    }

    fn standing(&self) -> Standing {
        Self::ALL[usize::from(self.0.load(Relaxed))]
    }
}

impl Publisher {
    /// Starts the publishing. It ends when this is dropped, after every event
    /// in it was made safe.
    pub fn start(
        destination: Arc<dyn UsageDestination>,
        at_once: AtOnce,
        spool: Spool,
        tasks: &TaskTracker,
    ) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let (standing, dropped) = (Arc::default(), CancellationToken::new());
        let run = run::Run::new(destination, at_once, spool, Arc::clone(&standing));
        tasks.spawn(run.until(dropped.clone(), waiting));
        Self { queue, standing, _dropped: dropped.drop_guard() }
    }
}

impl UsageSink for Publisher {
    fn record(&self, event: UsageEvent) -> Receipt {
        let (safe, receipt) = oneshot::channel();
        let sent = self.queue.send(Waiting { event, since: Instant::now(), safe });
        Box::pin(async move {
            sent.map_err(stopped)?;
            receipt.await.map_err(stopped)?
        })
    }

    fn standing(&self) -> Standing {
        self.standing.standing()
    }
}

fn stopped(error: impl std::error::Error + Send + Sync + 'static) -> Unavailable {
    Unavailable { what: "the publishing of usage", source: Box::new(error) }
}
