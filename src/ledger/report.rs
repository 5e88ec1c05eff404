//! Ledger rows → the usage report.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::Ledger;
use crate::domain::price::Counts;
use crate::domain::units::UnixMillis;
use crate::ports::{Group, SumQuery, Sums, Unavailable};

/// What was used in a time, in groups, and in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageReport {
    pub currency: String,
    pub from: UnixMillis,
    pub to: UnixMillis,
    pub group_by: Vec<Group>,
    pub rows: Vec<(Vec<Option<String>>, Totals)>,
    pub total: Totals,
}

/// The sums of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub requests: u64,
    pub estimated_requests: u64,
    pub counts: Counts,
    /// Of what has a price, exact and unrounded.
    pub priced_cost: Decimal,
    /// Requests whose tokens have no price.
    pub unpriced_requests: u64,
}

impl Totals {
    /// What everything cost; `None` when a part of it has no price.
    pub fn cost(&self) -> Option<Decimal> {
        (self.unpriced_requests == 0).then_some(self.priced_cost)
    }

    fn add(&mut self, sums: &Sums, cost: Option<Decimal>) {
        self.requests += sums.requests;
        self.estimated_requests += sums.estimated_requests;
        self.counts += sums.counts;
        match cost.and_then(|cost| self.priced_cost.checked_add(cost)) {
            Some(cost) => self.priced_cost = cost.normalize(),
            None => self.unpriced_requests += sums.used_requests,
        }
    }
}

impl Ledger {
    /// The usage of a time.
    ///
    /// # Errors
    /// When the store cannot be reached, or the prices have not been read.
    pub async fn usage(&self, query: SumQuery) -> Result<UsageReport, Unavailable> {
        let catalog = self.config.catalog()?;
        let mut rows: BTreeMap<Vec<Option<String>>, Totals> = BTreeMap::new();
        let mut total = Totals::default();
        for sums in self.store.sums(&query).await? {
            let cost = cost(&catalog.currency, &sums);
            total.add(&sums, cost);
            rows.entry(sums.group.clone()).or_default().add(&sums, cost);
        }
        let SumQuery { from, to, group_by } = query;
        let currency = catalog.currency.clone();
        Ok(UsageReport { currency, from, to, group_by, rows: rows.into_iter().collect(), total })
    }
}

/// What sums that share one rate cost, in this currency. Requests that used nothing, and those of provisioned
/// capacity, which is shared out in the chargeback, cost nothing.
fn cost(currency: &str, sums: &Sums) -> Option<Decimal> {
    if sums.is_provisioned || sums.counts.is_nothing() {
        return Some(Decimal::ZERO);
    }
    sums.rate.as_ref().filter(|rate| rate.terms().currency == currency)?.cost(sums.counts)
}
