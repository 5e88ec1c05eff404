//! Done to every request: id, log line, size of the headers, panic.

use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::respond::{self, Logged, Refused};
use crate::domain::ids::RequestId;
use crate::proxy::Refusal;

/// Azure's front end takes 64 KiB; SDKs send one or two, an Entra token with many groups a few more.
const MAX_HEADER_BYTES: usize = 32 * 1024;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What Azure's own tools look for on an error.
const APIM_REQUEST_ID: HeaderName = HeaderName::from_static("apim-request-id");

pub(super) async fn every_request(request: Request, next: Next) -> Response {
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MAX_HEADER_BYTES {
        let refusal = Refusal::HeadersTooLarge { max_bytes: MAX_HEADER_BYTES };
        return told(Refused::from(refusal).into_response(), "", "");
    }
    let facts = Facts::of(&request);
    let Ok(response) = AssertUnwindSafe(next.run(request)).catch_unwind().await else {
        tracing::error!(method = %facts.method, "a request was answered with a panic: {}", facts.path());
        return told(respond::broken(), facts.path(), facts.trace());
    };
    told(response, facts.path(), facts.trace())
}

/// What the log says of a request: never its query, which may carry a key.
struct Facts {
    method: Method,
    uri: Uri,
    traceparent: Option<HeaderValue>,
}

impl Facts {
    fn of(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            traceparent: request.headers().get("traceparent").cloned(),
        }
    }

    fn path(&self) -> &str {
        self.uri.path()
    }

    fn trace(&self) -> &str {
        self.traceparent.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Gives an answer its id where it has none, and logs it if it is a refusal.
fn told(mut response: Response, path: &str, traceparent: &str) -> Response {
    let status = response.status();
    if let Some(Logged { code, cause }) = response.extensions_mut().remove::<Logged>() {
        let id = id_of(response.headers_mut());
        let status = status.as_u16();
        if let Some(cause) = cause {
            tracing::error!(
                request.id = %id, request.path = path, traceparent, status, code,
                "request {id} was refused with {status} {code}: {cause}"
            );
        } else {
            tracing::info!(
                request.id = %id, request.path = path, traceparent, status, code,
                "request {id} was refused with {status} {code}"
            );
        }
    } else if !response.headers().contains_key(REQUEST_ID) {
        id_of(response.headers_mut());
    }
    response
}

fn id_of(headers: &mut HeaderMap) -> String {
    let id = match headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()) {
        Some(id) => id.to_owned(),
        None => RequestId::draw().to_string(),
    };
    let value = HeaderValue::try_from(id.as_str()).expect("an id is hexadecimal digits and dashes");
    headers.insert(REQUEST_ID, value.clone());
    headers.entry(APIM_REQUEST_ID).or_insert(value);
    id
}
