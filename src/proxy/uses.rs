//! When each subscription was used last: noted in memory with each request, written many at once.
//!
//! Never makes a request wait, and never fails one. What was noted in the last half a minute is lost with
//! the process, if it is killed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::ids::SubscriptionId;
use crate::domain::units::UnixMillis;
use crate::ports::{Subscriptions, with_causes};

const EVERY: Duration = Duration::from_secs(30);
/// In one transaction: the store's other writers wait for it.
const BATCH: usize = 500;
/// A few megabytes. Those past it show when they are used again, after the next writing.
const MAX_NOTED: usize = 50_000;

/// The last uses that the store has not been told yet.
#[derive(Default)]
pub struct Uses(Mutex<HashMap<SubscriptionId, UnixMillis>>);

impl Uses {
    pub(super) fn note(&self, id: &SubscriptionId, now: UnixMillis) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = noted.get_mut(id) {
            *at = now.max(*at);
        } else if noted.len() < MAX_NOTED {
            noted.insert(id.clone(), now);
        }
    }

    /// Tells the store every half a minute, and once more when `stop` is cancelled.
    pub async fn keep_up(self: Arc<Self>, store: Arc<dyn Subscriptions>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            self.write(&*store).await;
        }
        self.write(&*store).await;
    }

    /// Tells the store now. What it does not take is kept for the next time.
    pub async fn write(&self, store: &dyn Subscriptions) {
        let noted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let noted: Vec<_> = noted.into_iter().collect();
        for (done, batch) in noted.chunks(BATCH).enumerate() {
            if let Err(error) = store.touch(batch).await {
                let error = with_causes(&error);
                tracing::warn!(%error, "when subscriptions were used last cannot be kept just now: {error}");
                for (id, at) in &noted[done * BATCH..] {
                    self.note(id, *at);
                }
                return;
            }
        }
    }
}
