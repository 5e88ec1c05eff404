//! What others change, taken note of: other instances, and whoever changes the database by hand.
//!
//! Never believes for longer than without it: while the changes cannot be seen, what was read is believed for
//! as long as if nobody looked for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::Proxy;
use crate::ports::{Changes, Seen, with_causes};

/// Between two looks, when nothing is heard: well within what is believed without one.
const EVERY: Duration = Duration::from_secs(2);
/// The next look after one that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

impl Proxy {
    /// Looks for changes at once and then again and again, until `stop`.
    pub async fn watch(self: Arc<Self>, mut changes: Box<dyn Changes>, stop: CancellationToken) {
        let mut is_failing = false;
        loop {
            let looked = stop.run_until_cancelled(self.take_note(&mut *changes, is_failing)).await;
            let Some(fails) = looked else { return };
            is_failing = fails;
            self.keys.is_store_away.store(fails, Ordering::Relaxed);
            let pause = tokio::time::sleep(if is_failing { AFTER_FAILURE } else { EVERY });
            tokio::select! {
                () = stop.cancelled() => return,
                () = pause => {}
                () = changes.heard(), if !is_failing => {}
            }
        }
    }

    /// One look. True when it has failed.
    async fn take_note(&self, changes: &mut dyn Changes, was_failing: bool) -> bool {
        // Before the look: what is changed while it goes on is the next one's.
        let at = self.clock.elapsed();
        let seen = match changes.look().await {
            Ok(seen) => seen,
            Err(error) => {
                self.keys.believed.fails();
                self.signed_in.fails();
                if !was_failing {
                    let error = with_causes(&error);
                    tracing::error!(%error, "changes of subscriptions cannot be looked for, known callers go on: {error}");
                }
                return true;
            }
        };
        if was_failing {
            tracing::info!("changes of subscriptions can be looked for again");
        }
        match seen {
            Seen::These(ids) => {
                for id in &ids {
                    self.forget(id);
                }
                self.keys.believed.confirm(at);
                self.signed_in.confirm(at);
            }
            Seen::Any => {
                self.keys.believed.doubt(at);
                self.signed_in.doubt(at);
            }
        }
        false
    }
}
