//! Which headers and query parameters go on to a backend, and which come back to the caller.
//!
//! No credential of a caller may ever leave, whatever it is called; nor the marks of the Functions
//! host and of the front end, which tell about the inside.

use http::header::{self, ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

use crate::domain::ids::{Name, RequestId};
use crate::domain::trace::Trace;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const BACKEND_REQUEST_ID: HeaderName = HeaderName::from_static("x-tollgate-backend-request-id");
const BACKEND: HeaderName = HeaderName::from_static("x-tollgate-backend");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-tollgate-attempts");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Concern one connection only (RFC 9110 §7.6.1), and so never go through.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Says who the caller is, or opens something.
fn is_credential(name: &str) -> bool {
    matches!(name, "authorization" | "api-key" | "ocp-apim-subscription-key" | "x-functions-key" | "cookie")
        || name.starts_with("x-ms-client-principal")
        || name.starts_with("x-ms-token-")
}

/// Put there by the Functions host or by Azure's front end.
fn is_mark_of_the_host(name: &str) -> bool {
    const PREFIXES: [&str; 8] = [
        "x-forwarded-",
        "x-azure-",
        "x-appservice-",
        "x-arr-",
        "x-waws-",
        "x-site-deployment-",
        "x-original-",
        "x-identity-",
    ];
    matches!(
        name,
        "x-ms-invocation-id"
            | "forwarded"
            | "disguised-host"
            | "was-default-hostname"
            | "client-ip"
            | "x-real-ip"
            | "max-forwards"
    ) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Made anew for the backend.
fn is_remade(name: &HeaderName) -> bool {
    *name == header::HOST
        || *name == CONTENT_LENGTH
        || *name == ACCEPT_ENCODING
        || *name == header::EXPECT
        || *name == TRACEPARENT
}

/// Whether `name` is named by one of the `Connection` headers, which makes it hop-by-hop.
fn is_named_by_connection(headers: &HeaderMap, name: &str) -> bool {
    headers
        .get_all(CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(name)))
}

/// The headers of a request as a backend gets them; the credential is put in by whoever sends it.
pub(super) fn for_backend(incoming: &HeaderMap, trace: Trace) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(incoming.len());
    let names_others = incoming.contains_key(CONNECTION);
    for (name, value) in incoming {
        let text = name.as_str();
        let stays = is_hop_by_hop(text)
            || is_credential(text)
            || is_mark_of_the_host(text)
            || is_remade(name)
            || (names_others && is_named_by_connection(incoming, text));
        if !stays {
            headers.append(name.clone(), value.clone());
        }
    }
    // A compressed reply could not be metered as it passes.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let trace = trace.to_string();
    headers.insert(TRACEPARENT, HeaderValue::try_from(trace).expect("digits and dashes"));
    headers
}

/// A query without the credentials that the caller or the host may have put there.
pub(super) fn without_caller_marks(query: &str) -> String {
    let mut kept = String::with_capacity(query.len());
    for pair in query.split('&') {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let name = decoded(name);
        if name.eq_ignore_ascii_case("subscription-key") || name.eq_ignore_ascii_case("code") {
            continue;
        }
        if !kept.is_empty() {
            kept.push('&');
        }
        kept.push_str(pair);
    }
    kept
}

/// A parameter's name with its percent signs resolved, so that `%63ode` is `code` here as it is at
/// whoever reads it next.
fn decoded(name: &str) -> std::borrow::Cow<'_, str> {
    if !name.contains('%') {
        return name.into();
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        if let (b'%', Some(byte)) = (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// What the gateway adds to each reply.
pub(super) struct Added<'a> {
    pub(super) request: RequestId,
    /// Who was asked last, and how many requests were sent by then.
    pub(super) backend: Option<(&'a Name, u32)>,
    /// The body's length may change on its way.
    pub(super) is_edited: bool,
}

/// The headers of a backend's reply as the caller gets them.
pub(super) fn for_caller(mut headers: HeaderMap, added: &Added<'_>) -> HeaderMap {
    let backend_request_id = headers.remove(REQUEST_ID);
    let names_others = headers.contains_key(CONNECTION);
    let leaves: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let text = name.as_str();
            is_hop_by_hop(text)
                || text.starts_with("x-ratelimit-")
                || text.starts_with("x-rate-limit-")
                || (names_others && is_named_by_connection(&headers, text))
        })
        .cloned()
        .collect();
    for name in leaves {
        headers.remove(name);
    }
    if added.is_edited {
        headers.remove(CONTENT_LENGTH);
    }
    if let Some(id) = backend_request_id {
        headers.insert(BACKEND_REQUEST_ID, id);
    }
    let text = |text: String| HeaderValue::try_from(text).expect("names and numbers are header values");
    headers.insert(REQUEST_ID, text(added.request.to_string()));
    if let Some((backend, attempts)) = added.backend {
        headers.insert(BACKEND, text(backend.to_string()));
        headers.insert(ATTEMPTS, HeaderValue::from(attempts));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn no_credential_and_no_mark_of_the_host_goes_on() {
        let incoming = map(&[
            ("Api-Key", "secret"),
            ("Authorization", "Bearer secret"),
            ("Ocp-Apim-Subscription-Key", "secret"),
            ("x-functions-key", "secret"),
            ("Cookie", "secret"),
            ("X-MS-CLIENT-PRINCIPAL-NAME", "secret"),
            ("X-MS-TOKEN-AAD-ACCESS-TOKEN", "secret"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Azure-Functions-InvocationId", "1"),
            ("x-ms-invocation-id", "1"),
            ("Host", "gateway"),
            ("Content-Length", "5"),
            ("Accept-Encoding", "gzip"),
            ("Connection", "close, X-Hop"),
            ("X-Hop", "1"),
            ("TE", "trailers"),
            ("User-Agent", "AzureOpenAI/Python"),
            ("x-ms-client-request-id", "7"),
            ("X-Stainless-Lang", "python"),
        ]);
        let trace = Trace { trace_id: 1, span_id: 2, flags: 1 };
        let sent = for_backend(&incoming, trace);
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["accept-encoding", "traceparent", "user-agent", "x-ms-client-request-id", "x-stainless-lang"]
        );
        assert_eq!(sent["accept-encoding"], "identity");
    }

    #[test]
    fn the_query_goes_on_as_it_came_but_for_keys() {
        for (query, sent) in [
            ("api-version=2024-10-21", "api-version=2024-10-21"),
            ("code=x&a=1&a=2%2F&subscription-key=y&b", "a=1&a=2%2F&b"),
            ("Code=x&%63ode=y&subscription%2Dkey=z", ""),
            ("encode=1&codec=2&%zz=3", "encode=1&codec=2&%zz=3"),
        ] {
            assert_eq!(without_caller_marks(query), sent, "{query}");
        }
    }

    #[test]
    fn a_reply_keeps_its_headers_but_for_hops_and_the_backends_limits() {
        let reply = map(&[
            ("content-type", "application/json"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("x-ratelimit-remaining-tokens", "9"),
            ("x-request-id", "theirs"),
            ("apim-request-id", "a"),
            ("x-ms-region", "East US"),
            ("retry-after-ms", "5"),
        ]);
        let request = RequestId::draw();
        let eastus = Name::new("eastus").unwrap();
        let added = Added { request, backend: Some((&eastus, 2)), is_edited: true };
        let headers = for_caller(reply, &added);
        assert_eq!(headers["x-request-id"], request.to_string().as_str());
        assert_eq!(headers["x-tollgate-backend-request-id"], "theirs");
        assert_eq!(headers["x-tollgate-backend"], "eastus");
        assert_eq!(headers["x-tollgate-attempts"], "2");
        for kept in ["content-type", "apim-request-id", "x-ms-region", "retry-after-ms"] {
            assert!(headers.contains_key(kept), "{kept}");
        }
        for gone in ["content-length", "transfer-encoding", "x-ratelimit-remaining-tokens"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }
}
