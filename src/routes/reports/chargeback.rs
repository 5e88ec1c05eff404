//! `GET /reports/chargeback`: in JSON, in CSV, and in the columns of FOCUS.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::{focus, invalid, month, parameters, table, wants_csv};
use crate::app::App;
use crate::ledger::chargeback::{Chargeback, Kind, Line, Sum};
use crate::routes::extract::Admin;
use crate::routes::respond::Refused;

/// What a report may be asked for as.
pub(in crate::routes) const FORMATS: [&str; 3] = ["json", "csv", "focus"];

pub(in crate::routes) async fn show(
    State(app): State<App>,
    _: Admin,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let parameters = parameters(query, &["month", "format"])?;
    let month = month(&parameters, app.ledger.clock.now())?;
    let format = match parameters.get("format").map(String::as_str) {
        None if wants_csv(&headers) => "csv",
        None => "json",
        Some(format) if FORMATS.contains(&format) => format,
        Some(_) => return Err(invalid("format", &format!("must be one of {}", FORMATS.join(", ")))),
    };
    let chargeback = app.ledger.chargeback(month).await?;
    match format {
        "focus" => focus::csv(&chargeback),
        "csv" => csv(&chargeback),
        _ => Ok(Json(as_json(&chargeback)).into_response()),
    }
}

fn csv(chargeback: &Chargeback) -> Result<Response, Refused> {
    let named = |line: &Line| {
        let whose =
            [("month", json!(chargeback.month.to_string())), ("currency", json!(chargeback.currency))];
        whose.into_iter().chain(members(line)).collect::<Vec<_>>()
    };
    let header = ["month", "currency"].into_iter().chain(line_names()).collect();
    let rows = chargeback.lines.iter().map(|line| named(line).into_iter().map(|(_, value)| value).collect());
    table(&format!("chargeback-{}.csv", chargeback.month), header, rows)
}

fn as_json(chargeback: &Chargeback) -> Value {
    let object = |members: Vec<(&'static str, Value)>| -> Map<String, Value> {
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    let centers = chargeback.cost_centers.iter().map(|center| {
        let mut members = sums(&center.sum);
        members.push(("cost_center", json!(center.name)));
        members.push(("cost_rounded", json!(center.cost_rounded.to_string())));
        object(members)
    });
    let mut total = sums(&chargeback.total);
    total.push(("idle_cost", json!(chargeback.idle_cost.to_string())));
    total.push(("cost_rounded", json!(chargeback.cost_rounded.to_string())));
    json!({
        "month": chargeback.month.to_string(),
        "from": chargeback.from,
        "to": chargeback.to,
        "currency": chargeback.currency,
        "lines": chargeback.lines.iter().map(|line| object(members(line))).collect::<Vec<_>>(),
        "cost_centers": centers.collect::<Vec<_>>(),
        "total": object(total),
    })
}

/// What a line is called by, and its sums, in the order of the CSV's columns.
fn members(line: &Line) -> Vec<(&'static str, Value)> {
    let payer = line.key.payer.as_ref();
    let reason = match line.key.kind {
        Kind::Unpriced(reason) => Some(reason.word()),
        Kind::Usage | Kind::Provisioned | Kind::Idle => None,
    };
    let mut members = vec![
        ("kind", json!(line.key.kind.word())),
        ("cost_center", json!(payer.and_then(|payer| payer.cost_center.as_ref()))),
        ("subscription", json!(payer.map(|payer| &payer.subscription))),
        ("subscription_name", json!(line.subscription_name)),
        ("product", json!(payer.map(|payer| &payer.product))),
        ("deployment", json!(line.key.deployment)),
        ("model", json!(line.key.model)),
        ("backend", json!(line.key.backend)),
        ("reason", json!(reason)),
    ];
    members.extend(sums(&line.sum));
    members.push(("cost_rounded", json!(line.cost_rounded.to_string())));
    if reason.is_some() {
        // It is not free: nobody knows what it costs.
        for (name, value) in &mut members {
            if matches!(*name, "usage_cost" | "provisioned_cost" | "cost" | "cost_rounded") {
                *value = Value::Null;
            }
        }
    }
    members
}

fn line_names() -> impl Iterator<Item = &'static str> {
    const NAMES: [&str; 9] = [
        "kind",
        "cost_center",
        "subscription",
        "subscription_name",
        "product",
        "deployment",
        "model",
        "backend",
        "reason",
    ];
    let sums = sums(&Sum::default()).into_iter().map(|(name, _)| name);
    NAMES.into_iter().chain(sums).chain(["cost_rounded"])
}

fn sums(sum: &Sum) -> Vec<(&'static str, Value)> {
    vec![
        ("requests", sum.requests.into()),
        ("estimated_requests", sum.estimated_requests.into()),
        ("unpriced_requests", sum.unpriced_requests.into()),
        ("input_tokens", sum.counts.input_tokens.into()),
        ("cached_input_tokens", sum.counts.cached_input_tokens.into()),
        ("output_tokens", sum.counts.output_tokens.into()),
        ("reasoning_tokens", sum.counts.reasoning_tokens.into()),
        ("audio_input_tokens", sum.counts.audio_input_tokens.into()),
        ("audio_output_tokens", sum.counts.audio_output_tokens.into()),
        ("cache_write_tokens", sum.counts.cache_write_tokens.into()),
        ("images", sum.counts.images.into()),
        ("usage_cost", sum.usage_cost.to_string().into()),
        ("provisioned_cost", sum.provisioned_cost.to_string().into()),
        ("cost", sum.cost().to_string().into()),
    ]
}

/// What the answer looks like, for `/openapi.json`.
pub(in crate::routes) fn schema() -> Value {
    let text = json!({"type": ["string", "null"]});
    let of_sums = |more: &[&str]| {
        let sums = sums(&Sum::default()).into_iter();
        let mut members: Map<_, _> = sums
            .map(|(name, value)| {
                (name.to_owned(), if value.is_string() { text.clone() } else { json!({"type": "integer"}) })
            })
            .collect();
        members.extend(more.iter().map(|name| ((*name).to_owned(), text.clone())));
        let required: Vec<_> = members.keys().cloned().collect();
        json!({"type": "object", "required": required, "properties": members})
    };
    let mut line = of_sums(&line_names().filter(|name| !is_sum(name)).collect::<Vec<_>>());
    line["properties"]["kind"] = json!({"enum": ["usage", "unpriced", "idle"]});
    let time = json!({"type": "string", "format": "date-time"});
    json!({
        "type": "object",
        "required": ["month", "from", "to", "currency", "lines", "cost_centers", "total"],
        "properties": {
            "month": {"type": "string"}, "from": time, "to": time, "currency": {"type": "string"},
            "lines": {"type": "array", "items": line},
            "cost_centers": {"type": "array", "items": of_sums(&["cost_center", "cost_rounded"])},
            "total": of_sums(&["idle_cost", "cost_rounded"]),
        },
    })
}

fn is_sum(name: &str) -> bool {
    sums(&Sum::default()).iter().any(|(sum, _)| *sum == name)
}
