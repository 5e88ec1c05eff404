//! Would provisioned capacity be cheaper at this load?
//!
//! The load of the last four weeks, hour by hour: what fits into so many units is paid for by the hour, what does not goes on
//! being paid for by the token. As many units are proposed as cost least together. Azure sells units in steps and with
//! terms that are not known here: this is arithmetic, not an offer.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::decimal;
use crate::config::catalog::{Billing, Catalog};
use crate::domain::apportion;
use crate::domain::capacity::{Capacity, Used};
use crate::domain::units::UnixMillis;
use crate::ledger::{Ledger, report};
use crate::ports::{Group, SumQuery, Sums, Unavailable};

/// Four weeks: every weekday as often.
const HOURS: u32 = 4 * 7 * 24;
/// A month of them, as Azure reckons its prices: 730 hours.
const HOURS_A_MONTH: u32 = 730;
/// More units than this nobody is advised to buy.
const MAX_UNITS: u32 = 100_000;

/// What the load of the last four weeks says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advice {
    /// Of what is paid for by the token.
    pub loads: Vec<Load>,
    /// Of what is paid for by the hour already.
    pub capacities: Vec<Kept>,
}

/// A deployment that is paid for by the token.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    pub deployment: String,
    pub model: Option<String>,
    pub backend: String,
    /// In input tokens, as units count them.
    pub mean_tokens_per_minute: f64,
    /// Of the busiest hour.
    pub peak_tokens_per_minute: f64,
    /// At this load; `None`: not all of it has a price.
    pub pay_as_you_go_month: Option<Decimal>,
    pub offer: Result<Offer, &'static str>,
}

/// The units that cost least.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The backend whose price and throughput of a unit this is reckoned with.
    pub like: String,
    pub hourly_price_per_unit: Decimal,
    pub tokens_per_minute_per_unit: u64,
    /// 0: none would pay.
    pub units: u32,
    pub units_month: Decimal,
    /// What does not fit, still by the token.
    pub spilled_month: Decimal,
    pub saved_month: Decimal,
    /// One unit, used wholly all the time, would take so much of the cost by the token.
    pub full_unit_worth_month: Decimal,
}

/// Capacity, and what its tokens would have cost by the token.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub backend: String,
    pub units: u32,
    pub capacity_month: Decimal,
    /// `None`: not all of it has a price.
    pub pay_as_you_go_month: Option<Decimal>,
    /// How much of it was used, from 0 to 1; `None`: it is not known what a unit takes.
    pub used_share: Option<f64>,
}

/// An hour of a load.
#[derive(Clone, Copy, Debug, Default)]
struct Hour {
    used: Used,
    cost: f64,
}

/// What one unit costs and takes.
#[derive(Clone, Debug)]
struct Unit {
    like: String,
    hourly_price: Decimal,
    tokens_per_minute: u64,
}

impl Ledger {
    pub(super) async fn advice(&self, catalog: &Catalog, as_of: UnixMillis) -> Result<Advice, Unavailable> {
        let to = as_of.hour_start();
        let query = SumQuery {
            from: UnixMillis((to.0 - i64::from(HOURS) * 3_600_000).max(0)),
            to,
            group_by: vec![Group::Deployment, Group::Model, Group::Backend, Group::Hour],
            provisioned_only: false,
        };
        let sums = self.store.sums(&query).await?;
        Ok(Advice { loads: loads(catalog, &sums), capacities: kept(catalog, &sums) })
    }
}

fn loads(catalog: &Catalog, sums: &[Sums]) -> Vec<Load> {
    type Key<'a> = (&'a str, Option<&'a str>, &'a str);
    let mut hours: BTreeMap<Key<'_>, (BTreeMap<&str, Hour>, bool)> = BTreeMap::new();
    for sums in sums.iter().filter(|sums| !sums.is_provisioned && sums.used_requests > 0) {
        let [Some(deployment), model, Some(backend), Some(hour)] = sums.group.as_slice() else { continue };
        let (hours, is_priced) =
            hours.entry((deployment, model.as_deref(), backend)).or_insert((BTreeMap::new(), true));
        let cost = report::cost(&catalog.currency, sums).ok();
        *is_priced &= cost.is_some();
        let at = hours.entry(hour).or_default();
        at.used += Used::of(&sums.counts, sums.rate.as_deref());
        at.cost += cost.and_then(|cost| cost.to_f64()).unwrap_or_default();
    }
    let loads = hours.into_iter().map(|((deployment, model, backend), (hours, is_priced))| {
        let hours: Vec<_> = hours.into_values().collect();
        let tokens = hours.iter().map(|hour| hour.used.input_tokens());
        let decimals = apportion::decimals_of(&catalog.currency);
        let month =
            hours.iter().map(|hour| hour.cost).sum::<f64>() * f64::from(HOURS_A_MONTH) / f64::from(HOURS);
        Load {
            deployment: deployment.to_owned(),
            model: model.map(str::to_owned),
            backend: backend.to_owned(),
            mean_tokens_per_minute: tokens.clone().sum::<f64>() / f64::from(HOURS) / 60.0,
            peak_tokens_per_minute: tokens.fold(0.0, f64::max) / 60.0,
            pay_as_you_go_month: is_priced.then(|| apportion::to_money(decimal(month), decimals)),
            offer: match unit(catalog, deployment) {
                _ if !is_priced => Err("not all of its tokens have a price"),
                Err(missing) => Err(missing),
                Ok(unit) => Ok(offer(&hours, &unit, decimals)),
            },
        }
    });
    loads.collect()
}

/// The unit of provisioned capacity that has this deployment.
fn unit(catalog: &Catalog, deployment: &str) -> Result<Unit, &'static str> {
    let has =
        |names: &Option<BTreeMap<_, _>>| names.as_ref().is_none_or(|names| names.contains_key(deployment));
    let mut missing = "no backend of the kind `provisioned` has this deployment: its price and its \
                       `tokens_per_minute_per_unit` would be reckoned with";
    for backend in catalog.backends.iter().filter(|backend| has(&backend.deployments)) {
        match backend.billing {
            Billing::Provisioned {
                hourly_price_per_unit, tokens_per_minute_per_unit: Some(tokens), ..
            } => {
                let like = backend.name.as_str().to_owned();
                return Ok(Unit { like, hourly_price: hourly_price_per_unit, tokens_per_minute: tokens });
            }
            Billing::Provisioned { .. } => {
                missing =
                    "the provisioned backend that has this deployment says no `tokens_per_minute_per_unit`";
            }
            Billing::PayAsYouGo => {}
        }
    }
    Err(missing)
}

/// What so many units leave to be paid for by the token, over all hours.
fn spilled(hours: &[Hour], unit_tokens: f64, units: u32) -> f64 {
    let fits = unit_tokens * f64::from(units);
    let of_hour = |hour: &Hour| {
        let tokens = hour.used.input_tokens();
        if tokens > fits { hour.cost * (1.0 - fits / tokens) } else { 0.0 }
    };
    hours.iter().map(of_hour).sum()
}

fn offer(hours: &[Hour], unit: &Unit, decimals: u32) -> Offer {
    let unit_tokens = unit.tokens_per_minute.to_f64().unwrap_or(f64::INFINITY) * 60.0;
    let unit_price = unit.hourly_price.to_f64().unwrap_or_default() * f64::from(HOURS);
    let total = |units: u32| unit_price * f64::from(units) + spilled(hours, unit_tokens, units);
    let peak = hours.iter().map(|hour| hour.used.input_tokens()).fold(0.0, f64::max);
    let enough = (peak / unit_tokens).ceil().to_u32().unwrap_or(MAX_UNITS).min(MAX_UNITS);
    // Each unit takes less than the one before: the sum falls, then rises.
    let (mut least, mut most) = (0, enough);
    while least < most {
        let middle = least + (most - least) / 2;
        if total(middle + 1) < total(middle) {
            least = middle + 1;
        } else {
            most = middle;
        }
    }
    let units = least;
    let of_month = |cost: f64| decimal((cost * f64::from(HOURS_A_MONTH) / f64::from(HOURS)).max(0.0));
    let money = |cost: f64| apportion::to_money(of_month(cost), decimals);
    let tokens: f64 = hours.iter().map(|hour| hour.used.input_tokens()).sum();
    let cost: f64 = hours.iter().map(|hour| hour.cost).sum();
    let worth = if tokens > 0.0 { cost / tokens * unit_tokens * f64::from(HOURS) } else { 0.0 };
    Offer {
        like: unit.like.clone(),
        hourly_price_per_unit: unit.hourly_price,
        tokens_per_minute_per_unit: unit.tokens_per_minute,
        units,
        units_month: money(unit_price * f64::from(units)),
        spilled_month: money(spilled(hours, unit_tokens, units)),
        saved_month: money(cost - total(units)),
        full_unit_worth_month: money(worth),
    }
}

fn kept(catalog: &Catalog, sums: &[Sums]) -> Vec<Kept> {
    let decimals = apportion::decimals_of(&catalog.currency);
    let of_backend = |(name, capacity): (String, Capacity)| {
        let of_it = sums.iter().filter(|sums| {
            sums.is_provisioned && sums.group.get(2).is_some_and(|backend| backend.as_ref() == Some(&name))
        });
        let mut used: BTreeMap<&Option<String>, Used> = BTreeMap::new();
        let mut cost = Some(Decimal::ZERO);
        for sums in of_it {
            *used.entry(&sums.group[3]).or_default() += Used::of(&sums.counts, sums.rate.as_deref());
            let by_token = Sums { is_provisioned: false, ..sums.clone() };
            let by_token = report::cost(&catalog.currency, &by_token).ok();
            cost = cost.and_then(|sum| sum.checked_add(by_token?));
        }
        let month = Decimal::from(HOURS_A_MONTH);
        let hours = Decimal::from(HOURS);
        let in_hours = capacity.hourly_weight().and_then(|weight| weight.to_f64());
        let used_share = in_hours.map(|all| {
            let hours = used.values().map(|used| (used.weight.to_f64().unwrap_or_default() / all).min(1.0));
            hours.sum::<f64>() / f64::from(HOURS)
        });
        Kept {
            backend: name,
            units: capacity.units,
            capacity_month: apportion::to_money(capacity.hourly_cost * month, decimals),
            pay_as_you_go_month: cost
                .and_then(|cost| cost.checked_mul(month)?.checked_div(hours))
                .map(|cost| apportion::to_money(cost, decimals)),
            used_share,
        }
    };
    catalog.capacities().into_iter().map(of_backend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::price::Counts;

    /// So many million input tokens in an hour, at a dollar a million.
    fn hour(millions: u32) -> Hour {
        let counts = Counts { input_tokens: u64::from(millions) * 1_000_000, ..Counts::default() };
        Hour { used: Used::of(&counts, None), cost: f64::from(millions) }
    }

    fn unit(hourly_price: &str) -> Unit {
        // A million tokens in an hour.
        Unit {
            like: "ptu".to_owned(),
            hourly_price: hourly_price.parse().unwrap(),
            tokens_per_minute: 16_667,
        }
    }

    #[test]
    fn units_are_bought_for_the_load_that_is_always_there() {
        // Two millions in each hour, ten in one of eight.
        let hours: Vec<_> = (0..HOURS).map(|at| hour(if at % 8 == 0 { 10 } else { 2 })).collect();
        let offer = offer(&hours, &unit("0.50"), 2);
        assert_eq!((offer.units, offer.units_month.to_string().as_str()), (2, "730.00"));
        // Of 2,190 a month: eight of ten millions in one of eight hours.
        assert_eq!(offer.spilled_month.round().to_string(), "730");
        assert_eq!(offer.saved_month.round().to_string(), "730");
        assert_eq!(offer.full_unit_worth_month.round().to_string(), "730");
        for units in [0, 1, 3, 9] {
            let cost = |units: u32| 0.5 * f64::from(units * HOURS) + spilled(&hours, 16_667.0 * 60.0, units);
            assert!(cost(units) >= cost(offer.units), "{units}");
        }
    }

    #[test]
    fn a_unit_that_costs_more_than_its_tokens_is_never_bought() {
        let hours: Vec<_> = (0..HOURS).map(|_| hour(3)).collect();
        let offer = offer(&hours, &unit("1.01"), 2);
        assert_eq!((offer.units, offer.saved_month.to_string().as_str()), (0, "0.00"));
    }
}
