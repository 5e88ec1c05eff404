//! What is kept of usage.

use std::sync::Arc;

use async_trait::async_trait;
use time::Date;

use super::Unavailable;
use crate::domain::ids::RequestId;
use crate::domain::price::{Counts, Rate};
use crate::domain::units::UnixMillis;
use crate::domain::usage::UsageEvent;

/// The ledger's rows.
#[async_trait]
pub trait LedgerStore: Send + Sync {
    /// Posts each event once, however often it comes, keeps what could not be read, and adds what is
    /// new to the totals: all of the batch or nothing of it. Answers with how many rows are new.
    async fn post(&self, batch: &Postings) -> Result<u64, Unavailable>;
    /// Sums over the rows of a time, in groups that share one rate.
    async fn sums(&self, query: &SumQuery) -> Result<Vec<Sums>, Unavailable>;
    /// Makes room for the rows of the coming months. May be called by many at once, and again.
    async fn prepare(&self, now: UnixMillis) -> Result<(), Unavailable>;
}

/// Rating what was posted already anew.
#[async_trait]
pub trait Ratings: Send + Sync {
    /// What was posted on UTC days, from the first to the one before `to`, in their order.
    async fn rated(&self, from: Date, to: Date) -> Result<Vec<Rated>, Unavailable>;
    /// Gives the rows of one day other rates: all of them or none. Answers with how many rows have
    /// changed. What is posted meanwhile waits, or is rated as it comes.
    async fn rerate(&self, day: Date, changes: &[Rerating]) -> Result<u64, Unavailable>;
}

/// Messages that are no usage events, kept until somebody has seen to them.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// The oldest first, those behind `after`.
    async fn dead_letters(
        &self,
        after: Option<(UnixMillis, DeadLetterId)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Unavailable>;
}

/// New rows of the ledger that are still to be sent to where logs are kept.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Takes rows until a moment, the oldest first: those that nobody has, or whose time ran out before
    /// `now`. Two that take at once never get the same.
    async fn claim(&self, now: UnixMillis, until: UnixMillis, limit: u32) -> Result<Vec<Entry>, Unavailable>;
    /// They were sent: they need not be again.
    async fn shipped(&self, ids: &[RequestId]) -> Result<(), Unavailable>;
    /// They were not sent, and anybody may take them at once.
    async fn release(&self, ids: &[RequestId]) -> Result<(), Unavailable>;
    /// How many are still to be sent.
    async fn waiting(&self) -> Result<u64, Unavailable>;
}

/// What one batch brings to the ledger.
#[derive(Debug, Default)]
pub struct Postings {
    pub entries: Vec<Entry>,
    pub dead_letters: Vec<DeadLetter>,
    /// Dead letters that this batch makes good: they go.
    pub replayed: Vec<DeadLetterId>,
    /// Those that are new are put into the outbox.
    pub ship: bool,
}

/// One row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub event: UsageEvent,
    /// The backend is paid for by the hour: its requests cost nothing by the token.
    pub is_provisioned: bool,
    /// What its tokens cost; `None`: they have no price.
    pub rate: Option<Arc<Rate>>,
}

/// A digest of the message: it is kept once however often it is delivered.
pub type DeadLetterId = [u8; 32];

/// A delivered message that is not a usage event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub id: DeadLetterId,
    pub received_at: UnixMillis,
    pub reason: String,
    pub message: String,
}

/// What was posted on a day, as far as its rating goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rated {
    pub day: Date,
    pub deployment: String,
    pub model: Option<String>,
    pub backend: String,
    pub is_provisioned: bool,
    pub rate: Option<Arc<Rate>>,
    pub requests: u64,
    pub counts: Counts,
}

/// How the rows of a deployment, a model and a backend are to be rated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rerating {
    pub deployment: String,
    pub model: Option<String>,
    pub backend: String,
    pub is_provisioned: bool,
    pub rate: Option<Arc<Rate>>,
}

/// Which rows, in which groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumQuery {
    /// Inclusive.
    pub from: UnixMillis,
    /// Exclusive.
    pub to: UnixMillis,
    pub group_by: Vec<Group>,
}

/// A member that rows are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Subscription,
    Deployment,
    Model,
    Backend,
    Product,
    CostCenter,
    Day,
    Hour,
}

impl Group {
    pub const ALL: [Self; 8] = [
        Self::Subscription,
        Self::Deployment,
        Self::Model,
        Self::Backend,
        Self::Product,
        Self::CostCenter,
        Self::Day,
        Self::Hour,
    ];

    /// What it is called in a report and in its `group_by`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Subscription => "subscription",
            Self::Deployment => "deployment",
            Self::Model => "model",
            Self::Backend => "backend",
            Self::Product => "product",
            Self::CostCenter => "cost_center",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }
}

/// The sums of one group that also shares its rating.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// In the order of the query's groups; a day as `2026-11-21`, an hour as `2026-11-21T09:00:00Z`.
    pub group: Vec<Option<String>>,
    pub is_provisioned: bool,
    /// `None`: what was used has no price.
    pub rate: Option<Arc<Rate>>,
    pub requests: u64,
    /// Those that used anything: the others need no price.
    pub used_requests: u64,
    pub estimated_requests: u64,
    pub counts: Counts,
}
