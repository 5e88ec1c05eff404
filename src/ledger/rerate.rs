//! Rating a past period anew, after prices were put right.
//!
//! Nothing rates the past by itself: a report that finance has seen changes only when somebody says so, and
//! after they were shown by how much.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rust_decimal::Decimal;
use time::Date;

use super::Ledger;
use crate::domain::price::{Priced, Rate};
use crate::ports::{Rated, Rerating, Unavailable};

/// What another rating changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    pub currency: String,
    /// By deployment, model and backend, in their order. Only what changes.
    pub lines: Vec<Line>,
    /// Requests of the whole time, changed or not, and their cost.
    pub requests: u64,
    pub before: Sum,
    pub after: Sum,
}

/// What changes for one deployment, model and backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub deployment: String,
    pub model: Option<String>,
    pub backend: String,
    /// Those that are rated otherwise.
    pub requests: u64,
    /// Of those, as they are.
    pub before: Sum,
    /// Of those, as they would be.
    pub after: Sum,
}

/// Money, and the requests that have no price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub cost: Decimal,
    pub unpriced_requests: u64,
}

impl Sum {
    fn add(&mut self, rated: &Rated, rate: Option<&Arc<Rate>>, is_provisioned: bool, currency: &str) {
        if is_provisioned || rated.counts.is_nothing() {
            return;
        }
        let cost = rate.filter(|rate| rate.terms().currency == currency);
        match cost.and_then(|rate| self.cost.checked_add(rate.cost(rated.counts)?)) {
            Some(cost) => self.cost = cost.normalize(),
            None => self.unpriced_requests += rated.requests,
        }
    }
}

impl Ledger {
    /// What today's price book would change on UTC days, from the first to the one before `to`.
    ///
    /// # Errors
    /// When the store cannot be reached, or the prices have not been read.
    pub async fn preview_rerating(&self, from: Date, to: Date) -> Result<Preview, Unavailable> {
        let catalog = self.config.catalog()?;
        let currency = catalog.currency.clone();
        let mut preview = Preview { currency: currency.clone(), ..Preview::default() };
        let mut lines: BTreeMap<_, Line> = BTreeMap::new();
        for rated in self.ratings.rated(from, to).await? {
            let next = self.next(&rated)?;
            preview.requests += rated.requests;
            preview.before.add(&rated, rated.rate.as_ref(), rated.is_provisioned, &currency);
            preview.after.add(&rated, next.rate.as_ref(), next.is_provisioned, &currency);
            if !changes(&rated, &next) {
                continue;
            }
            let key = (rated.deployment.clone(), rated.model.clone(), rated.backend.clone());
            let line = lines.entry(key).or_insert_with(|| Line {
                deployment: rated.deployment.clone(),
                model: rated.model.clone(),
                backend: rated.backend.clone(),
                requests: 0,
                before: Sum::default(),
                after: Sum::default(),
            });
            line.requests += rated.requests;
            line.before.add(&rated, rated.rate.as_ref(), rated.is_provisioned, &currency);
            line.after.add(&rated, next.rate.as_ref(), next.is_provisioned, &currency);
        }
        preview.lines = lines.into_values().collect();
        Ok(preview)
    }

    /// Rates UTC days with today's price book, one day after the other; says how many rows have changed.
    ///
    /// # Errors
    /// When the store cannot be reached; days that were rated until then stay so, and can be rated again.
    pub async fn rerate(&self, from: Date, to: Date) -> Result<u64, Unavailable> {
        let mut changes_by_day: BTreeMap<Date, Vec<Rerating>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for rated in self.ratings.rated(from, to).await? {
            let next = self.next(&rated)?;
            let is_new = changes(&rated, &next)
                && seen.insert((rated.day, rated.deployment, rated.model, rated.backend));
            if is_new {
                changes_by_day.entry(rated.day).or_default().push(next);
            }
        }
        let mut changed = 0;
        for (day, changes) in changes_by_day {
            changed += self.ratings.rerate(day, &changes).await?;
        }
        Ok(changed)
    }

    fn next(&self, rated: &Rated) -> Result<Rerating, Unavailable> {
        let catalog = self.config.catalog()?;
        let rate = catalog.rate(Priced {
            deployment: &rated.deployment,
            model: rated.model.as_deref(),
            backend: &rated.backend,
            day: rated.day,
        });
        Ok(Rerating {
            deployment: rated.deployment.clone(),
            model: rated.model.clone(),
            backend: rated.backend.clone(),
            // How a backend was paid for then is not known any more once its configuration has gone.
            is_provisioned: if catalog.knows_backend(&rated.backend) {
                catalog.is_provisioned(&rated.backend)
            } else {
                rated.is_provisioned
            },
            rate,
        })
    }
}

fn changes(rated: &Rated, next: &Rerating) -> bool {
    rated.rate != next.rate || rated.is_provisioned != next.is_provisioned
}
