//! The event hub inside this process: events are posted to the ledger at once, many in one commit.
//!
//! Never keeps anything: when the ledger cannot be reached, `publisher` knows where events go.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::usage::UsageEvent;
use crate::ledger::Ledger;
use crate::ports::{Undelivered, UsageDestination};

/// A commit has the database for itself: a second one at the same time would only wait for it.
pub(super) const AT_ONCE: usize = 1;

pub(super) struct InProcess(pub(super) Arc<Ledger>);

#[async_trait]
impl UsageDestination for InProcess {
    fn name(&self) -> &'static str {
        "the ledger"
    }

    async fn send(&self, events: &[UsageEvent]) -> Result<Vec<UsageEvent>, Undelivered> {
        self.0.post_events(events.to_vec()).await?;
        Ok(Vec::new())
    }
}
