//! Subscriptions: issue, list, find.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{self, Admin};
use super::functions;
use super::respond::Refused;
use crate::app::App;
use crate::domain::ids::{Name, SubscriptionId};
use crate::domain::limit::Limits;
use crate::domain::subscription::Subscription;
use crate::domain::units::UnixMillis;
use crate::issuing::{Application, Issued};
use crate::ports::ListQuery;
use crate::proxy::Refusal;

/// A subscription is described in a few hundred bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    name: String,
    product: Name,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    cost_center: Option<String>,
    #[serde(default)]
    limits: Option<Limits>,
    #[serde(default)]
    expires_at: Option<UnixMillis>,
}

/// `POST /subscriptions`
pub(super) async fn issue(
    State(app): State<App>,
    admin: Result<Admin, Refused>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    if functions::is_from_host(&headers) {
        let body = extract::body(&headers, body, MAX_BODY_BYTES).await?;
        if functions::is_envelope(&headers, &body) {
            return Ok(functions::not_proxying());
        }
        return issue_as(&app, admin?, &headers, &body).await;
    }
    let admin = admin?;
    let body = extract::body(&headers, body, MAX_BODY_BYTES).await?;
    issue_as(&app, admin, &headers, &body).await
}

async fn issue_as(app: &App, admin: Admin, headers: &HeaderMap, body: &[u8]) -> Result<Response, Refused> {
    let form = form(body)?;
    let application = Application {
        name: form.name,
        product: form.product,
        owner: form.owner,
        cost_center: form.cost_center,
        limits: form.limits.unwrap_or_default(),
        notes: None,
        tags: crate::domain::subscription::Tags::new(),
        expires_at: form.expires_at,
    };
    let once = idempotency_key(headers)?;
    match app.issuing.issue(application, once, &app.issuing.author(admin.0, None)).await? {
        Issued::New { subscription, primary_key, secondary_key } => {
            let mut shown = shown(&subscription);
            shown["primary_key"] = primary_key.expose_secret().into();
            shown["secondary_key"] = secondary_key.expose_secret().into();
            Ok((StatusCode::CREATED, Json(shown)).into_response())
        }
        Issued::Before(subscription) => {
            let replayed = [(REPLAYED, HeaderValue::from_static("true"))];
            Ok((StatusCode::CREATED, replayed, Json(shown(&subscription))).into_response())
        }
    }
}

fn form(body: &[u8]) -> Result<Form, Refused> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let form = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let field = (field != ".").then_some(field);
        let place = field.as_ref().map_or_else(String::new, |field| format!("`{field}`: "));
        Refused::invalid(format!("{place}{}", error.inner()), field)
    })?;
    reader.end().map_err(|error| Refused::invalid(format!("not JSON: {error}"), None))?;
    Ok(form)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    const MAX_BYTES: usize = 256;
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_BYTES => Ok(Some(key)),
        _ => Err(Refused::invalid(
            "`Idempotency-Key` must have 1 to 256 plain characters",
            Some("Idempotency-Key".to_owned()),
        )),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    cursor: Option<SubscriptionId>,
    #[serde(default)]
    limit: Option<u32>,
    /// The Functions host's own key may stand in any query.
    #[serde(default, rename = "code")]
    _code: serde::de::IgnoredAny,
}

/// `GET /subscriptions`
pub(super) async fn list(
    State(app): State<App>,
    _: Admin,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(page) = page.map_err(|error| Refused::invalid(error.body_text(), None))?;
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        let message = format!("`limit` must be between 1 and {MAX_PAGE}");
        return Err(Refused::invalid(message, Some("limit".to_owned())));
    }
    let (subscriptions, has_more) =
        app.issuing.list(ListQuery { after: page.cursor, limit, ..ListQuery::default() }).await?;
    let next = subscriptions.last().filter(|_| has_more).map(|last| last.id.to_string());
    let items: Vec<_> = subscriptions.iter().map(shown).collect();
    Ok(Json(json!({"items": items, "next": next})))
}

/// `GET /subscriptions/{id}`
pub(super) async fn find(
    State(app): State<App>,
    _: Admin,
    id: Result<Path<SubscriptionId>, axum::extract::rejection::PathRejection>,
) -> Result<Json<Value>, Refused> {
    let Ok(Path(id)) = id else { return Err(Refusal::NotFound.into()) };
    Ok(Json(shown(&app.issuing.find(&id).await?)))
}

/// Without keys: a hint is the last four characters alone.
fn shown(subscription: &Subscription) -> Value {
    serde_json::to_value(subscription).expect("a subscription has only strings, numbers and lists")
}
