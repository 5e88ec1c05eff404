//! Reports: usage, and what every report shares.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use serde_json::{Map, Value, json};
use time::Date;
use time::macros::format_description;

use super::extract::Admin;
use super::respond::Refused;
use crate::app::App;
use crate::domain::calendar::Month;
use crate::domain::units::UnixMillis;
use crate::ledger::report::{Totals, UsageReport};
use crate::ports::{Group, SumQuery};

pub(super) mod chargeback;
mod focus;
pub(super) mod forecast;
pub(super) mod reconciliation;

/// `GET /reports/usage`
pub(super) async fn usage(
    State(app): State<App>,
    _: Admin,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = read(&query.unwrap_or_default(), app.ledger.clock.now())?;
    let report = app.ledger.usage(query).await?;
    if wants_csv(&headers) {
        return csv(&report);
    }
    Ok(Json(as_json(&report)).into_response())
}

pub(super) fn invalid(name: &str, message: &str) -> Refused {
    Refused::invalid(format!("`{name}` {message}"), Some(name.to_owned()))
}

/// Reads the query; a parameter that comes twice, or with commas, is a list.
fn read(query: &str, now: UnixMillis) -> Result<SumQuery, Refused> {
    // What was used in this very millisecond is part of "until now".
    let mut read = SumQuery {
        from: now.month_start(),
        to: UnixMillis(now.0 + 1),
        group_by: Vec::new(),
        provisioned_only: false,
    };
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_str(query).map_err(|error| Refused::invalid(error.to_string(), None))?;
    for (name, value) in pairs {
        match name.as_str() {
            "from" => read.from = moment("from", &value)?,
            "to" => read.to = moment("to", &value)?,
            "group_by" => {
                for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                    let group =
                        Group::ALL.into_iter().find(|group| group.word() == word).ok_or_else(|| {
                            let words = Group::ALL.map(Group::word).join(", ");
                            invalid("group_by", &format!("takes {words}"))
                        })?;
                    if !read.group_by.contains(&group) {
                        read.group_by.push(group);
                    }
                }
            }
            // The Functions host's own key may stand in any query.
            "code" => {}
            _ => {
                return Err(invalid(&name, "is not a parameter of this report: it takes from, to, group_by"));
            }
        }
    }
    if read.from > read.to {
        return Err(invalid("from", "must not be after `to`"));
    }
    Ok(read)
}

/// A date, which is its first moment in UTC, or a time.
pub(super) fn moment(name: &str, text: &str) -> Result<UnixMillis, Refused> {
    let date = Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
    // A `+` in a query is a space.
    let moment = date
        .and_then(|date| UnixMillis::from_datetime(date.midnight().assume_utc()))
        .or_else(|| UnixMillis::parse(&text.replace(' ', "+")));
    moment
        .ok_or_else(|| invalid(name, "must be a date or a time, such as 2026-11-01 or 2026-11-01T12:00:00Z"))
}

fn as_json(report: &UsageReport) -> Value {
    let rows: Vec<_> = report.rows.iter().map(|(group, totals)| row(report, group, totals)).collect();
    json!({
        "currency": report.currency, "from": report.from, "to": report.to,
        "rows": rows, "total": row(report, &[], &report.total),
    })
}

fn row(report: &UsageReport, group: &[Option<String>], totals: &Totals) -> Map<String, Value> {
    let mut row = Map::new();
    for (member, value) in report.group_by.iter().zip(group) {
        row.insert(member.word().to_owned(), json!(value));
    }
    for (name, value) in sums(totals) {
        row.insert(name.to_owned(), value);
    }
    row
}

pub(super) fn sums(totals: &Totals) -> [(&'static str, Value); 13] {
    [
        ("requests", totals.requests.into()),
        ("estimated_requests", totals.estimated_requests.into()),
        ("input_tokens", totals.counts.input_tokens.into()),
        ("cached_input_tokens", totals.counts.cached_input_tokens.into()),
        ("output_tokens", totals.counts.output_tokens.into()),
        ("reasoning_tokens", totals.counts.reasoning_tokens.into()),
        ("cost", totals.cost().map(|cost| cost.to_string()).into()),
        ("priced_cost", totals.priced_cost.to_string().into()),
        ("unpriced_requests", totals.unpriced_requests.into()),
        ("audio_input_tokens", totals.counts.audio_input_tokens.into()),
        ("audio_output_tokens", totals.counts.audio_output_tokens.into()),
        ("cache_write_tokens", totals.counts.cache_write_tokens.into()),
        ("images", totals.counts.images.into()),
    ]
}

fn csv(report: &UsageReport) -> Result<Response, Refused> {
    let groups = report.group_by.iter().map(|group| group.word());
    let names = sums(&report.total).map(|(name, _)| name);
    let header = groups.chain(names).chain(["currency"]).collect();
    let rows = report.rows.iter().map(|(group, totals)| {
        let groups = group.iter().map(|value| json!(value));
        let numbers = sums(totals).into_iter().map(|(_, value)| value);
        groups.chain(numbers).chain([json!(report.currency)]).collect()
    });
    table("usage.csv", header, rows)
}

/// A file for a spreadsheet. Null is an empty cell.
fn table(file: &str, header: Vec<&str>, rows: impl Iterator<Item = Vec<Value>>) -> Result<Response, Refused> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| Refused::invalid(error.to_string(), None);
    writer.write_record(header).map_err(failed)?;
    for row in rows {
        let cells = row.into_iter().map(|value| match value {
            Value::String(text) => harmless(text),
            Value::Null => String::new(),
            number => number.to_string(),
        });
        writer.write_record(cells).map_err(failed)?;
    }
    let written = writer.into_inner().map_err(|error| Refused::invalid(error.to_string(), None))?;
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{file}\"")),
    ];
    Ok((headers, written).into_response())
}

/// A text that a spreadsheet would run as a formula is made a text.
fn harmless(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

fn wants_csv(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.to_ascii_lowercase().contains("text/csv")
}

/// The parameters of a query, of those that a report takes, each at most once.
fn parameters(query: Option<String>, taken: &[&str]) -> Result<BTreeMap<String, String>, Refused> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(&query.unwrap_or_default())
        .map_err(|error| Refused::invalid(error.to_string(), None))?;
    let mut parameters = BTreeMap::new();
    for (name, value) in pairs {
        // The Functions host's own key may stand in any query.
        if name == "code" {
            continue;
        }
        if !taken.contains(&name.as_str()) {
            let taken = if taken.is_empty() { "none".to_owned() } else { taken.join(", ") };
            return Err(invalid(&name, &format!("is not a parameter of this report: it takes {taken}")));
        }
        if parameters.insert(name.clone(), value).is_some() {
            return Err(invalid(&name, "stands twice"));
        }
    }
    Ok(parameters)
}

/// The month that is asked for; this one, if none is.
fn month(parameters: &BTreeMap<String, String>, now: UnixMillis) -> Result<Month, Refused> {
    let this = Month::of(now);
    let Some(text) = parameters.get("month") else { return Ok(this) };
    let month = Month::parse(text).ok_or_else(|| invalid("month", "must be a month, such as 2026-11"))?;
    if month > this {
        return Err(invalid("month", "has not begun yet"));
    }
    Ok(month)
}
