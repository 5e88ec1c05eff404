//! Where usage events go. Never says what becomes of them there.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;

use super::Unavailable;
use crate::domain::usage::{Standing, UsageEvent};

/// Resolves once an event is safe.
pub type Receipt = Pin<Box<dyn Future<Output = Result<(), Unavailable>> + Send>>;

/// Where usage goes: the event hub, or the ledger in this process.
pub trait UsageSink: Send + Sync {
    /// Takes the event at once: dropping the receipt, as a caller that hangs up does, does not take
    /// it back. Many events travel together, so the wait is one round trip, not one an event.
    fn record(&self, event: UsageEvent) -> Receipt;
    /// How it stands: asked by each request before it begins, so it costs nothing.
    fn standing(&self) -> Standing {
        Standing::Flowing
    }
}

/// Where usage events are delivered: the event hub, or the ledger in this process.
#[async_trait]
pub trait UsageDestination: Send + Sync {
    /// Such as `the event hub`.
    fn name(&self) -> &'static str;
    /// Delivers events, and returns once they are safe there. Nothing depends on their order, and one that
    /// arrives twice counts once. Answers with those that would never be taken.
    async fn send(&self, events: &[UsageEvent]) -> Result<Vec<UsageEvent>, Undelivered>;
}

/// Why events were not delivered. Some of them may have arrived all the same.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// They will not be taken as things are set up; the text tells the operator what to mend.
    #[error("{0}")]
    Refused(String),
    /// They may be taken soon.
    #[error("{what} cannot be reached")]
    Unavailable {
        /// Such as `the event hub`.
        what: &'static str,
        /// For how long it asks to be left alone.
        retry_after: Option<Duration>,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<Unavailable> for Undelivered {
    fn from(Unavailable { what, source }: Unavailable) -> Self {
        Self::Unavailable { what, retry_after: None, source }
    }
}
