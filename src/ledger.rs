//! The life of a usage batch: delivered bytes → events → rows, once each.

use std::sync::Arc;

use crate::config::catalog::{Billing, Catalog};
use crate::config::live::Live;
use crate::domain::usage::UsageEvent;
use crate::ports::{Clock, Entry, LedgerStore, Postings, Unavailable};

pub mod decode;
pub mod report;

/// What the journey needs.
pub struct Ledger {
    pub config: Arc<Live>,
    pub clock: Arc<dyn Clock>,
    pub store: Arc<dyn LedgerStore>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Events that were read.
    pub events: usize,
    /// Rows that were not there before.
    pub new: u64,
    /// Messages that could not be read.
    pub dead_letters: usize,
}

impl Ledger {
    /// Posts a batch that the Functions host delivered.
    ///
    /// # Errors
    /// Only when the store cannot be reached, or which backends are paid for by the hour is not known
    /// yet: the host then brings the batch again.
    pub async fn post_delivered(&self, body: &[u8]) -> Result<Posted, Unavailable> {
        let catalog = self.config.catalog()?;
        let decoded = decode::delivered(body, self.clock.now());
        let entries = decoded.events.into_iter().map(|event| entry(&catalog, event)).collect();
        self.post(Postings { entries, dead_letters: decoded.dead_letters }).await
    }

    /// Posts events of this process.
    ///
    /// # Errors
    /// When the store cannot be reached; nothing of the batch is posted then.
    pub async fn post_events(&self, events: Vec<UsageEvent>) -> Result<Posted, Unavailable> {
        let catalog = self.config.catalog()?;
        let entries = events.into_iter().map(|event| entry(&catalog, event)).collect();
        self.post(Postings { entries, dead_letters: Vec::new() }).await
    }

    async fn post(&self, postings: Postings) -> Result<Posted, Unavailable> {
        let (events, dead_letters) = (postings.entries.len(), postings.dead_letters.len());
        let new = self.store.post(&postings).await?;
        if dead_letters > 0 {
            tracing::warn!(dead_letters, "{dead_letters} messages of a usage batch could not be read");
        }
        Ok(Posted { events, new, dead_letters })
    }
}

fn entry(catalog: &Catalog, event: UsageEvent) -> Entry {
    let mut backends = catalog.backends.iter();
    let is_provisioned =
        backends.any(|backend| backend.name == event.backend && backend.billing != Billing::PayAsYouGo);
    Entry { event, is_provisioned }
}
