//! The life of a usage batch: delivered bytes → events → rows, once each.

use std::sync::Arc;
use std::time::Duration;

use crate::config::catalog::Catalog;
use crate::config::live::Live;
use crate::domain::price::{Counts, Priced};
use crate::domain::usage::UsageEvent;
use crate::ports::{Clock, DeadLetters, Entry, LedgerStore, Postings, Ratings, Subscriptions, Unavailable};

pub mod chargeback;
pub mod decode;
pub mod forecast;
mod names;
pub mod reconcile;
pub mod replay;
pub mod report;
pub mod rerate;
pub mod ship;

use ship::{Shipped, Shipping};

/// Messages of a batch that are posted in one transaction: more than the host brings, unless it was told to
/// bring more.
const MAX_AT_ONCE: usize = 500;

/// What the journey needs.
#[derive(Clone)]
pub struct Ledger {
    pub config: Arc<Live>,
    pub clock: Arc<dyn Clock>,
    pub store: Arc<dyn LedgerStore>,
    pub letters: Arc<dyn DeadLetters>,
    pub ratings: Arc<dyn Ratings>,
    /// Whom reports are about.
    pub subscriptions: Arc<dyn Subscriptions>,
    /// Where what is new goes as well; `None`: nowhere.
    pub shipping: Option<Arc<Shipping>>,
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
    /// Takes in what the Functions host delivers.
    ///
    /// # Errors
    /// When it is not known yet which backends are paid for by the hour, and what anything costs.
    pub fn delivery(&self) -> Result<Delivery<'_>, Unavailable> {
        let catalog = self.config.catalog()?;
        let posted = Posted { events: 0, new: 0, dead_letters: 0 };
        Ok(Delivery { ledger: self, catalog, read: decode::Delivery::new(self.clock.now()), posted })
    }

    /// Posts events of this process.
    ///
    /// # Errors
    /// When the store cannot be reached; nothing of the batch is posted then.
    pub async fn post_events(&self, events: Vec<UsageEvent>) -> Result<Posted, Unavailable> {
        let catalog = self.config.catalog()?;
        let entries = events.into_iter().map(|event| entry(&catalog, event)).collect();
        self.post(Postings { entries, ship: self.shipping.is_some(), ..Postings::default() }).await
    }

    async fn post(&self, postings: Postings) -> Result<Posted, Unavailable> {
        let (events, dead_letters) = (postings.entries.len(), postings.dead_letters.len());
        let new = self.store.post(&postings).await?;
        self.ship_behind(new);
        if dead_letters > 0 {
            tracing::warn!(dead_letters, "{dead_letters} messages of a usage batch could not be read");
        }
        Ok(Posted { events, new, dead_letters })
    }

    /// Lets rows that are new be sent on, without waiting for it.
    fn ship_behind(&self, new: u64) {
        if let Some(shipping) = self.shipping.as_ref().filter(|_| new > 0) {
            shipping.wake();
        }
    }

    /// Makes room for the rows of the coming months.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn prepare(&self) -> Result<(), Unavailable> {
        self.store.prepare(self.clock.now()).await
    }

    /// Sends on what waits to be, in this time; `None`: nothing is sent anywhere.
    pub async fn ship(&self, patience: Duration) -> Option<Shipped> {
        let shipping = self.shipping.as_ref()?;
        Some(shipping.ship(patience).await)
    }

    /// Waits until what was posted is sent on as well, or cannot be just now; at most `patience`.
    pub async fn shipped(&self, patience: Duration) {
        if let Some(shipping) = &self.shipping {
            shipping.caught_up(patience).await;
        }
    }
}

/// A batch on its way in. However large it is, a bounded part of it is in memory.
pub struct Delivery<'a> {
    ledger: &'a Ledger,
    catalog: Arc<Catalog>,
    read: decode::Delivery,
    posted: Posted,
}

impl Delivery<'_> {
    /// Takes the next piece in, and posts what was read when that is much.
    ///
    /// # Errors
    /// When the store cannot be reached. What was posted until then stays, and counts once when the host
    /// brings the batch again.
    pub async fn take_in(&mut self, piece: &[u8]) -> Result<(), Unavailable> {
        self.read.take_in(piece);
        if self.read.len() >= MAX_AT_ONCE {
            let decoded = self.read.read();
            self.post(decoded).await?;
        }
        Ok(())
    }

    /// Posts the rest, when nothing more comes.
    ///
    /// # Errors
    /// As [`Self::take_in`].
    pub async fn end(mut self) -> Result<Posted, Unavailable> {
        let read = std::mem::replace(&mut self.read, decode::Delivery::new(self.ledger.clock.now()));
        self.post(read.end()).await?;
        Ok(self.posted)
    }

    async fn post(&mut self, decoded: decode::Decoded) -> Result<(), Unavailable> {
        let entries = decoded.events.into_iter().map(|event| entry(&self.catalog, event)).collect();
        let (dead_letters, ship) = (decoded.dead_letters, self.ledger.shipping.is_some());
        let postings = Postings { entries, dead_letters, ship, ..Postings::default() };
        let posted = self.ledger.post(postings).await?;
        self.posted.events += posted.events;
        self.posted.new += posted.new;
        self.posted.dead_letters += posted.dead_letters;
        Ok(())
    }
}

/// More than any name of a model, a region or a person. The totals' key has all of its parts in one entry of an
/// index, and `PostgreSQL` takes 2,704 bytes there.
const MAX_TEXT_BYTES: usize = 512;
/// As many characters as management takes, whatever they are.
const MAX_COST_CENTER_BYTES: usize = 1_024;

/// An event as a row, rated by what is configured now.
fn entry(catalog: &Catalog, mut event: UsageEvent) -> Entry {
    let texts = [
        (&mut event.cost_center, MAX_COST_CENTER_BYTES),
        (&mut event.end_user, MAX_TEXT_BYTES),
        (&mut event.model, MAX_TEXT_BYTES),
        (&mut event.api_version, MAX_TEXT_BYTES),
        (&mut event.region, MAX_TEXT_BYTES),
    ];
    for (text, max_bytes) in texts {
        if let Some(kept) = text.as_deref().and_then(|text| keepable(text, max_bytes)) {
            *text = Some(kept);
        }
    }
    if let Some(kept) = keepable(&event.operation, MAX_TEXT_BYTES) {
        event.operation = kept.into();
    }
    event.usage = event.usage.told_apart();
    let rate = catalog.rate(Priced {
        deployment: event.deployment.as_str(),
        model: event.model.as_deref(),
        backend: event.backend.as_str(),
        day: event.time.to_datetime().date(),
    });
    // What has no price in part has none: it must not take the price of what it is summed with, nor that its own.
    let rate = rate.filter(|rate| rate.covers(Counts::from(&event.usage)));
    Entry { is_provisioned: catalog.is_provisioned(event.backend.as_str()), rate, event }
}

/// A text as a database keeps it, if that is another: what backends and callers call things must not keep their
/// usage out. `PostgreSQL` keeps no NUL, and a long text in no key.
fn keepable(text: &str, max_bytes: usize) -> Option<String> {
    if text.len() <= max_bytes && !text.contains('\0') {
        return None;
    }
    let end = (0..=max_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Some(text[..end].replace('\0', "?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_and_cleaned_to_what_a_database_keeps() {
        assert_eq!(keepable("gpt-4o", 10), None);
        assert_eq!(keepable("a\0b", 10).as_deref(), Some("a?b"));
        assert_eq!(keepable("ééé", 3).as_deref(), Some("é"));
        assert_eq!(keepable(&"x".repeat(9_000), MAX_TEXT_BYTES).unwrap().len(), MAX_TEXT_BYTES);
    }
}
