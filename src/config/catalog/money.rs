//! What is paid: for provisioned capacity, and for tokens.

use std::sync::Arc;

use rust_decimal::Decimal;
use time::Date;
use time::macros::format_description;

use super::Written;
use crate::config::Fault;
use crate::config::file::{self, BillingKind};
use crate::domain::capacity::Capacity;
use crate::domain::price::{Price, PriceBook, Rate};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    PayAsYouGo,
    Provisioned {
        units: u32,
        hourly_price_per_unit: Decimal,
        /// In input tokens; `None`: it is not known how much of an hour was used.
        tokens_per_minute_per_unit: Option<u64>,
    },
}

/// Far above what a unit costs: so that no sum of capacity is beyond what a decimal can hold.
const MAX_HOURLY_PRICE: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

impl Billing {
    /// What is paid for by the hour; `None`: it is paid for by the token.
    pub fn capacity(&self) -> Option<Capacity> {
        match *self {
            Self::PayAsYouGo => None,
            Self::Provisioned { units, hourly_price_per_unit, tokens_per_minute_per_unit } => {
                Some(Capacity {
                    units,
                    hourly_cost: Decimal::from(units) * hourly_price_per_unit,
                    tokens_per_minute: tokens_per_minute_per_unit
                        .map(|tokens| tokens.saturating_mul(units.into())),
                })
            }
        }
    }
}

pub(super) fn check_billing(file: &file::Billing, place: &str, faults: &mut Vec<Fault>) -> Billing {
    let place = format!("{place}.billing");
    let capacity = file.tokens_per_minute_per_unit;
    if capacity == Some(0) {
        faults.push(Fault::new(
            format!("{place}.tokens_per_minute_per_unit"),
            "must be at least 1: leave it out if it is not known",
        ));
    }
    match (file.kind.unwrap_or(BillingKind::PayAsYouGo), file.units, file.hourly_price_per_unit) {
        (BillingKind::PayAsYouGo, None, None) if capacity.is_none() => Billing::PayAsYouGo,
        (BillingKind::Provisioned, Some(units), Some(hourly_price_per_unit)) if units > 0 => {
            if hourly_price_per_unit > MAX_HOURLY_PRICE || hourly_price_per_unit.normalize().scale() > 9 {
                let message = "at most 1000000 for an hour, with at most 9 decimals";
                faults.push(Fault::new(format!("{place}.hourly_price_per_unit"), message));
            }
            Billing::Provisioned { units, hourly_price_per_unit, tokens_per_minute_per_unit: capacity }
        }
        (BillingKind::Provisioned, ..) => {
            let message = "`provisioned` needs `units`, at least 1, and `hourly_price_per_unit`";
            faults.push(Fault::new(place, message));
            Billing::PayAsYouGo
        }
        (BillingKind::PayAsYouGo, ..) => {
            let message = "`units`, `hourly_price_per_unit` and `tokens_per_minute_per_unit` go with the kind \
                           `provisioned`";
            faults.push(Fault::new(place, message));
            Billing::PayAsYouGo
        }
    }
}

pub(super) fn check_prices(
    files: Vec<file::Price>,
    currency: &str,
    written: &Written,
    faults: &mut Vec<Fault>,
) -> PriceBook {
    let mut prices = Vec::new();
    for (index, file) in files.into_iter().enumerate() {
        let place = format!("prices[{index}]");
        let before = faults.len();
        // An unreadable price was said to be one already.
        let is_told = faults.iter().any(|fault| fault.place == format!("{place}.input_per_million"));
        let mut fault =
            |field: &str, message: String| faults.push(Fault::new(format!("{place}{field}"), message));
        if file.deployment.is_none() && file.model.is_none() && file.backend.is_none() {
            fault("", "names no `deployment`, `model` or `backend`".to_owned());
        }
        if let Some(name) = file.backend.as_ref().filter(|name| !written.backends.contains(*name)) {
            fault(".backend", format!("there is no backend `{name}`"));
        }
        if file.input_per_million.is_none() && file.image_each.is_none() && !is_told {
            fault(
                ".input_per_million",
                "is missing: the price of a million tokens, such as \"0.15\"".to_owned(),
            );
        }
        let effective_from = file.effective_from.as_deref().unwrap_or("1970-01-01");
        let effective_from = Date::parse(effective_from, format_description!("[year]-[month]-[day]"));
        if effective_from.is_err() {
            fault(".effective_from", "not a day: such as 2024-07-18".to_owned());
        }
        let terms = file.terms(currency);
        for (field, message) in terms.faults() {
            faults.push(Fault::new(format!("{place}.{field}"), message));
        }
        if let (Ok(effective_from), true) = (effective_from, faults.len() == before) {
            prices.push(Price {
                rate: Arc::new(Rate::new(terms)),
                deployment: file.deployment,
                model: file.model,
                backend: file.backend,
                deployment_type: file.deployment_type,
                effective_from,
            });
        }
    }
    PriceBook(prices)
}
