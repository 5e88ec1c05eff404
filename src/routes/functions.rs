//! What the Functions host calls: the event hub's batch, the timer. Only the host may.
//!
//! Every call to the process comes through one port, so a trigger's request is told from a caller's
//! by the marks of the host's proxy, which a caller cannot take off.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::extract;
use super::respond::{self, Refused};
use crate::app::App;
use crate::proxy::Refusal;

/// A hundred events of at most a megabyte, escaped twice. They are read as they come.
const MAX_BATCH_BYTES: usize = 512 * 1024 * 1024;

/// A batch is answered by then: what Log Analytics has not taken waits in the ledger, and the next batch, or
/// the upkeep, sends it.
const SHIPPING: Duration = Duration::from_secs(5);

/// Whether the host itself makes this call: it says so, and its proxy, which always leaves its marks,
/// had no part in it.
pub(super) fn is_from_host(headers: &HeaderMap) -> bool {
    let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
    let is_proxied = headers
        .keys()
        .any(|name| name.as_str() == "x-ms-invocation-id" || name.as_str().starts_with("x-forwarded-"));
    agent.is_some_and(|agent| agent.starts_with("Azure-Functions-Host/"))
        && headers.contains_key("x-azure-functions-invocationid")
        && !is_proxied
}

/// The Event Hub trigger's batch.
pub(super) async fn token_accounting(State(app): State<App>, request: Request) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    if !is_from_host(&parts.headers) {
        return Err(Refusal::NotFound.into());
    }
    let mut delivery = app.ledger.delivery()?;
    let mut arriving = extract::Arriving::new(&parts.headers, body, MAX_BATCH_BYTES)?;
    while let Some(piece) = arriving.next().await? {
        delivery.take_in(&piece).await?;
    }
    let posted = delivery.end().await?;
    // The instance may sleep as soon as it has answered.
    app.ledger.shipped(SHIPPING).await;
    Ok(respond::invocation(&format!(
        "{} events posted, {} of them new; {} messages could not be read",
        posted.events, posted.new, posted.dead_letters
    )))
}

/// The timer's call; what stands in it is of no interest. It may come late, or twice at once.
pub(super) async fn upkeep(State(app): State<App>, headers: HeaderMap) -> Result<Response, Refused> {
    if !is_from_host(&headers) {
        return Err(Refusal::NotFound.into());
    }
    let done = app.upkeep().run().await;
    let status = if done.has_failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    Ok((status, respond::invocation(&done.told.join("; "))).into_response())
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "Data", borrow)]
    data: EnvelopeData<'a>,
}

#[derive(Deserialize)]
struct EnvelopeData<'a> {
    #[serde(borrow)]
    req: &'a RawValue,
}

/// Whether a request is a caller's, wrapped by a host that was not told to proxy.
pub(super) fn is_envelope(headers: &HeaderMap, body: &[u8]) -> bool {
    is_from_host(headers)
        && serde_json::from_slice::<Envelope<'_>>(body)
            .is_ok_and(|envelope| envelope.data.req.get().starts_with('{'))
}

/// Answers such a request in the host's own terms, so that the caller sees an error and the operator
/// the reason.
pub(super) fn not_proxying() -> Response {
    const MESSAGE: &str = "the Functions host wraps HTTP requests instead of proxying them: set \
        customHandler.enableProxyingHttpRequest in host.json, and use a host that knows it";
    tracing::error!("{MESSAGE}");
    let error = json!({"error": {
        "code": "gateway_misconfigured", "message": MESSAGE, "type": "server_error", "param": null,
    }});
    let response = json!({
        "statusCode": "500", "headers": {"content-type": "application/json"}, "body": error.to_string(),
    });
    Json(json!({"Outputs": {"res": response}, "Logs": [MESSAGE], "ReturnValue": null})).into_response()
}

/// A function's own path: only a host that wraps requests calls it.
pub(super) async fn envelope(request: Request) -> Result<Response, Refused> {
    if is_from_host(request.headers()) {
        Ok(not_proxying())
    } else {
        Err(Refused::new(StatusCode::NOT_FOUND, "not_found", Refusal::NotFound.to_string()))
    }
}
