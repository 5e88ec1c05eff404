//! The headers that Azure puts on every answer.

use axum::response::Response;
use http::HeaderValue;

use super::resource::Resource;
use super::throttle::Left;

/// `echo` is the caller's `x-ms-client-request-id`.
pub(super) fn dress(
    response: &mut Response,
    resource: &Resource,
    echo: Option<HeaderValue>,
    left: Option<Left>,
) {
    let id = || HeaderValue::from_str(&resource.ids.uuid()).expect("a UUID is made of letters and digits");
    let headers = response.headers_mut();
    headers.insert("apim-request-id", id());
    headers.insert("x-request-id", id());
    let region = HeaderValue::from_str(&resource.knobs.region);
    headers.insert("x-ms-region", region.unwrap_or(HeaderValue::from_static("East US")));
    for (name, value) in [
        ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(echo) = echo {
        headers.insert("x-ms-client-request-id", echo);
    }
    let Some(left) = left else { return };
    headers.insert("x-ratelimit-remaining-requests", left.requests.into());
    headers.insert("x-ratelimit-remaining-tokens", left.tokens.into());
    for (name, value) in [
        ("azureml-model-session", "d001-20241120093000"),
        ("x-envoy-upstream-service-time", "1"),
        ("x-ms-rai-invoked", "true"),
        ("x-accel-buffering", "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
