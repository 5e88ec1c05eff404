//! A row of the ledger as a row of the table in Log Analytics.
//!
//! Never has a column that `infra/log-analytics.bicep` has not: what a rule does not know is dropped
//! without a word. A test holds the two together.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::Serialize;

use crate::domain::price::Counts;
use crate::domain::units::UnixMillis;
use crate::ports::{Entry, LogRow};

/// A value of more than 64 KB would be cut there. Nine of these in a row, every character of them six in
/// JSON, are below what any call takes.
const MAX_TEXT_BYTES: usize = 15_000;

/// The columns, in the order of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Columns<'a> {
    /// When the request came in. Azure Monitor puts the time of arrival in its place when that is more than
    /// two days later: <https://learn.microsoft.com/azure/azure-monitor/logs/log-standard-columns>.
    time_generated: UnixMillis,
    /// The same, left alone.
    event_time: UnixMillis,
    event_id: String,
    // `SubscriptionId` is one of the names that Azure Monitor keeps for itself.
    subscription: &'a str,
    product: &'a str,
    cost_center: Option<&'a str>,
    end_user: Option<&'a str>,
    operation: &'a str,
    deployment: &'a str,
    model: Option<&'a str>,
    backend: &'a str,
    region: Option<&'a str>,
    attempts: u32,
    status: u16,
    stream: bool,
    outcome: &'static str,
    usage_source: &'static str,
    input_tokens: u64,
    cached_input_tokens: u64,
    cache_write_tokens: u64,
    audio_input_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    audio_output_tokens: u64,
    images: u64,
    duration_ms: u64,
    first_byte_ms: Option<u64>,
    is_provisioned: bool,
    /// To be added up without thinking; `None`: it has no price.
    cost: Option<f64>,
    /// The same to the last digit.
    cost_exact: Option<String>,
    currency: Option<&'a str>,
}

/// A row of the ledger, as it is sent.
pub fn of(entry: &Entry) -> LogRow {
    let Entry { event, is_provisioned, rate } = entry;
    let usage = &event.usage;
    let cost = cost(entry);
    let columns = Columns {
        time_generated: event.time,
        event_time: event.time,
        event_id: event.id.0.to_string(),
        subscription: event.subscription_id.as_str(),
        product: event.product.as_str(),
        cost_center: event.cost_center.as_deref().map(cut),
        end_user: event.end_user.as_deref().map(cut),
        operation: cut(&event.operation),
        deployment: event.deployment.as_str(),
        model: event.model.as_deref().map(cut),
        backend: event.backend.as_str(),
        region: event.region.as_deref().map(cut),
        attempts: event.attempts,
        status: event.status,
        stream: event.stream,
        outcome: event.outcome.name(),
        usage_source: usage.source.name(),
        input_tokens: usage.input_tokens,
        cached_input_tokens: usage.cached_input_tokens,
        cache_write_tokens: usage.cache_write_tokens,
        audio_input_tokens: usage.audio_input_tokens,
        output_tokens: usage.output_tokens,
        reasoning_tokens: usage.reasoning_tokens,
        audio_output_tokens: usage.audio_output_tokens,
        images: usage.images,
        duration_ms: event.duration_ms,
        first_byte_ms: event.first_byte_ms,
        is_provisioned: *is_provisioned,
        cost: cost.and_then(|cost| cost.to_f64()),
        cost_exact: cost.map(|cost| cost.to_string()),
        currency: rate.as_ref().map(|rate| rate.terms().currency.as_str()),
    };
    let json = serde_json::to_string(&columns).expect("texts and numbers can be written as JSON");
    LogRow { id: event.id, json }
}

/// What the tokens cost. Requests that used nothing, and those of provisioned capacity, which is shared out
/// in the chargeback, cost nothing; `None`: they have no price.
fn cost(entry: &Entry) -> Option<Decimal> {
    let counts = Counts::from(&entry.event.usage);
    if entry.is_provisioned || counts.is_nothing() {
        return Some(Decimal::ZERO);
    }
    entry.rate.as_ref()?.cost(counts)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::price::{Rate, Terms};
    use crate::domain::usage::UsageEvent;

    fn entry(changes: &Value) -> Entry {
        let mut event = json!({
            "schema": "tollgate.usage.v1", "id": "0192a000-0000-7000-8000-000000000001",
            "time": "2026-03-10T09:30:00.123Z", "subscription_id": "s1", "product": "standard",
            "operation": "chat.completions", "deployment": "gpt-4o-mini", "backend": "sim", "status": 200,
            "outcome": "completed", "usage": {"source": "reported", "input_tokens": 12, "output_tokens": 34},
        });
        event.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let terms = Terms {
            currency: "EUR".to_owned(),
            input_per_million: Some("0.15".parse().unwrap()),
            output_per_million: Some("0.60".parse().unwrap()),
            ..Terms::default()
        };
        let event: UsageEvent = serde_json::from_value(event).unwrap();
        Entry { event, is_provisioned: false, rate: Some(Arc::new(Rate::new(terms))) }
    }

    fn row(entry: &Entry) -> Value {
        serde_json::from_str(&of(entry).json).unwrap()
    }

    #[test]
    fn a_row_says_what_it_cost_to_the_last_digit() {
        let row = row(&entry(&json!({})));
        assert_eq!((&row["CostExact"], &row["Currency"]), (&json!("0.0000222"), &json!("EUR")));
        assert!((row["Cost"].as_f64().unwrap() - 0.000_022_2).abs() < 1e-12);
        assert_eq!(row["TimeGenerated"], "2026-03-10T09:30:00.123Z");
        assert_eq!(row["TimeGenerated"], row["EventTime"]);
    }

    #[test]
    fn what_has_no_price_is_not_free_and_provisioned_capacity_is() {
        let mut entry = entry(&json!({}));
        entry.rate = None;
        assert_eq!((&row(&entry)["Cost"], &row(&entry)["CostExact"]), (&Value::Null, &Value::Null));
        entry.is_provisioned = true;
        assert_eq!((&row(&entry)["Cost"], &row(&entry)["CostExact"]), (&json!(0.0), &json!("0")));
    }

    #[test]
    fn no_text_is_longer_than_a_value_may_be_and_no_row_than_a_call() {
        let long = "\u{1}é".repeat(100_000);
        let texts =
            json!({"cost_center": long, "end_user": long, "operation": long, "model": long, "region": long});
        let row = of(&entry(&texts));
        assert!(row.json.len() < 900_000, "{}", row.json.len());
        let value: Value = serde_json::from_str(&row.json).unwrap();
        assert!(
            value.as_object().unwrap().values().filter_map(Value::as_str).all(|text| text.len() <= 15_000)
        );
    }
}
