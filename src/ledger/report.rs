//! Ledger rows → the usage report.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use time::{Date, Duration};

use super::Ledger;
use crate::domain::price::{Counts, PriceBook, Priced};
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
    pub input_tokens: u64,
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
    pub reasoning_tokens: u64,
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
        self.input_tokens += sums.input_tokens;
        self.cached_input_tokens += sums.cached_input_tokens;
        self.output_tokens += sums.output_tokens;
        self.reasoning_tokens += sums.reasoning_tokens;
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
            let cost = cost(&catalog.prices, &sums);
            total.add(&sums, cost);
            rows.entry(sums.group.clone()).or_default().add(&sums, cost);
        }
        let SumQuery { from, to, group_by } = query;
        let currency = catalog.currency.clone();
        Ok(UsageReport { currency, from, to, group_by, rows: rows.into_iter().collect(), total })
    }
}

/// What sums that share one price cost. Requests that used nothing, and those of provisioned
/// capacity, which is shared out in the chargeback, cost nothing.
fn cost(prices: &PriceBook, sums: &Sums) -> Option<Decimal> {
    if sums.is_provisioned || (sums.input_tokens == 0 && sums.output_tokens == 0) {
        return Some(Decimal::ZERO);
    }
    let day = Date::from_calendar_date(1970, time::Month::January, 1).ok()?;
    let what = Priced {
        deployment: &sums.deployment,
        model: sums.model.as_deref(),
        backend: &sums.backend,
        day: day.checked_add(Duration::days(sums.day))?,
    };
    prices.find(what)?.cost(Counts {
        input: sums.input_tokens,
        cached_input: sums.cached_input_tokens,
        output: sums.output_tokens,
        reasoning: sums.reasoning_tokens,
    })
}
