//! Forwarding mode: the request is rebuilt and the response is read to its end before a byte goes out.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use reqwest::Url;

use super::client::{Body, BoxError};
use super::front::{Call, Front, HOST_VERSION, plain, status};
use super::proxying::strip;

/// Content headers that the rebuilt request has no place for.
const LOST: [&str; 9] = [
    "allow",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-md5",
    "content-range",
    "expires",
    "last-modified",
];
/// functionTimeout and a minute.
const LIMIT: Duration = Duration::from_mins(31);

/// A client that hangs up changes nothing: the exchange runs to its end on its own.
pub(super) async fn pass(front: &Front, call: Call) -> Response<Body> {
    let client = front.client.clone();
    let exchange = front.detached.spawn(async move {
        let request = rebuild(call).await?;
        let is_head = request.method() == Method::HEAD;
        let response = client.send(request).await?;
        buffer(response, is_head).await
    });
    match tokio::time::timeout(LIMIT, exchange).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(error))) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Ok(Err(_)) | Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

async fn rebuild(call: Call) -> Result<Request<Body>, BoxError> {
    let (parts, body) = call.request.into_parts();
    let is_chunked = parts.headers.contains_key(TRANSFER_ENCODING);
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let body = match length {
        // Only a declared length brings the body along.
        Some(1..) => {
            Full::new(body.collect().await?.to_bytes()).map_err(|never| match never {}).boxed_unsync()
        }
        _ if is_chunked => {
            return Err(
                "'Transfer-Encoding: chunked' header can not be used when content object is not specified."
                    .into(),
            );
        }
        _ => Empty::new().map_err(|never| match never {}).boxed_unsync(),
    };
    let query = query(parts.uri.query().unwrap_or_default());
    let mut request = Request::new(body);
    *request.uri_mut() = format!("http://127.0.0.1:{}{}{query}", call.port, parts.uri.path()).parse()?;
    *request.method_mut() = parts.method;
    *request.headers_mut() = headers(parts.headers, &call.invocation)?;
    Ok(request)
}

fn headers(mut headers: HeaderMap, invocation: &str) -> Result<HeaderMap, BoxError> {
    strip(&mut headers);
    for name in LOST {
        headers.remove(name);
    }
    let own = format!("Azure-Functions-Host/{HOST_VERSION}");
    let agent = match headers.get(USER_AGENT) {
        Some(agent) => format!("{} {own}", agent.to_str()?),
        None => own,
    };
    headers.insert(USER_AGENT, agent.parse()?);
    headers.insert("x-azure-functions-hostversion", HOST_VERSION.parse()?);
    // Appended: what a client sent under this name stays.
    headers.append("x-azure-functions-invocationid", invocation.parse()?);
    Ok(headers)
}

/// Rebuilt from a dictionary: the values of a repeated key are joined with commas.
fn query(raw: &str) -> String {
    let url = Url::parse(&format!("http://localhost/?{raw}")).expect("a query makes a URL");
    let mut joined: Vec<(String, String)> = Vec::new();
    for (key, value) in url.query_pairs() {
        match joined.iter_mut().find(|(seen, _)| seen.eq_ignore_ascii_case(&key)) {
            Some((_, values)) => {
                values.push(',');
                values.push_str(&value);
            }
            None => joined.push((key.into_owned(), value.into_owned())),
        }
    }
    if joined.is_empty() {
        return String::new();
    }
    let rebuilt = Url::parse_with_params("http://localhost/", joined).expect("pairs make a query");
    format!("?{}", rebuilt.query().unwrap_or_default().replace('+', "%20"))
}

async fn buffer(response: Response<Incoming>, is_head: bool) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    if is_head || body.is_end_stream() {
        return Ok(Response::from_parts(parts, Empty::new().map_err(|never| match never {}).boxed_unsync()));
    }
    parts.headers.remove(CONTENT_LENGTH);
    let whole = body.collect().await?.to_bytes();
    Ok(Response::from_parts(parts, Full::new(whole).map_err(|never| match never {}).boxed_unsync()))
}

#[test]
fn a_query_is_rebuilt_from_a_dictionary() {
    for (raw, rebuilt) in [
        ("", ""),
        ("api-version=2024-10-21", "?api-version=2024-10-21"),
        ("a=1&b=2&a=3", "?a=1%2C3&b=2"),
        ("q=x%20y+z&p=%2F", "?q=x%20y%20z&p=%2F"),
        ("bare", "?bare="),
    ] {
        assert_eq!(query(raw), rebuilt, "{raw}");
    }
}
