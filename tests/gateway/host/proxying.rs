//! Proxying mode: the request goes through as it is and the response streams, by the rules of the
//! host's reverse proxy.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::{BodyExt, BodyStream, Empty, LengthLimitError, StreamBody};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Error;

use super::activity::Activity;
use super::client::Body;
use super::front::{Call, Front, HOST_VERSION, has_body, status};

/// Neither of these crosses the proxy, in either direction.
const NOT_PASSED: [&str; 15] = [
    "connection",
    "transfer-encoding",
    "keep-alive",
    "upgrade",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "security-scheme",
    "alpn",
    "close",
    "http2-settings",
    "upgrade-insecure-requests",
    "te",
    "alt-svc",
];
const MAX_RESENDS: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Where the handler cannot be reached, says nothing for too long or breaks off before the first byte,
/// the proxy says 502 or 504, and the host makes a 500 of both.
pub(super) async fn pass(front: &Front, call: Call) -> Response<Body> {
    let activity = Activity::new(front.activity_timeout);
    let sent = tokio::select! {
        sent = send(front, call, &activity) => sent,
        () = activity.expired() => return status(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let response = match sent {
        Ok(response) => response,
        Err(error) if is_over_the_limit(&error) => return status(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => return status(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    parts.headers.remove("strict-transport-security");
    let mut body = activity.watch(body);
    // The head goes out with the first bytes of the body, not before.
    let body = match body.frame().await {
        None => nothing(),
        Some(Err(_)) => return status(StatusCode::INTERNAL_SERVER_ERROR),
        Some(Ok(first)) => {
            let first = futures_util::stream::iter([Ok(first)]);
            StreamBody::new(first.chain(BodyStream::new(body))).boxed_unsync()
        }
    };
    Response::from_parts(parts, body)
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn is_over_the_limit(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A request without a body is sent again when the handler refuses or resets, under the same
/// invocation id; a body that was read cannot be.
async fn send(front: &Front, call: Call, activity: &Activity) -> Result<Response<Incoming>, Error> {
    let resends = if has_body(&call.request) { 0 } else { MAX_RESENDS };
    let (mut parts, body) = call.request.into_parts();
    dress(&mut parts.headers, call.peer, call.port, &call.invocation);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = format!("http://127.0.0.1:{}{path}", call.port);
    let again = |body: Body| {
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri.parse().expect("what was a URI still is one");
        *request.headers_mut() = parts.headers.clone();
        request
    };
    if resends == 0 {
        return front.client.send(again(activity.watch(body).boxed_unsync())).await;
    }
    let mut pause = FIRST_PAUSE;
    for _ in 0..resends {
        if let Ok(response) = front.client.send(again(nothing())).await {
            return Ok(response);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    front.client.send(again(nothing())).await
}

/// What the proxy takes off, overwrites and adds.
fn dress(headers: &mut HeaderMap, peer: SocketAddr, port: u16, invocation: &str) {
    strip(headers);
    headers.remove("forwarded");
    let public = headers.get(HOST).cloned().unwrap_or_else(|| HeaderValue::from_static(""));
    let set = |headers: &mut HeaderMap, name: &'static str, value: &str| {
        headers.insert(name, value.parse().expect("the host's own values are header values"));
    };
    headers.insert("x-forwarded-host", public);
    set(headers, "x-forwarded-for", &peer.ip().to_string());
    set(headers, "x-forwarded-proto", "http");
    set(headers, "host", &format!("127.0.0.1:{port}"));
    set(headers, "x-ms-invocation-id", invocation);
    set(headers, "x-azure-functions-invocationid", invocation);
    set(headers, "x-azure-functions-hostversion", HOST_VERSION);
}

/// Also what the `Connection` header names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in NOT_PASSED {
        headers.remove(name);
    }
}
