//! `GET /reports/forecast`: where this month ends.

use axum::Json;
use axum::extract::{RawQuery, State};
use schemars::JsonSchema;
use serde::Serialize;

use super::parameters;
use crate::app::App;
use crate::domain::forecast::RANGE_PERCENT;
use crate::domain::units::UnixMillis;
use crate::ledger::forecast::advice::{Kept, Load};
use crate::ledger::forecast::{Forecast, OfSubscription, Projection};
use crate::routes::extract::Admin;
use crate::routes::respond::Refused;

pub(in crate::routes) async fn show(
    State(app): State<App>,
    _: Admin,
    RawQuery(query): RawQuery,
) -> Result<Json<Answer>, Refused> {
    parameters(query, &[])?;
    Ok(Json(Answer::from(app.ledger.forecast().await?)))
}

/// Where this month ends: by subscription, and in all.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Forecast")]
pub(in crate::routes) struct Answer {
    month: String,
    as_of: UnixMillis,
    currency: String,
    /// So often of 100 times the month ends between `low` and `high`.
    range_percent: u8,
    /// Foreseen by itself: its range is narrower than those of the subscriptions together. Idle capacity is part of it.
    total: Projected,
    /// Those with a cost in this month, the dearest first.
    subscriptions: Vec<Subscribed>,
    /// Whether provisioned capacity would be cheaper, at the load of the last four weeks.
    provisioned_advice: Vec<Advised>,
    /// Whether the capacity that is there pays.
    provisioned_capacity: Vec<Provisioned>,
}

/// Money so far, exact, and at the month's end.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ForecastProjection")]
struct Projected {
    so_far: String,
    month_end: String,
    low: String,
    high: String,
    usage_so_far: String,
    usage_month_end: String,
    provisioned_so_far: String,
    provisioned_month_end: String,
    /// Their cost is not known, and in no sum.
    unpriced_requests: u64,
    /// What the forecast is made of: `nothing`, `today`, `days` (less than two weeks) or `weekdays`.
    basis: String,
    backtest: Backtested,
}

/// The same forecast, made from days of the past: how often what came was in its range.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ForecastBacktest")]
struct Backtested {
    horizon_days: usize,
    windows: usize,
    covered: usize,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ForecastOfSubscription")]
struct Subscribed {
    subscription: String,
    subscription_name: Option<String>,
    #[serde(flatten)]
    projected: Projected,
    /// Of a month, if there is one.
    budget: Option<Budgeted>,
}

/// Shares are of the amount, and of what is paid for by the token.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ForecastOfBudget")]
struct Budgeted {
    amount: String,
    spent_share: String,
    month_end_share: String,
    /// A day of this month, such as 2026-11-21; null: it lasts.
    runs_out_on: Option<String>,
}

/// A deployment that is paid for by the token.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ProvisionedAdvice")]
struct Advised {
    deployment: String,
    model: Option<String>,
    backend: String,
    /// In input tokens, as units count them.
    mean_tokens_per_minute: f64,
    peak_tokens_per_minute: f64,
    pay_as_you_go_month: Option<String>,
    /// `cheaper`, `dearer`, or `unknown`.
    provisioned_is: String,
    /// As many as cost least, with what does not fit still paid for by the token.
    units: Option<u32>,
    units_month: Option<String>,
    spilled_month: Option<String>,
    saved_month: Option<String>,
    /// How that was reckoned, or what is missing to.
    arithmetic: String,
}

/// Provisioned capacity, and what its tokens would cost by the token.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ProvisionedCapacity")]
struct Provisioned {
    backend: String,
    units: u32,
    capacity_month: String,
    pay_as_you_go_month: Option<String>,
    /// From 0 to 1; null where `tokens_per_minute_per_unit` is not said.
    used_share: Option<f64>,
    pays: Option<bool>,
}

impl From<Forecast> for Answer {
    fn from(forecast: Forecast) -> Self {
        let currency = forecast.currency.clone();
        Self {
            month: forecast.month.to_string(),
            as_of: forecast.as_of,
            range_percent: RANGE_PERCENT,
            total: (&forecast.total).into(),
            subscriptions: forecast.subscriptions.into_iter().map(Subscribed::from).collect(),
            provisioned_advice: forecast.advice.loads.iter().map(|load| advised(load, &currency)).collect(),
            provisioned_capacity: forecast.advice.capacities.iter().map(Provisioned::from).collect(),
            currency,
        }
    }
}

impl From<&Projection> for Projected {
    fn from(projection: &Projection) -> Self {
        Self {
            so_far: (projection.usage_so_far + projection.provisioned_so_far).normalize().to_string(),
            month_end: projection.month_end.to_string(),
            low: projection.low.to_string(),
            high: projection.high.to_string(),
            usage_so_far: projection.usage_so_far.to_string(),
            usage_month_end: projection.usage_month_end.to_string(),
            provisioned_so_far: projection.provisioned_so_far.to_string(),
            provisioned_month_end: projection.provisioned_month_end.to_string(),
            unpriced_requests: projection.unpriced_requests,
            basis: projection.basis.word().to_owned(),
            backtest: Backtested {
                horizon_days: projection.backtest.horizon_days,
                windows: projection.backtest.windows,
                covered: projection.backtest.covered,
            },
        }
    }
}

impl From<OfSubscription> for Subscribed {
    fn from(of_one: OfSubscription) -> Self {
        Self {
            subscription: of_one.id,
            subscription_name: of_one.name,
            projected: (&of_one.projection).into(),
            budget: of_one.budget.map(|budget| Budgeted {
                amount: budget.amount.to_string(),
                spent_share: budget.spent_share.to_string(),
                month_end_share: budget.month_end_share.to_string(),
                runs_out_on: budget.runs_out_on.map(|day| day.to_string()),
            }),
        }
    }
}

fn advised(load: &Load, currency: &str) -> Advised {
    let offer = load.offer.as_ref().ok();
    let arithmetic = match &load.offer {
        Err(missing) => (*missing).to_owned(),
        Ok(offer) if offer.units == 0 => format!(
            "a unit like those of `{}` costs {} {currency} an hour, 730 hours a month, and takes {} input tokens a minute: used \
             wholly, it would take {} {currency} of the cost by the token, and at this load less. No number of units costs \
             less than the {} {currency} by the token",
            offer.like,
            offer.hourly_price_per_unit,
            offer.tokens_per_minute_per_unit,
            offer.full_unit_worth_month,
            load.pay_as_you_go_month.unwrap_or_default(),
        ),
        Ok(offer) => format!(
            "a unit like those of `{}` costs {} {currency} an hour, 730 hours a month, and takes {} input tokens a minute: used \
             wholly, it would take {} {currency} of the cost by the token. {} units cost {} {currency}, and leave {} \
             {currency} to be paid for by the token, of {} {currency} without them",
            offer.like,
            offer.hourly_price_per_unit,
            offer.tokens_per_minute_per_unit,
            offer.full_unit_worth_month,
            offer.units,
            offer.units_month,
            offer.spilled_month,
            load.pay_as_you_go_month.unwrap_or_default(),
        ),
    };
    let provisioned_is = match offer {
        None => "unknown",
        Some(offer) if offer.units > 0 => "cheaper",
        Some(_) => "dearer",
    };
    Advised {
        deployment: load.deployment.clone(),
        model: load.model.clone(),
        backend: load.backend.clone(),
        mean_tokens_per_minute: load.mean_tokens_per_minute.round(),
        peak_tokens_per_minute: load.peak_tokens_per_minute.round(),
        pay_as_you_go_month: load.pay_as_you_go_month.map(|cost| cost.to_string()),
        provisioned_is: provisioned_is.to_owned(),
        units: offer.map(|offer| offer.units),
        units_month: offer.map(|offer| offer.units_month.to_string()),
        spilled_month: offer.map(|offer| offer.spilled_month.to_string()),
        saved_month: offer.map(|offer| offer.saved_month.to_string()),
        arithmetic,
    }
}

impl From<&Kept> for Provisioned {
    fn from(kept: &Kept) -> Self {
        Self {
            backend: kept.backend.clone(),
            units: kept.units,
            capacity_month: kept.capacity_month.to_string(),
            pay_as_you_go_month: kept.pay_as_you_go_month.map(|cost| cost.to_string()),
            used_share: kept.used_share.map(|share| (share * 10_000.0).round() / 10_000.0),
            pays: kept.pay_as_you_go_month.map(|cost| cost >= kept.capacity_month),
        }
    }
}
