//! Ledger rows → who pays what of a month.
//!
//! Made of hourly totals alone, never of rows. Every request is in exactly one line, and the lines add up to the total
//! exactly, in whatever groups: what has no price stands in lines of its own, never silently free, and so does capacity
//! that nobody used.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;

use super::Ledger;
use super::report::Unpriced;
use crate::domain::calendar::Month;
use crate::domain::capacity::Capacity;
use crate::domain::price::Counts;
use crate::domain::units::UnixMillis;
use crate::ports::{Group, SumQuery, Sums, Unavailable};

mod books;

pub(super) use books::Books;

/// Who pays what of a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chargeback {
    pub month: Month,
    pub from: UnixMillis,
    /// The month's end, or now.
    pub to: UnixMillis,
    pub currency: String,
    /// What an hour of each capacity cost.
    pub capacities: BTreeMap<String, Capacity>,
    /// The finest that is known, in their order.
    pub charges: Vec<Charge>,
    /// By cost centre, subscription and product; then what has no price, then what was idle.
    pub lines: Vec<Line>,
    pub cost_centers: Vec<CostCenter>,
    pub total: Sum,
    /// Of the total: what nobody used.
    pub idle_cost: Decimal,
    /// The total in coins: the sum of the lines'.
    pub cost_rounded: Decimal,
}

/// What somebody pays for one deployment, model and backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub key: Key,
    pub sum: Sum,
}

/// What a charge is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    /// `None`: nobody used it.
    pub payer: Option<Payer>,
    /// `None` for capacity, which several may share.
    pub deployment: Option<String>,
    pub model: Option<String>,
    pub backend: Option<String>,
}

/// Who pays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payer {
    pub cost_center: Option<String>,
    /// Its id.
    pub subscription: String,
    pub product: String,
}

/// How a charge comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Paid for by the token.
    Usage,
    /// A share of provisioned capacity.
    Provisioned,
    /// Its cost is not known.
    Unpriced(Unpriced),
    /// Capacity that nobody used.
    Idle,
}

impl Kind {
    /// What it is called in a report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Provisioned => "provisioned",
            Self::Unpriced(_) => "unpriced",
            Self::Idle => "idle",
        }
    }
}

/// What was used, and what it costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub requests: u64,
    pub estimated_requests: u64,
    /// Those whose tokens have no price.
    pub unpriced_requests: u64,
    pub counts: Counts,
    /// By the token.
    pub usage_cost: Decimal,
    /// By the hour.
    pub provisioned_cost: Decimal,
}

impl Sum {
    /// Exact and unrounded.
    pub fn cost(&self) -> Decimal {
        (self.usage_cost + self.provisioned_cost).normalize()
    }

    fn count(&mut self, sums: &Sums) {
        self.requests += sums.requests;
        self.estimated_requests += sums.estimated_requests;
        self.counts += sums.counts;
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.estimated_requests += other.estimated_requests;
        self.unpriced_requests += other.unpriced_requests;
        self.counts += other.counts;
        self.usage_cost = (self.usage_cost + other.usage_cost).normalize();
        self.provisioned_cost = (self.provisioned_cost + other.provisioned_cost).normalize();
    }
}

/// A line of the report. One of the kind `usage` has its share of capacity in it, and names no deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub key: Key,
    /// As it is called now; `None`: there is no such subscription.
    pub subscription_name: Option<String>,
    pub sum: Sum,
    /// In coins; those of all lines add up to the total's.
    pub cost_rounded: Decimal,
}

/// What the subscriptions of a cost centre pay together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostCenter {
    /// `None`: of subscriptions that have none.
    pub name: Option<String>,
    pub sum: Sum,
    pub cost_rounded: Decimal,
}

const WHOSE: [Group; 3] = [Group::CostCenter, Group::Subscription, Group::Product];

impl Ledger {
    /// Who pays what of a month; of this one what is known until now.
    ///
    /// # Errors
    /// When the store cannot be reached, or the prices have not been read.
    pub async fn chargeback(&self, month: Month) -> Result<Chargeback, Unavailable> {
        let catalog = self.config.catalog()?;
        let books = self.books(month, catalog.capacities(), catalog.currency.clone()).await?;
        let mut chargeback = books.chargeback();
        let payers = chargeback.lines.iter().filter_map(|line| line.key.payer.as_ref());
        let ids: BTreeSet<_> = payers.map(|payer| payer.subscription.clone()).collect();
        let known = self.known(&ids).await?;
        for line in &mut chargeback.lines {
            let found = line.key.payer.as_ref().and_then(|payer| known.get(&payer.subscription));
            line.subscription_name = found.map(|found| found.name.clone());
        }
        Ok(chargeback)
    }

    /// What the chargeback of a month is made of, until now.
    pub(super) async fn books(
        &self,
        month: Month,
        capacities: BTreeMap<String, Capacity>,
        currency: String,
    ) -> Result<Books, Unavailable> {
        // What was used in this very millisecond is part of "until now".
        let now = UnixMillis(self.clock.now().0 + 1);
        let to = now.clamp(month.start(), month.end());
        let group_by = [&WHOSE[..], &[Group::Deployment, Group::Model, Group::Backend]].concat();
        let query = SumQuery { from: month.start(), to, group_by, provisioned_only: false };
        let hours_to = to.hour_start();
        let group_by = [&WHOSE[..], &[Group::Backend, Group::Hour]].concat();
        let of_capacity = SumQuery { from: month.start(), to: hours_to, group_by, provisioned_only: true };
        let by_hour = async {
            if capacities.is_empty() { Ok(Vec::new()) } else { self.store.sums(&of_capacity).await }
        };
        let (used, by_hour) = futures_util::future::try_join(self.store.sums(&query), by_hour).await?;
        let hours = month.start().hours_until(hours_to);
        Ok(Books { month, to, currency, capacities, hours, used, by_hour })
    }
}
