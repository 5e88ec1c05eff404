//! Ledger rows → where this month ends, by subscription and in all, and whether provisioned capacity would be cheaper.
//!
//! What was used so far is exact; what is still to come is an estimate, and never booked anywhere.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive as _, ToPrimitive as _};
use time::{Date, Duration};

use super::Ledger;
use super::chargeback::{Chargeback, Kind};
use super::report;
use crate::config::catalog::Catalog;
use crate::domain::apportion;
use crate::domain::calendar::{self, Month};
use crate::domain::forecast::{self, Backtest, Basis, Past};
use crate::domain::limit::{Budget, Period};
use crate::domain::subscription::Subscription;
use crate::domain::units::UnixMillis;
use crate::ports::{Group, SumQuery, Unavailable};

pub mod advice;

use advice::Advice;

const DAY_MILLIS: f64 = 86_400_000.0;

/// Where this month ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    pub month: Month,
    pub as_of: UnixMillis,
    pub currency: String,
    /// Foreseen by itself: its range is narrower than those of the subscriptions together.
    pub total: Projection,
    /// Of this month, the dearest first.
    pub subscriptions: Vec<OfSubscription>,
    pub advice: Advice,
}

/// Where the cost of a subscription ends.
#[derive(Clone, Debug, PartialEq)]
pub struct OfSubscription {
    pub id: String,
    pub name: Option<String>,
    pub projection: Projection,
    pub budget: Option<OfBudget>,
}

/// Money so far, exact, and at the month's end, in coins.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    pub usage_so_far: Decimal,
    /// Capacity's full hours; of the total with what was idle.
    pub provisioned_so_far: Decimal,
    pub usage_month_end: Decimal,
    pub provisioned_month_end: Decimal,
    /// Both together.
    pub month_end: Decimal,
    /// Of the month's end: it lies between them 80 of 100 times.
    pub low: Decimal,
    pub high: Decimal,
    pub unpriced_requests: u64,
    pub basis: Basis,
    pub backtest: Backtest,
}

/// How a month's budget fares. It is spent by the token: capacity is paid for either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfBudget {
    pub amount: Decimal,
    /// Of the amount, so far and at the month's end; with four decimals.
    pub spent_share: Decimal,
    pub month_end_share: Decimal,
    /// The day on which it is, or was, spent; `None`: not in this month.
    pub runs_out_on: Option<Date>,
}

/// Costs by day, and how many requests have none.
#[derive(Clone, Debug, Default)]
struct Series {
    costs: BTreeMap<Date, Decimal>,
    unpriced_requests: u64,
}

/// The moment from which is looked ahead.
#[derive(Clone, Copy, Debug)]
struct Now {
    month: Month,
    today: Date,
    /// How much of today is over.
    elapsed: f64,
    decimals: u32,
}

impl Ledger {
    /// Where this month ends.
    ///
    /// # Errors
    /// When the store cannot be reached, or the prices have not been read.
    pub async fn forecast(&self) -> Result<Forecast, Unavailable> {
        let catalog = self.config.catalog()?;
        let as_of = self.clock.now();
        let today = as_of.to_datetime().date();
        let now = Now {
            month: Month::of(as_of),
            today,
            elapsed: millis(as_of.0 - calendar::start_of(today).0) / DAY_MILLIS,
            decimals: apportion::decimals_of(&catalog.currency),
        };
        let series = self.series(&catalog, now, as_of).await?;
        let books = self.books(now.month, catalog.capacities(), catalog.currency.clone()).await?;
        let capacity = OfCapacity::of(&books.chargeback(), now.month, as_of);
        let ids = series.keys().chain(capacity.shares.keys()).cloned().collect();
        let known = self.known(&ids).await?;
        let mut subscriptions: Vec<_> = ids
            .into_iter()
            .filter_map(|id| of_subscription(&id, &series, &capacity, now).map(|made| (id, made)))
            .map(|(id, (projection, past))| {
                let found = known.get(&id);
                let budget = found.and_then(|found| month_budget(&catalog, found));
                let budget = budget.map(|budget| of_budget(&budget, &past, now));
                OfSubscription { name: found.map(|found| found.name.clone()), id, projection, budget }
            })
            .collect();
        subscriptions.sort_by_key(|one| Reverse(one.projection.month_end));
        let total = all_of(&series);
        let total = total.projection(now, (capacity.cost_so_far, capacity.cost_month_end)).0;
        let advice = self.advice(&catalog, as_of).await?;
        let currency = catalog.currency.clone();
        Ok(Forecast { month: now.month, as_of, currency, total, subscriptions, advice })
    }

    /// What each subscription cost by the token, by day.
    async fn series(
        &self,
        catalog: &Catalog,
        now: Now,
        as_of: UnixMillis,
    ) -> Result<BTreeMap<String, Series>, Unavailable> {
        let days = i64::try_from(forecast::HISTORY_DAYS).unwrap_or(0);
        let first = now.today.checked_sub(Duration::days(days)).unwrap_or(Date::MIN);
        let query = SumQuery {
            from: calendar::start_of(first).max(UnixMillis(0)),
            to: UnixMillis(as_of.0 + 1),
            group_by: vec![Group::Subscription, Group::Day],
            provisioned_only: false,
        };
        let mut series: BTreeMap<String, Series> = BTreeMap::new();
        for sums in self.store.sums(&query).await? {
            let [Some(id), Some(day)] = sums.group.as_slice() else { continue };
            let Some(day) = calendar::day(day) else { continue };
            let of_one = series.entry(id.clone()).or_default();
            match report::cost(&catalog.currency, &sums) {
                Ok(cost) => *of_one.costs.entry(day).or_default() += cost,
                Err(_) if Month::of_date(day) == now.month => of_one.unpriced_requests += sums.used_requests,
                Err(_) => {}
            }
        }
        Ok(series)
    }
}

/// A span of time as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "less than a day of milliseconds")]
fn millis(span: i64) -> f64 {
    span as f64
}

/// What capacity costs in this month: so far by the hours that are over, at its end by all of them.
struct OfCapacity {
    /// By subscription.
    shares: BTreeMap<String, Decimal>,
    cost_so_far: Decimal,
    cost_month_end: Decimal,
    /// The whole month, in parts of what of it is over; `None`: not an hour is.
    rest: Option<Decimal>,
}

impl OfCapacity {
    fn of(chargeback: &Chargeback, month: Month, as_of: UnixMillis) -> Self {
        let mut shares: BTreeMap<String, Decimal> = BTreeMap::new();
        for charge in chargeback.charges.iter().filter(|charge| charge.key.kind == Kind::Provisioned) {
            if let Some(payer) = &charge.key.payer {
                *shares.entry(payer.subscription.clone()).or_default() += charge.sum.provisioned_cost;
            }
        }
        let hourly: Decimal = chargeback.capacities.values().map(|capacity| capacity.hourly_cost).sum();
        let hours = Decimal::from(month.start().hours_until(as_of));
        let all_hours = Decimal::from(month.hours());
        Self {
            shares,
            cost_so_far: chargeback.total.provisioned_cost,
            cost_month_end: hourly * all_hours,
            rest: all_hours.checked_div(hours),
        }
    }

    /// A subscription's share so far, and at the month's end if it goes on like this.
    fn of_one(&self, id: &str) -> (Decimal, Decimal) {
        let so_far = self.shares.get(id).copied().unwrap_or_default();
        (so_far, self.rest.and_then(|rest| so_far.checked_mul(rest)).unwrap_or(so_far))
    }
}

fn of_subscription(
    id: &str,
    series: &BTreeMap<String, Series>,
    capacity: &OfCapacity,
    now: Now,
) -> Option<(Projection, Path)> {
    let nothing = Series::default();
    let made = series.get(id).unwrap_or(&nothing).projection(now, capacity.of_one(id));
    let (of_it, nothing) = (&made.0, Decimal::ZERO);
    let is_of_this_month =
        of_it.usage_so_far > nothing || of_it.month_end > nothing || of_it.unpriced_requests > 0;
    is_of_this_month.then_some(made)
}

fn all_of(series: &BTreeMap<String, Series>) -> Series {
    let mut all = Series::default();
    for one in series.values() {
        all.unpriced_requests += one.unpriced_requests;
        for (day, cost) in &one.costs {
            *all.costs.entry(*day).or_default() += *cost;
        }
    }
    all
}

/// The month's days: what they cost, and what they are expected to.
struct Path {
    so_far: Decimal,
    spent: Vec<(Date, Decimal)>,
    expected: Vec<(Date, f64)>,
    month_end: Decimal,
}

impl Series {
    /// Of complete days from the first on, without a gap.
    fn days(&self, today: Date) -> Vec<f64> {
        let Some((first, _)) = self.costs.first_key_value() else { return Vec::new() };
        let until_today = (today - *first).whole_days().max(0);
        let day = |number| first.checked_add(Duration::days(number)).and_then(|day| self.costs.get(&day));
        (0..until_today).map(|number| day(number).and_then(Decimal::to_f64).unwrap_or_default()).collect()
    }

    fn projection(
        &self,
        now: Now,
        (provisioned_so_far, provisioned_end): (Decimal, Decimal),
    ) -> (Projection, Path) {
        let spent: Vec<_> =
            self.costs.range(now.month.first_day()..).map(|(day, cost)| (*day, *cost)).collect();
        let so_far: Decimal = spent.iter().map(|(_, cost)| *cost).sum();
        let days = self.days(now.today);
        let past = Past {
            days: &days,
            today: self.costs.get(&now.today).and_then(Decimal::to_f64).unwrap_or_default(),
            elapsed: now.elapsed,
            weekday: usize::from(now.today.weekday().number_days_from_monday()),
        };
        let left = usize::from(now.month.days() - now.today.day());
        let outlook = forecast::outlook(&past, left);
        let rest: f64 = outlook.days.iter().sum();
        let money = |rest: f64| apportion::to_money(so_far + decimal(rest.max(0.0)), now.decimals);
        let provisioned_month_end = apportion::to_money(provisioned_end, now.decimals);
        let usage_month_end = money(rest);
        let projection = Projection {
            usage_so_far: so_far.normalize(),
            provisioned_so_far: provisioned_so_far.normalize(),
            usage_month_end,
            provisioned_month_end,
            month_end: usage_month_end + provisioned_month_end,
            low: money(rest - outlook.spread) + provisioned_month_end,
            high: money(rest + outlook.spread) + provisioned_month_end,
            unpriced_requests: self.unpriced_requests,
            basis: outlook.basis,
            backtest: outlook.backtest,
        };
        let expected = (0..)
            .zip(outlook.days)
            .filter_map(|(number, cost)| Some((now.today.checked_add(Duration::days(number))?, cost)));
        (projection, Path { so_far, spent, expected: expected.collect(), month_end: usage_month_end })
    }
}

/// An estimate as money. Beyond what a decimal holds it is the largest that it does hold, without a meaning.
fn decimal(amount: f64) -> Decimal {
    const MOST: i64 = 1_000_000_000_000_000;
    Decimal::from_f64(amount).unwrap_or(Decimal::from(MOST)).min(Decimal::from(MOST))
}

/// A subscription's own, else its product's. Budgets of other periods than a month are not foreseen.
fn month_budget(catalog: &Catalog, subscription: &Subscription) -> Option<Budget> {
    let of_product = || catalog.products.get(&subscription.product)?.limits.budget.clone();
    subscription.limits.budget.clone().or_else(of_product).filter(|budget| budget.period == Period::Month)
}

fn of_budget(budget: &Budget, path: &Path, now: Now) -> OfBudget {
    let share = |part: Decimal| part.checked_div(budget.amount).unwrap_or_default().round_dp(4).normalize();
    let mut sum = Decimal::ZERO;
    let spent_on = path.spent.iter().find(|(_, cost)| {
        sum += *cost;
        sum >= budget.amount
    });
    let mut sum = path.so_far.to_f64().unwrap_or_default();
    let amount = budget.amount.to_f64().unwrap_or(f64::INFINITY);
    let will_be = path.expected.iter().find(|(_, cost)| {
        sum += *cost;
        sum >= amount
    });
    let runs_out_on = spent_on.map(|(day, _)| *day).or(will_be.map(|(day, _)| *day));
    OfBudget {
        amount: budget.amount,
        spent_share: share(path.so_far),
        month_end_share: share(path.month_end),
        runs_out_on: runs_out_on.filter(|day| Month::of_date(*day) == now.month),
    }
}
