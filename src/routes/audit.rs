//! The audit: who changed what, when, from where.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::extract::Admin;
use super::reports::{invalid, moment};
use super::respond::Refused;
use super::subscriptions::form::page_of;
use crate::app::App;
use crate::domain::ids::SubscriptionId;
use crate::domain::units::UnixMillis;
use crate::ports::AuditQuery;

/// Which entries of the audit, and which page of them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Only what was done to this one.
    #[serde(default)]
    subscription: Option<SubscriptionId>,
    /// Inclusive; a date or a time.
    #[serde(default)]
    from: Option<String>,
    /// Exclusive; a date or a time.
    #[serde(default)]
    to: Option<String>,
    /// `next` of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// Items in a page, 1 to 500; without it, 50.
    #[serde(default)]
    limit: Option<u32>,
    /// The Functions host's own key may stand in any query.
    #[serde(default, rename = "code")]
    #[schemars(skip)]
    _code: serde::de::IgnoredAny,
}

/// `GET /reports/audit`
pub(super) async fn report(
    State(app): State<App>,
    _: Admin,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(page) = page.map_err(|error| Refused::invalid(error.body_text(), None))?;
    let query = AuditQuery {
        subscription: page.subscription,
        from: page.from.map(|from| moment("from", &from)).transpose()?,
        to: page.to.map(|to| moment("to", &to)).transpose()?,
        behind: page.cursor.map(|cursor| behind(&cursor)).transpose()?,
        limit: page_of(page.limit)?,
    };
    let (records, has_more) = app.issuing.audit(query).await?;
    let last = records.last().filter(|_| has_more);
    let next = last.map(|last| format!("{}-{}", last.at.0, last.id.simple()));
    Ok(Json(json!({"items": records, "next": next})))
}

/// A cursor is the time and the id of the last entry that was seen.
fn behind(cursor: &str) -> Result<(UnixMillis, Uuid), Refused> {
    let parts = cursor
        .split_once('-')
        .and_then(|(time, id)| Some((UnixMillis(time.parse().ok()?), Uuid::try_parse(id).ok()?)));
    parts.ok_or_else(|| invalid("cursor", "must be `next` of the page before"))
}
