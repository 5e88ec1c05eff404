//! Refusal → status, code, body, headers: in the shape that the OpenAI SDKs read.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::ports::with_causes;
use crate::{issuing, proxy};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct Refused(Box<Answer>);

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    code: &'static str,
    kind: &'static str,
    message: String,
    param: Option<String>,
    retry_after: Option<Duration>,
    /// For the log alone.
    cause: Option<String>,
}

/// What the layer that logs a refusal is told, by the response's extensions.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) code: &'static str,
    pub(super) cause: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Members<'a>,
}

#[derive(Serialize)]
struct Members<'a> {
    code: &'a str,
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
        let message = message.into();
        Self(Box::new(Answer { status, code, kind, message, param: None, retry_after: None, cause: None }))
    }

    pub(super) fn invalid(message: impl Into<String>, param: Option<String>) -> Self {
        let mut refused = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        refused.0.param = param;
        refused
    }

    fn unavailable(message: impl Into<String>, cause: String) -> Self {
        let mut refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, "gateway_unavailable", message);
        refused.0.retry_after = Some(Duration::from_secs(1));
        refused.0.cause = Some(cause);
        refused
    }

    pub(super) fn not_admin() -> Self {
        let message = "the token is genuine, and has not the app role `Tollgate.Admin` that this needs";
        Self::new(StatusCode::FORBIDDEN, "admin_role_missing", message)
    }

    pub(super) fn no_admin(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }
}

impl Answer {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(wait) = self.retry_after {
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1_000).max(1)));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
        }
        headers
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let answer = *self.0;
        let (code, message, param) = (answer.code, answer.message.as_str(), answer.param.as_deref());
        let body = Body { error: Members { code, message, r#type: answer.kind, param } };
        let mut response = (answer.status, answer.headers(), Json(body)).into_response();
        response.extensions_mut().insert(Logged { code, cause: answer.cause });
        response
    }
}

impl From<proxy::Refusal> for Refused {
    fn from(refusal: proxy::Refusal) -> Self {
        use proxy::Refusal as R;
        let message = refusal.to_string();
        let new = |status, code| Self::new(status, code, message.clone());
        match refusal {
            R::NoKey | R::InvalidKey | R::InvalidToken(_) => new(StatusCode::UNAUTHORIZED, "invalid_api_key"),
            R::NotFound | R::ItemNotFound(_) => new(StatusCode::NOT_FOUND, "not_found"),
            R::DeploymentNotAllowed(_) => new(StatusCode::FORBIDDEN, "deployment_not_allowed"),
            R::DeploymentNotFound(_) => new(StatusCode::NOT_FOUND, "DeploymentNotFound"),
            R::PreviousNotFound(_) => {
                let mut refused = new(StatusCode::BAD_REQUEST, "previous_response_not_found");
                refused.0.param = Some("previous_response_id".to_owned());
                refused
            }
            R::Invalid { param, .. } => Self::invalid(message, param.map(str::to_owned)),
            R::TooLarge => new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error"),
            R::HeadersTooLarge { .. } => {
                new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "invalid_request_error")
            }
            R::BodyTimeout(_) => new(StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            R::BackendsThrottled { retry_after, .. } => {
                let mut refused = new(StatusCode::TOO_MANY_REQUESTS, "backends_throttled");
                refused.0.kind = "rate_limit_error";
                refused.0.retry_after = Some(retry_after);
                refused
            }
            R::NoBackendAvailable { .. } => new(StatusCode::SERVICE_UNAVAILABLE, "no_backend_available"),
            R::BackendMisconfigured { .. } => new(StatusCode::BAD_GATEWAY, "backend_misconfigured"),
            R::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<crate::ports::Unavailable> for Refused {
    fn from(unavailable: crate::ports::Unavailable) -> Self {
        Self::unavailable("the gateway cannot answer just now; try again", with_causes(&unavailable))
    }
}

impl From<issuing::Refusal> for Refused {
    fn from(refusal: issuing::Refusal) -> Self {
        use issuing::Refusal as R;
        let message = refusal.to_string();
        match refusal {
            R::Invalid { field, .. } => Self::invalid(message, Some(field)),
            R::NoProduct(_) => Self::invalid(message, Some("product".to_owned())),
            R::NotSelfService(_) => Self::new(StatusCode::FORBIDDEN, "product_not_self_service", message),
            R::TooMany(_) => Self::new(StatusCode::CONFLICT, "too_many_subscriptions", message),
            R::Conflict => Self::new(StatusCode::CONFLICT, "idempotency_conflict", message),
            R::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "subscription_not_found", message),
            R::HasEnded(_) => Self::new(StatusCode::CONFLICT, "subscription_ended", message),
            R::Unavailable(unavailable) => unavailable.into(),
            R::NoKey(error) => Self::unavailable(message, error.to_string()),
        }
    }
}

pub(super) async fn nothing_here() -> Refused {
    proxy::Refusal::NotFound.into()
}

pub(super) async fn wrong_method() -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not take this method")
}

/// After a panic: what happened is in the log.
pub(super) fn broken() -> Response {
    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the gateway failed").into_response()
}

/// While something that the gateway needs from the start does not answer.
pub(super) async fn not_yet() -> Response {
    let cause = "it has not started yet: the log says what it waits for".to_owned();
    Refused::unavailable("the gateway cannot answer just now; try again", cause).into_response()
}

/// What the Functions host must be answered: a JSON object, never an empty body, which would hang
/// the invocation until its timeout.
pub(super) fn invocation(log: &str) -> Response {
    Json(json!({"Outputs": {}, "Logs": [log], "ReturnValue": null})).into_response()
}
