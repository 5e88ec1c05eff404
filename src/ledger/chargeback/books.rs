//! Sums of a month → charges and lines. Nothing is asked for here: what goes in says what comes out.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::{Charge, Chargeback, CostCenter, Key, Kind, Line, Payer, Sum};
use crate::domain::apportion;
use crate::domain::calendar::Month;
use crate::domain::capacity::{self, Capacity, Used};
use crate::domain::units::UnixMillis;
use crate::ledger::report::{self, Unpriced};
use crate::ports::Sums;

/// What the chargeback of a month is made of.
pub(in crate::ledger) struct Books {
    pub(super) month: Month,
    pub(super) to: UnixMillis,
    pub(super) currency: String,
    /// By the backend that has it.
    pub(super) capacities: BTreeMap<String, Capacity>,
    /// Full hours of the month that are over.
    pub(super) hours: u32,
    /// By cost centre, subscription, product, deployment, model and backend.
    pub(super) used: Vec<Sums>,
    /// Of provisioned capacity, by cost centre, subscription, product, backend and hour.
    pub(super) by_hour: Vec<Sums>,
}

impl Books {
    pub(in crate::ledger) fn chargeback(self) -> Chargeback {
        let mut charges: BTreeMap<Key, Sum> = BTreeMap::new();
        for sums in &self.used {
            let (key, cost) = self.charge_of(sums);
            let sum = charges.entry(key).or_default();
            sum.count(sums);
            match cost {
                Ok(cost) => sum.usage_cost = (sum.usage_cost + cost).normalize(),
                Err(_) => sum.unpriced_requests += sums.used_requests,
            }
        }
        for (key, cost) in self.shares() {
            charges.entry(key).or_default().provisioned_cost += cost;
        }
        let charges: Vec<_> = charges.into_iter().map(|(key, sum)| Charge { key, sum }).collect();
        let lines = lines(&charges, apportion::decimals_of(&self.currency));
        let mut total = Sum::default();
        for line in &lines {
            total.add(&line.sum);
        }
        let idle = lines.iter().filter(|line| line.key.kind == Kind::Idle);
        Chargeback {
            idle_cost: idle.map(|line| line.sum.cost()).sum::<Decimal>().normalize(),
            cost_rounded: lines.iter().map(|line| line.cost_rounded).sum(),
            cost_centers: cost_centers(&lines),
            month: self.month,
            from: self.month.start(),
            to: self.to,
            currency: self.currency,
            capacities: self.capacities,
            charges,
            lines,
            total,
        }
    }

    /// What sums are charged as, and what they cost by the token.
    fn charge_of(&self, sums: &Sums) -> (Key, Result<Decimal, Unpriced>) {
        let [deployment, model, backend] = [3, 4, 5].map(|at| sums.group.get(at).cloned().flatten());
        let has_capacity = backend.as_ref().is_some_and(|backend| self.capacities.contains_key(backend));
        let cost = if sums.is_provisioned && !has_capacity && !sums.counts.is_nothing() {
            Err(Unpriced::CapacityNotConfigured)
        } else {
            report::cost(&self.currency, sums)
        };
        let kind = match cost {
            Err(reason) => Kind::Unpriced(reason),
            Ok(_) if sums.is_provisioned && has_capacity => Kind::Provisioned,
            Ok(_) => Kind::Usage,
        };
        let payer = Some(payer(sums));
        let key = match kind {
            Kind::Provisioned => Key { kind, payer, deployment: None, model: None, backend },
            _ => Key { kind, payer, deployment, model, backend },
        };
        (key, cost)
    }

    /// What the hours of each capacity cost whom.
    fn shares(&self) -> BTreeMap<Key, Decimal> {
        // By backend and hour, then by who used it.
        let mut hours: BTreeMap<(&str, &str), BTreeMap<Payer, Used>> = BTreeMap::new();
        for sums in &self.by_hour {
            if let [_, _, _, Some(backend), Some(hour)] = sums.group.as_slice() {
                let used = Used::of(&sums.counts, sums.rate.as_deref());
                *hours.entry((backend, hour)).or_default().entry(payer(sums)).or_default() += used;
            }
        }
        let mut shares: BTreeMap<Key, Decimal> = BTreeMap::new();
        for (backend, capacity) in &self.capacities {
            let mut pay = |kind, payer: Option<Payer>, cost: Decimal| {
                let key = Key { kind, payer, deployment: None, model: None, backend: Some(backend.clone()) };
                *shares.entry(key).or_default() += cost;
            };
            let mut unused_hours = self.hours;
            for (_, users) in hours.range((backend.as_str(), "")..).take_while(|((of, _), _)| of == backend) {
                unused_hours = unused_hours.saturating_sub(1);
                let used: Vec<_> = users.values().copied().collect();
                let (costs, idle) = capacity::share_hour(capacity, &used);
                for (payer, cost) in users.keys().zip(costs) {
                    pay(Kind::Provisioned, Some(payer.clone()), cost);
                }
                pay(Kind::Idle, None, idle);
            }
            pay(Kind::Idle, None, capacity.hourly_cost * Decimal::from(unused_hours));
        }
        shares.retain(|key, cost| key.kind != Kind::Idle || !cost.is_zero());
        shares
    }
}

fn payer(sums: &Sums) -> Payer {
    let text = |at: usize| sums.group.get(at).cloned().flatten();
    Payer {
        cost_center: text(0),
        subscription: text(1).unwrap_or_default(),
        product: text(2).unwrap_or_default(),
    }
}

/// Charges by who pays; those without a price, or that nobody pays, each for itself.
fn lines(charges: &[Charge], decimals: u32) -> Vec<Line> {
    let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
    for Charge { key, sum } in charges {
        let key = match key.kind {
            Kind::Usage | Kind::Provisioned => Key {
                kind: Kind::Usage,
                payer: key.payer.clone(),
                deployment: None,
                model: None,
                backend: None,
            },
            Kind::Unpriced(_) | Kind::Idle => key.clone(),
        };
        sums.entry(key).or_default().add(sum);
    }
    let costs: Vec<_> = sums.values().map(Sum::cost).collect();
    let rounded = apportion::rounded(&costs, decimals);
    let lines = sums.into_iter().zip(rounded);
    lines.map(|((key, sum), cost_rounded)| Line { key, subscription_name: None, sum, cost_rounded }).collect()
}

fn cost_centers(lines: &[Line]) -> Vec<CostCenter> {
    let mut centers: BTreeMap<Option<String>, (Sum, Decimal)> = BTreeMap::new();
    for line in lines {
        let Some(payer) = &line.key.payer else { continue };
        let (sum, rounded) = centers.entry(payer.cost_center.clone()).or_default();
        sum.add(&line.sum);
        *rounded += line.cost_rounded;
    }
    centers.into_iter().map(|(name, (sum, cost_rounded))| CostCenter { name, sum, cost_rounded }).collect()
}

#[cfg(test)]
mod tests;
