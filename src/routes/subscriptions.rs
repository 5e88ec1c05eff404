//! Subscriptions: issue, list, find, change, replace a key, end. A key is shown in the answer that made it,
//! and never again.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::address::Address;
use super::extract::{self, Admin, Manager};
use super::functions;
use super::respond::Refused;
use crate::app::App;
use crate::domain::ids::SubscriptionId;
use crate::domain::subscription::{Slot, Subscription};
use crate::issuing::{Issued, Reach};
use crate::ports::ListQuery;
use crate::proxy::Refusal;

pub(super) mod form;

use form::{NewForm, Page, PatchForm};

/// A subscription is described in a few hundred bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

type AnyId = Result<Path<SubscriptionId>, PathRejection>;

/// `POST /subscriptions`
pub(super) async fn issue(
    State(app): State<App>,
    manager: Result<Manager, Refused>,
    Address(address): Address,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    if functions::is_from_host(&headers) {
        let body = extract::body(&headers, body, MAX_BODY_BYTES).await?;
        if functions::is_envelope(&headers, &body) {
            return Ok(functions::not_proxying());
        }
        return issue_as(&app, (manager?, Address(address)), &headers, &body).await;
    }
    let manager = manager?;
    let body = extract::body(&headers, body, MAX_BODY_BYTES).await?;
    issue_as(&app, (manager, Address(address)), &headers, &body).await
}

async fn issue_as(
    app: &App,
    (manager, address): (Manager, Address),
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Refused> {
    let form: NewForm = form::read(body)?;
    let once = form::idempotency_key(headers)?;
    let author = app.issuing.author(manager.actor, address.0);
    match app.issuing.issue(form.into(), once, &author, &manager.reach).await? {
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

/// `GET /subscriptions`
pub(super) async fn list(
    State(app): State<App>,
    manager: Manager,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(page) = page.map_err(|error| Refused::invalid(error.body_text(), None))?;
    let mut query: ListQuery = page.try_into()?;
    if let Reach::Own(person) = &manager.reach {
        query.owner = Some(person.clone());
    }
    let (subscriptions, has_more) = app.issuing.list(query).await?;
    let next = subscriptions.last().filter(|_| has_more).map(|last| last.id.to_string());
    let subscriptions = app.issuing.only_within(&manager.reach, subscriptions)?;
    let items: Vec<_> = subscriptions.iter().map(shown).collect();
    Ok(Json(json!({"items": items, "next": next})))
}

/// `GET /subscriptions/{id}`
pub(super) async fn find(
    State(app): State<App>,
    manager: Manager,
    id: AnyId,
) -> Result<Json<Value>, Refused> {
    let id = known_form(id)?;
    app.issuing.within(&manager.reach, &id).await?;
    Ok(Json(shown(&app.issuing.find(&id).await?)))
}

/// `PATCH /subscriptions/{id}`
pub(super) async fn change(
    State(app): State<App>,
    Admin(actor): Admin,
    Address(address): Address,
    id: AnyId,
    (headers, body): (HeaderMap, Body),
) -> Result<Json<Value>, Refused> {
    let id = known_form(id)?;
    let body = extract::body(&headers, body, MAX_BODY_BYTES).await?;
    let form: PatchForm = form::read(&body)?;
    let author = app.issuing.author(actor, address);
    let changed = app.issuing.change(&id, form.into(), &author).await?;
    app.proxy.forget(&id);
    Ok(Json(shown(&changed)))
}

/// `POST /subscriptions/{id}/keys/{slot}`
pub(super) async fn replace_key(
    State(app): State<App>,
    Manager { actor, reach }: Manager,
    Address(address): Address,
    path: Result<Path<(SubscriptionId, String)>, PathRejection>,
) -> Result<Json<Value>, Refused> {
    let Ok(Path((id, slot))) = path else { return Err(Refusal::NotFound.into()) };
    let slot = match slot.as_str() {
        "primary" => Slot::Primary,
        "secondary" => Slot::Secondary,
        _ => return Err(Refusal::NotFound.into()),
    };
    app.issuing.within(&reach, &id).await?;
    let author = app.issuing.author(actor, address);
    let key = app.issuing.replace_key(&id, slot, &author).await?;
    app.proxy.forget(&id);
    Ok(Json(json!({"key": key.expose_secret()})))
}

/// `DELETE /subscriptions/{id}`
pub(super) async fn end(
    State(app): State<App>,
    Manager { actor, reach }: Manager,
    Address(address): Address,
    id: AnyId,
) -> Result<StatusCode, Refused> {
    let id = known_form(id)?;
    app.issuing.within(&reach, &id).await?;
    let author = app.issuing.author(actor, address);
    app.issuing.end(&id, &author).await?;
    app.proxy.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// What cannot be an id is nobody's.
fn known_form(id: AnyId) -> Result<SubscriptionId, Refused> {
    id.map(|Path(id)| id).map_err(|_| Refusal::NotFound.into())
}

/// Without keys: a hint is the last four characters alone.
fn shown(subscription: &Subscription) -> Value {
    serde_json::to_value(subscription).expect("a subscription has only strings, numbers and lists")
}
