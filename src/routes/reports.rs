//! Reports: usage.

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
use crate::domain::units::UnixMillis;
use crate::ledger::report::{Totals, UsageReport};
use crate::ports::{Group, SumQuery};

/// `GET /reports/usage`
pub(super) async fn usage(
    State(app): State<App>,
    _: Admin,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = read(&query.unwrap_or_default(), app.ledger.clock.now())?;
    let report = app.ledger.usage(query).await?;
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.to_ascii_lowercase().contains("text/csv") {
        let headers = [
            (CONTENT_TYPE, "text/csv; charset=utf-8"),
            (CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\""),
        ];
        return Ok((headers, csv(&report)?).into_response());
    }
    Ok(Json(as_json(&report)).into_response())
}

pub(super) fn invalid(name: &str, message: &str) -> Refused {
    Refused::invalid(format!("`{name}` {message}"), Some(name.to_owned()))
}

/// Reads the query; a parameter that comes twice, or with commas, is a list.
fn read(query: &str, now: UnixMillis) -> Result<SumQuery, Refused> {
    // What was used in this very millisecond is part of "until now".
    let mut read = SumQuery { from: now.month_start(), to: UnixMillis(now.0 + 1), group_by: Vec::new() };
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

fn csv(report: &UsageReport) -> Result<Vec<u8>, Refused> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| Refused::invalid(error.to_string(), None);
    let groups = report.group_by.iter().map(|group| group.word());
    let names = sums(&report.total).map(|(name, _)| name);
    writer.write_record(groups.chain(names).chain(["currency"])).map_err(failed)?;
    for (group, totals) in &report.rows {
        let groups = group.iter().map(|value| harmless(value.as_deref().unwrap_or_default()));
        let numbers = sums(totals).into_iter().map(|(_, value)| match value {
            Value::String(text) => text,
            Value::Null => String::new(),
            number => number.to_string(),
        });
        writer.write_record(groups.chain(numbers).chain([report.currency.clone()])).map_err(failed)?;
    }
    writer.into_inner().map_err(|error| Refused::invalid(error.to_string(), None))
}

/// A text that a spreadsheet would run as a formula is made a text.
fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}
