//! The chargeback in the columns of FOCUS, the open specification of cost and usage by the `FinOps` Foundation, version 1.2: what cost tools of
//! any maker read. Every column that it calls mandatory is there; our own begin with `x_`, as it asks.
//! Source: <https://focus.finops.org/focus-specification/v1-2/>.

use std::collections::BTreeMap;

use axum::response::Response;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::table;
use crate::domain::units::UnixMillis;
use crate::ledger::chargeback::{Charge, Chargeback, Kind};
use crate::routes::respond::Refused;

/// Decimals of a quantity that money was divided for.
const QUANTITY_DECIMALS: u32 = 9;

pub(super) fn csv(chargeback: &Chargeback) -> Result<Response, Refused> {
    let names: BTreeMap<&str, &str> = chargeback
        .lines
        .iter()
        .filter_map(|line| {
            Some((line.key.payer.as_ref()?.subscription.as_str(), line.subscription_name.as_deref()?))
        })
        .collect();
    let row = |charge: &Charge| columns(chargeback, charge, &names);
    let nothing = Charge { key: NOBODY, sum: crate::ledger::chargeback::Sum::default() };
    let header = row(&nothing).into_iter().map(|(name, _)| name).collect();
    let rows =
        chargeback.charges.iter().map(|charge| row(charge).into_iter().map(|(_, value)| value).collect());
    table(&format!("focus-{}.csv", chargeback.month), header, rows)
}

/// A charge that only the names of the columns are asked of.
const NOBODY: crate::ledger::chargeback::Key = crate::ledger::chargeback::Key {
    kind: Kind::Idle,
    payer: None,
    deployment: None,
    model: None,
    backend: None,
};

fn columns(
    chargeback: &Chargeback,
    charge: &Charge,
    names: &BTreeMap<&str, &str>,
) -> Vec<(&'static str, Value)> {
    let (key, sum) = (&charge.key, &charge.sum);
    let cost = json!(sum.cost().to_string());
    let payer = key.payer.as_ref();
    let subscription = payer.map(|payer| payer.subscription.as_str());
    let tokens = sum.counts.input_tokens + sum.counts.output_tokens;
    let (quantity, unit) = priced(chargeback, charge, tokens);
    let (reservation, sku) = match key.kind {
        Kind::Provisioned => (Some("Used"), Some("provisioned")),
        Kind::Idle => (Some("Unused"), Some("provisioned")),
        Kind::Usage | Kind::Unpriced(_) => (None, key.model.as_deref().or(key.deployment.as_deref())),
    };
    let consumed = (key.kind != Kind::Idle).then(|| tokens.to_string());
    let tags = json!({
        "cost_center": payer.and_then(|payer| payer.cost_center.as_deref()),
        "product": payer.map(|payer| &payer.product),
    });
    let mut columns = vec![
        ("BilledCost", cost.clone()),
        ("BillingAccountId", json!("tollgate")),
        ("BillingAccountName", json!("Tollgate")),
        ("BillingCurrency", json!(chargeback.currency)),
        ("BillingPeriodEnd", moment(chargeback.month.end())),
        ("BillingPeriodStart", moment(chargeback.month.start())),
        ("CapacityReservationId", json!(reservation.and(key.backend.as_deref()))),
        ("CapacityReservationStatus", json!(reservation)),
        ("ChargeCategory", json!("Usage")),
        // Nothing here corrects an earlier month.
        ("ChargeClass", Value::Null),
        ("ChargeDescription", json!(description(charge))),
        ("ChargeFrequency", json!("Usage-Based")),
        ("ChargePeriodEnd", moment(chargeback.to)),
        ("ChargePeriodStart", moment(chargeback.from)),
        ("ConsumedQuantity", json!(consumed)),
        ("ConsumedUnit", json!(consumed.as_ref().map(|_| "Tokens"))),
        ("ContractedCost", cost.clone()),
        ("EffectiveCost", cost.clone()),
        ("InvoiceIssuerName", json!("Tollgate")),
        ("ListCost", cost),
        ("PricingCategory", json!("Standard")),
        ("PricingQuantity", json!(quantity)),
        ("PricingUnit", json!(unit)),
        ("ProviderName", json!("Microsoft")),
        ("PublisherName", json!("Microsoft")),
        ("ResourceId", json!(key.backend)),
        ("ResourceName", json!(key.backend)),
        ("ResourceType", json!("Azure OpenAI")),
        ("ServiceCategory", json!("AI and Machine Learning")),
        ("ServiceName", json!("Azure OpenAI")),
        ("ServiceSubcategory", json!("Generative AI")),
        ("SkuId", json!(sku)),
        ("SubAccountId", json!(subscription)),
        ("SubAccountName", json!(subscription.and_then(|id| names.get(id)))),
        ("Tags", json!(tags.to_string())),
    ];
    columns.extend(our_own(charge));
    columns
}

fn our_own(Charge { key, sum }: &Charge) -> Vec<(&'static str, Value)> {
    let payer = key.payer.as_ref();
    vec![
        ("x_ChargeKind", json!(key.kind.word())),
        ("x_CostCenter", json!(payer.and_then(|payer| payer.cost_center.as_deref()))),
        ("x_Product", json!(payer.map(|payer| &payer.product))),
        ("x_Deployment", json!(key.deployment)),
        ("x_Model", json!(key.model)),
        ("x_Requests", json!(sum.requests)),
        ("x_UnpricedRequests", json!(sum.unpriced_requests)),
        ("x_InputTokens", json!(sum.counts.input_tokens)),
        ("x_CachedInputTokens", json!(sum.counts.cached_input_tokens)),
        ("x_OutputTokens", json!(sum.counts.output_tokens)),
        ("x_ReasoningTokens", json!(sum.counts.reasoning_tokens)),
    ]
}

/// What the price is a price of, and how much of it.
fn priced(chargeback: &Chargeback, charge: &Charge, tokens: u64) -> (String, &'static str) {
    let images = charge.sum.counts.images;
    match charge.key.kind {
        Kind::Provisioned | Kind::Idle => (hours(chargeback, charge).to_string(), "Hours"),
        Kind::Usage | Kind::Unpriced(_) if tokens == 0 && images > 0 => (images.to_string(), "Images"),
        Kind::Usage | Kind::Unpriced(_) => (tokens.to_string(), "Tokens"),
    }
}

/// Of how many hours of the whole capacity this is the cost.
fn hours(chargeback: &Chargeback, charge: &Charge) -> Decimal {
    let capacity = charge.key.backend.as_ref().and_then(|backend| chargeback.capacities.get(backend));
    let hours = capacity.and_then(|capacity| charge.sum.provisioned_cost.checked_div(capacity.hourly_cost));
    hours.unwrap_or_default().round_dp(QUANTITY_DECIMALS).normalize()
}

fn description(Charge { key, .. }: &Charge) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let (deployment, backend) = (or_none(&key.deployment), or_none(&key.backend));
    match key.kind {
        Kind::Usage => format!("{deployment} at {backend}, by the token"),
        Kind::Provisioned => format!("share of the provisioned capacity {backend}"),
        Kind::Unpriced(reason) => format!("{deployment} at {backend}: unpriced, {}", reason.word()),
        Kind::Idle => format!("provisioned capacity {backend} that nobody used"),
    }
}

/// Without fractions of a second, as FOCUS shows its times.
fn moment(at: UnixMillis) -> Value {
    let at = at.to_datetime().replace_nanosecond(0).unwrap_or(at.to_datetime());
    json!(at.format(&Rfc3339).unwrap_or_default())
}
